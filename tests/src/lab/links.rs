//! Links: veth pairs with several queues.

use super::netns::Netns;
use super::process::output;
use anyhow::Result;
use std::process::Command;

/// One end of a veth pair.
pub struct End<'a> {
    /// Where it is.
    pub netns: &'a Netns,
    /// Its name there.
    pub device: &'a str,
    /// Receive and transmit queues. An end takes XDP only with as many receive queues as the
    /// other end has transmit queues.
    pub queues: usize,
}

/// Connects two namespaces. Both ends are up and have `mtu`, and their checksums are computed in
/// software: AF_XDP and XDP programs see frames as the sender made them, and with the offload on
/// they would see the pseudo-header's sum only.
pub fn connect(a: &End<'_>, b: &End<'_>, mtu: u16) -> Result<()> {
    output(Command::new("ip").args(
        format!(
            "link add {} netns {} numrxqueues {} numtxqueues {} type veth peer name {} netns {} \
             numrxqueues {} numtxqueues {}",
            a.device, a.netns.name(), a.queues, a.queues, b.device, b.netns.name(), b.queues, b.queues
        )
        .split_whitespace(),
    ))?;
    for end in [a, b] {
        let device = end.device;
        let offloads = ["-K", device, "tx", "off", "rxvlan", "off", "txvlan", "off"];
        end.netns.output("ethtool", &offloads)?;
        end.netns
            .ip(&format!("link set dev {device} mtu {mtu} up"))?;
    }
    Ok(())
}
