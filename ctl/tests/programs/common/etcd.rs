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
    certificates: Option<Certificates>,
}

/// An authority, and a certificate of it for this host, both as server and as client.
pub struct Certificates {
    dir: TempDir,
}

impl Certificates {
    /// New ones.
    pub fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let script = "
            openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 \
                -subj /CN=authority -keyout ca.key -out ca.pem
            openssl req -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes \
                -subj /CN=lockstep -keyout key.pem -out request.pem
            printf 'subjectAltName=IP:127.0.0.1\\nextendedKeyUsage=serverAuth,clientAuth' > extensions
            openssl x509 -req -in request.pem -CA ca.pem -CAkey ca.key -CAcreateserial -days 2 \
                -extfile extensions -out certificate.pem";
        let done = Command::new("sh")
            .args(["-ec", script])
            .current_dir(dir.path())
            .output()
            .expect("openssl is needed: apt install openssl");
        assert!(done.status.success(), "{done:?}");
        Certificates { dir }
    }

    /// One of `ca.pem`, `certificate.pem` and `key.pem`.
    pub fn file(&self, name: &str) -> String {
        self.dir.path().join(name).to_str().unwrap().to_owned()
    }
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
            certificates: None,
        }
    }

    /// One that speaks TLS only, with clients that it knows.
    pub fn secured() -> Self {
        let mut etcd = Etcd::reserve();
        etcd.certificates = Some(Certificates::new());
        etcd.run();
        etcd
    }

    /// A file of its certificates.
    pub fn file(&self, name: &str) -> String {
        self.certificates.as_ref().unwrap().file(name)
    }

    /// Starts it with what it knew.
    pub fn run(&mut self) {
        let (client, peer) = (self.endpoint(), format!("http://127.0.0.1:{}", self.peer));
        let log = std::fs::File::options()
            .create(true)
            .append(true)
            .open(self.log())
            .unwrap();
        let mut command = Command::new("etcd");
        if self.certificates.is_some() {
            command
                .arg("--client-cert-auth")
                .args(["--trusted-ca-file", &self.file("ca.pem")])
                .args(["--cert-file", &self.file("certificate.pem")])
                .args(["--key-file", &self.file("key.pem")]);
        }
        let child = command
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
        let scheme = match self.certificates {
            Some(_) => "https",
            None => "http",
        };
        format!("{scheme}://127.0.0.1:{}", self.client)
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

    /// As a store that was lost and set up anew.
    pub fn wipe(&mut self) {
        self.kill();
        std::fs::remove_dir_all(self.dir.path().join("data")).unwrap();
        self.run();
    }

    /// What `etcdctl` says; `None` where it fails.
    pub fn ask(&self, arguments: &[&str]) -> Option<String> {
        let mut command = Command::new("etcdctl");
        if self.certificates.is_some() {
            command
                .args(["--cacert", &self.file("ca.pem")])
                .args(["--cert", &self.file("certificate.pem")])
                .args(["--key", &self.file("key.pem")]);
        }
        let output = command
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

    /// Writes a key again and again, so many bytes each time.
    pub fn churn(&self, key: &str, times: usize, bytes: usize) {
        let runtime = tokio::runtime::Runtime::new().unwrap();
        runtime.block_on(async {
            let endpoints = [self.endpoint()];
            let mut client = etcd_client::Client::connect(endpoints, None).await.unwrap();
            for _ in 0..times {
                client.put(key, vec![b'x'; bytes], None).await.unwrap();
            }
        });
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
