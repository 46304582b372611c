//! What a Service asks for.

use super::Refusal;
use crate::kubernetes::pools::family;
use lockstep_kubernetes::annotations::{ADDRESS_POOL, ALLOW_SHARED_IP, LOAD_BALANCER_IPS};
use lockstep_kubernetes::facts::{Family, FamilyPolicy, Service};
use std::collections::BTreeMap;
use std::net::IpAddr;

/// See the module.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Wish {
    /// The families it is to have, the preferred one first.
    pub families: Vec<Family>,
    /// Whether it wants all of them or nothing.
    pub all: bool,
    /// Addresses it asks for.
    pub addresses: BTreeMap<Family, IpAddr>,
    /// The pool it asks for.
    pub pool: Option<String>,
    /// With whom it shares addresses.
    pub key: Option<String>,
}

impl Wish {
    /// Of a Service. Where what it asks for makes no sense that is left out, and told.
    pub fn of(service: &Service) -> (Self, Option<Refusal>) {
        let text = |name| {
            let text = service.annotations.get(name).map(|text| text.trim());
            text.filter(|text| !text.is_empty()).map(str::to_owned)
        };
        let (families, all) = families(service);
        let mut wish = Wish {
            families,
            all,
            addresses: BTreeMap::new(),
            pool: text(ADDRESS_POOL),
            key: text(ALLOW_SHARED_IP),
        };
        let asked = match (text(LOAD_BALANCER_IPS), &service.address) {
            (Some(_), Some(_)) => Err(format!(
                "both spec.loadBalancerIP and the annotation {LOAD_BALANCER_IPS} are there; keep \
                 the annotation only"
            )),
            (Some(list), None) => read(&list, LOAD_BALANCER_IPS),
            (None, Some(one)) => read(one, "spec.loadBalancerIP"),
            (None, None) => Ok(BTreeMap::new()),
        };
        match asked.and_then(|asked| fits(&mut wish, service, asked)) {
            Ok(()) => (wish, None),
            Err(message) => (wish, Some(Refusal::new("InvalidRequest", message))),
        }
    }
}

/// The families it is to have. The API server fills them in; what stands here for a Service without
/// is what it would fill in.
fn families(service: &Service) -> (Vec<Family>, bool) {
    let mut families = service.families.clone();
    if families.is_empty() {
        families.push(Family::V4);
        let asked = service.annotations.get(LOAD_BALANCER_IPS).cloned();
        let asked = asked
            .or_else(|| service.address.clone())
            .unwrap_or_default();
        if !asked.is_empty() && asked.split(',').all(|text| text.contains(':')) {
            families = vec![Family::V6];
        }
    }
    let first = families[0];
    let other = match first {
        Family::V4 => Family::V6,
        Family::V6 => Family::V4,
    };
    match service.family_policy {
        FamilyPolicy::Single => (vec![first], true),
        // One alone: the cluster has no other (kube-apiserver fills in both where it has).
        FamilyPolicy::Prefer if service.families.len() == 1 => (vec![first], false),
        FamilyPolicy::Prefer => (vec![first, other], false),
        FamilyPolicy::Require => (vec![first, other], true),
    }
}

fn read(list: &str, place: &str) -> Result<BTreeMap<Family, IpAddr>, String> {
    let mut found = BTreeMap::new();
    for text in list.split(',').map(str::trim) {
        let address: IpAddr = text.parse().map_err(|_| {
            format!("{text:?} in {place} is not an address; write one, or one of each family")
        })?;
        if let Some(other) = found.insert(family(address), address) {
            return Err(format!(
                "{place} has {other} and {address}, which are of one family; keep one of them"
            ));
        }
    }
    Ok(found)
}

/// Asks for these addresses.
fn fits(wish: &mut Wish, service: &Service, asked: BTreeMap<Family, IpAddr>) -> Result<(), String> {
    let strange = asked.iter().find(|(f, _)| !wish.families.contains(f));
    if let Some((_, address)) = strange {
        let advice = match service.family_policy {
            FamilyPolicy::Single => {
                "ask for an address of the first of them, or set ipFamilyPolicy to PreferDualStack"
            }
            FamilyPolicy::Prefer | FamilyPolicy::Require => "ask for an address of one of them",
        };
        return Err(format!(
            "{address} is of no family of the Service, which has {}; {advice}",
            names(&wish.families)
        ));
    }
    wish.addresses = asked;
    Ok(())
}

/// Families, for a sentence.
pub fn names(families: &[Family]) -> String {
    let name = |family: &Family| match family {
        Family::V4 => "IPv4",
        Family::V6 => "IPv6",
    };
    families.iter().map(name).collect::<Vec<_>>().join(" and ")
}
