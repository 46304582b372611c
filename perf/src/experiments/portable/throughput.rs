//! Figures 4.6, 4.9, 5.2 to 5.5, 5.7 and 5.8: throughput of different balancers by servers.

use super::balanced::{Size, on_endpoints};
use super::case::Case;
use super::sweep::{Curve, cpu_figure, place, sweep, theirs, throughput_figure};
use crate::experiments::Settings;
use crate::figure::{Fact, Figure};
use crate::measure::rounded;
use anyhow::Result;

/// A tenth of the seed's 1 Gbit/s.
pub const MEGABITS: u32 = 100;
/// A tenth of one of the seed's pods: 190,000 requests a second of 14 of them (p. 41).
pub const EACH: u32 = 1_357;
/// What a server answers where nothing is a tenth of anything.
const EACH_UNLIMITED: u32 = 8_000;

const ONE_MACHINE: &str = "All machines are namespaces of one host: client, router and servers share one \
    CPU, and the balancer has the other one; the seed had a machine with 16 logical CPUs for each.";
const PICTURE: &str = "The seed draws these curves without giving their numbers; what its text says of \
    them is shown.";
const TENTH: &str = "Links of 100 Mbit/s and servers of 1,357 requests/s: a tenth of the seed's \
    1 Gbit/s and of its pods, of which 14 answered 190,000 requests/s.";
const CAPPED: &str = "Each server answers at most 8,000 requests/s, so that throughput grows with their \
    number; the links have no limit but the CPU's.";
const NFTABLES: &str = "nftables with conntrack stands for the seed's iptables DNAT, with the same \
    translation of both addresses as Kubernetes' rules.";
const DECAP: &str = "With tunnels, an XDP program on the servers takes the outer header off (`lockstep decap`); the \
    seed's servers had the kernel's tunl0.";
const ONE_CPU_BALANCER: &str = "The balancer has one core; the seed's had 16 logical ones here.";

/// Figure 4.9.
pub fn tunnel_against_nat(settings: &Settings) -> Result<Vec<Figure>> {
    let cases = [Case::Nftables, Case::Nat, Case::Tunnel];
    let (size, counts) = slow_link(settings, 24);
    let curves = on_endpoints(|| sweep(settings, size, &cases, &counts))?;
    let differs = [TENTH, ONE_MACHINE, NFTABLES, DECAP, PICTURE];
    let title = "Throughput by servers: tunnel against NAT on a slow link";
    let mut figure = throughput_figure("003-4.9", title, &curves, &differs);
    figure.theirs = vec![
        theirs("iptables DNAT, at most", &[(14.0, 193_000.0)]),
        theirs("IPVS, at most", &[(14.0, 197_000.0)]),
        theirs("IPVS-TUN, at most", &[(22.0, 293_000.0)]),
    ];
    figure.theirs_from = place(
        "table 5.2 (a), p. 62, the maxima only; drawn at the numbers of pods that have such \
         a sum at 190,000/14 each",
    );
    let [nftables, nat, tunnel] = [&curves[0], &curves[1], &curves[2]].map(Curve::most);
    figure.facts = vec![
        Fact::new("tunnel, at most", tunnel, Some(293_000.0), "requests/s"),
        Fact::new("NAT, at most", nat, Some(197_000.0), "requests/s"),
        Fact::new(
            "nftables (theirs: iptables) DNAT, at most",
            nftables,
            Some(193_000.0),
            "requests/s",
        ),
        Fact::new(
            "tunnel to NAT",
            rounded(tunnel / nat, 2),
            Some(1.5),
            "times",
        ),
        Fact::new(
            "tunnel to DNAT",
            rounded(tunnel / nftables, 2),
            Some(1.5),
            "times",
        ),
    ];
    Ok(vec![figure])
}

/// Figure 4.6.
pub fn beside_nginx(settings: &Settings) -> Result<Vec<Figure>> {
    let cases = [
        Case::Nat,
        Case::Nftables,
        Case::NginxStream,
        Case::NginxHttp,
    ];
    let (size, counts) = no_limit(settings);
    let curves = on_endpoints(|| sweep(settings, size, &cases, &counts))?;
    let differs = [
        "The links have no limit, so that the balancers' difference shows; the seed's IPVS and \
         iptables DNAT both filled 1 Gbit/s.",
        CAPPED,
        ONE_MACHINE,
        NFTABLES,
        PICTURE,
        "The seed's nginx read HTTP; passing streams on is shown beside it. Ours has one worker, on the \
         balancer's CPU.",
    ];
    let title = "Throughput by servers: Lockstep, nftables and nginx";
    let mut figure = throughput_figure("003-4.6", title, &curves, &differs);
    figure.theirs = vec![theirs(
        "IPVS and iptables DNAT, at most",
        &[(14.0, 190_000.0)],
    )];
    figure.theirs_from = place("section 4.1, p. 44: \"about 190K [req/sec]\", from 14 pods on");
    figure.facts = maxima(&curves);
    for nginx in &curves[2..] {
        let ratio = rounded(curves[0].most() / nginx.most(), 2);
        figure.facts.push(Fact::new(
            format!("Lockstep, NAT to {}", nginx.name),
            ratio,
            None,
            "times",
        ));
    }
    Ok(vec![figure])
}

/// Figures 5.2 and 5.3, and 5.4 and 5.5 beside them.
pub fn without_limit(settings: &Settings) -> Result<Vec<Figure>> {
    let cases = [
        Case::Nftables,
        Case::Nat,
        Case::Tunnel,
        Case::TunnelInterrupt,
    ];
    let (size, counts) = no_limit(settings);
    let curves = on_endpoints(|| sweep(settings, size, &cases, &counts))?;
    let differs = [
        CAPPED,
        ONE_MACHINE,
        ONE_CPU_BALANCER,
        NAMESPACES,
        NFTABLES,
        DECAP,
        PICTURE,
    ];
    let title = "Throughput by servers without a limit of the links";
    let mut rates = throughput_figure("003-5.2", title, &curves, &differs);
    let most = TABLE_5_2.map(|(name, most)| theirs(&format!("{name}, at most"), &[(0.0, most)]));
    rates.theirs = most.to_vec();
    place_at_end(&mut rates, &counts);
    rates.theirs_from =
        place("table 5.2 (b), p. 62, the maxima only; drawn at the last of our numbers of servers");
    rates.facts = facts_of_table(&curves);
    let picture = "The seed's figures 5.3 and 5.5 are pictures without numbers; by its text IPVS-TUN \
        takes less CPU than IPVS, and on the node less than iptables DNAT.";
    let differs = [
        CAPPED,
        ONE_MACHINE,
        ONE_CPU_BALANCER,
        NAMESPACES,
        POLLS,
        picture,
    ];
    let title = "The balancer's CPU by servers without a limit of the links";
    let mut cpu = cpu_figure("003-5.3", title, &curves, &differs);
    cpu.facts = curves.iter().map(cpu_fact).collect();
    Ok(vec![rates, cpu])
}

const POLLS: &str = "The engine polls for 50 µs after each packet: its CPU is busy long before it is full, but \
    where it is told not to poll (`poll = \"interrupt\"`).";
const NAMESPACES: &str = "The seed measured in a container behind a bridge (5.2, 5.3) and in the node's own \
    namespace (5.4, 5.5). Here all balancers are in a namespace on a veth of a bridge, the kernel's too, \
    and there is one measurement for both.";

/// The seed's table 5.2 (b): requests a second at most.
const TABLE_5_2: [(&str, f64); 5] = [
    ("iptables DNAT, node", 778_000.0),
    ("IPVS, container", 335_000.0),
    ("IPVS-TUN, container", 731_000.0),
    ("IPVS, node", 700_000.0),
    ("IPVS-TUN, node", 780_000.0),
];

/// Ours beside the seed's table, by nftables, NAT and tunnel.
fn facts_of_table(curves: &[Curve]) -> Vec<Fact> {
    let [nftables, nat, tunnel] = [&curves[0], &curves[1], &curves[2]].map(Curve::most);
    let ours = [
        ("nftables (theirs: iptables) DNAT", nftables),
        ("NAT (theirs in a container)", nat),
        ("tunnel (theirs in a container)", tunnel),
        ("NAT (theirs on the node)", nat),
        ("tunnel (theirs on the node)", tunnel),
    ];
    let rows = || ours.iter().zip(TABLE_5_2);
    let most = rows().map(|((name, ours), (_, theirs))| {
        Fact::new(
            format!("{name}, at most"),
            *ours,
            Some(theirs),
            "requests/s",
        )
    });
    let ratios = rows().skip(1).map(|((name, ours), (_, theirs))| {
        let theirs = rounded(theirs / TABLE_5_2[0].1, 2);
        let ratio = rounded(ours / nftables, 2);
        Fact::new(format!("{name} to DNAT"), ratio, Some(theirs), "times")
    });
    most.chain(ratios).collect()
}

/// Figures 5.7 and 5.8.
pub fn one_core(settings: &Settings) -> Result<Vec<Figure>> {
    let cases = [
        Case::Nftables,
        Case::Tunnel,
        Case::Fallback,
        Case::TunnelInterrupt,
    ];
    let (size, counts) = no_limit(settings);
    let curves = on_endpoints(|| sweep(settings, size, &cases, &counts))?;
    let xdp = "The seed's xlb is an XDP program; ours is shown twice, as the engine with AF_XDP and as its \
        XDP program alone, the engine killed.";
    let limit =
        "The client's and the servers' CPU is full first: see the balancer's CPU for what is left.";
    let differs = [CAPPED, ONE_MACHINE, xdp, limit, NFTABLES, DECAP, PICTURE];
    let title = "Throughput by servers of one core";
    let mut rates = throughput_figure("003-5.7", title, &curves, &differs);
    rates.theirs = vec![
        theirs("xlb, one core, at most", &[(0.0, 390_000.0)]),
        theirs(
            "iptables DNAT, 16 logical cores, at most",
            &[(0.0, 778_000.0)],
        ),
    ];
    place_at_end(&mut rates, &counts);
    rates.theirs_from =
        place("section 5.3, p. 64, and table 5.2 (b); drawn at the last of our numbers of servers");
    let [nftables, tunnel, fallback] = [&curves[0], &curves[1], &curves[2]].map(Curve::most);
    rates.facts = vec![
        Fact::new(
            "engine, at most (theirs: xlb)",
            tunnel,
            Some(390_000.0),
            "requests/s",
        ),
        Fact::new(
            "XDP program alone, at most (theirs: xlb)",
            fallback,
            Some(390_000.0),
            "requests/s",
        ),
        Fact::new(
            "nftables DNAT, one core, at most",
            nftables,
            None,
            "requests/s",
        ),
    ];
    let picture = "The seed's figure 5.8 is a picture without numbers; by its text xlb takes much less CPU \
        than iptables DNAT.";
    let differs = [CAPPED, ONE_MACHINE, xdp, POLLS, NFTABLES, picture];
    let title = "The balancer's CPU by servers, one core";
    let mut cpu = cpu_figure("003-5.8", title, &curves, &differs);
    cpu.facts = curves.iter().map(cpu_fact).collect();
    Ok(vec![rates, cpu])
}

/// The lab where the link is the limit, up to about so many servers, and their numbers.
pub fn slow_link(settings: &Settings, servers: usize) -> (Size, Vec<usize>) {
    // In a quick run a quarter of the servers, which answer four times as much.
    let scale = if settings.quick { 4 } else { 1 };
    let size = Size {
        servers: servers / scale,
        each: EACH * scale as u32,
        megabits: Some(MEGABITS),
    };
    let counts = if settings.quick {
        vec![1, size.servers]
    } else {
        vec![1, 7, 14, 18, servers]
    };
    (size, counts)
}

/// The lab where the links have no limit.
fn no_limit(settings: &Settings) -> (Size, Vec<usize>) {
    let scale = if settings.quick { 3 } else { 1 };
    let counts = match settings.quick {
        true => vec![1, 3],
        false => vec![1, 4, 8, 12],
    };
    let size = Size {
        servers: counts[counts.len() - 1],
        each: EACH_UNLIMITED * scale,
        megabits: None,
    };
    (size, counts)
}

fn place_at_end(figure: &mut Figure, counts: &[usize]) {
    let last = counts.last().copied().unwrap_or_default() as f64;
    let points = figure
        .theirs
        .iter_mut()
        .flat_map(|series| &mut series.points);
    points.for_each(|point| point.x = last);
}

fn maxima(curves: &[Curve]) -> Vec<Fact> {
    let of = |curve: &Curve| {
        let theirs =
            matches!(curve.name.as_str(), n if n == Case::Nat.name() || n == Case::Nftables.name());
        let name = format!("{}, at most", curve.name);
        Fact::new(
            name,
            curve.most(),
            theirs.then_some(190_000.0),
            "requests/s",
        )
    };
    curves.iter().map(of).collect()
}

fn cpu_fact(curve: &Curve) -> Fact {
    let name = format!("{}: CPU for a million requests, at its most", curve.name);
    Fact::new(name, rounded(curve.cpu_per_million(), 2), None, "s")
}
