use super::*;
use crate::dataplane::DataplaneConfig;
use crate::fixtures::*;
use crate::time::Micros;
use alloc::sync::Arc;
use alloc::vec;

fn dataplane(tables: Tables) -> Dataplane {
    let mut dataplane = Dataplane::new(&DataplaneConfig {
        flows_v4: 64,
        flows_v6: 64,
        seed: 9,
        ..DataplaneConfig::default()
    });
    dataplane.adopt(Arc::new(tables));
    dataplane
}

fn flow(dataplane: &Dataplane, port: u16, backend: usize) -> Restored {
    let client = "198.51.100.7".parse().unwrap();
    let vip = "203.0.113.10".parse().unwrap();
    Restored {
        key: FlowKey4::new(client, port, vip, 80, 6).into(),
        backend: dataplane.tables().rings()[0].members[backend].backend_ref,
        state: FlowState::Established,
        idle: 17,
    }
}

#[test]
fn a_flow_comes_back_as_it_was_and_only_once() {
    let servers = vec![backend("10.0.0.1"), draining("10.0.0.2")];
    let tables = compile(&Tables::default(), 1, vec![service("web", &[VIP], servers)]);
    let mut dataplane = dataplane(tables);
    // The worker's clock has just begun.
    let now = Seconds::at(Micros::ZERO);
    let flow = flow(&dataplane, 40_000, 1);
    assert!(dataplane.restore(now, &flow));
    let known = dataplane.known(now, &flow.key).unwrap();
    assert_eq!(known.backend, flow.backend);
    assert_eq!((known.state, known.idle), (flow.state, 17));
    assert_eq!(dataplane.flows_v4().len(), 1);
    assert!(!dataplane.restore(now, &flow), "it is there");
}

#[test]
fn flows_of_nobody_are_not_taken() {
    let servers = || vec![backend("10.0.0.1"), backend("10.0.0.2")];
    let tables = compile(
        &Tables::default(),
        1,
        vec![service("web", &[VIP], servers())],
    );
    let mut dataplane = dataplane(tables);
    let now = Seconds::at(Micros::ZERO);
    let good = flow(&dataplane, 40_000, 0);
    let of_another_vip = {
        let client = "198.51.100.7".parse().unwrap();
        let vip = "203.0.113.99".parse().unwrap();
        Restored {
            key: FlowKey4::new(client, 1, vip, 80, 6).into(),
            ..good
        }
    };
    assert!(!dataplane.restore(now, &of_another_vip));
    let of_no_backend = Restored {
        backend: BackendRef::NONE,
        ..good
    };
    assert!(!dataplane.restore(now, &of_no_backend));
    assert!(dataplane.flows_v4().is_empty());
}
