//! Two network namespaces with a veth between them: this host, and a peer that answers ARP and ND.

use lockstep_engine::agent::nexthop::{NextHop, NextHops, Resolution, Table};
use nix::sched::{CloneFlags, setns, unshare};
use std::fs::File;
use std::io::Write;
use std::net::IpAddr;
use std::os::fd::AsRawFd;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;

/// The longest any condition takes; far more than it should.
const PATIENCE: Duration = Duration::from_secs(20);

/// MAC address of `e0`, the host's end.
pub const HOST_MAC: [u8; 6] = [2, 0, 0, 0, 0, 1];
/// MAC address of `p0`, the peer's end.
pub const PEER_MAC: [u8; 6] = [2, 0, 0, 0, 0, 2];

/// Neither namespace has a name: both go away with the thread and these files.
pub struct Lab {
    host: File,
    peer: File,
}

/// Runs a test in a new pair of namespaces, on a thread of its own: a namespace belongs to a
/// thread, and this one ends with the test.
pub fn lab(test: impl AsyncFnOnce(&Lab) + Send + 'static) {
    let thread = std::thread::spawn(move || {
        let lab = Lab::new();
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .expect("a runtime");
        runtime.block_on(test(&lab));
    });
    if let Err(panic) = thread.join() {
        std::panic::resume_unwind(panic);
    }
}

fn own_namespace() -> File {
    unshare(CloneFlags::CLONE_NEWNET).expect("a network namespace; this test needs root");
    // The link-local address, which ND sends from, is there at once.
    sysctl("ipv6/conf/default/accept_dad", "0");
    File::open("/proc/thread-self/ns/net").expect("its file")
}

impl Lab {
    fn new() -> Lab {
        let peer = own_namespace();
        let lab = Lab {
            host: own_namespace(),
            peer,
        };
        let (pid, fd) = (std::process::id(), lab.peer.as_raw_fd());
        lab.host(&format!(
            "link set lo up
             link add e0 address 02:00:00:00:00:01 type veth peer name p0 \
                 address 02:00:00:00:00:02 netns /proc/{pid}/fd/{fd}
             addr add 10.0.0.1/24 dev e0
             addr add fd00::1/64 dev e0 nodad
             link set e0 up"
        ));
        lab.peer(
            "link set lo up
             addr add 10.0.0.2/24 dev p0
             addr add 10.0.0.3/24 dev p0
             addr add fd00::2/64 dev p0 nodad
             addr add fd00::3/64 dev p0 nodad
             link set p0 up",
        );
        lab
    }

    /// `ip` commands on the host, one a line.
    pub fn host(&self, commands: &str) {
        ip(commands);
    }

    /// `ip` commands on the peer, one a line.
    pub fn peer(&self, commands: &str) {
        self.on_peer(|| ip(commands));
    }

    fn on_peer<T>(&self, run: impl FnOnce() -> T) -> T {
        setns(&self.peer, CloneFlags::CLONE_NEWNET).expect("the peer's namespace");
        let result = run();
        setns(&self.host, CloneFlags::CLONE_NEWNET).expect("the host's namespace");
        result
    }

    /// What an `ip` command on the host prints.
    pub fn show(&self, command: &str) -> String {
        let arguments = command.split_whitespace();
        let output = Command::new("ip").args(arguments).output();
        String::from_utf8(output.expect("ip runs").stdout).expect("text")
    }

    /// Sets a sysctl of the host's, by its path under `/proc/sys/net`.
    pub fn sysctl(&self, path: &str, value: &str) {
        sysctl(path, value);
    }
}

fn sysctl(path: &str, value: &str) {
    std::fs::write(format!("/proc/sys/net/{path}"), value).expect("a sysctl");
}

fn ip(commands: &str) {
    let mut child = Command::new("ip")
        .args(["-batch", "-"])
        .stdin(Stdio::piped())
        .spawn()
        .expect("iproute2 is installed");
    let mut stdin = child.stdin.take().expect("its input");
    stdin
        .write_all(commands.as_bytes())
        .expect("its input is read");
    drop(stdin);
    assert!(child.wait().expect("it ends").success(), "ip: {commands}");
}

/// Next hops under test, and what they say.
pub struct Followed {
    pub next_hops: NextHops,
    pub table: watch::Receiver<Arc<Table>>,
}

impl Followed {
    pub async fn start(addresses: &[&str]) -> Followed {
        let next_hops = NextHops::start().await.expect("rtnetlink");
        let table = next_hops.watch();
        let followed = Followed { next_hops, table };
        followed.follow(addresses);
        followed
    }

    pub fn follow(&self, addresses: &[&str]) {
        let addresses = addresses.iter().map(|address| parse(address));
        self.next_hops.follow(addresses.collect());
    }

    /// Waits until the table fulfills a condition.
    pub async fn until(&self, what: &str, condition: impl Fn(&Table) -> bool) -> Arc<Table> {
        let mut table = self.table.clone();
        let waited = tokio::time::timeout(PATIENCE, table.wait_for(|t| condition(t))).await;
        match waited {
            Ok(found) => Arc::clone(&found.expect("the task lives")),
            Err(_) => panic!("{what} never came: {:#?}", self.table.borrow()),
        }
    }

    /// Waits until an address resolves in a way.
    pub async fn until_is(&self, address: &str, condition: impl Fn(&Resolution) -> bool) {
        let key = parse(address);
        self.until(address, |table| table.get(&key).is_some_and(&condition))
            .await;
    }

    /// Waits until frames for an address go to a MAC address.
    pub async fn until_mac(&self, address: &str, mac: [u8; 6]) -> NextHop {
        let key = parse(address);
        let hop = |table: &Table| table.get(&key).and_then(Resolution::next_hop).cloned();
        let to_mac = |table: &Table| hop(table).is_some_and(|hop| hop.destination == mac);
        let table = self.until(address, to_mac).await;
        hop(&table).expect("it is reachable")
    }
}

pub fn parse(address: &str) -> IpAddr {
    address.parse().expect("an address")
}
