//! Answers that are always the same, or follow from the snapshot.

use super::*;

/// Two sessions: one in order, one that lost a replica.
pub(super) fn sessions() -> Vec<Session> {
    let replica = |name: &str, state: &str, output: u64| Replica {
        name: name.to_owned(),
        address: format!("10.0.0.{}", &name[1..]),
        state: state.to_owned(),
        since_seconds: 5.0,
        input: 100,
        output,
        rtt_microseconds: Some(250),
        ..Replica::default()
    };
    let session = |id: &str, client: &str, service: &str| Session {
        id: id.to_owned(),
        service: service.to_owned(),
        client: client.to_owned(),
        client_port: 40_000,
        vip: "203.0.113.10".to_owned(),
        vip_port: 80,
        state: "protected".to_owned(),
        primary: "s1".to_owned(),
        age_seconds: 61.0,
        received: 100,
        sent: 5_000,
        memory: 4_096,
        replicas: vec![
            replica("s1", "in-sync", 5_000),
            replica("s2", "in-sync", 6_000),
        ],
        ..Session::default()
    };
    let first = session("0-1", "198.51.100.7", "web");
    let mut second = session("1-3", "2001:db8::7", "game");
    second.state = "degraded".to_owned();
    second.kept_from = 50;
    second.switchovers = 1;
    second.replicas[1].state = "evicted".to_owned();
    second.replicas[1].cause = "reset".to_owned();
    second.replicas[1].output = 4_000;
    second.replicas[0].primary = true;
    vec![first, second]
}

pub(super) fn explanation(current: &Snapshot, request: ExplainRequest) -> Explanation {
    let drop = |packet: String, reason: &str| Explanation {
        verdict: "drop".to_owned(),
        reason: reason.to_owned(),
        steps: vec!["parsed".to_owned(), format!("dropped for {reason}")],
        packet,
        ..Explanation::default()
    };
    match request.packet {
        Some(Packet::Tuple(tuple)) => {
            let packet = format!(
                "tcp {}:{} > {}:{}",
                tuple.client, tuple.client_port, tuple.vip, tuple.vip_port
            );
            let serves = |s: &&lockstep_api::Service| {
                s.vips
                    .iter()
                    .any(|v| v.address == tuple.vip && v.port == tuple.vip_port)
            };
            match current.services.iter().find(serves) {
                None => drop(packet, "no_vip"),
                Some(service) => Explanation {
                    verdict: "forward".to_owned(),
                    service: service.name.clone(),
                    backend_name: service.backends[0].name.clone(),
                    backend: service.backends[0].address.clone(),
                    steps: vec!["parsed".to_owned(), "Maglev entry 7".to_owned()],
                    packet,
                    ..Explanation::default()
                },
            }
        }
        Some(Packet::Frame(frame)) if frame.len() < 14 => {
            drop(format!("{} bytes", frame.len()), "truncated")
        }
        _ => Explanation {
            verdict: "pass".to_owned(),
            packet: "arp".to_owned(),
            steps: vec!["not for a VIP".to_owned()],
            ..Explanation::default()
        },
    }
}

pub(super) fn status_of(current: &Snapshot) -> EngineStatus {
    let service = |s: &lockstep_api::Service| ServiceStatus {
        name: s.name.clone(),
        mode: "tunnel".to_owned(),
        sessions: 0,
        vips: s
            .vips
            .iter()
            .map(|v| VipStatus {
                vip: Some(v.clone()),
                packets: 1_234_567,
                bytes: 1_610_612_736,
                flows_moved: 0,
                stateless: 0,
                drops: vec![DropCount {
                    reason: "no_neighbour".to_owned(),
                    packets: 3,
                    help: "See `ip neigh`.".to_owned(),
                }],
            })
            .collect(),
        backends: s
            .backends
            .iter()
            .map(|b| BackendStatus {
                name: b.name.clone(),
                address: b.address.clone(),
                weight: b.weight,
                state: b.state,
                ring_share: 0.5,
                next_hop: "52:54:00:12:34:56 via 10.0.0.1 dev eth0".to_owned(),
                reachable: true,
                health: s.replicate.as_ref().map(|_| b.health.unwrap_or_default()),
                ..BackendStatus::default()
            })
            .collect(),
    };
    EngineStatus {
        version: "0.1.0".to_owned(),
        pid: 4_242,
        uptime_seconds: 11_520.0,
        epoch: current.epoch,
        workers: vec![WorkerStatus {
            core: 1,
            queues: vec!["eth0:0".to_owned()],
            state: "running".to_owned(),
            rx_packets: 2_000_000,
            flows_capacity: 1_000_000,
            epoch: current.epoch,
            ..WorkerStatus::default()
        }],
        services: current.services.iter().map(service).collect(),
        interfaces: vec![InterfaceStatus {
            name: "eth0".to_owned(),
            index: 2,
            mode: "native-copy".to_owned(),
            mtu: 1_500,
            mac: "52:54:00:00:00:01".to_owned(),
        }],
        drops: Vec::new(),
        ..EngineStatus::default()
    }
}
