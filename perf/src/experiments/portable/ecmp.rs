//! Figure 4.13: one to four balancers behind equal-cost routes; and the lab of the seed's figure 4.12.

use super::balanced::{limit, on_endpoints, polling};
use super::case::services;
use super::farm::{self, Farm, PORT};
use super::sweep::{Curve, place, seconds, theirs, throughput_figure, trial};
use super::throughput::EACH;
use super::{BALANCER, ENDPOINTS};
use crate::experiments::Settings;
use crate::figure::{Fact, Figure};
use crate::measure::rounded;
use crate::site::{START, receive_on};
use anyhow::{Context, Result};
use lockstep_tests::lab::{Balancer, Forwarding, Lab, Program, Routing, VIP_V4, Way, wait_until};
use std::fs;
use std::time::Duration;

/// Balancers, as many as in the seed.
pub const BALANCERS: usize = 4;
/// For routes to come or go.
const ROUTES: Duration = Duration::from_secs(30);
/// A fortieth of the seed's: four of them are no more than one CPU's clients and servers carry.
const MEGABITS: u32 = 25;

/// Four balancers that tell a route reflector of themselves, a router that hears of them and servers.
#[derive(Debug)]
pub struct Rack {
    // Before the lab: what runs in it.
    _routing: Routing,
    /// The servers' programs.
    pub farm: Farm,
    /// All of it.
    pub lab: Lab,
    /// Whether each balancer is there for the router.
    pub there: [bool; BALANCERS],
}

impl Rack {
    /// Builds it with every balancer in the route. With a rate, no balancer is sent more than so many
    /// Mbit/s.
    pub fn build(
        servers: usize,
        each: u32,
        way: Forwarding,
        megabits: Option<u32>,
    ) -> Result<Self> {
        let mut lab = Lab::builder()
            .balancers(BALANCERS)
            .servers(servers)
            .start()?;
        let farm = Farm::start(&lab, each)?;
        let router = lab.router.netns();
        (lab.client.netns()).sysctl(&[("net.ipv4.ip_local_port_range", "1024 65535")])?;
        for balancer in &lab.balancers {
            receive_on(router, &balancer.name(), ENDPOINTS)?;
            if let Some(megabits) = megabits {
                limit(router, &balancer.name(), megabits)?;
            }
            share_one_cpu(balancer)?;
        }
        let routing = lab.start_routing(Program::Bird, Way::Reflector)?;
        for (index, balancer) in lab.balancers.iter().enumerate() {
            balancer.configure_daemon(&routing.config(index, "graceful_restart = false"))?;
        }
        lab.start_lockstep(&services(way, servers))?;
        let rack = Rack {
            _routing: routing,
            farm,
            lab,
            there: [true; BALANCERS],
        };
        rack.routes_follow()?;
        Ok(rack)
    }

    /// The balancers that are to be in the route.
    pub fn wanted(&self) -> Vec<usize> {
        (0..BALANCERS).filter(|index| self.there[*index]).collect()
    }

    /// Waits until the router's route has exactly those.
    pub fn routes_follow(&self) -> Result<()> {
        (self.lab.router).wait_for_balancers(VIP_V4.into(), &self.wanted(), ROUTES)
    }

    /// Takes balancers out, or back in, by command until so many are there, without waiting.
    pub fn command(&mut self, count: usize) -> Result<()> {
        for index in 0..BALANCERS {
            let wanted = index < count;
            if self.there[index] != wanted {
                let command = if wanted { "undrain" } else { "drain" };
                self.lab.balancers[index].cli(&[command, "--balancer"])?;
                self.there[index] = wanted;
            }
        }
        Ok(())
    }

    /// Puts the service on the first so many servers.
    fn serve(&self, way: Forwarding, servers: usize) -> Result<()> {
        let services = services(way, servers);
        (self.lab.balancers.iter()).try_for_each(|balancer| balancer.apply(&services))
    }

    /// Waits until a request is answered.
    pub fn answers(&self) -> Result<()> {
        let client = self.lab.client.netns();
        wait_until("a request is answered", START, || {
            Ok(farm::answers(client, (VIP_V4, PORT).into()).then_some(()))
        })
    }
}

/// The workers of all balancers are on one CPU, and leave it to each other when there is nothing.
fn share_one_cpu(balancer: &Balancer) -> Result<()> {
    let file = balancer.topology_file();
    let topology = fs::read_to_string(&file)?;
    let topology = topology.replace("core = 0", &format!("core = {BALANCER}"));
    let topology = polling(&topology, "interrupt");
    fs::write(&file, topology).context("cannot write the topology")
}

/// The figure.
pub fn run(settings: &Settings) -> Result<Vec<Figure>> {
    let curves = on_endpoints(|| measure(settings))?;
    let differs = [
        "Each balancer is sent 25 Mbit/s at most, a fortieth of the seed's 1 Gbit/s, since all four share \
         one CPU, and client, router and servers the other one; each server answers 1,357 requests/s at \
         most.",
        "Balancers rewrite both addresses, so that requests and answers pass them as they passed the \
         seed's.",
        "BIRD on the router and gobgpd as the route reflector, where the seed had gobgpd on both; routes \
         are the kernel's, hashed by addresses and ports.",
        "The seed draws these curves without giving their numbers: by its text throughput grew linearly up \
         to four balancers, to 780,000 requests/s.",
    ];
    let title = "Throughput by servers of one to four balancers behind equal-cost routes";
    let mut figure = throughput_figure("003-4.13", title, &curves, &differs);
    let last = figure.ours[0].points.last().map_or(0.0, |point| point.x);
    figure.theirs = vec![theirs("four balancers, at most", &[(last, 780_000.0)])];
    figure.theirs_from =
        place("abstract and section 4.3, p. 52; drawn at the last of our numbers of servers");
    let one = curves[0].most();
    for (index, curve) in curves.iter().enumerate() {
        let theirs = (index + 1 == BALANCERS).then_some(780_000.0);
        figure.facts.push(Fact::new(
            format!("{}, at most", curve.name),
            curve.most(),
            theirs,
            "requests/s",
        ));
    }
    for (index, curve) in curves.iter().enumerate().skip(1) {
        let linear = (index + 1) as f64;
        let name = format!("{} to one (theirs: linear)", curve.name);
        figure.facts.push(Fact::new(
            name,
            rounded(curve.most() / one, 2),
            Some(linear),
            "times",
        ));
    }
    Ok(vec![figure])
}

fn measure(settings: &Settings) -> Result<Vec<Curve>> {
    let way = Forwarding::FullNat;
    let (servers, each) = if settings.quick {
        (4, 4 * EACH)
    } else {
        (16, EACH)
    };
    let counts: &[usize] = if settings.quick {
        &[4]
    } else {
        &[2, 6, 11, 16]
    };
    let mut rack = Rack::build(servers, each, way, Some(MEGABITS))?;
    let mut curves: Vec<Curve> = (1..=BALANCERS)
        .map(|count| {
            Curve::new(
                format!("{count} balancers").replace("1 balancers", "1 balancer"),
                counts,
            )
        })
        .collect();
    for _ in 0..settings.rounds {
        for (at, &servers) in counts.iter().enumerate() {
            rack.serve(way, servers)?;
            for (index, curve) in curves.iter_mut().enumerate() {
                rack.command(index + 1)?;
                rack.routes_follow()?;
                rack.answers()?;
                let trial = trial(&rack.lab, &rack.farm, seconds(settings))
                    .with_context(|| format!("{}, {servers} servers", curve.name))?;
                curve.trials[at].1.push(trial);
            }
        }
    }
    Ok(curves)
}
