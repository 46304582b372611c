//! The loop against a kernel that fails on demand, in tokio's paused time.

use super::super::hop::{Neighbour, Nud};
use super::super::state::{Link, LinkKind, Route};
use super::super::{NoRoute, Resolution};
use super::*;
use std::sync::Mutex;
use std::sync::atomic::AtomicUsize;

const MAC: [u8; 6] = [2, 0, 0, 0, 0, 2];

/// What all connections to the kernel share.
#[derive(Default)]
struct World {
    opened: AtomicUsize,
    /// The next attempts to open that fail.
    refuse: AtomicUsize,
    mac: Mutex<[u8; 6]>,
    /// Ends the connection's wait for events with this error.
    fail: tokio::sync::Notify,
    failure: Mutex<Option<NextHopError>>,
}

struct Fake(Arc<World>);

impl Kernel for Fake {
    async fn ask(&mut self, queries: &[Query]) -> Result<Vec<Answer>, NextHopError> {
        assert!(queries.len() <= BATCH);
        let mac = Some(*self.0.mac.lock().unwrap());
        let answer = |query: &Query| match *query {
            Query::Links => Answer::Links(vec![Link {
                index: 2,
                name: "eth0".into(),
                kind: LinkKind::Ethernet,
                mac: MAC,
                mtu: 1500,
                up: true,
            }]),
            Query::Route(address) => {
                let route = Route {
                    ifindex: 2,
                    via: None,
                    mtu: None,
                };
                let v4 = address.is_ipv4();
                Answer::Route(address, if v4 { Ok(route) } else { Err(NoRoute::Missing) })
            }
            Query::Look(hop) => {
                let state = Nud::Reachable;
                Answer::Look(hop, Some(Neighbour { state, mac }))
            }
            Query::Use(hop) => Answer::Use(hop, Ok(())),
        };
        Ok(queries.iter().map(answer).collect())
    }

    async fn events(&mut self, _: &mut Vec<Event>) -> Result<(), NextHopError> {
        self.0.fail.notified().await;
        Err(self.0.failure.lock().unwrap().take().expect("a failure"))
    }
}

struct Setup {
    world: Arc<World>,
    counters: Arc<Counters>,
    follow: watch::Sender<Arc<BTreeSet<IpAddr>>>,
    table: watch::Receiver<Arc<Table>>,
    task: tokio::task::JoinHandle<()>,
}

async fn start() -> Setup {
    let world = Arc::new(World::default());
    *world.mac.lock().unwrap() = MAC;
    let open = {
        let world = Arc::clone(&world);
        move || {
            let one = |n: usize| n.checked_sub(1);
            let (set, fetch) = (Ordering::SeqCst, Ordering::SeqCst);
            if world.refuse.fetch_update(set, fetch, one).is_ok() {
                return Err(NextHopError::Open(std::io::ErrorKind::OutOfMemory.into()));
            }
            world.opened.fetch_add(1, Ordering::SeqCst);
            Ok(Fake(Arc::clone(&world)))
        }
    };
    let mut state = State::new(Instant::now().into_std());
    let kernel = connect(&mut state, &open).await.expect("it opens");
    let (follow, followed) = watch::channel(Arc::default());
    let (publish, table) = watch::channel(Arc::default());
    let counters = Arc::new(Counters::default());
    let driver = Driver::new(state, followed, publish, Arc::clone(&counters));
    let task = tokio::spawn(driver.run(kernel, open));
    Setup {
        world,
        counters,
        follow,
        table,
        task,
    }
}

impl Setup {
    fn follow(&self, addresses: &[&str]) {
        let addresses = addresses.iter().map(|a| a.parse().unwrap()).collect();
        self.follow.send_replace(Arc::new(addresses));
    }

    fn fail(&self, failure: NextHopError) {
        *self.world.failure.lock().unwrap() = Some(failure);
        self.world.fail.notify_one();
    }

    async fn until_mac(&mut self, address: &str, mac: [u8; 6]) {
        let address = address.parse().unwrap();
        let to_mac = |table: &Arc<Table>| {
            let hop = table.get(&address).and_then(Resolution::next_hop);
            hop.is_some_and(|hop| hop.destination == mac)
        };
        let wait = self.table.wait_for(to_mac);
        let waited = tokio::time::timeout(Duration::from_secs(60), wait).await;
        assert!(
            waited.is_ok_and(|found| found.is_ok()),
            "{address}: {mac:?}"
        );
    }
}

fn broken() -> NextHopError {
    NextHopError::Socket(std::io::ErrorKind::ConnectionReset.into())
}

#[tokio::test(start_paused = true)]
async fn a_broken_socket_is_opened_anew_while_the_last_table_stays_in_force() {
    let mut setup = start().await;
    setup.follow(&["10.0.0.2", "fd00::2"]);
    setup.until_mac("10.0.0.2", MAC).await;
    let before = Arc::clone(&setup.table.borrow_and_update());
    setup.world.refuse.store(3, Ordering::SeqCst);
    let other = [2, 0, 0, 0, 0, 9];
    *setup.world.mac.lock().unwrap() = other;
    let broke = Instant::now();
    setup.fail(broken());
    assert_eq!(*setup.table.borrow(), before);
    setup.until_mac("10.0.0.2", other).await;
    // 10, 20, 40 and 80 ms, then the answers.
    let took = broke.elapsed();
    assert!((150..250).contains(&took.as_millis()), "{took:?}");
    assert_eq!(setup.world.opened.load(Ordering::SeqCst), 2);
    assert_eq!(setup.counters.restarts.load(Ordering::Relaxed), 4);
    assert_eq!(setup.counters.resyncs.load(Ordering::Relaxed), 0);
    // What is followed from now on goes by the new socket.
    setup.follow(&["10.0.0.3"]);
    setup.until_mac("10.0.0.3", other).await;
}

#[tokio::test(start_paused = true)]
async fn lost_changes_are_counted_apart_and_made_good() {
    let mut setup = start().await;
    setup.follow(&["10.0.0.2"]);
    setup.until_mac("10.0.0.2", MAC).await;
    let other = [2, 0, 0, 0, 0, 9];
    *setup.world.mac.lock().unwrap() = other;
    setup.fail(NextHopError::Overrun);
    setup.until_mac("10.0.0.2", other).await;
    assert_eq!(setup.counters.resyncs.load(Ordering::Relaxed), 1);
    assert_eq!(setup.counters.restarts.load(Ordering::Relaxed), 0);
}

#[tokio::test(start_paused = true)]
async fn the_task_ends_with_its_handle_in_a_session_and_between_two() {
    let Setup { follow, task, .. } = start().await;
    drop(follow);
    task.await.expect("it ends");

    let setup = start().await;
    setup.world.refuse.store(usize::MAX, Ordering::SeqCst);
    setup.fail(broken());
    let Setup { follow, task, .. } = setup;
    drop(follow);
    task.await.expect("it ends");
}

#[tokio::test(start_paused = true)]
async fn a_kernel_that_keeps_failing_is_asked_less_and_less() {
    let setup = start().await;
    setup.world.refuse.store(usize::MAX, Ordering::SeqCst);
    setup.fail(broken());
    tokio::time::advance(Duration::ZERO).await;
    let until = Instant::now() + Duration::from_secs(60);
    tokio::time::sleep_until(until).await;
    let restarts = setup.counters.restarts.load(Ordering::Relaxed);
    // 10 ms doubled up to 5 s is nine tries in the first 5 s, and then one every 5 s.
    assert!((18..=22).contains(&restarts), "{restarts}");
}
