//! A daemon without an engine: it gives addresses and writes status, as in a cluster the controller does.

use super::super::balancer::Balancer;
use super::super::binaries;
use super::super::process::Process;
use super::super::wait::wait_until;
use super::{KubeApi, START};
use anyhow::{Context, Result};
use serde_json::Value;
use std::fs;
use std::path::PathBuf;
use std::process::Stdio;

/// See the module. It runs on a balancer, where the API server is.
#[derive(Debug)]
pub struct Controller {
    process: Process,
    dir: PathBuf,
}

impl Controller {
    /// One that answers.
    pub fn start(balancer: &Balancer, api: &KubeApi) -> Result<Self> {
        let dir = balancer.dir().join("controller");
        fs::create_dir_all(&dir)?;
        let node = "[node]\nname = \"controller\"\n";
        fs::write(dir.join("lockstepd.toml"), node.to_owned() + &api.section())?;
        fs::write(dir.join("services.toml"), "service = []\n")?;
        let mut command = balancer.netns().command(binaries::find("lockstepd")?);
        command.arg("--services").arg(dir.join("services.toml"));
        command.arg("--config").arg(dir.join("lockstepd.toml"));
        command.arg("--engine-socket").arg(dir.join("engine.sock"));
        command.arg("--socket").arg(dir.join("daemon.sock"));
        command.arg("--state-dir").arg(dir.join("state"));
        let process = balancer.netns().spawn("controller", command)?;
        let mut controller = Controller { process, dir };
        wait_until("the controller follows the API server", START, || {
            controller.process.must_run()?;
            let cluster = controller.cluster(balancer).unwrap_or_default();
            Ok((cluster["connected"] == true).then_some(()))
        })?;
        Ok(controller)
    }

    /// What it says of the cluster.
    pub fn cluster(&self, balancer: &Balancer) -> Result<Value> {
        let mut command = balancer.netns().command(binaries::find("lockstep")?);
        let socket = self.dir.join("daemon.sock");
        command.arg("--daemon-socket").arg(socket);
        command.args(["kubernetes", "--output", "json"]);
        let output = command.stdin(Stdio::null()).output()?;
        let says = String::from_utf8_lossy(&output.stderr);
        let mut said: Value =
            serde_json::from_slice(&output.stdout).with_context(|| says.into_owned())?;
        Ok(said["cluster"].take())
    }
}
