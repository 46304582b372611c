//! `lockstep-perf respond`: a server on AF_XDP that keeps no connections, so that it answers for any
//! number of clients and is not what limits a measurement.

mod answer;

use super::Mac;
use super::attached::{Attached, pin};
use super::clock::{idle, now};
use super::flows::Tuple;
use super::generate::ports;
use super::packet::{Link, read};
use super::place::Interface;
use super::said::{heard, say};
use super::socket::{Sending, Socket};
use super::stop::Stop;
use crate::measure::needs_root_for;
use crate::written::grouped;
use answer::{Answer, answer};
use anyhow::{Result, ensure};
use lockstep_bpf::Wanted;
use lockstep_wire::protocol;
use std::net::IpAddr;
use std::ops::RangeInclusive;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;

/// Nanoseconds between two looks at whether to stop.
const GLANCE: u64 = 50_000_000;
/// Bytes of a segment of a response: fits every path of Ethernet, in a tunnel as well.
const SEGMENT: usize = 1_380;
/// Segments that may be sent before anything is acknowledged (RFC 6928): more would need a window.
const SEGMENTS: usize = 10;

/// What `lockstep-perf respond` is told.
#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// Where requests come to.
    #[command(flatten)]
    attached: Attached,
    /// The addresses it answers for: the virtual one, where requests come in tunnels. All, unless
    /// said otherwise.
    #[arg(long, value_delimiter = ',')]
    at: Vec<IpAddr>,
    /// The ports it answers on, FIRST-LAST, of TCP and UDP: an HTTP response, an echo.
    #[arg(long, default_value = "80", value_parser = ports)]
    ports: RangeInclusive<u16>,
    /// Takes packets in tunnels, too: IP in IP, and GUE.
    #[arg(long)]
    tunnels: bool,
    /// The UDP port of GUE tunnels that end here.
    #[arg(long, default_value_t = 6_080)]
    gue_port: u16,
    /// Looks at the checksums of UDP and TCP, and does not answer what has a wrong one.
    #[arg(long)]
    verify: bool,
    /// Bytes of the body of a response.
    #[arg(long, default_value_t = 100)]
    body: usize,
    /// Where answers go: straight to a router of this link (an address, or a link-layer address).
    /// Without it, back to the host that the request came from.
    #[arg(long, value_name = "ADDRESS|MAC")]
    next_hop: Option<String>,
}

/// What all threads share.
struct Service {
    at: Vec<IpAddr>,
    ports: RangeInclusive<u16>,
    gue_port: u16,
    /// Header and body.
    response: Vec<u8>,
    own: Mac,
    next_hop: Option<Mac>,
    requests: AtomicU64,
    dropped: AtomicU64,
    /// Packets with a wrong checksum; none: nobody looks.
    corrupt: Option<AtomicU64>,
}

/// Answers until a signal comes.
pub fn run(arguments: &Arguments) -> Result<()> {
    heard(answer_all(arguments))
}

fn answer_all(arguments: &Arguments) -> Result<()> {
    needs_root_for("AF_XDP sockets and XDP programs need root")?;
    let attached = &arguments.attached;
    attached.check()?;
    let response = response(arguments.body)?;
    let stop = Stop::at_signals()?;
    let (interface, next_hop) = attached.within(|| {
        let interface = Interface::find(&attached.interface)?;
        let next_hop = arguments.next_hop.as_deref();
        let next_hop = next_hop.map(|text| router(&interface, text)).transpose()?;
        Ok((interface, next_hop))
    })?;
    let wanted = arguments.wanted();
    let mut line = attached.open(Some(&wanted))?;
    let service = Service {
        at: arguments.at.clone(),
        ports: arguments.ports.clone(),
        gue_port: arguments.gue_port,
        response,
        own: interface.mac,
        next_hop,
        requests: AtomicU64::new(0),
        dropped: AtomicU64::new(0),
        corrupt: arguments.verify.then(AtomicU64::default),
    };
    if let Some(mode) = line.mode() {
        say(format_args!("answering on {}, {mode}", attached.interface))?;
    }
    let served = thread::scope(|scope| {
        let threads: Vec<_> = (line.sockets.iter_mut().enumerate())
            .map(|(at, socket)| {
                let cpu = attached.core.get(at).copied();
                let (service, stop) = (&service, &stop);
                scope.spawn(move || serve(service, socket, cpu, stop))
            })
            .collect();
        threads
            .into_iter()
            .try_for_each(|thread| match thread.join() {
                Ok(result) => result,
                Err(panic) => std::panic::resume_unwind(panic),
            })
    });
    let corrupt = service.corrupt.map_or_else(String::new, |count| {
        let count = grouped(count.into_inner());
        format!(", {count} packets had a wrong checksum")
    });
    let said = say(format_args!(
        "{} requests answered, {} answers did not fit the ring{corrupt}",
        grouped(service.requests.load(Ordering::Relaxed)),
        grouped(service.dropped.load(Ordering::Relaxed))
    ));
    served.and(said)
}

impl Arguments {
    fn wanted(&self) -> Wanted {
        let mut ports: Vec<_> = [protocol::TCP, protocol::UDP]
            .map(|protocol| (protocol, self.ports.clone()))
            .into();
        // A tunnel is for an address of this host, and what it carries for another.
        let addresses = match self.tunnels {
            true => Default::default(),
            false => self.at.iter().copied().collect(),
        };
        if self.tunnels {
            ports.push((protocol::UDP, self.gue_port..=self.gue_port));
        }
        Wanted {
            addresses,
            ports,
            tunnels: self.tunnels,
        }
    }
}

fn router(interface: &Interface, text: &str) -> Result<Mac> {
    if let Ok(mac) = text.parse() {
        return Ok(mac);
    }
    let address = text.parse::<IpAddr>();
    let address = address.map_err(|_| {
        anyhow::anyhow!("--next-hop {text} is neither an address nor a link-layer address")
    })?;
    interface.next_hop(address)
}

/// An HTTP response with a body of so many bytes.
fn response(body: usize) -> Result<Vec<u8>> {
    let mut response = format!(
        "HTTP/1.1 200 OK\r\nServer: lockstep-perf\r\nContent-Type: text/plain\r\n\
         Content-Length: {body}\r\n\r\n"
    )
    .into_bytes();
    let most = SEGMENT * SEGMENTS - response.len();
    ensure!(
        body <= most,
        "a body has {most} bytes at most: the responder keeps no window for more"
    );
    response.resize(response.len() + body, b'.');
    Ok(response)
}

fn serve(service: &Service, socket: &mut Socket, cpu: Option<usize>, stop: &Stop) -> Result<()> {
    pin(cpu)?;
    while !stop.is_set() {
        let mut result = Ok(());
        let received = socket.exchange(|frame, sending| {
            if result.is_ok() {
                result = service.answer(frame, sending);
            }
        });
        result?;
        socket.flush()?;
        if received == 0 {
            let time = now();
            idle([&socket.port], time, time + GLANCE)?;
        }
    }
    Ok(())
}

impl Service {
    fn answer(&self, frame: &[u8], sending: &mut Sending<'_>) -> Result<()> {
        let Some(arrived) = read(frame, self.gue_port) else {
            return Ok(());
        };
        let to = arrived.ends.destination;
        if !self.ports.contains(&to.port()) || !(self.at.is_empty() || self.at.contains(&to.ip())) {
            return Ok(());
        }
        if let Some(corrupt) = &self.corrupt
            && !arrived.is_sound()
        {
            corrupt.fetch_add(1, Ordering::Relaxed);
            return Ok(());
        }
        let Some(back) = frame.get(6..12).and_then(|mac| mac.first_chunk()) else {
            return Ok(());
        };
        let link = Link {
            to: self.next_hop.map_or(*back, |mac| mac.0),
            from: self.own.0,
        };
        let ends: Tuple = arrived.ends.reversed();
        let mut dropped = 0;
        let mut request = false;
        for part in answer(&arrived, &self.response) {
            request |= !matches!(part, Answer::Control(_));
            dropped += u64::from(!sending.send(|frame| part.write(frame, &link, &ends))?);
        }
        if request {
            self.requests.fetch_add(1, Ordering::Relaxed);
        }
        if dropped > 0 {
            self.dropped.fetch_add(dropped, Ordering::Relaxed);
        }
        Ok(())
    }
}
