//! What the load generator says of TCP: of SYNs, of requests and of connections, from real servers and
//! from its own responder.

use crate::traffic::{DEVICE, PORT, Path, SOON, answering, finished, generate, number};
use anyhow::{Context, Result, ensure};
use lockstep_tests::lab::{
    CLIENT_V4, Forwarding, Lab, Process, VIP_V4, VIP_V6, Version, find_binary, router_rack_v4,
    scenario,
};
use nix::sys::signal::Signal;
use serde_json::Value;

/// A load of TCP from the lab's client: nothing of it is lost.
fn transactions(lab: &Lab, protocol: &str, to: &str, more: &str) -> Result<()> {
    let client = lab.client.netns().name();
    let child = generate(&format!(
        "--protocol {protocol} --netns {client} --interface {DEVICE} --to {to} --flows 64 \
         --packets-per-second 200 --seconds 1 --wait 3000 {more}"
    ))?;
    let outcome = finished(child).with_context(|| format!("{protocol} to {to}"))?;
    let (sent, received) = (number(&outcome, "sent"), number(&outcome, "received"));
    ensure!(
        sent >= 150 && received == sent,
        "{protocol} to {to}: {outcome}"
    );
    for name in ["lost", "resets", "errors"] {
        ensure!(
            number(&outcome, name) == 0,
            "{protocol} to {to}: {name}: {outcome}"
        );
    }
    Ok(())
}

#[test]
fn scenario_transactions_syns_requests_and_connections_to_nginx_directly_and_by_nat() {
    scenario(&Lab::builder().servers(2), |lab| {
        let v4 = Forwarding::Nat.service("v4", Version::V4, &["80/tcp"], &[0, 1], "");
        let v6 = Forwarding::Nat.service("v6", Version::V6, &["80/tcp"], &[0, 1], "");
        lab.start_forwarding(Forwarding::Nat, &(v4 + &v6))?;
        let vips = format!("{VIP_V4}:80,[{VIP_V6}]:80");
        for protocol in ["syn", "rr", "crr"] {
            transactions(lab, protocol, &vips, "")?;
        }
        let requests: u64 = lab.requests()?.iter().sum();
        ensure!(requests >= 300, "nginx answered {requests} requests");
        // Nobody listens there, and the kernel of the server says so.
        let server = &lab.servers[0];
        server.netns().ip(&format!(
            "route replace {CLIENT_V4} via {}",
            router_rack_v4()
        ))?;
        let client = lab.client.netns().name();
        let outcome = finished(generate(&format!(
            "--protocol syn --netns {client} --interface {DEVICE} --to {}:81 \
             --packets-per-second 100 --seconds 0.5",
            server.v4()
        ))?)?;
        let (sent, resets) = (number(&outcome, "sent"), number(&outcome, "resets"));
        ensure!(sent > 30 && resets == sent, "{outcome}");
        transactions(lab, "crr", &format!("{}:80", server.v4()), "")
    });
}

#[test]
fn scenario_transactions_the_responder_does_not_answer_what_is_wrong() {
    let path = Path::routed().unwrap();
    // Every fifth segment to it gets another window, and keeps its checksum.
    let spoil = "table inet spoil { chain forward { type filter hook forward priority 0; \
                 tcp dport 80 numgen inc mod 5 == 0 @th,112,16 set 0x1234\n}\n}";
    path.between.output("nft", &[spoil]).unwrap();
    let mut command = path.sink.command(find_binary("lockstep-perf").unwrap());
    command.args([
        "respond",
        "--interface",
        DEVICE,
        "--ports",
        "80",
        "--verify",
    ]);
    let mut responder = answering(path.sink.spawn("respond", command).unwrap()).unwrap();
    let outcome = finished(
        generate(&format!(
            "--protocol crr --netns {} --interface {DEVICE} --to 198.19.0.2:80 --verify --patience 50 \
             --flows 200 --packets-per-second 50 --seconds 1 --wait 5000",
            path.source.name()
        ))
        .unwrap(),
    )
    .unwrap();
    assert!(number(&outcome, "retransmitted") > 5, "{outcome}");
    assert_eq!(number(&outcome, "corrupt"), 0, "{outcome}");
    responder.signal(Signal::SIGINT).unwrap();
    responder.wait(SOON).unwrap();
    let log = responder.log();
    let (_, count) = log.rsplit_once("ring, ").unwrap();
    let (count, _) = count.split_once(" packets had a wrong checksum").unwrap();
    assert!(count.parse::<u64>().unwrap() > 5, "{log}");
}

#[test]
fn scenario_transactions_fewer_connections_than_asked_for_are_an_error() {
    let path = Path::routed().unwrap();
    // One of four source ports is refused on the way.
    let refuse = "table inet refuse { chain forward { type filter hook forward priority 0; \
                  tcp sport 10003 reject with tcp reset\n}\n}";
    path.between.output("nft", &[refuse]).unwrap();
    let mut command = path.sink.command(find_binary("lockstep-perf").unwrap());
    command.args(["respond", "--interface", DEVICE, "--ports", "80"]);
    let _responder = answering(path.sink.spawn("respond", command).unwrap()).unwrap();
    let requests = |ports: &str, flows: u32| {
        let child = generate(&format!(
            "--protocol rr --netns {} --interface {DEVICE} --to 198.19.0.2:80 --source-ports {ports} \
             --flows {flows} --packets-per-second 200 --seconds 0.5 --observe-core 0 --wait 3000",
            path.source.name()
        ));
        let output = child.unwrap().wait_with_output().unwrap();
        let outcome: Value = serde_json::from_slice(&output.stdout).unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        (output.status.code(), outcome, said)
    };
    let (code, outcome, said) = requests("10000-10002", 3);
    assert_eq!((code, said.as_str()), (Some(0), ""), "{outcome}");
    assert_eq!(number(&outcome, "connections"), 3, "{outcome}");
    // The CPU is that of the sending, however long the wait is.
    let busy = outcome["observed_cpu_seconds"].as_f64().unwrap();
    let seconds = outcome["seconds"].as_f64().unwrap();
    assert!(busy <= seconds && seconds < 1.0, "{outcome}");
    // What was measured is told all the same.
    let (code, outcome, said) = requests("10000-10003", 4);
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("3 of 4 connections"), "{said}");
    assert_eq!(number(&outcome, "connections"), 3, "{outcome}");
    assert!(number(&outcome, "received") > 50, "{outcome}");
}

/// The responder in a server's place, for the VIPs.
fn respond(lab: &Lab) -> Result<Process> {
    let server = lab.servers[0].netns();
    // It takes off what the program would.
    let detach = ["decap", "detach", DEVICE];
    let lockstep = find_binary("lockstep")?.display().to_string();
    server.output(&lockstep, &detach)?;
    let mut command = server.command(find_binary("lockstep-perf")?);
    command.args([
        "respond",
        "--interface",
        DEVICE,
        "--tunnels",
        "--ports",
        "80-81",
    ]);
    command.args(["--next-hop", &router_rack_v4().to_string()]);
    answering(server.spawn("respond", command)?)
}

#[test]
fn scenario_transactions_through_tunnels_to_the_responder() {
    scenario(&Lab::builder().servers(1), |lab| {
        let ipip = Forwarding::Ipip.service("v4", Version::V4, &["80/tcp", "80/udp"], &[0], "");
        let gue = Forwarding::Gue.service("v6", Version::V6, &["81/tcp", "81/udp"], &[0], "");
        lab.start_lockstep(&(ipip + &gue))?;
        let mut responder = respond(lab)?;
        let vips = format!("{VIP_V4}:80,[{VIP_V6}]:81");
        for protocol in ["syn", "rr", "crr"] {
            transactions(lab, protocol, &vips, "")?;
        }
        // The echoes come back to where the datagrams left.
        transactions(
            lab,
            "udp",
            &vips,
            &format!("--size 200 --sink-interface {DEVICE}"),
        )?;
        responder.must_run()
    });
}

#[test]
fn scenario_transactions_tunnels_end_at_the_sink() {
    scenario(&Lab::builder().servers(1), |lab| {
        let ipip = Forwarding::Ipip.service("v4", Version::V4, &["9000/udp"], &[0], "");
        let gue = Forwarding::Gue.service("v6", Version::V6, &["9000/udp"], &[0], "");
        lab.start_lockstep(&(ipip + &gue))?;
        let server = lab.servers[0].netns();
        let lockstep = find_binary("lockstep")?.display().to_string();
        server.output(&lockstep, &["decap", "detach", DEVICE])?;
        let vips = format!("{VIP_V4}:{PORT},[{VIP_V6}]:{PORT}");
        let sink = format!(
            "--sink-netns {} --sink-interface {DEVICE} --size 200",
            server.name()
        );
        transactions(lab, "udp", &vips, &sink)
    });
}
