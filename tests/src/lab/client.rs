//! The client: where load and single requests come from.

use super::address::{CLIENT_V4, CLIENT_V6, ROUTER_CLIENT_V4, ROUTER_CLIENT_V6, host};
use super::content::Content;
use super::curl::{self, Answer};
use super::download::{self, Arrived};
use super::injector::Injector;
use super::iperf::{self, Direction, IperfTcp, UdpReport};
use super::netns::Netns;
use super::run::Run;
use super::wrk::{RunningWrk, Wrk, WrkReport};
use anyhow::Result;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

pub(super) const DEVICE: &str = "eth0";

/// The machine that asks.
#[derive(Debug)]
pub struct Client {
    netns: Netns,
}

impl Client {
    pub(super) fn new(run: &Arc<Run>) -> Result<Self> {
        Ok(Client {
            netns: Netns::new(run, "client")?,
        })
    }

    /// Addresses and routes, once the link is there.
    pub(super) fn configure(&self) -> Result<()> {
        self.netns
            .ip(&format!("addr add {CLIENT_V4}/24 dev {DEVICE}"))?;
        self.netns
            .ip(&format!("addr add {CLIENT_V6}/64 dev {DEVICE} nodad"))?;
        self.netns
            .ip(&format!("route add default via {ROUTER_CLIENT_V4}"))?;
        self.netns
            .ip(&format!("route add default via {ROUTER_CLIENT_V6}"))
    }

    /// Its namespace.
    pub fn netns(&self) -> &Netns {
        &self.netns
    }

    /// `curl http://<to>/`.
    pub fn get(&self, to: IpAddr) -> Result<Answer> {
        curl::get(&self.netns, &format!("http://{}/", host(to)))
    }

    /// `curl http://<to>/<path>`.
    pub fn get_path(&self, to: IpAddr, path: &str) -> Result<Answer> {
        curl::get(&self.netns, &format!("http://{}/{path}", host(to)))
    }

    /// Runs a load to its end.
    pub fn wrk(&self, load: &Wrk) -> Result<WrkReport> {
        self.start_wrk(load)?.report()
    }

    /// Starts a load and returns at once.
    pub fn start_wrk(&self, load: &Wrk) -> Result<RunningWrk> {
        load.spawn(&self.netns)
    }

    /// Sends UDP to an iperf3 server for `seconds`, at `megabits` a second.
    pub fn iperf_udp(&self, to: IpAddr, megabits: u32, seconds: u32) -> Result<UdpReport> {
        iperf::udp(&self.netns, to, megabits, seconds)
    }

    /// Starts TCP with an iperf3 server for `seconds`, at no more than `megabits` a second.
    pub fn iperf_tcp(
        &self,
        to: IpAddr,
        direction: Direction,
        megabits: u32,
        seconds: u32,
    ) -> Result<IperfTcp> {
        IperfTcp::start(&self.netns, to, direction, megabits, seconds)
    }

    /// Downloads a file of the lab with curl. `progress` is told how many bytes have arrived so far,
    /// and nothing more is read before it returns: what it does, it does at that byte, give or take
    /// what is under way.
    pub fn download(
        &self,
        from: SocketAddr,
        content: &Content,
        progress: impl FnMut(u64) -> Result<()>,
    ) -> Result<Arrived> {
        download::download(&self.netns, from, content, progress)
    }

    /// Takes it off the network, both ways, without anybody being told; or puts it back.
    pub fn vanish(&self, gone: bool) -> Result<()> {
        let script = if gone {
            "table inet vanished {\n\
             chain in {\ntype filter hook input priority -300\npolicy drop\n}\n\
             chain out {\ntype filter hook output priority -300\npolicy drop\n}\n}\n"
        } else {
            "delete table inet vanished"
        };
        self.netns.output("nft", &[script]).map(drop)
    }

    /// A way to put frames on its link.
    pub fn injector(&self) -> Result<Injector> {
        Injector::open(&self.netns, DEVICE)
    }
}
