//! Figures 4.2 and 4.3: several cores, under the four (RSS, RPS) settings.

use super::case::services;
use super::farm::{self, Farm, PORT};
use super::sweep::{Curve, fact, place, seconds, theirs, throughput_figure, trial};
use super::{BALANCER, ENDPOINTS};
use crate::experiments::Settings;
use crate::figure::Figure;
use crate::site::START;
use anyhow::{Context, Result};
use lockstep_tests::lab::{Forwarding, Lab, Netns, Spread, VIP_V4, wait_until};
use std::fs;

const DEVICE: &str = "eth0";
/// What each server answers.
const EACH: u32 = 8_000;

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
    Ok(vec![
        figure(settings, Who::Lockstep, "003-4.2")?,
        figure(settings, Who::Nftables, "003-4.3")?,
    ])
}

fn figure(settings: &Settings, who: Who, id: &str) -> Result<Figure> {
    let counts: &[usize] = if settings.quick { &[3] } else { &[1, 4, 8, 12] };
    let mut curves: Vec<Curve> = (SETTINGS.iter())
        .map(|setting| Curve::new(setting.name(), counts))
        .collect();
    for round in 0..settings.rounds {
        let mut order: Vec<usize> = (0..SETTINGS.len()).collect();
        if round % 2 == 1 {
            order.reverse();
        }
        for index in order {
            measure(settings, who, SETTINGS[index], &mut curves[index])
                .with_context(|| format!("(RSS, RPS) = {}", curves[index].name))?;
        }
    }
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
        "Each server answers at most 8,000 requests/s.",
        "Queues are those of a veth, over which the sender's kernel spreads flows.",
        "The seed draws these curves without giving their numbers, but for the highest: 190,000 requests/s \
         with RPS, from about 14 pods on. It has no (on, on).",
    ];
    let mut figure = throughput_figure(id, title, &curves, &differs);
    figure.theirs = vec![theirs(name, &[(14.0, 190_000.0)])];
    figure.theirs_from = place("section 4.1, pp. 40 to 44");
    for (setting, curve) in SETTINGS.iter().zip(&curves) {
        let theirs = (!setting.rss && setting.rps).then_some(190_000.0);
        let name = format!("(RSS, RPS) = {}, at most", curve.name);
        figure
            .facts
            .push(fact(name, curve.most(), theirs, "requests/s"));
    }
    Ok(figure)
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
fn measure(settings: &Settings, who: Who, setting: Setting, curve: &mut Curve) -> Result<()> {
    let most = curve.trials.iter().map(|(servers, _)| *servers).max();
    let mut builder = Lab::builder()
        .servers(most.unwrap_or(1))
        .queues(setting.queues());
    if setting.rps {
        builder = builder.spread(Spread::Rps);
    }
    let mut lab = builder.start()?;
    let _farm = Farm::start(&lab, EACH)?;
    match who {
        Who::Lockstep => start_lockstep(&mut lab, setting)?,
        Who::Nftables => steer(lab.balancers[0].netns(), setting)?,
    }
    for (servers, trials) in &mut curve.trials {
        match who {
            Who::Lockstep => lab.balancers[0].apply(&services(Forwarding::Nat, *servers))?,
            Who::Nftables => {
                // There is none yet the first time.
                let netns = lab.balancers[0].netns();
                let _ = netns.output("nft", &["delete", "table", "inet", "balance"]);
                lab.balancers[0].balance_by_nftables(*servers)?;
            }
        }
        let client = lab.client.netns();
        wait_until("a request is answered", START, || {
            Ok(farm::answers(client, (VIP_V4, PORT).into()).then_some(()))
        })?;
        trials.push(trial(&lab, seconds(settings))?);
    }
    Ok(())
}

fn start_lockstep(lab: &mut Lab, setting: Setting) -> Result<()> {
    // The only worker is on the CPU that is the balancer's in every other experiment.
    if !setting.rss && !setting.rps {
        let file = lab.balancers[0].topology_file();
        let topology = fs::read_to_string(&file)?;
        fs::write(
            &file,
            topology.replace("core = 0", &format!("core = {BALANCER}")),
        )?;
    }
    lab.start_forwarding(Forwarding::Nat, &services(Forwarding::Nat, 1))
}

/// The kernel's own settings: with RPS, flows of each queue go to both CPUs; with RSS, each queue to
/// one, as a NIC's interrupts would come there; with neither, all to one.
fn steer(netns: &Netns, setting: Setting) -> Result<()> {
    let both = (1 << ENDPOINTS) | (1 << BALANCER);
    let one = 1 << BALANCER;
    for queue in 0..setting.queues() {
        let mask = match (setting.rss, setting.rps) {
            (_, true) => both,
            (true, false) => 1 << queue,
            (false, false) => one,
        };
        let file = format!("/sys/class/net/{DEVICE}/queues/rx-{queue}/rps_cpus");
        let script = format!("echo {mask:x} > {file}");
        netns.output("sh", &["-c", &script])?;
    }
    Ok(())
}
