//! Services that have one address together.

use lockstep_kubernetes::annotations::ALLOW_SHARED_IP;
use lockstep_kubernetes::facts::Service;

/// Why a Service cannot have an address together with those that have it: whose it is, and what
/// stands against sharing it, for a sentence that begins with the address.
pub fn problem<'a>(service: &Service, others: impl Iterator<Item = &'a Service>) -> Option<String> {
    let mut others = others.filter(|other| other.name != service.name);
    others.find_map(|other| {
        let why = obstacle(service, other)?;
        Some(format!("is Service {}'s{why}", other.name))
    })
}

fn obstacle(service: &Service, other: &Service) -> Option<String> {
    let key = |service: &Service| -> Option<String> {
        let key = service.annotations.get(ALLOW_SHARED_IP)?.trim();
        (!key.is_empty()).then(|| key.to_owned())
    };
    let own = key(service);
    if own.is_none() || own != key(other) {
        return Some(match own {
            None => String::new(),
            Some(_) => format!(", which has another {ALLOW_SHARED_IP}"),
        });
    }
    // Whether a packet comes here depends on where the pods of any of them are: both have to agree
    // on that.
    if service.local != other.local {
        return Some(", which has another externalTrafficPolicy".to_owned());
    }
    let both = service.ports.iter().find(|port| {
        let same = |theirs: &&_| -> bool {
            let theirs: &lockstep_kubernetes::facts::ServicePort = theirs;
            (theirs.port, theirs.protocol) == (port.port, port.protocol)
        };
        other.ports.iter().any(|theirs| same(&theirs))
    });
    both.map(|port| format!(", which has port {} too", port.port))
}
