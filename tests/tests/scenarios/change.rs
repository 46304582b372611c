//! Changing services while they are used.

use anyhow::{Context, Result, anyhow, bail, ensure};
use etherparse::PacketBuilder;
use lockstep_tests::lab::{
    CLIENT_V4, KeepAlive, Lab, VIP_V4, Version, Wrk, router_rack_v4, scenario, service, wait_until,
    web,
};
use serde_json::Value;
use std::fs;
use std::net::SocketAddr;
use std::thread;
use std::time::{Duration, Instant};

const SOON: Duration = Duration::from_secs(10);
/// Large services that take an engine some seconds to preview, and a slow machine not the ten that the daemon
/// waits.
const LARGE: u16 = 100;

#[test]
fn scenario_adding_and_draining_a_backend_under_load_fails_no_request() {
    scenario(&Lab::builder().servers(4), |lab| {
        lab.start_lockstep(&web(&[0, 1, 2]))?;
        let long = lab
            .client
            .start_wrk(&Wrk::new(Version::V4.url()).seconds(8))?;
        let short = Wrk::new(Version::V4.url())
            .seconds(8)
            .connections(8)
            .connection_per_request();
        let short = lab.client.start_wrk(&short)?;
        let balancer = &lab.balancers[0];

        balancer.apply(&web(&[0, 1, 2, 3]))?;
        wait_until("the new server serves", SOON, || served(lab, 3, 100))?;

        balancer.cli(&["drain", "s1", "--deadline", "60s"])?;
        let flows = balancer.cli(&["flows"])?;
        ensure!(
            flows.to_string().contains("s2"),
            "no flow of s2 is listed: {flows}"
        );
        // Connections of one request each end by themselves; the long ones stay with s1.
        let at_drain = lab.servers[0].requests()?;
        wait_until("s1 still answers its old connections", SOON, || {
            Ok((lab.servers[0].requests()? > at_drain).then_some(()))
        })?;
        let new = KeepAlive::open_many(lab.client.netns(), Version::V4.vip(), 24)?;
        let drained = new
            .iter()
            .filter(|connection| connection.server() == "s1")
            .count();
        ensure!(
            drained == 0,
            "{drained} of 24 new connections went to the draining s1"
        );

        for report in [long.report()?, short.report()?] {
            ensure!(report.errors() == 0, "{report:?}");
        }
        // A dropped SYN is no error, but a second's wait.
        for reason in ["no_neighbour", "no_route", "no_room", "no_vip"] {
            let drops = balancer.status()?.drops(reason)?;
            ensure!(drops == 0, "{drops} packets dropped as {reason}");
        }
        Ok(())
    });
}

#[test]
fn scenario_removing_a_backend_moves_only_its_flows() {
    scenario(&Lab::builder(), |lab| {
        lab.start_lockstep(&web(&[0, 1, 2]))?;
        let vip = Version::V4.vip();
        let mut connections = KeepAlive::open_many(lab.client.netns(), vip, 48)?;
        for name in ["s1", "s2", "s3"] {
            ensure!(
                connections.iter().any(|c| c.server() == name),
                "no connection with {name}"
            );
        }
        let lost = connections.iter().filter(|c| c.server() == "s3").count();
        announced(lab, lost)?;
        lab.balancers[0].apply(&web(&[0, 1]))?;
        for connection in &mut connections {
            if connection.server() == "s3" {
                // Another server gets its next packet, and resets what it does not know.
                ensure!(
                    connection.ask().is_err(),
                    "a connection with the removed s3 lives on"
                );
            } else {
                connection.must_stay()?;
            }
        }
        let new = KeepAlive::open_many(lab.client.netns(), vip, 16)?;
        ensure!(
            new.iter().all(|c| c.server() != "s3"),
            "s3 still gets connections"
        );
        Ok(())
    });
}

#[test]
fn scenario_a_drain_keeps_its_flows_until_the_deadline_and_moves_no_others() {
    scenario(&Lab::builder(), |lab| {
        lab.start_lockstep(&web(&[0, 1, 2]))?;
        let balancer = &lab.balancers[0];
        let mut connections = KeepAlive::open_many(lab.client.netns(), Version::V4.vip(), 48)?;
        for name in ["s1", "s2", "s3"] {
            ensure!(
                connections.iter().any(|c| c.server() == name),
                "no connection with {name}"
            );
        }
        balancer.cli(&["drain", "s3", "--deadline", "2s"])?;
        connections.iter_mut().try_for_each(KeepAlive::must_stay)?;
        wait_until("the drained backend is removed", SOON, || {
            let left = balancer.status()?.backends("web")?;
            Ok((left == ["s1", "s2"]).then_some(()))
        })?;

        let mut moved = Vec::new();
        for connection in &mut connections {
            if connection.server() == "s3" {
                moved.push(connection.client()?.port());
                // Another server gets its next packet, and resets what it does not know.
                ensure!(
                    connection.ask().is_err(),
                    "a connection with the removed s3 lives on"
                );
            } else {
                connection.must_stay()?;
            }
        }
        let flows = balancer.cli(&["flows", "--service", "web"])?;
        for port in moved {
            let flow = (flows.as_array().into_iter().flatten())
                .find(|flow| flow["client_port"] == port)
                .with_context(|| format!("no flow of client port {port}: {flows}"))?;
            ensure!(flow["backend"] == "s1" || flow["backend"] == "s2", "{flow}");
        }
        Ok(())
    });
}

/// `diff` says beforehand what the removal of s3 will do, and changes nothing.
fn announced(lab: &Lab, lost: usize) -> Result<()> {
    let balancer = &lab.balancers[0];
    let file = balancer.services_file().with_file_name("two.toml");
    fs::write(&file, web(&[0, 1]))?;
    let output = balancer.run(&["diff", &file.display().to_string(), "--output", "json"])?;
    ensure!(
        output.status.code() == Some(1),
        "there is a difference: {output:?}"
    );
    let says = String::from_utf8_lossy(&output.stderr);
    let diff: Value = serde_json::from_slice(&output.stdout).with_context(|| says.into_owned())?;
    let web = (diff["services"].as_array().into_iter().flatten())
        .find(|service| service["name"] == "web")
        .context("`diff` does not speak of the service")?;
    ensure!(
        web["flows_moved"] == lost,
        "{lost} connections are with s3, `diff` says: {web}"
    );
    let moved = web["ring_share_moved"]
        .as_f64()
        .context("no share of the ring")?;
    // A third is the removed backend's; at most that again may move besides.
    ensure!((0.33..0.67).contains(&moved), "{moved} of the ring moves");
    Ok(())
}

/// The agent also gives the heartbeat without which the XDP program passes everything on.
#[test]
fn scenario_a_preview_that_takes_long_takes_no_packet_from_the_workers() {
    scenario(&Lab::builder(), |lab| {
        lab.start_lockstep(&web(&[0, 1, 2]))?;
        let balancer = &lab.balancers[0];
        let large = |n: u16| {
            let (name, port) = (format!("large-{n}"), format!("{}/tcp", 1_000 + n));
            let text = service(&name, Version::V4, &[&port], Version::V4, &[0, 1, 2]);
            text.replace("backends = [", "table_size = 655373\nbackends = [")
        };
        let file = balancer.services_file().with_file_name("large.toml");
        fs::write(&file, (0..LARGE).map(large).collect::<String>())?;
        let file = file.display().to_string();

        let kernel = balancer.count_kernel_path()?;
        let (output, asked, took) = thread::scope(|scope| -> Result<_> {
            let start = Instant::now();
            let diff = scope.spawn(|| balancer.run(&["diff", &file]));
            let mut asked = 0;
            while !diff.is_finished() {
                lab.client.get(Version::V4.vip())?;
                asked += 1;
            }
            let output = diff.join().map_err(|_| anyhow!("the thread panicked"))??;
            Ok((output, asked, start.elapsed()))
        })?;
        println!("a preview of {LARGE} large services took {took:?}, with {asked} requests");
        ensure!(
            output.status.code() == Some(1),
            "there is a difference: {output:?}"
        );
        let missed = kernel.packets("vip")?;
        ensure!(missed == 0, "{missed} packets went to the kernel");
        Ok(())
    });
}

#[test]
fn scenario_explain_agrees_with_where_connections_are() {
    scenario(&Lab::builder(), |lab| {
        lab.start_lockstep(&web(&[0, 1, 2]))?;
        for version in [Version::V4, Version::V6] {
            let to = SocketAddr::new(version.vip(), 80).to_string();
            for connection in KeepAlive::open_many(lab.client.netns(), version.vip(), 8)? {
                let from = connection.client()?.to_string();
                let args = ["explain", "--from", &from, "--to", &to];
                let explanation = lab.balancers[0].cli(&args)?;
                // One packet is explained: the answer is it, or a list of it.
                let entry = explanation.get(0).unwrap_or(&explanation);
                let with = connection.server();
                ensure!(
                    entry["backend"] == *with,
                    "it is with {with}: {explanation}"
                );
            }
        }
        Ok(())
    });
}

#[test]
fn scenario_explain_goes_through_a_capture() {
    scenario(&Lab::builder(), |lab| {
        lab.start_lockstep(&web(&[0, 1, 2]))?;
        let balancer = &lab.balancers[0];
        let ethernet = || PacketBuilder::ethernet2([2; 6], [4; 6]);
        let (mut open, mut hello) = (Vec::new(), Vec::new());
        (ethernet().ipv4(CLIENT_V4.octets(), VIP_V4.octets(), 64))
            .tcp(40_000, 80, 1, 65_535)
            .syn()
            .write(&mut open, &[])?;
        // What routers say to each other: HSRP, to all of them with TTL 1 (RFC 2281, section 5).
        (ethernet().ipv4(router_rack_v4().octets(), [224, 0, 0, 2], 1))
            .udp(1985, 1985)
            .write(&mut hello, &[0; 20])?;
        let mut broken = open.clone();
        broken[24] ^= 0x55;

        let file = balancer.services_file().with_file_name("some.pcap");
        fs::write(&file, capture(&[&open, &hello, &broken]))?;
        let file = file.display().to_string();
        let output = balancer.run(&["explain", "--pcap", &file, "--output", "json"])?;
        ensure!(
            output.status.code() == Some(1),
            "a packet is dropped: {output:?}"
        );
        let answer: Value = serde_json::from_slice(&output.stdout)?;
        let [open, hello, broken] = &answer["packets"].as_array().context("no packets")?[..] else {
            bail!("three packets were captured: {answer}");
        };
        let from = SocketAddr::new(CLIENT_V4.into(), 40_000).to_string();
        let to = SocketAddr::new(VIP_V4.into(), 80).to_string();
        let alone = balancer.cli(&["explain", "--from", &from, "--to", &to])?;
        ensure!(
            open["verdict"] == "forward" && open["backend"] == alone["backend"],
            "{open}, but by its addresses alone: {alone}"
        );
        ensure!(hello["verdict"] == "pass", "{hello}");
        ensure!(
            broken["verdict"] == "drop" && broken["reason"] == "bad_checksum",
            "{broken}"
        );
        Ok(())
    });
}

/// A capture in the classic pcap format: little-endian, microseconds, Ethernet.
fn capture(frames: &[&[u8]]) -> Vec<u8> {
    let mut file = Vec::new();
    for word in [0xa1b2_c3d4_u32, 0x0004_0002, 0, 0, 65_535, 1] {
        file.extend(word.to_le_bytes());
    }
    for frame in frames {
        let length = frame.len() as u32;
        for word in [0, 0, length, length] {
            file.extend(word.to_le_bytes());
        }
        file.extend(*frame);
    }
    file
}

#[test]
fn scenario_a_wrong_services_file_changes_nothing_and_says_where_it_is_wrong() {
    scenario(&Lab::builder(), |lab| {
        lab.start_lockstep(&web(&[0, 1, 2]))?;
        let balancer = &lab.balancers[0];
        let mut connections = KeepAlive::open_many(lab.client.netns(), Version::V4.vip(), 8)?;
        let epoch = balancer.status()?.epoch()?;

        let wrong = balancer.services_file();
        fs::write(&wrong, web(&[0]).replace("backends", "backend"))?;
        let file = wrong.display().to_string();
        for command in ["check", "diff", "apply"] {
            let output = balancer.run(&[command, &file])?;
            let says = [output.stdout, output.stderr].concat();
            let says = String::from_utf8_lossy(&says);
            ensure!(
                !output.status.success(),
                "`lockstep {command}` accepted the file"
            );
            for part in [file.as_str(), ":4", "backend", "backends"] {
                ensure!(
                    says.contains(part),
                    "`lockstep {command}` does not say {part:?}: {says}"
                );
            }
        }
        // The daemon watches the file: it has seen it, refused it, and says so.
        wait_until("the daemon reports the file's error", SOON, || {
            balancer.file_error()
        })?;
        ensure!(balancer.status()?.epoch()? == epoch, "the epoch changed");
        connections.iter_mut().try_for_each(KeepAlive::must_stay)?;

        balancer.apply(&web(&[0, 1]))?;
        ensure!(
            balancer.status()?.epoch()? > epoch,
            "the repaired file is not in force"
        );
        Ok(())
    });
}

/// Whether a server has answered at least so many requests.
fn served(lab: &Lab, server: usize, requests: u64) -> Result<Option<()>> {
    let server = lab.servers.get(server).context("no such server")?;
    Ok((server.requests()? >= requests).then_some(()))
}
