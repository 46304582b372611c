//! Errors about packets of the tunnels themselves.

use super::*;
use crate::time::Seconds;

/// A packet of the client in its tunnel to the server, as a router on that way quotes it.
fn tunnelled(net: &Net, bytes: usize) -> Vec<u8> {
    let protocol = if net.is_v4() { 4 } else { 41 };
    packet(net.engine, net.server, protocol, &net.request(TCP, bytes))
}

fn too_big(net: &Net, mtu: u16, quote: &[u8]) -> Vec<u8> {
    let most = if net.is_v4() { 548 } else { 1_232 };
    let quote = &quote[..quote.len().min(most)];
    icmp(net.router, net.engine, net.too_big(mtu), quote)
}

#[test]
fn a_client_is_told_what_a_router_on_the_way_of_its_tunnel_says() {
    for net in nets() {
        let mut dataplane = net.dataplane();
        let error = too_big(&net, 1_500, &tunnelled(&net, 1_500));
        let answer = send(&mut dataplane, T0, &plain(&[], &error)).unwrap();
        assert!(answer.goes_back());
        assert_eq!((answer.from, answer.to), (net.vip, net.client));
        let (kind, code, rest, quote) = answer.message();
        let inside = 1_500 - net.header() as u16;
        assert_eq!((kind, code, rest), net.too_big(inside));
        assert_eq!(quote, &net.request(TCP, 1_500)[..quote.len()]);
        assert!(quote.len() >= net.header() + 8);

        // From now on the engine knows by itself.
        let room = net.header() as u16;
        let long = roomy(room, &net.request(TCP, 1_500));
        let answer = send(&mut dataplane, T0, &long).unwrap();
        assert_eq!(answer.to, net.client);
        assert_eq!(answer.message().2, net.too_big(inside).2);
        let fits = usize::from(inside) - net.header() - 20;
        let short = roomy(room, &net.request(TCP, fits));
        assert_eq!(send(&mut dataplane, T0, &short).unwrap().to, net.server);

        // For ten minutes.
        for (seconds, to) in [(599, net.client), (600, net.server)] {
            let later = Micros::new(T0.get() + seconds * 1_000_000);
            dataplane.tick(Seconds::at(later), 1);
            assert_eq!(send(&mut dataplane, later, &long).unwrap().to, to);
        }
    }
}

#[test]
fn without_the_packet_inside_only_the_way_is_remembered() {
    for net in nets() {
        let quote = tunnelled(&net, 1_500);
        let mut dataplane = net.dataplane();
        let error = too_big(&net, 700, &quote[..net.header() + 8]);
        let sent = send(&mut dataplane, T0, &plain(&[], &error));
        assert_eq!(sent, Err(DropReason::IcmpTunnel));
        let long = roomy(net.header() as u16, &net.request(TCP, 1_500));
        let answer = send(&mut dataplane, T0, &long).unwrap();
        // Not so little is believed for everybody: IPv6 has to fit inside, whatever the tunnel.
        let inside = 1_280 + 48 - net.header() as u16;
        assert_eq!(answer.message().2, net.too_big(inside).2);
    }
}

#[test]
fn what_a_stranger_could_make_up_changes_nothing() {
    let [net, _] = nets();
    let quote = tunnelled(&net, 1_500);
    let elsewhere = packet(
        net.engine,
        "10.0.0.99".parse().unwrap(),
        4,
        &net.request(TCP, 1_500),
    );
    let rows = [
        (
            "an MTU that the packet fits",
            too_big(&net, 1_560, &quote),
            DropReason::IcmpTunnel,
        ),
        (
            "to no backend",
            too_big(&net, 1_000, &elsewhere),
            DropReason::IcmpUnmatched,
        ),
        (
            "protocol unreachable",
            icmp(net.server, net.engine, (3, 2, [0; 4]), &quote[..548]),
            DropReason::IcmpTunnel,
        ),
    ];
    for (description, error, expected) in rows {
        let mut dataplane = net.dataplane();
        assert_eq!(
            send(&mut dataplane, T0, &plain(&[], &error)),
            Err(expected),
            "{description}"
        );
        assert_eq!(drops(&dataplane, expected), 1, "{description} is counted");
        let long = roomy(20, &net.request(TCP, 1_500));
        assert_eq!(
            send(&mut dataplane, T0, &long).unwrap().to,
            net.server,
            "{description}"
        );
    }
}

#[test]
fn an_old_router_that_says_no_mtu_means_576() {
    let [net, _] = nets();
    let error = too_big(&net, 0, &tunnelled(&net, 1_500));
    let answer = send(&mut net.dataplane(), T0, &plain(&[], &error)).unwrap();
    assert_eq!(answer.message().2, net.too_big(556).2);
}

#[test]
fn ways_that_are_remembered_are_bounded() {
    let [net, _] = nets();
    let backends: Vec<_> = (1..=200).map(|n| backend(&format!("10.0.0.{n}"))).collect();
    let vips = net.vips();
    let web = service("web", &[vips[0].as_str()], backends);
    let mut dataplane = dataplane(compile(&Tables::default(), 1, Vec::from([web])));
    for n in 1..=200 {
        let end = format!("10.0.0.{n}").parse().unwrap();
        let quote = packet(net.engine, end, 4, &net.request(TCP, 1_500));
        let error = too_big(&net, 1_400, &quote[..28]);
        let at = Micros::new(T0.get() + n * 1_000_000);
        let sent = send(&mut dataplane, at, &plain(&[], &error));
        assert_eq!(sent, Err(DropReason::IcmpTunnel));
    }
    assert_eq!(dataplane.flows.unusual.paths.watch(), 1_400 - 48);
    // All of them forgotten: none was kept beside the bound.
    dataplane.tick(Seconds::new(1_000 + 200 + 600), 1);
    assert_eq!(dataplane.flows.unusual.paths.watch(), u16::MAX);
}

#[test]
fn who_refuses_a_tunnel_is_counted_for_the_backend_and_the_vip() {
    for net in nets() {
        let mut dataplane = net.dataplane();
        let quote = tunnelled(&net, 600);
        let (unreachable, exceeded) = match net.is_v4() {
            true => ((3, 2, [0; 4]), (11, 0, [0; 4])),
            false => ((1, 4, [0; 4]), (3, 0, [0; 4])),
        };
        let header = if net.is_v4() { 20 } else { 40 };
        // Whole, as much as routers quote, and the outer header alone: that shows nobody's packet.
        let rows = [
            (unreachable, 500, 1),
            (exceeded, header + net.header() + 8, 2),
            (exceeded, header, 2),
        ];
        for (at, (kind, bytes, refused)) in rows.into_iter().enumerate() {
            let error = icmp(net.server, net.engine, kind, &quote[..bytes]);
            let sent = send(&mut dataplane, T0, &plain(&[], &error));
            assert_eq!(sent, Err(DropReason::IcmpTunnel));
            assert_eq!(drops(&dataplane, DropReason::IcmpTunnel), at as u64 + 1);
            let backends = dataplane.counters().backends.iter();
            let counted = backends.map(|b| (b.refused.get(), b.refused_at.get()));
            assert_eq!(counted.max(), Some((refused, T0.get())));
            let unknown = &dataplane.counters().vips[0];
            let nobodys = unknown.drops[DropReason::IcmpTunnel as usize].get();
            assert_eq!(nobodys, at as u64 + 1 - refused);
        }
    }
}
