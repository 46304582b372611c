//! Real routers in a network namespace: gobgpd, FRR's bgpd, BIRD; and `lockstepd` beside them.

use super::{Daemon, FakeEngine, Place, wait_for};
use serde_json::Value;
use std::fs;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

/// A route reflector for everybody in 10.0.0.0/24 and 2001:db8::/64.
pub const REFLECTOR: &str = r#"
[global.config]
as = 64512
router-id = "10.0.0.2"
local-address-list = ["10.0.0.2", "2001:db8::2"]

[[peer-groups]]
[peer-groups.config]
peer-group-name = "balancers"
peer-as = 64512
[peer-groups.timers.config]
hold-time = 9
keepalive-interval = 3
[peer-groups.route-reflector.config]
route-reflector-client = true
route-reflector-cluster-id = "10.0.0.2"
[peer-groups.add-paths.config]
receive = true
send-max = 8
[peer-groups.graceful-restart.config]
enabled = true
restart-time = 60
[[peer-groups.afi-safis]]
[peer-groups.afi-safis.config]
afi-safi-name = "ipv4-unicast"
[peer-groups.afi-safis.mp-graceful-restart.config]
enabled = true
[peer-groups.afi-safis.add-paths.config]
receive = true
[[peer-groups.afi-safis]]
[peer-groups.afi-safis.config]
afi-safi-name = "ipv6-unicast"
[peer-groups.afi-safis.mp-graceful-restart.config]
enabled = true
[peer-groups.afi-safis.add-paths.config]
receive = true

[[dynamic-neighbors]]
[dynamic-neighbors.config]
prefix = "10.0.0.0/24"
peer-group = "balancers"
[[dynamic-neighbors]]
[dynamic-neighbors.config]
prefix = "2001:db8::/64"
peer-group = "balancers"
"#;

/// The addresses in a namespace: .1 is the balancer's, .2 and on are routers'.
const ADDRESSES: u8 = 6;

/// A network namespace with addresses on its loopback device; removed with all that runs in it.
pub struct Net {
    name: String,
}

impl Net {
    pub fn new() -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let name = format!("lockstep-bgp-{}-{number}", std::process::id());
        let net = Net { name };
        net.ip(&["netns", "add", &net.name]);
        net.ip(&["-n", &net.name, "link", "set", "lo", "up"]);
        for host in 1..=ADDRESSES {
            let v4 = format!("10.0.0.{host}/24");
            let v6 = format!("2001:db8::{host}/64");
            net.ip(&["-n", &net.name, "address", "add", &v4, "dev", "lo"]);
            net.ip(&["-n", &net.name, "address", "add", &v6, "dev", "lo", "nodad"]);
        }
        net
    }

    /// A link to another namespace: 10.1.0.1 here, 10.1.0.2 there.
    pub fn link(&self, other: &Net) {
        let (here, there) = (&self.name[..], &other.name[..]);
        let ends = ["type", "veth", "peer", "name", "wire0", "netns", there];
        self.ip(&[&["-n", here, "link", "add", "wire0"][..], &ends].concat());
        for (name, address) in [(here, "10.1.0.1/24"), (there, "10.1.0.2/24")] {
            self.ip(&["-n", name, "address", "add", address, "dev", "wire0"]);
            self.ip(&["-n", name, "link", "set", "wire0", "up"]);
        }
    }

    fn ip(&self, arguments: &[&str]) {
        let status = Command::new("ip").args(arguments).status().unwrap();
        assert!(status.success(), "ip {arguments:?}");
    }

    /// A command inside. `ip netns exec` becomes the program.
    pub fn command(&self, program: &str) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.name, program]);
        command
    }

    /// Runs a task in a thread inside. Sockets it opens stay inside.
    pub fn within<T: Send>(&self, task: impl FnOnce() -> T + Send) -> T {
        let file = fs::File::open(format!("/run/netns/{}", self.name)).unwrap();
        let enter = move || {
            nix::sched::setns(&file, nix::sched::CloneFlags::CLONE_NEWNET).unwrap();
            task()
        };
        std::thread::scope(|scope| scope.spawn(enter).join().unwrap())
    }

    /// What a command inside prints; empty where it fails.
    pub fn output(&self, program: &str, arguments: &[&str]) -> String {
        let output = self.command(program).args(arguments).output().unwrap();
        String::from_utf8(output.stdout).unwrap()
    }
}

impl Drop for Net {
    fn drop(&mut self) {
        let pids = Command::new("ip")
            .args(["netns", "pids", &self.name])
            .output();
        let pids = pids.map(|o| String::from_utf8_lossy(&o.stdout).into_owned());
        for pid in pids.unwrap_or_default().lines() {
            let _ = Command::new("kill").args(["-9", pid]).status();
        }
        let _ = Command::new("ip")
            .args(["netns", "del", &self.name])
            .status();
    }
}

/// A router's program; killed when this is dropped, its log shown when a test fails.
pub struct Router {
    child: Child,
    log: PathBuf,
}

impl Router {
    fn start(mut command: Command, log: PathBuf) -> Self {
        let file = fs::File::create(&log).unwrap();
        let child = command
            .stdin(Stdio::null())
            .stdout(file.try_clone().unwrap())
            .stderr(file)
            .spawn()
            .unwrap();
        Router { child, log }
    }

    /// Sends it a signal by name, such as STOP.
    pub fn signal(&self, name: &str) {
        let pid = self.child.id().to_string();
        let status = Command::new("kill")
            .args(["-s", name, &pid])
            .status()
            .unwrap();
        assert!(status.success());
    }

    pub fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }
}

impl Drop for Router {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            let log = self.log();
            let lines: Vec<&str> = log.lines().rev().take(40).collect();
            let lines: Vec<&str> = lines.into_iter().rev().collect();
            eprintln!("--- {}:\n{}", self.log.display(), lines.join("\n"));
        }
    }
}

/// A balancer among routers.
pub struct Lab {
    pub net: Net,
    pub place: Place,
    pub engine: Option<FakeEngine>,
}

/// Services with one VIP each.
pub fn services(vips: &[&str]) -> String {
    let mut text = String::new();
    for (number, vip) in vips.iter().enumerate() {
        let vip = match vip.contains(':') {
            true => format!("[{vip}]"),
            false => (*vip).to_owned(),
        };
        text += &format!(
            "[[service]]\nname = \"s{number}\"\nvips = [\"{vip}:80/tcp\"]\nbackends = [{{ address = \"10.0.1.1\" }}]\n"
        );
    }
    match text.is_empty() {
        true => "service = []\n".to_owned(),
        false => text,
    }
}

impl Lab {
    /// With these VIPs, and this `lockstepd.toml`.
    pub fn new(vips: &[&str], config: &str) -> Self {
        let place = Place::new(&services(vips));
        place.configure(config);
        let engine = Some(place.engine());
        let net = Net::new();
        Lab { net, place, engine }
    }

    /// `lockstepd` in the namespace.
    pub fn daemon(&self) -> Daemon {
        let log = self.place.path("lockstepd.log");
        let file = fs::File::options().create(true).append(true).open(&log);
        let daemon = self.place.daemon_command();
        let mut command = self.net.command(daemon.get_program().to_str().unwrap());
        command
            .args(daemon.get_args())
            .env("LOCKSTEP_LOG", "debug,h2=warn,tower=warn")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(file.unwrap());
        Daemon::start(&mut command, log)
    }

    /// gobgpd with this configuration.
    pub fn gobgpd(&self, config: &str) -> Router {
        let file = self.place.path("gobgpd.toml");
        fs::write(&file, config).unwrap();
        let mut command = self.net.command("gobgpd");
        command.args([
            "-t",
            "toml",
            "-l",
            "debug",
            "--api-hosts",
            "127.0.0.1:50051",
            "-f",
        ]);
        command.arg(&file);
        let router = Router::start(command, self.place.path("gobgpd.log"));
        wait_for("gobgpd answers", || !self.gobgp(&["neighbor"]).is_null());
        router
    }

    /// What `gobgp -j` says; null where it does not answer.
    pub fn gobgp(&self, arguments: &[&str]) -> Value {
        let mut all = vec!["-j"];
        all.extend(arguments);
        let text = self.net.output("gobgp", &all);
        serde_json::from_str(&text).unwrap_or(Value::Null)
    }

    /// What gobgpd's best routes become, line by line, in the log.
    pub fn monitor(&self) -> Router {
        let mut command = self.net.command("gobgp");
        command.args(["-j", "monitor", "global", "rib"]);
        Router::start(command, self.place.path("monitor.log"))
    }

    /// The paths that gobgpd has to a prefix.
    pub fn gobgp_paths(&self, prefix: &str) -> Vec<Value> {
        let family = if prefix.contains(':') { "ipv6" } else { "ipv4" };
        let all = self.gobgp(&["global", "rib", "-a", family]);
        all[prefix].as_array().cloned().unwrap_or_default()
    }

    /// FRR's bgpd with this configuration, without its zebra.
    pub fn frr(&self, config: &str) -> Router {
        let dir = self.place.path("frr");
        fs::create_dir(&dir).unwrap();
        let file = dir.join("bgpd.conf");
        fs::write(&file, config).unwrap();
        let status = Command::new("chown")
            .args(["-R", "frr:frr"])
            .arg(&dir)
            .status();
        assert!(status.unwrap().success());
        let open = Command::new("chmod")
            .arg("755")
            .arg(self.place.path(""))
            .status();
        assert!(open.unwrap().success());
        let mut command = self.net.command("/usr/lib/frr/bgpd");
        command.args([
            "-Z",
            "-l",
            "10.0.0.3",
            "-l",
            "2001:db8::3",
            "-A",
            "127.0.0.1",
        ]);
        command.args(["--log", "stdout", "--log-level", "debug"]);
        command.arg("-f").arg(&file);
        command.arg("-i").arg(dir.join("bgpd.pid"));
        command.arg("--vty_socket").arg(&dir);
        let router = Router::start(command, self.place.path("frr.log"));
        wait_for("bgpd answers", || {
            !self.vtysh("show bgp summary json").is_null()
        });
        router
    }

    /// What FRR says to a command that prints JSON; null where it does not answer.
    pub fn vtysh(&self, command: &str) -> Value {
        let dir = self.place.path("frr");
        let text = self.net.output(
            "vtysh",
            &[
                "--vty_socket",
                dir.to_str().unwrap(),
                "-d",
                "bgpd",
                "-c",
                command,
            ],
        );
        serde_json::from_str(&text).unwrap_or(Value::Null)
    }

    /// BIRD with this configuration.
    pub fn bird(&self, config: &str) -> Router {
        self.bird_in(&self.net, config)
    }

    /// BIRD in another namespace.
    pub fn bird_in(&self, net: &Net, config: &str) -> Router {
        let file = self.place.path("bird.conf");
        fs::write(&file, config).unwrap();
        let mut command = net.command("bird");
        command.args(["-f", "-c"]).arg(&file);
        command.arg("-s").arg(self.place.path("bird.ctl"));
        command.arg("-P").arg(self.place.path("bird.pid"));
        let router = Router::start(command, self.place.path("bird.log"));
        wait_for("bird answers", || self.birdc("show status").contains("up"));
        router
    }

    /// What `birdc` prints.
    pub fn birdc(&self, command: &str) -> String {
        let control = self.place.path("bird.ctl");
        let mut arguments = vec!["-s", control.to_str().unwrap()];
        arguments.extend(command.split_whitespace());
        self.net.output("birdc", &arguments)
    }

    /// `lockstep bgp` as JSON; null where the daemon does not answer.
    pub fn bgp(&self) -> Value {
        let answer = self.place.lockstep(&["bgp", "--output", "json"]);
        serde_json::from_str(&answer.out).unwrap_or(Value::Null)
    }

    /// A field of a router in it.
    pub fn peer(&self, address: &str, field: &str) -> Value {
        let all = self.bgp();
        let peers = all["peers"].as_array().cloned().unwrap_or_default();
        let peer = peers.into_iter().find(|p| p["address"] == address);
        peer.and_then(|p| p.pointer(field).cloned())
            .unwrap_or_default()
    }

    /// Waits for a session.
    pub fn up(&self, address: &str) {
        wait_for(&format!("a session with {address}"), || {
            self.peer(address, "/state") == "established"
        });
    }
}
