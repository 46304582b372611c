//! A cluster: a real, small Kubernetes API server, that the daemons of the lab follow.
//!
//! It is Kubernetes' own API machinery with etcd (`../shared/kube-api` beside the repository, or
//! where `LOCKSTEP_KUBE_API` says). Nothing runs in it that makes pods or slices: a scenario writes
//! what kubelets and controllers would.

mod controller;
mod objects;

pub use controller::Controller;
pub use objects::{
    Endpoint, deployment, dire, gateway, gateway_class, gateway_definitions, inner_service,
    namespace, pod, pod_status, pool, slice, slice_of, tcp_route, web_service, web_service_of,
};

use super::balancer::Balancer;
use super::builder::Lab;
use super::netns;
use super::process::{Process, output};
use super::wait::wait_until;
use anyhow::{Context, Result, bail, ensure};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::time::Duration;

const START: Duration = Duration::from_secs(30);
/// What the namespace of the daemons' Lease is called, where they are not told another one.
const LEASES: &str = "lockstep-system";
/// Who controls Gateways, where daemons are told to.
const CONTROLLER: &str = "lockstep.dev/gateway";
const APPLY: &str = "Content-Type: application/apply-patch+yaml";
/// Ours, as the chart installs them.
const DEFINITIONS: &str = "../ctl/deploy/helm/lockstep/files/crds";

/// The API server of a cluster. It runs on the loopback device of a balancer, whose daemon follows
/// it there.
#[derive(Debug)]
pub struct KubeApi {
    netns: String,
    dir: PathBuf,
    url: String,
    /// It, after it was stopped and started again.
    again: Option<Process>,
    again_log: PathBuf,
}

impl KubeApi {
    /// One that answers, with our resources.
    pub fn start(balancer: &Balancer) -> Result<Self> {
        let dir = balancer.dir().join("kube-api");
        let start = scripts()?.join("start");
        output(balancer.netns().command(start).arg(&dir))?;
        // Among those that are printed when a scenario fails.
        let log = |name: &str| {
            let name = format!("{}-{name}.log", balancer.name());
            balancer.dir().with_file_name(name)
        };
        symlink(dir.join("api.log"), log("kube-api"))?;
        let kubeconfig = fs::read_to_string(dir.join("kubeconfig"))?;
        let mut parts = kubeconfig.split('"');
        let url = parts.find(|part| part.starts_with("https://"));
        let api = KubeApi {
            netns: balancer.netns().name().to_owned(),
            url: url.context("the kubeconfig names no server")?.to_owned(),
            dir,
            again: None,
            again_log: log("kube-api-again"),
        };
        api.install()?;
        Ok(api)
    }

    fn install(&self) -> Result<()> {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join(DEFINITIONS);
        let files = fs::read_dir(&folder);
        let files = files.with_context(|| format!("cannot read {}", folder.display()))?;
        let path = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";
        for file in files {
            let file = file?.path();
            let plural = file.file_stem().unwrap_or_default().to_string_lossy();
            let name = format!("{plural}.lockstep.dev");
            self.apply_file(&format!("{path}/{name}"), &file)?;
            let served = format!("/apis/lockstep.dev/v1alpha1/{plural}");
            wait_until(&format!("the API server has {plural}"), START, || {
                Ok(self.read(&served)?.map(drop))
            })?;
        }
        self.apply(&namespace(LEASES))
    }

    /// Has the kinds of the Gateway API, and a class of ours.
    pub fn install_gateways(&self) -> Result<()> {
        for definition in objects::gateway_definitions() {
            self.apply(&definition)?;
            let names = &definition["spec"];
            let version = names["versions"][0]["name"].as_str().unwrap_or_default();
            let plural = names["names"]["plural"].as_str().unwrap_or_default();
            let served = format!("/apis/gateway.networking.k8s.io/{version}/{plural}");
            wait_until(&format!("the API server has {plural}"), START, || {
                Ok(self.read(&served)?.map(drop))
            })?;
        }
        self.apply(&gateway_class())
    }

    /// The lines of `lockstepd.toml` that have a daemon follow it.
    pub fn section(&self) -> String {
        let kubeconfig = self.dir.join("kubeconfig");
        format!("[kubernetes]\nkubeconfig = {kubeconfig:?}\nnode = \"n1\"\n")
    }

    /// One more, for Gateways.
    pub fn gateways(&self) -> String {
        format!("gateway_controller = \"{CONTROLLER}\"\n")
    }

    /// Has an object like this one, as `kubectl apply --server-side` does.
    pub fn apply(&self, object: &Value) -> Result<()> {
        self.apply_text(&path(object), object)
    }

    /// Has an object's status like this one's.
    pub fn apply_status(&self, object: &Value) -> Result<()> {
        self.apply_text(&(path(object) + "/status"), object)
    }

    /// The object of this kind, namespace and name, as it is there now.
    pub fn get(&self, object: &Value) -> Result<Value> {
        let path = path(object);
        let there = self.read(&path)?;
        there.with_context(|| format!("the API server has no {path}"))
    }

    /// What is at a path; nothing where the API server has nothing there.
    pub fn read(&self, path: &str) -> Result<Option<Value>> {
        let (status, body) = self.ask(&["-X", "GET"], path)?;
        match status {
            200 => Ok(Some(serde_json::from_str(&body)?)),
            // A resource that was just made is not served at once.
            404 | 503 => Ok(None),
            _ => bail!("GET {path}: {status}: {body}"),
        }
    }

    /// Deletes an object.
    pub fn delete(&self, object: &Value) -> Result<()> {
        let path = path(object);
        let (status, body) = self.ask(&["-X", "DELETE"], &path)?;
        ensure!(status == 200, "DELETE {path}: {status}: {body}");
        Ok(())
    }

    /// The reasons of the events that were told about objects of this kind and name.
    pub fn events(&self, kind: &str, namespace: &str, name: &str) -> Result<Vec<String>> {
        let path = format!("/apis/events.k8s.io/v1/namespaces/{namespace}/events");
        let events = self.read(&path)?.unwrap_or_default();
        let all = events["items"].as_array().into_iter().flatten();
        let about = |event: &&Value| {
            let regarding = &event["regarding"];
            regarding["kind"] == *kind && regarding["name"] == *name
        };
        let reasons = all
            .filter(about)
            .filter_map(|event| event["reason"].as_str());
        Ok(reasons.map(str::to_owned).collect())
    }

    /// Ends it at once, as when its host loses power. What it knew is on disk.
    pub fn stop(&mut self) -> Result<Stopped> {
        let pid = self.pid("api").context("the API server has no process")?;
        let command = fs::read_to_string(format!("/proc/{pid}/cmdline"))?;
        end(pid)?;
        fs::remove_file(self.dir.join("api.pid"))?;
        let words = command.split_terminator('\0');
        Ok(Stopped(words.map(str::to_owned).collect()))
    }

    /// Starts it where it was, with all that it knew.
    pub fn start_again(&mut self, stopped: &Stopped) -> Result<()> {
        let (program, args) = stopped.0.split_first().context("no command")?;
        let mut command = netns::command(&self.netns, program);
        command.args(args);
        let log = self.again_log.clone();
        let mut process = Process::spawn("the API server", log, command)?;
        wait_until("the API server answers again", START, || {
            process.must_run()?;
            let ready = self.ask(&["-X", "GET"], "/readyz");
            Ok(ready.is_ok_and(|(status, _)| status == 200).then_some(()))
        })?;
        self.again = Some(process);
        Ok(())
    }

    fn apply_text(&self, path: &str, object: &Value) -> Result<()> {
        let file = self.dir.join("body.json");
        fs::write(&file, object.to_string())?;
        self.apply_file(path, &file)
    }

    fn apply_file(&self, path: &str, file: &Path) -> Result<()> {
        let body = format!("@{}", file.display());
        let args = ["-X", "PATCH", "-H", APPLY, "--data-binary", &body];
        let query = format!("{path}?fieldManager=scenario&force=true");
        let (status, body) = self.ask(&args, &query)?;
        ensure!(
            matches!(status, 200 | 201),
            "PATCH {path}: {status}: {body}"
        );
        Ok(())
    }

    fn ask(&self, args: &[&str], path: &str) -> Result<(u16, String)> {
        let mut command = netns::command(&self.netns, "curl");
        command.args(["-ksS", "--max-time", "10", "-w", "\n%{http_code}"]);
        command.args(["-H", "Authorization: Bearer test"]);
        command.args(args).arg(format!("{}{path}", self.url));
        let text = output(&mut command)?;
        let (body, status) = text.rsplit_once('\n').context("curl wrote no status")?;
        Ok((status.parse()?, body.to_owned()))
    }

    /// What `start` has begun.
    fn pid(&self, program: &str) -> Option<Pid> {
        let text = fs::read_to_string(self.dir.join(format!("{program}.pid"))).ok()?;
        text.trim().parse().ok().map(Pid::from_raw)
    }
}

/// An API server that was stopped: how it was started.
#[derive(Debug)]
pub struct Stopped(Vec<String>);

impl Drop for KubeApi {
    fn drop(&mut self) {
        self.again = None;
        // Before their directory goes.
        for program in ["api", "etcd"] {
            let ended = self.pid(program).map(end);
            if let Some(Err(error)) = ended {
                eprintln!("lab: {error:#}");
            }
        }
    }
}

/// Where the scripts of the API server are: where one is told, those for envtest's programs where these
/// are told, else beside the repository.
fn scripts() -> Result<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let envtest = std::env::var_os("KUBEBUILDER_ASSETS").map(|_| root.join("scripts/envtest"));
    let named = std::env::var_os("LOCKSTEP_KUBE_API").map(PathBuf::from);
    let scripts = named.or(envtest);
    let scripts = scripts.unwrap_or_else(|| root.join("../shared/kube-api"));
    ensure!(
        scripts.join("start").is_file(),
        "there is no API server to test with: {} has no `start`; set LOCKSTEP_KUBE_API to the \
         directory that has, or KUBEBUILDER_ASSETS to one with etcd and kube-apiserver",
        scripts.display()
    );
    Ok(scripts)
}

/// `kill -9`, and waits for the end of it. Nobody has to have reaped it: its parent is gone.
fn end(pid: Pid) -> Result<()> {
    let command = format!("/proc/{pid}/cmdline");
    // Gone already is as good.
    let _ = kill(pid, Signal::SIGKILL);
    wait_until(&format!("process {pid} has ended"), START, || {
        let there = fs::read(&command).unwrap_or_default();
        Ok(there.is_empty().then_some(()))
    })
}

/// Where an object is. What follows is so for every kind that scenarios have.
fn path(object: &Value) -> String {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let metadata = &object["metadata"];
    let version = text(&object["apiVersion"]);
    let mut path = match version.as_str() {
        "v1" => "/api/v1".to_owned(),
        version => format!("/apis/{version}"),
    };
    if metadata["namespace"].is_string() {
        path += &format!("/namespaces/{}", text(&metadata["namespace"]));
    }
    let mut plural = text(&object["kind"]).to_lowercase();
    plural += if plural.ends_with('s') { "es" } else { "s" };
    path + &format!("/{plural}/{}", text(&metadata["name"]))
}

impl Lab {
    /// On the first balancer an API server, an engine, and a daemon that follows the API server.
    pub fn start_kubernetes(&mut self) -> Result<KubeApi> {
        let api = self.start_cluster()?;
        self.follow(&api, "")?;
        Ok(api)
    }

    /// On the first balancer an API server and an engine.
    pub fn start_cluster(&mut self) -> Result<KubeApi> {
        self.attach_decap()?;
        let balancer = &mut self.balancers[0];
        balancer.start_engine()?;
        KubeApi::start(balancer)
    }

    /// A daemon beside that engine, with these lines more in its section.
    pub fn follow(&mut self, api: &KubeApi, more: &str) -> Result<()> {
        let balancer = &mut self.balancers[0];
        fs::write(balancer.services_file(), "service = []\n")?;
        let node = format!("[node]\nname = \"{}\"\n", balancer.name());
        fs::write(balancer.config_file(), node + &api.section() + more)?;
        balancer.start_daemon()
    }
}

impl Balancer {
    /// `lockstep kubernetes`, whatever its exit code says.
    pub fn kubernetes(&self) -> Result<Value> {
        let output = self.run(&["kubernetes", "--output", "json"])?;
        let says = String::from_utf8_lossy(&output.stderr);
        serde_json::from_slice(&output.stdout).with_context(|| format!("no answer: {says}"))
    }

    /// What the daemon keeps of the cluster, for a start without its API server.
    pub fn kept_cluster(&self) -> Result<String> {
        let file = self.dir().join("state/kubernetes.json");
        match fs::read_to_string(&file) {
            Ok(text) => Ok(text),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(String::new()),
            Err(error) => Err(error).with_context(|| format!("cannot read {}", file.display())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{objects, path};

    #[test]
    fn an_object_says_where_it_is() {
        let paths = [
            (objects::namespace("shop"), "/api/v1/namespaces/shop"),
            (
                objects::web_service("shop", "web"),
                "/api/v1/namespaces/shop/services/web",
            ),
            (
                objects::slice("shop", "web", &[]),
                "/apis/discovery.k8s.io/v1/namespaces/shop/endpointslices/web-1",
            ),
            (
                objects::pool("lab", &["203.0.113.10/32"]),
                "/apis/lockstep.dev/v1alpha1/addresspools/lab",
            ),
            (
                objects::gateway_class(),
                "/apis/gateway.networking.k8s.io/v1/gatewayclasses/lockstep",
            ),
        ];
        for (object, expected) in paths {
            assert_eq!(path(&object), expected);
        }
    }
}
