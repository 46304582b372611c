//! What the model and the simulation come to, as figures.

use super::churn::{Loss, Moment, STEP, Size, chance, fullest_backend};
use super::costs::{Costs, Devices, Treatment};
use super::ecmp::Way;
use super::hosts::{Hosts, NIC, Needed, PACKETS};
use crate::figure::{Axis, Fact, Figure, Kind, Point, Series};
use crate::measure::{median, rounded};
use crate::written::grouped;

/// What stands beside simulated values.
const MODEL: &str = "the model";

/// What every figure of hosts takes for granted.
pub fn assumptions(hosts: &Hosts, costs: &Costs, unevenness: f64) -> Vec<String> {
    vec![
        "Nothing of this was measured on many hosts, nor on a NIC: it is reckoned from what one core takes here.".to_owned(),
        format!(
            "A host has {} cores for packets and {} Gbit/s each way, of which {:.0} % are used; cores add up (each has its queue \
             and its flows). One host more than needed (N+1).",
            hosts.cores,
            hosts.nic_gbit,
            hosts.share * 100.0
        ),
        format!(
            "In memory, with 1,000,000 flows (core.json): {:.1} ns a packet in a tunnel, {:.1} ns rewritten (the mean of both \
             directions). Replicated (session.json): {:.0} ns for each packet in or out, of which a segment has four.",
            costs.tunnel, costs.nat, costs.replicate
        ),
        format!(
            "Zero-copy: {:.0} ns more for receiving and sending each packet; an assumption (14 million packets a second and core \
             each way), there is no such NIC here. Copied: {} ns for all of a packet of 64 bytes in a tunnel, the kernel's part \
             included, and {} ns for a segment to three replicas, without what the kernel does to take its packets in (the \
             endpoints' CPU does it there), as measured in the lab over veth; NAT's is the tunnel's and the difference in memory.",
            hosts.device_ns,
            grouped(costs.copied as u64),
            grouped(costs.copied_segment as u64)
        ),
        "A packet costs the same whatever its size, but what the link carries is counted in bytes: 20 for each frame's preamble and gap, 20 for a tunnel's header, and a copy for each replica.".to_owned(),
        format!(
            "ECMP gives the fullest host {unevenness:.2} times the mean, as simulated for 64 balancers behind resilient hashing."
        ),
    ]
}

/// How many hosts a rate takes, for each treatment, way of devices and size of packets.
pub fn traffic(hosts: &Hosts, costs: &Costs, unevenness: f64, (gbit, name): (f64, &str)) -> Figure {
    let rows: Vec<(Treatment, Devices)> = rows().collect();
    let needed = |packets, row| hosts.for_traffic(costs, gbit, packets, row, unevenness);
    let series = PACKETS.map(|packets| Series {
        name: packets.name.to_owned(),
        points: (0..)
            .zip(&rows)
            .map(|(x, row)| Point::new(f64::from(x), needed(packets, *row).hosts))
            .collect(),
    });
    let full = rows.iter().flat_map(|row| {
        let by_nic = PACKETS.map(|packets| (packets, needed(packets, *row).bound));
        let by_nic = by_nic.into_iter().filter(|(_, bound)| *bound == NIC);
        by_nic
            .map(|(packets, _)| format!("{} ({}) of {}", row.0.name(), row.1.name(), packets.name))
    });
    let full: Vec<String> = full.collect();
    let mut differs = assumptions(hosts, costs, unevenness);
    differs.push(format!(
        "NICs are what is full first with {}; with all others CPUs are.",
        full.join(", ")
    ));
    Figure {
        id: format!("model-hosts-{name}"),
        title: format!("Hosts that carry {}, one more than needed", spoken(gbit)),
        kind: Kind::Bars,
        x: Axis::new("", ""),
        y: Axis::logarithmic("hosts", ""),
        labels: rows
            .iter()
            .map(|(t, d)| format!("{}: {}", t.name(), d.name()))
            .collect(),
        ours: series.to_vec(),
        theirs: Vec::new(),
        theirs_from: String::new(),
        differs,
        facts: Vec::new(),
        quick: false,
    }
}

fn spoken(gbit: f64) -> String {
    match gbit >= 1_000.0 {
        true => format!("{} Tbit/s", gbit / 1_000.0),
        false => format!("{gbit} Gbit/s"),
    }
}

fn rows() -> impl Iterator<Item = (Treatment, Devices)> {
    let each = |treatment| Devices::ALL.map(|devices| (treatment, devices));
    Treatment::ALL.into_iter().flat_map(each)
}

/// How the number of hosts falls with their cores.
pub fn by_cores(hosts: &Hosts, costs: &Costs, unevenness: f64) -> Figure {
    const CORES: [u32; 5] = [4, 8, 16, 32, 64];
    let imix = PACKETS[1];
    let needed = |cores, row| {
        let hosts = Hosts { cores, ..*hosts };
        hosts
            .for_traffic(costs, 1_000.0, imix, row, unevenness)
            .hosts
    };
    let series = rows().map(|row| Series {
        name: format!("{}: {}", row.0.name(), row.1.name()),
        points: CORES
            .map(|cores| Point::new(f64::from(cores), needed(cores, row)))
            .to_vec(),
    });
    Figure {
        id: "model-hosts-cores".to_owned(),
        title: "Hosts that carry 1 Tbit/s of IMIX, by the cores of a host".to_owned(),
        kind: Kind::Lines,
        x: Axis::logarithmic("cores of a host", ""),
        y: Axis::logarithmic("hosts", ""),
        labels: Vec::new(),
        ours: series.collect(),
        theirs: Vec::new(),
        theirs_from: String::new(),
        differs: assumptions(hosts, costs, unevenness),
        facts: Vec::new(),
        quick: false,
    }
}

/// How many hosts remember 100 million flows.
pub fn flows(hosts: &Hosts, costs: &Costs, unevenness: f64) -> Figure {
    const FLOWS: f64 = 1e8;
    let needed = |treatment| hosts.for_flows(costs, FLOWS, treatment, unevenness);
    let points = (0..).zip(Treatment::ALL);
    let points = points.map(|(x, treatment)| Point::new(f64::from(x), needed(treatment).hosts));
    let facts = Treatment::ALL.map(|treatment| {
        let Needed { hosts, bound } = needed(treatment);
        let name = format!("{}: bound by {bound}", treatment.name());
        Fact::new(name, hosts, None, "hosts")
    });
    let mut differs = vec![
        "Nothing of this was measured on many hosts.".to_owned(),
        format!(
            "A flow of IPv4 takes {:.0} bytes of a flow table, as the table says itself; a session to three replicas {:.1} KiB while \
             it is idle, as measured with 10,000 (replicate.json). Under load sessions take up to the bounds of topology.toml.",
            costs.flow_bytes,
            costs.session_bytes / 1_024.0
        ),
        format!(
            "A host has {} GiB for them, of which {:.0} % are used; one host more than needed (N+1).",
            hosts.memory_gib,
            hosts.share * 100.0
        ),
        format!(
            "A flow lasts {} seconds; opening one costs {:.0} ns in memory in a tunnel, {:.0} ns rewritten (core.json; what opens a \
             session is not measured alone, and held to be as much), and {:.0} ns in the devices (assumed). What the flows carry \
             comes on top: the figures of traffic.",
            hosts.flow_seconds,
            costs.opening(Treatment::Tunnel),
            costs.opening(Treatment::Nat),
            hosts.device_ns
        ),
    ];
    differs.push(format!(
        "ECMP gives the fullest host {unevenness:.2} times the mean."
    ));
    Figure {
        id: "model-hosts-100M".to_owned(),
        title: "Hosts that keep 100 million flows or sessions, one more than needed".to_owned(),
        kind: Kind::Bars,
        x: Axis::new("", ""),
        y: Axis::logarithmic("hosts", ""),
        labels: Treatment::ALL.map(|t| t.name().to_owned()).to_vec(),
        ours: vec![Series {
            name: "100 million".to_owned(),
            points: points.collect(),
        }],
        theirs: Vec::new(),
        theirs_from: String::new(),
        differs,
        facts: facts.to_vec(),
        quick: false,
    }
}

/// How the simulation was made.
fn simulated(size: &Size) -> Vec<String> {
    vec![
        format!(
            "A simulation: {} backends behind {} balancers, {} connections, with the engine's flow tables, its Maglev tables of {} \
             entries and the ring that it keeps for a minute after a change; seed {}.",
            grouped(size.backends.into()),
            size.balancers,
            grouped(size.flows as u64),
            grouped(size.entries.into()),
            size.seed
        ),
        "Routers hash perfectly evenly, each connection has a packet in every step, and a connection that moved counts once: its client opens another one.".to_owned(),
    ]
}

/// What the loss of a balancer moves, by how much the backends have changed: simulation and model.
pub fn losses(size: &Size, all: &[(Way, Vec<Loss>)]) -> Figure {
    let percent = |share: f64| rounded(share * 100.0, 4);
    let line = |losses: &[Loss], name: String, value: fn(&Loss) -> f64| Series {
        name,
        points: losses
            .iter()
            .map(|loss| Point::new(loss.replaced as f64, percent(value(loss))))
            .collect(),
    };
    let ours = all.iter().map(|(way, losses)| {
        line(losses, way.name().to_owned(), |loss| {
            loss.moved.share_moved()
        })
    });
    // All of them: whichever moves most.
    let worst = |at: usize| {
        let all = all.iter().filter_map(|(_, losses)| losses.get(at));
        let loss = all.max_by(|a, b| a.at_once.share_moved().total_cmp(&b.at_once.share_moved()));
        loss.map(|loss| Point::new(loss.replaced as f64, percent(loss.at_once.share_moved())))
    };
    let at_once = Series {
        name: "any, within a minute of the change".to_owned(),
        points: (0..).map_while(worst).collect(),
    };
    let theirs = all
        .iter()
        .map(|(way, losses)| line(losses, way.name().to_owned(), |loss| loss.expected));
    let last = all
        .iter()
        .filter_map(|(way, losses)| Some((way, losses.last()?)));
    let facts = last.map(|(way, loss)| {
        let name = format!(
            "{}: moved, with {} backends replaced",
            way.name(),
            loss.replaced
        );
        let expected = Some(percent(loss.expected));
        Fact::new(name, percent(loss.moved.share_moved()), expected, "%")
    });
    let mut differs = simulated(size);
    differs.push(
        "The model: the share of connections that the router gives to another balancer (a formula for each way of hashing), times the \
         share of the ring's entries that name another backend than before, of those whose backend is still there."
            .to_owned(),
    );
    Figure {
        id: "model-loss".to_owned(),
        title: format!(
            "Connections that move when one of {} balancers is lost, by the backends replaced since they began",
            size.balancers
        ),
        kind: Kind::Lines,
        x: Axis::logarithmic("backends replaced", ""),
        y: Axis::new("connections that move", "%"),
        labels: Vec::new(),
        ours: ours.chain([at_once]).collect(),
        theirs: theirs.collect(),
        theirs_from: MODEL.to_owned(),
        differs,
        facts: facts.collect(),
        quick: false,
    }
}

/// Whose connections move while everything comes and goes.
pub fn churn(size: &Size, courses: &[(Way, Vec<Moment>)]) -> Figure {
    let percent = |count: usize| rounded(100.0 * count as f64 / size.flows as f64, 4);
    let course = |moments: &[Moment], name: String, value: fn(&Moment) -> usize| {
        let mut sum = 0;
        let points = moments.iter().map(|moment| {
            sum += value(moment);
            Point::new(f64::from(moment.seconds) / 60.0, percent(sum))
        });
        Series {
            name,
            points: points.collect(),
        }
    };
    let moved = courses
        .iter()
        .map(|(way, moments)| course(moments, way.name().to_owned(), |m| m.round.moved));
    // The same for all ways.
    let ended = courses.first().map(|(_, moments)| {
        let name = "their backend is gone".to_owned();
        course(moments, name, |m| m.round.ended)
    });
    let facts = courses.iter().flat_map(|(way, moments)| {
        let sum = |value: fn(&Moment) -> usize| moments.iter().map(value).sum::<usize>();
        let betrayed = sum(|m| m.round.betrayed) as f64;
        let entries = moments.iter().map(|m| m.entries).fold(0.0, f64::max);
        [
            Fact::new(
                format!("{}: moved", way.name()),
                percent(sum(|m| m.round.moved)),
                Some(0.0),
                "%",
            ),
            Fact::new(
                format!("{}: moved, though backend and balancer stayed", way.name()),
                betrayed,
                Some(0.0),
                "connections",
            ),
            Fact::new(
                format!(
                    "{}: entries of flow tables for a connection, at most",
                    way.name()
                ),
                rounded(entries, 2),
                Some(1.0),
                "",
            ),
        ]
    });
    let mut differs = simulated(size);
    differs.push(format!(
        "Every {STEP} seconds one backend is replaced and 2 % of the connections end and begin; every five minutes a balancer is lost, \
         half as long after that an empty one comes."
    ));
    differs.push(
        "Nobody tells balancers that a connection has ended or gone elsewhere: its entry stays for the 900 seconds of the idle time. With \
         FINs, which the simulation leaves out, it is less."
            .to_owned(),
    );
    differs.push(
        "The ideal: nobody moves whose backend is still there. Connections whose backend is gone cannot be kept by anybody; they stand \
         beside it."
            .to_owned(),
    );
    Figure {
        id: "model-churn".to_owned(),
        title: format!(
            "Connections that have moved, of {} balancers and {} backends that come and go, by the routers' hashing",
            size.balancers,
            grouped(size.backends.into())
        ),
        kind: Kind::Time,
        x: Axis::new("time", "min"),
        y: Axis::new("of all connections, added up", "%"),
        labels: Vec::new(),
        ours: moved.chain(ended).collect(),
        theirs: Vec::new(),
        theirs_from: "the ideal".to_owned(),
        differs,
        facts: facts.collect(),
        quick: false,
    }
}

/// How evenly backends and balancers are used.
pub fn balance(size: &Size, courses: &[(Way, Vec<Moment>)]) -> Figure {
    let point = |x: f64, moments: &[Moment], value: fn(&Moment) -> f64| {
        let values: Vec<f64> = moments.iter().map(|m| rounded(value(m), 4)).collect();
        Point {
            x,
            y: rounded(median(values.clone()), 4),
            low: values.iter().copied().fold(f64::INFINITY, f64::min),
            high: values.iter().copied().fold(f64::NEG_INFINITY, f64::max),
        }
    };
    let mut labels = vec!["ring entries of a backend".to_owned()];
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    let (flows, balancers) = (size.flows as f64, f64::from(size.balancers));
    if let Some((_, moments)) = courses.first() {
        ours.push(point(0.0, moments, |m| m.ring));
        // Eisenbud et al., section 3.4: a table a hundred times the backends differs by 1 % at most.
        theirs.push(Point::new(0.0, 1.01));
        labels.push("connections of a backend".to_owned());
        ours.push(point(1.0, moments, |m| m.backends));
        theirs.push(Point::new(1.0, rounded(fullest_backend(size), 4)));
    }
    for (way, moments) in courses {
        let x = labels.len() as f64;
        labels.push(format!("connections of a balancer, {}", way.name()));
        ours.push(point(x, moments, |m| m.balancers));
        theirs.push(Point::new(x, rounded(chance(flows, balancers), 4)));
    }
    let mut differs = simulated(size);
    differs.push(
        "The model: of the ring, what the authors of Maglev promise for a table of a hundred entries a backend (NSDI 2016, section 3.4); of \
         connections, what chance does with that many thrown into that many places, and of backends that those that have just come have \
         few yet."
            .to_owned(),
    );
    Figure {
        id: "model-balance".to_owned(),
        title: "The fullest to the mean, while backends and balancers come and go".to_owned(),
        kind: Kind::Bars,
        x: Axis::new("", ""),
        y: Axis::new("the most, to the mean", ""),
        labels,
        ours: vec![Series {
            name: "the fullest".to_owned(),
            points: ours,
        }],
        theirs: vec![Series {
            name: "the fullest".to_owned(),
            points: theirs,
        }],
        theirs_from: MODEL.to_owned(),
        differs,
        facts: Vec::new(),
        quick: false,
    }
}
