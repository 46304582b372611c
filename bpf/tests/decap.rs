//! The decapsulating program in this kernel: frame in → decision, counter and frame out.

// A test that cannot be set up has failed.
#![allow(clippy::unwrap_used)]

mod support;

use etherparse::{NetHeaders, PacketHeaders};
use lockstep_bpf::{Action, BpfError, DecapCounters, DecapProgram};
use std::net::{Ipv4Addr, Ipv6Addr};
use std::num::NonZeroU16;
use support::*;

const END_V4: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 5);
const END_V6: Ipv6Addr = Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 5);

fn program() -> DecapProgram {
    DecapProgram::load(&[END_V4.into(), END_V6.into()], None).unwrap()
}

/// The protocol number for what is inside.
fn carrying(inner: &[u8]) -> u8 {
    if inner[0] >> 4 == 6 { IPV6 } else { IPIP }
}

fn in_v4(inner: &[u8]) -> Ip4 {
    let mut outer = Ip4::new(carrying(inner), inner.to_vec());
    outer.to = END_V4;
    outer
}

fn in_v6(inner: &[u8]) -> Ip6 {
    let mut outer = Ip6::new(carrying(inner), inner.to_vec());
    outer.to = END_V6;
    outer
}

fn expect(
    program: &DecapProgram,
    says: &str,
    frame: &[u8],
    action: Action,
    out: &[u8],
    counter: fn(&mut DecapCounters) -> &mut u64,
) {
    let mut counters = program.counters().unwrap();
    let run = program.run(frame, 1).unwrap();
    assert_eq!(run.action, action, "{says}");
    assert_eq!(run.frame, out, "{says}");
    *counter(&mut counters) += 1;
    assert_eq!(program.counters().unwrap(), counters, "{says}");
}

#[test]
fn the_outer_header_is_taken_off_in_all_four_combinations_and_under_vlan_tags() {
    let program = program();
    let mut inner_options = Ip4::new(TCP, tcp(80));
    inner_options.options = vec![1; 8];
    let inners: &[(&str, Vec<u8>)] = &[
        ("IPv4 TCP", Ip4::new(TCP, tcp(80)).build()),
        ("IPv4 with options", inner_options.build()),
        ("IPv4 fragment", {
            let mut ip = Ip4::new(UDP, udp(53));
            ip.fragment = 0x2000;
            ip.build()
        }),
        ("IPv4 header alone", Ip4::new(UDP, vec![]).build()),
        ("IPv6 UDP", Ip6::new(UDP, udp(53)).build()),
        ("IPv6 header alone", Ip6::new(59, vec![]).build()),
    ];
    for (says, inner) in inners {
        let mut options = in_v4(inner);
        options.options = vec![1; 40];
        let outers = [
            ("IPv4", in_v4(inner).build()),
            ("IPv4 with 40 bytes of options", options.build()),
            ("IPv6", in_v6(inner).build()),
        ];
        for (outer_says, outer) in &outers {
            for vlans in [&[][..], &[7], &[9, 7]] {
                expect(
                    &program,
                    &format!("{says} in {outer_says}, VLANs {vlans:?}"),
                    &frame(vlans, outer),
                    Action::Pass,
                    &frame(vlans, inner),
                    |counters| &mut counters.decapsulated,
                );
            }
        }
    }
}

/// A datagram to a port with this inside.
fn behind_udp(port: u16, inner: &[u8]) -> Vec<u8> {
    let mut datagram = vec![0xc3, 0x50];
    datagram.extend(port.to_be_bytes());
    let length = u16::try_from(8 + inner.len()).unwrap();
    datagram.extend(length.to_be_bytes());
    datagram.extend([0, 0]);
    datagram.extend(inner);
    datagram
}

#[test]
fn gue_is_taken_off_at_its_port_with_ecn_merged_and_left_alone_at_others() {
    let ends = [END_V4.into(), END_V6.into()];
    let program = DecapProgram::load(&ends, NonZeroU16::new(6080)).unwrap();
    let without = DecapProgram::load(&ends, None).unwrap();
    let inners = [
        Ip4::new(TCP, tcp(80)).build(),
        Ip4::new(UDP, udp(6080)).build(),
        Ip6::new(UDP, udp(53)).build(),
    ];
    for inner in &inners {
        let outers = |port: u16, to_us: bool| {
            let mut v4 = Ip4::new(UDP, behind_udp(port, inner));
            v4.to = if to_us { END_V4 } else { V4 };
            let mut v6 = Ip6::new(UDP, behind_udp(port, inner));
            v6.to = if to_us { END_V6 } else { V6 };
            [v4.build(), v6.build()]
        };
        for vlans in [&[][..], &[7], &[9, 7]] {
            for outer in outers(6080, true) {
                let (whole, bare) = (frame(vlans, &outer), frame(vlans, inner));
                expect(&program, "GUE", &whole, Action::Pass, &bare, |c| {
                    &mut c.decapsulated
                });
                expect(&without, "no port", &whole, Action::Pass, &whole, |c| {
                    &mut c.passed
                });
            }
            for outer in outers(6081, true).into_iter().chain(outers(6080, false)) {
                let whole = frame(vlans, &outer);
                expect(&program, "another", &whole, Action::Pass, &whole, |c| {
                    &mut c.passed
                });
            }
        }
        // IP in IP goes on to end here.
        let ipip = frame(&[], &in_v4(inner).build());
        let bare = frame(&[], inner);
        expect(&program, "IP in IP", &ipip, Action::Pass, &bare, |c| {
            &mut c.decapsulated
        });
        let mut marked = Ip4::new(UDP, behind_udp(6080, inner));
        (marked.to, marked.tos) = (END_V4, 3);
        let marked = frame(&[], &marked.build());
        let run = program.run(&marked, 1).unwrap();
        assert_eq!(run.action, Action::Drop, "congestion on the tunnel");
    }
    // GUE variant 0 begins with another number than an IP version.
    for inside in [&[][..], &[0], &[0x00, 4, 0, 0], &[0x45; 19], &[0x60; 39]] {
        let mut outer = Ip4::new(UDP, behind_udp(6080, inside));
        outer.to = END_V4;
        let mut whole = frame(&[], &outer.build());
        if inside.is_empty() {
            expect(&program, "nothing", &whole, Action::Pass, &whole, |c| {
                &mut c.passed
            });
        } else {
            expect(&program, "cut", &whole, Action::Pass, &whole, |c| {
                &mut c.malformed
            });
        }
        whole.truncate(14 + 20 + 4);
        expect(&program, "no UDP", &whole, Action::Pass, &whole, |c| {
            &mut c.passed
        });
    }
}

#[test]
fn what_is_no_tunnel_of_ours_goes_to_the_kernel_as_it_came() {
    let program = program();
    let inner = Ip4::new(TCP, tcp(80)).build();
    let v4 = |change: fn(&mut Ip4)| {
        let mut outer = in_v4(&inner);
        change(&mut outer);
        frame(&[], &outer.build())
    };
    let v6 = |change: fn(&mut Ip6)| {
        let mut outer = in_v6(&inner);
        change(&mut outer);
        frame(&[], &outer.build())
    };
    let short_v4 = v4(|_| ())[..33].to_vec();
    let short_v6 = v6(|_| ())[..53].to_vec();
    let rows: &[(&str, Vec<u8>)] = &[
        ("ARP", ethernet(&[], 0x0806, &[0; 28])),
        ("a plain packet", frame(&[], &inner)),
        ("Ethernet only", ethernet(&[], 0x86dd, &[])),
        ("three VLAN tags", frame(&[1, 2, 3], &in_v4(&inner).build())),
        (
            "IPv4 to somebody else",
            v4(|ip| ip.to = Ipv4Addr::new(10, 0, 0, 6)),
        ),
        ("IPv4 GRE", v4(|ip| ip.protocol = 47)),
        ("IPv4 first fragment", v4(|ip| ip.fragment = 0x2000)),
        ("IPv4 last fragment", v4(|ip| ip.fragment = 0x0010)),
        ("IPv4, header length 16", v4(|ip| ip.ihl = Some(4))),
        (
            "IPv4, version 5",
            ethernet(&[], 0x0800, &{
                let mut outer = in_v4(&inner);
                outer.version = 5;
                outer.build()
            }),
        ),
        ("IPv4 cut off", short_v4),
        ("IPv6 to somebody else", v6(|ip| ip.to = V6)),
        ("IPv6 GRE", v6(|ip| ip.next = 47)),
        ("IPv6 fragment", v6(|ip| ip.next = 44)),
        (
            "IPv6, version 7",
            ethernet(&[], 0x86dd, &{
                let mut outer = in_v6(&inner);
                outer.version = 7;
                outer.build()
            }),
        ),
        ("IPv6 cut off", short_v6),
    ];
    for (says, frame) in rows {
        expect(&program, says, frame, Action::Pass, frame, |counters| {
            &mut counters.passed
        });
    }
}

#[test]
fn a_tunnel_without_a_packet_in_it_is_malformed_and_goes_to_the_kernel_as_it_came() {
    let program = program();
    let v4_inside = Ip4::new(TCP, tcp(80)).build();
    let v6_inside = Ip6::new(TCP, tcp(80)).build();
    let mut mislabelled_v4 = in_v4(&v6_inside);
    mislabelled_v4.protocol = IPIP;
    let mut mislabelled_v6 = in_v6(&v4_inside);
    mislabelled_v6.next = IPV6;
    let mut bad_length = Ip4::new(TCP, tcp(80));
    bad_length.ihl = Some(4);
    let mut beyond = in_v4(&v4_inside[..4]);
    beyond.ihl = Some(15);
    let rows: &[(&str, Vec<u8>)] = &[
        (
            "nothing in IPv4",
            Ip4 {
                to: END_V4,
                ..Ip4::new(IPIP, vec![])
            }
            .build(),
        ),
        (
            "nothing in IPv6",
            Ip6 {
                to: END_V6,
                ..Ip6::new(IPV6, vec![])
            }
            .build(),
        ),
        ("19 bytes of IPv4", in_v4(&v4_inside[..19]).build()),
        ("39 bytes of IPv6", in_v6(&v6_inside[..39]).build()),
        ("IPv6 labelled IPv4", mislabelled_v4.build()),
        ("IPv4 labelled IPv6", mislabelled_v6.build()),
        ("inner header length 16", in_v4(&bad_length.build()).build()),
        ("outer options that are not there", beyond.build()),
    ];
    for (says, packet) in rows {
        let frame = frame(&[], packet);
        expect(&program, says, &frame, Action::Pass, &frame, |counters| {
            &mut counters.malformed
        });
    }
}

/// RFC 6040, figure 4, written again; rows are the inner field, columns the outer one, each in the
/// order Not-ECT, ECT(0), ECT(1), CE. `None`: dropped.
#[test]
fn congestion_marks_of_the_tunnel_reach_the_packet() {
    const NOT: u8 = 0;
    const ECT0: u8 = 2;
    const ECT1: u8 = 1;
    const CE: u8 = 3;
    let table: [(u8, [Option<u8>; 4]); 4] = [
        (NOT, [Some(NOT), Some(NOT), Some(NOT), None]),
        (ECT0, [Some(ECT0), Some(ECT0), Some(ECT1), Some(CE)]),
        (ECT1, [Some(ECT1), Some(ECT1), Some(ECT1), Some(CE)]),
        (CE, [Some(CE), Some(CE), Some(CE), Some(CE)]),
    ];
    let program = program();
    // The DSCP of the inside stays, that of the outside goes (RFC 2983's pipe model).
    let inner_v4 = |dscp: u8, ecn: u8, protocol: u8| {
        let mut ip = Ip4::new(protocol, tcp(80));
        ip.tos = dscp << 2 | ecn;
        ip.build()
    };
    let inner_v6 = |dscp: u8, ecn: u8, _: u8| {
        let mut ip = Ip6::new(TCP, tcp(80));
        ip.traffic_class = dscp << 2 | ecn;
        ip.build()
    };
    let inners: [&dyn Fn(u8, u8, u8) -> Vec<u8>; 2] = [&inner_v4, &inner_v6];
    for inner in inners {
        for (inside, row) in table {
            for (outside, merged) in [NOT, ECT0, ECT1, CE].into_iter().zip(row) {
                // Every protocol number gives another checksum, among them the awkward ones.
                for (dscp, protocol) in [0, 46, 63]
                    .into_iter()
                    .flat_map(|d| (0..=255).map(move |p| (d, p)))
                {
                    let before = inner(dscp, inside, protocol);
                    let mut v4 = in_v4(&before);
                    v4.tos = 0x28 | outside;
                    let mut v6 = in_v6(&before);
                    v6.traffic_class = 0x28 | outside;
                    for outer in [v4.build(), v6.build()] {
                        let run = program.run(&frame(&[], &outer), 1).unwrap();
                        let says = format!("{inside} in {outside}, DSCP {dscp}");
                        match merged {
                            None => assert_eq!(run.action, Action::Drop, "{says}"),
                            Some(ecn) => {
                                assert_eq!(run.action, Action::Pass, "{says}");
                                let expected = frame(&[], &inner(dscp, ecn, protocol));
                                assert_eq!(run.frame, expected, "{says}");
                            }
                        }
                    }
                }
            }
        }
    }
    let counters = program.counters().unwrap();
    assert_eq!(counters.congested, 2 * 3 * 256 * 2);
    assert_eq!(counters.decapsulated, 15 * 2 * 3 * 256 * 2);
}

#[test]
fn an_independent_parser_reads_what_comes_out() {
    let program = program();
    let mut inner = Ip4::new(TCP, tcp(8080));
    inner.tos = 0x02;
    let mut outer = in_v6(&inner.build());
    outer.traffic_class = 0x03;
    let run = program.run(&frame(&[7], &outer.build()), 1).unwrap();
    let headers = PacketHeaders::from_ethernet_slice(&run.frame).unwrap();
    assert_eq!(headers.vlan_ids().len(), 1);
    let Some(NetHeaders::Ipv4(ip, _)) = headers.net else {
        panic!("{headers:?}");
    };
    assert_eq!(ip.ecn.value(), 3);
    assert_eq!(ip.header_checksum, ip.calc_header_checksum());
    assert_eq!(
        headers.transport.unwrap().tcp().unwrap().destination_port,
        8080
    );
}

#[test]
fn broken_frames_never_fail_and_are_passed_untouched_or_without_their_outer_header() {
    let program = program();
    let v4 = Ip4::new(TCP, tcp(80)).build();
    let v6 = Ip6::new(UDP, udp(53)).build();
    let mut options = in_v4(&v6);
    options.options = vec![1; 12];
    let good = [
        frame(&[], &in_v4(&v4).build()),
        frame(&[7], &options.build()),
        frame(&[9, 7], &in_v6(&v4).build()),
        frame(&[], &in_v6(&v6).build()),
    ];
    let mut shorter = 0;
    let mut check = |frame: &[u8]| {
        let counters = program.counters().unwrap();
        let run = program.run(frame, 1).unwrap();
        let after = program.counters().unwrap();
        match run.action {
            Action::Pass if run.frame.len() < frame.len() => {
                shorter += 1;
                assert_eq!(after.decapsulated, counters.decapsulated + 1);
                assert_eq!(run.frame[..12], frame[..12]);
                // ECN bits and the checksum are in the first 12 bytes of the inner header.
                assert!(frame.ends_with(&run.frame[22 + 12..]));
            }
            Action::Pass => assert_eq!(run.frame, frame),
            Action::Drop => assert_eq!(after.congested, counters.congested + 1),
            other => panic!("{other:?} on {frame:x?}"),
        }
    };
    for frame in &good {
        for length in 14..=frame.len() {
            check(&frame[..length]);
        }
    }
    let mut chance = Chance(0xdeca9);
    for _ in 0..20_000 {
        let mut frame = good[chance.below(good.len())].clone();
        for _ in 0..=chance.below(4) {
            let at = chance.below(frame.len());
            frame[at] = chance.byte();
        }
        let length = 14 + chance.below(frame.len() - 13);
        check(if chance.below(2) == 0 {
            &frame
        } else {
            &frame[..length]
        });
    }
    assert!(shorter > 5_000, "{shorter}");
}

#[test]
fn an_interface_has_a_bounded_number_of_tunnel_ends() {
    let many = |count: u8| -> Vec<_> {
        (0..count)
            .map(|n| Ipv4Addr::new(10, 1, 0, n).into())
            .collect()
    };
    assert!(DecapProgram::load(&many(64), None).is_ok());
    let result = DecapProgram::load(&many(65), None);
    assert!(
        matches!(result, Err(BpfError::TooManyAddresses { count: 65 })),
        "{result:?}"
    );
}
