//! What tests of the agent are made of.

use super::convert::snapshot_from_proto;
use lockstep_api as api;
use lockstep_core::{EngineAddresses, NextHop, Tables};

/// Tables with a service `web`; the backend 10.0.0.7 has the name `web-7`.
pub fn compile(before: &Tables, epoch: u64, backends: &[String]) -> Tables {
    let backend = |address: &String| api::Backend {
        name: format!("web-{}", address.rsplit('.').next().unwrap()),
        address: address.clone(),
        weight: 1,
        state: api::BackendState::Active.into(),
        ..api::Backend::default()
    };
    let service = api::Service {
        name: "web".to_owned(),
        mode: api::Mode::Tunnel.into(),
        vips: vec![api::Vip {
            address: "203.0.113.10".to_owned(),
            port: 80,
            protocol: api::Protocol::Tcp.into(),
            ..api::Vip::default()
        }],
        backends: backends.iter().map(backend).collect(),
        table_size: 65_537,
        idle: Some(api::IdleTimeouts {
            tcp_syn: 1,
            tcp_established: 1,
            tcp_fin: 1,
            udp: 1,
        }),
        ..api::Service::default()
    };
    let message = api::Snapshot {
        epoch,
        services: vec![service],
    };
    let snapshot = snapshot_from_proto(&message).unwrap();
    let addresses = EngineAddresses {
        v4: Some("192.0.2.1".parse().unwrap()),
        v6: None,
    };
    Tables::compile(before, &snapshot, addresses, |_| NextHop::NoRoute).unwrap()
}
