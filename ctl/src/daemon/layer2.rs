//! Tells neighbors on the link which VIPs are here: ARP and neighbor discovery.
//!
//! The kernel does not have the VIPs' addresses and answers nothing for them; this part does,
//! while the VIP is this balancer's turn ([`Election`]). It has a thread of its own, so that
//! nothing else in the daemon makes it look dead to the others.

use super::apart;
use super::clock::Clock;
use super::host;
use super::parts::{Ending, Wires};
use hellos::{Heard, Hellos};
use link::{Owned, Report};
use lockstep_api::{Layer2Interface, Layer2Peer, Layer2Reply, Layer2Vip};
use lockstep_ctl_core::announce::ways::{Advertised, Interfaces};
use lockstep_ctl_core::announce::{Announced, Withheld};
use lockstep_ctl_core::config::Config;
use lockstep_ctl_core::config::layer2::Layer2;
use lockstep_ctl_core::drains::Timestamp;
use lockstep_ctl_core::layer2::{Change, Election, MAX_VIPS, MISSES, VERSION};
use ring::rand::{SecureRandom, SystemRandom};
use std::collections::BTreeMap;
use std::io;
use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, sleep_until};

mod hellos;
mod link;
mod neighbors;

/// When what failed at the start is tried again.
const AGAIN: Duration = Duration::from_secs(2);

/// Hellos read in one go. Then timers have their turn, whatever still waits.
const BURST: usize = 64;

/// How often the others are told that this balancer leaves, and how far apart: nothing follows
/// that could make up for a loss.
const GOODBYES: (usize, Duration) = (3, Duration::from_millis(15));

/// Owns the VIPs that are its turn, until the daemon ends.
pub async fn run(wires: Wires) {
    apart::run("layer2", || follow(wires)).await;
}

/// What is to be done, of the daemon's settings.
fn wanted(config: &Config) -> Option<(String, Layer2)> {
    let layer2 = config.layer2.clone()?;
    let name = config.operation.name.clone();
    let name = name.unwrap_or_else(|| host::name().unwrap_or_default());
    Some((name, layer2))
}

/// Takes part while there is a section for it, anew whenever it changes.
async fn follow(mut wires: Wires) {
    let mut said = String::new();
    loop {
        let now = wanted(&wires.config.borrow_and_update());
        let Some((name, settings)) = now.clone() else {
            wires.reports.layer2.send_replace(Layer2Reply::default());
            tokio::select! {
                changed = wires.config.changed() => if changed.is_err() {
                    return;
                },
                _ = wires.ending.wait_for(|e| *e != Ending::Running) => return,
            }
            continue;
        };
        let hellos = match Hellos::open(&settings).await {
            Ok(hellos) => hellos,
            Err(problem) => {
                // Once a reason, not once a try.
                if problem != said {
                    tracing::error!("layer 2: {problem}");
                    said.clone_from(&problem);
                }
                wires.reports.layer2.send_replace(Layer2Reply {
                    enabled: true,
                    name,
                    group: settings.group,
                    problem,
                    ..Layer2Reply::default()
                });
                tokio::select! {
                    _ = wires.config.changed() => {}
                    _ = wires.ending.wait_for(|e| *e != Ending::Running) => return,
                    () = sleep(AGAIN) => {}
                }
                continue;
            }
        };
        said.clear();
        let mut part = Part::new(name, settings, hellos, &wires);
        part.run(&mut wires, now).await;
        let ending = *wires.ending.borrow();
        part.leave(ending).await;
        if ending != Ending::Running {
            return;
        }
    }
}

struct Part {
    settings: Layer2,
    name: String,
    election: Election,
    hellos: Hellos,
    owned: watch::Sender<Owned>,
    /// The number of the next announcement.
    number: u64,
    interfaces: Vec<Report>,
    links: JoinSet<()>,
    tell: watch::Sender<Layer2Reply>,
    reply: Layer2Reply,
    /// Peers whose last hello was of another version.
    versions: BTreeMap<String, u8>,
    clock: Clock,
    started: Timestamp,
    too_many: bool,
    /// VIPs that this balancer has and does not offer, and why.
    withheld: BTreeMap<IpAddr, Withheld>,
    /// The interfaces of those that are not answered for on all of them.
    on: BTreeMap<IpAddr, Interfaces>,
}

impl Part {
    fn new(name: String, settings: Layer2, hellos: Hellos, wires: &Wires) -> Self {
        let clock = Clock::start();
        let started = clock.now();
        let election = Election::new(
            (&settings.group, &name),
            settings.peers.keys().cloned(),
            settings.timing,
            life(started),
            clock.uptime(),
        );
        let owned = watch::Sender::<Owned>::default();
        let mut links = JoinSet::new();
        let mut interfaces = Vec::new();
        for interface in &settings.interfaces {
            let report = Report::new(Mutex::new(Layer2Interface {
                name: interface.clone(),
                ..Layer2Interface::default()
            }));
            links.spawn(link::run(
                interface.clone(),
                owned.subscribe(),
                report.clone(),
            ));
            interfaces.push(report);
        }
        tracing::info!(%name, group = %settings.group, peers = settings.peers.len(), "layer 2: listens");
        Part {
            settings,
            name,
            election,
            hellos,
            owned,
            number: 0,
            interfaces,
            links,
            tell: wires.reports.layer2.clone(),
            reply: Layer2Reply::default(),
            versions: BTreeMap::new(),
            clock,
            started,
            too_many: false,
            withheld: BTreeMap::new(),
            on: BTreeMap::new(),
        }
    }

    /// Until the settings are no longer `these`, or the daemon ends.
    async fn run(&mut self, wires: &mut Wires, these: Option<(String, Layer2)>) {
        loop {
            // What has come is read before anybody is taken for dead.
            self.hear();
            self.offer(&wires.announcements.borrow_and_update().clone());
            self.tick();
            let wake = Instant::now()
                + (self.election.next_deadline()).saturating_sub(self.clock.uptime());
            tokio::select! {
                () = self.hellos.readable() => {}
                () = sleep_until(wake) => {}
                changed = wires.announcements.changed() => if changed.is_err() {
                    return;
                },
                changed = wires.config.changed() => {
                    if changed.is_err() || wanted(&wires.config.borrow()) != these {
                        return;
                    }
                }
                _ = wires.ending.wait_for(|e| *e != Ending::Running) => return,
            }
        }
    }

    fn hear(&mut self) {
        for _ in 0..BURST {
            let now = self.clock.uptime();
            match self.hellos.receive(&self.settings) {
                Ok(heard) => {
                    let taken = self.take(now, heard);
                    self.reply.hellos_received += u64::from(taken);
                    self.reply.hellos_refused += u64::from(!taken);
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Err(error) => {
                    tracing::debug!("layer 2: cannot receive: {error}");
                    return;
                }
            }
        }
    }

    fn take(&mut self, now: Duration, heard: Heard) -> bool {
        match heard {
            Heard::Hello(hello) => {
                self.versions.remove(&hello.name);
                self.election.receive(now, hello)
            }
            Heard::OtherVersion(name, version) => {
                if self.versions.get(&name) != Some(&version) {
                    tracing::error!(
                        "layer 2: {name} speaks version {version} of the hellos, this balancer \
                         {VERSION}: both may answer for the same VIPs until both run the same \
                         version of Lockstep"
                    );
                    self.versions.insert(name, version);
                }
                false
            }
            Heard::Nothing => false,
        }
    }

    fn offer(&mut self, announced: &Announced) {
        let interfaces = &self.settings.interfaces;
        let is_here = |way: &Advertised| {
            let on = way.layer2.as_ref();
            on.is_some_and(|on| interfaces.iter().any(|name| on.has(name)))
        };
        let vips = announced.announced();
        let vips = vips.filter(|(_, way)| way.is_none_or(is_here));
        let vips: Vec<IpAddr> = vips.map(|(vip, _)| vip).collect();
        self.withheld = announced.withheld(is_here).collect();
        let named = announced.ways.iter().filter_map(|(vip, way)| {
            let on = way.layer2.clone()?;
            Some((*vip, on))
        });
        self.on = named.collect();
        let too_many = vips.len() > MAX_VIPS;
        if too_many && !self.too_many {
            tracing::error!(
                "layer 2: {} VIPs, of which the first {MAX_VIPS} are announced; share them out \
                 among several balancers' services.toml, or use BGP",
                vips.len()
            );
        }
        self.too_many = too_many;
        let now = self.clock.uptime();
        // Before anything is said of VIPs, what they become is not known yet.
        if vips.is_empty() && !announced.vips.is_empty() {
            self.election.serves_nothing(now);
        }
        self.election.offer(now, vips);
    }

    /// Says hello where it is due, and follows what that brings about.
    fn tick(&mut self) {
        let hello = self.election.tick(self.clock.uptime());
        let changes = self.election.changes();
        for (vip, change) in &changes {
            match change {
                Change::Claimed => {
                    self.reply.claims += 1;
                    tracing::info!(%vip, "layer 2: this balancer answers for the VIP now");
                }
                Change::Affirmed => {
                    tracing::warn!(%vip, "layer 2: two balancers answered for the VIP; it is ours")
                }
                Change::Released => tracing::info!(%vip, "layer 2: no longer answers for the VIP"),
            }
        }
        self.owned.send_if_modified(|owned| {
            let differs = owned.on != self.on;
            if differs {
                owned.on.clone_from(&self.on);
            }
            differs
        });
        if hello.is_some() || !changes.is_empty() {
            // Others wait this long before they take over.
            let until = Instant::now() + self.settings.timing.interval * MISSES;
            self.owned.send_modify(|owned| {
                owned.until = Some(until);
                for (vip, change) in changes {
                    self.number += 1;
                    match change {
                        Change::Claimed | Change::Affirmed => owned.vips.insert(vip, self.number),
                        Change::Released => owned.vips.remove(&vip),
                    };
                }
            });
        }
        if let Some(hello) = hello {
            self.hellos.send(&self.settings, &hello);
            self.reply.hellos_sent += 1;
        }
        self.publish();
    }

    /// Tells the others, so that they need not wait, and lets go of everything; but before a
    /// restart they are to wait: the engine goes on, and neighbors know where the VIPs are.
    async fn leave(mut self, ending: Ending) {
        let (times, pause) = GOODBYES;
        let now = self.clock.uptime();
        match ending {
            Ending::Restart => self.election.restart(now),
            Ending::Running | Ending::Shutdown => self.election.leave(now),
        }
        for _ in 0..times {
            self.tick();
            sleep(pause.max(self.settings.timing.interval / 8)).await;
        }
        drop(self.owned);
        while self.links.join_next().await.is_some() {}
        self.tell.send_replace(Layer2Reply::default());
    }

    fn publish(&mut self) {
        let seconds = |at: Duration| self.started.after(at).0 as f64 / 1e3;
        let election = &self.election;
        let offered = election.offered();
        let mut vips = election.vips();
        vips.extend(self.withheld.keys());
        self.reply = Layer2Reply {
            enabled: true,
            name: self.name.clone(),
            group: self.settings.group.clone(),
            vips: (vips.into_iter())
                .map(|vip| {
                    let withheld = self.withheld.get(&vip);
                    let service = withheld.and_then(Withheld::service);
                    Layer2Vip {
                        address: vip.to_string(),
                        owner: election.owner(vip).unwrap_or_default().to_owned(),
                        ours: election.owned().contains_key(&vip),
                        willing: offered.contains_key(&vip),
                        since: election.owned().get(&vip).map_or(0.0, |at| seconds(*at)),
                        withheld: withheld.map_or("", Withheld::name).to_owned(),
                        service: service.map_or_else(String::new, |s| s.as_str().to_owned()),
                    }
                })
                .collect(),
            peers: (election.peers(self.clock.uptime()))
                .map(|peer| Layer2Peer {
                    name: peer.name.to_owned(),
                    address: (self.settings.peers.get(peer.name))
                        .map_or_else(String::new, ToString::to_string),
                    alive: peer.alive.is_some(),
                    since: peer.alive.map_or(0.0, seconds),
                    hears_us: peer.hears_us,
                    heard: peer.heard,
                    other_version: self.versions.get(peer.name).copied().map_or(0, u32::from),
                    owned: u32::try_from(peer.owned).unwrap_or(u32::MAX),
                    willing: u32::try_from(peer.willing).unwrap_or(u32::MAX),
                })
                .collect(),
            interfaces: (self.interfaces.iter())
                .map(|report| {
                    report
                        .lock()
                        .unwrap_or_else(PoisonError::into_inner)
                        .clone()
                })
                .collect(),
            problem: String::new(),
            ..self.reply
        };
        self.tell.send_if_modified(|told| {
            let differs = *told != self.reply;
            if differs {
                told.clone_from(&self.reply);
            }
            differs
        });
    }
}

/// A number that no life had before. Without random numbers the time of the start, which others
/// may guess, and have no record of.
fn life(started: Timestamp) -> u64 {
    let mut bytes = [0; 8];
    match SystemRandom::new().fill(&mut bytes) {
        Ok(()) => u64::from_be_bytes(bytes),
        Err(_) => started.0,
    }
}
