//! What came back of what backends were sent: answers where the engine rewrites them, refusals of
//! tunnels.

use super::engine::{Backend, Service};
use crate::cli::units::{count, time};
use lockstep_api as api;
use serde::Serialize;

/// Connections without any answer from which on it is no accident.
const UNANSWERED: u64 = 3;
/// Seconds for which a refused tunnel needs attention.
const REFUSED: f64 = 60.0;

/// What came back of a backend whose answers come by the engine.
#[derive(Debug, Serialize)]
pub struct Back {
    /// Its answers.
    pub answers: u64,
    /// TCP flows opened since the last of them.
    unanswered_flows: u64,
    /// Since the first of those.
    unanswered_seconds: f64,
}

/// Packets to a backend in a tunnel that somebody refused.
#[derive(Debug, Serialize)]
pub struct Refused {
    packets: u64,
    /// Since the last one.
    seconds: f64,
}

impl Back {
    /// Of a backend in a service with this mode.
    pub fn new(status: &api::BackendStatus, mode: &str) -> Option<Self> {
        matches!(mode, "nat" | "full-nat").then_some(Back {
            answers: status.answers,
            unanswered_flows: status.unanswered_flows,
            unanswered_seconds: status.unanswered_seconds,
        })
    }
}

impl Refused {
    /// None where nothing was refused.
    pub fn new(status: &api::BackendStatus) -> Option<Self> {
        status.refused_seconds.map(|seconds| Refused {
            packets: status.refused,
            seconds,
        })
    }
}

/// What the operator should look at.
pub fn troubles(service: &Service) -> impl Iterator<Item = String> {
    let of = |backend| [silent(service, backend), refused(service, backend)];
    service.backends.iter().flat_map(of).flatten()
}

/// Nothing of it has come back: it is down, or what it answers goes another way.
fn silent(service: &Service, backend: &Backend) -> Option<String> {
    let back = backend.back.as_ref()?;
    let way = match service.mode.as_str() {
        "nat" => "is its route to the clients by way of the balancer?",
        _ => "has it a route to the engine's addresses, and who answers ARP or ND for those?",
    };
    (back.unanswered_flows >= UNANSWERED).then(|| {
        format!(
            "service {}: backend {} ({}) was given {} connections in {} and nothing came back: is it up, \
             and {way} See `lockstep doctor --server --mode {} --balancer ADDRESS` on it",
            service.name,
            backend.name,
            backend.address,
            count(back.unanswered_flows),
            time(back.unanswered_seconds),
            service.mode
        )
    })
}

/// Somebody said so of late.
fn refused(service: &Service, backend: &Backend) -> Option<String> {
    let refused = backend.refused.as_ref()?;
    (refused.seconds < REFUSED).then(|| {
        format!(
            "service {}: backend {} ({}) or a router before it refuses the tunnel, {} packets so far: \
             does it take the outer header off? See `lockstep doctor --server` on it, and `lockstep \
             capture --reason icmp_tunnel` here",
            service.name,
            backend.name,
            backend.address,
            count(refused.packets)
        )
    })
}

#[cfg(test)]
mod tests {
    use super::super::engine::Engine;
    use super::*;

    fn troubles(mode: &str, backend: api::BackendStatus) -> Vec<String> {
        let service = api::ServiceStatus {
            name: "web".to_owned(),
            mode: mode.to_owned(),
            backends: vec![api::BackendStatus {
                name: "s1".to_owned(),
                address: "10.0.0.1".to_owned(),
                reachable: true,
                ..backend
            }],
            ..api::ServiceStatus::default()
        };
        let status = api::EngineStatus {
            services: vec![service],
            ..api::EngineStatus::default()
        };
        Engine::new(status).troubles()
    }

    #[test]
    fn a_backend_whose_answers_go_another_way_needs_attention() {
        let with = |unanswered_flows| api::BackendStatus {
            answers: 7,
            unanswered_flows,
            unanswered_seconds: 62.0,
            ..api::BackendStatus::default()
        };
        for (mode, part) in [
            ("nat", "is its route to the clients by way of the balancer?"),
            ("full-nat", "who answers ARP or ND for those?"),
        ] {
            assert!(troubles(mode, with(2)).is_empty());
            let [said] = &troubles(mode, with(3))[..] else {
                panic!("one trouble")
            };
            let begins = "service web: backend s1 (10.0.0.1) was given 3 connections in 1m";
            assert!(said.starts_with(begins) && said.contains(part), "{said}");
        }
        // There answers go another way by design.
        assert!(troubles("tunnel", with(1_000)).is_empty());
    }

    #[test]
    fn a_refused_tunnel_needs_attention_for_a_minute() {
        let ago = |seconds| api::BackendStatus {
            refused: 12,
            refused_seconds: seconds,
            ..api::BackendStatus::default()
        };
        let said = troubles("tunnel", ago(Some(59.0)));
        assert!(said[0].contains("backend s1 (10.0.0.1)"), "{said:?}");
        assert!(said[0].contains("12 packets so far"), "{said:?}");
        for seconds in [Some(61.0), None] {
            assert!(troubles("tunnel", ago(seconds)).is_empty());
        }
    }
}
