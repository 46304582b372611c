//! The Debian package on a clean Debian 12 with systemd, in a container of its own: installed,
//! started as its units say, upgraded, purged.

use anyhow::{Context, Result, ensure};
use lockstep_tests::lab::{find_binary, wait_until};
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

const SOON: Duration = Duration::from_secs(30);
const BOOT: Duration = Duration::from_secs(90);
/// What a container of systemd and this package needs.
const PACKAGES: &str = "systemd,systemd-sysv,dbus,iproute2,libelf1,procps,zlib1g";

/// CAP_NET_ADMIN, CAP_NET_RAW, CAP_BPF and CAP_PERFMON (capabilities(7)).
const OF_ENGINE: u64 = 1 << 12 | 1 << 13 | 1 << 39 | 1 << 38;
/// CAP_NET_BIND_SERVICE, CAP_NET_ADMIN and CAP_NET_RAW, in one thread of it.
const OF_DAEMON: u64 = 1 << 10 | 1 << 12 | 1 << 13;

/// An interface to have, a BPF file system (systemd mounts one on a machine of its own), and a
/// topology whose packet memory fits into what an unprivileged process may lock.
const EQUIP: &str = "
mkdir -p /sys/fs/bpf
mountpoint -q /sys/fs/bpf || mount -t bpf bpf /sys/fs/bpf
mkdir -p /dev/net
test -e /dev/net/tun || mknod /dev/net/tun c 10 200
ip link add eth0 type veth peer name eth1
ip addr add 10.0.0.1/24 dev eth0
ip link set eth0 up
ip link set eth1 up
cat >/etc/lockstep/topology.toml <<X
[engine]
addresses = [\"10.0.0.100\"]
umem_frames = 1024
[[interface]]
name = \"eth0\"
mode = \"copy\"
[[worker]]
core = 0
queues = [\"eth0:0\"]
X
";

const SERVICES: &str = "[[service]]\\nname = \\\"web\\\"\\nvips = [\\\"203.0.113.10:80/tcp\\\"]\\n\
                        backends = [{ address = \\\"10.0.0.2\\\" }]\\n";

/// A Debian 12 that runs. It ends with this.
struct Container {
    nspawn: Child,
    leader: String,
    root: PathBuf,
    _folder: tempfile::TempDir,
}

impl Container {
    fn boot(tarball: &Path) -> Result<Self> {
        let folder = tempfile::tempdir_in("/var/tmp")?;
        let root = folder.path().join("root");
        fs::create_dir(&root)?;
        let mut tar = Command::new("tar");
        // Device files are the container's own.
        tar.args(["--exclude=./dev/*", "-xf"]).arg(tarball);
        run(tar.arg("-C").arg(&root))?;
        let log = File::create(folder.path().join("log"))?;
        let mut command = Command::new("systemd-nspawn");
        command.env("SYSTEMD_NSPAWN_API_VFS_WRITABLE", "yes");
        command.args([
            "--register=no",
            "--keep-unit",
            "--private-network",
            "--boot",
        ]);
        command.args([
            "--capability=all",
            "--system-call-filter=bpf",
            "--console=pipe",
        ]);
        command.arg("--directory").arg(&root);
        command
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log);
        let nspawn = command.spawn().context("cannot start systemd-nspawn")?;
        let mut container = Container {
            nspawn,
            leader: "0".to_owned(),
            root,
            _folder: folder,
        };
        // Its first child only makes the one that becomes the container.
        let children = format!("/proc/{0}/task/{0}/children", container.nspawn.id());
        wait_until("the container has booted", BOOT, || {
            let children = fs::read_to_string(&children).unwrap_or_default();
            container.leader = children.split_whitespace().next().unwrap_or("0").to_owned();
            Ok(container.sh("systemctl is-system-running").ok())
        })?;
        Ok(container)
    }

    /// What a script prints that ends well.
    fn sh(&self, script: &str) -> Result<String> {
        let mut command = Command::new("nsenter");
        command.args(["--all", "--target", &self.leader, "sh", "-ec", script]);
        run(&mut command)
    }

    /// Waits until a script ends well.
    fn until(&self, what: &str, script: &str) -> Result<String> {
        wait_until(what, SOON, || Ok(self.sh(script).ok()))
            .with_context(|| format!("{:#?}", self.sh(script).err()))
            .with_context(|| self.sh("journalctl --no-pager -n 60").unwrap_or_default())
    }

    fn main_process(&self, unit: &str) -> Result<u32> {
        let pid = self.sh(&format!("systemctl show -p MainPID --value {unit}"))?;
        Ok(pid.trim().parse()?)
    }

    /// Those that a unit's threads are permitted, and those in force; each once.
    fn capabilities(&self, unit: &str, line: &str) -> Result<Vec<u64>> {
        let pid = self.main_process(unit)?;
        let script = format!("sed -n 's/^{line}:\\t//p' /proc/{pid}/task/*/status | sort -u");
        let text = self.sh(&script)?;
        let bits = text.lines().map(|line| u64::from_str_radix(line, 16));
        Ok(bits.collect::<Result<_, _>>()?)
    }
}

impl Drop for Container {
    fn drop(&mut self) {
        // Its first process takes all others with it.
        if self.leader != "0" {
            let _ = Command::new("kill").args(["-KILL", &self.leader]).status();
        }
        let _ = self.nspawn.kill();
        let _ = self.nspawn.wait();
    }
}

fn run(command: &mut Command) -> Result<String> {
    let output = command.output().with_context(|| format!("{command:?}"))?;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    ensure!(
        output.status.success(),
        "{command:?}: {}\n{}{}",
        output.status,
        text(&output.stdout),
        text(&output.stderr)
    );
    Ok(text(&output.stdout))
}

/// The package of the programs that are tested, in a folder.
fn package(folder: &Path) -> Result<PathBuf> {
    let package = folder.join("lockstep.deb");
    let mut script = Command::new(workspace().join("scripts/deb.sh"));
    let program = find_binary("lockstep")?;
    let folder = program.parent().and_then(Path::file_name);
    let profile = match folder.and_then(|name| name.to_str()) {
        Some("debug") | None => "dev",
        Some(profile) => profile,
    };
    run(script.arg(profile).arg(&package))?;
    Ok(package)
}

fn workspace() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// A clean Debian 12, from the mirror once.
fn debian() -> Result<PathBuf> {
    let folder = workspace().join("target/debian");
    fs::create_dir_all(&folder)?;
    let tarball = folder.join("bookworm.tar");
    if !tarball.exists() {
        let new = folder.join("bookworm.new.tar");
        let include = format!("--include={PACKAGES}");
        run(Command::new("mmdebstrap")
            .args(["--variant=minbase", &include, "bookworm"])
            .arg(&new))?;
        fs::rename(new, &tarball)?;
    }
    Ok(tarball)
}

#[test]
#[ignore = "a whole Debian is installed: make test-long"]
fn scenario_the_package_installs_runs_and_leaves_nothing() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let package = package(folder.path())?;
    let debian = Container::boot(&debian()?)?;
    fs::copy(&package, debian.root.join("srv/lockstep.deb"))?;
    let before =
        debian.sh("find / -xdev -iname '*lockstep*' -not -path '/srv/*' -not -path '/proc/*'")?;
    ensure!(before.is_empty(), "{before}");

    debian.sh("dpkg -i /srv/lockstep.deb")?;
    debian.until(
        "the daemon waits",
        "lockstep status | grep -q 'waits for the engine'",
    )?;
    debian.sh("systemctl is-active lockstepd")?;
    debian.sh(EQUIP)?;
    debian.sh("systemctl start lockstep-engine")?;
    debian.until("the file is in force", "lockstep status")?;
    for (unit, line, expected) in [
        ("lockstep-engine", "CapPrm", &[OF_ENGINE][..]),
        ("lockstepd", "CapPrm", &[0, OF_DAEMON]),
        ("lockstepd", "CapEff", &[0]),
    ] {
        let found = debian.capabilities(unit, line)?;
        ensure!(
            found == expected,
            "{line} of {unit}: {found:x?}, not {expected:x?}"
        );
    }

    debian.sh(&format!(
        "printf \"{SERVICES}\" >/srv/next.toml; lockstep apply /srv/next.toml"
    ))?;
    debian.until("metrics of both", "lockstep metrics | grep -q '^lockstep_daemon_epoch 1' && lockstep metrics | grep -q '^lockstep_epoch 1'")?;

    checks_through_tunnels(&debian)?;
    goes_on_over_a_reload(&debian)?;
    comes_back(&debian)?;

    debian.sh("dpkg -i /srv/lockstep.deb")?;
    debian.until(
        "both run after an upgrade",
        "systemctl is-active lockstepd lockstep-engine && lockstep status | grep -q 'in force'",
    )?;
    debian.sh("grep -q web /etc/lockstep/services.toml")?;

    debian.sh("dpkg --purge lockstep")?;
    let left = debian.sh("find / /run /sys/fs/bpf -xdev -iname '*lockstep*' -not -path '/srv/*' -not -path '/proc/*'")?;
    ensure!(left.is_empty(), "purging leaves {left}");
    let left = debian.sh("pgrep -a lockstep || true; ip link show dev eth0 | grep xdp || true")?;
    ensure!(left.is_empty(), "purging leaves {left}");
    Ok(())
}

/// The unit as it is lets the daemon make the way, and what goes it finds nobody.
fn checks_through_tunnels(debian: &Container) -> Result<()> {
    debian.sh(
        "sed 's/^backends/health = { type = \"tcp\", via = \"tunnel\", interval = \"1s\" }\\n&/' \
         /srv/next.toml >/srv/checked.toml; lockstep apply /srv/checked.toml",
    )?;
    debian.until(
        "a check has gone through the tunnel",
        "lockstep health | grep -q 'no connection within'",
    )?;
    debian.sh("ip link show lockstep-check")?;
    debian.sh("lockstep apply /srv/next.toml")?;
    Ok(())
}

/// `systemctl reload` is a takeover: another process with the same services, never without a place.
fn goes_on_over_a_reload(debian: &Container) -> Result<()> {
    for _ in 0..2 {
        let before = debian.main_process("lockstep-engine")?;
        debian.sh("systemctl reload lockstep-engine")?;
        wait_until("another engine is the service", SOON, || {
            let now = debian.main_process("lockstep-engine")?;
            Ok((now != before && now != 0).then_some(()))
        })?;
        debian.until(
            "it forwards by the same services",
            "lockstep metrics | grep -q '^lockstep_epoch 1' && systemctl is-active lockstep-engine",
        )?;
    }
    let restarts = debian.sh("systemctl show -p NRestarts --value lockstep-engine")?;
    ensure!(restarts.trim() == "0", "{restarts} restarts");
    Ok(())
}

/// Killed, either is started again and does what it did.
fn comes_back(debian: &Container) -> Result<()> {
    for unit in ["lockstep-engine", "lockstepd"] {
        let before = debian.main_process(unit)?;
        debian.sh(&format!("kill -KILL {before}"))?;
        wait_until("it runs again", SOON, || {
            let now = debian.main_process(unit)?;
            Ok((now != before && now != 0).then_some(()))
        })?;
        debian.until(
            "its services are in force",
            "lockstep status | grep -q 'in force'",
        )?;
    }
    debian.sh("systemctl restart lockstepd && lockstep status | grep -q web")?;
    Ok(())
}
