//! A network namespace in which the daemon and servers are, each server at an address of its own.

use super::{Daemon, Place, wait_for};
use std::fs::File;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

/// The namespace. All addresses of 10.99.0.0/16 and of fd99::/64 are its own.
pub struct Net {
    holder: Child,
}

impl Net {
    /// Makes one; needs root.
    pub fn new(place: &Place) -> Self {
        static NETS: AtomicU32 = AtomicU32::new(0);
        let marker = format!("net-{}", NETS.fetch_add(1, Ordering::Relaxed));
        let marker = place.path(&marker);
        let script = format!(
            "ip link set lo up && ip route add local 10.99.0.0/16 dev lo && \
             ip -6 route add local fd99::/64 dev lo && touch {} && exec sleep infinity",
            marker.display()
        );
        let mut command = Command::new("unshare");
        command.args(["--net", "sh", "-ec", &script]);
        let net = Net {
            holder: command.spawn().unwrap(),
        };
        wait_for("the namespace", || marker.exists());
        net
    }

    /// A command in it, which becomes its own process: the child is the program.
    pub fn command(&self, program: &str) -> Command {
        let mut command = Command::new("nsenter");
        let target = self.holder.id().to_string();
        command.args(["--net", "--target", &target, program]);
        command.stdin(Stdio::null());
        command
    }

    /// Starts a program in it.
    pub fn start(&self, program: &str, arguments: &[&str]) -> Server {
        Server::start(self.command(program).args(arguments))
    }

    /// The daemon in it.
    pub fn daemon(&self, place: &Place) -> Daemon {
        let real = place.daemon_command();
        let command = self.command(real.get_program().to_str().unwrap());
        Net::start_daemon(place, command)
    }

    /// The daemon in it, without these capabilities: "net_admin,-net_raw".
    pub fn daemon_without(&self, place: &Place, capabilities: &str) -> Daemon {
        let mut command = self.command("setpriv");
        command.arg(format!("--bounding-set=-{capabilities}"));
        command.arg(format!("--inh-caps=-{capabilities}"));
        command.arg(place.daemon_command().get_program());
        Net::start_daemon(place, command)
    }

    fn start_daemon(place: &Place, mut command: Command) -> Daemon {
        let real = place.daemon_command();
        command.args(real.get_args());
        let log = File::create(place.path("lockstepd.log")).unwrap();
        Daemon::start(command.stderr(log), place.path("lockstepd.log"))
    }

    /// Does something on a thread that is in it, such as opening a socket.
    pub fn inside<T: Send + 'static>(&self, what: impl FnOnce() -> T + Send + 'static) -> T {
        let path = format!("/proc/{}/ns/net", self.holder.id());
        let inside = move || {
            let namespace = File::open(path).unwrap();
            nix::sched::setns(namespace, nix::sched::CloneFlags::CLONE_NEWNET).unwrap();
            what()
        };
        std::thread::spawn(inside).join().unwrap()
    }

    /// Runs commands in it.
    #[track_caller]
    pub fn run(&self, script: &str) {
        let status = self.command("sh").args(["-ec", script]).status().unwrap();
        assert!(status.success(), "{script}");
    }

    /// Joins it with another: `eth0` of this one, at 10.97.0.1 and fd97::1, is on a link with
    /// `eth0` of the other one, at 10.97.0.2 and fd97::2.
    pub fn join(&self, other: &Net) {
        let target = other.holder.id();
        self.run(&format!(
            "ip link add eth0 type veth peer name eth0 netns {target} && \
             ip address add 10.97.0.1/24 dev eth0 && \
             ip address add fd97::1/64 dev eth0 nodad && ip link set eth0 up"
        ));
        other.run(
            "ip address add 10.97.0.2/24 dev eth0 && \
             ip address add fd97::2/64 dev eth0 nodad && ip link set eth0 up",
        );
        self.run("ip -6 route add default via fd97::2");
    }

    /// Whether somebody listens there.
    pub fn accepts(&self, address: &str, port: u16) -> bool {
        let address = address.to_owned();
        self.inside(move || std::net::TcpStream::connect((address.as_str(), port)).is_ok())
    }
}

impl Drop for Net {
    fn drop(&mut self) {
        let _ = self.holder.kill();
        let _ = self.holder.wait();
    }
}

/// A server as a process group of its own; killed when it is dropped.
pub struct Server {
    child: Child,
}

impl Server {
    /// Starts a command that becomes the server.
    pub fn start(command: &mut Command) -> Self {
        use std::os::unix::process::CommandExt;
        command.stdout(Stdio::null()).process_group(0);
        Server {
            child: command.spawn().unwrap(),
        }
    }

    /// Sends a signal to it and all that it has started.
    pub fn signal(&self, signal: nix::sys::signal::Signal) {
        let group = nix::unistd::Pid::from_raw(self.child.id().try_into().unwrap());
        nix::sys::signal::killpg(group, signal).unwrap();
    }

    /// Ends it with all that it has started.
    pub fn kill(mut self) {
        self.end();
    }

    fn end(&mut self) {
        let group = nix::unistd::Pid::from_raw(self.child.id().try_into().unwrap());
        // It may have ended already.
        let _ = nix::sys::signal::killpg(group, nix::sys::signal::Signal::SIGKILL);
        let _ = self.child.wait();
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.end();
    }
}
