//! The state against a kernel of a few maps, in time that the test makes.

use super::super::hop::{Nud, REFRESH};
use super::*;
use std::collections::HashMap;

const HOST: [u8; 6] = [2, 0, 0, 0, 0, 1];
const GATEWAY: [u8; 6] = [2, 0, 0, 0, 0, 2];
const OTHER: [u8; 6] = [2, 0, 0, 0, 0, 3];
const ETH0: u32 = 2;
const VLAN: u32 = 3;
const MS: Duration = Duration::from_millis(1);

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn link(index: u32, name: &str, kind: LinkKind) -> Link {
    Link {
        index,
        name: name.into(),
        kind,
        mac: HOST,
        mtu: 1500,
        up: true,
    }
}

fn route(ifindex: u32, via: Option<&str>) -> Result<Route, NoRoute> {
    Ok(Route {
        ifindex,
        via: via.map(ip),
        mtu: None,
    })
}

fn hop(ifindex: u32, address: &str) -> Hop {
    let address = ip(address);
    Hop { ifindex, address }
}

fn neighbour(state: Nud, mac: [u8; 6]) -> Option<Neighbour> {
    let mac = Some(mac);
    Some(Neighbour { state, mac })
}

/// A kernel that answers from maps, and a clock.
struct World {
    now: Instant,
    state: State,
    links: Vec<Link>,
    routes: HashMap<IpAddr, Result<Route, NoRoute>>,
    neighbours: HashMap<Hop, Neighbour>,
    asked: Vec<Query>,
    table: Arc<Table>,
    published: usize,
}

impl World {
    /// `eth0` with a gateway, and `eth0.100` on it.
    fn new() -> World {
        let now = Instant::now();
        let vlan = LinkKind::Vlan {
            base: ETH0,
            id: 100,
        };
        World {
            now,
            state: State::new(now),
            links: vec![
                link(ETH0, "eth0", LinkKind::Ethernet),
                link(VLAN, "eth0.100", vlan),
            ],
            routes: HashMap::new(),
            neighbours: HashMap::from([(
                hop(ETH0, "10.0.0.1"),
                neighbour(Nud::Reachable, GATEWAY).unwrap(),
            )]),
            asked: Vec::new(),
            table: Arc::default(),
            published: 0,
        }
    }

    fn follow(&mut self, addresses: &[&str]) {
        let addresses = addresses.iter().map(|a| ip(a)).collect();
        self.state.follow(self.now, &addresses);
    }

    fn event(&mut self, event: Event) -> bool {
        self.state.event(self.now, event)
    }

    /// Answers what is due now, and takes the table. The queries asked.
    fn turn(&mut self) -> Vec<Query> {
        let mut asked = Vec::new();
        loop {
            let queries = self.state.queries(self.now, 8);
            if queries.is_empty() {
                break;
            }
            assert!(queries.len() <= 8);
            asked.extend(&queries);
            assert!(asked.len() < 100_000, "asks without end");
            for query in queries {
                let answer = self.answer(query);
                self.state.answer(self.now, answer);
            }
        }
        if let Some(table) = self.state.publish(self.now) {
            (self.table, self.published) = (table, self.published + 1);
        }
        self.asked.extend(&asked);
        asked
    }

    fn answer(&self, query: Query) -> Answer {
        match query {
            Query::Links => Answer::Links(self.links.clone()),
            Query::Route(address) => {
                let route = self.routes.get(&address).copied();
                Answer::Route(address, route.unwrap_or(Err(NoRoute::Missing)))
            }
            Query::Look(hop) => Answer::Look(hop, self.neighbours.get(&hop).copied()),
            Query::Use(hop) => Answer::Use(hop, Ok(())),
        }
    }

    /// Lives through deadlines until some time has passed. The queries asked.
    fn pass(&mut self, time: Duration) -> Vec<Query> {
        let until = self.now + time;
        let mut asked = self.turn();
        while let Some(at) = self.state.next_deadline().filter(|at| *at <= until) {
            assert!(at >= self.now, "a deadline that stays in the past");
            self.now = at;
            asked.extend(self.turn());
        }
        self.now = until;
        asked
    }

    fn is(&self, address: &str) -> Option<String> {
        self.table.get(&ip(address)).map(ToString::to_string)
    }
}

#[test]
fn each_way_to_an_address_is_told_apart() {
    let mut world = World::new();
    let down = Link {
        up: false,
        ..link(7, "eth7", LinkKind::Ethernet)
    };
    let on_vlan = |index, name, base| link(index, name, LinkKind::Vlan { base, id: 9 });
    world.links.extend([
        down,
        on_vlan(8, "eth7.9", 7),
        on_vlan(9, "stacked", VLAN),
        on_vlan(10, "orphan", 99),
        link(11, "tun0", LinkKind::Unusable(Unsupported::NotEthernet)),
    ]);
    let mac = neighbour(Nud::Stale, OTHER).unwrap();
    world.neighbours.insert(hop(VLAN, "10.1.0.9"), mac);
    world.neighbours.insert(hop(ETH0, "fe80::1"), mac);
    let silent = Neighbour {
        state: Nud::Failed,
        mac: None,
    };
    world.neighbours.insert(hop(ETH0, "10.0.0.9"), silent);
    let table = [
        (
            "192.0.2.1",
            route(ETH0, Some("10.0.0.1")),
            "02:00:00:00:00:02 via 10.0.0.1 dev eth0",
        ),
        ("10.0.0.1", route(ETH0, None), "02:00:00:00:00:02 dev eth0"),
        (
            "10.1.0.9",
            route(VLAN, None),
            "02:00:00:00:00:03 dev eth0 (vlan 100)",
        ),
        (
            "192.0.2.2",
            route(ETH0, Some("fe80::1")),
            "02:00:00:00:00:03 via fe80::1 dev eth0",
        ),
        (
            "10.0.0.9",
            route(ETH0, None),
            "10.0.0.9 does not answer on eth0",
        ),
        (
            "10.0.0.8",
            route(ETH0, None),
            "10.0.0.8 does not answer on eth0",
        ),
        (
            "10.1.0.8",
            route(VLAN, None),
            "10.1.0.8 does not answer on eth0.100",
        ),
        ("10.7.0.1", route(7, None), "eth7 is down"),
        ("10.8.0.1", route(8, None), "eth7 is down"),
        (
            "10.9.0.1",
            route(9, None),
            "stacked adds more than one 802.1Q tag",
        ),
        (
            "10.10.0.1",
            route(10, None),
            "orphan is a VLAN of an interface in another network namespace",
        ),
        (
            "10.11.0.1",
            route(11, None),
            "tun0 is not an Ethernet device",
        ),
        ("10.12.0.1", route(12, None), "interface 12 is down"),
        (
            "10.0.0.5",
            Err(NoRoute::Local),
            "is an address of this host",
        ),
        (
            "10.13.0.1",
            Err(NoRoute::Missing),
            "no route; see `ip route get`",
        ),
    ];
    for (address, route, _) in table {
        world.routes.insert(ip(address), route);
    }
    world.follow(&table.map(|(address, _, _)| address));
    world.pass(10 * MS);
    for (address, _, expected) in table {
        assert_eq!(world.is(address).as_deref(), Some(expected), "{address}");
    }
}

#[test]
fn source_mtu_and_number_come_from_the_right_device() {
    let mut world = World::new();
    (world.links[1].mac, world.links[1].mtu) = (OTHER, 1400);
    let address = ip("10.1.0.9");
    let mac = neighbour(Nud::Reachable, GATEWAY).unwrap();
    world.neighbours.insert(hop(VLAN, "10.1.0.9"), mac);
    for (route_mtu, link_mtu, expected) in [
        (None, 1400, 1400),
        (Some(1300), 1400, 1300),
        (Some(9000), 1400, 1400),
        (None, 100_000, u16::MAX),
    ] {
        let route = Route {
            ifindex: VLAN,
            via: None,
            mtu: route_mtu,
        };
        world.routes.insert(address, Ok(route));
        world.links[1].mtu = link_mtu;
        world.follow(&["10.1.0.9"]);
        let changed = world.links[1].clone();
        world.event(Event::Link(changed));
        world.event(Event::AllRoutes);
        world.pass(20 * MS);
        let found = world.table[&address].next_hop().cloned();
        let next_hop = NextHop {
            device: "eth0".into(),
            ifindex: ETH0,
            vlan: Some(100),
            source: OTHER,
            destination: GATEWAY,
            mtu: expected,
            via: None,
        };
        assert_eq!(found, Some(next_hop));
    }
}

#[test]
fn nothing_is_said_of_an_address_before_the_kernel_was_asked() {
    let mut world = World::new();
    world
        .routes
        .insert(ip("192.0.2.1"), route(ETH0, Some("10.0.0.1")));
    world.follow(&["192.0.2.1"]);
    assert_eq!(world.state.queries(world.now, 8), [Query::Links]);
    world
        .state
        .answer(world.now, Answer::Links(world.links.clone()));
    let asked = world.state.queries(world.now, 8);
    assert_eq!(asked, [Query::Route(ip("192.0.2.1"))]);
    let answer = world.answer(asked[0]);
    world.state.answer(world.now, answer);
    assert_eq!(
        world.state.publish(world.now),
        None,
        "the neighbor is not known yet"
    );
    assert_eq!(world.turn(), [Query::Look(hop(ETH0, "10.0.0.1"))]);
    assert!(world.table[&ip("192.0.2.1")].next_hop().is_some());
}

#[test]
fn the_old_next_hop_stays_until_the_new_one_was_looked_at() {
    let mut world = World::new();
    let address = ip("192.0.2.1");
    world.routes.insert(address, route(ETH0, Some("10.0.0.1")));
    world.follow(&["192.0.2.1"]);
    world.pass(10 * MS);
    let other = neighbour(Nud::Reachable, OTHER).unwrap();
    world.neighbours.insert(hop(ETH0, "10.0.0.2"), other);
    world.routes.insert(address, route(ETH0, Some("10.0.0.2")));
    world.event(Event::Routes(address..=address));
    world.now += DEBOUNCE;
    let asked = world.state.queries(world.now, 8);
    assert_eq!(asked, [Query::Route(address)]);
    let answer = world.answer(asked[0]);
    world.state.answer(world.now, answer);
    assert_eq!(world.state.publish(world.now), None);
    world.pass(10 * MS);
    assert_eq!(
        world.is("192.0.2.1").as_deref(),
        Some("02:00:00:00:00:03 via 10.0.0.2 dev eth0")
    );
    assert_eq!(world.published, 2);
    assert_eq!(
        world.state.hops.len(),
        1,
        "the old hop is of no use any more"
    );
}

#[test]
fn a_change_of_routes_concerns_the_addresses_under_it() {
    let mut world = World::new();
    let all = ["10.0.0.9", "192.0.2.1", "192.0.2.200", "fd00::9"];
    world.follow(&all);
    world.pass(10 * MS);
    let routes = |addresses: &[&str]| -> BTreeSet<Query> {
        addresses.iter().map(|a| Query::Route(ip(a))).collect()
    };
    for (event, concerned) in [
        (
            Event::Routes(ip("192.0.2.0")..=ip("192.0.2.127")),
            &all[1..2],
        ),
        (
            Event::Routes(ip("0.0.0.0")..=ip("255.255.255.255")),
            &all[..3],
        ),
        (Event::Routes(ip("fd00::")..=ip("fd00::ffff")), &all[3..]),
        (Event::Routes(ip("10.1.0.0")..=ip("10.1.0.255")), &[]),
        (Event::AllRoutes, &all[..]),
        (Event::LinkGone(VLAN), &all[..]),
        (Event::LinkGone(VLAN), &[]),
    ] {
        assert_eq!(
            world.event(event.clone()),
            !concerned.is_empty(),
            "{event:?}"
        );
        assert_eq!(
            world.turn(),
            [],
            "{event:?}: not before the changes have settled"
        );
        let asked: BTreeSet<Query> = world.pass(50 * MS).into_iter().collect();
        assert_eq!(asked, routes(concerned), "{event:?}");
    }
}

#[test]
fn many_changes_are_one_question() {
    let mut world = World::new();
    world.follow(&["192.0.2.1"]);
    world.pass(10 * MS);
    for _ in 0..1_000 {
        world.event(Event::AllRoutes);
    }
    assert_eq!(world.pass(50 * MS), [Query::Route(ip("192.0.2.1"))]);
}

#[test]
fn routes_that_never_rest_cost_a_share_of_the_time() {
    let mut world = World::new();
    let addresses: Vec<String> = (0..100).map(|n| format!("192.0.2.{n}")).collect();
    let addresses: Vec<&str> = addresses.iter().map(String::as_str).collect();
    world.follow(&addresses);
    world.pass(10 * MS);
    let (began, mut busy) = (world.now, Duration::ZERO);
    for _ in 0..20_000 {
        world.event(Event::AllRoutes);
        let queries = world.state.queries(world.now, 64);
        for &query in &queries {
            // This kernel takes its time.
            world.now += MS;
            busy += MS;
            let answer = world.answer(query);
            world.state.answer(world.now, answer);
        }
        if queries.is_empty() {
            world.now += MS;
        }
    }
    let share = busy.as_secs_f64() / (world.now - began).as_secs_f64();
    let allowed = 1.0 / f64::from(DUTY);
    assert!(share > allowed * 0.8, "{share}: routes go unasked");
    assert!(share < allowed * 1.1, "{share}: the kernel is kept busy");
}

#[test]
fn a_neighbors_loss_shows_for_all_who_use_it_at_once() {
    let mut world = World::new();
    let users = ["192.0.2.1", "192.0.2.2", "192.0.2.3"];
    for user in users {
        world.routes.insert(ip(user), route(ETH0, Some("10.0.0.1")));
    }
    world.follow(&users);
    world.pass(10 * MS);
    let gateway = hop(ETH0, "10.0.0.1");
    world.neighbours.remove(&gateway);
    assert!(world.event(Event::Neighbour(gateway, None)));
    assert_eq!(
        world.turn()[..2],
        [Query::Use(gateway), Query::Look(gateway)]
    );
    for user in users {
        assert_eq!(
            world.is(user).as_deref(),
            Some("10.0.0.1 does not answer on eth0")
        );
    }
    // The kernel may have turned to another router: the routes are asked for again.
    let asked = world.pass(900 * MS);
    assert_eq!(
        asked,
        users
            .map(|user| Query::Route(ip(user)))
            .into_iter()
            .rev()
            .collect::<Vec<_>>()
    );
    let back = neighbour(Nud::Reachable, OTHER);
    world.neighbours.insert(gateway, back.unwrap());
    world.event(Event::Neighbour(gateway, back));
    world.turn();
    for user in users {
        assert_eq!(
            world.is(user).as_deref(),
            Some("02:00:00:00:00:03 via 10.0.0.1 dev eth0")
        );
    }
    assert!(
        !world.event(Event::Neighbour(hop(ETH0, "10.0.0.77"), back)),
        "nobody's hop"
    );
}

#[test]
fn a_silent_neighbor_costs_a_question_every_half_minute_and_a_reachable_one_none() {
    let mut world = World::new();
    world.routes.insert(ip("10.0.0.9"), route(ETH0, None));
    world
        .routes
        .insert(ip("192.0.2.1"), route(ETH0, Some("10.0.0.1")));
    world.follow(&["10.0.0.9", "192.0.2.1"]);
    let asked = world.pass(Duration::from_secs(600));
    let uses: Vec<_> = asked
        .iter()
        .filter(|q| matches!(q, Query::Use(_)))
        .collect();
    // At 0, 1, 3, 7, 15, 31 s, then every 30 s.
    assert_eq!(uses.len(), 6 + 18, "{uses:?}");
    assert!(
        uses.iter()
            .all(|q| **q == Query::Use(hop(ETH0, "10.0.0.9")))
    );
    let routes = asked.iter().filter(|q| matches!(q, Query::Route(_)));
    assert_eq!(
        routes.count(),
        2 * (1 + 9),
        "at first, and an audit a minute"
    );
}

#[test]
fn a_stale_neighbor_is_kept_alive() {
    let mut world = World::new();
    let gateway = hop(ETH0, "10.0.0.1");
    world
        .routes
        .insert(ip("192.0.2.1"), route(ETH0, Some("10.0.0.1")));
    world.follow(&["192.0.2.1"]);
    world.pass(10 * MS);
    let asked = |asked: Vec<Query>| asked.contains(&Query::Use(gateway));
    assert!(
        !asked(world.pass(Duration::from_secs(45))),
        "it is confirmed"
    );
    let stale = neighbour(Nud::Stale, GATEWAY);
    world
        .neighbours
        .insert(gateway, neighbour(Nud::Delay, GATEWAY).unwrap());
    world.event(Event::Neighbour(gateway, stale));
    assert!(asked(world.turn()));
    // The answer got lost: once more in time before the kernel forgets it.
    assert!(!asked(world.pass(REFRESH - MS)));
    assert!(asked(world.pass(2 * MS)));
    assert_eq!(world.published, 1, "none of that is another next hop");
}

#[test]
fn who_is_not_followed_any_more_leaves_nothing_behind() {
    let mut world = World::new();
    world
        .routes
        .insert(ip("192.0.2.1"), route(ETH0, Some("10.0.0.1")));
    world.routes.insert(ip("10.0.0.9"), route(ETH0, None));
    world.follow(&["192.0.2.1", "10.0.0.9"]);
    world.pass(10 * MS);
    world.event(Event::AllRoutes);
    world.follow(&["10.0.0.9"]);
    world.pass(10 * MS);
    assert_eq!(
        world.table.keys().copied().collect::<Vec<_>>(),
        [ip("10.0.0.9")]
    );
    world.follow(&[]);
    world.pass(10 * MS);
    assert!(world.table.is_empty());
    assert!(world.state.hops.is_empty() && world.state.timers.is_empty());
    assert_eq!(world.state.next_deadline(), None, "nothing to wait for");
    assert_eq!(world.pass(Duration::from_secs(300)), []);
}

#[test]
fn a_resync_asks_for_everything_and_keeps_what_is_in_force() {
    let mut world = World::new();
    world
        .routes
        .insert(ip("192.0.2.1"), route(ETH0, Some("10.0.0.1")));
    world.follow(&["192.0.2.1"]);
    world.pass(10 * MS);
    // The connection dies with a question on its way, and the gateway changes meanwhile.
    world.event(Event::AllRoutes);
    world.now += DEBOUNCE;
    assert_eq!(world.state.queries(world.now, 8).len(), 1);
    let gateway = hop(ETH0, "10.0.0.1");
    world
        .neighbours
        .insert(gateway, neighbour(Nud::Reachable, OTHER).unwrap());
    world.state.resync(world.now);
    assert_eq!(world.state.publish(world.now), None);
    let asked: BTreeSet<Query> = world.pass(50 * MS).into_iter().collect();
    let expected = [
        Query::Links,
        Query::Route(ip("192.0.2.1")),
        Query::Look(gateway),
    ];
    assert_eq!(asked, expected.into());
    assert_eq!(world.published, 2);
    assert_eq!(
        world.is("192.0.2.1").as_deref(),
        Some("02:00:00:00:00:03 via 10.0.0.1 dev eth0")
    );
}

#[test]
fn tables_keep_a_distance_and_the_last_one_counts() {
    let mut world = World::new();
    let gateway = hop(ETH0, "10.0.0.1");
    world
        .routes
        .insert(ip("192.0.2.1"), route(ETH0, Some("10.0.0.1")));
    world.follow(&["192.0.2.1"]);
    world.pass(10 * MS);
    let (began, before) = (world.now, world.published);
    for n in 0..=100 {
        let mac = [2, 0, 0, 0, 1, n];
        world.event(Event::Neighbour(gateway, neighbour(Nud::Reachable, mac)));
        world.turn();
        world.now += MS / 10;
    }
    world.pass(10 * MS);
    let published = (world.published - before) as u32;
    let most = (world.now - began).div_duration_f64(PUBLISH_GAP) as u32;
    assert!((2..=most).contains(&published), "{published} of {most}");
    let last = world.table[&ip("192.0.2.1")]
        .next_hop()
        .map(|hop| hop.destination);
    assert_eq!(last, Some([2, 0, 0, 0, 1, 100]));
}

#[test]
fn other_links_are_ignored_but_for_coming_up_and_going_down() {
    let mut world = World::new();
    world
        .routes
        .insert(ip("192.0.2.1"), route(ETH0, Some("10.0.0.1")));
    world.follow(&["192.0.2.1"]);
    world.pass(10 * MS);
    let eth0 = world.links[0].clone();
    assert!(!world.event(Event::Link(eth0.clone())), "nothing new");
    let other = Link {
        up: false,
        ..link(20, "veth20", LinkKind::Ethernet)
    };
    assert!(!world.event(Event::Link(other.clone())), "new and down");
    let renamed = Link {
        name: "veth21".into(),
        ..other.clone()
    };
    assert!(!world.event(Event::Link(renamed)));
    assert!(
        world.event(Event::Link(Link { up: true, ..other })),
        "a way out more"
    );
    assert_eq!(world.published, 1);
    world.event(Event::Link(Link { up: false, ..eth0 }));
    world.pass(10 * MS);
    assert_eq!(world.is("192.0.2.1").as_deref(), Some("eth0 is down"));
}
