//! Kubernetes' objects as the daemon sees them, and the resources that are Lockstep's own.
//!
//! An object comes from the API server as its generated type and is kept as a fact ([`facts`]): the
//! few fields that decide something, parsed once. What follows from all of them is found by
//! `lockstep-ctl-core`; this crate knows no client.

#![forbid(unsafe_code)]

pub mod facts;
pub mod resources;

/// The API group of our resources and annotations.
pub const GROUP: &str = "lockstep.dev";

/// The class of Services that are ours, where the configuration names no other.
pub const CLASS: &str = "lockstep.dev/xdp";

/// What every field manager of ours begins with.
pub const FIELD_MANAGER: &str = "lockstepd";

/// Who writes what an installation writes, for server-side apply: installations of one cluster have
/// different classes, and what one of them has written is not another one's to take back.
pub fn manager(class: &str) -> String {
    of_class(FIELD_MANAGER, class)
}

/// Who writes annotations on Services. What one manager applies to an object is all that it has there:
/// a Service that [`manager`] has made would lose everything else.
pub fn annotations_manager(class: &str) -> String {
    of_class("lockstepd-annotations", class)
}

/// The API server takes managers of at most 128 characters.
fn of_class(prefix: &str, class: &str) -> String {
    const MOST: usize = 80;
    match class {
        CLASS => prefix.to_owned(),
        class if class.len() <= MOST => format!("{prefix}:{class}"),
        class => {
            // FNV-1a: two long classes do not become one.
            let hash = class.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
                (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
            });
            let kept = &class[..class.floor_char_boundary(MOST)];
            format!("{prefix}:{kept}-{hash:016x}")
        }
    }
}

/// Annotations of Services. The first ones are an operator's, the last one is ours.
pub mod annotations {
    /// The pool to take addresses from.
    pub const ADDRESS_POOL: &str = "lockstep.dev/address-pool";
    /// The addresses to take, separated by commas: one, or one of each family.
    pub const LOAD_BALANCER_IPS: &str = "lockstep.dev/load-balancer-ips";
    /// Services with the same key may share an address where their ports differ.
    pub const ALLOW_SHARED_IP: &str = "lockstep.dev/allow-shared-ip";
    /// `full-nat` (the default), `nat`, `tunnel` or `replicate`.
    pub const MODE: &str = "lockstep.dev/mode";
    /// As in `services.toml`.
    pub const SCHEDULER: &str = "lockstep.dev/scheduler";
    /// The size of the Maglev table.
    pub const TABLE_SIZE: &str = "lockstep.dev/table-size";
    /// The policy of `replicate`: the keys of `[service.replicate]` of `services.toml`, as TOML.
    pub const REPLICATE: &str = "lockstep.dev/replicate";
    /// Written by us: the pool an address came from.
    pub const ALLOCATED_FROM: &str = "lockstep.dev/ip-allocated-from-pool";
    /// Written by us, on the Service that gets the addresses of a `Dire`: the `Dire`'s name.
    pub const DIRE: &str = "lockstep.dev/dire";
    /// Written by us, on the Service in front of a `Dire`'s own distributor: the `Dire`'s name.
    pub const DISTRIBUTOR: &str = "lockstep.dev/distributor";
    /// Written by us, on the Deployment of a distributor: what it was made of.
    pub const RENDERED: &str = "lockstep.dev/rendered";
    /// Written by us, on the pod of a distributor: its `services.toml`.
    pub const SERVICES: &str = "lockstep.dev/services";
    /// Written by us, on the Service that gets the addresses of a Gateway: the Gateway's name.
    pub const GATEWAY: &str = "lockstep.dev/gateway";
    /// Written by us: the uid of the object that a Service belongs to.
    pub const OWNER: &str = "lockstep.dev/owner-uid";
    /// What all of them begin with.
    pub const PREFIX: &str = "lockstep.dev/";
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_class_has_managers_of_its_own_that_the_api_server_takes() {
        assert_eq!(manager(CLASS), "lockstepd");
        assert_eq!(annotations_manager(CLASS), "lockstepd-annotations");
        assert_eq!(manager("example.org/lb"), "lockstepd:example.org/lb");
        let long = |last: char| format!("{}/lb{last}", "x".repeat(253));
        let (a, b) = (
            annotations_manager(&long('a')),
            annotations_manager(&long('b')),
        );
        assert_ne!(a, b);
        assert!(a.len() <= 128 && b.len() <= 128, "{a}");
    }
}
