//! One interface: neighbors' questions about VIPs, and the answers.

use super::neighbors::{self, Mac};
use crate::daemon::privileges;
use lockstep_api::Layer2Interface;
use lockstep_ctl_core::announce::ways::Interfaces;
use nix::ifaddrs::getifaddrs;
use nix::sys::socket::{LinkAddr, SockaddrStorage, bind};
use socket2::{Domain, Protocol, SockFilter, Socket, Type};
use std::collections::BTreeMap;
use std::io::{self, Read};
use std::net::{IpAddr, Ipv6Addr};
use std::os::fd::AsRawFd;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::io::unix::AsyncFd;
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};

/// What this balancer answers for.
#[derive(Debug, Clone, Default)]
pub struct Owned {
    /// Each VIP, and the number of its last announcement: a new one is announced again.
    pub vips: BTreeMap<IpAddr, u64>,
    /// The interfaces of those that are not answered for on all of them.
    pub on: BTreeMap<IpAddr, Interfaces>,
    /// Until when that can be relied on without another word: a process that was frozen answers
    /// nothing before it knows who owns what.
    pub until: Option<Instant>,
}

impl Owned {
    /// Whether a VIP is answered for on an interface.
    fn has(&self, vip: &IpAddr, interface: &str) -> bool {
        let on = self.on.get(vip);
        self.vips.contains_key(vip) && on.is_none_or(|on| on.has(interface))
    }
}

/// When a VIP is announced after it came here. One frame may be lost, and a neighbor that just
/// asked the former owner may write down its answer after the first.
const ANNOUNCE: [Duration; 4] = [
    Duration::ZERO,
    Duration::from_millis(100),
    Duration::from_millis(500),
    Duration::from_secs(2),
];

/// How often it is looked at whether the interface is still the same one.
const LOOK: Duration = Duration::from_secs(2);

/// Answers in a second. Neighbors ask a few times a minute each.
const RATE: u64 = 2_000;

/// Frames read in one go, per socket.
const BURST: usize = 64;

/// Numbers for the command line.
pub type Report = Arc<Mutex<Layer2Interface>>;

/// Answers on one interface until `owned`'s sender is gone.
pub async fn run(name: String, mut owned: watch::Receiver<Owned>, report: Report) {
    let mut link = Link::new(name, report);
    loop {
        link.look();
        link.follow(&owned.borrow_and_update().clone());
        link.announce();
        link.answer(&owned);
        tokio::select! {
            changed = owned.changed() => if changed.is_err() {
                return;
            },
            () = link.readable() => {}
            () = sleep_until(link.wake()) => {}
        }
    }
}

struct Link {
    name: String,
    report: Report,
    open: Option<Open>,
    look_again: Instant,
    /// The announcement of each VIP that was made last, and those still due.
    announced: BTreeMap<IpAddr, u64>,
    due: Vec<(Instant, IpAddr)>,
    second: Instant,
    answered: u64,
}

/// The interface as it is now.
struct Open {
    device: LinkAddr,
    mac: Mac,
    arp: AsyncFd<Socket>,
    ndp: AsyncFd<Socket>,
    /// Holds the memberships in multicast groups.
    groups: Option<Socket>,
}

impl Link {
    fn new(name: String, report: Report) -> Self {
        let now = Instant::now();
        Link {
            name,
            report,
            open: None,
            look_again: now,
            announced: BTreeMap::new(),
            due: Vec::new(),
            second: now,
            answered: 0,
        }
    }

    /// Follows the interface, which may come and go and change its MAC address.
    fn look(&mut self) {
        let now = Instant::now();
        if now < self.look_again {
            return;
        }
        self.look_again = now + LOOK;
        let device = device(&self.name);
        let known = self.open.as_ref().map(|open| open.device);
        let known = known.map(|device| (device.ifindex(), device.addr()));
        if known == device.map(|device| (device.ifindex(), device.addr())) {
            return;
        }
        // Everything is announced anew, with the address it has now.
        self.announced.clear();
        self.open = device.and_then(|device| match Open::new(device) {
            Ok(open) => Some(open),
            Err(error) => {
                tracing::error!(interface = %self.name, "layer 2: cannot listen: {error}");
                None
            }
        });
        let mac = self.open.as_ref().map(|open| open.mac);
        if mac.is_none() {
            tracing::warn!(interface = %self.name, "layer 2: there is no such interface");
        }
        let text = mac.map(|mac| mac.map(|byte| format!("{byte:02x}")).join(":"));
        self.count(|report| report.mac = text.unwrap_or_default());
    }

    /// Learns what is new, and forgets what is gone.
    fn follow(&mut self, owned: &Owned) {
        let Some(open) = &self.open else {
            return;
        };
        let now = Instant::now();
        let gone = self
            .announced
            .extract_if(.., |vip, _| !owned.has(vip, &self.name));
        for (vip, _) in gone {
            self.due.retain(|(_, other)| *other != vip);
            open.member(vip, false);
        }
        for (&vip, &number) in &owned.vips {
            if !owned.has(&vip, &self.name) {
                continue;
            }
            let before = self.announced.insert(vip, number);
            if before.is_none() {
                open.member(vip, true);
            }
            if before != Some(number) {
                self.due.retain(|(_, other)| *other != vip);
                self.due.extend(ANNOUNCE.map(|wait| (now + wait, vip)));
            }
        }
    }

    fn announce(&mut self) {
        let now = Instant::now();
        let due = self.due.extract_if(.., |(at, _)| *at <= now);
        let vips: Vec<IpAddr> = due.map(|(_, vip)| vip).collect();
        let Some(open) = &self.open else {
            return;
        };
        let mut sent = 0;
        for vip in vips {
            for frame in neighbors::announcements(open.mac, vip) {
                sent += u64::from(open.send(&frame));
            }
        }
        if sent > 0 {
            self.count(|report| report.announcements += sent);
        }
    }

    /// Answers what neighbors have asked.
    fn answer(&mut self, owned: &watch::Receiver<Owned>) {
        let Some(open) = &self.open else {
            return;
        };
        let now = Instant::now();
        if now.duration_since(self.second) >= Duration::from_secs(1) {
            self.second = now;
            self.answered = 0;
        }
        let owned = owned.borrow();
        let relied_on = owned.until.is_some_and(|until| now < until);
        let (mut answers, mut unanswered) = (0, 0);
        let mut frame = [0; 256];
        for socket in [&open.arp, &open.ndp] {
            for _ in 0..BURST {
                let read = socket.try_io(tokio::io::Interest::READABLE, |mut s| s.read(&mut frame));
                let Ok(length) = read else {
                    break;
                };
                let Some(question) = neighbors::question(&frame[..length]) else {
                    continue;
                };
                if !relied_on || !owned.has(&question.about, &self.name) {
                    continue;
                }
                if self.answered >= RATE {
                    unanswered += 1;
                    continue;
                }
                self.answered += 1;
                if let Some(frame) = neighbors::answer(open.mac, &question) {
                    answers += u64::from(open.send(&frame));
                }
            }
        }
        if answers + unanswered > 0 {
            self.count(|report| {
                report.answers += answers;
                report.unanswered += unanswered;
            });
        }
    }

    async fn readable(&self) {
        let Some(open) = &self.open else {
            return std::future::pending().await;
        };
        // What an error means shows when the socket is read.
        tokio::select! {
            _ = open.arp.readable() => {}
            _ = open.ndp.readable() => {}
        }
    }

    fn wake(&self) -> Instant {
        let due = self.due.iter().map(|(at, _)| *at);
        due.fold(self.look_again, Instant::min)
    }

    fn count(&self, change: impl FnOnce(&mut Layer2Interface)) {
        change(&mut self.report.lock().unwrap_or_else(PoisonError::into_inner));
    }
}

/// The device of a name, as the kernel knows it now.
fn device(name: &str) -> Option<LinkAddr> {
    let entries = getifaddrs()
        .ok()?
        .filter(|entry| entry.interface_name == name);
    entries
        .filter_map(|entry| entry.address)
        .find_map(|address: SockaddrStorage| address.as_link_addr().copied())
}

impl Open {
    fn new(device: LinkAddr) -> io::Result<Self> {
        let groups = Socket::new(Domain::IPV6, Type::DGRAM, None).ok();
        let (arp, ndp) = privileges::with(privileges::RAW, move || {
            let arp = packets(device, filter::ARP, &filter::requests())?;
            let ndp = packets(device, filter::IPV6, &filter::solicitations())?;
            Ok((arp, ndp))
        })?;
        Ok(Open {
            device,
            mac: device.addr().unwrap_or_default(),
            arp,
            ndp,
            groups,
        })
    }

    /// Joins or leaves the group of an address: the interface then takes what is sent to it, and
    /// switches that follow memberships bring it here.
    fn member(&self, vip: IpAddr, is: bool) {
        let (IpAddr::V6(vip), Some(groups)) = (vip, &self.groups) else {
            return;
        };
        let group: Ipv6Addr = neighbors::solicited_node(vip);
        let index = u32::try_from(self.device.ifindex()).unwrap_or_default();
        let done = match is {
            true => groups.join_multicast_v6(&group, index),
            false => groups.leave_multicast_v6(&group, index),
        };
        if let Err(error) = done {
            // Two VIPs may share a group.
            tracing::debug!(%vip, "layer 2: membership of {group}: {error}");
        }
    }

    /// Sends a frame. One that cannot be sent is one that is lost.
    fn send(&self, frame: &[u8]) -> bool {
        match self.arp.get_ref().send(frame) {
            Ok(_) => true,
            Err(error) => {
                tracing::debug!("layer 2: cannot send: {error}");
                false
            }
        }
    }
}

/// A packet socket for one kind of frame of an interface.
fn packets(device: LinkAddr, kind: u16, only: &[SockFilter]) -> io::Result<AsyncFd<Socket>> {
    // Without a protocol it gets nothing yet: first comes the filter.
    let socket = Socket::new(
        Domain::PACKET,
        Type::RAW,
        Some(Protocol::from(i32::from(kind.to_be()))),
    )?;
    socket.set_nonblocking(true)?;
    socket.attach_filter(only)?;
    bind(socket.as_raw_fd(), &device)?;
    #[allow(
        deprecated,
        reason = "the other one is unsafe, for types that may close what they lend; a Socket does not"
    )]
    AsyncFd::new(socket)
}

/// What neighbors ask, told from everything else in the kernel already.
mod filter {
    use super::SockFilter;

    pub const ARP: u16 = 0x0806;
    pub const IPV6: u16 = 0x86dd;

    /// `BPF_LD | BPF_B | BPF_ABS`, `BPF_LD | BPF_H | BPF_ABS`, `BPF_JMP | BPF_JEQ | BPF_K`,
    /// `BPF_RET | BPF_K`.
    const LOAD_BYTE: u16 = 0x30;
    const LOAD_HALF: u16 = 0x28;
    const JUMP_IF_EQUAL: u16 = 0x15;
    const RETURN: u16 = 0x06;

    const ALL: SockFilter = SockFilter::new(RETURN, 0, 0, u32::MAX);
    const NOTHING: SockFilter = SockFilter::new(RETURN, 0, 0, 0);

    /// ARP requests: the operation, after the Ethernet header, is 1.
    pub fn requests() -> [SockFilter; 4] {
        [
            SockFilter::new(LOAD_HALF, 0, 0, 14 + 6),
            SockFilter::new(JUMP_IF_EQUAL, 0, 1, 1),
            ALL,
            NOTHING,
        ]
    }

    /// Neighbor solicitations: ICMPv6 directly in IPv6, of type 135.
    pub fn solicitations() -> [SockFilter; 6] {
        [
            SockFilter::new(LOAD_BYTE, 0, 0, 14 + 6),
            SockFilter::new(JUMP_IF_EQUAL, 0, 3, 58),
            SockFilter::new(LOAD_BYTE, 0, 0, 14 + 40),
            SockFilter::new(JUMP_IF_EQUAL, 0, 1, 135),
            ALL,
            NOTHING,
        ]
    }
}
