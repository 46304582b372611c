//! Which VIPs are announced.

use super::*;
use crate::services::parse;

const TWO: &str = r#"
[[service]]
name = "web"
vips = ["203.0.113.10:80/tcp", "[2001:db8::10]:80/tcp"]
backends = [{ address = "10.0.1.11" }, { address = "10.0.1.12", weight = 0 }]

[[service]]
name = "dns"
vips = ["203.0.113.10:53/udp"]
backends = [{ address = "10.0.1.13" }]
"#;

fn services() -> Vec<Service> {
    parse("services.toml", TWO).unwrap().services
}

fn state(services: &[Service], address: &str, balancer: Balancer) -> Option<Withheld> {
    announcements(services, balancer, &BTreeSet::new())[&address.parse::<IpAddr>().unwrap()].clone()
}

fn without_backends(name: &str) -> Vec<Service> {
    let mut services = services();
    let service = services.iter_mut().find(|s| s.name.as_str() == name);
    service.unwrap().backends.clear();
    services
}

#[test]
fn vips_of_services_with_backends_are_announced_while_the_engine_forwards() {
    for address in ["203.0.113.10", "2001:db8::10"] {
        assert_eq!(state(&services(), address, Balancer::Forwards), None);
    }
}

#[test]
fn nothing_is_announced_for_a_balancer_that_does_not_serve() {
    for (balancer, why) in [
        (Balancer::WithoutEngine, Withheld::NoEngine),
        (Balancer::Drained, Withheld::Drained),
        (Balancer::Ends, Withheld::Ending),
    ] {
        assert_eq!(state(&services(), "2001:db8::10", balancer), Some(why));
    }
}

#[test]
fn an_address_stays_while_one_of_its_services_serves() {
    for name in ["web", "dns"] {
        let left = without_backends(name);
        assert_eq!(state(&left, "203.0.113.10", Balancer::Forwards), None);
    }
    let web = ServiceName::new("web").unwrap();
    assert_eq!(
        state(&without_backends("web"), "2001:db8::10", Balancer::Forwards),
        Some(Withheld::NoBackend(web))
    );
}

#[test]
fn a_balancer_that_is_cut_off_from_every_service_of_an_address_leaves_it_to_others() {
    let [web, dns] = ["web", "dns"].map(|name| ServiceName::new(name).unwrap());
    let (v4, v6) = ("203.0.113.10", "2001:db8::10");
    let without = |cut_off: &[&ServiceName], balancer| {
        let cut_off = cut_off.iter().map(|name| (*name).clone()).collect();
        let found = announcements(&services(), balancer, &cut_off);
        [v4, v6].map(|address| found[&address.parse::<IpAddr>().unwrap()].clone())
    };
    let cut_off = Some(Withheld::CutOff(web.clone()));
    assert_eq!(
        without(&[&web], Balancer::Forwards),
        [None, cut_off.clone()]
    );
    assert_eq!(
        without(&[&web, &dns], Balancer::Forwards),
        [cut_off.clone(), cut_off]
    );
    let drained = Some(Withheld::Drained);
    assert_eq!(
        without(&[&web, &dns], Balancer::Drained),
        [drained.clone(), drained]
    );
}

#[test]
fn backends_that_drain_keep_their_address_announced() {
    let mut services = services();
    services[0].backends.remove(0);
    assert_eq!(state(&services, "2001:db8::10", Balancer::Forwards), None);
}

#[test]
fn backends_that_are_down_do_not() {
    let mut services = services();
    for backend in &mut services[0].backends {
        backend.health.verdict = Verdict::Down;
    }
    assert!(state(&services, "2001:db8::10", Balancer::Forwards).is_some());
}

#[test]
fn an_address_of_a_cluster_that_goes_nowhere_is_withheld_and_one_that_goes_one_way_by_the_others() {
    let address = |text: &str| text.parse::<IpAddr>().unwrap();
    let (file, nowhere, link, down) = (
        address("203.0.113.1"),
        address("203.0.113.2"),
        address("203.0.113.3"),
        address("203.0.113.4"),
    );
    let vips = Announcements::from([
        (file, None),
        (nowhere, None),
        (link, None),
        (down, Some(Withheld::Drained)),
    ]);
    let on_the_link = Advertised {
        layer2: Some(ways::Interfaces::All),
        ..Advertised::default()
    };
    let ways = Advertisements::from([
        (nowhere, Advertised::default()),
        (link, on_the_link.clone()),
        (down, Advertised::default()),
        (address("203.0.113.9"), on_the_link.clone()),
    ]);
    assert_eq!(ways::from_json(&ways::to_json(&ways)), Ok(ways.clone()));
    let announced = Announced::new(vips, ways);
    assert_eq!(announced.ways.len(), 3, "one is no VIP here");
    assert_eq!(announced.vips[&nowhere], Some(Withheld::NotAdvertised));
    assert_eq!(announced.vips[&down], Some(Withheld::Drained));
    let all: Vec<_> = announced.announced().collect();
    assert_eq!(all, [(file, None), (link, Some(&on_the_link))]);
    let by_bgp: Vec<_> = announced.withheld(|way| !way.bgp.is_empty()).collect();
    assert_eq!(
        by_bgp,
        [
            (nowhere, Withheld::NotAdvertised),
            (link, Withheld::NotAdvertised),
            (down, Withheld::Drained),
        ]
    );
    let on_link: Vec<_> = announced.withheld(|way| way.layer2.is_some()).collect();
    assert_eq!(on_link.len(), 2);
}
