//! How VIPs are announced where not every way is right: those of a cluster, by its Advertisements.

use crate::bgp::routes::Community;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

/// Addresses, and how each of them is announced. VIPs that are not in it are announced by every way
/// there is.
pub type Advertisements = BTreeMap<IpAddr, Advertised>;

/// How an address is announced.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Advertised {
    /// As these routes.
    pub bgp: BTreeSet<Route>,
    /// On these interfaces.
    pub layer2: Option<Interfaces>,
}

impl Advertised {
    /// Whether it is announced at all.
    pub fn is_somehow(&self) -> bool {
        !self.bgp.is_empty() || self.layer2.is_some()
    }
}

/// A route that stands for an address.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Route {
    /// The routers that are told; all where there is none.
    pub peers: BTreeSet<IpAddr>,
    /// Communities beside those of the routers' configuration.
    pub communities: BTreeSet<Community>,
    /// The length of its prefix; where nothing is said, that of the address, or that of the
    /// configuration's aggregate.
    pub length: Option<u8>,
}

/// Where neighbors on the link are answered.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Interfaces {
    /// On all of the configuration.
    All,
    /// On these of them.
    Named(BTreeSet<String>),
}

impl Interfaces {
    /// Whether an interface is one of them.
    pub fn has(&self, name: &str) -> bool {
        match self {
            Interfaces::All => true,
            Interfaces::Named(names) => names.contains(name),
        }
    }
}

/// As text, to be kept.
pub fn to_json(ways: &Advertisements) -> String {
    serde_json::to_string(ways).expect("its keys are text, and nothing in it refuses")
}

/// What was kept.
///
/// # Errors
/// When it is not what [`to_json`] makes.
pub fn from_json(text: &str) -> Result<Advertisements, String> {
    serde_json::from_str(text).map_err(|error| error.to_string())
}
