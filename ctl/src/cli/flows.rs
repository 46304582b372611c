//! `lockstep flows`.

use super::output::{Out, table};
use super::{Answer, Failure, Global, ask, units};
use crate::transport::Peer;
use clap::Args;
use lockstep_api::{Flow, FlowsRequest, Protocol};
use serde::Serialize;
use std::net::{IpAddr, SocketAddr};

/// Arguments of `lockstep flows`.
#[derive(Debug, Args)]
pub struct Arguments {
    /// Of this service only.
    #[arg(long, value_name = "NAME")]
    service: Option<String>,
    /// Of the backend with this name or address only.
    #[arg(long, value_name = "BACKEND")]
    backend: Option<String>,
    /// Of clients in this prefix only, such as 198.51.100.0/24.
    #[arg(long, value_name = "PREFIX", value_parser = prefix)]
    client: Option<String>,
    /// At most this many; 0 for all.
    #[arg(long, value_name = "N", default_value_t = 1_000)]
    limit: u64,
}

/// A flow as JSON.
#[derive(Debug, Serialize)]
struct Entry {
    protocol: &'static str,
    client: String,
    client_port: u32,
    vip: String,
    vip_port: u32,
    service: String,
    backend: String,
    backend_address: String,
    state: String,
    idle_seconds: u32,
    worker: u32,
}

impl Entry {
    fn new(flow: Flow) -> Self {
        Entry {
            protocol: protocol_name(flow.protocol()),
            client: flow.client,
            client_port: flow.client_port,
            vip: flow.vip,
            vip_port: flow.vip_port,
            service: flow.service,
            backend: flow.backend_name,
            backend_address: flow.backend,
            state: flow.state,
            idle_seconds: flow.idle_seconds,
            worker: flow.worker,
        }
    }

    fn row(&self) -> Vec<String> {
        vec![
            self.protocol.to_owned(),
            endpoint(&self.client, self.client_port),
            endpoint(&self.vip, self.vip_port),
            self.service.clone(),
            self.backend.clone(),
            self.backend_address.clone(),
            self.state.clone(),
            units::time(self.idle_seconds.into()),
            self.worker.to_string(),
        ]
    }
}

/// A VIP as it stands in services.toml.
pub fn vip_name(vip: &lockstep_api::Vip) -> String {
    let socket = endpoint(&vip.address, vip.port);
    let protocol = protocol_name(vip.protocol());
    match vip.last_port {
        0 => format!("{socket}/{protocol}"),
        last => format!("{socket}-{last}/{protocol}"),
    }
}

/// A prefix of addresses, or an address alone. The engine takes it apart.
pub fn prefix(text: &str) -> Result<String, String> {
    let (address, length) = match text.split_once('/') {
        Some((address, length)) => (address, Some(length)),
        None => (text, None),
    };
    let longest = match address.parse() {
        Ok(IpAddr::V4(_)) => Some(32),
        Ok(IpAddr::V6(_)) => Some(128),
        Err(_) => None,
    };
    let fits = |length: &str| length.parse::<u8>().ok() <= longest && length.parse::<u8>().is_ok();
    match longest.is_some() && length.is_none_or(fits) {
        true => Ok(text.to_owned()),
        false => Err("an address, or a prefix such as 198.51.100.0/24".to_owned()),
    }
}

/// A protocol's name in output.
pub fn protocol_name(protocol: Protocol) -> &'static str {
    match protocol {
        Protocol::Tcp => "tcp",
        Protocol::Udp => "udp",
        Protocol::Unspecified => "unknown",
    }
}

/// An address and a port, with brackets where the address is IPv6.
pub fn endpoint(address: &str, port: u32) -> String {
    match (address.parse::<IpAddr>(), u16::try_from(port)) {
        (Ok(address), Ok(port)) => SocketAddr::new(address, port).to_string(),
        _ => format!("{address}:{port}"),
    }
}

/// Lists the flows.
pub async fn run(global: &Global, arguments: Arguments, out: &mut Out) -> Result<Answer, Failure> {
    let limit = arguments.limit;
    let request = FlowsRequest {
        service: arguments.service.unwrap_or_default(),
        backend: arguments.backend.unwrap_or_default(),
        client: arguments.client.unwrap_or_default(),
        limit,
    };
    let mut engine = ask::engine(global).await?;
    let mut stream = ask::answer(Peer::Engine, engine.flows(request)).await?;
    let mut flows = Vec::new();
    while let Some(flow) = ask::next(Peer::Engine, &mut stream).await? {
        flows.push(Entry::new(flow));
    }
    out.answer(&flows, || {
        let columns = [
            "PROTO", "CLIENT", "VIP", "SERVICE", "BACKEND", "ADDRESS", "STATE", ">IDLE", ">WORKER",
        ];
        let rows = table(&columns, flows.iter().map(Entry::row));
        match flows.len() {
            0 => "no flows".to_owned(),
            n if n as u64 == limit => format!("{rows}\n{n} flows shown; --limit 0 shows all"),
            n => format!(
                "{rows}\n{}",
                if n == 1 {
                    "1 flow".to_owned()
                } else {
                    format!("{n} flows")
                }
            ),
        }
    })?;
    Ok(Answer::Yes)
}
