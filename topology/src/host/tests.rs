use super::*;
use std::os::unix::fs::symlink;
use tempfile::TempDir;

/// A made-up host: sysfs and procfs as files in a directory of its own.
struct FakeHost(TempDir);

impl FakeHost {
    fn new() -> Self {
        let host = FakeHost(tempfile::tempdir().unwrap());
        host.write("sys/devices/system/cpu/present", "0-3\n");
        host.write("sys/devices/system/cpu/online", "0-1,3\n");
        host.write("sys/devices/system/cpu/isolated", "\n");
        host.write("sys/devices/system/node/node0/cpulist", "0-1\n");
        host.write("sys/devices/system/node/node1/cpulist", "2-3\n");
        host.write("sys/devices/system/node/possible", "0-1\n");
        host.write(
            "proc/meminfo",
            "MemTotal:       2000 kB\nMemAvailable:    1000 kB\n",
        );
        host.write("proc/thread-self/net/dev", "Inter-|\n face |\n");
        fs::create_dir_all(host.path("sys/class/net")).unwrap();
        host
    }

    fn path(&self, path: &str) -> PathBuf {
        self.0.path().join(path)
    }

    fn write(&self, path: &str, text: &str) {
        let path = self.path(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    /// An Ethernet interface with two RX queues and one TX queue, and a line in procfs.
    fn interface(&self, name: &str, files: &[(&str, &str)]) {
        let base = [
            ("mtu", "1500\n"),
            ("flags", "0x1003\n"),
            ("type", "1\n"),
            ("ifindex", "7\n"),
            ("iflink", "8\n"),
            ("uevent", "INTERFACE=x\nIFINDEX=7\n"),
            ("queues/rx-0/rps_cpus", "0\n"),
            ("queues/rx-1/rps_cpus", "0\n"),
            ("queues/tx-0/xps_cpus", "0\n"),
        ];
        for (file, text) in base.iter().chain(files) {
            self.write(&format!("sys/class/net/{name}/{file}"), text);
        }
        let dev = fs::read_to_string(self.path("proc/thread-self/net/dev")).unwrap();
        self.write("proc/thread-self/net/dev", &format!("{dev}{name}: 1 2 3\n"));
    }

    fn discover(&self) -> Host {
        Host::discover(&self.path("sys"), &self.path("proc")).unwrap()
    }

    fn error(&self) -> String {
        let error = Host::discover(&self.path("sys"), &self.path("proc")).unwrap_err();
        let root = self.0.path().display().to_string();
        error.to_string().replace(&root, "")
    }
}

#[test]
fn cores_nodes_and_memory_are_read() {
    let host = FakeHost::new().discover();
    assert_eq!(host.cores, BTreeSet::from([0, 1, 2, 3]));
    assert_eq!(host.online, BTreeSet::from([0, 1, 3]));
    assert_eq!(host.isolated, BTreeSet::new());
    assert_eq!(
        host.nodes,
        BTreeMap::from([(0, BTreeSet::from([0, 1])), (1, BTreeSet::from([2, 3]))])
    );
    assert_eq!(host.node_of(2), Some(1));
    assert_eq!(host.node_of(9), None);
    assert_eq!(host.memory_available, 1_024_000);
}

#[test]
fn a_kernel_without_numa_and_without_isolation_has_none() {
    let fake = FakeHost::new();
    fs::remove_dir_all(fake.path("sys/devices/system/node")).unwrap();
    fs::remove_file(fake.path("sys/devices/system/cpu/isolated")).unwrap();
    let host = fake.discover();
    assert!(host.nodes.is_empty());
    assert!(host.isolated.is_empty());
}

#[test]
fn a_device_has_its_driver_node_and_queues() {
    let fake = FakeHost::new();
    fake.interface("eth0", &[("device/numa_node", "1\n")]);
    fs::create_dir_all(fake.path("sys/bus/pci/drivers/ice")).unwrap();
    symlink(
        fake.path("sys/bus/pci/drivers/ice"),
        fake.path("sys/class/net/eth0/device/driver"),
    )
    .unwrap();
    assert_eq!(
        fake.discover().interfaces["eth0"],
        HostInterface {
            kind: InterfaceKind::Device {
                driver: "ice".to_owned()
            },
            rx_queues: 2,
            tx_queues: 1,
            numa_node: Some(1),
            mtu: 1500,
            up: true,
            deferral: None,
            addresses: Vec::new(),
        }
    );
}

#[test]
fn how_long_a_device_leaves_its_packets_to_a_worker_is_read() {
    let fake = FakeHost::new();
    // The second as long as a kernel with 64 bits takes it.
    let files = [
        ("napi_defer_hard_irqs", "2\n"),
        ("gro_flush_timeout", "20000000000\n"),
    ];
    fake.interface("eth0", &files);
    fake.interface("eth1", &files[..1]);
    let deferral = |name: &str| fake.discover().interfaces[name].deferral;
    let (polls, nanoseconds) = (2, 20_000_000_000);
    assert_eq!(deferral("eth0"), Some(Deferral { polls, nanoseconds }));
    assert_eq!(deferral("eth1"), None, "it takes both");
    fake.interface("eth2", &[("gro_flush_timeout", "soon\n"), files[0]]);
    assert_eq!(
        fake.error(),
        "/sys/class/net/eth2/gro_flush_timeout holds \"soon\", not a number"
    );
}

#[test]
fn a_device_that_belongs_to_no_node_has_none() {
    let fake = FakeHost::new();
    fake.interface("eth0", &[("device/numa_node", "-1\n")]);
    let interface = &fake.discover().interfaces["eth0"];
    assert_eq!(interface.numa_node, None);
    let driver = String::new();
    assert_eq!(interface.kind, InterfaceKind::Device { driver });
}

#[test]
fn kinds_of_interfaces_are_told_apart() {
    let of = |devtype: &str| InterfaceKind::Virtual {
        devtype: devtype.to_owned(),
    };
    type Files = &'static [(&'static str, &'static str)];
    let rows: &[(&str, Files, InterfaceKind)] = &[
        ("lo", &[("type", "772\n")], InterfaceKind::NotEthernet),
        ("v0", &[], InterfaceKind::Veth),
        // Peers with the same index in their two namespaces.
        ("v1", &[("iflink", "7\n")], InterfaceKind::Veth),
        ("dummy0", &[("iflink", "7\n")], of("dummy")),
        ("ifb0", &[("iflink", "7\n")], of("ifb")),
        ("br0", &[("uevent", "DEVTYPE=bridge\n")], of("bridge")),
        ("eth0.5", &[("uevent", "X=1\nDEVTYPE=vlan\n")], of("vlan")),
        ("tap0", &[("tun_flags", "0x1002\n")], of("tun")),
        ("bond0", &[("bonding/mode", "802.3ad 4\n")], of("bond")),
    ];
    let fake = FakeHost::new();
    for (name, files, _) in rows {
        fake.interface(name, files);
    }
    let host = fake.discover();
    for (name, _, kind) in rows {
        assert_eq!(host.interfaces[*name].kind, *kind, "{name}");
    }
}

#[test]
fn an_interface_is_up_by_its_flag() {
    let fake = FakeHost::new();
    fake.interface("v0", &[("flags", "0x1002\n")]);
    assert!(!fake.discover().interfaces["v0"].up);
}

#[test]
fn what_is_no_interface_among_interfaces_is_passed_over() {
    let fake = FakeHost::new();
    fake.write("sys/class/net/bonding_masters", "bond0\n");
    assert!(fake.discover().interfaces.is_empty());
}

#[test]
fn addresses_find_their_interface() {
    let fake = FakeHost::new();
    fake.interface("eth0", &[]);
    fake.interface("eth1", &[]);
    // Little-endian hexadecimal, as this kernel family prints it: 192.0.2.0/24, 192.0.2.128/25.
    let route = |name: &str, network: [u8; 4], gateway: [u8; 4], mask: [u8; 4]| {
        let hexadecimal = |bytes| format!("{:08X}", u32::from_ne_bytes(bytes));
        let [network, gateway, mask] = [network, gateway, mask].map(hexadecimal);
        format!("{name}\t{network}\t{gateway}\t0001\t0\t0\t0\t{mask}\t0\t0\t0\n")
    };
    fake.write(
        "proc/thread-self/net/route",
        &[
            "Iface\tDestination\tGateway\n".to_owned(),
            route("eth1", [0; 4], [192, 0, 2, 1], [0; 4]),
            route("eth0", [192, 0, 2, 0], [0; 4], [255, 255, 255, 0]),
            route("eth1", [192, 0, 2, 128], [0; 4], [255, 255, 255, 128]),
            route(
                "eth1",
                [198, 51, 100, 0],
                [192, 0, 2, 1],
                [255, 255, 255, 0],
            ),
        ]
        .concat(),
    );
    fake.write(
        "proc/thread-self/net/fib_trie",
        "Main:
  +-- 0.0.0.0/0 3 0 5
     |-- 127.0.0.1
        /32 host LOCAL
     +-- 192.0.2.0/24 2 0 2
        |-- 192.0.2.0
           /24 link UNICAST
        |-- 192.0.2.10
           /32 host LOCAL
        |-- 192.0.2.130
           /32 host LOCAL
        |-- 192.0.2.255
           /32 link BROADCAST
        |-- 198.51.100.1
           /32 host LOCAL
Local:
        |-- 192.0.2.10
           /32 host LOCAL
",
    );
    fake.write(
        "proc/thread-self/net/if_inet6",
        "00000000000000000000000000000001 01 80 10 80       lo
20010db8000000000000000000000010 04 40 00 82     eth0
fe8000000000000000fc00fffe000001 04 40 20 80     eth0
",
    );
    let host = fake.discover();
    let texts = |name: &str| -> Vec<String> {
        let addresses = &host.interfaces[name].addresses;
        addresses.iter().map(ToString::to_string).collect()
    };
    assert_eq!(texts("eth0"), ["192.0.2.10", "2001:db8::10"]);
    assert_eq!(texts("eth1"), ["192.0.2.130"]);
}

#[test]
fn an_interface_that_another_namespaces_sysfs_hides_is_named() {
    let fake = FakeHost::new();
    fake.interface("eth0", &[]);
    fs::remove_dir_all(fake.path("sys/class/net/eth0")).unwrap();
    assert_eq!(fake.discover().hidden, BTreeSet::from(["eth0".to_owned()]));
}

#[test]
fn errors_name_the_file() {
    let fake = FakeHost::new();
    fake.write("sys/devices/system/cpu/online", "all\n");
    assert_eq!(
        fake.error(),
        "/sys/devices/system/cpu/online holds \"all\", not a list of cores such as \"0-3,8\""
    );
    let fake = FakeHost::new();
    fake.write("proc/meminfo", "MemTotal: 1 kB\n");
    assert_eq!(
        fake.error(),
        "/proc/meminfo holds \"MemTotal: 1 kB\", not a line such as \"MemAvailable: 1024 kB\""
    );
    let fake = FakeHost::new();
    fs::remove_dir_all(fake.path("sys/class")).unwrap();
    assert_eq!(
        fake.error(),
        "cannot read /sys/class/net: No such file or directory (os error 2); is that file system mounted here?"
    );
}

#[test]
fn lists_of_cores_are_read_and_broken_ones_refused() {
    let rows: &[(&str, Option<&[u32]>)] = &[
        ("", Some(&[])),
        ("0", Some(&[0])),
        ("0-2,5", Some(&[0, 1, 2, 5])),
        ("0,2", Some(&[0, 2])),
        ("2-1", None),
        ("a", None),
        ("0-", None),
        ("0-4294967295", None),
    ];
    for (text, cores) in rows {
        let cores = cores.map(|cores| cores.iter().copied().collect());
        assert_eq!(parse_cpu_list(text), cores, "{text:?}");
    }
}

/// The files of a real kernel, whatever the machine: its loopback interface and a core.
#[test]
fn this_machine_is_understood() {
    let host = Host::discover(Path::new("/sys"), Path::new("/proc")).unwrap();
    assert!(!host.online.is_empty());
    assert!(host.online.is_subset(&host.cores));
    assert!(host.memory_available > 0);
    if let Some(lo) = host.interfaces.get("lo") {
        assert_eq!(lo.kind, InterfaceKind::NotEthernet);
        assert!(lo.addresses.is_empty());
    }
}
