//! The forwarding program in this kernel: frame in → decision and frame out.

// A test that cannot be set up has failed.
#![allow(clippy::unwrap_used)]

mod support;

use lockstep_bpf::{Action, AttachMode, BpfError, Forward, ForwardProgram, ModeChoice, Onward};
use support::*;

const FROM: [u8; 6] = [2, 0, 0, 0, 0, 7];
const TO: [u8; 6] = [2, 0, 0, 0, 0, 8];

fn onward() -> Onward<'static> {
    Onward {
        interface: "lo",
        from: FROM,
        to: TO,
    }
}

#[test]
fn ip_packets_go_on_with_other_link_layer_addresses_and_the_rest_as_it_was() {
    let program = ForwardProgram::load(Some(onward())).unwrap();
    let before = frame(&[], &Ip4::new(UDP, vec![1, 2, 3, 4]).build());
    let run = program.run(&before, 1).unwrap();
    assert_eq!(run.action, Action::Redirect);
    let mut expected = [TO, FROM].concat();
    expected.extend(&before[12..]);
    assert_eq!(run.frame, expected);
}

#[test]
fn what_is_not_ip_goes_to_the_kernel_as_it_came() {
    let program = ForwardProgram::load(Some(onward())).unwrap();
    let arp = ethernet(&[], 0x0806, &[0; 28]);
    let run = program.run(&arp, 1).unwrap();
    assert_eq!((run.action, run.frame), (Action::Pass, arp));
}

#[test]
fn without_a_way_onward_everything_goes_to_the_kernel() {
    let program = ForwardProgram::load(None).unwrap();
    let before = frame(&[], &Ip4::new(UDP, vec![1, 2, 3, 4]).build());
    let run = program.run(&before, 1).unwrap();
    assert_eq!((run.action, run.frame), (Action::Pass, before));
}

#[test]
fn an_interface_that_is_not_there_is_named() {
    let nowhere = Onward {
        interface: "nowhere0",
        ..onward()
    };
    let error = ForwardProgram::load(Some(nowhere)).unwrap_err();
    assert!(
        matches!(&error, BpfError::NoInterface { interface } if interface == "nowhere0"),
        "{error}"
    );
}

#[test]
fn it_is_found_again_replaced_and_taken_off() {
    isolated(|_| {
        ip("link add lb0 type veth peer name lb1");
        ip("link set lb0 up");
        let onward = Onward {
            interface: "lb0",
            ..onward()
        };
        let first = Forward::attach("lb0", Some(onward), ModeChoice::Native).unwrap();
        assert_eq!(first.mode(), AttachMode::Native);
        let second = Forward::attach("lb0", None, ModeChoice::Native).unwrap();
        assert!(ip("-details link show dev lb0").contains("prog/xdp"));
        second.detach().unwrap();
        assert!(!ip("-details link show dev lb0").contains("prog/xdp"));
    });
}
