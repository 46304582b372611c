//! What stands between in either lab: the engine as a case has it, and the XDP program that only
//! forwards.

use super::case::Case;
use crate::site::{Lockstep, Site};
use anyhow::{Context, Result};
use lockstep_bpf::{Forward, ModeChoice, Onward};
use lockstep_tests::lab::{Netns, Process};
use std::net::Ipv4Addr;
use std::path::Path;

/// The balancer's device towards those who ask, in both labs.
pub const IN: &str = "in0";
/// And towards those who answer.
pub const OUT: &str = "out0";

/// Longer packets do not fit the engine's usual frames with what goes in front of them.
const USUAL_MTU: u16 = 1_600;

/// What the engine is told.
#[derive(Debug)]
pub struct Plan<'a> {
    /// How it balances.
    pub case: Case,
    /// Where it runs.
    pub site: Site<'a>,
    /// Where what it pins is.
    pub pins: &'a Path,
    /// Its own addresses.
    pub addresses: &'a [Ipv4Addr],
    /// The VIP, its port and protocol.
    pub vip: &'a str,
    /// What it balances to.
    pub backends: &'a [Ipv4Addr],
    /// Its worker's CPU.
    pub cpu: usize,
    /// Of its links.
    pub mtu: u16,
}

impl Plan<'_> {
    /// Starts it; when this returns, it forwards.
    pub fn start(&self) -> Result<Lockstep> {
        let backends: Vec<String> = (self.backends.iter())
            .map(|backend| format!("{{ address = \"{backend}\" }}"))
            .collect();
        let services = format!(
            "[[service]]\nname = \"compared\"\nvips = [\"{}\"]\n{}backends = [{}]\n",
            self.vip,
            self.case.service(),
            backends.join(", ")
        );
        Lockstep::start(self.site, &self.topology(), &services, self.backends.len())
    }

    fn topology(&self) -> String {
        let addresses: Vec<String> = self.addresses.iter().map(Ipv4Addr::to_string).collect();
        let frames = match self.mtu > USUAL_MTU {
            true => "frame_size = 4096\n",
            false => "",
        };
        format!(
            "[engine]\nsocket = {:?}\npin_dir = {:?}\naddresses = {addresses:?}\npoll = \"{}\"\n\
             {frames}\n[[interface]]\nname = \"{IN}\"\n\n[[interface]]\nname = \"{OUT}\"\n\n\
             [[worker]]\ncore = {}\nqueues = [\"{IN}:0\", \"{OUT}:0\"]\n",
            self.site.file("engine.sock"),
            self.pins,
            self.case.poll(),
            self.cpu,
        )
    }
}

/// Attaches the forwarding program: what comes in on `from` goes out on `to`, to that neighbour.
pub fn forward_by_xdp(netns: &Netns, from: &str, to: &str, neighbour: [u8; 6]) -> Result<()> {
    let own = netns.mac(to)?;
    netns
        .within(|| {
            let onward = Onward {
                interface: to,
                from: own,
                to: neighbour,
            };
            Forward::attach(from, Some(onward), ModeChoice::Native)?;
            Ok(())
        })
        .with_context(|| format!("cannot forward from {from} to {to} by XDP"))
}

/// An end of a veth whose other end sends by XDP must itself have a program, though it leaves
/// everything to the kernel.
pub fn receive_by_xdp(netns: &Netns, device: &str) -> Result<()> {
    netns.within(|| {
        Forward::attach(device, None, ModeChoice::Native)?;
        Ok(())
    })
}

/// What is in place.
#[derive(Debug)]
pub enum Balancer {
    /// Nothing that has to be kept.
    Kernel,
    /// Another's program.
    Proxy(#[expect(dead_code, reason = "it runs until it is dropped")] Process),
    /// Programs of ours.
    Engine(Lockstep),
}
