//! Frames built field by field, sockets, and namespaces that vanish with their test.

// Each test program uses its part of this, and a test that cannot be set up has failed.
#![allow(dead_code, clippy::unwrap_used)]

use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use socket2::{Domain, Socket, Type};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::mpsc::{Sender, channel};
use std::thread::JoinHandle;

pub const MACS: [u8; 12] = [2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2];
pub const TCP: u8 = 6;
pub const UDP: u8 = 17;
pub const IPIP: u8 = 4;
pub const IPV6: u8 = 41;

pub const V4: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 10);
pub const V6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 0x10);
const CLIENT_V4: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 7);
const CLIENT_V6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0xc, 0, 0, 0, 0, 7);

/// An Ethernet frame with these 802.1Q VLAN ids, the outermost first and as 802.1ad when there are
/// several.
pub fn ethernet(vlans: &[u16], ethertype: u16, payload: &[u8]) -> Vec<u8> {
    let mut frame = MACS.to_vec();
    for (at, vlan) in vlans.iter().enumerate() {
        let tag: u16 = if at + 1 < vlans.len() { 0x88a8 } else { 0x8100 };
        frame.extend(tag.to_be_bytes());
        frame.extend(vlan.to_be_bytes());
    }
    frame.extend(ethertype.to_be_bytes());
    frame.extend(payload);
    frame
}

/// The frame for an IP packet: its version says the EtherType.
pub fn frame(vlans: &[u16], packet: &[u8]) -> Vec<u8> {
    let ethertype = if packet[0] >> 4 == 6 { 0x86dd } else { 0x0800 };
    ethernet(vlans, ethertype, packet)
}

/// An IPv4 packet; every field can be set before [`Ip4::build`].
pub struct Ip4 {
    pub to: Ipv4Addr,
    pub tos: u8,
    /// Flags and fragment offset.
    pub fragment: u16,
    pub protocol: u8,
    pub options: Vec<u8>,
    pub payload: Vec<u8>,
    /// `None`: what is right.
    pub total_length: Option<u16>,
    /// `None`: what is right, in words of 4 bytes.
    pub ihl: Option<u8>,
    pub version: u8,
}

impl Ip4 {
    pub fn new(protocol: u8, payload: Vec<u8>) -> Self {
        Ip4 {
            to: V4,
            tos: 0,
            fragment: 0x4000,
            protocol,
            options: Vec::new(),
            payload,
            total_length: None,
            ihl: None,
            version: 4,
        }
    }

    pub fn build(&self) -> Vec<u8> {
        let header = 20 + self.options.len();
        let ihl = self.ihl.unwrap_or(u8::try_from(header / 4).unwrap());
        let total = u16::try_from(header + self.payload.len()).unwrap();
        let mut packet = vec![self.version << 4 | ihl, self.tos];
        packet.extend(self.total_length.unwrap_or(total).to_be_bytes());
        packet.extend([0x12, 0x34]);
        packet.extend(self.fragment.to_be_bytes());
        packet.extend([64, self.protocol, 0, 0]);
        packet.extend(CLIENT_V4.octets());
        packet.extend(self.to.octets());
        packet.extend(&self.options);
        let sum = checksum(&packet);
        packet[10..12].copy_from_slice(&sum.to_be_bytes());
        packet.extend(&self.payload);
        packet
    }
}

/// RFC 1071, as plainly as it can be said.
pub fn checksum(header: &[u8]) -> u16 {
    let mut sum: u32 = header
        .chunks(2)
        .map(|pair| u32::from(u16::from_be_bytes([pair[0], pair[1]])))
        .sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !u16::try_from(sum).unwrap()
}

/// An IPv6 packet; every field can be set before [`Ip6::build`].
pub struct Ip6 {
    pub to: Ipv6Addr,
    pub traffic_class: u8,
    pub next: u8,
    pub payload: Vec<u8>,
    /// `None`: what is right.
    pub payload_length: Option<u16>,
    pub version: u8,
}

impl Ip6 {
    pub fn new(next: u8, payload: Vec<u8>) -> Self {
        Ip6 {
            to: V6,
            traffic_class: 0,
            next,
            payload,
            payload_length: None,
            version: 6,
        }
    }

    pub fn build(&self) -> Vec<u8> {
        let class = self.traffic_class;
        let length = u16::try_from(self.payload.len()).unwrap();
        let mut packet = vec![self.version << 4 | class >> 4, class << 4 | 0x5, 0x43, 0x21];
        packet.extend(self.payload_length.unwrap_or(length).to_be_bytes());
        packet.extend([self.next, 64]);
        packet.extend(CLIENT_V6.octets());
        packet.extend(self.to.octets());
        packet.extend(&self.payload);
        packet
    }
}

/// A TCP SYN to `port`.
pub fn tcp(port: u16) -> Vec<u8> {
    let mut segment = vec![0xc3, 0x50];
    segment.extend(port.to_be_bytes());
    segment.extend([0, 0, 0, 1, 0, 0, 0, 0, 0x50, 0x02, 0xff, 0xff, 0, 0, 0, 0]);
    segment
}

/// A UDP datagram of 18 bytes to `port`.
pub fn udp(port: u16) -> Vec<u8> {
    let mut datagram = vec![0xc3, 0x50];
    datagram.extend(port.to_be_bytes());
    datagram.extend([0, 26, 0, 0]);
    datagram.extend(b"eighteen bytes ...");
    datagram
}

/// A socket that the kernel takes into a socket map. It needs no memory or queue for that.
pub fn xdp_socket() -> Socket {
    const AF_XDP: i32 = 44;
    const SOCK_RAW: i32 = 3;
    Socket::new(Domain::from(AF_XDP), Type::from(SOCK_RAW), None).unwrap()
}

/// Runs `test` on a thread with a network and a mount namespace of its own, both gone with it, and
/// with the path of a directory to be made on a BPF file system.
pub fn isolated(test: impl FnOnce(&Path) + Send + 'static) {
    let directory = tempfile::tempdir().unwrap();
    let bpffs: PathBuf = directory.path().join("bpf");
    std::fs::create_dir(&bpffs).unwrap();
    let thread = std::thread::spawn(move || {
        unshare(CloneFlags::CLONE_NEWNET | CloneFlags::CLONE_NEWNS).unwrap();
        let private = MsFlags::MS_REC | MsFlags::MS_PRIVATE;
        mount(None::<&str>, "/", None::<&str>, private, None::<&str>).unwrap();
        mount(
            Some("bpf"),
            &bpffs,
            Some("bpf"),
            MsFlags::empty(),
            None::<&str>,
        )
        .unwrap();
        test(&bpffs.join("lockstep"));
    });
    if let Err(panic) = thread.join() {
        std::panic::resume_unwind(panic);
    }
}

/// A thread in a network namespace of its own, which is gone when this is dropped.
pub struct Peer {
    stay: Option<Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Peer {
    /// Moves `link` from the calling thread's namespace into a new one and runs `start` there.
    pub fn with_link(link: &str, start: impl FnOnce() + Send + 'static) -> Self {
        let (born, tid) = channel();
        let (stay, leave) = channel();
        let thread = std::thread::spawn(move || {
            unshare(CloneFlags::CLONE_NEWNET).unwrap();
            born.send(nix::unistd::gettid()).unwrap();
            leave.recv().unwrap();
            start();
            // Until the other end is dropped.
            let _ = leave.recv();
        });
        ip(&format!("link set {link} netns {}", tid.recv().unwrap()));
        stay.send(()).unwrap();
        Peer {
            stay: Some(stay),
            thread: Some(thread),
        }
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        self.stay.take();
        let outcome = self.thread.take().map(JoinHandle::join);
        if let Some(Err(panic)) = outcome
            && !std::thread::panicking()
        {
            std::panic::resume_unwind(panic);
        }
    }
}

/// `ip` with these arguments, in the namespaces of the calling thread.
pub fn ip(arguments: &str) -> String {
    let output = Command::new("ip")
        .args(arguments.split_whitespace())
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "ip {arguments}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8(output.stdout).unwrap()
}

/// xorshift64: enough chance for loops over frames, the same in every run.
pub struct Chance(pub u64);

impl Chance {
    pub fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 >> 11).unwrap() % limit
    }

    pub fn byte(&mut self) -> u8 {
        u8::try_from(self.below(256)).unwrap()
    }
}

pub fn v4() -> IpAddr {
    V4.into()
}

pub fn v6() -> IpAddr {
    V6.into()
}
