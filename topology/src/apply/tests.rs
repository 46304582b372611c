//! Decisions, against hosts made of what real programs and files say.

use super::*;
use std::collections::BTreeMap;

/// A machine of recorded answers, which does what it is told where a driver would.
#[derive(Default)]
struct Fake {
    answers: BTreeMap<String, Result<String, String>>,
    files: BTreeMap<String, String>,
    names: BTreeMap<String, Vec<String>>,
    /// How it spreads packets, since that was set.
    table: Option<&'static str>,
    key: String,
    /// The commands that change something.
    ran: Vec<String>,
}

impl Machine for Fake {
    fn run(&mut self, program: &str, arguments: &[&str]) -> Result<String, String> {
        let command = format!("{program} {}", arguments.join(" "));
        if arguments[0].chars().any(|c| c.is_ascii_uppercase()) {
            self.ran.push(command.clone());
            self.change(arguments);
        }
        let unknown = || Err("netlink error: Operation not supported".to_owned());
        self.answers.get(&command).cloned().unwrap_or_else(unknown)
    }

    fn read(&mut self, path: &str) -> Result<String, String> {
        let file = self.files.get(path).cloned();
        file.ok_or_else(|| format!("cannot read {path}: No such file or directory"))
    }

    fn names_in(&mut self, path: &str) -> Vec<String> {
        self.names.get(path).cloned().unwrap_or_default()
    }

    fn write(&mut self, path: &str, text: &str) -> Result<(), String> {
        self.ran.push(format!("{path} = {text}"));
        self.files.insert(path.to_owned(), text.to_owned());
        Ok(())
    }
}

fn channels(most: u32, now: u32) -> String {
    format!(
        "Channel parameters for eth0:\nPre-set maximums:\nRX:\t\tn/a\nTX:\t\tn/a\nOther:\t\t1\n\
         Combined:\t{most}\nCurrent hardware settings:\nRX:\t\tn/a\nTX:\t\tn/a\nOther:\t\t1\n\
         Combined:\t{now}\n"
    )
}

fn spread(table: &str, key: &str) -> String {
    format!(
        "RX flow hash indirection table for eth0 with 4 RX ring(s):\n    0:  {table}\n    \
         8:  {table}\nRSS hash key:\n{key}\nRSS hash function:\n    toeplitz: on\n    xor: off\n"
    )
}

const RANDOM_KEY: &str = "be:ac:01:fa:6a:42";
const SYMMETRIC_KEY: &str = "6d:5a:6d:5a:6d:5a";

impl Fake {
    /// A NIC with up to eight queues of which it has four, all in use, with a random key; each queue's
    /// interrupt goes to core 0.
    fn nic() -> Self {
        let mut fake = Fake {
            key: RANDOM_KEY.to_owned(),
            ..Fake::default()
        };
        fake.says("ethtool -l eth0", &channels(8, 4));
        fake.says("ethtool -x eth0", &spread("0 1 2 3 0 1 2 3", RANDOM_KEY));
        for command in [
            "ethtool -L eth0 combined 2".to_owned(),
            "ethtool -X eth0 equal 2".to_owned(),
            "ethtool -X eth0 weight 1 0 1".to_owned(),
            format!("ethtool -X eth0 hkey {SYMMETRIC_KEY}"),
        ] {
            fake.says(&command, "");
        }
        let mut table = "            CPU0       CPU1\n".to_owned();
        let mut numbers = Vec::new();
        for (at, name) in ["misc", "TxRx-0", "TxRx-1", "TxRx-2", "TxRx-3"]
            .into_iter()
            .enumerate()
        {
            let number = 40 + at;
            table += &format!(
                "  {number}:   100   0  IR-PCI-MSIX-0000:01:00.0  {at}-edge  ice-eth0-{name}\n"
            );
            numbers.push(number.to_string());
            let affinity = format!("/proc/irq/{number}/smp_affinity_list");
            fake.files.insert(affinity, "0\n".to_owned());
        }
        // Another device's.
        table += "  50:   1   0  IR-PCI-MSIX-0000:02:00.0  1-edge  ice-eth9-TxRx-0\n";
        fake.files.insert("/proc/interrupts".to_owned(), table);
        fake.names
            .insert("/sys/class/net/eth0/device/msi_irqs".to_owned(), numbers);
        fake
    }

    fn says(&mut self, command: &str, text: &str) {
        self.answers.insert(command.to_owned(), Ok(text.to_owned()));
    }

    /// What the NIC says after it was told.
    fn change(&mut self, arguments: &[&str]) {
        match arguments {
            ["-L", "eth0", "combined", n] => {
                self.says("ethtool -l eth0", &channels(8, n.parse().unwrap()));
            }
            ["-X", "eth0", "equal", "2"] => self.table = Some("0 1 0 1 0 1 0 1"),
            ["-X", "eth0", "weight", ..] => self.table = Some("0 0 0 0 2 2 2 2"),
            ["-X", "eth0", "hkey", key] => self.key = (*key).to_owned(),
            _ => {}
        }
        if let Some(table) = self.table {
            self.says("ethtool -x eth0", &spread(table, &self.key.clone()));
        }
    }
}

fn topology(workers: &str) -> Topology {
    let text = format!(
        "[engine]\naddresses = [\"192.0.2.10\"]\n[[interface]]\nname = \"eth0\"\n{workers}"
    );
    Topology::parse("t.toml", &text).unwrap()
}

fn two_workers() -> Topology {
    topology(
        "[[worker]]\ncore = 2\nqueues = [\"eth0:0\"]\n[[worker]]\ncore = 3\nqueues = [\"eth0:1\"]\n",
    )
}

fn said(steps: &[Step]) -> Vec<String> {
    steps.iter().map(ToString::to_string).collect()
}

#[test]
fn a_nic_is_set_up_and_then_left_alone() {
    let mut nic = Fake::nic();
    assert_eq!(
        said(&apply(&two_workers(), &mut nic, false)),
        [
            "eth0: queues 2: done (`ethtool -L eth0 combined 2`)",
            "eth0: equal shares of the queues 0-1: done (`ethtool -X eth0 equal 2`)",
            "eth0: the symmetric hash key: done (`ethtool -X eth0 hkey 6d:5a:6d:5a:6d:5a`)",
            "eth0: interrupt 41 (queue 0) on core 2: done (`echo 2 > /proc/irq/41/smp_affinity_list`)",
            "eth0: interrupt 42 (queue 1) on core 3: done (`echo 3 > /proc/irq/42/smp_affinity_list`)",
        ]
    );
    assert_eq!(nic.ran.len(), 5);
    nic.ran.clear();
    let again = apply(&two_workers(), &mut nic, false);
    assert_eq!(again.len(), 5);
    assert!(
        again.iter().all(|step| step.outcome == Outcome::Already),
        "{again:?}"
    );
    assert_eq!(nic.ran, Vec::<String>::new());
}

#[test]
fn a_dry_run_says_the_same_and_changes_nothing() {
    let mut nic = Fake::nic();
    let steps = apply(&two_workers(), &mut nic, true);
    assert!(
        steps
            .iter()
            .all(|step| matches!(step.outcome, Outcome::Would(_))),
        "{steps:?}"
    );
    assert_eq!(nic.ran, Vec::<String>::new());
    let would: Vec<&str> = steps.iter().map(|step| step.outcome.detail()).collect();
    let mut other = Fake::nic();
    let steps = apply(&two_workers(), &mut other, false);
    let done: Vec<&str> = steps.iter().map(|step| step.outcome.detail()).collect();
    assert_eq!(would, done);
}

#[test]
fn queues_that_nobody_polls_get_no_packets() {
    let mut nic = Fake::nic();
    nic.says("ethtool -L eth0 combined 3", "");
    let topology = topology("[[worker]]\ncore = 2\nqueues = [\"eth0:0\", \"eth0:2\"]\n");
    let steps = apply(&topology, &mut nic, false);
    assert_eq!(
        said(&steps)[..2],
        [
            "eth0: queues 3: done (`ethtool -L eth0 combined 3`)",
            "eth0: equal shares of the queues 0, 2: done (`ethtool -X eth0 weight 1 0 1`)",
        ]
    );
    assert_eq!(
        apply(&topology, &mut nic, false)[1].outcome,
        Outcome::Already,
        "in blocks it is the same share"
    );
}

#[test]
fn one_queue_needs_no_spreading() {
    let mut nic = Fake::nic();
    nic.says("ethtool -l eth0", &channels(8, 1));
    let steps = apply(
        &topology("[[worker]]\ncore = 0\nqueues = [\"eth0:0\"]\n"),
        &mut nic,
        false,
    );
    assert_eq!(
        said(&steps),
        [
            "eth0: queues 1: already",
            "eth0: interrupt 41 (queue 0) on core 0: already"
        ]
    );
}

#[test]
fn a_device_leaves_its_packets_to_workers_that_take_them_in() {
    let mut nic = Fake::nic();
    nic.says("ethtool -l eth0", &channels(8, 1));
    for file in ["napi_defer_hard_irqs", "gro_flush_timeout"] {
        let path = format!("/sys/class/net/eth0/{file}");
        nic.files.insert(path, "0\n".to_owned());
    }
    let worker = "[[worker]]\ncore = 0\nqueues = [\"eth0:0\"]\n";
    assert_eq!(apply(&topology(worker), &mut nic, false).len(), 2);
    let text = "[engine]\naddresses = [\"192.0.2.1\"]\nreceive = \"worker\"\n[[interface]]\nname = \"eth0\"\n";
    let topology = Topology::parse("t.toml", &format!("{text}{worker}")).unwrap();
    assert_eq!(
        said(&apply(&topology, &mut nic, false))[1..3],
        [
            "eth0: napi_defer_hard_irqs 2: done (`echo 2 > /sys/class/net/eth0/napi_defer_hard_irqs`)",
            "eth0: gro_flush_timeout 20000: done (`echo 20000 > /sys/class/net/eth0/gro_flush_timeout`)",
        ]
    );
    let again = apply(&topology, &mut nic, false);
    assert!(again.iter().all(|step| step.outcome == Outcome::Already));
}

/// Recorded from a veth: queues are counted apart, and there is nothing else to set.
#[test]
fn a_veth_gets_its_queues_and_nothing_else() {
    let mut veth = Fake::default();
    let set = |n| format!("RX:\t\t{n}\nTX:\t\t{n}\nOther:\t\tn/a\nCombined:\tn/a\n");
    veth.says(
        "ethtool -l eth0",
        &format!(
            "Channel parameters for eth0:\nPre-set maximums:\n{}Current hardware settings:\n{}",
            set(4),
            set(1)
        ),
    );
    veth.says("ethtool -L eth0 rx 2 tx 2", "");
    let no = "Cannot get RX ring count: Operation not supported";
    veth.answers
        .insert("ethtool -x eth0".to_owned(), Err(no.to_owned()));
    assert_eq!(
        said(&apply(&two_workers(), &mut veth, false)),
        [
            "eth0: queues 2: done (`ethtool -L eth0 rx 2 tx 2`)",
            "eth0: equal shares of the queues 0-1: cannot: Cannot get RX ring count: Operation not supported",
            "eth0: the symmetric hash key: cannot: Cannot get RX ring count: Operation not supported",
            "eth0: interrupts of queue 0 on core 2: cannot: the device has no interrupts of its own",
            "eth0: interrupts of queue 1 on core 3: cannot: the device has no interrupts of its own",
        ]
    );
}

#[test]
fn what_a_device_cannot_do_is_said_with_its_words() {
    let mut nic = Fake::nic();
    nic.says("ethtool -l eth0", &channels(1, 1));
    // Recorded from a virtio interface.
    let no_table = "RX flow hash indirection table for eth0 with 1 RX ring(s):\nOperation not supported\n\
                    RSS hash key:\nOperation not supported\nRSS hash function:\n    toeplitz: on\n";
    nic.says("ethtool -x eth0", no_table);
    nic.files.insert(
        "/proc/interrupts".to_owned(),
        "CPU0\n 41: 1 PCI virtio1-config\n".to_owned(),
    );
    assert_eq!(
        said(&apply(&two_workers(), &mut nic, false)),
        [
            "eth0: queues 2: cannot: the device has 1 at most",
            "eth0: equal shares of the queues 0-1: cannot: Operation not supported",
            "eth0: the symmetric hash key: cannot: Operation not supported",
            "eth0: interrupts of queue 0 on core 2: cannot: no interrupt of the device is named after queue 0 in /proc/interrupts",
            "eth0: interrupts of queue 1 on core 3: cannot: no interrupt of the device is named after queue 1 in /proc/interrupts",
        ]
    );
    let mut nic = Fake::nic();
    let busy = Err("netlink error: Device or resource busy".to_owned());
    nic.answers
        .insert("ethtool -L eth0 combined 2".to_owned(), busy);
    assert_eq!(
        said(&apply(&two_workers(), &mut nic, false))[0],
        "eth0: queues 2: cannot: `ethtool -L eth0 combined 2`: netlink error: Device or resource busy"
    );
}

#[test]
fn interrupts_are_found_by_the_names_that_drivers_give() {
    for (name, expected) in [
        ("ice-eth0-TxRx-12", vec![1]),
        ("eth0-rx-12", vec![1]),
        ("virtio1-input.12", vec![1]),
        ("virtio1-output.12", vec![1]),
        ("mlx5_comp12@pci:0000:01:00.0", vec![1]),
        ("mlx5_async12@pci:0000:01:00.0", vec![]),
        ("ice-eth0-TxRx-2", vec![]),
        ("eth0", vec![]),
    ] {
        let mut fake = Fake::default();
        fake.names.insert(
            "/sys/class/net/eth0/device/../msi_irqs".to_owned(),
            vec!["1".to_owned()],
        );
        let table = format!(
            "  CPU0\n   1:   5   PCI-MSI  0-edge   {name}\n  11:   5   PCI-MSI  0-edge   {name}\n"
        );
        fake.files.insert("/proc/interrupts".to_owned(), table);
        let found = interrupts::of_queue(&mut fake, "eth0", 12).unwrap_or_default();
        assert_eq!(found, expected, "{name}");
    }
}
