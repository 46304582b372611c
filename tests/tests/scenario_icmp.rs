//! Pings, path MTU discovery in both directions, and fragments, with the kernel's own IP stacks at
//! both ends.

use anyhow::{Context, Result, bail, ensure};
use lockstep_tests::lab::{
    CLIENT_V4, CLIENT_V6, Content, Direction, Lab, Netns, Version, scenario, service, web,
};
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

const VERSIONS: [Version; 2] = [Version::V4, Version::V6];

fn client(version: Version) -> IpAddr {
    match version {
        Version::V4 => CLIENT_V4.into(),
        Version::V6 => CLIENT_V6.into(),
    }
}

/// What a host has learned of the MTU on the way to an address.
fn learned(netns: &Netns, to: IpAddr, from: IpAddr) -> Result<Option<u16>> {
    let (to, from) = (to.to_string(), from.to_string());
    let route = netns.output("ip", &["route", "get", &to, "from", &from])?;
    let mut words = route.split_whitespace().skip_while(|word| *word != "mtu");
    match words.nth(1) {
        Some(mtu) => Ok(Some(mtu.parse().with_context(|| route.clone())?)),
        None => Ok(None),
    }
}

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
                for family in ["-4", "-6"] {
                    server
                        .netns()
                        .output("ip", &[family, "route", "flush", "cache"])?;
                }
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
        let mtu = learned(server.netns(), client(version), version.vip())?;
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
    let mtu = learned(lab.client.netns(), version.vip(), client(version))?;
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
    let echoes = lab
        .servers
        .iter()
        .map(|server| server.netns().within(|| bound(at)))
        .collect::<Result<Vec<_>>>()?;
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        let servers: Vec<_> = echoes
            .iter()
            .map(|socket| scope.spawn(|| echo(socket, &done)))
            .collect();
        let asked = (0..20).try_for_each(|n| ask(lab, at, client(version), n));
        done.store(true, Ordering::Relaxed);
        let counts: Vec<usize> = servers
            .into_iter()
            .filter_map(|server| server.join().ok())
            .collect();
        asked?;
        ensure!(
            counts.iter().filter(|count| **count > 0).count() > 1,
            "the datagrams are spread over the servers: {counts:?}"
        );
        Ok(())
    })
}

fn bound(at: SocketAddr) -> Result<UdpSocket> {
    let socket = UdpSocket::bind(at)?;
    socket.set_read_timeout(Some(Duration::from_millis(200)))?;
    Ok(socket)
}

/// Sends back what comes, until it is over. The result is how much came.
fn echo(socket: &UdpSocket, done: &AtomicBool) -> usize {
    let mut buffer = vec![0; 65_536];
    let mut count = 0;
    while !done.load(Ordering::Relaxed) {
        if let Ok((length, from)) = socket.recv_from(&mut buffer) {
            count += 1;
            // What is too long for the way back is learned of by sending it.
            let _ = socket.send_to(&buffer[..length], from);
        }
    }
    count
}

/// A datagram of 4,000 bytes from a port of its own, and back.
fn ask(lab: &Lab, to: SocketAddr, from: IpAddr, n: u8) -> Result<()> {
    let from = SocketAddr::new(from, 0);
    let socket = lab.client.netns().within(|| bound(from))?;
    socket.connect(to)?;
    let datagram: Vec<u8> = (0..4_000_u16).map(|at| at as u8 ^ n).collect();
    let mut answer = vec![0; 65_536];
    // UDP may lose some, and the server's first one teaches it the MTU of the client's link.
    for _ in 0..10 {
        socket.send(&datagram)?;
        if let Ok(length) = socket.recv(&mut answer) {
            ensure!(answer[..length] == datagram, "the same {n} comes back");
            return Ok(());
        }
    }
    bail!("no answer to datagram {n}")
}
