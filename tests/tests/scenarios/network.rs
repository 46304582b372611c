//! The network around the balancer changes, and the engine follows.

use anyhow::{Result, ensure};
use etherparse::PacketBuilder;
use lockstep_tests::lab::{
    CLIENT_V4, KeepAlive, Lab, VIP_V4, Version, Wrk, router_rack_v4, scenario, wait_until, web,
};
use std::time::Duration;

const SOON: Duration = Duration::from_secs(10);

#[test]
fn scenario_a_backend_with_a_new_mac_address_is_followed() {
    scenario(&Lab::builder(), |lab| {
        let server = lab.servers[0].netns();
        // As a failover of a bonded or virtual NIC does: it announces its new address.
        server.sysctl(&[("net.ipv4.conf.eth0.arp_notify", "1")])?;
        server.sysctl(&[("net.ipv6.conf.eth0.ndisc_notify", "1")])?;
        lab.start_lockstep(&web(&[0, 1, 2]))?;
        for version in [Version::V4, Version::V6] {
            KeepAlive::open_many(lab.client.netns(), version.vip(), 6)?;
        }
        let mac = "02:00:00:00:00:77";
        lab.servers[0]
            .netns()
            .ip(&format!("link set dev eth0 address {mac}"))?;
        for (name, version) in [("web", Version::V4), ("web-v6", Version::V6)] {
            wait_until(
                &format!("the next hop of s1 for {name} is {mac}"),
                SOON,
                || {
                    let hop = lab.balancers[0].status()?.next_hop(name, "s1")?;
                    Ok(hop.contains(mac).then_some(()))
                },
            )?;
            let report = lab
                .client
                .wrk(&Wrk::new(version.url()).seconds(1).connection_per_request())?;
            ensure!(report.errors() == 0, "{report:?}");
        }
        Ok(())
    });
}

#[test]
fn scenario_a_changed_route_to_a_backend_is_followed_under_load() {
    scenario(&Lab::builder(), |lab| {
        lab.start_lockstep(&web(&[0, 1, 2]))?;
        let mut open = KeepAlive::open_many(lab.client.netns(), Version::V4.vip(), 24)?;
        let load = lab
            .client
            .start_wrk(&Wrk::new(Version::V4.url()).seconds(4))?;
        let (balancer, router) = (&lab.balancers[0], router_rack_v4());
        let direct = balancer.status()?.next_hop("web", "s1")?;
        balancer.netns().ip(&format!(
            "route add {}/32 via {router}",
            lab.servers[0].v4()
        ))?;
        wait_until("the next hop of s1 is the router", SOON, || {
            let hop = balancer.status()?.next_hop("web", "s1")?;
            Ok(hop.contains(&router.to_string()).then_some(()))
        })?;
        open.iter_mut().try_for_each(KeepAlive::must_stay)?;
        balancer
            .netns()
            .ip(&format!("route del {}/32", lab.servers[0].v4()))?;
        wait_until("the next hop of s1 is what it was", SOON, || {
            Ok((balancer.status()?.next_hop("web", "s1")? == direct).then_some(()))
        })?;
        open.iter_mut().try_for_each(KeepAlive::must_stay)?;
        let report = load.report()?;
        ensure!(report.errors() == 0, "{report:?}");
        Ok(())
    });
}

#[test]
fn scenario_connections_survive_the_loss_of_one_of_two_balancers() {
    scenario(&Lab::builder().balancers(2), |lab| {
        lab.start_lockstep(&web(&[0, 1, 2]))?;
        let vip = Version::V4.vip();
        let mut open = {
            let ports = [lab.router.count_balancer(0)?, lab.router.count_balancer(1)?];
            let open = KeepAlive::open_many(lab.client.netns(), vip, 48)?;
            for port in &ports {
                ensure!(
                    port.packets("requests")? > 0,
                    "a balancer got no connection"
                );
            }
            open
        };
        lab.balancers[0].kill_engine()?;
        lab.router.set_port("b0", false)?;
        lab.router.route_vips_to(&[1])?;
        open.iter_mut().try_for_each(KeepAlive::must_stay)?;
        // And back: the first one has lost its flow table.
        lab.balancers[0].start_engine()?;
        lab.router.set_port("b0", true)?;
        wait_until("b0 knows the next hops again", SOON, || {
            let status = lab.balancers[0].status()?;
            Ok((status.epoch()? > 0 && status.all_reachable()?).then_some(()))
        })?;
        lab.router.route_vips_to(&[0, 1])?;
        open.iter_mut().try_for_each(KeepAlive::must_stay)
    });
}

#[test]
fn scenario_vlan_tagged_packets_for_the_vip_are_balanced() {
    scenario(&Lab::builder(), |lab| {
        lab.start_lockstep(&web(&[0, 1, 2]))?;
        let (balancer, port) = (&lab.balancers[0], lab.router.injector("b0")?);
        let (from, to) = (lab.router.netns().mac("b0")?, balancer.netns().mac("eth0")?);
        let before = forwarded(lab)?;
        for (tag, source_port) in (1..=100_u16).zip(20_000..) {
            let tag = tag.try_into()?;
            let packet = PacketBuilder::ethernet2(from, to)
                .single_vlan(tag)
                .ipv4(CLIENT_V4.octets(), VIP_V4.octets(), 64)
                .tcp(source_port, 80, 1, 65535)
                .syn();
            let mut frame = Vec::new();
            packet.write(&mut frame, &[])?;
            port.send(&frame)?;
        }
        wait_until("100 tagged packets are forwarded", SOON, || {
            Ok((forwarded(lab)? >= before + 100).then_some(()))
        })
    });
}

/// The packets that went to any backend of the IPv4 service.
fn forwarded(lab: &Lab) -> Result<u64> {
    let status = lab.balancers[0].status()?;
    ["s1", "s2", "s3"]
        .iter()
        .map(|name| status.backend_packets("web", name))
        .sum()
}
