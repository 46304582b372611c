//! The comparison: the engine beside what a user would choose instead, in one lab and one run.
//!
//! Every case is measured in every round, and every other round goes backwards, so that no case is
//! always the first. A round has what each case carries at most: datagrams of three sizes
//! ([`packets`]), HTTP requests ([`requests`]), and TCP's packets where a case has no others
//! ([`streams`]). When all rounds are done, latency is measured at shares of what the slowest case
//! carried ([`latency`]), in rounds again.
//!
//! Client, generator and servers have one CPU, the balancer has the other one, all with a real-time
//! priority, the kernel's threads for software interrupts too: what else runs on the machine gets what
//! they leave. What is not the same
//! from case to case is said in the results ([`case::Case::differs`]).

mod case;
mod caveats;
mod engine;
mod failed;
mod figures;
#[cfg(test)]
mod fixtures;
mod goals;
mod latency;
mod packets;
mod part;
mod ratio;
mod requests;
mod results;
mod sizes;
mod slowest;
mod streams;
mod table;
mod whole;

pub use failed::Row;
pub use figures::figures;
pub use goals::{Goal, Outcome, Side, download, goals, in_percent};
pub use ratio::held;
pub use results::{Latency, LatencyLoad, PacketLoad, Packets, Requests, Results};

use crate::host;
use crate::machine::Machine;
use crate::measure::{self, KernelAhead, needs_root, run_ahead_of_others};
use crate::output;
use crate::programs;
use crate::replicate;
use crate::turn::Turn;
use anyhow::{Context, Result, bail, ensure};
use case::{About, Case};
use caveats::NoLatency;
use failed::Failed;
use lockstep_tests::lab::interrupted;
use nix::sched::{CpuSet, sched_setaffinity};
use nix::unistd::Pid;
use part::{Asked, Part};
use results::{Measured, PacketRound, Share, note};
use sizes::Outcomes;
use slowest::Paced;
use std::collections::BTreeSet;
use std::time::Instant;

/// The CPUs of a measurement.
#[derive(Debug, Clone, Copy)]
pub struct Cpus {
    /// Of the generator, of clients and servers.
    pub generator: usize,
    /// Of the balancer.
    pub balancer: usize,
}

impl Cpus {
    /// As a list.
    fn both(self) -> [usize; 2] {
        [self.generator, self.balancer]
    }
}

impl From<Cpus> for replicate::Cpus {
    fn from(cpus: Cpus) -> Self {
        replicate::Cpus {
            endpoints: cpus.generator,
            balancer: cpus.balancer,
        }
    }
}

/// As usual: what all whole results are of.
const ROUNDS: usize = 3;
const BYTES: [usize; 3] = [64, 1_400, packets::LARGE];
const FLOWS: u32 = 1_000;
const CONNECTIONS: u32 = 64;

/// What `lockstep-perf compare` is told.
#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// Where they go; those of a run of not everything go into its directory `partial`.
    #[command(flatten)]
    results: measure::Results,
    /// Rounds, each with every case; the median is reported.
    #[arg(long, default_value_t = ROUNDS)]
    rounds: usize,
    /// The cases to measure: the usual ones, unless said otherwise.
    #[arg(long, value_enum, value_delimiter = ',')]
    only: Vec<Case>,
    /// What to measure: everything, unless said otherwise.
    #[arg(long, value_enum, value_delimiter = ',')]
    parts: Vec<Asked>,
    /// Sizes of frames in bytes, their checksum sequences included.
    #[arg(long, value_delimiter = ',', default_values_t = BYTES)]
    bytes: Vec<usize>,
    /// Flows of datagrams.
    #[arg(long, default_value_t = FLOWS)]
    flows: u32,
    /// Connections of requests.
    #[arg(long, default_value_t = CONNECTIONS)]
    connections: u32,
    /// Milliseconds of each trial of a ramp; 500, or 200 of a quick run, unless said otherwise.
    #[arg(long)]
    milliseconds: Option<u64>,
    /// The CPU of the generator, of clients and servers.
    #[arg(long, default_value_t = 0)]
    generator_cpu: usize,
    /// The CPU of the balancer.
    #[arg(long, default_value_t = 1)]
    balancer_cpu: usize,
    /// Prints every trial.
    #[arg(long)]
    verbose: bool,
}

/// Measures and writes everything.
pub fn run(arguments: &Arguments) -> Result<()> {
    needs_root()?;
    let cpus = cpus(arguments)?;
    for bytes in &arguments.bytes {
        ensure!(
            (64..=packets::LARGE).contains(bytes),
            "--bytes {bytes}: frames here have 64 to {} bytes",
            packets::LARGE
        );
    }
    let mut comparison = Comparison::new(arguments, cpus);
    comparison.has_something()?;
    programs::must_be_there(&comparison.programs())?;
    let mut directory = arguments.results.directory();
    output::must_be_writable(&directory)?;
    let mut lacks = whole::lacks(arguments).map(str::to_owned);
    if let Some(lacks) = lacks.as_deref().filter(|_| !arguments.results.quick) {
        output::say_where(lacks, &output::partial(&directory));
    }
    let _turn = Turn::take("compare")?;
    interrupted::take_down_labs()?;
    run_ahead_of_others()?;
    let _kernel = KernelAhead::on(&cpus.both())?;
    let machine = Machine::look();
    if let Some(warning) = machine.warning() {
        eprintln!("Warning: {warning}.");
    }
    let begin = Instant::now();
    eprintln!("{}", comparison.plan());
    let measured = comparison.measure();
    // What is half measured is not written.
    interrupted::end_if_begun();
    measured?;
    let results = comparison.results(machine);
    if lacks.is_none() {
        lacks = whole::lost(&comparison.failed, comparison.rounds());
        if let Some(lost) = &lacks {
            output::say_where(lost, &output::partial(&directory));
        }
    }
    if lacks.is_some() && !arguments.results.quick {
        directory = output::partial(&directory);
    }
    // Written before anything is printed: the terminal may be gone.
    let written = output::write(&directory.join("compare.json"), &results);
    // And printed where it cannot be written.
    println!("{}", table::text(&results));
    written?;
    println!("It took {:.0} s", begin.elapsed().as_secs_f64());
    if !comparison.failed.is_empty() {
        let lines: Vec<String> = comparison.failed.iter().map(Failed::to_string).collect();
        bail!(
            "not all rounds could be measured; the results are of the others, and say so:\n  {}",
            lines.join("\n  ")
        );
    }
    Ok(())
}

fn cpus(arguments: &Arguments) -> Result<Cpus> {
    let (generator, balancer) = (arguments.generator_cpu, arguments.balancer_cpu);
    let there = core_affinity::get_core_ids().context("cannot list the CPUs")?;
    ensure!(
        there.len() >= 2,
        "A comparison needs two CPUs, one of them for the balancer alone: this process has {}.",
        there.len()
    );
    for cpu in [generator, balancer] {
        ensure!(
            there.iter().any(|core| core.id == cpu),
            "there is no CPU {cpu} for this process; name others with --generator-cpu and \
             --balancer-cpu"
        );
    }
    ensure!(
        generator != balancer,
        "generator and balancer need a CPU each: --generator-cpu and --balancer-cpu are the same"
    );
    Ok(Cpus {
        generator,
        balancer,
    })
}

/// Measures a part of a case in a round, the first of which is 1.
type Measure<'a> = fn(&mut Comparison<'a>, Case, usize) -> Result<()>;

/// A comparison under way.
struct Comparison<'a> {
    arguments: &'a Arguments,
    cases: Vec<Case>,
    cpus: Cpus,
    measured: Measured,
    failed: Vec<Failed>,
}

impl<'a> Comparison<'a> {
    fn new(arguments: &'a Arguments, cpus: Cpus) -> Self {
        let cases = match arguments.only.as_slice() {
            [] => Case::USUAL.to_vec(),
            only => only.to_vec(),
        };
        Comparison {
            arguments,
            cases,
            cpus,
            measured: Measured::default(),
            failed: Vec::new(),
        }
    }

    /// What it starts.
    fn programs(&self) -> BTreeSet<&'static str> {
        let mut programs: BTreeSet<_> = programs::LAB.iter().copied().collect();
        let tcp = self.arguments.parts != [Asked::Packets];
        for case in &self.cases {
            match case {
                Case::Haproxy => drop(programs.insert("haproxy")),
                Case::NginxStream => programs.extend(["nginx", programs::STREAM_MODULE]),
                case if case.name().starts_with("lockstep") => programs.extend(programs::OURS),
                _ => {}
            }
            if tcp && case.has_tcp() {
                programs.extend(["nginx", "wrk"]);
            }
        }
        programs
    }

    fn has(&self, part: Asked) -> bool {
        self.arguments.parts.is_empty() || self.arguments.parts.contains(&part)
    }

    /// What is about to happen, in a line.
    fn plan(&self) -> String {
        let (cases, rounds) = (self.cases.len(), self.rounds());
        let plural = |count: usize| if count == 1 { "" } else { "s" };
        let short = if self.arguments.results.quick {
            " (a short run)"
        } else {
            ""
        };
        let latency = match self.has(Asked::Latency) {
            true => ", and then their latency as often",
            false => "",
        };
        format!(
            "{cases} case{}, {rounds} round{}{short}: what each carries at most{latency}",
            plural(cases),
            plural(rounds)
        )
    }

    /// Refuses what would measure nothing, and take the place of results that do.
    fn has_something(&self) -> Result<()> {
        let mut parts = Self::MAXIMA.iter().map(|(part, _)| *part);
        let has =
            |part: Part| self.has(part.asked()) && self.cases.iter().any(|case| part.is_of(*case));
        let some = parts.any(has);
        if !some && self.arguments.parts == [Asked::Latency] {
            bail!(
                "latency is measured at shares of what is carried at most in the same run: --parts packets,latency \
                 for datagrams, requests,latency for requests"
            );
        }
        ensure!(
            some,
            "none of these cases has any of these parts: HAProxy and replicated sessions pass no datagrams on, and cases \
             named …-one-cpu have nothing else"
        );
        Ok(())
    }

    fn rounds(&self) -> usize {
        match self.arguments.results.quick {
            true => 1,
            false => self.arguments.rounds.max(1),
        }
    }

    /// What a case carries at most, in the order of a round, and what measures it.
    const MAXIMA: [(Part, Measure<'a>); 3] = [
        (Part::Packets, Self::packets),
        (Part::Streams, Self::streams),
        (Part::Requests, Self::most_requests),
    ];

    fn measure(&mut self) -> Result<()> {
        let rounds = self.rounds();
        for round in 0..rounds {
            // All cases have one part before the next: what they are held against is measured within a minute or two.
            for (part, most) in Self::MAXIMA {
                for case in in_turns(&self.cases, round) {
                    if self.has(part.asked()) && part.is_of(case) {
                        eprintln!("{}, round {} of {rounds}: {case}", part.name(), round + 1);
                        most(self, case, round + 1)?;
                    }
                }
            }
        }
        if !self.has(Asked::Latency) {
            return Ok(());
        }
        if self.has(Asked::Packets) {
            for case in self.cases.clone() {
                self.find_rate(case)?;
            }
        }
        let [udp, rr] = LatencyLoad::ALL.map(|load| self.rates(load));
        for NoLatency { load, why } in self.no_latency() {
            eprintln!("no latency of {}: {why}", load.words());
        }
        let (cpus, begin) = (self.cpus.both(), Instant::now());
        let before = host::stolen(&cpus)?;
        for round in 0..rounds {
            for case in in_turns(&self.cases, round) {
                eprintln!("latency, round {} of {rounds}: {case}", round + 1);
                self.latencies(case, round + 1, &udp, &rr)?;
            }
        }
        let share =
            (host::stolen(&cpus)? - before) / (begin.elapsed().as_secs_f64() * cpus.len() as f64);
        self.measured.stolen = Some(measure::rounded(share, 5));
        Ok(())
    }

    /// The most datagrams of a driver's that a case carries.
    fn packets(&mut self, case: Case, round: usize) -> Result<()> {
        run_on(&self.cpus.both())?;
        let last = |bytes| self.last(case, bytes);
        let sizes = &self.arguments.bytes;
        let outcomes = packets::round(case, sizes, last, self.cpus, &self.ramp());
        for (bytes, most) in self.heeded_sizes(case, Part::Packets, round, outcomes) {
            let key = (PacketLoad::Udp, bytes);
            note(&mut self.measured.packets, case, key, most);
        }
        Ok(())
    }

    fn streams(&mut self, case: Case, round: usize) -> Result<()> {
        // All that this process starts runs there, but for what is told otherwise.
        run_on(&[self.cpus.generator])?;
        let (sizes, settings) = (&self.arguments.bytes, self.requests());
        let outcomes = streams::round(case, sizes, self.cpus, &settings);
        for (bytes, most) in self.heeded_sizes(case, Part::Streams, round, outcomes) {
            let load = match bytes {
                streams::SMALLEST => PacketLoad::TcpRequests,
                _ => PacketLoad::TcpStream,
            };
            note(&mut self.measured.packets, case, (load, bytes), most);
        }
        Ok(())
    }

    fn most_requests(&mut self, case: Case, round: usize) -> Result<()> {
        run_on(&[self.cpus.generator])?;
        let outcome = requests::round(case, self.cpus, &self.requests());
        for (load, trial) in self.heeded(case, Part::Requests, round, outcome) {
            note(&mut self.measured.requests, case, load, trial);
        }
        Ok(())
    }

    /// The most datagrams of latency's that a case carries.
    fn find_rate(&mut self, case: Case) -> Result<()> {
        if !case.has_udp() {
            return Ok(());
        }
        eprintln!("what is offered for latency: {case}");
        run_on(&self.cpus.both())?;
        let outcome = latency::most(case, self.cpus, &latency::Settings::of(self.arguments));
        let part = Part::LatencyOfDatagrams;
        let found = self.heeded(case, part, 1, outcome.map(Vec::from_iter));
        let paced = found.into_iter().map(|rate| Paced {
            case: case.name().to_owned(),
            per_second: rate as f64,
        });
        self.measured.paced.extend(paced);
        Ok(())
    }

    fn latencies(
        &mut self,
        case: Case,
        round: usize,
        udp: &[(Share, u64)],
        rr: &[(Share, u64)],
    ) -> Result<()> {
        let settings = latency::Settings::of(self.arguments);
        if case.has_udp() && !udp.is_empty() {
            run_on(&self.cpus.both())?;
            let outcome = latency::datagrams(case, udp, self.cpus, &settings);
            let part = Part::LatencyOfDatagrams;
            for (share, trial) in self.heeded(case, part, round, outcome) {
                let key = (LatencyLoad::Udp, share);
                note(&mut self.measured.latencies, case, key, trial);
            }
        }
        if case.has_tcp() && !rr.is_empty() {
            run_on(&[self.cpus.generator])?;
            let outcome = latency::requests(case, rr, self.cpus, &settings);
            let part = Part::LatencyOfRequests;
            for (share, trial) in self.heeded(case, part, round, outcome) {
                let key = (LatencyLoad::Rr, share);
                note(&mut self.measured.latencies, case, key, trial);
            }
        }
        Ok(())
    }

    /// What was measured; nothing, and a note of it, where that failed: one case does not keep the
    /// others from being measured.
    fn heeded<T>(
        &mut self,
        case: Case,
        part: Part,
        round: usize,
        outcome: Result<Vec<T>>,
    ) -> Vec<T> {
        outcome.unwrap_or_else(|error| {
            self.note_failed(Failed::new(case, part, round, &error), &error);
            Vec::new()
        })
    }

    /// The same of sizes, each of which fails for itself.
    fn heeded_sizes(
        &mut self,
        case: Case,
        part: Part,
        round: usize,
        outcomes: Outcomes,
    ) -> Vec<(usize, PacketRound)> {
        let mut measured = Vec::new();
        for (bytes, outcome) in outcomes {
            match outcome {
                Ok(most) => measured.push((bytes, most)),
                Err(error) => {
                    let failed = Failed::new(case, part, round, &error).of_size(bytes);
                    self.note_failed(failed, &error);
                }
            }
        }
        measured
    }

    fn note_failed(&mut self, failed: Failed, error: &anyhow::Error) {
        interrupted::end_if_begun();
        eprintln!("  failed: {}: {error:#}", failed.what());
        self.failed.push(failed);
    }

    /// The maximum of a case's last round.
    fn last(&self, case: Case, bytes: usize) -> Option<f64> {
        let mut all = self.measured.packets.iter();
        let series = all.find(|s| s.case == case && s.key == (PacketLoad::Udp, bytes))?;
        Some(series.rounds.last()?.packets_per_second)
    }

    /// What is offered for latency.
    fn rates(&self, load: LatencyLoad) -> Vec<(Share, u64)> {
        let slowest = self.measured.slowest(load).into_iter();
        slowest
            .flat_map(|slowest| Share::ALL.map(|share| (share, share.of(slowest.per_second))))
            .filter(|(_, rate)| *rate > 0)
            .collect()
    }

    /// Loads whose latency was asked for, and for which there is nothing to offer.
    fn no_latency(&self) -> Vec<NoLatency> {
        let asked = |load: &LatencyLoad| {
            let mut cases = self.cases.iter();
            self.has(Asked::Latency)
                && match load {
                    LatencyLoad::Udp => {
                        self.has(Asked::Packets) && cases.any(|case| case.has_udp())
                    }
                    LatencyLoad::Rr => {
                        self.has(Asked::Requests) && cases.any(|case| case.has_tcp())
                    }
                }
        };
        let loads = LatencyLoad::ALL.into_iter().filter(asked);
        let without = loads.filter(|load| self.rates(*load).is_empty());
        without
            .map(|load| NoLatency::of(&self.measured, load))
            .collect()
    }

    fn ramp(&self) -> packets::Ramp {
        let quick = self.arguments.results.quick;
        packets::Ramp {
            flows: self.arguments.flows,
            milliseconds: (self.arguments.milliseconds).unwrap_or(if quick { 200 } else { 500 }),
            growth: if quick { 1.5 } else { 1.25 },
            verbose: self.arguments.verbose,
        }
    }

    fn requests(&self) -> requests::Settings {
        requests::Settings {
            seconds: if self.arguments.results.quick { 1 } else { 2 },
            connections: self.arguments.connections,
            verbose: self.arguments.verbose,
        }
    }

    fn results(&self, machine: Machine) -> Results {
        let (packets, requests, latencies) = self.measured.rows();
        let about = |case: &Case| About {
            case: case.name().to_owned(),
            about: case.about().to_owned(),
            differs: case.differs().to_owned(),
        };
        Results {
            quick: self.arguments.results.quick,
            machine,
            rounds: self.rounds(),
            flows: self.arguments.flows,
            connections: self.arguments.connections,
            cases: self.cases.iter().map(about).collect(),
            packets,
            requests,
            slowest: (LatencyLoad::ALL.into_iter())
                .filter_map(|load| self.measured.slowest(load))
                .collect(),
            latencies,
            paced: self.measured.paced.clone(),
            stolen: self.measured.stolen,
            no_latency: self.no_latency(),
            failed: self.failed.clone(),
        }
    }
}

/// The cases of a round: every other one backwards.
fn in_turns(cases: &[Case], round: usize) -> Vec<Case> {
    let mut cases = cases.to_vec();
    if round % 2 == 1 {
        cases.reverse();
    }
    cases
}

/// This thread, and what it starts from now on, runs on these CPUs.
fn run_on(cpus: &[usize]) -> Result<()> {
    let mut set = CpuSet::new();
    for &cpu in cpus {
        set.set(cpu)?;
    }
    sched_setaffinity(Pid::from_raw(0), &set).context("cannot choose the CPUs to run on")
}

#[cfg(test)]
mod tests;
