//! Services in a line, for the tests.

use lockstep_plan::{
    Backend, BackendState, Health, IdleTimeouts, Mode, Service, ServiceName, TableSize, Weight,
};

/// A backend named by its address.
pub fn backend(address: &str) -> Backend {
    Backend {
        name: address.to_owned(),
        address: address.parse().unwrap(),
        weight: Weight::DEFAULT,
        state: BackendState::Active,
        port: None,
        health: Health::UNKNOWN,
    }
}

/// A service with these backends and a VIP made from its name.
pub fn service(name: &str, backends: &[&str]) -> Service {
    let port = u16::from(name.as_bytes()[0]);
    Service {
        name: ServiceName::new(name).unwrap(),
        vips: vec![format!("203.0.113.10:{port}/tcp").parse().unwrap()],
        mode: Mode::TUNNEL,
        backends: backends.iter().map(|b| backend(b)).collect(),
        unserved: lockstep_plan::Unserved::Drop,
        table_size: TableSize::DEFAULT,
        idle: IdleTimeouts::DEFAULT,
        scheduler: lockstep_plan::Scheduler::default(),
        guard: lockstep_plan::Guard::default(),
    }
}
