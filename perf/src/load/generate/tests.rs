use super::*;
use crate::load::child;
use crate::load::respond;
use crate::load::{Latency, Load, Place, Scenario};
use clap::{Args, Command, FromArgMatches, ValueEnum};

const PAGE: &str = include_str!("../../../../docs/src/operations/generate.md");

fn parse(words: &[String]) -> Result<Arguments> {
    let command = Arguments::augment_args(Command::new("lockstep-perf"));
    Ok(Arguments::from_arg_matches(
        &command.try_get_matches_from(words)?,
    )?)
}

#[test]
fn what_a_measurement_asks_for_is_what_the_child_is_told() {
    let place = |interface: &str, queue| Place {
        netns: Some(format!("{interface}-netns")),
        interface: interface.to_owned(),
        queue,
    };
    let scenario = Scenario {
        source: place("in0", 1),
        sink: Some(place("out0", 2)),
        cpu: 3,
        observed_cpu: Some(4),
        load: Load {
            protocol: Protocol::Crr,
            destinations: vec![
                "203.0.113.10:80".parse().unwrap(),
                "[::1]:81".parse().unwrap(),
            ],
            sources: vec![
                "198.18.0.2".parse().unwrap(),
                "2001:db8::2".parse().unwrap(),
            ],
            flows: 7,
            sizes: "64:7,1518:1".parse().unwrap(),
            packets_per_second: 123,
            seconds: 0.25,
            path: "/who".to_owned(),
            next_hop: Some(Mac([2, 0, 0, 0, 0, 0xab])),
            sink_ports: vec![8_053],
        },
    };
    // `generate` is the subcommand's name, and so in the place of a program's.
    let told = parse(&child::arguments(&scenario)).unwrap();
    let load = &scenario.load;
    assert_eq!(
        (told.protocol, &told.to, &told.from),
        (load.protocol, &load.destinations, &load.sources)
    );
    assert_eq!(
        (told.at.interface.as_str(), told.at.netns.as_deref()),
        ("in0", Some("in0-netns"))
    );
    assert_eq!(
        (told.sink_interface.as_deref(), told.sink_netns.as_deref()),
        (Some("out0"), Some("out0-netns"))
    );
    assert_eq!(
        (told.at.queue, told.sink_queue, told.at.core),
        (vec![1], vec![2], vec![3])
    );
    assert_eq!(
        (told.observe_core, told.flows, told.size),
        (Some(4), 7, load.sizes.clone())
    );
    assert_eq!((told.packets_per_second, told.seconds), (123, 0.25));
    assert_eq!(
        (told.path, told.next_hop, told.sink_port),
        ("/who".to_owned(), load.next_hop, vec![8_053])
    );
    assert!(told.output == Output::Json && !told.search);
}

#[test]
fn every_command_of_the_page_is_one() {
    let mut seen = 0;
    let blocks = PAGE.split("```sh\n").skip(1);
    for block in blocks.filter_map(|rest| rest.split("```").next()) {
        let joined = block.replace("\\\n", " ");
        for line in joined
            .lines()
            .filter_map(|line| line.strip_prefix("lockstep-perf "))
        {
            let words: Vec<String> = line
                .trim_end_matches(" &")
                .split_whitespace()
                .map(str::to_owned)
                .collect();
            if words[0] == "respond" {
                let command = respond::Arguments::augment_args(Command::new("lockstep-perf"));
                command.try_get_matches_from(&words).unwrap();
            } else {
                let arguments = parse(&words).unwrap_or_else(|error| panic!("{line}: {error}"));
                arguments
                    .check()
                    .unwrap_or_else(|error| panic!("{line}: {error}"));
            }
            seen += 1;
        }
    }
    assert!(seen >= 10, "only {seen} commands were found");
}

#[test]
fn every_line_of_the_table_and_every_field_of_the_json_stands_on_the_page() {
    let outcome = Outcome {
        sent: 2,
        unsent: 1,
        corrupt: Some(1),
        down: vec!["eth0".to_owned()],
        connections: Some(1),
        disconnected: 1,
        foreign: 1,
        observed_cpu_seconds: Some(0.5),
        latency: Some(Latency::default()),
        ..Outcome::default()
    };
    let mut names = BTreeSet::new();
    for protocol in Protocol::value_variants() {
        let words = format!(
            "generate --interface eth0 --sink-interface eth1 --to 192.0.2.1:80 --protocol {} \
             --packets-per-second 10",
            protocol.to_possible_value().unwrap().get_name()
        );
        let words: Vec<String> = words.split_whitespace().map(str::to_owned).collect();
        let table = parse(&words).unwrap().about().table(&outcome);
        // The values stand below each other.
        names.extend(table.lines().map(|line| line[..14].trim_end().to_owned()));
    }
    assert!(names.contains("duplicated") && names.contains("refused"));
    let json = serde_json::to_value(&outcome).unwrap();
    for object in [&json, &json["latency"]] {
        names.extend(object.as_object().unwrap().keys().cloned());
    }
    let rows: Vec<&str> = PAGE.lines().filter(|line| line.starts_with("| ")).collect();
    for name in names {
        let name = format!("`{name}`");
        assert!(
            rows.iter().any(|row| row.contains(&name)),
            "{name} is in no table"
        );
    }
}

#[test]
fn what_cannot_be_is_refused_with_what_to_do() {
    let base = "generate --interface eth0 --to 192.0.2.1:80 --packets-per-second 10";
    for (more, says) in [
        ("--packets-per-second 0", "1 at least"),
        ("--packets-per-second 1000000001", "1,000,000,000 at most"),
        ("--seconds 0", "a day at most"),
        ("--queues 0,1 --cores 2", "one for each queue"),
        ("--queues 0,1,0", "queue 0 is named twice"),
        (
            "--queues 0,1 --sink-interface eth1 --sink-queues 3,3",
            "--sink-queues names each queue once",
        ),
        ("--seconds 0.09", "nothing is due in 0.09 s"),
        ("--seconds 0.19 --queues 0,1", "of 2 threads"),
        (
            "--to [2001:db8::1]:80 --size imix",
            "--size 84:7,570:4,1518:1",
        ),
        ("--queues 0,1 --protocol syn", "ethtool -N"),
        ("--search", "--sink-interface"),
        ("--verify", "--sink-interface"),
        ("--histogram a.hgrm", "--sink-interface"),
        ("--sink-netns there", "name --sink-interface"),
        ("--sink-queues 0", "name --sink-interface"),
        ("--path x", "begins with /"),
        ("--flows 2000000 --protocol rr", "1048576 flows at most"),
        (
            "--sink-interface eth1 --sink-queues 0,1",
            "as many as --queues",
        ),
        (
            "--search --sink-interface eth1 --loss 101",
            "0 to 100 percent",
        ),
    ] {
        let base = match more.starts_with("--packets") {
            true => base.trim_end_matches(" --packets-per-second 10"),
            false => base,
        };
        let words: Vec<String> = format!("{base} {more}")
            .split_whitespace()
            .map(str::to_owned)
            .collect();
        let error = parse(&words).unwrap().check().unwrap_err().to_string();
        assert!(error.contains(says), "{more}: {error}");
    }
    for (more, limit) in [
        ("--wait 3600001", "0..=3600000"),
        ("--wait 18446744073709551615", "0..=3600000"),
        ("--patience 0", "1..=3600000"),
        ("--patience 18446744073710", "1..=3600000"),
    ] {
        let words: Vec<String> = format!("{base} {more}")
            .split_whitespace()
            .map(str::to_owned)
            .collect();
        let error = parse(&words).unwrap_err().to_string();
        assert!(error.contains(limit), "{more}: {error}");
    }
    for ports in ["0-5", "9-8", "x", "1-70000"] {
        assert!(super::ports(ports).is_err(), "{ports}");
    }
    assert_eq!(super::ports("80"), Ok(80..=80));
}

#[test]
fn the_sink_takes_no_more_ports_than_its_program_does() {
    let words = "generate --interface eth0 --to 192.0.2.1:80 --packets-per-second 10 --sink-port";
    let words = |ports: &str| -> Vec<String> {
        format!("{words} {ports}")
            .split_whitespace()
            .map(str::to_owned)
            .collect()
    };
    let wanted = parse(&words("81,82")).unwrap().arrivals().unwrap();
    let ports: Vec<u16> = wanted
        .ports
        .iter()
        .map(|(_, range)| *range.start())
        .collect();
    assert_eq!((ports, wanted.tunnels), (vec![80, 81, 82, 6_080], true));
    let error = parse(&words("1,2,3,4,5,6,7"))
        .unwrap()
        .arrivals()
        .unwrap_err();
    assert!(error.to_string().contains("8 UDP ports at most"), "{error}");
}
