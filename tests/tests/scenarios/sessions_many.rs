//! Many replicas: what one burst of a client's leads to must not drown the engine.

use anyhow::{Context, ensure};
use lockstep_tests::lab::{Behaviour, Lab, Replicated, TestServer, Version, scenario};
use std::net::{IpAddr, Ipv4Addr};

const REPLICAS: usize = 100;
const SIZE: u64 = 4 << 20;
/// Packets that may be lost at the RX ring, of some hundred thousand: a busy machine may keep the engine
/// from its ring for a moment.
const LOST: u64 = 1_000;

#[test]
fn scenario_sessions_acknowledgments_of_a_hundred_replicas_find_room_in_the_ring() {
    scenario(&Lab::builder().servers(1), |lab| {
        // One machine with the addresses of all, and one server for each connection.
        lab.servers[0].stand_in_for(1..REPLICAS)?;
        let everywhere = IpAddr::V4(Ipv4Addr::UNSPECIFIED);
        let _servers = lab.servers[0].start_test_server(everywhere, &Behaviour::sink())?;
        let all: Vec<usize> = (0..REPLICAS).collect();
        // The client is held to the pace of the slowest: nobody is left behind.
        let service = Replicated::new("test", Version::V4, TestServer::PORT, &all)
            .with("grace", "\"1m\"")
            .to_string();
        lab.start_lockstep(&service)?;

        let mut client = lab.client.stream(Version::V4.vip())?;
        client.send(SIZE)?;
        client.finish()?;
        let answer = String::from_utf8(client.rest()?)?;
        ensure!(answer.starts_with(&format!("{SIZE} ")), "{answer:?}");

        let metrics = lab.balancers[0].cli_text(&["metrics"])?;
        let lost = (metrics.lines())
            .find(|line| {
                line.starts_with("lockstep_socket_drops_total") && line.contains("rx_ring_full")
            })
            .and_then(|line| line.rsplit(' ').next()?.parse::<u64>().ok())
            .context("the engine does not tell what the ring has lost")?;
        println!("{lost} packets found the ring full");
        ensure!(lost < LOST, "{lost} packets found the ring full");
        ensure!(lab.balancers[0].metric("lockstep_replica_evicted_total")? == 0);
        Ok(())
    });
}
