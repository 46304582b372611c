//! With real routers in network namespaces. The kernel's sockets are part of what is tested.

use super::*;
use lockstep_ctl_core::bfd::Diagnostic;
use nix::sched::{CloneFlags, setns};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::fs::{File, Permissions};
use std::net::UdpSocket as StdSocket;
use std::os::unix::fs::PermissionsExt;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use tempfile::TempDir;
use tokio::time::timeout;

const BALANCER: [&str; 2] = ["192.0.2.1", "2001:db8::1"];
const ROUTER: [&str; 2] = ["192.0.2.2", "2001:db8::2"];

/// Somebody else on the link.
const STRANGER: &str = "192.0.2.3";

/// More than any of this takes, on a busy machine too.
const PATIENCE: Duration = Duration::from_secs(20);

/// What SIGKILL of a balancer may cost (300 ms, three times, and the time to notice).
const SECOND: Duration = Duration::from_secs(1);

fn ip(words: &str) {
    let status = Command::new("ip").args(words.split_whitespace()).status();
    assert!(status.unwrap().success(), "ip {words}");
}

/// Two namespaces and a link between them.
struct Link {
    names: [String; 2],
}

impl Link {
    fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let id = format!(
            "{}x{}",
            std::process::id(),
            NEXT.fetch_add(1, Ordering::Relaxed)
        );
        let names = ["balancer", "router"].map(|role| format!("bfd{id}-{role}"));
        for name in &names {
            ip(&format!("netns add {name}"));
            ip(&format!("-n {name} link set lo up"));
        }
        let [a, b] = &names;
        ip(&format!(
            "-n {a} link add link0 type veth peer name link0 netns {b}"
        ));
        for (name, addresses) in names.iter().zip([BALANCER, ROUTER]) {
            let [v4, v6] = addresses;
            ip(&format!("-n {name} addr add {v4}/24 dev link0"));
            ip(&format!("-n {name} addr add {v6}/64 dev link0 nodad"));
            ip(&format!("-n {name} link set link0 up"));
        }
        ip(&format!("-n {b} addr add {STRANGER}/24 dev link0"));
        Link { names }
    }

    /// Runs `task` in a thread inside; what it opens stays inside.
    fn within<T: Send>(&self, end: usize, task: impl FnOnce() -> T + Send) -> T {
        let file = File::open(format!("/run/netns/{}", self.names[end])).unwrap();
        thread::scope(|scope| {
            let inside = scope.spawn(move || {
                setns(&file, CloneFlags::CLONE_NEWNET).unwrap();
                task()
            });
            inside.join().unwrap()
        })
    }

    fn spawn(&self, end: usize, program: &str, args: &[&str]) -> Program {
        let child = Command::new("ip")
            .args(["netns", "exec", &self.names[end], program])
            .args(args)
            .stdout(Stdio::null())
            .spawn();
        Program(child.unwrap())
    }

    /// Our BFD with one neighbor.
    fn ours(&self, end: usize, peer: &str, settings: Settings) -> Ours {
        let peer: IpAddr = peer.parse().unwrap();
        let wanted = watch::Sender::new(Arc::new(BTreeMap::from([(peer, settings)])));
        let (ended, sessions) = self.within(end, || start(wanted.subscribe()));
        Ours {
            peer,
            wanted,
            sessions,
            ended: Box::pin(ended),
        }
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        for name in &self.names {
            let _ = Command::new("ip").args(["netns", "del", name]).status();
        }
    }
}

struct Program(Child);

impl Program {
    fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.0.id().cast_signed()), signal).unwrap();
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

struct Ours {
    peer: IpAddr,
    wanted: watch::Sender<Arc<BTreeMap<IpAddr, Settings>>>,
    sessions: watch::Receiver<Sessions>,
    ended: std::pin::Pin<Box<dyn Future<Output = ()> + Send>>,
}

impl Ours {
    async fn wait(&mut self, what: &str, is: impl Fn(&Session) -> bool) -> Session {
        let peer = self.peer;
        let found = self.sessions.wait_for(|s| s.get(&peer).is_some_and(&is));
        let waited = timeout(PATIENCE, found).await;
        let seen = waited.map(|found| found.unwrap()[&peer]).ok();
        seen.unwrap_or_else(|| panic!("not {what}: {:?}", self.sessions.borrow()))
    }

    async fn up(&mut self) -> Session {
        self.wait("up", |s| s.state == State::Up).await
    }
}

/// 300 ms, three times, in every program here.
fn settings() -> Settings {
    Settings::default()
}

fn bird(link: &Link, place: &TempDir) -> Vec<Program> {
    let neighbors = BALANCER.map(|address| format!("  neighbor {address} dev \"link0\";\n"));
    let config = format!(
        "router id 192.0.2.2;\nprotocol device {{}}\nprotocol bfd {{\n  interface \"*\" {{ \
         interval 300 ms; multiplier 3; }};\n{}}}\n",
        neighbors.concat()
    );
    let (file, socket) = (
        place.path().join("bird.conf"),
        place.path().join("bird.ctl"),
    );
    std::fs::write(&file, config).unwrap();
    let args = [
        "-f",
        "-c",
        file.to_str().unwrap(),
        "-s",
        socket.to_str().unwrap(),
    ];
    vec![link.spawn(1, "bird", &args)]
}

fn bfdd(link: &Link, place: &TempDir) -> Vec<Program> {
    let peer = |address: &str, local: &str| {
        format!(
            " peer {address} local-address {local} interface link0\n  receive-interval 300\n  \
             transmit-interval 300\n  detect-multiplier 3\n exit\n"
        )
    };
    let peers: String = (BALANCER.iter().zip(ROUTER))
        .map(|(address, local)| peer(address, local))
        .collect();
    let file = place.path().join("bfdd.conf");
    std::fs::write(&file, format!("bfd\n{peers}exit\n")).unwrap();
    let at = |name: &str| place.path().join(name).display().to_string();
    // FRR's programs become another user.
    std::fs::set_permissions(place.path(), Permissions::from_mode(0o777)).unwrap();
    let start = |program: &str, config: &str| {
        let (pid, zserv) = (at(&format!("{program}.pid")), at("zserv"));
        let args = [
            "-f",
            config,
            "-i",
            &pid,
            "-z",
            &zserv,
            "--vty_socket",
            &at(""),
            "-P",
            "0",
        ];
        link.spawn(1, &format!("/usr/lib/frr/{program}"), &args)
    };
    let config = file.display().to_string();
    // The names of interfaces come to bfdd by zebra.
    vec![start("bfdd", &config), start("zebra", "/dev/null")]
}

/// The router comes up, freezes, comes back, and dies.
async fn life_of_a_router(router: fn(&Link, &TempDir) -> Vec<Program>, family: usize) {
    let (link, place) = (Link::new(), TempDir::new().unwrap());
    let mut programs = router(&link, &place);
    let router = programs.swap_remove(0);
    let mut ours = link.ours(0, ROUTER[family], settings());
    let peer = ours.peer;
    ours.up().await;
    // Up on both sides, and at the speed that both want.
    let fast = |s: &Session| {
        s.remote == State::Up
            && s.detection == SECOND.mul_f64(0.9)
            && s.transmit == SECOND.mul_f64(0.3)
    };
    ours.wait("at the configured speed", fast).await;

    router.signal(Signal::SIGSTOP);
    let frozen = Instant::now();
    let down = ours.wait("down", |s| s.state != State::Up).await;
    let took = frozen.elapsed();
    assert!(took < SECOND, "noticed after {took:?}");
    assert_eq!(down.diagnostic, Diagnostic::DetectionTimeExpired);

    router.signal(Signal::SIGCONT);
    ours.up().await;
    ours.wait("at the configured speed", fast).await;
    drop(router);
    let killed = Instant::now();
    ours.wait("down", |s| s.state != State::Up).await;
    let took = killed.elapsed();
    assert!(took < SECOND, "noticed after {took:?}");
    assert_eq!(ours.sessions.borrow()[&peer].ups, 2);
}

#[tokio::test]
async fn bird_over_ipv4() {
    life_of_a_router(bird, 0).await;
}

#[tokio::test]
async fn bird_over_ipv6() {
    life_of_a_router(bird, 1).await;
}

#[tokio::test]
async fn frr_over_ipv4() {
    life_of_a_router(bfdd, 0).await;
}

#[tokio::test]
async fn frr_over_ipv6() {
    life_of_a_router(bfdd, 1).await;
}

#[tokio::test]
async fn an_orderly_end_is_no_failure_to_the_neighbor() {
    let link = Link::new();
    let mut ours = link.ours(0, ROUTER[0], settings());
    let mut theirs = link.ours(1, BALANCER[0], settings());
    theirs.up().await;
    ours.up().await;
    drop(ours.wanted);
    timeout(PATIENCE, ours.ended).await.unwrap();
    let down = theirs.wait("down", |s| s.state != State::Up).await;
    assert_eq!(down.remote, State::AdminDown);
    assert_eq!(down.diagnostic, Diagnostic::NeighborSignaledDown);
    assert_eq!(*ours.sessions.borrow(), Sessions::default());
}

#[tokio::test]
async fn new_intervals_come_into_force_without_the_session_going_down() {
    let link = Link::new();
    let mut ours = link.ours(0, ROUTER[0], settings());
    let mut theirs = link.ours(1, BALANCER[0], settings());
    ours.up().await;
    let slow = Settings {
        transmit: SECOND,
        multiplier: 5,
        ..settings()
    };
    ours.wanted
        .send_replace(Arc::new(BTreeMap::from([(ours.peer, slow)])));
    let session = theirs.wait("slow", |s| s.detection == 5 * SECOND).await;
    assert_eq!((session.state, session.ups), (State::Up, 1));
}

#[tokio::test]
async fn packets_that_are_not_the_neighbors_change_nothing() {
    let link = Link::new();
    let mut ours = link.ours(0, ROUTER[0], settings());
    let mut theirs = link.ours(1, BALANCER[0], settings());
    ours.up().await;
    theirs.up().await;
    let down = Packet {
        state: State::Down,
        diagnostic: Diagnostic::None,
        flags: lockstep_ctl_core::bfd::Flags::default(),
        multiplier: std::num::NonZeroU8::new(3).unwrap(),
        mine: NonZeroU32::new(77).unwrap(),
        yours: 0,
        transmit: 1_000_000,
        receive: 1_000_000,
        echo: 0,
    };
    let from = |address: &str, ttl: u32| {
        link.within(1, || {
            let socket = StdSocket::bind((address, 0)).unwrap();
            socket.set_ttl(ttl).unwrap();
            socket.connect((BALANCER[0], socket::PORT)).unwrap();
            socket
        })
    };
    let guess = Packet {
        yours: 12_345,
        ..down
    };
    let (routed, stranger, neighbor) = (
        from(ROUTER[0], 254),
        from(STRANGER, 255),
        from(ROUTER[0], 255),
    );
    for _ in 0..20_000 {
        routed.send(&down.emit()).unwrap();
        stranger.send(&down.emit()).unwrap();
        neighbor.send(&guess.emit()).unwrap();
        neighbor.send(&down.emit()[..23]).unwrap();
    }
    let peer = ours.peer;
    let left = ours.sessions.wait_for(|s| s[&peer].state != State::Up);
    // Longer than the detection time: neither were the neighbor's own packets lost in the flood.
    assert!(
        timeout(SECOND, left).await.is_err(),
        "the session went down"
    );
    assert_eq!(ours.sessions.borrow()[&peer].ups, 1);
    // The same from the neighbor and with its TTL is one to believe.
    neighbor.send(&down.emit()).unwrap();
    ours.wait("down", |s| s.state != State::Up).await;
}
