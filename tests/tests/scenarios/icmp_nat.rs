//! ICMP, path MTUs and fragments where packets are rewritten, and the same cases in tunnels: what the
//! kernels and programs at both ends hear and learn. `docs/src/operations/icmp.md` is the list.

use anyhow::{Context, Result, ensure};
use lockstep_tests::lab::{
    Content, Datagrams, Direction, Forwarding, Heard, Lab, LabBuilder, Netns, Spread, Version,
    engine_v4, engine_v6, router_rack_v4, router_rack_v6, scenario, wait_until, while_echoing,
};
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

const SOON: Duration = Duration::from_secs(10);
/// Of the balancer's link. A veth takes 4 bytes more than its MTU, for a VLAN tag: so a client's full
/// packets come in, and do not fit the way out.
const LINK: u16 = 1_496;
/// Of a link behind a router.
const NARROW: u16 = 1_400;
/// What is for the first server alone; for all of them; and where no service is.
const ONE: u16 = 5_301;
const ALL: u16 = 5_300;
const NOBODY: u16 = 9;
/// The server that no service has: the router before the first one.
const INNER: usize = 3;

macro_rules! scenarios {
    ($($name:ident: $way:ident, $version:ident, $spread:ident;)+) => {
        $(#[test]
        fn $name() {
            scenario(&$spread().servers(4), |lab| all(lab, Forwarding::$way, Version::$version));
        })+
    };
}

scenarios! {
    scenario_icmp_nat_over_ipv4_by_rss: Nat, V4, rss;
    scenario_icmp_nat_over_ipv4_by_rps: Nat, V4, rps;
    scenario_icmp_nat_over_ipv6_by_rss: Nat, V6, rss;
    scenario_icmp_nat_over_ipv6_by_rps: Nat, V6, rps;
    scenario_icmp_full_nat_over_ipv4_by_rss: FullNat, V4, rss;
    scenario_icmp_full_nat_over_ipv4_by_rps: FullNat, V4, rps;
    scenario_icmp_full_nat_over_ipv6_by_rss: FullNat, V6, rss;
    scenario_icmp_full_nat_over_ipv6_by_rps: FullNat, V6, rps;
    scenario_icmp_ipip_over_ipv4_by_rps: Ipip, V4, rps;
    scenario_icmp_ipip_over_ipv6_by_rss: Ipip, V6, rss;
    scenario_icmp_gue_over_ipv4_by_rss: Gue, V4, rss;
    scenario_icmp_gue_over_ipv6_by_rps: Gue, V6, rps;
}

fn rss() -> LabBuilder {
    Lab::builder()
}

fn rps() -> LabBuilder {
    Lab::builder().spread(Spread::Rps)
}

/// Errors find the worker that has their flow, by what they quote. Fragments of answers need not.
#[test]
fn scenario_icmp_nat_under_two_workers() {
    let two = rss().queues(2).servers(4);
    scenario(&two, |lab| some(lab, Forwarding::Nat, Version::V4));
}

#[test]
fn scenario_icmp_full_nat_under_two_workers_that_spread_flows() {
    let two = rps().queues(2).servers(4);
    scenario(&two, |lab| some(lab, Forwarding::FullNat, Version::V6));
}

/// Leaves the lab as it found it.
type Case = fn(&Ground) -> Result<()>;

const CASES: [(&str, Case); 14] = [
    ("pings are answered", pings),
    ("more pings than a second's", too_many_pings),
    ("pings in fragments", pings_in_fragments),
    ("nobody listens at the client", the_client_refuses),
    ("the last hop before the client", ends_before_the_client),
    ("a narrow link before the client", narrow_before_the_client),
    ("nobody listens at the backend", the_backend_refuses),
    ("the last hop before the backend", ends_before_the_backend),
    ("packets that do not fit", does_not_fit),
    ("those that may be fragmented", does_not_fit_without_df),
    ("segments are made to fit", segments_fit),
    // What the engine learns of a tunnel it remembers.
    (
        "a narrow link before the backend",
        narrow_before_the_backend,
    ),
    ("datagrams in fragments", fragments),
    ("what has no flow", without_a_flow),
];

/// Those in which datagrams are cut, or are once their sender knows what fits.
const IN_FRAGMENTS: [&str; 4] = [
    "packets that do not fit",
    "those that may be fragmented",
    "a narrow link before the backend",
    "datagrams in fragments",
];

fn all(lab: &mut Lab, way: Forwarding, version: Version) -> Result<()> {
    run(lab, way, version, &CASES)
}

fn some(lab: &mut Lab, way: Forwarding, version: Version) -> Result<()> {
    let mut cases = CASES.to_vec();
    cases.retain(|(says, _)| !IN_FRAGMENTS.contains(says));
    run(lab, way, version, &cases)
}

fn run(lab: &mut Lab, way: Forwarding, version: Version, cases: &[(&str, Case)]) -> Result<()> {
    let link = format!("link set dev eth0 mtu {LINK}");
    lab.balancers[0].netns().ip(&link)?;
    for server in &lab.servers {
        // No more than what the balancer takes.
        server.netns().ip("link set dev eth0 mtu 1500")?;
    }
    let all = [0, 1, 2];
    let (one, every) = (format!("{ONE}/udp"), format!("{ALL}/udp"));
    let services = way.service("web", version, &["80/tcp"], &all, "")
        + &way.service("all", version, &[&every], &all, "")
        + &way.service("one", version, &[&one, "5201/tcp"], &[0], "");
    lab.start_forwarding(way, &services)?;
    let ground = Ground { lab, way, version };
    for netns in ground.hosts() {
        // Kernels make few errors a second for one and the same host.
        netns.sysctl(&[
            ("net.ipv4.icmp_ratelimit", "0"),
            ("net.ipv6.icmp.ratelimit", "0"),
        ])?;
    }
    for (says, case) in cases {
        for netns in ground.hosts() {
            netns.forget_mtus()?;
        }
        case(&ground).with_context(|| {
            let drops = lab.balancers[0].status().and_then(|s| s.all_drops());
            format!("{way:?} over {version:?}: {says}, with {drops:?}")
        })?;
    }
    Ok(())
}

/// What a case stands on.
struct Ground<'a> {
    lab: &'a Lab,
    way: Forwarding,
    version: Version,
}

impl Ground<'_> {
    /// Everybody but the balancer.
    fn hosts(&self) -> Vec<&Netns> {
        let mut hosts = vec![self.lab.client.netns(), self.lab.router.netns()];
        hosts.extend(self.lab.servers.iter().map(|server| server.netns()));
        hosts
    }

    fn at(&self, port: u16) -> SocketAddr {
        SocketAddr::new(self.version.vip(), port)
    }

    /// The address that programs on a server have.
    fn on(&self, server: usize) -> IpAddr {
        match self.way.tunnels() {
            true => self.version.vip(),
            false => self.version.server(server),
        }
    }

    /// Whom the servers see.
    fn seen(&self) -> IpAddr {
        match self.way {
            Forwarding::FullNat => self.engine(),
            Forwarding::Ipip | Forwarding::Gue | Forwarding::Nat => self.version.client(),
        }
    }

    fn engine(&self) -> IpAddr {
        match self.version {
            Version::V4 => engine_v4(0).into(),
            Version::V6 => engine_v6(0).into(),
        }
    }

    fn router(&self) -> IpAddr {
        match self.version {
            Version::V4 => router_rack_v4().into(),
            Version::V6 => router_rack_v6().into(),
        }
    }

    fn server(&self, index: usize, port: u16) -> Result<Datagrams> {
        let at = SocketAddr::new(self.on(index), port);
        Datagrams::bind(self.lab.servers[index].netns(), at)
    }

    fn client(&self) -> Result<Datagrams> {
        let at = SocketAddr::new(self.version.client(), 0);
        Datagrams::bind(self.lab.client.netns(), at)
    }

    /// A flow with the first server, and whom it answers.
    fn flow(&self) -> Result<(Datagrams, Datagrams, SocketAddr)> {
        let (client, server) = (self.client()?, self.server(0, ONE)?);
        let (_, from) = wait_until("a datagram arrives", SOON, || {
            client.send(b"question", self.at(ONE))?;
            Ok(server.receive())
        })?;
        Ok((client, server, from))
    }

    /// Bytes of UDP in a packet of this length.
    fn datagram(&self, packet: usize) -> Vec<u8> {
        let headers = match self.version {
            Version::V4 => 28,
            Version::V6 => 48,
        };
        (0..packet - headers).map(|at| at as u8).collect()
    }

    /// What is left of a link on the way to a backend.
    fn inside(&self, mtu: u16) -> u16 {
        let ip = match self.version {
            Version::V4 => 20,
            Version::V6 => 40,
        };
        match self.way {
            Forwarding::Ipip => mtu - ip,
            Forwarding::Gue => mtu - ip - 8,
            Forwarding::Nat | Forwarding::FullNat => mtu,
        }
    }

    fn too_big(&self, from: IpAddr, mtu: u16) -> Heard {
        let (kind, code) = match self.version {
            Version::V4 => (3, 4),
            Version::V6 => (2, 0),
        };
        let mtu = u32::from(mtu);
        Heard {
            from,
            kind,
            code,
            mtu,
        }
    }

    fn unreachable_port(&self, from: IpAddr) -> Heard {
        let (kind, code) = match self.version {
            Version::V4 => (3, 3),
            Version::V6 => (1, 4),
        };
        Heard {
            from,
            kind,
            code,
            mtu: 0,
        }
    }

    fn time_exceeded(&self, from: IpAddr) -> Heard {
        let kind = match self.version {
            Version::V4 => 11,
            Version::V6 => 3,
        };
        Heard {
            from,
            kind,
            code: 0,
            mtu: 0,
        }
    }

    /// Runs `task`, and waits until packets were dropped for this reason that were not before.
    fn must_drop(&self, reason: &str, task: impl FnOnce() -> Result<()>) -> Result<()> {
        let drops = || self.lab.balancers[0].status()?.drops(reason);
        let before = drops()?;
        task()?;
        let what = format!("{reason} is counted");
        wait_until(&what, SOON, || Ok((drops()? > before).then_some(())))
    }

    /// Runs `task` with a router between the balancer and the first server, whose link to that is narrow.
    fn behind_a_router(&self, task: impl FnOnce() -> Result<()>) -> Result<()> {
        let (balancer, inner) = (&self.lab.balancers[0], self.lab.servers[INNER].netns());
        let (server, router) = (self.version.server(0), self.version.server(INNER));
        inner.sysctl(&[
            ("net.ipv4.ip_forward", "1"),
            ("net.ipv6.conf.all.forwarding", "1"),
        ])?;
        inner.ip(&format!("route add {server} dev eth0 mtu {NARROW}"))?;
        // That the server is on its own link it shall not believe.
        balancer
            .netns()
            .sysctl(&[("net.ipv6.conf.all.accept_redirects", "0")])?;
        let change = |words: String, through: bool| {
            balancer.netns().ip(&words)?;
            wait_until("the engine follows the route", SOON, || {
                let hop = balancer.status()?.next_hop("one", "s1")?;
                Ok((hop.contains(&format!("via {router}")) == through).then_some(()))
            })
        };
        change(format!("route add {server} via {router}"), true)?;
        let result = task();
        change(format!("route del {server} via {router}"), false)?;
        inner.ip(&format!("route del {server}"))?;
        result
    }
}

fn heard(socket: &Datagrams, expected: Heard) -> Result<()> {
    let heard = socket.hears()?;
    ensure!(heard == expected, "{heard:?} instead of {expected:?}");
    Ok(())
}

fn pings(ground: &Ground) -> Result<()> {
    let balancer = ground.lab.balancers[0].netns();
    // Whoever answers, it is not the kernel.
    balancer.sysctl(&[
        ("net.ipv4.icmp_echo_ignore_all", "1"),
        ("net.ipv6.icmp.echo_ignore_all", "1"),
    ])?;
    let server = ground.lab.servers[1].netns();
    let asks = [
        (ground.lab.client.netns(), ground.version.vip()),
        (server, ground.engine()),
    ];
    for (host, address) in asks {
        for bytes in ["0", "1400"] {
            let address = address.to_string();
            let args = ["-c", "3", "-i", "0.1", "-W", "5", "-s", bytes, &address];
            host.output("ping", &args)?;
        }
    }
    Ok(())
}

/// What `ping` says with these arguments, whether it was answered or not.
fn ping(ground: &Ground, args: &[&str]) -> Result<String> {
    let mut command = ground.lab.client.netns().command("ping");
    command.args(args).arg(ground.version.vip().to_string());
    let output = command.output().context("cannot run ping")?;
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

fn too_many_pings(ground: &Ground) -> Result<()> {
    ground.must_drop("icmp_limited", || {
        // All of them at once.
        let says = ping(ground, &["-q", "-c", "600", "-l", "600", "-W", "1"])?;
        ensure!(
            !says.contains(" 0 received") && !says.contains(" 600 received"),
            "{says}"
        );
        Ok(())
    })
}

fn pings_in_fragments(ground: &Ground) -> Result<()> {
    ground.must_drop("fragment", || {
        let says = ping(ground, &["-q", "-c", "1", "-W", "1", "-s", "4000"])?;
        ensure!(says.contains(" 0 received"), "{says}");
        Ok(())
    })
}

fn the_client_refuses(ground: &Ground) -> Result<()> {
    let (client, server, from) = ground.flow()?;
    drop(client);
    server.send(b"answer", from)?;
    heard(&server, ground.unreachable_port(ground.seen()))
}

fn ends_before_the_client(ground: &Ground) -> Result<()> {
    let (client, server, from) = ground.flow()?;
    // The balancer is a hop where answers go by it.
    server.set_ttl(if ground.way.tunnels() { 1 } else { 2 })?;
    server.send(b"answer", from)?;
    // Its network need not know the client's.
    let said_by = match ground.way {
        Forwarding::FullNat => ground.engine(),
        Forwarding::Ipip | Forwarding::Gue | Forwarding::Nat => ground.router(),
    };
    heard(&server, ground.time_exceeded(said_by))?;
    server.set_ttl(64)?;
    answers(&server, from, &client)
}

/// A flow goes on after an error.
fn answers(server: &Datagrams, to: SocketAddr, client: &Datagrams) -> Result<()> {
    wait_until("an answer arrives", SOON, || {
        server.send(b"answer", to)?;
        Ok(client.receive().map(drop))
    })
}

fn narrow_before_the_client(ground: &Ground) -> Result<()> {
    let router = ground.lab.router.netns();
    // The router's end alone: the client, and so its MSS, knows nothing of it.
    router.ip(&format!("link set dev client mtu {NARROW}"))?;
    let content = Content::new(ground.lab.run(), "big", 200_000, 7)?;
    let arrived = (ground.lab.client).download(ground.version.web(), &content, |_| Ok(()))?;
    arrived.must_be(&content)?;
    let learned = |index: usize| {
        let server = ground.lab.servers[index].netns();
        server.learned_mtu(ground.seen(), ground.on(index))
    };
    let learned = (0..3).map(learned).collect::<Result<Vec<_>>>()?;
    let told: Vec<u16> = learned.iter().copied().flatten().collect();
    ensure!(told == [NARROW], "the server of it alone: {learned:?}");
    router.ip("link set dev client mtu 1500")
}

fn the_backend_refuses(ground: &Ground) -> Result<()> {
    let client = ground.client()?;
    client.send(b"question", ground.at(ONE))?;
    heard(&client, ground.unreachable_port(ground.version.vip()))
}

fn ends_before_the_backend(ground: &Ground) -> Result<()> {
    let (client, server, from) = ground.flow()?;
    ground.must_drop("ttl_exceeded", || {
        client.set_ttl(2)?;
        client.send(b"question", ground.at(ONE))
    })?;
    if ground.way.tunnels() {
        // The outer header has hops of its own.
        return Ok(());
    }
    ground.behind_a_router(|| {
        client.set_ttl(3)?;
        client.send(b"question", ground.at(ONE))?;
        heard(&client, ground.time_exceeded(ground.version.vip()))?;
        client.set_ttl(64)?;
        answers(&server, from, &client)
    })
}

fn narrow_before_the_backend(ground: &Ground) -> Result<()> {
    ground.behind_a_router(|| {
        let fits = ground.inside(NARROW);
        let (vip, client) = (ground.version.vip(), ground.client()?);
        let server = [ground.server(0, ONE)?];
        while_echoing(&server, || {
            let datagram = ground.datagram(1_430);
            let answer = client.ask(&datagram, ground.at(ONE))?;
            ensure!(answer == datagram, "another datagram came back");
            heard(&client, ground.too_big(vip, fits))
        })?;
        drop(server);
        let _server = ground.lab.servers[0].start_iperf(ground.on(0))?;
        let upload = (ground.lab.client).iperf_tcp(vip, Direction::Upload, 5, 1)?;
        let kilobits: u64 = upload.finish()?.iter().sum();
        ensure!(kilobits > 0, "nothing arrived");
        let learned = (ground.lab.client.netns()).learned_mtu(vip, ground.version.client())?;
        ensure!(learned == Some(fits), "{learned:?}");
        Ok(())
    })
}

fn does_not_fit(ground: &Ground) -> Result<()> {
    let (client, server) = (ground.client()?, [ground.server(0, ONE)?]);
    while_echoing(&server, || {
        let datagram = ground.datagram(1_500);
        let answer = client.ask(&datagram, ground.at(ONE))?;
        ensure!(answer == datagram, "another datagram came back");
        let fits = ground.inside(LINK);
        heard(&client, ground.too_big(ground.version.vip(), fits))
    })?;
    if !ground.way.tunnels() {
        // As the whole came back, it was told too.
        heard(&server[0], ground.too_big(ground.seen(), LINK))?;
    }
    Ok(())
}

fn does_not_fit_without_df(ground: &Ground) -> Result<()> {
    if ground.version == Version::V6 {
        // Nobody but the sender cuts.
        return Ok(());
    }
    let netns = ground.lab.client.netns();
    netns.sysctl(&[("net.ipv4.ip_no_pmtu_disc", "1")])?;
    let (client, server) = (ground.client()?, [ground.server(0, ONE)?]);
    ground.must_drop("too_big", || {
        let datagram = ground.datagram(1_500);
        while_echoing(&server, || {
            let answer = client.ask(&datagram, ground.at(ONE))?;
            ensure!(answer == datagram, "another datagram came back");
            Ok(())
        })
        .map(drop)
    })?;
    // It was told, and is content with the least that it may: it cuts itself now.
    let learned = netns.learned_mtu(ground.version.vip(), ground.version.client())?;
    ensure!(learned == Some(552), "{learned:?}");
    netns.sysctl(&[("net.ipv4.ip_no_pmtu_disc", "0")])
}

fn segments_fit(ground: &Ground) -> Result<()> {
    if ground.way.tunnels() {
        // Only who sees both directions can change what they agree on.
        return Ok(());
    }
    let too_big = || ground.lab.balancers[0].status()?.drops("too_big");
    let before = too_big()?;
    let content = Content::new(ground.lab.run(), "fits", 200_000, 8)?;
    let arrived = (ground.lab.client).download(ground.version.web(), &content, |_| Ok(()))?;
    arrived.must_be(&content)?;
    ensure!(too_big()? == before, "a segment was too long");
    Ok(())
}

fn fragments(ground: &Ground) -> Result<()> {
    let servers = (0..3).map(|index| ground.server(index, ALL));
    let servers = servers.collect::<Result<Vec<_>>>()?;
    let counts = while_echoing(&servers, || {
        (0..20_u8).try_for_each(|number| {
            let mut datagram = ground.datagram(4_000);
            datagram.fill(number);
            let answer = ground.client()?.ask(&datagram, ground.at(ALL))?;
            ensure!(answer == datagram, "another datagram came back");
            Ok(())
        })
    })?;
    let used = counts.iter().filter(|count| **count > 0).count();
    ensure!(used > 1, "datagrams are spread over servers: {counts:?}");
    Ok(())
}

fn without_a_flow(ground: &Ground) -> Result<()> {
    let netns = ground.lab.servers[0].netns();
    let nowhere = SocketAddr::new(ground.version.client(), NOBODY);
    // From a port of the VIP that is no service's, past the balancer.
    let past = format!("route add {} via {}", nowhere.ip(), ground.router());
    netns.ip(&past)?;
    let server = Datagrams::bind(netns, ground.at(NOBODY))?;
    ground.must_drop("icmp_unmatched", || server.send(b"stray", nowhere))?;
    ensure!(server.heard()?.is_none(), "the error came through");
    netns.ip(&past.replace("add", "del"))?;
    if ground.way != Forwarding::Nat {
        return Ok(());
    }
    // What a backend has with others, but by way of the balancer.
    let own = SocketAddr::new(ground.version.server(0), NOBODY);
    let server = Datagrams::bind(netns, own)?;
    ground.must_drop("no_vip", || server.send(&ground.datagram(4_000), nowhere))?;
    drop(server);
    ground.must_drop("icmp_unmatched", || ground.client()?.send(b"stray", own))
}
