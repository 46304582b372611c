//! What `lockstep status --output json` says of an engine.

use anyhow::{Context, Result};
use serde_json::Value;

/// An engine's status.
#[derive(Debug, Clone)]
pub struct Status(pub(super) Value);

impl Status {
    /// The epoch of the snapshot in force.
    pub fn epoch(&self) -> Result<u64> {
        number(&self.0, "epoch")
    }

    /// Packets that all workers have received.
    pub fn received(&self) -> Result<u64> {
        self.workers()?
            .iter()
            .map(|worker| number(worker, "rx_packets"))
            .sum()
    }

    /// The state of each worker.
    pub fn worker_states(&self) -> Result<Vec<String>> {
        self.workers()?
            .iter()
            .map(|worker| text(worker, "state"))
            .collect()
    }

    /// Packets that each worker has received.
    pub fn received_by_worker(&self) -> Result<Vec<u64>> {
        self.workers()?
            .iter()
            .map(|worker| number(worker, "rx_packets"))
            .collect()
    }

    /// Packets that each worker has decided on.
    pub fn processed_by_worker(&self) -> Result<Vec<u64>> {
        self.workers()?
            .iter()
            .map(|worker| number(worker, "processed_packets"))
            .collect()
    }

    /// Packets dropped under this reason, for any VIP or none.
    pub fn drops(&self, reason: &str) -> Result<u64> {
        let vips = self
            .services()?
            .iter()
            .flat_map(|service| entries(service, "vips"));
        let of_vips = vips.flat_map(|vip| entries(vip, "drops"));
        entries(&self.0, "drops")
            .chain(of_vips)
            .filter(|drop| drop["reason"] == *reason)
            .map(|drop| number(drop, "packets"))
            .sum()
    }

    /// Flows of all VIPs whose backend changed during their life.
    pub fn flows_moved(&self) -> Result<u64> {
        let services = self.services()?.iter();
        let vips = services.flat_map(|service| entries(service, "vips"));
        vips.map(|vip| number(vip, "flows_moved")).sum()
    }

    /// Every reason that packets were dropped under, with how many.
    pub fn all_drops(&self) -> Result<Vec<(String, u64)>> {
        let vips = self
            .services()?
            .iter()
            .flat_map(|service| entries(service, "vips"));
        let of_vips = vips.flat_map(|vip| entries(vip, "drops"));
        let all = entries(&self.0, "drops").chain(of_vips);
        let one = |drop| Ok((text(drop, "reason")?, number(drop, "packets")?));
        let all: Result<Vec<(String, u64)>> = all.map(one).collect();
        Ok(all?
            .into_iter()
            .filter(|(_, packets)| *packets > 0)
            .collect())
    }

    /// The verdict of the daemon's pings on a replica, and whether there is a round-trip time.
    pub fn health(&self, service: &str, backend: &str) -> Result<(String, bool)> {
        let health = &self.backend(service, backend)?["health"];
        Ok((text(health, "verdict")?, health["rtt_seconds"].is_f64()))
    }

    /// The next hop of a backend of a service, as `MAC via ADDRESS dev DEVICE`.
    pub fn next_hop(&self, service: &str, backend: &str) -> Result<String> {
        text(self.backend(service, backend)?, "next_hop")
    }

    /// Whether the next hop of every backend is known.
    pub fn all_reachable(&self) -> Result<bool> {
        let mut backends = self
            .services()?
            .iter()
            .flat_map(|service| entries(service, "backends"));
        Ok(backends.all(|backend| backend["reachable"] == Value::Bool(true)))
    }

    /// The names of a service's backends.
    pub fn backends(&self, service: &str) -> Result<Vec<String>> {
        let service = (self.services()?.iter())
            .find(|entry| entry["name"] == *service)
            .with_context(|| format!("the status has no service {service}: {}", self.0))?;
        (entries(service, "backends").map(|entry| text(entry, "name"))).collect()
    }

    /// Whether a service has these backends, of these names and states and no others, and knows the
    /// way to each.
    pub fn serves(&self, service: &str, expected: &[(&str, &str)]) -> Result<bool> {
        let mut services = self.services()?.iter();
        let Some(service) = services.find(|entry| entry["name"] == *service) else {
            return Ok(false);
        };
        let reachable = |backend: &Value| backend["reachable"] == Value::Bool(true);
        let known = entries(service, "backends").all(reachable);
        let is = |(backend, (name, state)): (&Value, &(&str, &str))| {
            backend["name"] == **name && backend["state"] == **state
        };
        let count = entries(service, "backends").count();
        let same = entries(service, "backends").zip(expected).all(is);
        Ok(known && same && count == expected.len())
    }

    /// Packets forwarded to a backend.
    pub fn backend_packets(&self, service: &str, backend: &str) -> Result<u64> {
        number(self.backend(service, backend)?, "packets")
    }

    fn backend(&self, service: &str, backend: &str) -> Result<&Value> {
        self.services()?
            .iter()
            .find(|entry| entry["name"] == *service)
            .and_then(|entry| entries(entry, "backends").find(|entry| entry["name"] == *backend))
            .with_context(|| {
                format!(
                    "the status has no backend {backend} of {service}: {}",
                    self.0
                )
            })
    }

    fn services(&self) -> Result<&Vec<Value>> {
        self.0["services"]
            .as_array()
            .with_context(|| format!("no services: {}", self.0))
    }

    fn workers(&self) -> Result<&Vec<Value>> {
        self.0["workers"]
            .as_array()
            .with_context(|| format!("no workers: {}", self.0))
    }
}

fn entries<'a>(value: &'a Value, key: &str) -> impl Iterator<Item = &'a Value> + use<'a> {
    value[key].as_array().into_iter().flatten()
}

fn number(value: &Value, key: &str) -> Result<u64> {
    value[key]
        .as_u64()
        .with_context(|| format!("the status has no number {key}: {value}"))
}

fn text(value: &Value, key: &str) -> Result<String> {
    let text = value[key].as_str();
    text.map(String::from)
        .with_context(|| format!("the status has no text {key}: {value}"))
}
