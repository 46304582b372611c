//! `lockstepd.toml`: the daemon's own settings. What the balancer serves stands in `services.toml`.
//!
//! Every section may be left out, and so may the file: the daemon then tells its engine what
//! `services.toml` says, and does nothing else.

use crate::services::sources::Provider;
use lockstep_topology::diagnostics::{Diagnostics, Source, read_toml};
use serde::Deserialize;
use std::collections::BTreeSet;

pub mod bfd;
pub mod bgp;
pub mod diff;
pub mod health;
pub mod kubernetes;
pub mod layer2;
pub mod operation;
pub mod process;
pub mod random;
pub mod shutdown;
pub mod store;

/// The sections there are, by their keys.
pub const SECTIONS: [&str; 11] = [
    "node",
    "log",
    "metrics",
    "process",
    "shutdown",
    "health",
    "bgp",
    "layer2",
    "store",
    "random",
    "kubernetes",
];

/// What `lockstepd.toml` says, each part with its defaults where the file is silent.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Config {
    /// The name of this balancer, the log, the metrics.
    pub operation: operation::Operation,
    /// What the daemon itself may do.
    pub process: process::Process,
    /// How the daemon ends.
    pub shutdown: shutdown::Shutdown,
    /// What checks of services that say less are like.
    pub health: health::Defaults,
    /// The routers to announce VIPs to.
    pub bgp: bgp::Bgp,
    /// How VIPs are announced on the link; `None` where they are not.
    pub layer2: Option<layer2::Layer2>,
    /// What a group of balancers shares its state by; `None` where each is alone.
    pub store: Option<store::Store>,
    /// The random numbers for replicas; `None` where they are not served.
    pub random: Option<random::Random>,
    /// The cluster whose Services are served; `None` where there is none.
    pub kubernetes: Option<kubernetes::Kubernetes>,
}

impl Config {
    /// Whether there is anybody to announce VIPs to.
    pub fn announces(&self) -> bool {
        self.bgp != bgp::Bgp::default() || self.layer2.is_some()
    }

    /// Who has services beside `services.toml`.
    pub fn providers(&self) -> BTreeSet<Provider> {
        self.kubernetes
            .iter()
            .map(|_| Provider::Kubernetes)
            .collect()
    }
}

/// A `lockstepd.toml` without errors.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ConfigFile {
    /// What it says.
    pub config: Config,
    /// What is allowed, but hardly meant.
    pub warnings: Diagnostics,
}

/// Reads the text of a `lockstepd.toml`. `file` is the name errors are reported under.
///
/// # Errors
/// Everything that is wrong with it at once; of a section, or a table of a list, with a wrong key or
/// value that alone.
pub fn parse(file: &str, text: &str) -> Result<ConfigFile, Diagnostics> {
    let source = Source::new(file, text);
    let judge = |document: Document, found: &mut Diagnostics| document.into_config(source, found);
    let (config, warnings) = read_toml(file, text, judge)?;
    Ok(ConfigFile { config, warnings })
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Document {
    #[serde(default)]
    node: operation::RawNode,
    #[serde(default)]
    log: operation::RawLog,
    #[serde(default)]
    metrics: operation::RawMetrics,
    #[serde(default)]
    process: process::RawProcess,
    #[serde(default)]
    shutdown: shutdown::RawShutdown,
    #[serde(default)]
    health: health::RawHealth,
    #[serde(default)]
    bgp: bgp::RawBgp,
    layer2: Option<layer2::RawLayer2>,
    store: Option<store::RawStore>,
    random: Option<random::RawRandom>,
    kubernetes: Option<kubernetes::RawKubernetes>,
}

impl Document {
    fn into_config(self, source: Source<'_>, found: &mut Diagnostics) -> Option<Config> {
        let config = Config {
            operation: operation::read(self.node, self.log, self.metrics, source, found),
            process: self.process.to_process(),
            shutdown: self.shutdown.to_shutdown(),
            health: self.health.to_defaults(source, found),
            bgp: self.bgp.to_bgp(source, found),
            layer2: self.layer2.map(|raw| raw.to_layer2(source, found)),
            store: self.store.map(|raw| raw.to_store(source, found)),
            random: self.random.map(|raw| raw.to_random(source, found)),
            kubernetes: (self.kubernetes).map(|raw| raw.to_kubernetes(source, found)),
        };
        self.process.check(&config, source, found);
        (!found.has_errors()).then_some(config)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_empty_file_is_all_defaults() {
        assert_eq!(parse("lockstepd.toml", ""), Ok(ConfigFile::default()));
    }

    #[test]
    fn every_section_is_known_by_its_key() {
        let errors = parse("lockstepd.toml", "[x]\n").unwrap_err().to_string();
        let (_, sections) = errors.split_once("allowed: ").unwrap();
        let sections = sections.trim_end().trim_end_matches(')');
        assert_eq!(sections.split(", ").collect::<Vec<_>>(), SECTIONS);
    }

    #[test]
    fn a_wrong_key_hides_no_error_elsewhere() {
        let text = "[log]\nlevels = 1\n[metrics]\nlisten = \"x\"\n[bgp]\nas = 1\nrouter_id = \"10.0.0.1\"\n\
                    [[bgp.peer]]\naddress = \"10.0.0.2\"\nremote_as = 2\n\
                    [[bgp.peer]]\naddress = \"10.0.0.3\"\nas = 2\n\
                    [[bgp.peer]]\naddress = \"10.0.0.3\"\nas = 2\n";
        let errors = parse("lockstepd.toml", text).unwrap_err();
        let lines: Vec<_> = errors.iter().map(|e| e.position.unwrap().line).collect();
        assert_eq!(lines, [2, 4, 8, 10, 15], "{errors}");
        assert!(
            errors.to_string().contains("did you mean `as`?"),
            "{errors}"
        );
    }

    #[test]
    fn an_unknown_section_is_an_error_with_the_nearest_one() {
        let errors = parse("lockstepd.toml", "[bpg]\n").unwrap_err().to_string();
        assert!(
            errors.starts_with("lockstepd.toml:1:2:") && errors.contains("bgp"),
            "{errors}"
        );
    }
}
