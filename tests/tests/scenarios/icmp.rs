//! Pings, path MTU discovery in both directions, and fragments, with the kernel's own IP stacks at
//! both ends.

use anyhow::{Result, bail, ensure};
use etherparse::PacketBuilder;
use lockstep_tests::lab::{
    Content, Datagrams, Direction, KeepAlive, Lab, Replicated, Server, Version, scenario, service,
    wait_until, web, while_echoing,
};
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

const SOON: Duration = Duration::from_secs(10);
const VERSIONS: [Version; 2] = [Version::V4, Version::V6];

#[test]
fn scenario_icmp_a_ping_to_a_vip_is_answered_by_the_balancer() {
    scenario(&Lab::builder().servers(1), |lab| {
        lab.start_lockstep(&web(&[0]))?;
        let link = lab.router.count_balancer(0)?;
        for version in VERSIONS {
            // Without a payload, ping's own, and nearly as much as fits the client's link.
            for bytes in ["0", "56", "1400"] {
                let vip = version.vip().to_string();
                let args = ["-c", "5", "-i", "0.2", "-W", "5", "-s", bytes, &vip];
                lab.client.netns().output("ping", &args)?;
            }
        }
        ensure!(
            link.packets("tunnelled")? == 0,
            "the balancer answers itself"
        );
        Ok(())
    });
}

#[test]
fn scenario_icmp_a_narrow_link_before_the_client_is_discovered_by_the_servers() {
    scenario(&Lab::builder(), |lab| downloads(lab, 1));
}

/// The router hashes its errors by their own addresses: all of them come to one balancer, the
/// connections to both.
#[test]
fn scenario_icmp_errors_reach_their_server_by_a_balancer_that_did_not_forward_the_flow() {
    scenario(&Lab::builder().balancers(2), |lab| downloads(lab, 12));
}

fn downloads(lab: &mut Lab, each: usize) -> Result<()> {
    lab.start_lockstep(&web(&[0, 1, 2]))?;
    let links: Vec<_> = (0..lab.balancers.len())
        .map(|index| lab.router.count_balancer(index))
        .collect::<Result<_>>()?;
    // The router's end alone: the client, and so its MSS, knows nothing of it.
    lab.router.netns().ip("link set dev client mtu 1400")?;
    let content = Content::new(lab.run(), "big", 200_000, 7)?;
    for version in VERSIONS {
        for _ in 0..each {
            // Each connection needs an error of its own.
            for server in &lab.servers {
                server.netns().forget_mtus()?;
            }
            ensure!(told(lab, version)? == 0, "the servers have forgotten");
            let arrived = lab.client.download(version.web(), &content, |_| Ok(()))?;
            arrived.must_be(&content)?;
            ensure!(
                told(lab, version)? == 1,
                "the server of the connection was told"
            );
        }
    }
    for link in &links {
        ensure!(link.packets("tunnelled")? > 0, "both balancers forward");
    }
    Ok(())
}

/// How many servers know of the narrow link.
fn told(lab: &Lab, version: Version) -> Result<usize> {
    let mut knows = 0;
    for server in &lab.servers {
        let mtu = server
            .netns()
            .learned_mtu(version.client(), version.vip())?;
        ensure!(matches!(mtu, None | Some(1_400)), "{mtu:?}");
        knows += usize::from(mtu.is_some());
    }
    Ok(knows)
}

#[test]
fn scenario_icmp_a_client_is_told_what_fits_the_tunnel_over_ipv4() {
    scenario(&Lab::builder().servers(1), |lab| uploads(lab, Version::V4));
}

#[test]
fn scenario_icmp_a_client_is_told_what_fits_the_tunnel_over_ipv6() {
    scenario(&Lab::builder().servers(1), |lab| uploads(lab, Version::V6));
}

fn uploads(lab: &mut Lab, version: Version) -> Result<()> {
    // No longer than the client's own: its full packets do not fit with an outer header.
    lab.balancers[0].netns().ip("link set dev eth0 mtu 1500")?;
    let ports = ["5201/tcp"];
    lab.start_lockstep(&service("iperf", version, &ports, version, &[0]))?;
    let _server = lab.servers[0].start_iperf(version.vip())?;
    let upload = lab
        .client
        .iperf_tcp(version.vip(), Direction::Upload, 5, 3)?;
    let kilobits: u64 = upload.finish()?.iter().sum();
    ensure!(kilobits > 0, "nothing arrived");
    let inside = match version {
        Version::V4 => 1_500 - 20,
        Version::V6 => 1_500 - 40,
    };
    let mtu = lab
        .client
        .netns()
        .learned_mtu(version.vip(), version.client())?;
    ensure!(mtu == Some(inside), "{mtu:?}");
    Ok(())
}

#[test]
fn scenario_icmp_datagrams_in_fragments_are_echoed_over_ipv4() {
    scenario(&Lab::builder(), |lab| fragments(lab, Version::V4));
}

#[test]
fn scenario_icmp_datagrams_in_fragments_are_echoed_over_ipv6() {
    scenario(&Lab::builder(), |lab| fragments(lab, Version::V6));
}

fn fragments(lab: &mut Lab, version: Version) -> Result<()> {
    let ports = ["5300/udp"];
    lab.start_lockstep(&service("echo", version, &ports, version, &[0, 1, 2]))?;
    let at = SocketAddr::new(version.vip(), 5_300);
    let servers = lab.servers.iter();
    let servers = servers.map(|server| Datagrams::bind(server.netns(), at));
    let servers = servers.collect::<Result<Vec<_>>>()?;
    let counts = while_echoing(&servers, || {
        (0..20).try_for_each(|number| {
            // From a port of its own each.
            let from = SocketAddr::new(version.client(), 0);
            let client = Datagrams::bind(lab.client.netns(), from)?;
            let datagram: Vec<u8> = (0..4_000_u16).map(|at| at as u8 ^ number).collect();
            let answer = client.ask(&datagram, at)?;
            ensure!(answer == datagram, "the same {number} comes back");
            Ok(())
        })
    })?;
    ensure!(
        counts.iter().filter(|count| **count > 0).count() > 1,
        "the datagrams are spread over the servers: {counts:?}"
    );
    Ok(())
}

/// No kernel of the lab has a problem with another one's headers: the error is made up here.
#[test]
fn scenario_icmp_a_parameter_problem_of_the_client_reaches_the_server() {
    scenario(&Lab::builder(), |lab| {
        let services = VERSIONS.map(|version| {
            let name = format!("echo-{version:?}").to_lowercase();
            service(&name, version, &["5300/udp"], version, &[0, 1, 2])
        });
        lab.start_lockstep(&services.concat())?;
        let port = lab.client.injector()?;
        for version in VERSIONS {
            let at = SocketAddr::new(version.vip(), 5_300);
            let server = |server: &Server| Datagrams::bind(server.netns(), at);
            let servers = lab.servers.iter().map(server).collect::<Result<Vec<_>>>()?;
            let from = SocketAddr::new(version.client(), 0);
            let client = Datagrams::bind(lab.client.netns(), from)?;
            while_echoing(&servers, || client.ask(b"question", at).map(drop))?;
            port.send(&problem(lab, version, client.at()?.port(), 5_300)?)?;
            let heard = wait_until("a server hears of it", SOON, || {
                let heard = servers.iter().map(Datagrams::heard);
                let heard = heard.collect::<Result<Vec<_>>>()?;
                Ok(heard.into_iter().flatten().next())
            })?;
            ensure!(
                (heard.kind, heard.from) == (kind(version), version.client()),
                "{heard:?}"
            );
        }
        Ok(())
    });
}

#[test]
fn scenario_icmp_an_error_about_a_replicated_session_is_dropped() {
    scenario(&Lab::builder(), |lab| {
        lab.start_lockstep(&Replicated::web(&[0, 1, 2]).to_string())?;
        let balancer = &lab.balancers[0];
        let mut open = KeepAlive::open(lab.client.netns(), Version::V4.vip())?;
        let port = lab.client.injector()?;
        port.send(&problem(lab, Version::V4, open.client()?.port(), 80)?)?;
        wait_until("it is counted", SOON, || {
            Ok((balancer.status()?.drops("icmp_session")? == 1).then_some(()))
        })?;
        open.must_stay()
    });
}

fn kind(version: Version) -> u8 {
    match version {
        Version::V4 => 12,
        Version::V6 => 4,
    }
}

/// A frame of the client's with a parameter problem, about what comes from `port` of the VIP: to the
/// client's port `to`, in UDP over 1,024 and in TCP below.
fn problem(lab: &Lab, version: Version, to: u16, port: u16) -> Result<Vec<u8>> {
    let builder = |from: IpAddr, to: IpAddr| match (from, to) {
        (IpAddr::V4(from), IpAddr::V4(to)) => {
            Ok(PacketBuilder::ipv4(from.octets(), to.octets(), 60))
        }
        (IpAddr::V6(from), IpAddr::V6(to)) => {
            Ok(PacketBuilder::ipv6(from.octets(), to.octets(), 60))
        }
        _ => bail!("{from} and {to}"),
    };
    let (client, vip) = (version.client(), version.vip());
    let answer = builder(vip, client)?;
    let mut quoted = Vec::new();
    match port {
        ..1_024 => answer.tcp(port, to, 1, 1).write(&mut quoted, b"answer")?,
        _ => answer.udp(port, to).write(&mut quoted, b"question")?,
    }
    let error = builder(client, vip)?;
    let ethernet = [lab.router.client_mac()?, lab.client.netns().mac("eth0")?];
    let ethertype: [u8; 2] = match version {
        Version::V4 => [0x08, 0x00],
        Version::V6 => [0x86, 0xdd],
    };
    let mut frame = [ethernet.concat(), ethertype.to_vec()].concat();
    let kind = kind(version);
    match version {
        Version::V4 => (error.icmpv4_raw(kind, 0, [0; 4])).write(&mut frame, &quoted)?,
        Version::V6 => (error.icmpv6_raw(kind, 0, [0; 4])).write(&mut frame, &quoted)?,
    }
    Ok(frame)
}
