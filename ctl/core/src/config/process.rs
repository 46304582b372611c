//! `[process]`: what the daemon itself may do.

use super::Config;
use lockstep_topology::diagnostics::{Diagnostics, Source};
use serde::Deserialize;
use std::collections::BTreeSet;
use std::fmt;
use toml::Spanned;

/// The first port that everybody may listen at (`net.ipv4.ip_unprivileged_port_start` of Linux).
const UNPRIVILEGED: u16 = 1_024;

/// See the module.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Process {
    /// What it gives up until it is started again.
    pub dropped: BTreeSet<Capability>,
}

/// What takes a capability of root's (capabilities(7)), by the kernel's name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Capability {
    /// To listen at a port below 1024.
    NetBindService,
    /// To ping, and to announce VIPs on the link.
    NetRaw,
    /// To check through tunnels.
    NetAdmin,
}

impl Capability {
    /// Its name in the file.
    pub const fn name(self) -> &'static str {
        match self {
            Capability::NetBindService => "net_bind_service",
            Capability::NetRaw => "net_raw",
            Capability::NetAdmin => "net_admin",
        }
    }

    /// Why a configuration cannot be without it, where it cannot.
    fn needed_by(self, config: &Config) -> Option<String> {
        match self {
            Capability::NetBindService => low_port(config),
            Capability::NetRaw if config.layer2.is_some() => {
                Some("[layer2] opens sockets that need it".to_owned())
            }
            // Checks through tunnels stand in services.toml.
            Capability::NetRaw | Capability::NetAdmin => None,
        }
    }
}

fn low_port(config: &Config) -> Option<String> {
    let bgp = config.bgp.listen.iter().map(|a| ("[bgp]", a));
    let metrics = config.operation.metrics.iter().map(|a| ("[metrics]", a));
    let random = config.random.iter().map(|r| ("[random]", &r.listen));
    let layer2 = config.layer2.iter().map(|l| ("[layer2]", &l.listen));
    let mut all = bgp.chain(metrics).chain(random).chain(layer2);
    let (section, address) = all.find(|(_, a)| (1..UNPRIVILEGED).contains(&a.port()))?;
    let port = address.port();
    Some(format!("{section} listens at port {port}, which needs it"))
}

impl fmt::Display for Process {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<_> = self.dropped.iter().map(|c| c.name()).collect();
        f.write_str(&names.join(", "))
    }
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields)]
pub(super) struct RawProcess {
    #[serde(default)]
    drop: Vec<Spanned<Capability>>,
}

impl RawProcess {
    pub(super) fn to_process(&self) -> Process {
        Process {
            dropped: self.drop.iter().map(|c| *c.get_ref()).collect(),
        }
    }

    /// What the rest of the file asks for, and this gives up.
    pub(super) fn check(&self, config: &Config, source: Source<'_>, found: &mut Diagnostics) {
        for dropped in &self.drop {
            if let Some(why) = dropped.get_ref().needed_by(config) {
                let message = format!("{} cannot be dropped: {why}", dropped.get_ref().name());
                let help = "leave it out here, or take that out";
                found.push(source.error(dropped.span(), message).help(help));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::parse;
    use super::*;

    #[test]
    fn what_is_dropped_is_read_by_the_names_of_the_kernel() {
        let text = "[process]\ndrop = [\"net_admin\", \"net_raw\", \"net_bind_service\"]\n";
        let process = parse("lockstepd.toml", text).unwrap().config.process;
        let all = [
            Capability::NetBindService,
            Capability::NetRaw,
            Capability::NetAdmin,
        ];
        assert_eq!(process.dropped, BTreeSet::from(all));
        assert_eq!(process.to_string(), "net_bind_service, net_raw, net_admin");
        let errors = parse("lockstepd.toml", "[process]\ndrop = [\"sys_admin\"]\n").unwrap_err();
        assert!(errors.to_string().contains("net_admin"), "{errors}");
    }

    #[test]
    fn what_another_section_needs_cannot_be_dropped() {
        let drop = "[process]\ndrop = [\"net_raw\", \"net_bind_service\"]\n";
        for (text, wanted) in [
            (
                "[layer2]\ninterfaces = [\"eth0\"]\nlisten = \"10.0.0.1\"\n",
                "lockstepd.toml:2:9: net_raw cannot be dropped: [layer2]",
            ),
            (
                "[metrics]\nlisten = \"127.0.0.1:1023\"\n",
                "lockstepd.toml:2:20: net_bind_service cannot be dropped: [metrics] listens at port 1023",
            ),
            (
                "[bgp]\nas = 1\nrouter_id = \"10.0.0.1\"\n[[bgp.peer]]\naddress = \"10.0.0.2\"\nas = 2\npassive = true\n",
                "net_bind_service cannot be dropped: [bgp] listens at port 179",
            ),
        ] {
            let errors = parse("lockstepd.toml", &(drop.to_owned() + text)).unwrap_err();
            assert!(errors.to_string().contains(wanted), "{errors}");
        }
        let high = "[metrics]\nlisten = \"127.0.0.1:1024\"\n[random]\n";
        assert!(parse("lockstepd.toml", &(drop.to_owned() + high)).is_ok());
    }
}
