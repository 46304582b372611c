//! A real API server: the one of `../shared/kube-api`, or any cluster that `KUBECONFIG` names.

use super::wait_for;
use hyper::Request;
use kube::config::{Config, KubeConfigOptions, Kubeconfig};
use kube::{Client, CustomResourceExt};
use lockstep_kubernetes::resources::{AddressPool, Advertisement, Dire};
use serde_json::{Value, json};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;
use tempfile::TempDir;
use tokio::runtime::Runtime;

/// An API server with our resources.
pub struct KubeApi {
    /// Where it lives, where it is the test's own.
    dir: Option<TempDir>,
    kubeconfig: PathBuf,
    /// Its program after it was stopped and started again.
    again: Mutex<Option<Child>>,
    runtime: Runtime,
    client: Client,
}

/// The scripts of the API server: where one is told, those for envtest's programs where these are told,
/// else those of the small one beside the repository.
fn scripts() -> PathBuf {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let named = std::env::var_os("LOCKSTEP_KUBE_API").map(PathBuf::from);
    let envtest = std::env::var_os("KUBEBUILDER_ASSETS").map(|_| root.join("scripts/envtest"));
    let scripts = named.or(envtest);
    let scripts = scripts.unwrap_or_else(|| root.join("../shared/kube-api"));
    assert!(
        scripts.join("start").exists(),
        "there is no API server to test with: {} has no `start`; set LOCKSTEP_KUBE_API to the \
         directory that has, KUBEBUILDER_ASSETS to one with etcd and kube-apiserver, or KUBECONFIG \
         to a cluster",
        scripts.display()
    );
    scripts
}

impl KubeApi {
    /// One that answers, and knows our resources.
    pub fn start() -> Self {
        let (dir, kubeconfig) = match std::env::var_os("KUBECONFIG") {
            Some(path) => (None, PathBuf::from(path)),
            None => {
                let dir = tempfile::tempdir().unwrap();
                let started = Command::new(scripts().join("start"))
                    .arg(dir.path())
                    .stdin(Stdio::null())
                    .output()
                    .unwrap();
                let text = String::from_utf8_lossy(&started.stderr);
                assert!(started.status.success(), "no API server: {text}");
                let kubeconfig = dir.path().join("kubeconfig");
                (Some(dir), kubeconfig)
            }
        };
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .unwrap();
        let client = runtime.block_on(async {
            let file = Kubeconfig::read_from(&kubeconfig).unwrap();
            let options = KubeConfigOptions::default();
            let config = Config::from_custom_kubeconfig(file, &options).await;
            Client::try_from(config.unwrap()).unwrap()
        });
        let api = KubeApi {
            dir,
            kubeconfig,
            again: Mutex::new(None),
            runtime,
            client,
        };
        api.install();
        api
    }

    fn install(&self) {
        for crd in [AddressPool::crd(), Advertisement::crd(), Dire::crd()] {
            let crds = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";
            let mut crd = serde_json::to_value(crd).unwrap();
            crd["apiVersion"] = json!("apiextensions.k8s.io/v1");
            crd["kind"] = json!("CustomResourceDefinition");
            self.apply(crds, crd);
        }
        for plural in ["addresspools", "advertisements", "dires"] {
            let path = format!("/apis/lockstep.dev/v1alpha1/{plural}");
            wait_for("our resources", || self.get(&path).is_some());
        }
        self.namespace("lockstep-system");
    }

    /// The file that says how it is reached.
    pub fn kubeconfig(&self) -> &Path {
        &self.kubeconfig
    }

    /// Has a namespace.
    pub fn namespace(&self, name: &str) {
        let object = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}});
        self.apply("/api/v1/namespaces", object);
    }

    /// Has an object like this, as `kubectl apply --server-side`.
    pub fn apply(&self, path: &str, object: Value) -> Value {
        let name = object["metadata"]["name"].as_str().unwrap();
        let path = format!("{path}/{name}");
        self.patch(&path, &object)
    }

    /// The same of an object whose path is known.
    pub fn patch(&self, path: &str, object: &Value) -> Value {
        let request = apply(path, object);
        let call = self.client.request::<Value>(request);
        self.runtime
            .block_on(call)
            .unwrap_or_else(|error| panic!("{path}: {error}"))
    }

    /// Has all of these objects, many at once.
    pub fn apply_all(&self, objects: impl Iterator<Item = (String, Value)>) {
        self.patch_all(objects.map(|(path, object)| {
            let path = format!("{path}/{}", object["metadata"]["name"].as_str().unwrap());
            (path, object)
        }));
    }

    /// The same of objects whose paths are known.
    pub fn patch_all(&self, objects: impl Iterator<Item = (String, Value)>) {
        use futures::{StreamExt, TryStreamExt, stream};
        let calls = objects.map(|(path, object)| {
            let client = self.client.clone();
            async move { client.request::<Value>(apply(&path, &object)).await }
        });
        let calls = stream::iter(calls).buffer_unordered(64);
        let done = self
            .runtime
            .block_on(calls.try_for_each(|_| async { Ok(()) }));
        done.unwrap();
    }

    /// What is there; nothing where there is nothing.
    pub fn get(&self, path: &str) -> Option<Value> {
        let request = Request::get(path).body(Vec::new()).unwrap();
        self.runtime
            .block_on(self.client.request::<Value>(request))
            .ok()
    }

    /// Takes an object away.
    pub fn delete(&self, path: &str) {
        let request = Request::delete(path).body(Vec::new()).unwrap();
        let call = self.client.request::<Value>(request);
        self.runtime.block_on(call).unwrap();
    }

    /// The addresses in a Service's status.
    pub fn addresses(&self, namespace: &str, name: &str) -> Vec<String> {
        let path = format!("/api/v1/namespaces/{namespace}/services/{name}");
        let object = self.get(&path).unwrap_or_default();
        let ingress = object["status"]["loadBalancer"]["ingress"].as_array();
        let ip = |ingress: &Value| ingress["ip"].as_str().unwrap_or_default().to_owned();
        ingress.map_or_else(Vec::new, |i| i.iter().map(ip).collect())
    }

    /// Stops the API server, as a host that is switched off. Returns how it is started again.
    pub fn stop(&self) -> Stopped {
        let dir = self.dir.as_ref().expect("the API server is the test's own");
        let pid = fs::read_to_string(dir.path().join("api.pid")).unwrap();
        let pid = pid.trim();
        let command = fs::read(format!("/proc/{pid}/cmdline")).unwrap();
        let command = String::from_utf8(command).unwrap();
        let command: Vec<String> = command.split_terminator('\0').map(str::to_owned).collect();
        let killed = Command::new("kill").args(["-9", pid]).status().unwrap();
        assert!(killed.success());
        let proc = PathBuf::from(format!("/proc/{pid}/cmdline"));
        wait_for("the API server's end", || {
            fs::read(&proc).unwrap_or_default().is_empty()
        });
        Stopped(command)
    }

    /// Starts it again where it was, with all it knew.
    pub fn start_again(&self, stopped: Stopped) {
        let dir = self.dir.as_ref().expect("the API server is the test's own");
        let log = fs::File::create(dir.path().join("api-again.log")).unwrap();
        let child = Command::new(&stopped.0[0])
            .args(&stopped.0[1..])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .unwrap();
        *self.again.lock().unwrap() = Some(child);
        let path = "/apis/lockstep.dev/v1alpha1/addresspools";
        wait_for("the API server", || self.get(path).is_some());
    }
}

/// An API server that was stopped: its command.
pub struct Stopped(Vec<String>);

fn apply(path: &str, object: &Value) -> Request<Vec<u8>> {
    Request::patch(format!("{path}?fieldManager=test&force=true"))
        .header("content-type", "application/apply-patch+yaml")
        .body(serde_json::to_vec(object).unwrap())
        .unwrap()
}

impl Drop for KubeApi {
    fn drop(&mut self) {
        let again = self
            .again
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        if let Some(mut child) = again {
            let _ = child.kill();
            let _ = child.wait();
        }
        if let Some(dir) = &self.dir {
            if std::thread::panicking() {
                let log = fs::read_to_string(dir.path().join("api.log")).unwrap_or_default();
                let last: Vec<&str> = log.lines().rev().take(5).collect();
                eprintln!(
                    "--- the end of the API server's log, backwards:\n{}",
                    last.join("\n")
                );
            }
            let _ = Command::new(scripts().join("stop"))
                .arg(dir.path())
                .status();
        }
    }
}

/// How long something took.
pub fn percentile(sorted: &[Duration], percent: usize) -> Duration {
    sorted[(sorted.len() * percent / 100).min(sorted.len() - 1)]
}
