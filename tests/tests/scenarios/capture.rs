//! `lockstep capture` while real clients connect: what the file says of each packet is what
//! happened to it.

use anyhow::{Context, Result, ensure};
use etherparse::{NetSlice, SlicedPacket, TransportSlice};
use lockstep_tests::lab::{Capture, Captured, Lab, Version, scenario, service, wait_until};
use std::net::SocketAddrV4;
use std::time::Duration;

const SOON: Duration = Duration::from_secs(10);

#[test]
fn scenario_a_capture_says_of_each_packet_where_it_went() {
    scenario(&Lab::builder(), |lab| {
        let on = |name, port, servers| service(name, Version::V4, &[port], Version::V4, servers);
        lab.start_lockstep(&(on("web", "80/tcp", &[0, 1]) + &on("other", "81/tcp", &[2])))?;
        let balancer = &lab.balancers[0];
        // No new flow finds a backend any more.
        balancer.cli(&["drain", "s3", "--deadline", "0s"])?;
        let mut capture = Capture::begin(balancer, "all", &[])?;
        let second = balancer.run(&["capture", "--count", "1"])?;
        let says = String::from_utf8_lossy(&second.stderr);
        ensure!(
            second.status.code() == Some(1) && says.contains("another capture is running"),
            "{second:?}"
        );

        let mut answered = Vec::new();
        for _ in 0..8 {
            answered.push(lab.client.get(Version::V4.vip())?.body.trim().to_owned());
        }
        let refused = format!("http://{}:81/", Version::V4.vip());
        let args = ["-sS", "--max-time", "1", &refused];
        ensure!(lab.client.netns().output("curl", &args).is_err());

        let packets = end(&mut capture)?;
        let connections = connections(&packets)?;
        let went: Vec<String> = connections
            .iter()
            .map(|packets| server(packets))
            .collect::<Result<_>>()?;
        ensure!(
            went == answered,
            "{went:?} by the capture, {answered:?} answered"
        );
        let dropped: Vec<&Packet> = packets.iter().filter(|p| p.to.port() == 81).collect();
        ensure!(!dropped.is_empty(), "no packet to port 81 was captured");
        for packet in dropped {
            ensure!(
                packet
                    .comment
                    .starts_with("drop no_backend, service other\n"),
                "{packet:?}"
            );
        }
        tcpdump_reads(&capture, packets.len())
    });
}

#[test]
fn scenario_a_capture_is_filtered_and_bounded_and_leaves_nothing_behind() {
    scenario(&Lab::builder().servers(1), |lab| {
        lab.start_lockstep(&service("web", Version::V4, &["80/tcp"], Version::V4, &[0]))?;
        let balancer = &lab.balancers[0];
        let get = || lab.client.get(Version::V4.vip());
        let nothing = [
            ["--vip", "203.0.113.10:81"],
            ["--client", "203.0.113.0/24"],
            ["--reason", "any"],
        ];
        for filter in nothing {
            let mut capture = Capture::begin(balancer, filter[0], &filter)?;
            get()?;
            let packets = end(&mut capture)?;
            ensure!(packets.is_empty(), "{filter:?}: {packets:?}");
        }
        let exact = [
            "--vip",
            "203.0.113.10:80/tcp",
            "--client",
            "198.51.100.0/24",
            "--count",
            "3",
        ];
        let mut capture = Capture::begin(balancer, "exact", &exact)?;
        get()?;
        // By itself, after three packets.
        let process = capture.process();
        ensure!(process.wait(SOON)?.success(), "{}", process.log());
        ensure!(process.log().contains("3 packets"), "{}", process.log());
        let packets: Vec<Packet> = capture.read()?.iter().map(packet).collect::<Result<_>>()?;
        ensure!(packets.len() == 3, "{packets:?}");
        ensure!(
            packets.iter().all(|p| p
                .comment
                .starts_with("forward to s1 (10.0.1.11), service web\n")),
            "{packets:?}"
        );

        // A client that is killed says nothing: the engine sees to it that the next one can.
        let mut capture = Capture::begin(balancer, "killed", &[])?;
        capture.process().kill()?;
        wait_until("a capture after one that was killed", SOON, || {
            let next = balancer.run(&["capture", "--time", "100ms"])?;
            Ok(next.status.success().then_some(()))
        })
    });
}

/// A packet of the file.
#[derive(Debug)]
struct Packet {
    from: SocketAddrV4,
    to: SocketAddrV4,
    is_syn: bool,
    comment: String,
}

/// The packets of each connection to port 80, in the order of their SYNs.
fn connections(packets: &[Packet]) -> Result<Vec<Vec<&Packet>>> {
    let web: Vec<&Packet> = packets.iter().filter(|p| p.to.port() == 80).collect();
    let syns = web.iter().filter(|p| p.is_syn);
    let connections: Vec<Vec<&Packet>> = syns
        .map(|syn| web.iter().copied().filter(|p| p.from == syn.from).collect())
        .collect();
    ensure!(
        connections.iter().map(Vec::len).sum::<usize>() == web.len(),
        "{packets:?}"
    );
    Ok(connections)
}

/// The server that all packets of a connection went to: the first as a new flow, the others as one
/// that is known.
fn server(packets: &[&Packet]) -> Result<String> {
    let [first, rest @ ..] = packets else {
        anyhow::bail!("a connection without a packet");
    };
    let name = |packet: &Packet| {
        let line = packet.comment.lines().next()?.strip_prefix("forward to ")?;
        Some(line.split(' ').next()?.to_owned())
    };
    let server = name(first).with_context(|| format!("{first:?}"))?;
    ensure!(first.comment.contains("a new flow\nMaglev"), "{first:?}");
    for packet in rest {
        ensure!(name(packet).as_ref() == Some(&server), "{packet:?}");
        ensure!(
            packet.comment.contains("\nthe flow table has it"),
            "{packet:?}"
        );
    }
    ensure!(
        first.comment.contains("tunnelled in 20 more bytes"),
        "{first:?}"
    );
    Ok(server)
}

/// The packets of a capture that ends now.
fn end(capture: &mut Capture) -> Result<Vec<Packet>> {
    capture.end()?.iter().map(packet).collect()
}

fn packet(captured: &Captured) -> Result<Packet> {
    let frame = &captured.frame;
    let sliced = SlicedPacket::from_ethernet(frame)?;
    let Some(NetSlice::Ipv4(ip)) = &sliced.net else {
        anyhow::bail!("no IPv4: {frame:?}");
    };
    let Some(TransportSlice::Tcp(tcp)) = &sliced.transport else {
        anyhow::bail!("no TCP: {frame:?}");
    };
    let header = ip.header();
    Ok(Packet {
        from: SocketAddrV4::new(header.source_addr(), tcp.source_port()),
        to: SocketAddrV4::new(header.destination_addr(), tcp.destination_port()),
        is_syn: tcp.syn(),
        comment: captured.comment.clone(),
    })
}

fn tcpdump_reads(capture: &Capture, packets: usize) -> Result<()> {
    let lines = capture.by_tcpdump()?;
    let ours = |line: &&String| line.contains(" > 203.0.113.10.");
    let seen = lines.iter().filter(ours).count();
    ensure!(seen == packets, "{seen} of {packets}: {lines:?}");
    Ok(())
}
