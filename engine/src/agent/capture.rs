//! `lockstep capture`, the agent's side: taps in the workers, and what they show as a stream.

use super::{Agent, explain};
use crate::capture::{Drops, Exchange, Filter, Record, Tap, VipFilter};
use crate::mailbox::{Command, Reply};
use crate::workers::WorkerHandle;
use futures::Stream;
use lockstep_api as api;
use lockstep_api::capture_event::Event;
use lockstep_core::Tables;
use lockstep_core::explain::{as_received, seen};
use lockstep_plan::{DropReason, Protocol};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tokio::sync::{OwnedMutexGuard, mpsc};
use tokio::time::{Instant, MissedTickBehavior};
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;

/// Packets of each worker that wait for the agent.
const RECORDS: usize = 1_024;
/// Messages that wait for a slow client; records wait behind them.
const AHEAD: usize = 256;
/// How often the workers' packets are gathered. Workers cannot wake anybody.
const GATHER: Duration = Duration::from_millis(5);
/// Bytes of a packet that are kept where nothing else is said: headers, and the begin of a request.
const SNAP: u32 = 256;
/// The most bytes of a packet that are kept: a frame's.
const MOST_SNAP: u32 = 4_096;
/// The most packets of a capture.
const MOST_PACKETS: u64 = 10_000_000;
/// The longest capture: one that was forgotten ends some time.
const LONGEST: Duration = Duration::from_secs(24 * 3_600);

/// What a client asked for.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Wanted {
    filter: Filter,
    snap: u32,
    packets: u64,
    time: Duration,
}

impl Wanted {
    /// Of a request, or what is wrong with it.
    pub fn parse(request: &api::CaptureRequest) -> Result<Self, String> {
        let named = |text: &str| (!text.is_empty()).then(|| text.to_owned());
        let filter = Filter {
            vip: named(&request.vip).map(|text| vip(&text)).transpose()?,
            client: named(&request.client)
                .map(|text| text.parse().map_err(|error| format!("`{text}`: {error}")))
                .transpose()?,
            drops: named(&request.reason)
                .map(|text| drops(&text))
                .transpose()?,
        };
        let at_most = |what: &str, value: u64, most: u64, unset: u64| match value {
            0 => Ok(unset),
            value if value <= most => Ok(value),
            value => Err(format!("{value} {what} are more than {most}")),
        };
        let snap = at_most(
            "bytes of a packet",
            request.snap_length.into(),
            MOST_SNAP.into(),
            SNAP.into(),
        )?;
        let seconds = request.seconds;
        let time = match Duration::try_from_secs_f64(seconds) {
            Ok(Duration::ZERO) => LONGEST,
            Ok(time) if time <= LONGEST => time,
            Ok(_) | Err(_) => {
                return Err(format!(
                    "{seconds} seconds are not 0 to {}",
                    LONGEST.as_secs()
                ));
            }
        };
        Ok(Wanted {
            filter,
            // No more than the most, which is of that type.
            snap: snap as u32,
            packets: at_most("packets", request.packets, MOST_PACKETS, MOST_PACKETS)?,
            time,
        })
    }
}

/// `203.0.113.10`, `203.0.113.10:80` or `[2001:db8::10]:80/tcp`.
fn vip(text: &str) -> Result<VipFilter, String> {
    let wrong = || {
        format!("`{text}` is no VIP such as 203.0.113.10, 203.0.113.10:80 or [2001:db8::10]:80/tcp")
    };
    let (place, protocol) = match text.split_once('/') {
        None => (text, None),
        Some((place, "tcp")) => (place, Some(Protocol::Tcp)),
        Some((place, "udp")) => (place, Some(Protocol::Udp)),
        Some(_) => return Err(wrong()),
    };
    let (address, port) = match (place.parse::<IpAddr>(), place.parse::<SocketAddr>()) {
        (Ok(address), _) => (address, None),
        // As in services.toml: 0 stands for every port.
        (_, Ok(place)) => (place.ip(), Some(place.port()).filter(|port| *port != 0)),
        _ => return Err(wrong()),
    };
    Ok(VipFilter {
        address,
        port,
        protocol,
    })
}

fn drops(text: &str) -> Result<Drops, String> {
    match text {
        "any" => Ok(Drops::Any),
        name => name
            .parse::<DropReason>()
            .map(Drops::For)
            .map_err(|error| format!("`{name}`: {error}")),
    }
}

/// Begins a capture. It ends by itself, or when nobody reads the stream any more.
pub async fn stream(
    agent: Arc<Agent>,
    wanted: Wanted,
) -> Result<impl Stream<Item = api::CaptureEvent> + use<>, Status> {
    let Ok(turn) = Arc::clone(&agent.capturing).try_lock_owned() else {
        return Err(Status::failed_precondition(
            "another capture is running; there is one at a time",
        ));
    };
    let capture = Capture::begin(agent, wanted, turn).await?;
    let (events, stream) = mpsc::channel(AHEAD);
    tokio::spawn(capture.run(events));
    Ok(ReceiverStream::new(stream))
}

/// A capture that runs.
struct Capture {
    agent: Arc<Agent>,
    wanted: Wanted,
    /// Of each worker.
    exchanges: Vec<Arc<Exchange>>,
    ends: Instant,
    left: u64,
    /// Given back at the end, when the workers have no taps any more.
    turn: OwnedMutexGuard<()>,
}

/// Its client has gone.
struct Gone;

impl Capture {
    async fn begin(
        agent: Arc<Agent>,
        wanted: Wanted,
        turn: OwnedMutexGuard<()>,
    ) -> Result<Self, Status> {
        let exchange = |_| Exchange::new(RECORDS, wanted.snap as usize);
        let exchanges: Vec<_> = agent.workers.iter().map(exchange).collect();
        let mut tapped = 0;
        for (worker, exchange) in agent.workers.iter().zip(&exchanges) {
            let tap = Tap::new(wanted.filter, Arc::clone(exchange));
            let reply = worker.ask(Command::Tap(Some(tap))).await;
            tapped += usize::from(matches!(reply, Some(Reply::Tapped(_))));
        }
        if tapped == 0 {
            return Err(Status::unavailable(
                "no worker answers; see `lockstep status`",
            ));
        }
        Ok(Capture {
            agent,
            wanted,
            exchanges,
            ends: Instant::now() + wanted.time,
            left: wanted.packets,
            turn,
        })
    }

    async fn run(mut self, events: mpsc::Sender<api::CaptureEvent>) {
        // The error is that nobody reads: then there is nobody to tell.
        let _ = self.deliver(&events).await;
        for exchange in &self.exchanges {
            exchange.ended.store(true, Ordering::Relaxed);
        }
        for worker in &self.agent.workers {
            worker.ask(Command::Tap(None)).await;
        }
        drop(self.turn);
        let missed = self
            .exchanges
            .iter()
            .map(|e| e.missed.load(Ordering::Relaxed));
        let end = api::CaptureEnd {
            missed: missed.sum(),
        };
        let _ = events.send(event(Event::End(end))).await;
    }

    async fn deliver(&mut self, events: &mpsc::Sender<api::CaptureEvent>) -> Result<(), Gone> {
        let interfaces = self.agent.topology.interfaces().iter();
        let start = api::CaptureStart {
            interfaces: interfaces.map(|i| i.name.to_string()).collect(),
            snap_length: self.wanted.snap,
        };
        send(events, Event::Start(start)).await?;
        let mut interval = tokio::time::interval(GATHER);
        interval.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let last = Instant::now() >= self.ends;
            self.gather(events).await?;
            if last || self.left == 0 {
                return Ok(());
            }
            tokio::select! {
                _ = interval.tick() => {}
                () = events.closed() => return Err(Gone),
            }
        }
    }

    /// Sends what the workers have seen since, in the order of time.
    async fn gather(&mut self, events: &mpsc::Sender<api::CaptureEvent>) -> Result<(), Gone> {
        let mut packets = Vec::new();
        for (at, exchange) in self.exchanges.iter().enumerate() {
            let began = began(self.agent.workers[at].handle());
            // No more than there are: a worker may add while they are taken.
            for _ in 0..exchange.full.len() {
                let Some(record) = exchange.full.pop() else {
                    break;
                };
                let time = began + Duration::from_micros(record.at.get());
                packets.push((time, at, record));
            }
        }
        if packets.is_empty() {
            return Ok(());
        }
        packets.sort_by_key(|(time, _, _)| *time);
        let tables = Arc::clone(&self.agent.state.lock().await.tables);
        for (time, worker, record) in packets {
            if self.left > 0 {
                let packet = self.packet(&tables, time, worker, &record);
                // What was sent on is no drop, but for one whose sender was told that it is too big.
                let is_drop = packet
                    .explanation
                    .as_ref()
                    .is_some_and(|e| e.verdict == "drop");
                if is_drop || self.wanted.filter.drops.is_none() {
                    self.left -= 1;
                    send(events, Event::Packet(packet)).await?;
                }
            }
            // There is a place for each record.
            let _ = self.exchanges[worker].free.push(record);
        }
        Ok(())
    }

    fn packet(
        &self,
        tables: &Tables,
        time: Duration,
        worker: usize,
        record: &Record,
    ) -> api::CapturedPacket {
        let interfaces = self.agent.topology.interfaces();
        let ports: Vec<&str> = interfaces.iter().map(|i| i.name.as_str()).collect();
        let mut frame = as_received(&record.head);
        // Of the room that was taken out, and of what the record has no memory for.
        let length = record.length - (record.head.len() - frame.len());
        let head = frame[..frame.len().min(self.wanted.snap as usize)].to_vec();
        // Parsed by its headers' lengths: what was not kept counts as there.
        frame.resize(length, 0);
        let explanation = seen(tables, &ports, &frame, &record.seen);
        api::CapturedPacket {
            time: u64::try_from(time.as_nanos()).unwrap_or(u64::MAX),
            interface: record.port.0.into(),
            worker: worker as u32,
            length: length as u32,
            head,
            explanation: Some(explain::message(explanation)),
        }
    }
}

async fn send(events: &mpsc::Sender<api::CaptureEvent>, told: Event) -> Result<(), Gone> {
    events.send(event(told)).await.map_err(|_| Gone)
}

fn event(event: Event) -> api::CaptureEvent {
    api::CaptureEvent { event: Some(event) }
}

/// The start of a worker's clock, since 1970.
fn began(worker: &WorkerHandle) -> Duration {
    let began = SystemTime::now().checked_sub(worker.epoch.elapsed());
    let began = began.unwrap_or(UNIX_EPOCH).duration_since(UNIX_EPOCH);
    began.unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(vip: &str, client: &str, reason: &str) -> Result<Filter, String> {
        let request = api::CaptureRequest {
            vip: vip.to_owned(),
            client: client.to_owned(),
            reason: reason.to_owned(),
            ..api::CaptureRequest::default()
        };
        Wanted::parse(&request).map(|wanted| wanted.filter)
    }

    #[test]
    fn a_request_without_a_filter_wants_everything_for_a_while() {
        let wanted = Wanted::parse(&api::CaptureRequest::default());
        let expected = Wanted {
            filter: Filter::default(),
            snap: SNAP,
            packets: MOST_PACKETS,
            time: LONGEST,
        };
        assert_eq!(wanted, Ok(expected));
    }

    #[test]
    fn filters_are_parsed_or_refused_in_words() {
        let vip = |address: &str, port, protocol| {
            Some(VipFilter {
                address: address.parse().expect("an address"),
                port,
                protocol,
            })
        };
        let rows = [
            ("203.0.113.10", vip("203.0.113.10", None, None)),
            ("203.0.113.10:80", vip("203.0.113.10", Some(80), None)),
            (
                "203.0.113.10:0/udp",
                vip("203.0.113.10", None, Some(Protocol::Udp)),
            ),
            ("2001:db8::10", vip("2001:db8::10", None, None)),
            (
                "[2001:db8::10]:80/tcp",
                vip("2001:db8::10", Some(80), Some(Protocol::Tcp)),
            ),
        ];
        for (text, expected) in rows {
            assert_eq!(parse(text, "", "").map(|f| f.vip), Ok(expected), "{text}");
        }
        let drops = |reason| parse("", "", reason).map(|f| f.drops);
        assert_eq!(drops("any"), Ok(Some(Drops::Any)));
        assert_eq!(drops("too_big"), Ok(Some(Drops::For(DropReason::TooBig))));
        for (vip, client, reason, part) in [
            ("web", "", "", "`web` is no VIP"),
            ("203.0.113.10:80/sctp", "", "", "is no VIP"),
            ("", "198.51.100.7/24", "", "198.51.100.0/24 is meant"),
            (
                "",
                "",
                "bad_luck",
                "`bad_luck`: not the name of a drop reason",
            ),
        ] {
            let error = parse(vip, client, reason).expect_err("it is wrong");
            assert!(error.contains(part), "{error}");
        }
    }

    #[test]
    fn a_capture_has_its_bounds() {
        let wanted = |snap_length, packets, seconds| {
            Wanted::parse(&api::CaptureRequest {
                snap_length,
                packets,
                seconds,
                ..api::CaptureRequest::default()
            })
        };
        let within = wanted(MOST_SNAP, MOST_PACKETS, 1.5).expect("within the bounds");
        assert_eq!((within.snap, within.packets), (MOST_SNAP, MOST_PACKETS));
        assert_eq!(within.time, Duration::from_millis(1_500));
        assert!(wanted(MOST_SNAP + 1, 1, 1.0).is_err());
        assert!(wanted(1, MOST_PACKETS + 1, 1.0).is_err());
        for seconds in [-1.0, 1e9, f64::NAN] {
            assert!(wanted(1, 1, seconds).is_err(), "{seconds}");
        }
    }
}
