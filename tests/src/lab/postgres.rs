//! PostgreSQL: servers that begin as copies of one cluster, and psql.

use super::netns::Netns;
use super::process::{Process, output};
use super::run::Run;
use super::server::Server;
use anyhow::{Context, Result, ensure};
use std::fs::{self, File, Permissions};
use std::io::Write;
use std::net::IpAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

/// Debian's place for the programs of each version.
const VERSIONS: &str = "/usr/lib/postgresql";
/// It does not run as root.
const USER: &str = "postgres";
const TIMEOUT: Duration = Duration::from_secs(60);

/// A cluster as `initdb` makes it, to be copied: what begins with one system identifier and one
/// history gives the same answers.
#[derive(Debug)]
pub struct Cluster {
    data: PathBuf,
}

impl Cluster {
    /// Makes one, where everybody may do everything.
    pub fn new(run: &Run) -> Result<Self> {
        // PostgreSQL's user has to get there.
        fs::set_permissions(run.dir(), Permissions::from_mode(0o711))?;
        let parent = run.dir().join("postgres");
        fs::create_dir(&parent)?;
        let user = format!("{USER}:{USER}");
        output(Command::new("chown").arg(&user).arg(&parent))?;
        let data = parent.join("data");
        let mut command = as_user(Command::new("setpriv"), &program("initdb")?);
        command.args(["--no-sync", "--no-instructions", "--auth=trust"]);
        command.args(["--username=postgres", "--encoding=UTF8", "--locale=C"]);
        output(command.arg("--pgdata").arg(&data).current_dir(&parent))?;
        let rules = data.join("pg_hba.conf");
        let mut rules = File::options().append(true).open(rules)?;
        rules.write_all(b"host all all 0.0.0.0/0 trust\nhost all all ::/0 trust\n")?;
        Ok(Cluster { data })
    }
}

impl Server {
    /// Starts a PostgreSQL server with a copy of the cluster.
    pub fn start_postgres(&self, cluster: &Cluster) -> Result<Process> {
        let data = self.dir().join("postgres");
        output(Command::new("cp").arg("-a").arg(&cluster.data).arg(&data))?;
        let mut command = as_user(self.netns().command("setpriv"), &program("postgres")?);
        command.arg("-D").arg(&data).current_dir(self.dir());
        let settings = [
            "listen_addresses=*",
            "unix_socket_directories=",
            "fsync=off",
            "autovacuum=off",
            "ssl=off",
            "shared_buffers=16MB",
            "max_connections=20",
        ];
        for setting in settings {
            command.args(["-c", setting]);
        }
        self.start("postgres", command, "ready to accept connections")
    }
}

/// A session of psql under way.
#[derive(Debug)]
pub struct Psql(Process);

impl Psql {
    /// Starts psql with a script: each statement is sent when the one before was answered, and an
    /// error ends it.
    pub fn start(netns: &Netns, to: IpAddr, script: &Path) -> Result<Self> {
        let mut command = psql(netns, to);
        command.arg("--file").arg(script);
        Ok(Psql(netns.spawn("psql", command)?))
    }

    /// Runs one statement and returns what psql writes.
    pub fn ask(netns: &Netns, to: IpAddr, statement: &str) -> Result<String> {
        let text = output(psql(netns, to).args(["--command", statement]))?;
        Ok(text.trim_end().to_owned())
    }

    /// What it has written so far. An error when it has ended.
    pub fn so_far(&mut self) -> Result<String> {
        self.0.must_run()?;
        Ok(self.0.log())
    }

    /// Waits for the end, which must be a good one, and returns all that psql has written.
    pub fn finish(mut self) -> Result<String> {
        let status = self.0.wait(TIMEOUT)?;
        let log = self.0.log();
        ensure!(status.success(), "psql failed ({status}): {log}");
        Ok(log)
    }
}

fn psql(netns: &Netns, to: IpAddr) -> Command {
    let mut command = netns.command("psql");
    command.env("PGCONNECT_TIMEOUT", "10");
    command.args(["--no-psqlrc", "--no-align", "--tuples-only"]);
    command.args(["--set", "ON_ERROR_STOP=1", "--username", "postgres"]);
    command.args(["--host", &to.to_string()]);
    command
}

/// Makes `setpriv` run a program as PostgreSQL's user.
fn as_user(mut setpriv: Command, program: &Path) -> Command {
    let (user, group) = (format!("--reuid={USER}"), format!("--regid={USER}"));
    setpriv.args([&user, &group, "--init-groups"]).arg(program);
    setpriv
}

/// A program of the newest version that is installed.
fn program(name: &str) -> Result<PathBuf> {
    let versions = fs::read_dir(VERSIONS).with_context(|| format!("cannot list {VERSIONS}"))?;
    let programs = versions
        .flatten()
        .map(|entry| entry.path().join("bin").join(name));
    let mut found: Vec<PathBuf> = programs.filter(|path| path.is_file()).collect();
    found.sort();
    found
        .pop()
        .with_context(|| format!("there is no {name} below {VERSIONS}"))
}
