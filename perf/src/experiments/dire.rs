//! Seed 000 (Bombitz, Reliable Session Handling in Distributed Environments - DIRE): its figures.
//!
//! One iperf3 client sends to, and gets from, iperf3 servers: through the engine, which replicates,
//! and on ways that do not. The lab is that of [`crate::replicate`].

mod failures;
mod overhead;
mod path;
mod scaling;
mod series;
mod stream;

use super::{Experiment, Settings, engine};
use crate::replicate::Cpus;
use crate::replicate::network::{Network, VIP};
use anyhow::{Context, Result, ensure};
use lockstep_tests::lab::{Direction, Process};
use path::{Path, Way};
use series::Rounds;
use stream::Stream;

/// In their order.
pub const ALL: &[Experiment] = &[
    Experiment {
        id: "000-4",
        about: "iperf3 through one replica and on plain ways: CPU, context switches, bytes, RTT",
        run: overhead::run,
    },
    Experiment {
        id: "000-5",
        about: "iperf3 through 1, 10 and 100 replicas",
        run: scaling::run,
    },
    Experiment {
        id: "000-6",
        about: "iperf3 through ten replicas that are killed one after the other",
        run: failures::run,
    },
];

/// As the report calls it.
const SEED: &str =
    "seed 000 (Bombitz, Reliable Session Handling in Distributed Environments - DIRE)";

/// What is not as it was there, in every figure.
const LAB: [&str; 3] = [
    "Theirs ran on 8 cores for 160 s a stream, in Kubernetes under WSL; ours on 2, in network \
     namespaces, for seconds: the balancer has one CPU, the client and all servers share the other.",
    "Here every packet is one of at most 1,500 bytes, as on a wire (no TSO, GSO, GRO); theirs went \
     over virtual devices with their defaults.",
    "Both ends use CUBIC here; theirs does not say what it used.",
];

/// The steps near a stream's end in which it is looked whether all replicas are in sync.
const LOOKS: u64 = 3;

/// Client and servers of a way, and what stands between them.
#[derive(Debug)]
struct Bench {
    // Before the network: a program is killed before its namespace is removed.
    path: Path,
    servers: Vec<Process>,
    network: Network,
    cpus: Cpus,
}

impl Bench {
    fn build(way: Way, policy: &str) -> Result<Self> {
        let cpus = engine::cpus()?;
        let network = Network::build(way.servers(), cpus)?;
        if way == Way::Routing {
            network.servers.ip(&format!("addr add {VIP}/32 dev lo"))?;
        }
        let servers = stream::start_servers(&network, &way.addresses(), cpus.endpoints)?;
        let path = way.open(&network, policy, cpus)?;
        Ok(Bench {
            path,
            servers,
            network,
            cpus,
        })
    }

    /// A stream; at one of the looks near its end, all replicas must still have been in sync. At the very end they
    /// are not: each has sent another number of bytes when it hears that the client has enough.
    fn stream(&self, direction: Direction, seconds: u64) -> Result<Stream> {
        let mut running = stream::Running::start(self, direction, seconds)?;
        let steps = seconds * 1_000 / stream::STEP.as_millis() as u64;
        let mut behind: Option<Vec<String>> = None;
        for step in 1..steps {
            if !running.step()? {
                break;
            }
            // On a busy machine it may have come to its end meanwhile: then there is no session.
            if let Way::Replicate(_) = self.path.way
                && step + LOOKS >= steps
                && let Ok(session) = stream::data_session(&self.network, direction)
                && behind
                    .as_ref()
                    .is_none_or(|least| session.behind.len() < least.len())
            {
                behind = Some(session.behind);
            }
        }
        let log = running.log();
        let stream = running.finish()?;
        if let Way::Replicate(replicas) = self.path.way {
            let behind = behind.with_context(|| format!("there was no session: {log}"))?;
            ensure!(
                behind.is_empty(),
                "not all of {replicas} replicas are in sync: {}",
                behind.join(", ")
            );
        }
        Ok(stream)
    }
}

/// A stream of each round's in each direction, the ways in turns. Every stream has servers of its
/// own: what replicas say at the end of one differs in length (it has times in it), so that some of
/// them are not asked on, and would have to be waited for.
fn rounds(
    settings: &Settings,
    ways: &[Way],
    policy: &str,
    seconds: [u64; 2],
) -> Result<[Vec<Rounds>; 2]> {
    let series = |direction| -> Vec<Rounds> {
        let of_way = |&way| Rounds::new(way, direction);
        ways.iter().map(of_way).collect()
    };
    let mut all = [series(Direction::Upload), series(Direction::Download)];
    for round in 0..settings.rounds {
        // Every other round backwards, so that no way is always the first.
        let mut order: Vec<usize> = (0..ways.len()).collect();
        if round % 2 == 1 {
            order.reverse();
        }
        for index in order {
            for (series, seconds) in all.iter_mut().zip(seconds) {
                let rounds = &mut series[index];
                let what = || format!("{}, {:?}", rounds.way.name(), rounds.direction);
                let stream = Bench::build(rounds.way, policy)
                    .and_then(|bench| bench.stream(rounds.direction, seconds))
                    .with_context(what)?;
                rounds.streams.push(stream);
            }
        }
    }
    Ok(all)
}
