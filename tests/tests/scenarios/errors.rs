//! What an operator reads when something is not as it must be: one clear sentence, what to do, and
//! an exit code that scripts can use.

use anyhow::{Result, bail, ensure};
use lockstep_tests::lab::{Balancer, KeepAlive, Lab, Version, scenario, web};
use std::fs;
use std::path::PathBuf;
use std::process::Output;
use std::time::Duration;

const SOON: Duration = Duration::from_secs(10);

#[test]
fn scenario_an_engine_that_cannot_start_says_why_in_a_sentence() {
    scenario(&Lab::builder().servers(1), |lab| {
        let balancer = &lab.balancers[0];
        let good = fs::read_to_string(balancer.topology_file())?;

        let other = edited(balancer, "no-device", &good.replace("eth0", "eth9"))?;
        refused(balancer, &other, &["eth9"])?;

        let other = edited(balancer, "no-queue", &good.replace("eth0:0", "eth0:7"))?;
        refused(balancer, &other, &["eth0", "7"])?;

        let other = edited(balancer, "no-key", &good.replace("pin_dir", "pindir"))?;
        refused(balancer, &other, &["no-key.toml", "pindir", "pin_dir"])?;

        let missing = balancer.topology_file().with_file_name("missing.toml");
        refused(balancer, &missing, &["missing.toml"])
    });
}

#[test]
fn scenario_a_second_engine_is_refused_and_the_first_goes_on() {
    scenario(&Lab::builder().servers(1), |lab| {
        lab.start_lockstep(&web(&[0]))?;
        let mut open = KeepAlive::open(lab.client.netns(), Version::V4.vip())?;
        let balancer = &lab.balancers[0];
        refused(
            balancer,
            &balancer.topology_file(),
            &["another engine", "engine.sock"],
        )?;
        open.must_stay()?;

        // One of its own in everything but the queue.
        let good = fs::read_to_string(balancer.topology_file())?;
        let text = good
            .replace("engine.sock", "other.sock")
            .replace("/bpf\"", "/bpf/other\"");
        let other = edited(balancer, "same-queue", &text)?;
        refused(balancer, &other, &["eth0"])?;
        open.must_stay()?;
        KeepAlive::open(lab.client.netns(), Version::V4.vip()).map(drop)
    });
}

#[test]
fn scenario_an_engine_without_privileges_says_which_it_needs() {
    scenario(&Lab::builder().servers(1), |lab| {
        let way = ["setpriv", "--bounding-set", "-all", "--inh-caps", "-all"];
        refused_by(&lab.balancers[0], &way, &["root", "CAP_BPF"])
    });
}

#[test]
fn scenario_an_engine_that_may_not_lock_its_memory_says_what_to_raise() {
    scenario(&Lab::builder().servers(1), |lab| {
        let limit = ["prlimit", "--memlock=65536"];
        let way = ["setpriv", "--bounding-set", "-ipc_lock,-sys_resource"];
        let words = ["cannot lock", "65536 bytes", "LimitMEMLOCK"];
        refused_by(&lab.balancers[0], &[&limit[..], &way].concat(), &words)
    });
}

#[test]
fn scenario_commands_without_an_engine_or_daemon_say_so() {
    scenario(&Lab::builder().servers(1), |lab| {
        let balancer = &lab.balancers[0];
        for args in [&["status"][..], &["flows"], &["metrics"]] {
            let says = fails(&balancer.run(args)?)?;
            clear(&says, &["engine.sock", "lockstep-engine"])?;
        }
        lab.balancers[0].start_engine()?;
        let says = fails(&lab.balancers[0].run(&["drain", "s1", "--deadline", "60s"])?)?;
        clear(&says, &["daemon.sock", "lockstepd"])
    });
}

/// A topology file beside the balancer's own.
fn edited(balancer: &Balancer, name: &str, text: &str) -> Result<PathBuf> {
    let path = balancer
        .topology_file()
        .with_file_name(format!("{name}.toml"));
    fs::write(&path, text)?;
    Ok(path)
}

/// An engine with this topology file ends with an error that has these words in it.
fn refused(balancer: &Balancer, topology: &std::path::Path, words: &[&str]) -> Result<()> {
    let mut engine = balancer.spawn_engine(topology)?;
    let status = engine.wait(SOON)?;
    let says = engine.log();
    ensure!(
        !status.success(),
        "an engine started with {}: {says}",
        topology.display()
    );
    clear(&says, words)
}

/// An engine started this way ends with an error that has these words in it.
fn refused_by(balancer: &Balancer, way: &[&str], words: &[&str]) -> Result<()> {
    let mut engine = balancer.spawn_engine_by(way)?;
    let status = engine.wait(SOON)?;
    let says = engine.log();
    ensure!(!status.success(), "an engine started by {way:?}: {says}");
    clear(&says, words)
}

fn fails(output: &Output) -> Result<String> {
    ensure!(!output.status.success(), "the command succeeded");
    // `status` answers on standard output: that something is down is what it was asked.
    let says = [output.stdout.as_slice(), &output.stderr].concat();
    Ok(String::from_utf8_lossy(&says).into_owned())
}

/// The words are there, and nothing that only a developer can read.
fn clear(says: &str, words: &[&str]) -> Result<()> {
    for noise in ["panicked", "RUST_BACKTRACE", "Os {", "Status {"] {
        if says.contains(noise) {
            bail!("this is for developers ({noise}): {says}");
        }
    }
    for word in words {
        ensure!(says.contains(word), "no word of {word:?}: {says}");
    }
    Ok(())
}
