//! `lockstep capture` while real clients connect: what the file says of each packet is what
//! happened to it.

use anyhow::{Context, Result, ensure};
use etherparse::{NetSlice, SlicedPacket, TransportSlice};
use lockstep_tests::lab::{Balancer, Lab, Process, Version, scenario, service, wait_until};
use nix::sys::signal::Signal;
use std::fs;
use std::net::SocketAddrV4;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

const SOON: Duration = Duration::from_secs(10);
/// Of pcapng's section header, interface description and enhanced packet blocks.
const SECTION: u32 = 0x0a0d_0d0a;
const INTERFACE: u32 = 1;
const PACKET: u32 = 6;

#[test]
fn scenario_a_capture_says_of_each_packet_where_it_went() {
    scenario(&Lab::builder(), |lab| {
        let on = |name, port, servers| service(name, Version::V4, &[port], Version::V4, servers);
        lab.start_lockstep(&(on("web", "80/tcp", &[0, 1]) + &on("other", "81/tcp", &[2])))?;
        let balancer = &lab.balancers[0];
        // No new flow finds a backend any more.
        balancer.cli(&["drain", "s3", "--deadline", "0s"])?;
        let (mut capture, file) = begin(balancer, "all", &[])?;
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

        end(&mut capture)?;
        let packets = read(&file)?;
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
        tcpdump_reads(&file, packets.len())
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
            let (mut capture, file) = begin(balancer, filter[0], &filter)?;
            get()?;
            end(&mut capture)?;
            let packets = read(&file)?;
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
        let (mut capture, file) = begin(balancer, "exact", &exact)?;
        get()?;
        // By itself, after three packets.
        ensure!(capture.wait(SOON)?.success(), "{}", capture.log());
        ensure!(capture.log().contains("3 packets"), "{}", capture.log());
        let packets = read(&file)?;
        ensure!(packets.len() == 3, "{packets:?}");
        ensure!(
            packets.iter().all(|p| p
                .comment
                .starts_with("forward to s1 (10.0.1.11), service web\n")),
            "{packets:?}"
        );

        // A client that is killed says nothing: the engine sees to it that the next one can.
        let (mut capture, _) = begin(balancer, "killed", &[])?;
        capture.kill()?;
        wait_until("a capture after one that was killed", SOON, || {
            let next = balancer.run(&["capture", "--time", "100ms"])?;
            Ok(next.status.success().then_some(()))
        })
    });
}

/// Starts a capture into a file, and waits until every worker shows its packets.
fn begin(balancer: &Balancer, name: &str, args: &[&str]) -> Result<(Process, PathBuf)> {
    let name = name.trim_start_matches('-');
    let file = balancer
        .services_file()
        .with_file_name(format!("{name}.pcapng"));
    let path = file.display().to_string();
    let args = [&["capture", "--write", &path], args].concat();
    let mut capture = balancer.start(&format!("capture-{name}"), &args)?;
    wait_until("the capture has begun", SOON, || {
        capture.must_run()?;
        // Its head is written when the workers have their orders.
        Ok(fs::metadata(&file).is_ok_and(|m| m.len() > 0).then_some(()))
    })?;
    Ok((capture, file))
}

/// Ends it as Ctrl-C does.
fn end(capture: &mut Process) -> Result<()> {
    capture.signal(Signal::SIGINT)?;
    let status = capture.wait(SOON)?;
    ensure!(status.success(), "{status}: {}", capture.log());
    Ok(())
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

/// Reads the file block by block (draft-ietf-opsawg-pcapng, section 3.1), which shares nothing with
/// what wrote it.
fn read(file: &Path) -> Result<Vec<Packet>> {
    let bytes = fs::read(file)?;
    let word = |at: usize| -> Result<u32> {
        let word = bytes
            .get(at..at + 4)
            .with_context(|| format!("the file ends at {at}"))?;
        Ok(u32::from_le_bytes(word.try_into()?))
    };
    let (mut at, mut packets, mut interfaces) = (0, Vec::new(), 0);
    while at < bytes.len() {
        let (kind, length) = (word(at)?, word(at + 4)? as usize);
        ensure!(
            length >= 12 && length.is_multiple_of(4),
            "a block of {length} bytes"
        );
        ensure!(
            word(at + length - 4)? as usize == length,
            "a block that ends otherwise"
        );
        match kind {
            SECTION => ensure!(at == 0),
            INTERFACE => interfaces += 1,
            PACKET => {
                ensure!(word(at + 8)? < interfaces, "a packet of no interface");
                let captured = word(at + 20)? as usize;
                let frame = &bytes[at + 28..at + 28 + captured];
                let options = &bytes[at + 28 + captured.next_multiple_of(4)..at + length - 4];
                packets.push(packet(frame, options)?);
            }
            other => anyhow::bail!("a block of type {other}"),
        }
        at += length;
    }
    Ok(packets)
}

fn packet(frame: &[u8], options: &[u8]) -> Result<Packet> {
    let sliced = SlicedPacket::from_ethernet(frame)?;
    let Some(NetSlice::Ipv4(ip)) = &sliced.net else {
        anyhow::bail!("no IPv4: {frame:?}");
    };
    let Some(TransportSlice::Tcp(tcp)) = &sliced.transport else {
        anyhow::bail!("no TCP: {frame:?}");
    };
    let header = ip.header();
    // The first option is the comment: code 1, its length, its text.
    let [1, 0, low, high, text @ ..] = options else {
        anyhow::bail!("no comment: {options:?}");
    };
    let length = usize::from(u16::from_le_bytes([*low, *high]));
    Ok(Packet {
        from: SocketAddrV4::new(header.source_addr(), tcp.source_port()),
        to: SocketAddrV4::new(header.destination_addr(), tcp.destination_port()),
        is_syn: tcp.syn(),
        comment: String::from_utf8(text[..length].to_vec())?,
    })
}

fn tcpdump_reads(file: &Path, packets: usize) -> Result<()> {
    let output = Command::new("tcpdump")
        .args(["-n", "-r"])
        .arg(file)
        .output()?;
    let text = String::from_utf8_lossy(&output.stdout);
    let seen = text
        .lines()
        .filter(|line| line.contains(" > 203.0.113.10."))
        .count();
    ensure!(seen == packets, "{seen} of {packets}: {text}");
    Ok(())
}
