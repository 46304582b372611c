//! `lockstep decap attach | detach | show DEV`: the end of tunnels on a real server.

use super::output::{Out, table};
use super::{Answer, Failure, units};
use clap::{Args, Subcommand, ValueEnum};
use lockstep_bpf::{BpfError, Decap, ModeChoice};
use nix::ifaddrs::getifaddrs;
use nix::sys::socket::SockaddrStorage;
use serde::Serialize;
use std::net::IpAddr;
use std::num::NonZeroU16;

/// What to do with the program that ends tunnels.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Attach it to an interface; it stays when this command ends, until detached or a reboot
    Attach(Attach),
    /// Take it off
    Detach(Device),
    /// Show how it is attached and what it did
    Show(Device),
}

/// Arguments of `lockstep decap attach`.
#[derive(Debug, Args)]
pub struct Attach {
    /// The interface that the balancer's packets come in by.
    device: String,
    /// Where tunnels end; otherwise at every address of the interface.
    #[arg(long = "address", value_name = "ADDRESS")]
    addresses: Vec<IpAddr>,
    /// Take GUE off too, from packets to this UDP port (the service's `gue_port`).
    #[arg(long, value_name = "PORT")]
    gue_port: Option<NonZeroU16>,
    /// How it is attached.
    #[arg(long, value_enum, default_value_t = Mode::Auto)]
    mode: Mode,
}

/// An interface.
#[derive(Debug, Args)]
pub struct Device {
    /// The interface.
    device: String,
}

/// How an XDP program is attached.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Mode {
    /// In the driver, and in the network stack where the driver cannot
    Auto,
    /// In the driver
    Native,
    /// In the network stack
    Generic,
}

impl Mode {
    fn choice(self) -> ModeChoice {
        match self {
            Mode::Auto => ModeChoice::Auto,
            Mode::Native => ModeChoice::Native,
            Mode::Generic => ModeChoice::Generic,
        }
    }
}

/// The answer as JSON.
#[derive(Debug, Serialize)]
struct Report {
    device: String,
    attached: bool,
    mode: Option<&'static str>,
    addresses: Vec<IpAddr>,
    gue_port: Option<NonZeroU16>,
}

impl From<BpfError> for Failure {
    fn from(error: BpfError) -> Self {
        Failure::Refused(error.to_string())
    }
}

/// Does what was asked for.
pub fn run(command: Command, out: &mut Out) -> Result<Answer, Failure> {
    match command {
        Command::Attach(arguments) => attach(arguments, out),
        Command::Detach(Device { device }) => {
            Decap::open(&device)?.detach()?;
            let report = Report {
                device,
                attached: false,
                mode: None,
                addresses: Vec::new(),
                gue_port: None,
            };
            out.answer(&report, || {
                format!("{}: tunnels no longer end here", report.device)
            })?;
            Ok(Answer::Yes)
        }
        Command::Show(Device { device }) => show(&device, out),
    }
}

fn attach(arguments: Attach, out: &mut Out) -> Result<Answer, Failure> {
    let Attach {
        device,
        addresses,
        gue_port,
        mode,
    } = arguments;
    let addresses = if addresses.is_empty() {
        addresses_of(&device)?
    } else {
        addresses
    };
    let attached = Decap::attach(&device, &addresses, gue_port, mode.choice())?;
    if let Some(reason) = attached.native_refused() {
        super::output::say(format!(
            "lockstep: {device}: not native, so slower than it could be: {reason}"
        ));
    }
    let mode = Some(attached.mode().name());
    let report = Report {
        device,
        attached: true,
        mode,
        addresses,
        gue_port,
    };
    out.answer(&report, || {
        let addresses: Vec<String> = report.addresses.iter().map(ToString::to_string).collect();
        let mode = report.mode.unwrap_or_default();
        let gue = report
            .gue_port
            .map_or(String::new(), |port| format!(", GUE at UDP port {port}"));
        format!(
            "{}: tunnels to {} end here ({mode}{gue})",
            report.device,
            addresses.join(", ")
        )
    })?;
    Ok(Answer::Yes)
}

/// Every address of an interface that a tunnel can end at: link-local ones are left out, since no
/// router brings packets to them.
fn addresses_of(device: &str) -> Result<Vec<IpAddr>, Failure> {
    let all = getifaddrs().map_err(|error| {
        Failure::Refused(format!("cannot list the addresses of this host: {error}"))
    })?;
    let address =
        |storage: SockaddrStorage| match (storage.as_sockaddr_in(), storage.as_sockaddr_in6()) {
            (Some(v4), _) => Some(IpAddr::V4(v4.ip())),
            (None, Some(v6)) => Some(IpAddr::V6(v6.ip())),
            (None, None) => None,
        };
    let link_local = |address: &IpAddr| match address {
        IpAddr::V4(v4) => v4.is_link_local(),
        IpAddr::V6(v6) => v6.is_unicast_link_local(),
    };
    if nix::net::if_::if_nametoindex(device).is_err() {
        let text = format!("this host has no interface {device}; `ip link` lists them");
        return Err(Failure::Refused(text));
    }
    let mut addresses: Vec<IpAddr> = all
        .filter(|entry| entry.interface_name == device)
        .filter_map(|entry| entry.address.and_then(address))
        .filter(|address| !link_local(address) && !address.is_loopback())
        .collect();
    addresses.sort();
    addresses.dedup();
    if addresses.is_empty() {
        let text =
            format!("{device} has no address that a tunnel can end at; give one by --address");
        return Err(Failure::Refused(text));
    }
    Ok(addresses)
}

fn show(device: &str, out: &mut Out) -> Result<Answer, Failure> {
    let attached = Decap::open(device)?;
    let (mode, counters) = (attached.mode(), attached.counters()?);
    let counters: Vec<(&str, u64)> = counters.iter().collect();
    let json = serde_json::json!({
        "device": device,
        "mode": mode.name(),
        "counters": counters.iter().copied().collect::<std::collections::BTreeMap<_, _>>(),
    });
    out.answer(&json, || {
        let rows = counters
            .iter()
            .map(|&(name, n)| vec![name.to_owned(), units::count(n)]);
        format!(
            "{device}: attached, {mode}\n\n{}",
            table(&["COUNTER", ">PACKETS"], rows)
        )
    })?;
    Ok(Answer::Yes)
}
