//! The load generator: what it says of a path about which everything is known.

use anyhow::{Context, Result, ensure};
use lockstep_tests::lab::{
    End, Fate, Netns, Process, Run, Wire, connect, find_binary, server_v4, wait_until,
};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;
use std::net::IpAddr;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

pub const DEVICE: &str = "eth0";
pub const SOON: Duration = Duration::from_secs(10);
const STALL: Duration = Duration::from_millis(100);
pub const PORT: u16 = 9_000;

/// A source and a sink, and what is between them.
pub struct Path {
    pub source: Netns,
    pub between: Netns,
    pub sink: Netns,
    run: Arc<Run>,
}

impl Path {
    /// Two links with so many queues, up, without addresses.
    fn new(queues: usize) -> Result<Self> {
        let run = Arc::new(Run::start()?);
        let path = Path {
            source: Netns::new(&run, "source")?,
            between: Netns::new(&run, "between")?,
            sink: Netns::new(&run, "sink")?,
            run,
        };
        let end = |netns, device| End {
            netns,
            device,
            queues,
        };
        connect(
            &end(&path.source, DEVICE),
            &end(&path.between, "near"),
            3_506,
        )?;
        connect(&end(&path.between, "far"), &end(&path.sink, DEVICE), 3_506)?;
        Ok(path)
    }

    /// With a router between them.
    pub fn routed() -> Result<Self> {
        Self::routed_by(1)
    }

    fn routed_by(queues: usize) -> Result<Self> {
        let path = Self::new(queues)?;
        for (netns, device, number, host) in [
            (&path.source, DEVICE, 18, 2),
            (&path.between, "near", 18, 1),
            (&path.between, "far", 19, 1),
            (&path.sink, DEVICE, 19, 2),
        ] {
            netns.ip(&format!("addr add 198.{number}.0.{host}/24 dev {device}"))?;
            netns.ip(&format!(
                "addr add 2001:db8:{number}::{host}/64 dev {device} nodad"
            ))?;
        }
        path.between.sysctl(&[
            ("net.ipv4.ip_forward", "1"),
            ("net.ipv6.conf.all.forwarding", "1"),
        ])?;
        for (netns, number) in [(&path.source, 18), (&path.sink, 19)] {
            netns.ip(&format!("route add default via 198.{number}.0.1"))?;
            netns.ip(&format!("route add default via 2001:db8:{number}::1"))?;
        }
        Ok(path)
    }

    /// With a wire between them: one network.
    fn wired() -> Result<(Self, Wire)> {
        let path = Self::new(1)?;
        path.source
            .ip(&format!("addr add 198.18.0.2/24 dev {DEVICE}"))?;
        path.sink
            .ip(&format!("addr add 198.18.0.3/24 dev {DEVICE}"))?;
        let wire = Wire::open(&path.between, "near", "far")?;
        Ok((path, wire))
    }

    /// Datagrams from the source to the sink.
    fn datagrams(&self, more: &str) -> Result<Value> {
        finished(self.start(more)?)
    }

    fn start(&self, more: &str) -> Result<Child> {
        let (source, sink) = (self.source.name(), self.sink.name());
        generate(&format!(
            "--netns {source} --interface {DEVICE} --sink-netns {sink} --sink-interface {DEVICE} \
             {more}"
        ))
    }
}

/// Starts the generator, whose outcome goes to its standard output.
pub fn generate(words: &str) -> Result<Child> {
    let mut command = Command::new(find_binary("lockstep-perf")?);
    command.args(["generate", "--output", "json"]);
    command.args(words.split_whitespace()).stdin(Stdio::null());
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    command.spawn().context("cannot start the generator")
}

pub fn finished(child: Child) -> Result<Value> {
    let output = child.wait_with_output()?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "the generator failed: {said}");
    serde_json::from_slice(&output.stdout).context("the generator wrote no JSON")
}

pub fn number(outcome: &Value, name: &str) -> u64 {
    outcome[name].as_u64().unwrap()
}

fn latency_ms(outcome: &Value, name: &str) -> f64 {
    outcome["latency"][name].as_f64().unwrap() / 1e3
}

/// Waits until so many more frames have come to the sink.
fn arrived(path: &Path, frames: u64) -> Result<()> {
    let count = || -> Result<u64> {
        let links = path
            .sink
            .ip_json(&format!("-statistics link show dev {DEVICE}"))?;
        links[0]["stats64"]["rx"]["packets"]
            .as_u64()
            .context("no statistics")
    };
    let before = count()?;
    wait_until("packets arrive", SOON, || {
        Ok((count()? >= before + frames).then_some(()))
    })
}

/// Whether a frame is one of the load's.
fn is_of_the_load(frame: &[u8]) -> bool {
    frame.get(12..14) == Some(&[0x08, 0x00]) && frame.get(36..38) == Some(&PORT.to_be_bytes())
}

#[test]
fn scenario_traffic_every_tenth_packet_that_is_dropped_is_counted() {
    let path = Path::routed().unwrap();
    let lose = format!(
        "table inet lose {{ chain forward {{ type filter hook forward priority 0; \
         udp dport {PORT} numgen inc mod 10 == 0 drop\n}}\n}}"
    );
    path.between.output("nft", &[&lose]).unwrap();
    let file = path.run.dir().join("latency.hgrm");
    let outcome = path
        .datagrams(&format!(
            "--to 198.19.0.2:{PORT},[2001:db8:19::2]:{PORT} --size 84:7,570:4,3520:1 --flows 100 \
             --packets-per-second 2000 --seconds 1 --histogram {}",
            file.display()
        ))
        .unwrap();
    let sent = number(&outcome, "sent");
    assert_eq!(sent + number(&outcome, "unsent"), 2_000, "{outcome}");
    assert!(sent > 1_000, "{outcome}");
    assert_eq!(number(&outcome, "lost"), sent.div_ceil(10), "{outcome}");
    assert_eq!(
        number(&outcome, "received"),
        sent - sent.div_ceil(10),
        "{outcome}"
    );
    for name in ["reordered", "duplicated", "foreign"] {
        assert_eq!(number(&outcome, name), 0, "{name}: {outcome}");
    }
    let percentiles = std::fs::read_to_string(file).unwrap();
    let received = number(&outcome, "received");
    assert!(
        percentiles.contains(&format!("Total count    = {received:12}]")),
        "{percentiles}"
    );
    // It leaves nothing on the interfaces.
    for netns in [&path.source, &path.sink] {
        let link = netns
            .ip_json(&format!("-details link show dev {DEVICE}"))
            .unwrap();
        assert_eq!(link[0]["xdp"], Value::Null, "{link}");
    }
}

#[test]
fn scenario_traffic_the_highest_rate_that_is_carried_is_found() {
    let path = Path::routed().unwrap();
    // A policer: 500 packets a second, and as many at once as make no difference.
    let police = format!(
        "table inet police {{ chain forward {{ type filter hook forward priority 0; \
         udp dport {PORT} limit rate over 500/second burst 5 packets drop\n}}\n}}"
    );
    path.between.output("nft", &[&police]).unwrap();
    let found = path
        .datagrams(&format!(
            "--to 198.19.0.2:{PORT} --packets-per-second 1600 --seconds 0.4 --search --wait 100 --loss 4 \
             --resolution 10"
        ))
        .unwrap();
    let rate = found["rate"].as_u64().unwrap();
    let trials = found["trials"].as_array().unwrap();
    assert!((300..=600).contains(&rate) && trials.len() >= 3, "{found}");
    assert!(number(&trials[0], "lost") > 100, "{found}");
}

#[test]
fn scenario_traffic_what_comes_late_or_twice_is_counted() {
    let (path, wire) = Path::wired().unwrap();
    let mut count = 0_u64;
    let fate = move |frame: &[u8]| {
        if !is_of_the_load(frame) {
            return Fate::Pass;
        }
        count += 1;
        // With ten flows and a hundred packets, one flow has the late ones, another those that come
        // twice, and a third the lost ones.
        match count % 100 {
            1 => Fate::Behind(25),
            42 => Fate::Twice,
            83 => Fate::Drop,
            _ => Fate::Pass,
        }
    };
    let outcome = wire
        .while_carrying(fate, || {
            path.datagrams(&format!(
                "--to 198.18.0.3:{PORT} --flows 10 --packets-per-second 1000 --seconds 1 --wait 2000"
            ))
        })
        .unwrap();
    let sent = number(&outcome, "sent");
    assert!(sent > 500, "{outcome}");
    let of = |at: u64| sent / 100 + u64::from(sent % 100 >= at);
    assert_eq!(number(&outcome, "lost"), of(83), "{outcome}");
    assert_eq!(number(&outcome, "duplicated"), of(42), "{outcome}");
    // One that would be behind packets that never came is behind none of its flow.
    let reordered = number(&outcome, "reordered");
    assert!((of(1) - 1..=of(1)).contains(&reordered), "{outcome}");
}

#[test]
fn scenario_traffic_a_stall_of_the_path_shows_in_the_latency() {
    let (path, wire) = Path::wired().unwrap();
    let mut count = 0;
    let fate = move |frame: &[u8]| {
        count += u64::from(is_of_the_load(frame));
        match count {
            500 => Fate::At(Instant::now() + STALL),
            _ => Fate::Pass,
        }
    };
    let outcome = wire
        .while_carrying(fate, || {
            path.datagrams(&format!(
                "--to 198.18.0.3:{PORT} --packets-per-second 1000 --seconds 1 --wait 2000"
            ))
        })
        .unwrap();
    // A tenth of them came in its time: the first waited for all of it, the last for nothing.
    assert_eq!(number(&outcome, "lost"), 0, "{outcome}");
    assert!(latency_ms(&outcome, "max_us") >= 95.0, "{outcome}");
    assert!(latency_ms(&outcome, "p99_us") >= 70.0, "{outcome}");
}

#[test]
fn scenario_traffic_what_the_generator_sends_late_counts_from_when_it_was_due() {
    let path = Path::routed().unwrap();
    let child = path
        .start(&format!(
            "--to 198.19.0.2:{PORT} --packets-per-second 1000 --seconds 3 --wait 2000"
        ))
        .unwrap();
    let pid = Pid::from_raw(child.id().try_into().unwrap());
    arrived(&path, 300).unwrap();
    kill(pid, Signal::SIGSTOP).unwrap();
    let stopped = Instant::now();
    wait_until("it was stopped for a while", SOON, || {
        Ok((stopped.elapsed() >= 2 * STALL).then_some(()))
    })
    .unwrap();
    kill(pid, Signal::SIGCONT).unwrap();
    let outcome = finished(child).unwrap();
    // Nothing is left out: what was due meanwhile was sent afterwards, and is as late as that.
    let (sent, unsent) = (number(&outcome, "sent"), number(&outcome, "unsent"));
    assert_eq!(
        (sent + unsent, number(&outcome, "lost")),
        (3_000, 0),
        "{outcome}"
    );
    assert!(sent > 2_700, "{outcome}");
    assert!(latency_ms(&outcome, "max_us") >= 190.0, "{outcome}");
    assert!(latency_ms(&outcome, "p99_us") >= 100.0, "{outcome}");
}

#[test]
fn scenario_traffic_by_two_threads_on_two_queues() {
    let path = Path::routed_by(2).unwrap();
    let outcome = path
        .datagrams(&format!(
            "--to 198.19.0.2:{PORT},[2001:db8:19::2]:{PORT} --size 84 --flows 7 --queues 0,1 \
             --cores 0,1 --packets-per-second 999 --seconds 1 --wait 2000"
        ))
        .unwrap();
    let (sent, unsent) = (number(&outcome, "sent"), number(&outcome, "unsent"));
    assert!(sent + unsent == 999 && sent > 700, "{outcome}");
    for name in ["lost", "reordered", "duplicated", "foreign"] {
        assert_eq!(number(&outcome, name), 0, "{name}: {outcome}");
    }
}

#[test]
fn scenario_traffic_an_interface_has_one_generator_at_a_time() {
    let path = Path::routed().unwrap();
    let long = format!("--to 198.19.0.2:{PORT} --packets-per-second 500 --seconds 4 --wait 2000");
    let first = path.start(&long).unwrap();
    let program = || -> Result<Option<u64>> {
        let link = path
            .sink
            .ip_json(&format!("-details link show dev {DEVICE}"))?;
        Ok(link[0]["xdp"]["prog"]["id"].as_u64())
    };
    let before = wait_until("the first has attached its program", SOON, program).unwrap();
    let mut other = path.sink.command(find_binary("lockstep-perf").unwrap());
    other.args(["respond", "--interface", DEVICE, "--ports", "80"]);
    let output = other.output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    let who = format!(
        "another lockstep-perf takes its packets (process {})",
        first.id()
    );
    assert!(!output.status.success() && said.contains(&who), "{said}");
    assert_eq!(program().unwrap(), Some(before), "it was replaced");
    let outcome = finished(first).unwrap();
    assert_eq!(number(&outcome, "lost"), 0, "{outcome}");
    // What a killed one leaves does not keep others away.
    let mut killed = path.start(&long).unwrap();
    let left = wait_until("it has attached its program", SOON, program).unwrap();
    killed.kill().unwrap();
    killed.wait().unwrap();
    assert_eq!(
        program().unwrap(),
        Some(left),
        "killed, it detaches nothing"
    );
    let short = format!("--to 198.19.0.2:{PORT} --packets-per-second 100 --seconds 0.5");
    let outcome = path.datagrams(&short).unwrap();
    assert_eq!(number(&outcome, "lost"), 0, "{outcome}");
    assert_eq!(program().unwrap(), None);
}

#[test]
fn scenario_traffic_results_that_nobody_takes_leave_nothing_behind() {
    let path = Path::routed().unwrap();
    let (source, sink) = (path.source.name(), path.sink.name());
    let run = |output: Stdio| {
        let mut command = Command::new(find_binary("lockstep-perf").unwrap());
        let words = format!(
            "generate --netns {source} --interface {DEVICE} --sink-netns {sink} --sink-interface {DEVICE} \
             --to 198.19.0.2:{PORT} --packets-per-second 100 --seconds 0.2"
        );
        command.args(words.split_whitespace()).stdin(Stdio::null());
        let output = command.stdout(output).stderr(Stdio::piped());
        let output = output.spawn().unwrap().wait_with_output().unwrap();
        let link = path
            .sink
            .ip_json(&format!("-details link show dev {DEVICE}"))
            .unwrap();
        assert_eq!(link[0]["xdp"], Value::Null, "{link}");
        (
            output.status.code(),
            String::from_utf8_lossy(&output.stderr).into_owned(),
        )
    };
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    assert_eq!(run(writer.into()), (Some(0), String::new()));
    let full = std::fs::OpenOptions::new().write(true).open("/dev/full");
    let (code, said) = run(full.unwrap().into());
    assert!(
        code == Some(1) && said.contains("No space left") && said.contains("standard output"),
        "{code:?}: {said}"
    );
}

#[test]
fn scenario_traffic_what_is_on_the_way_at_ctrl_c_is_not_lost() {
    let (path, wire) = Path::wired().unwrap();
    // It stalls for half a second again and again: some packets are always on the way.
    let far = |frame: &[u8]| match is_of_the_load(frame) {
        true => Fate::At(Instant::now() + 5 * STALL),
        false => Fate::Pass,
    };
    let ended = |signals: usize| {
        wire.while_carrying(far, || {
            let child = path.start(&format!(
                "--to 198.18.0.3:{PORT} --packets-per-second 300 --seconds 60 --wait 10000"
            ))?;
            let pid = Pid::from_raw(child.id().try_into()?);
            arrived(&path, 300)?;
            for _ in 0..signals {
                kill(pid, Signal::SIGINT)?;
                // Two of one kind that wait are one.
                wait_until("the signal is taken", SOON, || {
                    let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
                    let pending = status.lines().find_map(|line| line.strip_prefix("ShdPnd:"));
                    let pending = pending.context("no signals")?.trim();
                    Ok((u64::from_str_radix(pending, 16)? == 0).then_some(()))
                })?;
            }
            finished(child)
        })
        .unwrap()
    };
    let outcome = ended(1);
    assert!(number(&outcome, "sent") < 6_000, "{outcome}");
    assert_eq!(number(&outcome, "lost"), 0, "{outcome}");
    let outcome = ended(2);
    assert!(number(&outcome, "lost") > 0, "{outcome}");
}

#[test]
fn scenario_traffic_a_link_that_goes_down_is_told() {
    let path = Path::routed().unwrap();
    for (netns, device) in [(&path.source, DEVICE), (&path.between, "far")] {
        let child = path.start(&format!(
            "--to 198.19.0.2:{PORT} --packets-per-second 200 --seconds 2 --wait 100"
        ));
        arrived(&path, 100).unwrap();
        netns.ip(&format!("link set {device} down")).unwrap();
        let output = child.unwrap().wait_with_output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{said}");
        assert!(said.contains("eth0 went down while"), "{said}");
        // What was measured is told all the same.
        let outcome: Value = serde_json::from_slice(&output.stdout).unwrap();
        assert_eq!(outcome["down"], serde_json::json!([DEVICE]), "{outcome}");
        netns.ip(&format!("link set {device} up")).unwrap();
        path.source
            .ip("route replace default via 198.18.0.1")
            .unwrap();
    }
}

#[test]
fn scenario_traffic_a_checksum_that_is_wrong_is_seen_if_it_is_looked_for() {
    let path = Path::routed().unwrap();
    // Every tenth packet gets other bytes behind its stamp, and keeps its checksum.
    let spoil = format!(
        "table inet spoil {{ chain forward {{ type filter hook forward priority 0; \
         udp dport {PORT} numgen inc mod 10 == 0 @th,800,16 set 0x1234\n}}\n}}"
    );
    path.between.output("nft", &[&spoil]).unwrap();
    let load = format!("--to 198.19.0.2:{PORT} --size 200 --packets-per-second 500 --seconds 1");
    let outcome = path.datagrams(&load).unwrap();
    assert_eq!(outcome["corrupt"], Value::Null, "{outcome}");
    assert_eq!(number(&outcome, "lost"), 0, "{outcome}");
    let outcome = path.datagrams(&format!("{load} --verify")).unwrap();
    let (sent, corrupt) = (number(&outcome, "sent"), number(&outcome, "corrupt"));
    // The rule goes on counting where it was.
    let tenth = sent / 10..=sent.div_ceil(10);
    assert!(sent > 400 && tenth.contains(&corrupt), "{outcome}");
    assert_eq!(number(&outcome, "lost"), corrupt, "{outcome}");
    assert_eq!(number(&outcome, "foreign"), 0, "{outcome}");
}

/// What the page says to try, on the network that it says it for.
#[test]
fn scenario_traffic_the_page_s_commands() {
    const PAGE: &str = include_str!("../../../docs/src/operations/generate.md");
    let path = Path::routed().unwrap();
    let (_, section) = PAGE.split_once("## Try it on one host").unwrap();
    let (_, block) = section.split_once("```sh\n").unwrap();
    let (block, _) = block.split_once("```").unwrap();
    let (source, sink) = (path.source.name(), path.sink.name());
    let file = path.run.dir().join("latency.hgrm").display().to_string();
    let block = block
        .replace("\\\n", " ")
        .replace("netns source", &format!("netns {source}"))
        .replace("netns sink", &format!("netns {sink}"))
        .replace("latency.hgrm", &file);
    let mut responder = None;
    let mut tables = Vec::new();
    for line in block
        .lines()
        .filter(|line| line.starts_with("lockstep-perf"))
    {
        let words: Vec<&str> = line
            .split_whitespace()
            .skip(1)
            .filter(|word| *word != "&")
            .collect();
        if words[0] == "respond" {
            let mut command = path.sink.command(find_binary("lockstep-perf").unwrap());
            command.args(&words);
            responder = Some(answering(path.sink.spawn("respond", command).unwrap()).unwrap());
            continue;
        }
        let mut command = Command::new(find_binary("lockstep-perf").unwrap());
        let output = command.args(&words).output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{line}: {said}");
        tables.push(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    assert_eq!(tables.len(), 4);
    assert!(
        tables[0].contains("latency p50") && tables[0].contains("packets/s"),
        "{}",
        tables[0]
    );
    let outcome: Value = serde_json::from_str(&tables[1]).unwrap();
    assert!(number(&outcome, "received") > 100, "{outcome}");
    assert!(std::fs::read_to_string(file).unwrap().contains("#[Max"));
    assert!(tables[2].contains("highest rate"), "{}", tables[2]);
    assert!(tables[3].contains("connections/s"), "{}", tables[3]);
    // It says how much it did when it is told to end.
    let mut responder = responder.unwrap();
    responder.signal(Signal::SIGINT).unwrap();
    responder.wait(SOON).unwrap();
    assert!(
        responder.log().contains("requests answered"),
        "{}",
        responder.log()
    );
}

/// Waits until a responder answers.
pub fn answering(mut process: Process) -> Result<Process> {
    wait_until("the responder answers", SOON, || {
        process.must_run()?;
        Ok(process.log().contains("answering on").then_some(()))
    })?;
    Ok(process)
}

#[test]
fn scenario_traffic_errors_say_what_to_do() {
    let path = Path::routed().unwrap();
    let source = path.source.name();
    let to = IpAddr::from(server_v4(0));
    for (words, says) in [
        (
            format!("--netns none --interface {DEVICE} --to {to}:1"),
            "`ip netns list`",
        ),
        (
            format!("--netns {source} --interface eth7 --to {to}:1"),
            "`ip link`",
        ),
        (
            format!("--netns {source} --interface {DEVICE} --to 198.18.0.77:1"),
            "--next-hop",
        ),
        (
            format!(
                "--netns {source} --interface {DEVICE} --to {to}:1 --sink-interface eth7 \
                 --next-hop 02:00:00:00:00:01"
            ),
            "--sink-netns",
        ),
        (
            format!("--netns {source} --interface {DEVICE} --to {to}:1 --size 3600"),
            "MTU of 3506",
        ),
        (
            format!("--netns {source} --interface {DEVICE} --to [::1]:1"),
            "84 bytes at least",
        ),
        (
            format!(
                "--netns {source} --interface {DEVICE} --to {to}:1 --queue 7 --next-hop 02:00:00:00:00:01"
            ),
            "no such queue",
        ),
        (
            format!("--netns {source} --interface {DEVICE} --to {to}:1 --protocol rr --queues 0,1"),
            "ethtool -N",
        ),
    ] {
        let child = generate(&format!("{words} --packets-per-second 10 --seconds 0.2")).unwrap();
        let output = child.wait_with_output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(
            !output.status.success() && said.contains(says),
            "{words}: {said}"
        );
    }
}
