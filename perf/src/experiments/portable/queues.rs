//! Figures 4.2 and 4.3: several cores, under the four (RSS, RPS) settings.

use super::balanced::{forget_rules, on_endpoints, start_lockstep};
use super::case::Case;
use super::farm::{self, Farm, PORT};
use super::sweep::{Curve, place, theirs, throughput_figure, trial};
use super::{BALANCER, ENDPOINTS};
use crate::experiments::Settings;
use crate::figure::{Fact, Figure};
use crate::site::START;
use anyhow::{Context, Result};
use lockstep_tests::lab::{Lab, Netns, Spread, VIP_V4, wait_until};
use std::fs;

/// The balancer's device, and the switch's port to it.
const DEVICE: &str = "eth0";
const PORT_OF_BALANCER: &str = "b0";
/// What each server answers: three of them are more than the CPUs carry.
const EACH: u32 = 24_000;
/// Of each trial.
const SECONDS: u64 = 1;

/// A setting of the seed's.
#[derive(Debug, Clone, Copy)]
struct Setting {
    rss: bool,
    rps: bool,
}

/// All of them, the seed's three first.
const SETTINGS: [Setting; 4] = [
    Setting {
        rss: false,
        rps: true,
    },
    Setting {
        rss: true,
        rps: false,
    },
    Setting {
        rss: false,
        rps: false,
    },
    Setting {
        rss: true,
        rps: true,
    },
];

/// Who balances.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Who {
    Lockstep,
    Nftables,
}

/// Both figures.
pub fn run(settings: &Settings) -> Result<Vec<Figure>> {
    let curves = on_endpoints(|| measure_all(settings))?;
    let figures = [(Who::Lockstep, "003-4.2"), (Who::Nftables, "003-4.3")];
    let figures = figures.into_iter().zip(curves);
    Ok(figures
        .map(|((who, id), curves)| figure(who, id, &curves))
        .collect())
}

/// The curves of Lockstep and those of nftables, by setting.
fn measure_all(settings: &Settings) -> Result<[Vec<Curve>; 2]> {
    let counts: &[usize] = if settings.quick { &[3] } else { &[1, 3, 5] };
    let curves = || -> Vec<Curve> {
        let curve = |setting: &Setting| Curve::new(setting.name(), counts);
        SETTINGS.iter().map(curve).collect()
    };
    let (mut lockstep, mut nftables) = (curves(), curves());
    for round in 0..settings.rounds {
        let mut order: Vec<usize> = (0..SETTINGS.len()).collect();
        if round % 2 == 1 {
            order.reverse();
        }
        for index in order {
            let of_setting = [&mut lockstep[index], &mut nftables[index]];
            measure(SETTINGS[index], of_setting)
                .with_context(|| format!("(RSS, RPS) = {}", SETTINGS[index].name()))?;
        }
    }
    Ok([lockstep, nftables])
}

fn figure(who: Who, id: &str, curves: &[Curve]) -> Figure {
    let (name, title) = match who {
        Who::Lockstep => (
            "IPVS, (off, on), at most",
            "Throughput by servers under four settings of (RSS, RPS): Lockstep, NAT",
        ),
        Who::Nftables => (
            "iptables DNAT, (off, on), at most",
            "Throughput by servers under four settings of (RSS, RPS): nftables DNAT",
        ),
    };
    let differs = [
        "There are two CPUs, and client and servers need them as well: no setting can have more of them \
         than another, and the order of the settings says what each of them costs, not what more cores \
         bring. The seed's balancer had eight cores and four queues to itself.",
        "The links have no limit; the seed's balancers filled 1 Gbit/s with the best setting.",
        "Each server answers at most 24,000 requests/s.",
        "Queues are those of a veth, over which the sender's kernel spreads flows.",
        "The seed draws these curves without giving their numbers, but for the highest: 190,000 requests/s \
         with RPS, from about 14 pods on. It has no (on, on).",
    ];
    let mut figure = throughput_figure(id, title, curves, &differs);
    figure.theirs = vec![theirs(name, &[(14.0, 190_000.0)])];
    figure.theirs_from = place("section 4.1, pp. 40 to 44");
    for (setting, curve) in SETTINGS.iter().zip(curves) {
        let theirs = (!setting.rss && setting.rps).then_some(190_000.0);
        let name = format!("(RSS, RPS) = {}, at most", curve.name);
        figure
            .facts
            .push(Fact::new(name, curve.most(), theirs, "requests/s"));
    }
    figure
}

impl Setting {
    fn name(self) -> String {
        let word = |on| if on { "on" } else { "off" };
        format!("({}, {})", word(self.rss), word(self.rps))
    }

    fn queues(self) -> usize {
        if self.rss { 2 } else { 1 }
    }
}

/// A lab of the setting's own: queues cannot be changed later.
fn measure(setting: Setting, curves: [&mut Curve; 2]) -> Result<()> {
    let [lockstep, nftables] = curves;
    let most = lockstep.trials.iter().map(|(servers, _)| *servers).max();
    let mut builder = Lab::builder()
        .servers(most.unwrap_or(1))
        .queues(setting.queues());
    if setting.rps {
        builder = builder.spread(Spread::Rps);
    }
    let mut lab = builder.start()?;
    let farm = Farm::start(&lab, EACH)?;
    // Without the engine's XDP program, the kernel first.
    steer(&lab, setting)?;
    for (at, (servers, trials)) in nftables.trials.iter_mut().enumerate() {
        if at > 0 {
            forget_rules(lab.balancers[0].netns())?;
        }
        lab.balancers[0].balance_by_nftables(*servers)?;
        answers(&lab)?;
        trials.push(trial(&lab, &farm, SECONDS)?);
    }
    forget_rules(lab.balancers[0].netns())?;
    use_the_setting(&lab, setting)?;
    start_lockstep(&mut lab, Case::Nat, &Case::Nat.services(1))?;
    for (servers, trials) in &mut lockstep.trials {
        lab.balancers[0].apply(&Case::Nat.services(*servers))?;
        answers(&lab)?;
        trials.push(trial(&lab, &farm, SECONDS)?);
    }
    Ok(())
}

fn answers(lab: &Lab) -> Result<()> {
    wait_until("a request is answered", START, || {
        let answered = farm::answers(lab.client.netns(), (VIP_V4, PORT).into());
        Ok(answered.then_some(()))
    })
}

/// The only worker, where there is one, is on the CPU that is the balancer's in every other experiment.
fn use_the_setting(lab: &Lab, setting: Setting) -> Result<()> {
    if setting.rss || setting.rps {
        return Ok(());
    }
    let file = lab.balancers[0].topology_file();
    let topology = fs::read_to_string(&file)?;
    let topology = topology.replace("core = 0", &format!("core = {BALANCER}"));
    fs::write(&file, topology).context("cannot write the topology")
}

/// The kernel's own settings: with RPS, flows of each queue go to both CPUs; with RSS, each queue to
/// one, as a NIC's interrupts would come there; with neither, all to one.
fn steer(lab: &Lab, setting: Setting) -> Result<()> {
    let both = (1 << ENDPOINTS) | (1 << BALANCER);
    for queue in 0..setting.queues() {
        let mask = match (setting.rss, setting.rps) {
            (_, true) => both,
            (true, false) => 1 << queue,
            (false, false) => 1 << BALANCER,
        };
        receive_with(lab.balancers[0].netns(), DEVICE, queue, mask)?;
        // What is behind the balancer is the endpoints' again.
        receive_with(lab.router.netns(), PORT_OF_BALANCER, queue, 1 << ENDPOINTS)?;
    }
    Ok(())
}

fn receive_with(netns: &Netns, device: &str, queue: usize, mask: u32) -> Result<()> {
    let file = format!("/sys/class/net/{device}/queues/rx-{queue}/rps_cpus");
    let script = format!("echo {mask:x} > {file}");
    netns.output("sh", &["-c", &script]).map(drop)
}
