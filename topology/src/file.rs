//! From the text of `topology.toml` to a [`Topology`]: each value on its own here, the rules
//! between them in [`crate::rules`].

use crate::diagnostics::{Diagnostics, Position, Source, from_toml};
use crate::duration;
use crate::model::{
    Addresses, BindMode, Core, Engine, FlowCapacity, FrameSize, Interface, Origin, Poll, Receive,
    Spread, Topology, UmemFrames, Watchdog, Worker, WorkerOrigin,
};
use crate::nat::Nat;
use crate::queues::{InterfaceName, Queue, QueueRange};
use crate::rules;
use crate::sessions::{
    BufferSize, ConnectionCapacity, LogMemory, PortRange, SessionCapacity, Sessions, SpillLimit,
};
use serde::Deserialize;
use std::net::IpAddr;
use std::path::PathBuf;
use toml::Spanned;

/// The bytes of a Unix socket's path that the kernel takes (`sun_path` less its NUL).
const SOCKET_PATH_MAX: usize = 107;

/// The bytes of a directory's path: 4,096 with its NUL is `PATH_MAX`, and names are appended.
const DIRECTORY_MAX: usize = 3_900;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawFile {
    engine: RawEngine,
    #[serde(default)]
    sessions: RawSessions,
    #[serde(default)]
    nat: RawNat,
    #[serde(default)]
    interface: Vec<RawInterface>,
    #[serde(default)]
    worker: Vec<RawWorker>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawEngine {
    socket: Option<Spanned<String>>,
    pin_dir: Option<Spanned<String>>,
    addresses: Spanned<Vec<Spanned<String>>>,
    #[serde(default)]
    poll: Poll,
    #[serde(default)]
    receive: Receive,
    #[serde(default)]
    spread: Spread,
    flows_ipv4: Option<Spanned<i64>>,
    flows_ipv6: Option<Spanned<i64>>,
    umem_frames: Option<Spanned<i64>>,
    frame_size: Option<Spanned<i64>>,
    watchdog: Option<Spanned<String>>,
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields)]
struct RawSessions {
    max: Option<Spanned<i64>>,
    connections: Option<Spanned<i64>>,
    client_buffer: Option<Spanned<i64>>,
    replica_buffer: Option<Spanned<i64>>,
    log_memory: Option<Spanned<i64>>,
    ports: Option<Spanned<String>>,
    spill: Option<Spanned<String>>,
    spill_limit: Option<Spanned<i64>>,
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields)]
struct RawNat {
    ports: Option<Spanned<String>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawInterface {
    name: Spanned<String>,
    #[serde(default)]
    mode: BindMode,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawWorker {
    core: Spanned<i64>,
    #[serde(default)]
    queues: Vec<Spanned<String>>,
    process: Option<bool>,
}

impl Topology {
    /// Reads the text of a `topology.toml`. `file` is the name to report under; nothing is read
    /// from it.
    ///
    /// # Errors
    /// Everything that is wrong without a look at the host, each with its line: first what is
    /// wrong with the shape of the text; when nothing is, every value and rule at once.
    pub fn parse(file: &str, text: &str) -> Result<Self, Diagnostics> {
        let raw: RawFile = from_toml(file, text)?;
        let mut reader = Reader {
            source: Source::new(file, text),
            found: Diagnostics::new(),
            origin: Origin {
                file: file.to_owned(),
                ..Origin::default()
            },
            complete: true,
        };
        let engine = reader.engine(raw.engine);
        let sessions = reader.sessions(raw.sessions);
        let nat = reader.nat(raw.nat);
        let interfaces = reader.interfaces(raw.interface);
        let workers = reader.workers(raw.worker);
        let Reader {
            mut found,
            origin,
            complete,
            ..
        } = reader;
        let topology = Topology {
            engine,
            sessions,
            nat,
            interfaces,
            workers,
            origin,
        };
        found.extend(rules::broken_in_part(&topology));
        if complete {
            found.extend(rules::broken_as_a_whole(&topology));
        }
        found.into_result(topology)
    }
}

/// Turns raw values into typed ones. A wrong one is reported and replaced by its default, or left
/// out, so that the rest can be looked at; the result is used only when nothing was found.
struct Reader<'a> {
    source: Source<'a>,
    found: Diagnostics,
    origin: Origin,
    /// No interface, worker or queue was left out: what is missing is missing in the file.
    complete: bool,
}

impl Reader<'_> {
    fn engine(&mut self, raw: RawEngine) -> Engine {
        let socket = self.path("socket", raw.socket, Engine::SOCKET, SOCKET_PATH_MAX);
        let pin_dir = self.path("pin_dir", raw.pin_dir, Engine::PIN_DIR, DIRECTORY_MAX);
        let addresses = self.addresses(&raw.addresses);
        let flows_ipv4 = self.number(
            "flows_ipv4",
            raw.flows_ipv4,
            FlowCapacity::new,
            FlowCapacity::ALLOWED,
        );
        let flows_ipv6 = self.number(
            "flows_ipv6",
            raw.flows_ipv6,
            FlowCapacity::new,
            FlowCapacity::ALLOWED,
        );
        let umem_frames = self.number(
            "umem_frames",
            raw.umem_frames,
            UmemFrames::new,
            UmemFrames::ALLOWED,
        );
        let frame_size = self.number("frame_size", raw.frame_size, FrameSize::new, "2048, 4096");
        let watchdog = self.watchdog(raw.watchdog);
        Engine {
            socket: socket.unwrap_or_else(|| Engine::SOCKET.into()),
            pin_dir: pin_dir.unwrap_or_else(|| Engine::PIN_DIR.into()),
            addresses,
            poll: raw.poll,
            receive: raw.receive,
            spread: raw.spread,
            flows_ipv4: flows_ipv4.unwrap_or(FlowCapacity::DEFAULT_IPV4),
            flows_ipv6: flows_ipv6.unwrap_or(FlowCapacity::DEFAULT_IPV6),
            umem_frames: umem_frames.unwrap_or(UmemFrames::DEFAULT),
            frame_size: frame_size.unwrap_or_default(),
            watchdog: watchdog.unwrap_or(Watchdog::DEFAULT),
        }
    }

    fn note(&mut self, key: &'static str, span: std::ops::Range<usize>) {
        self.origin.keys.push((key, self.source.at(span)));
    }

    fn path(
        &mut self,
        key: &'static str,
        raw: Option<Spanned<String>>,
        example: &str,
        max: usize,
    ) -> Option<PathBuf> {
        let raw = raw?;
        self.note(key, raw.span());
        let path = PathBuf::from(raw.get_ref());
        if !path.is_absolute() {
            let message = format!("`{key}` is not an absolute path: \"{}\"", raw.get_ref());
            let help = format!("such as \"{example}\"");
            self.found
                .push(self.source.error(raw.span(), message).help(help));
        } else if raw.get_ref().len() > max || raw.get_ref().contains('\0') {
            let message = format!("`{key}` is not a path that the kernel takes");
            let help = format!("at most {max} bytes, none of them 0");
            self.found
                .push(self.source.error(raw.span(), message).help(help));
        }
        Some(path)
    }

    fn sessions(&mut self, raw: RawSessions) -> Sessions {
        let default = Sessions::default();
        let (sizes, count) = (BufferSize::ALLOWED, SessionCapacity::ALLOWED);
        let max = self.number("max", raw.max, SessionCapacity::new, count);
        let connections = self.number(
            "connections",
            raw.connections,
            ConnectionCapacity::new,
            ConnectionCapacity::ALLOWED,
        );
        let client = self.number("client_buffer", raw.client_buffer, BufferSize::new, sizes);
        let replica = self.number("replica_buffer", raw.replica_buffer, BufferSize::new, sizes);
        let log_memory = self.number(
            "log_memory",
            raw.log_memory,
            LogMemory::new,
            LogMemory::ALLOWED,
        );
        let spill_limit = self.number(
            "spill_limit",
            raw.spill_limit,
            SpillLimit::new,
            SpillLimit::ALLOWED,
        );
        Sessions {
            max: max.unwrap_or(default.max),
            connections: connections.unwrap_or(default.connections),
            client_buffer: client.unwrap_or(default.client_buffer),
            replica_buffer: replica.unwrap_or(default.replica_buffer),
            log_memory: log_memory.unwrap_or(default.log_memory),
            ports: self.ports("ports", raw.ports).unwrap_or(default.ports),
            spill: self.path("spill", raw.spill, "/var/lib/lockstep/spill", DIRECTORY_MAX),
            spill_limit: spill_limit.unwrap_or(default.spill_limit),
        }
    }

    fn nat(&mut self, raw: RawNat) -> Nat {
        let default = Nat::default();
        Nat {
            ports: self.ports("nat.ports", raw.ports).unwrap_or(default.ports),
        }
    }

    fn ports(&mut self, key: &'static str, raw: Option<Spanned<String>>) -> Option<PortRange> {
        let raw = raw?;
        self.note(key, raw.span());
        let parsed = raw.get_ref().parse();
        parsed
            .map_err(|error: crate::sessions::ParsePortsError| {
                let message = format!("`ports` cannot be \"{}\"", raw.get_ref());
                let message = self.source.error(raw.span(), message);
                self.found.push(message.help(error.to_string()));
            })
            .ok()
    }

    fn addresses(&mut self, raw: &Spanned<Vec<Spanned<String>>>) -> Addresses {
        self.note("addresses", raw.span());
        let mut addresses: Vec<IpAddr> = Vec::new();
        for text in raw.get_ref() {
            let (span, text) = (text.span(), text.get_ref());
            let parsed = text.parse::<IpAddr>().ok();
            match parsed {
                Some(address) if addresses.contains(&address) => {
                    let message = format!("address {address} is named twice");
                    self.found.push(self.source.error(span, message));
                }
                Some(address) if Addresses::is_usable(address) => addresses.push(address),
                Some(address) => {
                    let message = format!("{address} cannot be an engine address");
                    let help = "a unicast address that the network routes to this host";
                    self.found.push(self.source.error(span, message).help(help));
                }
                None => {
                    let message = format!("\"{text}\" is not an IP address");
                    let help = "without a prefix length or a port, such as \"192.0.2.10\"";
                    self.found.push(self.source.error(span, message).help(help));
                }
            }
        }
        if raw.get_ref().is_empty() {
            let message = "`addresses` is empty";
            let help = "tunnels need an outer source: one IPv4 address, one IPv6 address, or both";
            self.found
                .push(self.source.error(raw.span(), message).help(help));
        }
        Addresses::new(addresses).unwrap_or(Addresses::NONE)
    }

    fn number<N: TryFrom<i64>, T>(
        &mut self,
        key: &'static str,
        raw: Option<Spanned<i64>>,
        new: fn(N) -> Option<T>,
        allowed: &str,
    ) -> Option<T> {
        let raw = raw?;
        self.note(key, raw.span());
        let value = N::try_from(*raw.get_ref()).ok().and_then(new);
        if value.is_none() {
            let message = format!("`{key}` cannot be {}", raw.get_ref());
            let help = format!("allowed: {allowed}");
            self.found
                .push(self.source.error(raw.span(), message).help(help));
        }
        value
    }

    fn watchdog(&mut self, raw: Option<Spanned<String>>) -> Option<Watchdog> {
        let raw = raw?;
        self.note("watchdog", raw.span());
        let text = raw.get_ref();
        let duration = duration::parse(text);
        let value = duration.clone().ok().and_then(Watchdog::new);
        if value.is_none() {
            let message = format!("`watchdog` cannot be \"{text}\"");
            let help = match duration {
                Ok(_) => format!("allowed: {}", Watchdog::ALLOWED),
                Err(error) => error.to_string(),
            };
            self.found
                .push(self.source.error(raw.span(), message).help(help));
        }
        value
    }

    fn interfaces(&mut self, raw: Vec<RawInterface>) -> Vec<Interface> {
        let mut interfaces = Vec::new();
        for RawInterface { name: raw, mode } in raw {
            let Some(name) = InterfaceName::new(raw.get_ref()) else {
                let message = format!("\"{}\" cannot be an interface", raw.get_ref());
                let help = format!("allowed: {}", InterfaceName::ALLOWED);
                self.found
                    .push(self.source.error(raw.span(), message).help(help));
                self.complete = false;
                continue;
            };
            self.origin.interfaces.push(self.source.at(raw.span()));
            interfaces.push(Interface { name, mode });
        }
        interfaces
    }

    fn workers(&mut self, raw: Vec<RawWorker>) -> Vec<Worker> {
        let mut workers = Vec::new();
        for raw in raw {
            let mut queues: Vec<(Queue, Position)> = Vec::new();
            for range in &raw.queues {
                let at = self.source.at(range.span());
                match range.get_ref().parse::<QueueRange>() {
                    Ok(range) => queues.extend(range.queues().map(|queue| (queue, at))),
                    Err(error) => {
                        let message = format!("\"{}\" names no queues", range.get_ref());
                        let message = self.source.error(range.span(), message);
                        self.found.push(message.help(error.to_string()));
                        self.complete = false;
                    }
                }
            }
            let core = u16::try_from(*raw.core.get_ref()).ok().and_then(Core::new);
            let Some(core) = core else {
                let message = format!("`core` cannot be {}", raw.core.get_ref());
                let help = format!("allowed: {}", Core::ALLOWED);
                self.found
                    .push(self.source.error(raw.core.span(), message).help(help));
                self.complete = false;
                continue;
            };
            let (queues, positions) = queues.into_iter().unzip();
            self.origin.workers.push(WorkerOrigin {
                core: self.source.at(raw.core.span()),
                queues: positions,
            });
            workers.push(Worker {
                core,
                queues,
                process: raw.process.unwrap_or(true),
            });
        }
        workers
    }
}
