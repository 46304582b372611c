//! What is deployed in a cluster: the chart, the manifest that is rendered from it, kustomize's
//! overlays. helm and kubectl render; everything is read by the types of the API, and every file in it
//! by the programs' own readers.

mod objects;

use crate::common::{Daemon, Place, wait_for};
use clap::CommandFactory;
use lockstep_api::{DAEMON_SOCKET, ENGINE_SOCKET};
use lockstep_ctl::daemon::Options;
use lockstep_ctl_core::config::{self, Config};
use lockstep_ctl_core::kubernetes::access::{ACCESS, GATEWAY, Who};
use lockstep_ctl_core::services;
use lockstep_topology::Topology;
use objects::{Objects, strictly};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::chown;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// What the chart does with everything in use.
const EVERYTHING: &str = include_str!("deploy/everything.yaml");

/// An API server that knows our resources, as helm sees it.
const KNOWN: [&str; 2] = ["--api-versions", "lockstep.dev/v1alpha1/AddressPool"];

fn folder(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("deploy")
        .join(name)
}

/// A program that `scripts/deps.sh` has fetched.
fn tool(name: &str) -> Command {
    let cache = std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from);
    let home = || PathBuf::from(std::env::var_os("HOME").unwrap()).join(".cache");
    let tools = cache.unwrap_or_else(home).join("lockstep");
    let found = fs::read_dir(&tools).into_iter().flatten();
    let found = found.map(|entry| entry.unwrap().path().join(name));
    let program = found.filter(|path| path.exists()).max();
    let program = program.unwrap_or_else(|| panic!("no {name} in {tools:?}: make deps"));
    let mut command = Command::new(program);
    command.stdin(Stdio::null());
    command
}

/// What it prints, or why not.
fn run(command: &mut Command) -> Result<String, String> {
    let output = command.output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    match output.status.success() {
        true => Ok(text(output.stdout)),
        false => Err(text(output.stderr)),
    }
}

/// The chart with these values (a YAML text) and arguments.
fn template(values: &str, arguments: &[&str]) -> Result<String, String> {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("values.yaml");
    fs::write(&file, values).unwrap();
    let mut helm = tool("helm");
    helm.args(["template", "lockstep"])
        .arg(folder("helm/lockstep"));
    helm.args(["--namespace", "lockstep-system", "--values"])
        .arg(file);
    run(helm.args(arguments))
}

fn chart(values: &str) -> Objects {
    Objects::read(&template(values, &KNOWN).unwrap())
}

fn kustomized(name: &str) -> Objects {
    Objects::read(&run(tool("kubectl").arg("kustomize").arg(folder(name))).unwrap())
}

/// Every set of objects that somebody may deploy by what is in the repository.
fn all() -> Vec<(&'static str, Objects)> {
    vec![
        ("defaults", chart("")),
        ("everything", chart(EVERYTHING)),
        ("without roles", chart("rbac: {create: false}")),
        ("without resources", chart("crds: {enabled: false}")),
        ("the manifest", kustomized("manifest")),
        ("the example", kustomized("overlays/example")),
    ]
}

#[test]
fn the_chart_has_nothing_that_helm_warns_of() {
    run(tool("helm")
        .args(["lint", "--strict"])
        .arg(folder("helm/lockstep")))
    .unwrap();
}

#[test]
fn every_object_is_one_of_the_api_to_the_last_field() {
    for (of, objects) in all() {
        for object in objects.iter() {
            strictly(object).unwrap_or_else(|problem| panic!("{of}: {problem}"));
        }
        let names: BTreeSet<_> = objects.iter().map(objects::name).collect();
        assert_eq!(
            names.len(),
            objects.iter().count(),
            "{of}: an object is there twice"
        );
    }
    let wrong = "apiVersion: v1\nkind: Namespace\nmetadata: {name: a, lables: {}}\n";
    let wrong = Objects::read(wrong);
    let problem = strictly(wrong.iter().next().unwrap()).unwrap_err();
    assert!(problem.contains("metadata.lables"), "{problem}");
}

#[test]
fn what_can_be_left_out_is_left_out() {
    let count = |objects: &Objects, kind: &str| objects.of(kind).count();
    let (all, everything) = (chart(""), chart(EVERYTHING));
    assert_eq!(count(&all, "CustomResourceDefinition"), 3);
    assert_eq!(count(&all, "ClusterRole"), 2);
    assert_eq!(
        (count(&all, "AddressPool"), count(&all, "Advertisement")),
        (0, 0)
    );
    let bare = chart("crds: {enabled: false}\nrbac: {create: false}\n");
    for kind in [
        "CustomResourceDefinition",
        "ClusterRole",
        "ClusterRoleBinding",
        "Role",
    ] {
        assert_eq!(count(&bare, kind), 0, "{kind}");
    }
    assert_eq!(count(&bare, "ServiceAccount"), 2);
    assert_eq!(count(&everything, "AddressPool"), 1);
    assert_eq!(count(&everything, "Advertisement"), 1);
    for definition in all.of("CustomResourceDefinition") {
        let kept = &definition["metadata"]["annotations"]["helm.sh/resource-policy"];
        assert_eq!(kept, "keep", "with it all addresses would go");
    }
    let refused = template(EVERYTHING, &[]).unwrap_err();
    assert!(refused.contains("does not know AddressPool"), "{refused}");
}

#[test]
fn wrong_values_are_refused_with_their_place() {
    for (values, says) in [
        (
            "controller: {replicas: 0}",
            "at '/controller/replicas': minimum: got 0, want 1",
        ),
        (
            "image: {repository: ''}",
            "at '/image/repository': minLength",
        ),
        (
            "loadBalancerClass: xdp",
            "at '/loadBalancerClass': 'xdp' does not match pattern",
        ),
        (
            "log: {format: xml}",
            "at '/log/format': value must be one of 'text', 'json'",
        ),
        ("metrics: {port: 80}", "at '/metrics/port': minimum: got 80"),
        (
            "gateway: {enabled: true}",
            "additional properties 'gateway' not allowed",
        ),
        (
            "advertisements: [{name: a, type: OSPF}]",
            "at '/advertisements/0/type'",
        ),
        ("addressPools: [{name: a}]", "missing property 'addresses'"),
        (
            "engine: {topology: {a: ''}}",
            "at '/engine/topology/a': minLength",
        ),
        (
            "lockstepd: '[bgp]'",
            "at '/lockstepd': got string, want object",
        ),
        (
            "rbac: {create: maybe}",
            "at '/rbac/create': got string, want boolean",
        ),
    ] {
        let refused = template(values, &KNOWN).unwrap_err();
        assert!(refused.contains(says), "{values}: {refused}");
    }
}

/// The configuration in a ConfigMap: `lockstepd.toml`, or what else it is called.
fn configuration(objects: &Objects, map: &str, file: &str) -> Config {
    let text = objects
        .file(map, file)
        .unwrap_or_else(|| panic!("{map} has no {file}"));
    let read = config::parse(file, text).unwrap_or_else(|errors| panic!("{errors}"));
    assert!(!read.warnings.has_errors());
    read.config
}

#[test]
fn every_file_is_read_by_the_program_that_gets_it() {
    for (of, objects) in all() {
        let mut topologies = 0;
        for (map, name, text) in objects.files() {
            let problem = match name {
                "services.toml" => services::parse(name, text).err(),
                _ if map == "lockstep-topology" => {
                    topologies += 1;
                    Topology::parse(name, text).err()
                }
                _ => config::parse(name, text).err(),
            };
            assert!(problem.is_none(), "{of}: {map}: {}", problem.unwrap());
        }
        let expected = match of {
            "everything" | "the example" => 2,
            _ => 0,
        };
        assert_eq!(topologies, expected, "{of}");
        for (map, leads) in [("lockstep-controller", true), ("lockstep-node", false)] {
            let config = configuration(&objects, map, "lockstepd.toml");
            let kubernetes = config.kubernetes.unwrap();
            assert_eq!(kubernetes.lead, leads, "{of}: {map}");
            assert_eq!(kubernetes.namespace.as_deref(), Some("lockstep-system"));
            assert_eq!(config.operation.metrics.unwrap().ip().is_loopback(), !leads);
        }
    }
}

#[test]
fn values_come_into_the_files_of_the_nodes_that_they_are_for() {
    let objects = chart(EVERYTHING);
    let all = configuration(&objects, "lockstep-node", "lockstepd.toml");
    let own = configuration(&objects, "lockstep-node", "node.node-b.toml");
    assert!(all.layer2.is_some() && own.layer2.is_none());
    assert!(own.announces(), "its routers");
    for config in [&all, &own] {
        let kubernetes = config.kubernetes.as_ref().unwrap();
        assert_eq!(kubernetes.class, "example.org/lb");
        assert!(kubernetes.default_class);
        let controller = kubernetes.gateway_controller.as_deref();
        assert_eq!(controller, Some("example.org/gateway"));
        assert_eq!(config.operation.metrics.unwrap().port(), 9_999);
    }
    let defaults = chart("");
    let kubernetes = configuration(&defaults, "lockstep-controller", "lockstepd.toml").kubernetes;
    assert_eq!(kubernetes.unwrap().gateway_controller, None);

    // The scripts of the pod choose the same file.
    let script = |container: &str| {
        let container = objects.container("lockstep-engine", container);
        container["args"][0].as_str().unwrap().to_owned()
    };
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name).display().to_string();
    fs::write(at("node.node-b.toml"), "").unwrap();
    for (node, wanted) in [
        ("node-b", format!("--config {}", at("node.node-b.toml"))),
        ("node-c", String::new()),
    ] {
        let text = script("lockstepd").replace("/etc/lockstep", &at(""));
        let text = text.replace("//", "/").replace("exec lockstepd", "echo");
        let mut shell = Command::new("sh");
        let said = run(shell.args(["-euc", &text]).env("NODE_NAME", node)).unwrap();
        assert_eq!(said.trim(), wanted, "{node}");
    }
    for (node, works) in [("node-b", true), ("node-c", false)] {
        fs::write(at("node-b.toml"), "topology").unwrap();
        let text =
            script("topology").replace("/etc/lockstep-engine/topology.toml", &at("topology.toml"));
        let text = text.replace("/topology/$", &at("$"));
        let mut shell = Command::new("sh");
        let said = run(shell.args(["-euc", &text]).env("NODE_NAME", node));
        assert_eq!(said.is_ok(), works, "{node}: {said:?}");
        if let Err(said) = said {
            assert!(said.contains("set engine.topology.node-c"), "{said}");
        }
    }
}

#[test]
fn the_manifest_is_what_the_chart_renders() {
    let path = folder("manifest/lockstep.yaml");
    let rendered = template("", &[]).unwrap();
    let text = format!(
        "# The chart ctl/deploy/helm/lockstep with its defaults; a test compares.\n\
         # UPDATE=1 cargo nextest run -p lockstep-ctl deploy::\n\
         # Its pods use the network of their nodes: the namespace has to allow it.\n\
         apiVersion: v1\nkind: Namespace\nmetadata:\n  name: lockstep-system\n  labels:\n    \
         app.kubernetes.io/name: lockstep\n    pod-security.kubernetes.io/enforce: privileged\n\
         {rendered}"
    );
    if std::env::var_os("UPDATE").is_some() {
        fs::write(&path, &text).unwrap();
    }
    let there = fs::read_to_string(&path).unwrap_or_default();
    assert!(
        there == text,
        "{path:?} is not what the chart renders: UPDATE=1 cargo nextest run -p lockstep-ctl deploy::"
    );
}

/// Group, resource, verb, and the name of the only object, if there is one.
type Right = (String, String, String, Option<String>);

/// What a role allows.
fn allowed(role: &Value) -> BTreeSet<Right> {
    let words = |value: &Value| -> Vec<String> {
        let words = value.as_array().into_iter().flatten();
        words
            .map(|word| word.as_str().unwrap().to_owned())
            .collect()
    };
    let mut rights = BTreeSet::new();
    for rule in role["rules"].as_array().unwrap() {
        let named = words(&rule["resourceNames"]);
        let names: Vec<_> = match named.is_empty() {
            true => vec![None],
            false => named.into_iter().map(Some).collect(),
        };
        for group in words(&rule["apiGroups"]) {
            for resource in words(&rule["resources"]) {
                for verb in words(&rule["verbs"]) {
                    for name in &names {
                        let right = (group.clone(), resource.clone(), verb.clone(), name.clone());
                        assert!(rights.insert(right.clone()), "{right:?} is allowed twice");
                    }
                }
            }
        }
    }
    rights
}

/// What the daemon asks for.
fn needed(who: Who, own_namespace: bool, gateways: bool) -> BTreeSet<Right> {
    let rows = ACCESS.iter().filter(|row| {
        let gateway = gateways || row.group != GATEWAY;
        row.who == who && row.own_namespace == own_namespace && gateway
    });
    let mut rights = BTreeSet::new();
    for row in rows {
        let names: Vec<_> = match row.names {
            [] => vec![None],
            names => names.iter().map(|name| Some((*name).to_owned())).collect(),
        };
        for verb in row.verbs {
            for name in &names {
                let (group, resource) = (row.group.to_owned(), row.resource.to_owned());
                rights.insert((group, resource, (*verb).to_owned(), name.clone()));
            }
        }
    }
    rights
}

#[test]
fn roles_allow_what_the_daemon_does_and_no_more() {
    for (values, gateways) in [("", false), ("gatewayApi: {enabled: true}", true)] {
        let objects = chart(values);
        let role = |kind: &str, name: &str| allowed(objects.get(kind, name));
        let node = role("ClusterRole", "lockstep-node");
        assert_eq!(node, needed(Who::Every, false, gateways));
        let controller = role("ClusterRole", "lockstep-controller");
        assert_eq!(controller, needed(Who::Leader, false, gateways));
        let own = role("Role", "lockstep-controller");
        assert_eq!(own, needed(Who::Leader, true, gateways));
        assert!(needed(Who::Every, true, gateways).is_empty());
    }
    let objects = chart("");
    let bound = |kind: &str, name: &str| -> BTreeSet<String> {
        let binding = objects.get(kind, name);
        let role = kind.trim_end_matches("Binding");
        assert_eq!(
            (&binding["roleRef"]["kind"], &binding["roleRef"]["name"]),
            (&role.into(), &name.into())
        );
        let subjects = binding["subjects"].as_array().unwrap().iter();
        subjects
            .map(|s| s["name"].as_str().unwrap().to_owned())
            .collect()
    };
    let both = BTreeSet::from(["lockstep-controller".to_owned(), "lockstep-node".to_owned()]);
    let leader = BTreeSet::from(["lockstep-controller".to_owned()]);
    assert_eq!(bound("ClusterRoleBinding", "lockstep-node"), both);
    assert_eq!(bound("ClusterRoleBinding", "lockstep-controller"), leader);
    assert_eq!(bound("RoleBinding", "lockstep-controller"), leader);
    for (workload, account) in [
        ("lockstep-controller", "lockstep-controller"),
        ("lockstep-engine", "lockstep-node"),
    ] {
        assert_eq!(objects.pod(workload)["serviceAccountName"], account);
    }
}

/// The capabilities of a unit of the Debian package, and whether it may lock any memory.
fn of_unit(name: &str) -> (BTreeSet<String>, bool) {
    let unit = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("debian/units")
        .join(name);
    let text = fs::read_to_string(unit).unwrap();
    let value = |key: &str| {
        let lines = text.lines().filter_map(|line| line.strip_prefix(key));
        lines.collect::<Vec<_>>().join(" ")
    };
    let all = value("CapabilityBoundingSet=");
    let names = all.split_whitespace();
    let names = names.map(|name| name.strip_prefix("CAP_").unwrap().to_owned());
    (names.collect(), value("LimitMEMLOCK=") == "infinity")
}

fn capabilities(container: &Value) -> BTreeSet<String> {
    let added = container["securityContext"]["capabilities"]["add"].as_array();
    let added = added.into_iter().flatten();
    added
        .map(|name| name.as_str().unwrap().to_owned())
        .collect()
}

#[test]
fn containers_may_do_what_the_units_of_the_package_may_and_no_more() {
    let objects = chart(EVERYTHING);
    for workload in ["lockstep-controller", "lockstep-engine"] {
        for container in objects.containers(workload) {
            let name = &container["name"];
            let context = &container["securityContext"];
            assert_eq!(context["allowPrivilegeEscalation"], false, "{name}");
            assert_eq!(context["readOnlyRootFilesystem"], true, "{name}");
            assert_eq!(context["capabilities"]["drop"][0], "ALL", "{name}");
            assert_eq!(container["image"], "registry.example/lockstep:1.2.3");
        }
    }
    let (mut engine, locks) = of_unit("lockstep-engine.service");
    assert!(
        locks,
        "a pod has no limit to raise: it needs the capability"
    );
    engine.insert("IPC_LOCK".to_owned());
    assert_eq!(
        capabilities(objects.container("lockstep-engine", "engine")),
        engine
    );
    let (mut daemon, _) = of_unit("lockstepd.service");
    // For checks through tunnels of services.toml, and a device that a pod does not have.
    assert!(daemon.remove("NET_ADMIN"));
    assert_eq!(
        capabilities(objects.container("lockstep-engine", "lockstepd")),
        daemon
    );
    let controller = objects.container("lockstep-controller", "lockstepd");
    assert!(capabilities(controller).is_empty());
    let pod = &objects.pod("lockstep-controller")["securityContext"];
    assert_eq!(pod["runAsNonRoot"], true);
    assert_ne!(pod["runAsUser"], 0);

    // The engine is there before the daemon, and until VIPs are withdrawn.
    assert_eq!(
        objects.container("lockstep-engine", "engine")["restartPolicy"],
        "Always"
    );
    let config = configuration(&objects, "lockstep-node", "lockstepd.toml");
    let grace = objects.pod("lockstep-engine")["terminationGracePeriodSeconds"].as_u64();
    assert!(grace.unwrap() > 2 * config.shutdown.deadline.as_secs());
}

/// What a container has at a path: the volume that is mounted there, or above.
fn mounted<'a>(container: &'a Value, path: &str) -> Option<&'a str> {
    let mounts = container["volumeMounts"].as_array()?.iter();
    let above =
        mounts.filter(|mount| Path::new(path).starts_with(mount["mountPath"].as_str().unwrap()));
    above.map(|mount| mount["name"].as_str().unwrap()).next()
}

#[test]
fn the_paths_of_the_programs_are_mounted() {
    let objects = chart("");
    let options = Options::command();
    let default = |name: &str| {
        let argument = options
            .get_arguments()
            .find(|argument| argument.get_id() == name)
            .unwrap();
        argument.get_default_values()[0]
            .to_str()
            .unwrap()
            .to_owned()
    };
    let paths = BTreeMap::from([
        (default("services"), "config"),
        (default("socket"), "run"),
        (default("engine_socket"), "run"),
        (default("state_dir"), "state"),
    ]);
    for workload in ["lockstep-controller", "lockstep-engine"] {
        let container = objects.container(workload, "lockstepd");
        for (path, volume) in &paths {
            assert_eq!(
                mounted(container, path),
                Some(*volume),
                "{workload}: {path}"
            );
        }
    }
    let engine = objects.container("lockstep-engine", "engine");
    let topology = engine["command"][2].as_str().unwrap();
    assert_eq!(mounted(engine, topology), Some("topology"));
    assert_eq!(
        mounted(engine, lockstep_topology::Engine::PIN_DIR),
        Some("bpf")
    );
    assert_eq!(mounted(engine, ENGINE_SOCKET), Some("run"));
    // `lockstep` in the daemon's container finds both.
    let daemon = objects.container("lockstep-engine", "lockstepd");
    assert_eq!(mounted(daemon, DAEMON_SOCKET), Some("run"));
    for workload in ["lockstep-controller", "lockstep-engine"] {
        let pod = objects.pod(workload);
        let volumes: BTreeSet<_> = pod["volumes"]
            .as_array()
            .unwrap()
            .iter()
            .map(|v| &v["name"])
            .map(Value::to_string)
            .collect();
        for container in objects.containers(workload) {
            for mount in container["volumeMounts"].as_array().unwrap() {
                assert!(volumes.contains(&mount["name"].to_string()), "{mount}");
            }
        }
    }
}

/// As in the controller's pod: no root, no capability, directories of its group. Needs root to become
/// nobody.
#[test]
fn the_daemon_of_the_controller_needs_no_root() {
    let objects = chart("");
    let pod = objects.pod("lockstep-controller");
    let user = u32::try_from(pod["securityContext"]["runAsUser"].as_u64().unwrap()).unwrap();
    let group = u32::try_from(pod["securityContext"]["fsGroup"].as_u64().unwrap()).unwrap();
    let place = Place::new("");
    let text = |file| objects.file("lockstep-controller", file).unwrap();
    fs::write(place.services(), text("services.toml")).unwrap();
    let metrics = "listen = \"0.0.0.0:9464\"";
    let config = text("lockstepd.toml");
    assert!(config.contains(metrics));
    let port = TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
        .port();
    let here = format!("listen = \"127.0.0.1:{port}\"");
    place.configure(&config.replace(metrics, &here));
    // kubelet gives volumes to the group, and ConfigMaps to everybody who reads.
    fs::create_dir(place.path("state")).unwrap();
    for (path, mode) in [("", 0o2777), ("state", 0o2775), ("etc", 0o755)] {
        use std::os::unix::fs::PermissionsExt;
        chown(place.path(path), None, Some(group)).unwrap();
        fs::set_permissions(place.path(path), fs::Permissions::from_mode(mode)).unwrap();
    }
    let daemon = place.daemon_command();
    let mut command = Command::new("setpriv");
    command.args([
        "--reuid",
        &user.to_string(),
        "--regid",
        "0",
        "--groups",
        &group.to_string(),
    ]);
    command.args(["--bounding-set=-all", "--inh-caps=-all", "--no-new-privs"]);
    command.arg(daemon.get_program()).args(daemon.get_args());
    let log = place.path("lockstepd.log");
    command
        .stdout(Stdio::null())
        .stderr(fs::File::create(&log).unwrap());
    let daemon = Daemon::start(&mut command, log);
    wait_for("the daemon", || place.daemon_socket().exists());
    wait_for("that it looks for its cluster", || {
        daemon.log().contains("service account")
    });
    wait_for("metrics", || daemon.log().contains("metrics are served at"));
    let answer = place.lockstep(&["kubernetes"]);
    answer.expect(1, &["this is no pod with a service account"]);
    let log = daemon.log();
    assert!(!log.contains("denied"), "{log}");
    assert_eq!(daemon.terminate(), Some(0));
}
