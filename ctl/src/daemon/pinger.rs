//! Pings the replicas: once a second each, in turn, at most a thousand a second over all.

use super::actor::{Event, until};
use super::clock::Clock;
use super::privileges;
use super::replicas::Healths;
use lockstep_ctl_core::health::{Monitor, Outcome};
use lockstep_plan::health::Verdict;
use std::io;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;
use surge_ping::{Client, Config, ICMP, IcmpPacket, PingIdentifier, PingSequence, SurgeError};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::Instant;

/// From one ping of a backend to its next.
const PERIOD: Duration = Duration::from_secs(1);
/// From one ping to that of the next backend at least: with more than a thousand backends each is
/// pinged less often.
const SPACING: Duration = Duration::from_millis(1);
/// How long an answer may take. Less than [`PERIOD`], so that a backend has one ping under way.
const TIMEOUT: Duration = Duration::from_millis(900);
/// What a ping carries: as much as that of `ping`.
const PAYLOAD: [u8; 56] = [0; 56];

/// Pings whom the actor wants to know about, and tells it what has changed. Ends with the actor.
pub async fn run(mut wanted: watch::Receiver<Healths>, events: mpsc::Sender<Event>) {
    let clock = Clock::start();
    let mut monitor = Monitor::default();
    let mut sockets = Sockets::default();
    let mut pings = JoinSet::new();
    let mut last = None;
    let mut next = None;
    loop {
        let due = monitor.due().and_then(|due| clock.instant(due));
        tokio::select! {
            changed = wanted.changed() => {
                if changed.is_err() {
                    return;
                }
                monitor.watch(&wanted.borrow_and_update());
                next = next.or_else(|| Some(Instant::now()));
            }
            () = until(next) => {
                let Some(address) = monitor.next_after(last) else {
                    next = None;
                    continue;
                };
                last = Some(address);
                let gap = (PERIOD / u32::try_from(monitor.len()).unwrap_or(u32::MAX)).max(SPACING);
                // A daemon that was held up does not make up for it in a burst.
                next = next.map(|at| (at + gap).max(Instant::now()));
                match sockets.ping(address) {
                    Some(ping) => { pings.spawn(ping); }
                    None => note(&mut monitor, &clock, address, Outcome::Unasked),
                }
            }
            Some(answer) = pings.join_next() => {
                if let Ok((address, outcome)) = answer {
                    note(&mut monitor, &clock, address, outcome);
                }
            }
            () = until(due) => {
                let found = monitor.publish(clock.now());
                if events.send(Event::Health(found)).await.is_err() {
                    return;
                }
            }
        }
    }
}

fn note(monitor: &mut Monitor, clock: &Clock, address: IpAddr, outcome: Outcome) {
    match monitor.note(clock.now(), address, outcome) {
        Some(Verdict::Up) => tracing::info!(backend = %address, "answers pings"),
        Some(Verdict::Down) => tracing::warn!(backend = %address, "has stopped answering pings"),
        Some(Verdict::Unknown) => tracing::warn!(backend = %address, "is not pinged any more"),
        None => {}
    }
}

/// A socket for each IP version, opened when the first backend of it is pinged.
#[derive(Default)]
struct Sockets {
    v4: Lazy,
    v6: Lazy,
    sequence: u16,
}

#[derive(Default)]
struct Lazy {
    /// Shared, not cloned: a clone that is dropped marks the client as ended (surge-ping 0.8.4).
    client: Option<Arc<Client>>,
    /// Whether it was said that there is none.
    warned: bool,
}

impl Sockets {
    /// A ping that can be waited for; `None` where pings cannot be sent.
    fn ping(&mut self, address: IpAddr) -> Option<impl Future<Output = (IpAddr, Outcome)> + use<>> {
        let client = match address {
            IpAddr::V4(_) => self.v4.open(ICMP::V4, "IPv4")?,
            IpAddr::V6(_) => self.v6.open(ICMP::V6, "IPv6")?,
        };
        self.sequence = self.sequence.wrapping_add(1);
        let sequence = PingSequence(self.sequence);
        Some(async move { (address, ping(&client, address, sequence).await) })
    }
}

impl Lazy {
    fn open(&mut self, kind: ICMP, version: &str) -> Option<Arc<Client>> {
        if self.client.is_none() {
            let open = move || Client::new(&Config::builder().kind(kind).build());
            match privileges::with(privileges::RAW, open) {
                Ok(client) => self.client = Some(Arc::new(client)),
                Err(error) if !self.warned => {
                    tracing::warn!(
                        "cannot ping backends over {version} ({error}): their health stays \
                         unknown, and TCP alone decides. Give lockstepd CAP_NET_RAW (in its unit: \
                         AmbientCapabilities=CAP_NET_RAW), or let its group ping with the sysctl \
                         net.ipv4.ping_group_range"
                    );
                    self.warned = true;
                }
                Err(_) => {}
            }
        }
        self.client.clone()
    }
}

async fn ping(client: &Client, address: IpAddr, sequence: PingSequence) -> Outcome {
    // Unique on this host, which is all that an identifier is for (RFC 792).
    let identifier = PingIdentifier(std::process::id() as u16);
    let mut pinger = client.pinger(address, identifier).await;
    pinger.timeout(TIMEOUT);
    match pinger.ping(sequence, &PAYLOAD).await {
        Ok((packet, rtt)) if is_answer(&packet) => Outcome::Answered(rtt),
        // A packet filter of this host: it says nothing about the backend.
        Err(SurgeError::IOError(error)) if error.kind() == io::ErrorKind::PermissionDenied => {
            Outcome::Unasked
        }
        Ok(_) | Err(_) => Outcome::Missed,
    }
}

/// Whether a packet is an echo reply (RFC 792, RFC 4443) and not an error about our request, of
/// which the backend itself may be the sender.
pub fn is_answer(packet: &IcmpPacket) -> bool {
    match packet {
        IcmpPacket::V4(packet) => packet.get_icmp_type().0 == 0,
        IcmpPacket::V6(packet) => packet.get_icmpv6_type().0 == 129,
    }
}
