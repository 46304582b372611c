//! Routers that learn the VIPs' routes by BGP: figure 4.12 of seed 003, in which balancers tell a
//! route reflector (gobgpd) and the router hears of it; and without one, where the balancers tell
//! the router itself, with BFD.

use super::address::{balancer_v4, balancer_v6, reflector_v4, reflector_v6, router_rack_v4};
use super::balancer::Balancer;
use super::links::{End, connect};
use super::netns::Netns;
use super::process::{Process, output};
use super::router::Router;
use super::run::Run;
use super::wait::wait_until;
use anyhow::{Context, Result};
use nix::unistd::{Group, User, chown};
use serde_json::{Map, Value};
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::{BufRead, BufReader};
use std::net::IpAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, sync_channel};
use std::thread::{JoinHandle, spawn};
use std::time::Duration;

const START: Duration = Duration::from_secs(15);
const AS: u32 = 64_512;
/// The balancers' where they tell the router themselves.
const BALANCERS_AS: u32 = 64_513;
const REFLECTOR: &str = "rr";
const DEVICE: &str = "eth0";
/// The rack's MTU.
const MTU: u16 = 1600;

/// The program that keeps the router's routes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Program {
    /// GoBGP, whose routes the lab puts into the kernel: it has no way there of its own.
    Gobgp,
    /// FRR: bgpd, bfdd, and zebra for the kernel.
    Frr,
    /// BIRD 2.
    Bird,
}

/// Who tells the router.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// A route reflector in the rack, with dynamic neighbors and add-path.
    Reflector,
    /// The balancers.
    Direct,
    /// The balancers, with BFD.
    Bfd,
}

/// What runs for routing. Dropping it ends all of it.
#[derive(Debug)]
pub struct Routing {
    way: Way,
    /// Before GoBGP, which it asks.
    _follower: Option<Follower>,
    /// Before the namespace.
    _programs: Vec<Process>,
    reflector: Option<Reflector>,
}

#[derive(Debug)]
struct Reflector {
    _gobgpd: Process,
    _netns: Netns,
}

impl Routing {
    /// Starts the programs; the router's static routes to VIPs go.
    pub(super) fn start(
        run: &Arc<Run>,
        router: &Router,
        program: Program,
        way: Way,
    ) -> Result<Self> {
        router.forget_vips()?;
        let dir = run.dir().join("routing");
        fs::create_dir(&dir).context("cannot make a directory for routing")?;
        let reflector = match way {
            Way::Reflector => Some(Reflector::start(run, router, &dir)?),
            Way::Direct | Way::Bfd => None,
        };
        let (programs, follower) = match program {
            Program::Gobgp => gobgp(router, &dir, way)?,
            Program::Frr => (frr(router, &dir, way)?, None),
            Program::Bird => (vec![bird(router, &dir, way)?], None),
        };
        Ok(Routing {
            way,
            _programs: programs,
            _follower: follower,
            reflector,
        })
    }

    /// The `[bgp]` of a balancer; `more` are further lines of it.
    pub fn config(&self, balancer: usize, more: &str) -> String {
        let (v4, v6) = (balancer_v4(balancer), balancer_v6(balancer));
        let (own, peer, keys) = match self.way {
            Way::Reflector => (AS, reflector_v4(), "add_path = true\n"),
            Way::Direct => (BALANCERS_AS, router_rack_v4(), ""),
            Way::Bfd => (
                BALANCERS_AS,
                router_rack_v4(),
                "bfd = { tx = \"100ms\", rx = \"100ms\", multiplier = 3 }\n",
            ),
        };
        format!(
            "[bgp]\nas = {own}\nrouter_id = \"{v4}\"\nnext_hop = [\"{v4}\", \"{v6}\"]\n{more}\n\
             [[bgp.peer]]\naddress = \"{peer}\"\nas = {AS}\n{keys}"
        )
    }

    /// Whether there is a reflector.
    pub fn is_reflected(&self) -> bool {
        self.reflector.is_some()
    }
}

impl Router {
    /// The balancers that the router's kernel sends a VIP's packets to, by their indices.
    pub fn balancers_of(&self, vip: IpAddr) -> Result<BTreeSet<usize>> {
        let version = if vip.is_ipv4() { "-4" } else { "-6" };
        let routes = self
            .netns()
            .ip_json(&format!("{version} route show {vip}"))?;
        let mut hops = BTreeSet::new();
        for route in routes.as_array().into_iter().flatten() {
            let one = std::slice::from_ref(route);
            let several = route["nexthops"].as_array().map_or(one, Vec::as_slice);
            for hop in several {
                let via = hop["gateway"].as_str().or(hop["via"]["host"].as_str());
                hops.extend(via.and_then(|via| via.parse::<IpAddr>().ok()));
            }
        }
        let is = |index: &usize| {
            hops.contains(&IpAddr::from(balancer_v4(*index)))
                || hops.contains(&IpAddr::from(balancer_v6(*index)))
        };
        Ok((0..8).filter(is).collect())
    }

    /// Waits until the kernel sends a VIP's packets to exactly these balancers.
    pub fn wait_for_balancers(
        &self,
        vip: IpAddr,
        wanted: &[usize],
        timeout: Duration,
    ) -> Result<()> {
        let wanted: BTreeSet<usize> = wanted.iter().copied().collect();
        wait_until(
            &format!("the router sends {vip} to balancers {wanted:?}"),
            timeout,
            || Ok((self.balancers_of(vip)? == wanted).then_some(())),
        )
    }
}

impl Balancer {
    /// Writes the `lockstepd.toml` that the daemon follows.
    pub fn configure_daemon(&self, text: &str) -> Result<()> {
        let new = self.config_file().with_extension("new");
        fs::write(&new, text)?;
        fs::rename(new, self.config_file()).context("cannot write lockstepd.toml")
    }
}

impl Reflector {
    fn start(run: &Arc<Run>, router: &Router, dir: &Path) -> Result<Self> {
        let netns = Netns::new(run, REFLECTOR)?;
        let end = End {
            netns: &netns,
            device: DEVICE,
            queues: 1,
        };
        let router_end = End {
            netns: router.netns(),
            device: REFLECTOR,
            queues: 1,
        };
        connect(&end, &router_end, MTU)?;
        router.plug(REFLECTOR)?;
        netns.ip(&format!("addr add {}/24 dev {DEVICE}", reflector_v4()))?;
        netns.ip(&format!(
            "addr add {}/64 dev {DEVICE} nodad",
            reflector_v6()
        ))?;
        let client = "[X.route-reflector.config]\nroute-reflector-client = true\n\
                      route-reflector-cluster-id = \"10.0.1.200\"\n";
        let config = format!(
            "[global.config]\nas = {AS}\nrouter-id = \"{}\"\n\n\
             [[peer-groups]]\n[peer-groups.config]\npeer-group-name = \"balancers\"\npeer-as = {AS}\n\
             {}{}\n\
             [[dynamic-neighbors]]\n[dynamic-neighbors.config]\nprefix = \"10.0.1.0/24\"\n\
             peer-group = \"balancers\"\n\n\
             [[neighbors]]\n[neighbors.config]\nneighbor-address = \"{}\"\npeer-as = {AS}\n\
             {}{}[neighbors.timers.config]\nconnect-retry = 1\n\
             idle-hold-time-after-reset = 1\n",
            reflector_v4(),
            client.replace('X', "peer-groups"),
            families("peer-groups", "receive = true"),
            router_rack_v4(),
            client.replace('X', "neighbors"),
            families("neighbors", "send-max = 8"),
        );
        let gobgpd = gobgpd(&netns, dir, "reflector", &config)?;
        Ok(Reflector {
            _gobgpd: gobgpd,
            _netns: netns,
        })
    }
}

fn gobgpd(netns: &Netns, dir: &Path, name: &str, config: &str) -> Result<Process> {
    let file = dir.join(format!("{name}.toml"));
    fs::write(&file, config)?;
    let mut command = netns.command("gobgpd");
    command
        .arg("-p")
        .arg("--pprof-disable")
        .arg("-f")
        .arg(&file);
    let mut process = netns.spawn("gobgpd", command)?;
    wait_until(&format!("gobgpd ({name}) answers"), START, || {
        process.must_run()?;
        Ok(netns.output("gobgp", &["global"]).ok())
    })?;
    Ok(process)
}

/// Both families with add-path, of GoBGP's `neighbors` or `peer-groups`.
fn families(of: &str, add_path: &str) -> String {
    let family = |family: &str| {
        format!(
            "[[{of}.afi-safis]]\n[{of}.afi-safis.config]\nafi-safi-name = \"{family}\"\n\
             [{of}.afi-safis.add-paths.config]\n{add_path}\n"
        )
    };
    family("ipv4-unicast") + &family("ipv6-unicast")
}

/// GoBGP on the router. Its best paths, several with add-path, go into the kernel as they change.
fn gobgp(router: &Router, dir: &Path, way: Way) -> Result<(Vec<Process>, Option<Follower>)> {
    let neighbors = match way {
        Way::Reflector => format!(
            "[[neighbors]]\n[neighbors.config]\nneighbor-address = \"{}\"\npeer-as = {AS}\n\
             [neighbors.timers.config]\nconnect-retry = 1\nidle-hold-time-after-reset = 1\n{}",
            reflector_v4(),
            families("neighbors", "receive = true")
        ),
        Way::Direct | Way::Bfd => format!(
            "[[peer-groups]]\n[peer-groups.config]\npeer-group-name = \"balancers\"\n\
             peer-as = {BALANCERS_AS}\n{}\n\
             [[dynamic-neighbors]]\n[dynamic-neighbors.config]\nprefix = \"10.0.1.0/24\"\n\
             peer-group = \"balancers\"\n",
            families("peer-groups", "receive = false")
        ),
    };
    let config = format!(
        "[global.config]\nas = {AS}\nrouter-id = \"{}\"\n\n{neighbors}",
        router_rack_v4()
    );
    let process = gobgpd(router.netns(), dir, "router", &config)?;
    let follower = Follower::start(router)?;
    Ok((vec![process], Some(follower)))
}

/// FRR on the router, as its user, without its service.
fn frr(router: &Router, dir: &Path, way: Way) -> Result<Vec<Process>> {
    let dir = dir.join("frr");
    fs::create_dir(&dir)?;
    let (user, group) = (User::from_name("frr")?, Group::from_name("frr")?);
    let user = user.context("there is no user frr: is FRR installed?")?;
    let group = group.context("there is no group frr: is FRR installed?")?;
    // FRR's user has to pass the run's directory, which is for its owner only.
    for above in dir.ancestors().skip(1).take(2) {
        fs::set_permissions(above, fs::Permissions::from_mode(0o711))?;
    }
    chown(&dir, Some(user.uid), Some(group.gid)).context("cannot give FRR its directory")?;
    let neighbor = match way {
        Way::Reflector => format!(
            " neighbor N peer-group\n neighbor N remote-as {AS}\n neighbor N timers connect 1\n \
             neighbor {} peer-group N\n",
            reflector_v4()
        ),
        Way::Direct | Way::Bfd => format!(
            " neighbor N peer-group\n neighbor N remote-as {BALANCERS_AS}\n{}\
             bgp listen range 10.0.1.0/24 peer-group N\n",
            if way == Way::Bfd {
                " neighbor N bfd 3 100 100\n "
            } else {
                " "
            }
        ),
    };
    let paths = match way {
        Way::Reflector => "maximum-paths ibgp 8",
        Way::Direct | Way::Bfd => "maximum-paths 8",
    };
    let family = |name: &str| {
        format!(
            " address-family {name} unicast\n  neighbor N activate\n  {paths}\n exit-address-family\n"
        )
    };
    let bgpd = format!(
        "router bgp {AS}\n bgp router-id {}\n no bgp ebgp-requires-policy\n \
         no bgp default ipv4-unicast\n{neighbor}{}{}",
        router_rack_v4(),
        family("ipv4"),
        family("ipv6")
    );
    let configs = [("zebra", ""), ("bgpd", bgpd.as_str()), ("bfdd", "")];
    configs
        .into_iter()
        .map(|(name, text)| {
            let file = dir.join(format!("{name}.conf"));
            fs::write(&file, text)?;
            let pid = dir.join(format!("{name}.pid"));
            let mut command = router.netns().command(format!("/usr/lib/frr/{name}"));
            command.arg("-f").arg(&file).arg("-i").arg(&pid);
            command.arg("-z").arg(dir.join("zserv.sock"));
            command
                .arg("--vty_socket")
                .arg(&dir)
                .args(["--log", "stdout"]);
            let mut process = router.netns().spawn(name, command)?;
            wait_until(&format!("{name} has started"), START, || {
                process.must_run()?;
                Ok(dir.join(format!("{name}.vty")).exists().then_some(()))
            })?;
            Ok(process)
        })
        .collect()
}

/// BIRD on the router.
fn bird(router: &Router, dir: &Path, way: Way) -> Result<Process> {
    let neighbor = match way {
        Way::Reflector => format!("neighbor {} as {AS}", reflector_v4()),
        Way::Direct | Way::Bfd => format!("neighbor range 10.0.1.0/24 as {BALANCERS_AS}"),
    };
    let (bfd, add_paths) = match way {
        Way::Reflector => ("", "add paths rx;"),
        Way::Direct => ("", ""),
        Way::Bfd => (
            "bfd { min rx interval 100 ms; min tx interval 100 ms; multiplier 3; };",
            "",
        ),
    };
    let kernel = |family: &str| {
        format!(
            "protocol kernel {{ merge paths on limit 8; {family} {{ import none; export where source = RTS_BGP; }}; }}\n"
        )
    };
    let text = format!(
        "router id {};\nprotocol device {{ scan time 1; }}\nprotocol direct {{ ipv4; ipv6; interface \"rack\"; }}\n\
         protocol bfd {{ interface \"rack\" {{ }}; }}\n{}{}\
         protocol bgp lb {{\n local {} as {AS};\n {neighbor};\n {bfd}\n connect retry time 1;\n \
         error wait time 1, 2;\n ipv4 {{ import all; export none; {add_paths} }};\n \
         ipv6 {{ import all; export none; {add_paths} }};\n}}\n",
        router_rack_v4(),
        kernel("ipv4"),
        kernel("ipv6"),
        router_rack_v4(),
    );
    let file = dir.join("bird.conf");
    fs::write(&file, text)?;
    let socket = dir.join("bird.ctl");
    let mut command = router.netns().command("bird");
    command
        .arg("-f")
        .arg("-c")
        .arg(&file)
        .arg("-s")
        .arg(&socket);
    command.arg("-P").arg(dir.join("bird.pid"));
    let mut process = router.netns().spawn("bird", command)?;
    wait_until("BIRD answers", START, || {
        process.must_run()?;
        Ok(socket.exists().then_some(()))
    })?;
    Ok(process)
}

/// Puts the paths that a gobgpd has into the kernel, whenever it says that they have changed.
#[derive(Debug)]
struct Follower {
    monitor: Child,
    threads: Vec<JoinHandle<()>>,
}

impl Follower {
    /// How often it looks where GoBGP says nothing: not all changes of paths that are not the best
    /// are told.
    const LOOK: Duration = Duration::from_millis(100);

    fn start(router: &Router) -> Result<Self> {
        let mut command = router.netns().command("gobgp");
        command.args(["monitor", "global", "rib", "--current"]);
        let mut monitor = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .context("cannot start gobgp")?;
        let lines = BufReader::new(monitor.stdout.take().context("gobgp has no output")?);
        let (touched, touches) = sync_channel(64);
        let reader = spawn(move || {
            for _ in lines.lines().map_while(Result::ok) {
                // Whoever is behind looks anyway.
                let _ = touched.try_send(());
            }
        });
        let table = Table {
            netns: router.netns().name().to_owned(),
            known: BTreeMap::new(),
        };
        let writer = spawn(move || table.follow(&touches));
        Ok(Follower {
            monitor,
            threads: vec![reader, writer],
        })
    }
}

impl Drop for Follower {
    fn drop(&mut self) {
        // Gone already is as good.
        let _ = self.monitor.kill();
        let _ = self.monitor.wait();
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

/// The next hops of prefixes in the kernel of a namespace.
struct Table {
    netns: String,
    known: BTreeMap<String, BTreeSet<IpAddr>>,
}

impl Table {
    /// Until the sender is gone.
    fn follow(mut self, touches: &Receiver<()>) {
        loop {
            match touches.recv_timeout(Follower::LOOK) {
                Ok(()) | Err(RecvTimeoutError::Timeout) => self.take_over(),
                Err(RecvTimeoutError::Disconnected) => return,
            }
        }
    }

    fn take_over(&mut self) {
        let Some(paths) = self.paths() else {
            return;
        };
        let gone = self
            .known
            .keys()
            .filter(|prefix| !paths.contains_key(*prefix));
        gone.for_each(|prefix| self.put(prefix, None));
        for (prefix, hops) in &paths {
            if self.known.get(prefix) != Some(hops) {
                self.put(prefix, Some(hops));
            }
        }
        self.known = paths;
    }

    /// What GoBGP has; `None` while it does not answer.
    fn paths(&self) -> Option<BTreeMap<String, BTreeSet<IpAddr>>> {
        let mut found = BTreeMap::new();
        for family in ["ipv4", "ipv6"] {
            let mut command = Command::new("ip");
            command.args(["netns", "exec", &self.netns, "gobgp", "global", "rib", "-j"]);
            let text = output(command.args(["-a", family])).ok()?;
            let table: Map<String, Value> = serde_json::from_str(&text).unwrap_or_default();
            for (prefix, paths) in table {
                let hops = paths.as_array().into_iter().flatten().filter_map(next_hop);
                found.insert(prefix, hops.collect());
            }
        }
        Some(found)
    }

    fn put(&self, prefix: &str, hops: Option<&BTreeSet<IpAddr>>) {
        let mut command = Command::new("ip");
        command.args(["-n", &self.netns, "route"]);
        match hops {
            None => command.args(["del", prefix]),
            Some(_) => command.args(["replace", prefix]),
        };
        for hop in hops.into_iter().flatten() {
            command.args(["nexthop", "via", &hop.to_string()]);
        }
        // What goes wrong shows as a route that is missing.
        let _ = output(&mut command);
    }
}

/// The next hop among a path's attributes: NEXT_HOP, or that of MP_REACH_NLRI.
fn next_hop(path: &Value) -> Option<IpAddr> {
    let attributes = path["attrs"].as_array()?;
    let hop = |a: &Value| a["nexthop"].as_str()?.parse().ok();
    attributes.iter().find_map(hop)
}
