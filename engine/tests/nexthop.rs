//! Next hops against the real kernel, in network namespaces of their own.

#[path = "nexthop_lab/mod.rs"]
mod nexthop_lab;

use lockstep_engine::agent::nexthop::{NextHop, NoRoute, Resolution, Table, Unsupported};
use nexthop_lab::{Followed, HOST_MAC, Lab, PEER_MAC, lab, parse};
use std::fmt::Write;
use std::time::{Duration, Instant};

const OTHER_MAC: [u8; 6] = [2, 0, 0, 0, 0, 9];

fn by_e0(lab: &Lab, via: Option<&str>) -> NextHop {
    let index = lab.show("-o link show dev e0");
    let ifindex = index.split(':').next().and_then(|n| n.parse().ok());
    NextHop {
        device: "e0".into(),
        ifindex: ifindex.expect("its number"),
        vlan: None,
        source: HOST_MAC,
        destination: PEER_MAC,
        mtu: 1500,
        via: via.map(parse),
    }
}

#[test]
fn addresses_on_the_link_and_behind_gateways_are_resolved() {
    lab(async |lab| {
        lab.host(
            "route add 192.0.2.0/24 via 10.0.0.2 mtu 1400
             route add 2001:db8::/32 via fd00::2
             route add 198.51.100.0/24 via inet6 fd00::2 dev e0",
        );
        let all = [
            ("10.0.0.3", None),
            ("fd00::3", None),
            ("192.0.2.7", Some("10.0.0.2")),
            ("2001:db8::7", Some("fd00::2")),
            ("198.51.100.7", Some("fd00::2")),
        ];
        let followed = Followed::start(&all.map(|(address, _)| address)).await;
        for (address, via) in all {
            let mut expected = by_e0(lab, via);
            if address == "192.0.2.7" {
                expected.mtu = 1400;
            }
            assert_eq!(followed.until_mac(address, PEER_MAC).await, expected);
        }
        followed.follow(&["10.0.0.3"]);
        followed
            .until("one address", |table| table.len() == 1)
            .await;
    });
}

#[test]
fn what_the_kernel_does_not_route_is_said_in_words() {
    lab(async |lab| {
        lab.host(
            "route add blackhole 10.7.0.0/24
             route add unreachable 10.8.0.0/24
             route add prohibit 10.9.0.0/24
             route add unreachable fd08::/64
             tuntap add name t0 mode tun
             link set t0 up
             route add 10.6.0.0/24 dev t0",
        );
        let expected = [
            ("10.0.0.1", NoRoute::Local),
            ("fd00::1", NoRoute::Local),
            ("10.0.0.255", NoRoute::NotUnicast),
            ("192.0.2.1", NoRoute::Missing),
            ("2001:db8::1", NoRoute::Missing),
            ("10.7.0.1", NoRoute::Blackhole),
            ("10.8.0.1", NoRoute::Unreachable),
            ("fd08::1", NoRoute::Unreachable),
            ("10.9.0.1", NoRoute::Prohibited),
        ];
        let mut addresses = expected.map(|(address, _)| address).to_vec();
        addresses.push("10.6.0.1");
        let followed = Followed::start(&addresses).await;
        for (address, why) in expected {
            followed
                .until_is(address, |is| *is == Resolution::NoRoute(why))
                .await;
        }
        let tun = Resolution::Unsupported {
            device: "t0".into(),
            why: Unsupported::NotEthernet,
        };
        followed.until_is("10.6.0.1", |is| *is == tun).await;
    });
}

#[test]
fn another_route_is_another_next_hop() {
    lab(async |lab| {
        let via = |gateway: &'static str| {
            move |is: &Resolution| {
                is.next_hop()
                    .is_some_and(|hop| hop.via == Some(parse(gateway)))
            }
        };
        lab.host("route add 192.0.2.0/24 via 10.0.0.2");
        let followed = Followed::start(&["192.0.2.7"]).await;
        followed.until_is("192.0.2.7", via("10.0.0.2")).await;
        // A more specific route, a replaced one, a rule, a next-hop object: each has its event.
        lab.host("route add 192.0.2.0/25 via 10.0.0.3");
        followed.until_is("192.0.2.7", via("10.0.0.3")).await;
        lab.host("route replace 192.0.2.0/25 via 10.0.0.2");
        followed.until_is("192.0.2.7", via("10.0.0.2")).await;
        lab.host(
            "route add 192.0.2.0/24 via 10.0.0.3 table 77
             rule add to 192.0.2.0/24 lookup 77",
        );
        followed.until_is("192.0.2.7", via("10.0.0.3")).await;
        lab.host(
            "rule del to 192.0.2.0/24 lookup 77
             nexthop add id 1 via 10.0.0.3 dev e0
             route replace 192.0.2.0/25 nhid 1",
        );
        followed.until_is("192.0.2.7", via("10.0.0.3")).await;
        lab.host("nexthop replace id 1 via 10.0.0.2 dev e0");
        followed.until_is("192.0.2.7", via("10.0.0.2")).await;
        lab.host(
            "route del 192.0.2.0/25
             route del 192.0.2.0/24",
        );
        let missing = Resolution::NoRoute(NoRoute::Missing);
        followed.until_is("192.0.2.7", |is| *is == missing).await;
    });
}

#[test]
fn a_deleted_neighbor_is_resolved_again() {
    lab(async |lab| {
        let followed = Followed::start(&["10.0.0.3", "fd00::3"]).await;
        followed.until_mac("10.0.0.3", PEER_MAC).await;
        followed.until_mac("fd00::3", PEER_MAC).await;
        lab.peer("link set p0 address 02:00:00:00:00:09");
        lab.host("neigh flush dev e0");
        followed.until_mac("10.0.0.3", OTHER_MAC).await;
        followed.until_mac("fd00::3", OTHER_MAC).await;
    });
}

#[test]
fn a_server_that_comes_back_with_another_mac_is_noticed_unprompted() {
    lab(async |lab| {
        for version in ["ipv4", "ipv6"] {
            let of_e0 = |name| format!("{version}/neigh/e0/{name}");
            lab.sysctl(&of_e0("base_reachable_time_ms"), "400");
            // Longer, and the kernel would take our asking for the address as use of it, and
            // would verify it once by itself.
            lab.sysctl(&of_e0("delay_first_probe_time"), "0");
            lab.sysctl(&of_e0("retrans_time_ms"), "100");
        }
        let followed = Followed::start(&["10.0.0.3", "fd00::3"]).await;
        followed.until_mac("10.0.0.3", PEER_MAC).await;
        followed.until_mac("fd00::3", PEER_MAC).await;
        lab.peer("link set p0 address 02:00:00:00:00:09");
        followed.until_mac("10.0.0.3", OTHER_MAC).await;
        followed.until_mac("fd00::3", OTHER_MAC).await;
    });
}

#[test]
fn a_silent_neighbor_is_reported_and_asked_for_again() {
    lab(async |lab| {
        let followed = Followed::start(&["10.0.0.3"]).await;
        followed.until_mac("10.0.0.3", PEER_MAC).await;
        lab.peer("link set p0 arp off");
        lab.host("neigh flush dev e0");
        let silent = Resolution::NoNeighbour {
            device: "e0".into(),
            next: parse("10.0.0.3"),
        };
        followed.until_is("10.0.0.3", |is| *is == silent).await;
        lab.peer("link set p0 arp on");
        followed.until_mac("10.0.0.3", PEER_MAC).await;
    });
}

#[test]
fn a_link_that_goes_down_is_reported_and_found_again() {
    lab(async |lab| {
        lab.host("route add 192.0.2.0/24 via 10.0.0.2");
        let all = ["10.0.0.3", "192.0.2.7"];
        let followed = Followed::start(&all).await;
        let unreachable = |is: &Resolution| is.next_hop().is_none();
        let all_by = async |mac| {
            for address in all {
                followed.until_mac(address, mac).await;
            }
        };
        all_by(PEER_MAC).await;
        lab.host("link set e0 down");
        for address in all {
            followed.until_is(address, unreachable).await;
        }
        // The kernel dropped the route by the gateway with the link.
        lab.host(
            "link set e0 up
             route add 192.0.2.0/24 via 10.0.0.2",
        );
        all_by(PEER_MAC).await;
        // Without a carrier the routes stay.
        lab.peer("link set p0 down");
        let down = Resolution::Down {
            device: "e0".into(),
        };
        for address in all {
            followed.until_is(address, |is| *is == down).await;
        }
        lab.peer("link set p0 up");
        all_by(PEER_MAC).await;
    });
}

#[test]
fn a_renamed_or_renumbered_link_shows_in_its_next_hops() {
    lab(async |lab| {
        let followed = Followed::start(&["10.0.0.3"]).await;
        followed.until_mac("10.0.0.3", PEER_MAC).await;
        lab.host("link set e0 address 02:00:00:00:00:07 mtu 1300");
        let changed = |is: &Resolution| {
            is.next_hop()
                .is_some_and(|hop| hop.source == [2, 0, 0, 0, 0, 7] && hop.mtu == 1300)
        };
        followed.until_is("10.0.0.3", changed).await;
        lab.host("link set e0 name e7");
        let renamed = |is: &Resolution| is.next_hop().is_some_and(|hop| hop.device == "e7");
        followed.until_is("10.0.0.3", renamed).await;
    });
}

#[test]
fn an_operators_permanent_neighbor_is_left_alone() {
    lab(async |lab| {
        lab.host(
            "neigh add 10.0.0.77 lladdr 02:00:00:00:00:09 nud permanent dev e0
             neigh add fd00::77 lladdr 02:00:00:00:00:09 nud permanent dev e0",
        );
        let followed = Followed::start(&["10.0.0.77", "fd00::77", "10.0.0.3"]).await;
        followed.until_mac("10.0.0.77", OTHER_MAC).await;
        followed.until_mac("fd00::77", OTHER_MAC).await;
        followed.until_mac("10.0.0.3", PEER_MAC).await;
        let permanent = lab.show("neigh show nud permanent");
        for address in ["10.0.0.77", "fd00::77"] {
            assert!(permanent.contains(address), "{permanent}");
        }
    });
}

#[test]
fn a_thousand_addresses_by_one_gateway_take_one_question_each_and_then_none() {
    lab(async |lab| {
        lab.host("route add 172.16.0.0/16 via 10.0.0.2");
        let addresses: Vec<String> = (0..1_000)
            .map(|n| format!("172.16.{}.{}", n / 250, n % 250 + 1))
            .collect();
        let followed = Followed::start(&[]).await;
        let began = Instant::now();
        let text: Vec<&str> = addresses.iter().map(String::as_str).collect();
        followed.follow(&text);
        let all = |table: &Table| {
            table.len() == 1_000 && table.values().all(|is| is.next_hop().is_some())
        };
        followed.until("a thousand next hops", all).await;
        let took = began.elapsed();
        let usage = followed.next_hops.usage();
        assert!(took < Duration::from_secs(1), "{took:?}, {usage:?}");
        // The gateway itself costs a few: look, resolve, look.
        assert!((1_000..=1_010).contains(&usage.queries), "{usage:?}");

        // A route elsewhere concerns none of them, and nothing is asked while nothing changes.
        // The kernel may still be busy with the new links for a moment.
        let quiet = async || {
            lab.host("route replace 198.51.100.0/24 via 10.0.0.3");
            let before = followed.next_hops.usage();
            let mut table = followed.table.clone();
            table.mark_unchanged();
            let more = tokio::time::timeout(Duration::from_millis(500), table.changed()).await;
            assert!(more.is_err(), "a table without a change");
            followed.next_hops.usage() == before
        };
        let mut windows = 1;
        while !quiet().await {
            windows += 1;
            assert!(
                windows <= 10,
                "never idle: {:?}",
                followed.next_hops.usage()
            );
        }
        println!("1,000 addresses in {took:?}: {usage:?}");
    });
}

#[test]
fn changes_that_were_lost_are_made_good() {
    lab(async |lab| {
        lab.host("route add 192.0.2.0/24 via 10.0.0.2");
        let followed = Followed::start(&["192.0.2.7"]).await;
        followed.until_mac("192.0.2.7", PEER_MAC).await;
        // This blocks the only thread that reads events, until their buffer runs over. The last
        // change is the one that counts.
        let mut flood = String::new();
        for n in 0..20_000 {
            let (a, b) = (n / 250, n % 250);
            writeln!(flood, "route add 172.16.{a}.{b}/32 via 10.0.0.3").expect("text");
        }
        flood.push_str("route replace 192.0.2.0/24 via 10.0.0.3");
        lab.host(&flood);
        let moved = |is: &Resolution| {
            is.next_hop()
                .is_some_and(|hop| hop.via == Some(parse("10.0.0.3")))
        };
        followed.until_is("192.0.2.7", moved).await;
        let usage = followed.next_hops.usage();
        assert!(usage.resyncs >= 1, "the flood was too small: {usage:?}");
        assert_eq!(usage.restarts, 0);
    });
}
