//! One balancer between client and servers, where cases take turns.
//!
//! Client, router and servers are on one CPU, and what the balancer does is on the other one, the
//! kernel's part for it too: its CPU time is what that CPU was not idle.

use super::case::Case;
use super::farm::{self, Farm, PORT};
use super::{BALANCER, ENDPOINTS};
use crate::site::{START, receive_by_thread_on, receive_on};
use anyhow::{Context, Result, ensure};
use lockstep_tests::lab::{
    Lab, Netns, Process, VIP_V4, balancer_v4, find_binary, router_rack_v4, wait_until,
};
use nix::sys::signal::Signal;
use std::fs;
use std::thread;

/// The balancer's device, and the client's.
const DEVICE: &str = "eth0";
/// The switch's port to the balancer.
const PORT_OF_BALANCER: &str = "b0";
/// The router's device towards the client.
const PORT_OF_CLIENT: &str = "client";

/// What the lab is to be.
#[derive(Debug, Clone, Copy)]
pub struct Size {
    /// Servers.
    pub servers: usize,
    /// Requests a second that each of them answers.
    pub each: u32,
    /// The links' rate in Mbit/s, where they are to be the limit.
    pub megabits: Option<u32>,
}

/// The lab, and the case that has its turn.
#[derive(Debug)]
pub struct Balanced {
    // Before the lab: what runs in it.
    proxy: Option<Process>,
    /// The servers' programs.
    pub farm: Farm,
    /// All of it.
    pub lab: Lab,
    case: Option<Case>,
}

/// Runs something on the endpoints' CPU: all that it starts stays there, but for what is told
/// otherwise, and this process has its own again afterwards.
pub fn on_endpoints<T: Send>(run: impl FnOnce() -> Result<T> + Send) -> Result<T> {
    let pinned = || {
        let there = core_affinity::get_core_ids().unwrap_or_default();
        ensure!(
            [ENDPOINTS, BALANCER]
                .iter()
                .all(|cpu| there.iter().any(|core| core.id == *cpu)),
            "the experiments need CPU {ENDPOINTS} for clients and servers and CPU {BALANCER} for \
             balancers"
        );
        let core = core_affinity::CoreId { id: ENDPOINTS };
        ensure!(
            core_affinity::set_for_current(core),
            "cannot run on CPU {ENDPOINTS}"
        );
        run()
    };
    match thread::scope(|scope| scope.spawn(pinned).join()) {
        Ok(result) => result,
        Err(panic) => std::panic::resume_unwind(panic),
    }
}

impl Balanced {
    /// Builds it, without a case yet.
    pub fn build(size: Size) -> Result<Self> {
        let lab = Lab::builder().servers(size.servers).start()?;
        let farm = Farm::start(&lab, size.each)?;
        let router = lab.router.netns();
        receive_on(router, PORT_OF_BALANCER, ENDPOINTS)?;
        for netns in [lab.client.netns(), lab.balancers[0].netns()] {
            netns.sysctl(&[("net.ipv4.ip_local_port_range", "1024 65535")])?;
        }
        // One worker, on the balancers' CPU.
        let file = lab.balancers[0].topology_file();
        let topology = fs::read_to_string(&file)?;
        fs::write(
            &file,
            topology.replace("core = 0", &format!("core = {BALANCER}")),
        )?;
        if let Some(megabits) = size.megabits {
            limit(router, PORT_OF_BALANCER, megabits)?;
            limit(router, PORT_OF_CLIENT, megabits)?;
            limit(lab.client.netns(), DEVICE, megabits)?;
        }
        Ok(Balanced {
            proxy: None,
            farm,
            lab,
            case: None,
        })
    }

    /// Gives a case its turn, on the first so many servers; when this returns, requests are answered.
    pub fn serve(&mut self, case: Case, servers: usize) -> Result<()> {
        if self.case != Some(case) || case == Case::Fallback {
            self.clear().context("cannot end the case before")?;
        }
        let began = self.case.replace(case).is_none();
        match case {
            Case::Nat | Case::Tunnel | Case::TunnelInterrupt | Case::Fallback => {
                self.lockstep(case, servers, began)?
            }
            Case::Nftables => {
                let balancer = &self.lab.balancers[0];
                if began {
                    receive_on(balancer.netns(), DEVICE, BALANCER)?;
                } else {
                    forget_rules(balancer.netns())?;
                }
                balancer.balance_by_nftables(servers)?;
            }
            Case::NginxHttp | Case::NginxStream => {
                let netns = self.lab.balancers[0].netns();
                if began {
                    receive_on(netns, DEVICE, BALANCER)?;
                    netns.ip(&format!("addr add {VIP_V4}/32 dev lo"))?;
                }
                self.proxy = None;
                self.proxy = Some(case.nginx(&self.lab, servers)?);
            }
        }
        let client = self.lab.client.netns();
        wait_until("a request is answered", START, || {
            Ok(farm::answers(client, (VIP_V4, PORT).into()).then_some(()))
        })
        .with_context(|| format!("{} with {servers} servers", case.name()))
    }

    fn lockstep(&mut self, case: Case, servers: usize, began: bool) -> Result<()> {
        let services = case.services(servers);
        if began {
            start_lockstep(&mut self.lab, case, &services)?;
            let netns = self.lab.balancers[0].netns();
            receive_by_thread_on(netns, DEVICE, BALANCER)?;
        }
        let balancer = &mut self.lab.balancers[0];
        balancer.apply(&services)?;
        if case == Case::Fallback {
            balancer.kill_engine()?;
            balancer.kill_daemon()?;
        }
        Ok(())
    }

    /// Ends the case that has its turn, so that nothing of it is left.
    fn clear(&mut self) -> Result<()> {
        self.proxy = None;
        let Some(case) = self.case.take() else {
            return Ok(());
        };
        let balancer = &mut self.lab.balancers[0];
        if case == Case::Fallback {
            // An engine takes over what the killed one left, and takes it down at its end.
            balancer.start_engine()?;
        }
        if case.is_lockstep() {
            if case != Case::Fallback {
                balancer.end_daemon(Signal::SIGTERM)?;
            }
            // The thread goes with the XDP program, and the setting could not be changed without.
            let script = format!("echo 0 > /sys/class/net/{DEVICE}/threaded");
            balancer.netns().output("sh", &["-c", &script])?;
            balancer.stop_engine()?;
            ensure!(!balancer.has_xdp()?, "the engine left its XDP program");
            let state = balancer.topology_file().with_file_name("state");
            if state.exists() {
                fs::remove_dir_all(state)?;
            }
        }
        match case {
            Case::Tunnel | Case::TunnelInterrupt | Case::Fallback => {
                take_decap_off(&self.lab, case)
            }
            Case::Nftables => {
                forget_rules(balancer.netns())?;
                (balancer.netns()).sysctl(&[("net.ipv4.ip_forward", "0")])
            }
            Case::NginxHttp | Case::NginxStream => {
                (balancer.netns()).ip(&format!("addr del {VIP_V4}/32 dev lo"))
            }
            Case::Nat => Ok(()),
        }
    }
}

/// Starts the engine and the daemon of the balancer, with the servers as the case needs them.
///
/// An XDP program costs something wherever it is, so there is none that is not needed.
pub fn start_lockstep(lab: &mut Lab, case: Case, services: &str) -> Result<()> {
    // Answers by way of the balancer, or past it.
    let way = match case {
        Case::Nat => balancer_v4(0),
        _ => router_rack_v4(),
    };
    for server in &lab.servers {
        (server.netns()).ip(&format!("route replace default via {way}"))?;
        if case != Case::Nat {
            server.attach_decap()?;
        }
    }
    if case == Case::Fallback {
        // A veth takes what an XDP program sends only where the other end has one as well.
        let args = ["attach", PORT_OF_BALANCER, "--address", "192.0.2.254"];
        decap(lab.router.netns(), &args)?;
    }
    let balancer = &mut lab.balancers[0];
    let file = balancer.topology_file();
    fs::write(&file, polling(&fs::read_to_string(&file)?, case.poll()))?;
    balancer.start_engine()?;
    fs::write(balancer.services_file(), services)?;
    balancer.start_daemon()?;
    balancer.apply(services)
}

/// A topology whose workers wait for packets in this way, whatever they did before.
pub fn polling(topology: &str, poll: &str) -> String {
    let lines = topology.lines().filter(|line| !line.starts_with("poll = "));
    let text: String = lines.map(|line| format!("{line}\n")).collect();
    text.replace("[engine]\n", &format!("[engine]\npoll = \"{poll}\"\n"))
}

fn take_decap_off(lab: &Lab, case: Case) -> Result<()> {
    if case == Case::Fallback {
        decap(lab.router.netns(), &["detach", PORT_OF_BALANCER])?;
    }
    let mut servers = lab.servers.iter();
    servers.try_for_each(|server| decap(server.netns(), &["detach", DEVICE]))
}

fn decap(netns: &Netns, args: &[&str]) -> Result<()> {
    let lockstep = find_binary("lockstep")?;
    let lockstep = lockstep.to_str().context("a path that is no text")?;
    netns
        .output(lockstep, &[&["decap"], args].concat())
        .map(drop)
}

/// Takes nftables' balancing back.
pub fn forget_rules(netns: &Netns) -> Result<()> {
    netns
        .output("nft", &["delete", "table", "inet", "balance"])
        .map(drop)
}

/// A device sends no faster than this; what has to wait does so, and nothing is dropped for it.
///
/// A frame counts as on an Ethernet link, preamble, checksum sequence and gap included: the seed's table
/// C.3. The burst is what may have gathered when the kernel's timer is late on a busy CPU.
pub fn limit(netns: &Netns, device: &str, megabits: u32) -> Result<()> {
    let words = format!(
        "qdisc replace dev {device} root stab overhead 24 linklayer ethernet tbf \
         rate {megabits}mbit burst 64kb limit 4mb"
    );
    let words: Vec<&str> = words.split_whitespace().collect();
    (netns.output("tc", &words))
        .with_context(|| format!("cannot limit {device} to {megabits} Mbit/s"))
        .map(drop)
}
