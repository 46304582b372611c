//! A fake engine in this process, and the real daemon and command line as processes.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::time::{Duration, Instant};
use tempfile::TempDir;

pub mod engine;
pub mod etcd;
pub mod kube;
pub mod net;
pub mod routers;

pub use engine::FakeEngine;

/// How long a condition is waited for: whoever needs it sooner says so. A busy machine may take long.
const PATIENCE: Duration = Duration::from_secs(60);

/// Waits until a condition holds, and fails where it does not come to hold.
pub fn wait_for(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !holds() {
        assert!(Instant::now() < deadline, "waited in vain: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// A directory with a services file and the sockets.
pub struct Place {
    dir: TempDir,
}

impl Place {
    /// With this services file.
    pub fn new(services: &str) -> Self {
        let place = Place {
            dir: tempfile::tempdir().unwrap(),
        };
        fs::create_dir(place.path("etc")).unwrap();
        fs::write(place.services(), services).unwrap();
        fs::write(place.config(), "").unwrap();
        place
    }

    /// A path in it.
    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub fn services(&self) -> PathBuf {
        self.path("etc/services.toml")
    }

    pub fn config(&self) -> PathBuf {
        self.path("etc/lockstepd.toml")
    }

    pub fn engine_socket(&self) -> PathBuf {
        self.path("engine.sock")
    }

    pub fn daemon_socket(&self) -> PathBuf {
        self.path("lockstepd.sock")
    }

    /// Replaces the services file as an editor does: a new file, renamed over the old one.
    pub fn edit(&self, services: &str) {
        let new = self.path("etc/services.toml.new");
        fs::write(&new, services).unwrap();
        fs::rename(new, self.services()).unwrap();
    }

    /// Replaces the configuration likewise.
    pub fn configure(&self, config: &str) {
        let new = self.path("etc/lockstepd.toml.new");
        fs::write(&new, config).unwrap();
        fs::rename(new, self.config()).unwrap();
    }

    /// An engine that was told nothing yet.
    pub fn engine(&self) -> FakeEngine {
        FakeEngine::start(&self.engine_socket())
    }

    /// The daemon.
    pub fn daemon(&self) -> Daemon {
        let log = fs::File::options()
            .create(true)
            .append(true)
            .open(self.path("lockstepd.log"))
            .unwrap();
        let child = self.daemon_command().stderr(log).spawn().unwrap();
        Daemon {
            child,
            log: self.path("lockstepd.log"),
        }
    }

    pub fn daemon_command(&self) -> Command {
        let mut command = Command::new(program("lockstepd", env!("CARGO_BIN_EXE_lockstepd")));
        command
            .arg("--services")
            .arg(self.services())
            .arg("--config")
            .arg(self.config())
            .arg("--engine-socket")
            .arg(self.engine_socket())
            .arg("--socket")
            .arg(self.daemon_socket())
            .arg("--state-dir")
            .arg(self.path("state"))
            .stdin(Stdio::null())
            .stdout(Stdio::null());
        command
    }

    /// Runs `lockstep` with these arguments.
    pub fn lockstep(&self, arguments: &[&str]) -> Answer {
        let output = Command::new(program("lockstep", env!("CARGO_BIN_EXE_lockstep")))
            .args(arguments)
            .env("LOCKSTEP_ENGINE_SOCKET", self.engine_socket())
            .env("LOCKSTEP_DAEMON_SOCKET", self.daemon_socket())
            .current_dir(self.dir.path())
            .stdin(Stdio::null())
            .output()
            .unwrap();
        Answer::new(output)
    }

    /// A value of `lockstep status --output json`, null where the daemon does not answer.
    pub fn status(&self, pointer: &str) -> serde_json::Value {
        let json = self.lockstep(&["status", "--output", "json"]).json();
        json.pointer(pointer).cloned().unwrap_or_default()
    }
}

/// What a command printed.
#[derive(Debug)]
pub struct Answer {
    pub code: i32,
    pub out: String,
    pub err: String,
}

impl Answer {
    fn new(output: Output) -> Self {
        Answer {
            code: output.status.code().unwrap(),
            out: String::from_utf8(output.stdout).unwrap(),
            err: String::from_utf8(output.stderr).unwrap(),
        }
    }

    /// Its output, which has to be JSON.
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.out).unwrap_or_else(|e| panic!("{e}: {self:?}"))
    }

    /// Checks the exit code and what is in the output.
    #[track_caller]
    pub fn expect(&self, code: i32, parts: &[&str]) {
        assert_eq!(self.code, code, "{self:#?}");
        for part in parts {
            assert!(
                self.out.contains(part) || self.err.contains(part),
                "{part:?} in {self:#?}"
            );
        }
    }
}

/// A running daemon. It is killed when this is dropped, and its log shown when a test fails.
pub struct Daemon {
    child: Child,
    log: PathBuf,
}

impl Daemon {
    /// Starts it by a command that becomes the daemon, and logs to this file.
    pub fn start(command: &mut Command, log: PathBuf) -> Self {
        let child = command.spawn().unwrap();
        Daemon { child, log }
    }

    /// Runs a command in the network namespace of the daemon.
    pub fn in_its_namespace(&self, script: &str) -> ExitStatus {
        let target = self.child.id().to_string();
        let mut command = Command::new("nsenter");
        command.args(["--net", "--target", &target, "sh", "-ec", script]);
        command.status().unwrap()
    }

    /// As `kill -9`.
    pub fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// As a host that is overloaded: it does nothing until it is thawed.
    pub fn freeze(&self) {
        self.signal("STOP");
    }

    /// Ends that.
    pub fn thaw(&self) {
        self.signal("CONT");
    }

    /// SIGTERM; returns the exit code.
    pub fn terminate(mut self) -> Option<i32> {
        let pid = nix::unistd::Pid::from_raw(self.child.id().try_into().unwrap());
        nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM).unwrap();
        self.child.wait().unwrap().code()
    }

    /// The time of CPUs that it has taken so far.
    pub fn cpu_time(&self) -> Duration {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.child.id())).unwrap();
        // The name before the parenthesis may have spaces; user and system time are 14th and 15th.
        let (_, rest) = stat.rsplit_once(')').unwrap();
        let ticks = rest.split_whitespace().skip(11).take(2);
        let ticks: u64 = ticks.map(|t| t.parse::<u64>().unwrap()).sum();
        // USER_HZ is 100 on every architecture we run on.
        Duration::from_millis(ticks * 10)
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Sends it a signal by name, such as USR1.
    pub fn signal(&self, name: &str) {
        let mut command = Command::new("kill");
        let status = command.args(["-s", name, &self.pid().to_string()]).status();
        assert!(status.unwrap().success());
    }

    /// Waits for its end.
    pub fn wait(&mut self) -> ExitStatus {
        self.child.wait().unwrap()
    }

    /// What it has logged.
    pub fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap()
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            eprintln!("--- the daemon's log:\n{}", self.log());
        }
    }
}

/// A services file with one service, `web`, and these backends.
pub fn web(backends: &[&str]) -> String {
    let backends: Vec<String> = backends
        .iter()
        .map(|b| format!("{{ address = \"{b}\" }}"))
        .collect();
    format!(
        "[[service]]\nname = \"web\"\nvips = [\"203.0.113.10:80/tcp\"]\nbackends = [{}]\n",
        backends.join(", ")
    )
}

/// Writes a file and returns its name.
pub fn write(path: &Path, text: &str) -> String {
    fs::write(path, text).unwrap();
    path.to_str().unwrap().to_owned()
}

/// One of our programs: of the directory that `LOCKSTEP_PROGRAMS` names, so that goals are measured by
/// optimized ones, else the one that was built with the test.
pub fn program(name: &str, built: &str) -> PathBuf {
    match optimized() {
        Some(folder) => folder.join(name),
        None => PathBuf::from(built),
    }
}

/// The directory with optimized programs, where there is one.
pub fn optimized() -> Option<PathBuf> {
    std::env::var_os("LOCKSTEP_PROGRAMS").map(PathBuf::from)
}
