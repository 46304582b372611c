//! Downloads from replicated web servers while replicas fail: curl must notice nothing.

use anyhow::{Context, Result, ensure};
use lockstep_tests::lab::{
    Arrived, CLIENT_V4, Content, Dice, Fault, Lab, Replicated, Version, scenario, wait_until,
};
use std::time::{Duration, Instant};

const SOON: Duration = Duration::from_secs(20);
const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;
const QUORUM: &str = "{ quorum = 2 }";
const PRIMARY: &str = "\"primary\"";

#[test]
fn scenario_sessions_a_download_survives_a_killed_primary() {
    downloads(PRIMARY, GIB, &[Fault::Kill]);
}

#[test]
fn scenario_sessions_a_download_survives_a_stopped_and_a_cut_off_primary() {
    downloads(PRIMARY, 192 * MIB, &[Fault::Stop, Fault::Cut]);
}

#[test]
fn scenario_sessions_a_download_under_a_quorum_survives_every_fault_of_its_primary() {
    downloads(QUORUM, 192 * MIB, &Fault::ALL);
}

#[test]
#[ignore = "1 GiB and three faults at ten places each, under both policies: make test-long"]
fn scenario_sessions_long_downloads_survive_every_fault_at_many_places() {
    let faults = Fault::ALL.repeat(10);
    downloads(PRIMARY, GIB, &faults);
    downloads(QUORUM, GIB, &faults);
}

/// A download for each fault of the primary, at a random byte; the replica is whole again before the
/// next one.
fn downloads(commit: &str, size: u64, faults: &[Fault]) {
    scenario(&Lab::builder(), |lab| {
        let mut dice = Dice::new()?;
        let content = Content::new(lab.run(), "large", size, 3)?;
        let service = Replicated::web(&[0, 1, 2]).with("commit", commit);
        lab.start_lockstep(&service.to_string())?;
        for &fault in faults {
            let at = dice.of(size / 16..size * 3 / 4);
            let before = lab.balancers[0].events()?.len();
            let (arrived, primary) = struck(lab, &content, fault, at)?;
            arrived.must_be(&content)?;
            switched_from(lab, before, primary)?;
            let rate = size as f64 / 1e6 / arrived.took.as_secs_f64();
            println!(
                "{commit}: s{} {fault} at byte {at} of {size}: longest pause {:.1?}, {rate:.0} MB/s",
                primary + 1,
                arrived.pause
            );
            whole_again(lab, fault, primary)?;
        }
        Ok(())
    });
}

/// A download whose primary is struck when `at` bytes have arrived, and who that was.
fn struck(lab: &mut Lab, content: &Content, fault: Fault, at: u64) -> Result<(Arrived, usize)> {
    let (balancer, router, servers) = (&lab.balancers[0], &lab.router, &mut lab.servers);
    let mut struck = None;
    let arrived = lab.client.download(Version::V4.web(), content, |bytes| {
        if bytes >= at && struck.is_none() {
            let primary = balancer.session()?.primary()?;
            let name = servers[primary].name();
            fault.strike(servers[primary].nginx()?, &name, router)?;
            struck = Some(primary);
        }
        Ok(())
    })?;
    let primary = struck.with_context(|| format!("nothing was struck: {arrived:?}"))?;
    Ok((arrived, primary))
}

/// The events since there were `before` of them tell of a switchover away from this server.
fn switched_from(lab: &Lab, before: usize, primary: usize) -> Result<()> {
    let from = lab.servers[primary].name();
    wait_until(&format!("a switchover from {from} is told"), SOON, || {
        let events = lab.balancers[0].events()?;
        let mut new = events.iter().skip(before);
        Ok(new
            .find(|event| event.is("switched", &[("from", &from)]))
            .map(|_| ()))
    })
}

/// The server is as before, and the next session has three replicas.
fn whole_again(lab: &mut Lab, fault: Fault, index: usize) -> Result<()> {
    let name = lab.servers[index].name();
    match fault {
        Fault::Kill => lab.servers[index].start_nginx()?,
        _ => fault.end(lab.servers[index].nginx()?, &name, &lab.router)?,
    }
    let balancer = &lab.balancers[0];
    balancer.wait_for_sessions(0)?;
    // A neighbour that was cut off has to be found again first.
    wait_until("a new session has three replicas in sync", SOON, || {
        let to = Version::V4.web();
        let connection = lab.client.netns().connect(to, SOON)?;
        let in_sync = || anyhow::Ok(balancer.session()?.in_state("in-sync").len() == 3);
        let found = wait_until("three are in sync", SOON / 20, || {
            Ok(in_sync()?.then_some(()))
        });
        drop(connection);
        balancer.wait_for_sessions(0)?;
        Ok(found.ok())
    })
}

#[test]
fn scenario_sessions_headers_that_differ_under_a_mask_are_no_divergence() {
    scenario(&Lab::builder(), |lab| {
        let content = Content::new(lab.run(), "small", 3 * MIB, 3)?;
        let service = Replicated::web(&[0, 1, 2]).with("divergence", "\"reset\"");
        lab.start_lockstep(&service.to_string())?;
        // Over a change of the second, in which replicas may write different dates.
        let start = Instant::now();
        let mut downloads = 0;
        while start.elapsed() < Duration::from_millis(2_500) {
            let arrived = lab
                .client
                .download(Version::V4.web(), &content, |_| Ok(()))?;
            arrived.must_be(&content)?;
            downloads += 1;
        }
        let events = lab.balancers[0].events()?;
        ensure!(
            events.iter().all(|event| event.kind() != "diverged"),
            "{events:?}"
        );
        let opened = events
            .iter()
            .filter(|event| event.kind() == "opened")
            .count();
        ensure!(opened == downloads, "{opened} of {downloads} were opened");
        Ok(())
    });
}

#[test]
fn scenario_sessions_replicas_get_the_client_s_address_by_proxy_protocol() {
    scenario(&Lab::builder(), |lab| {
        let service = Replicated::new("proxied", Version::V4, 8080, &[0, 1, 2])
            .with("masks", r"[{ pattern = 'Date: [^\r]*' }]")
            .with("commit", QUORUM)
            .with("proxy_protocol", "true");
        lab.start_lockstep(&service.to_string())?;
        let url = format!("http://{}:8080/", Version::V4.vip());
        let args = ["-sS", "--max-time", "5", "-w", "%{local_port}", &url];
        let text = lab.client.netns().output("curl", &args)?;
        let (seen, port) = text.split_once('\n').context("two lines")?;
        ensure!(seen == format!("{CLIENT_V4} {port}"), "{text:?}");
        Ok(())
    });
}

#[test]
fn scenario_sessions_over_ipv6_survive_a_killed_primary() {
    scenario(&Lab::builder(), |lab| {
        let content = Content::new(lab.run(), "large", 64 * MIB, 3)?;
        let service = Replicated::new("web-v6", Version::V6, 80, &[0, 1, 2])
            .with("masks", r"[{ pattern = 'Date: [^\r]*' }]");
        lab.start_lockstep(&service.to_string())?;
        let (balancer, servers) = (&lab.balancers[0], &mut lab.servers);
        let mut killed = false;
        let arrived = lab.client.download(Version::V6.web(), &content, |bytes| {
            if bytes > 20 * MIB && !killed {
                killed = true;
                servers[balancer.session()?.primary()?]
                    .nginx()?
                    .kill_all()?;
            }
            Ok(())
        })?;
        ensure!(killed);
        arrived.must_be(&content)
    });
}
