//! Nanoseconds a frame in the XDP programs, measured by the kernel's test runs.
//!
//! `cargo run --release -p lockstep-bpf --example measure`, as root. A test run repeats over one
//! buffer, so a program that changes its frame sees the changed one from the second time on: those
//! rows are medians of single runs, to be read beside the single run that changes nothing.

use lockstep_bpf::{DecapProgram, Destination, Room, Seeds, SteerProgram};
use socket2::Socket;
use std::collections::BTreeMap;
use std::error::Error;
use std::net::Ipv4Addr;
use std::os::fd::AsFd;
use std::time::Duration;

const VIP: [u8; 4] = [192, 0, 2, 10];
const REPEAT: u32 = 1_000_000;
const SINGLE_RUNS: usize = 20_001;

fn ipv4(to: [u8; 4], protocol: u8, payload: &[u8]) -> Vec<u8> {
    let mut packet = vec![
        0x45, 0, 0, 0, 0, 0, 0, 0, 64, protocol, 0, 0, 198, 51, 100, 7,
    ];
    packet.extend(to);
    packet.extend(payload);
    let length = packet.len() as u16;
    packet[2..4].copy_from_slice(&length.to_be_bytes());
    packet
}

fn ipv6(to: [u8; 16], next: u8, payload: &[u8]) -> Vec<u8> {
    let mut packet = vec![0x60, 0, 0, 0];
    packet.extend((payload.len() as u16).to_be_bytes());
    packet.extend([next, 64]);
    packet.extend([0x20; 16]);
    packet.extend(to);
    packet.extend(payload);
    packet
}

/// A frame of at least 60 bytes, which is 64 with its check sequence.
fn frame(packet: &[u8]) -> Vec<u8> {
    let mut frame = vec![2; 12];
    frame.extend(if packet[0] >> 4 == 4 {
        [0x08, 0x00]
    } else {
        [0x86, 0xdd]
    });
    frame.extend(packet);
    frame.resize(frame.len().max(60), 0);
    frame
}

fn median(
    mut run: impl FnMut() -> Result<Duration, lockstep_bpf::BpfError>,
) -> Result<u128, lockstep_bpf::BpfError> {
    let mut times = Vec::with_capacity(SINGLE_RUNS);
    for _ in 0..SINGLE_RUNS {
        times.push(run()?.as_nanos());
    }
    times.sort_unstable();
    Ok(times[SINGLE_RUNS / 2])
}

/// A program that knows 10,002 destinations, and the socket that is in its map while it is open.
fn steer(room: u16) -> Result<(SteerProgram, Socket), Box<dyn Error>> {
    let mut program = SteerProgram::load(Duration::from_secs(3600), &Seeds::default())?;
    let socket = Socket::new(44.into(), 3.into(), None)?;
    program.set_socket(0, socket.as_fd())?;
    program.beat()?;
    let room = Room::new(room).ok_or("no such room")?;
    let mut wanted = BTreeMap::new();
    for n in 0..10_000u32 {
        let [_, a, b, c] = n.to_be_bytes();
        wanted.insert(to([10, a, b, c].into(), 80), room.into());
    }
    wanted.insert(to(VIP.into(), 80), room.into());
    wanted.insert(to([0x11; 16].into(), 80), room.into());
    program.set_destinations(&wanted)?;
    Ok((program, socket))
}

fn to(address: std::net::IpAddr, port: u16) -> Destination {
    Destination::new(address, port, Some(17))
}

fn main() -> Result<(), Box<dyn Error>> {
    let udp = [0xc3, 0x50, 0, 80, 0, 26, 0, 0];
    let ours_v4 = frame(&ipv4(VIP, 17, &udp));
    let ours_v6 = frame(&ipv6([0x11; 16], 17, &udp));
    let other = frame(&ipv4([192, 0, 2, 99], 17, &udp));
    let arp = [&[2; 12][..], &[0x08, 0x06], &[0; 46]].concat();

    let (plain, _socket) = steer(0)?;
    println!(
        "steer, 10,002 destinations, mean of {REPEAT} runs over one frame of 60 bytes or more"
    );
    for (says, frame) in [
        ("ARP, passed", &arp),
        ("IPv4 not ours, passed", &other),
        ("IPv4 ours, no room, redirected", &ours_v4),
        ("IPv6 ours, no room, redirected", &ours_v6),
    ] {
        println!(
            "{:>6} ns  {says}",
            plain.run(frame, REPEAT)?.time.as_nanos()
        );
    }
    println!("steer, median of {SINGLE_RUNS} single runs");
    let (roomy, _socket) = steer(20)?;
    for (says, program, frame) in [
        ("ARP, passed", &plain, &arp),
        ("IPv4 ours, no room, redirected", &plain, &ours_v4),
        ("IPv4 ours, room 20, redirected", &roomy, &ours_v4),
    ] {
        let time = median(|| Ok(program.run(frame, 1)?.time))?;
        println!("{time:>6} ns  {says}");
    }

    let decap = DecapProgram::load(&[Ipv4Addr::from(VIP).into()], None)?;
    let tunnelled = frame(&ipv4(VIP, 4, &ipv4([192, 0, 2, 99], 17, &udp)));
    println!("decap, mean of {REPEAT} runs, then medians of {SINGLE_RUNS} single runs");
    println!(
        "{:>6} ns  not tunnelled, passed",
        decap.run(&other, REPEAT)?.time.as_nanos()
    );
    for (says, frame) in [
        ("not tunnelled, passed", &other),
        ("IPv4 in IPv4", &tunnelled),
    ] {
        let time = median(|| Ok(decap.run(frame, 1)?.time))?;
        println!("{time:>6} ns  {says}");
    }
    Ok(())
}
