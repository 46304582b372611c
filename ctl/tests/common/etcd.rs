//! An etcd of this host, on free ports of loopback.

use super::wait_for;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::net::TcpListener;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use tempfile::TempDir;

/// The store of a group.
pub struct Etcd {
    dir: TempDir,
    client: u16,
    peer: u16,
    child: Option<Child>,
}

/// A port of loopback that nobody has at this moment.
pub fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap().port()
}

impl Etcd {
    /// An empty one that answers.
    pub fn start() -> Self {
        let mut etcd = Etcd::reserve();
        etcd.run();
        etcd
    }

    /// One that does not run yet.
    pub fn reserve() -> Self {
        Etcd {
            dir: tempfile::tempdir().unwrap(),
            client: free_port(),
            peer: free_port(),
            child: None,
        }
    }

    /// Starts it with what it knew.
    pub fn run(&mut self) {
        let (client, peer) = (self.endpoint(), format!("http://127.0.0.1:{}", self.peer));
        let log = std::fs::File::options()
            .create(true)
            .append(true)
            .open(self.log())
            .unwrap();
        let child = Command::new("etcd")
            .arg("--data-dir")
            .arg(self.dir.path().join("data"))
            .args(["--listen-client-urls", &client])
            .args(["--advertise-client-urls", &client])
            .args(["--listen-peer-urls", &peer])
            .args(["--initial-advertise-peer-urls", &peer])
            .args(["--initial-cluster", &format!("default={peer}")])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .expect("etcd is needed: apt install etcd-server");
        self.child = Some(child);
        wait_for("etcd to answer", || {
            self.ask(&["endpoint", "health"]).is_some()
        });
    }

    fn log(&self) -> PathBuf {
        self.dir.path().join("log")
    }

    /// Where it answers.
    pub fn endpoint(&self) -> String {
        format!("http://127.0.0.1:{}", self.client)
    }

    /// Freezes it, as a host that is overloaded does.
    pub fn freeze(&self) {
        self.signal(Signal::SIGSTOP);
    }

    /// Ends that.
    pub fn thaw(&self) {
        self.signal(Signal::SIGCONT);
    }

    fn signal(&self, signal: Signal) {
        let pid = self.child.as_ref().unwrap().id();
        kill(Pid::from_raw(pid.try_into().unwrap()), signal).unwrap();
    }

    /// As `kill -9`.
    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().unwrap();
            child.wait().unwrap();
        }
    }

    /// What `etcdctl` says; `None` where it fails.
    pub fn ask(&self, arguments: &[&str]) -> Option<String> {
        let output = Command::new("etcdctl")
            .env("ETCDCTL_API", "3")
            .args(["--endpoints", &self.endpoint()])
            .args(["--dial-timeout", "1s", "--command-timeout", "2s"])
            .args(arguments)
            .output()
            .expect("etcdctl is needed: apt install etcd-client");
        let text = String::from_utf8(output.stdout).unwrap();
        output.status.success().then_some(text)
    }

    /// What `etcdctl` says, which has to go well.
    pub fn tell(&self, arguments: &[&str]) -> String {
        self.ask(arguments)
            .unwrap_or_else(|| panic!("{arguments:?}"))
    }

    /// Its revision.
    pub fn revision(&self) -> String {
        let json = self.tell(&["get", "x", "--write-out", "json"]);
        let json: serde_json::Value = serde_json::from_str(&json).unwrap();
        json["header"]["revision"].to_string()
    }
}

impl Drop for Etcd {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let log = std::fs::read_to_string(self.log()).unwrap_or_default();
            let last: Vec<&str> = log.lines().rev().take(5).collect();
            eprintln!("--- the end of etcd's log, backwards:\n{}", last.join("\n"));
        }
        if let Some(mut child) = self.child.take() {
            // It may have ended already.
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}
