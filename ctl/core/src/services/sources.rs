//! Services of several sources, put together: those of the file, and those of providers that are
//! watched, each kept apart and replaced as a whole.
//!
//! The file is the operator's word: what a provider says that cannot stand beside it is left out,
//! service by service, so that one that is wrong holds up no other.

use super::ServicesFile;
use crate::announce::ways::Advertisements;
use crate::checks::Policy;
use crate::spread::Spreads;
use lockstep_plan::{Limits, PlanError, Service, ServiceName, Snapshot};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;

/// Why a provider's service is left out whose name is another's.
const NAME_TAKEN: &str = "another source has a service of this name";

/// All services of one source, with what the engine is not to know of them.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Offer {
    /// The services.
    pub services: Vec<Service>,
    /// How each of them spreads new flows.
    pub spreads: Spreads,
    /// How the backends of each are checked.
    pub health: BTreeMap<ServiceName, Policy>,
    /// How VIPs are announced that are not announced by every way.
    pub advertised: Advertisements,
}

impl From<ServicesFile> for Offer {
    fn from(file: ServicesFile) -> Self {
        Offer {
            services: file.services,
            spreads: file.spreads,
            health: file.health,
            advertised: Advertisements::new(),
        }
    }
}

/// Who has services beside the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Provider {
    /// The Services and routes of a cluster.
    Kubernetes,
}

impl fmt::Display for Provider {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Provider::Kubernetes => "kubernetes",
        })
    }
}

/// What a provider has said last.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Provided {
    /// Nothing yet: what the engine has from before stays.
    Awaited,
    /// All its services.
    Services {
        /// Counts what it says, so that it finds out what is in force.
        revision: u64,
        /// The services.
        offer: Arc<Offer>,
    },
}

/// What became of the services of providers.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Placed {
    /// The last revision of each that the engine has in force.
    pub in_force: BTreeMap<Provider, u64>,
    /// The services that are left out, and why.
    pub left_out: BTreeMap<ServiceName, String>,
}

/// What every source has said last. A copy is cheap.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Sources {
    /// The last file without errors; `None` until there is one.
    file: Option<Arc<Offer>>,
    provided: BTreeMap<Provider, Provided>,
    /// What the engine had while a provider was awaited, by which there was no telling whose it is.
    kept: Arc<Vec<Service>>,
    /// How VIPs were announced when a provider was last heard, by a daemon before this one.
    remembered: Arc<Advertisements>,
    /// What the engine can never have, as it was then, and why.
    refused: Arc<BTreeMap<ServiceName, (Service, String)>>,
}

/// Services that stand together.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Union {
    /// Those of all sources.
    pub offer: Offer,
    /// Those of providers that are left out, and why.
    pub left_out: BTreeMap<ServiceName, String>,
}

impl Sources {
    /// Puts another file in the place of the last one.
    pub fn set_file(&mut self, file: Arc<Offer>) {
        self.file = Some(file);
    }

    /// The services of the file.
    pub fn file(&self) -> Option<&Arc<Offer>> {
        self.file.as_ref()
    }

    /// Follows which providers there are to be: a new one is awaited, the services of one that is
    /// gone are dropped. Returns whether that changes anything.
    pub fn expect(&mut self, providers: &BTreeSet<Provider>) -> bool {
        let before = self.provided.clone();
        self.provided
            .retain(|provider, _| providers.contains(provider));
        for provider in providers {
            self.provided.entry(*provider).or_insert(Provided::Awaited);
        }
        self.drop_kept();
        self.provided != before
    }

    /// A provider has said something. That it is awaited takes back nothing that it has said.
    pub fn provide(&mut self, provider: Provider, provided: Provided) {
        match provided {
            Provided::Awaited => {
                self.provided.entry(provider).or_insert(Provided::Awaited);
            }
            Provided::Services { .. } => {
                self.provided.insert(provider, provided);
            }
        }
        self.drop_kept();
        self.drop_refused();
    }

    /// How VIPs of providers were announced before this daemon: it goes on so while one is awaited.
    pub fn remember(&mut self, ways: Advertisements) {
        self.remembered = Arc::new(ways);
    }

    /// How VIPs are announced that are not announced by every way: none of the file.
    fn advertised(&self) -> Advertisements {
        let mut ways = match self.awaits() {
            true => Advertisements::clone(&self.remembered),
            false => Advertisements::new(),
        };
        for offer in self.provided_offers() {
            ways.extend(offer.advertised.clone());
        }
        let file = self.file.iter().flat_map(|file| &file.services);
        for vip in file.flat_map(|service| &service.vips) {
            ways.remove(&vip.address());
        }
        ways
    }

    /// Whether some provider has said nothing yet.
    pub fn awaits(&self) -> bool {
        self.provided.values().any(|p| *p == Provided::Awaited)
    }

    /// Whether nobody has said anything.
    pub fn is_unknown(&self) -> bool {
        let said = |p: &Provided| matches!(p, Provided::Services { .. });
        self.file.is_none() && !self.provided.values().any(said)
    }

    /// Whether there is anything that is only kept.
    pub fn keeps(&self) -> bool {
        !self.kept.is_empty()
    }

    /// Every service that some source has, also those that are left out.
    pub fn said(&self) -> impl Iterator<Item = &Service> {
        self.offers().flat_map(|offer| &offer.services)
    }

    /// Keeps what an engine has in force, as long as a provider is awaited. Returns whether that
    /// changes anything.
    pub fn keep(&mut self, in_force: &[Service]) -> bool {
        if !self.awaits() || !self.kept.is_empty() {
            return false;
        }
        let named: BTreeSet<&ServiceName> = self.offers().flat_map(|o| names(o)).collect();
        let nobodys = in_force.iter().filter(|s| !named.contains(&s.name));
        let nobodys: Vec<Service> = nobodys.cloned().collect();
        let differs = *self.kept != nobodys;
        self.kept = Arc::new(nobodys);
        differs
    }

    fn drop_kept(&mut self) {
        if !self.awaits() {
            self.kept = Arc::default();
        }
    }

    fn drop_refused(&mut self) {
        if self.refused.is_empty() {
            return;
        }
        let mut refused = std::mem::take(&mut self.refused);
        let said = self.provided_offers().flat_map(|offer| &offer.services);
        let said: BTreeMap<&ServiceName, &Service> = said.map(|s| (&s.name, s)).collect();
        Arc::make_mut(&mut refused).retain(|name, (service, _)| said.get(name) == Some(&&*service));
        self.refused = refused;
    }

    /// The last revision of each provider.
    pub fn revisions(&self) -> BTreeMap<Provider, u64> {
        let said = self.provided.iter();
        let revision = |(provider, provided): (&Provider, &Provided)| match provided {
            Provided::Awaited => None,
            Provided::Services { revision, .. } => Some((*provider, *revision)),
        };
        said.filter_map(revision).collect()
    }

    fn offers(&self) -> impl Iterator<Item = &Arc<Offer>> {
        self.file.iter().chain(self.provided_offers())
    }

    fn provided_offers(&self) -> impl Iterator<Item = &Arc<Offer>> {
        self.provided
            .values()
            .filter_map(|provided| match provided {
                Provided::Awaited => None,
                Provided::Services { offer, .. } => Some(offer),
            })
    }

    /// The engine can never have a service, for this reason: where a provider has it, it is left
    /// out until the provider says something else of it. Returns whether one has.
    pub fn refuse(&mut self, name: &ServiceName, why: &str) -> bool {
        let found = self.provided_offers().flat_map(|offer| &offer.services);
        let Some(service) = found.into_iter().find(|s| s.name == *name).cloned() else {
            return false;
        };
        let refused = Arc::make_mut(&mut self.refused);
        let before = refused.insert(name.clone(), (service.clone(), why.to_owned()));
        before.is_none_or(|(known, _)| known != service)
    }

    /// All services, but those of providers that cannot stand beside the file's or each other.
    pub fn union(&self) -> Union {
        let mut offer = Offer::default();
        if let Some(file) = &self.file {
            offer = Offer::clone(file);
        }
        let taken: BTreeSet<ServiceName> = names(&offer).cloned().collect();
        let mut left_out = BTreeMap::new();
        let mut added = BTreeMap::new();
        for service in self.provided_offers().flat_map(|o| &o.services) {
            let name = &service.name;
            let why = match self.refused.get(name) {
                Some((refused, why)) if refused == service => why,
                _ if taken.contains(name) || added.contains_key(name) => NAME_TAKEN,
                _ => {
                    added.insert(name.clone(), service.clone());
                    continue;
                }
            };
            left_out.insert(name.clone(), why.to_owned());
        }
        let kept = self.kept.iter();
        let kept = kept.filter(|s| !taken.contains(&s.name) && !added.contains_key(&s.name));
        let kept: BTreeMap<_, _> = kept.map(|s| (s.name.clone(), s.clone())).collect();
        let kept_names: BTreeSet<ServiceName> = kept.keys().cloned().collect();
        added.extend(kept);
        leave_out(&offer.services, &mut added, &mut left_out);
        for provided in self.provided_offers() {
            for name in names(provided).filter(|name| added.contains_key(*name)) {
                let spread = provided.spreads.get(name);
                offer
                    .spreads
                    .extend(spread.map(|s| (name.clone(), s.clone())));
                let policy = provided.health.get(name);
                offer
                    .health
                    .extend(policy.map(|p| (name.clone(), p.clone())));
            }
        }
        offer.advertised = self.advertised();
        // No provider said anything of what is only kept.
        left_out.retain(|name, _| !kept_names.contains(name));
        offer.services.extend(added.into_values());
        Union { offer, left_out }
    }
}

fn names(offer: &Offer) -> impl Iterator<Item = &ServiceName> {
    offer.services.iter().map(|s| &s.name)
}

/// Takes services out of `added` until the rest stands together with the `first` ones, which do by
/// themselves.
fn leave_out(
    first: &[Service],
    added: &mut BTreeMap<ServiceName, Service>,
    left_out: &mut BTreeMap<ServiceName, String>,
) {
    leave_out_what_is_too_much(first, added, left_out);
    while !added.is_empty() {
        let all = first.iter().chain(added.values()).cloned().collect();
        let Err(errors) = Snapshot::new(0, all) else {
            return;
        };
        let mut gone = BTreeSet::new();
        for error in &errors {
            // Where both are added the later one goes; where one went already, nothing is wrong.
            let parties: Vec<_> = parties(error).into_iter().flatten().collect();
            if parties.iter().any(|name| gone.contains(*name)) {
                continue;
            }
            let culprit = parties.into_iter().find(|name| added.contains_key(*name));
            if let Some(name) = culprit {
                added.remove(name);
                gone.insert(name.clone());
                left_out.insert(name.clone(), error.to_string());
            }
        }
        if gone.is_empty() {
            // Whatever it is, the file's services go on.
            let why = errors.first().map_or_else(String::new, ToString::to_string);
            let rest = std::mem::take(added).into_keys();
            left_out.extend(rest.map(|name| (name, why.clone())));
        }
    }
}

/// Takes out what an engine has no room for, the last ones first.
fn leave_out_what_is_too_much(
    first: &[Service],
    added: &mut BTreeMap<ServiceName, Service>,
    left_out: &mut BTreeMap<ServiceName, String>,
) {
    let mut vips: usize = first.iter().map(|s| s.vips.len()).sum();
    let mut backends: usize = first.iter().map(|s| s.backends.len()).sum();
    added.retain(|name, service| {
        let most = match service.mode.replicate() {
            Some(_) => Limits::REPLICAS,
            None => Limits::BACKENDS_PER_SERVICE,
        };
        let (with, and) = (vips + service.vips.len(), backends + service.backends.len());
        let why = if service.backends.len() > most {
            format!(
                "it has {} backends; an engine holds {most} of a service",
                service.backends.len()
            )
        } else if with > Limits::VIPS {
            format!("an engine holds {} VIPs, and there are more", Limits::VIPS)
        } else if and > Limits::BACKENDS {
            format!(
                "an engine holds {} backends, and there are more",
                Limits::BACKENDS
            )
        } else {
            (vips, backends) = (with, and);
            return true;
        };
        left_out.insert(name.clone(), why);
        false
    });
}

/// Whom an error is about: the service that it names, and the one that was there before.
fn parties(error: &PlanError) -> [Option<&ServiceName>; 2] {
    match error {
        PlanError::DuplicateService(service)
        | PlanError::NoVip(service)
        | PlanError::MixedTunnel(service)
        | PlanError::IdleTime(service)
        | PlanError::DuplicateBackend { service, .. }
        | PlanError::BackendAddress { service, .. }
        | PlanError::TranslatedVersion { service, .. }
        | PlanError::TunnelPort { service, .. }
        | PlanError::ReplicateVip { service, .. }
        | PlanError::EveryPort { service, .. }
        | PlanError::Quorum { service, .. }
        | PlanError::MinSync { service, .. }
        | PlanError::MinSyncBelowQuorum { service, .. } => [Some(service), None],
        PlanError::DuplicateVip { service, owner, .. }
        | PlanError::OverlappingRange { service, owner, .. }
        | PlanError::BackendIsVip { service, owner, .. } => [Some(service), Some(owner)],
        PlanError::TooMany { .. } => [None, None],
    }
}

#[cfg(test)]
mod tests;
