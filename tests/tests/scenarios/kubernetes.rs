//! A cluster's Services and Dires through the engine: the daemon follows a real API server, and pods
//! are the lab's nginx servers.

use anyhow::{Context, Result, ensure};
use lockstep_tests::lab::kubernetes::{
    Controller, Endpoint, deployment, dire, gateway, inner_service, namespace, pod, pod_status,
    pool, slice, slice_of, tcp_route, web_service, web_service_of,
};
use lockstep_tests::lab::{
    Content, KeepAlive, KubeApi, Lab, RunningWrk, Server, VIP_V4, VIP_V6, Version, Wrk, scenario,
    wait_until,
};
use serde_json::{Value, json};
use std::time::Duration;

const SOON: Duration = Duration::from_secs(20);
const LEASE: Duration = Duration::from_secs(40);
const SHOP: &str = "shop";
const SERVICE: &str = "shop/web/http";
const MIB: u64 = 1 << 20;

/// A namespace, and the lab's VIP for whoever asks first.
fn furnish(api: &KubeApi) -> Result<()> {
    api.apply(&namespace(SHOP))?;
    api.apply(&pool("lab", &[&format!("{VIP_V4}/32")]))
}

/// Waits until the engine has these backends, of these states, and no others.
fn serves(lab: &Lab, expected: &[(&str, &str)]) -> Result<()> {
    let balancer = &lab.balancers[0];
    wait_until(&format!("{SERVICE} has {expected:?}"), SOON, || {
        let serves = balancer.status()?.serves(SERVICE, expected)?;
        Ok(serves.then_some(()))
    })
}

/// About 500 requests a second.
fn load(lab: &Lab, load: Wrk) -> Result<RunningWrk> {
    let script = lab.run().dir().join("paced.lua");
    std::fs::write(&script, "function delay() return 15 end\n")?;
    lab.client.start_wrk(&load.connections(8).script(script))
}

/// Waits until a server has answered so many requests more.
fn answers(server: &Server, more: u64) -> Result<()> {
    let before = server.requests()?;
    let what = format!("{} answers {more} requests more", server.name());
    wait_until(&what, SOON, || {
        Ok((server.requests()? >= before + more).then_some(()))
    })
}

#[test]
fn scenario_kubernetes_a_pod_of_a_service_is_replaced_under_load_and_no_request_fails() {
    scenario(&Lab::builder().servers(4), |lab| {
        let api = lab.start_kubernetes()?;
        furnish(&api)?;
        api.apply(&web_service(SHOP, "web"))?;
        let ready = [0, 1, 2].map(Endpoint::Ready);
        api.apply(&slice(SHOP, "web", &ready))?;
        let active = |name| (name, "active");
        serves(lab, &["s1", "s2", "s3"].map(active))?;
        let status = api.get(&web_service(SHOP, "web"))?;
        let ingress = &status["status"]["loadBalancer"]["ingress"];
        ensure!(
            ingress[0]["ip"] == json!(VIP_V4) && ingress[0]["ipMode"] == "Proxy",
            "{status}"
        );

        let mut open = KeepAlive::open_many(lab.client.netns(), VIP_V4.into(), 24)?;
        let with_s1 = open.iter().filter(|c| c.server() == "s1").count();
        ensure!(with_s1 > 0, "none of 24 connections is with s1");
        let short = Wrk::new(Version::V4.url()).connection_per_request();
        let load = load(lab, short.seconds(60))?;
        answers(&lab.servers[0], 100)?;

        // As a Deployment does it: first another pod, then one ends.
        let all = [0, 1, 2, 3].map(Endpoint::Ready);
        api.apply(&slice(SHOP, "web", &all))?;
        answers(&lab.servers[3], 100)?;
        let mut changed = all;
        changed[0] = Endpoint::Terminating(0);
        api.apply(&slice(SHOP, "web", &changed))?;
        let drains = [("s1", "draining"), active("s2"), active("s3"), active("s4")];
        serves(lab, &drains)?;
        open.iter_mut().try_for_each(KeepAlive::must_stay)?;
        let new = KeepAlive::open_many(lab.client.netns(), VIP_V4.into(), 24)?;
        let to_s1 = new.iter().filter(|c| c.server() == "s1").count();
        ensure!(to_s1 == 0, "{to_s1} of 24 new connections are with s1");
        open.retain(|connection| connection.server() != "s1");
        has_no_connection(&lab.servers[0])?;
        lab.servers[0].nginx()?.kill_all()?;
        api.apply(&slice(SHOP, "web", &all[1..]))?;
        serves(lab, &["s2", "s3", "s4"].map(active))?;
        answers(&lab.servers[3], 100)?;

        open.iter_mut().try_for_each(KeepAlive::must_stay)?;
        let report = load.finish()?;
        println!("{report:?}");
        ensure!(report.errors() == 0, "{report:?}");
        let shown = lab.balancers[0].cli_text(&["kubernetes"])?;
        ensure!(shown.contains("shop/web"), "{shown}");
        Ok(())
    });
}

/// Waits until nobody is connected with a server's nginx any more.
fn has_no_connection(server: &Server) -> Result<()> {
    let what = format!("{} has no connection any more", server.name());
    wait_until(&what, SOON, || {
        let args = ["-Htn", "state", "established", "sport", "=", ":80"];
        let left = server.netns().output("ss", &args)?;
        Ok(left.trim().is_empty().then_some(()))
    })
}

#[test]
fn scenario_kubernetes_an_api_server_that_is_away_and_a_killed_daemon_fail_no_request() {
    scenario(&Lab::builder(), |lab| {
        let mut api = lab.start_kubernetes()?;
        furnish(&api)?;
        api.apply(&web_service(SHOP, "web"))?;
        api.apply(&slice(SHOP, "web", &[0, 1].map(Endpoint::Ready)))?;
        serves(lab, &[("s1", "active"), ("s2", "active")])?;
        wait_until("the daemon has kept what it knows", SOON, || {
            let kept = lab.balancers[0].kept_cluster()?;
            let whole = ["203.0.113.10", "10.0.1.11", "10.0.1.12"];
            Ok(whole.iter().all(|text| kept.contains(text)).then_some(()))
        })?;

        let url = Version::V4.url();
        let long = load(lab, Wrk::new(&url).seconds(12))?;
        let short = load(lab, Wrk::new(&url).seconds(12).connection_per_request())?;
        let stopped = api.stop()?;
        says(lab, "connected", &json!(false))?;
        lab.balancers[0].kill_daemon()?;
        lab.balancers[0].start_daemon()?;
        says(lab, "serves", &json!("restored"))?;
        answers(&lab.servers[0], 100)?;
        // By their end, the API server has been away for longer than anybody waits for it.
        for load in [long, short] {
            let report = load.report()?;
            println!("{report:?}");
            ensure!(report.errors() == 0, "{report:?}");
        }
        says(lab, "connected", &json!(false))?;
        serves(lab, &[("s1", "active"), ("s2", "active")])?;

        api.start_again(&stopped)?;
        api.apply(&slice(SHOP, "web", &[Endpoint::Ready(2)]))?;
        serves(lab, &[("s3", "active")])?;
        says(lab, "serves", &json!("current"))?;
        let answer = lab.client.get(VIP_V4.into())?;
        ensure!(answer.body == "s3\n", "{answer:?}");
        Ok(())
    });
}

/// Waits until the daemon says this of its cluster.
fn says(lab: &Lab, key: &str, value: &Value) -> Result<()> {
    wait_until(&format!("{key} of the cluster is {value}"), SOON, || {
        let cluster = &lab.balancers[0].kubernetes()?["cluster"];
        Ok((cluster[key] == *value).then_some(()))
    })
}

#[test]
fn scenario_kubernetes_a_download_from_a_dire_survives_the_deletion_of_its_primary() {
    scenario(&Lab::builder().servers(4), |lab| {
        let api = lab.start_kubernetes()?;
        furnish(&api)?;
        let content = Content::new(lab.run(), "large", 96 * MIB, 5)?;
        api.apply(&deployment(SHOP, "files", 3))?;
        (0..3).try_for_each(|index| run_pod(&api, index))?;
        let files = dire(SHOP, "files", "files");
        api.apply(&files)?;
        let status = wait_for_dire(&api, "has three replicas", |status| {
            let ready =
                |condition: &Value| condition["type"] == "Ready" && condition["status"] == "True";
            status["syncedReplicas"] == 3 && conditions(status).any(ready)
        })?;
        ensure!(status["addresses"] == json!([VIP_V4]), "{status}");

        let mut deleted = None;
        let mut looked = false;
        let (client, servers, balancer) = (&lab.client, &mut lab.servers, &lab.balancers[0]);
        let arrived = client.download(Version::V4.web(), &content, |bytes| {
            if bytes >= content.size() / 4 && deleted.is_none() {
                let primary = balancer.session()?.primary()?;
                api.delete(&pod(SHOP, "files", primary, false))?;
                servers[primary].nginx()?.kill_all()?;
                api.apply(&pod(SHOP, "files", primary, true))?;
                // What its Deployment makes instead.
                run_pod(&api, 3)?;
                deleted = Some(servers[primary].name());
            }
            if bytes >= content.size() / 2 && !looked {
                let gone = deleted.as_deref().context("nothing was deleted")?;
                switched_from(&api, gone)?;
                let events = balancer.cli_text(&["events"])?;
                ensure!(events.contains(&format!("switched {gone} -> ")), "{events}");
                looked = true;
            }
            Ok(())
        })?;
        arrived.must_be(&content)?;
        ensure!(looked);
        println!("longest pause {:?}", arrived.pause);
        wait_until("the Dire's events are told", SOON, || {
            let events = api.events("Dire", SHOP, "files")?;
            let told = |reason: &str| events.iter().any(|event| event == reason);
            Ok((told("SwitchedOver") && told("ReplicaJoined")).then_some(()))
        })
    });
}

/// A pod of the Deployment `files`, which serves.
fn run_pod(api: &KubeApi, index: usize) -> Result<()> {
    api.apply(&pod(SHOP, "files", index, false))?;
    api.apply_status(&pod_status(SHOP, index))
}

fn conditions(status: &Value) -> impl Iterator<Item = &Value> {
    status["conditions"].as_array().into_iter().flatten()
}

/// Waits until the status of the Dire is as wanted.
fn wait_for_dire(api: &KubeApi, what: &str, wanted: impl Fn(&Value) -> bool) -> Result<Value> {
    let mut last = Value::Null;
    let found = wait_until(&format!("the Dire {what}"), SOON, || {
        last = api.get(&dire(SHOP, "files", "files"))?["status"].take();
        Ok(wanted(&last).then(|| last.clone()))
    });
    found.with_context(|| format!("its status is {last}"))
}

/// The status tells of another primary, and that three replicas are in sync again: the fourth pod
/// has been fed what the session's client has sent and got. On a busy machine the next primary may have
/// stalled since: the last switchover is not always that from the pod that is gone.
fn switched_from(api: &KubeApi, gone: &str) -> Result<()> {
    let status = wait_for_dire(api, "has another primary, and three in sync", |status| {
        let primary = status["primary"].as_str().unwrap_or_default();
        let replicas = status["replicas"].as_array().into_iter().flatten();
        let joined = |replica: &Value| replica["pod"] == "s4" && replica["state"] == "InSync";
        let others: Vec<&Value> = replicas.collect();
        !primary.is_empty()
            && primary != gone
            && status["syncedReplicas"] == 3
            && others.iter().all(|replica| replica["pod"] != *gone)
            && others.into_iter().any(joined)
    })?;
    let last = &status["lastSwitchover"];
    ensure!(
        last["to"] == status["primary"] && last["to"] != last["from"] && status["sessions"] == 1,
        "{status}"
    );
    Ok(())
}

/// Every server in turn answers requests to a VIP, and none fails.
fn carries(lab: &Lab, version: Version, servers: &[&str]) -> Result<()> {
    let open = KeepAlive::open_many(lab.client.netns(), version.vip(), 24)?;
    let mut answered: Vec<&str> = open.iter().map(KeepAlive::server).collect();
    answered.sort_unstable();
    answered.dedup();
    ensure!(answered == servers, "{version:?}: {answered:?} answered");
    let load = Wrk::new(version.url()).connection_per_request();
    let report = lab.client.wrk(&load.connections(4).seconds(1))?;
    println!("{version:?}: {report:?}");
    ensure!(report.errors() == 0, "{version:?}: {report:?}");
    Ok(())
}

#[test]
fn scenario_kubernetes_a_route_of_a_gateway_and_a_service_of_ipv6_carry_traffic() {
    scenario(&Lab::builder().servers(3), |lab| {
        let api = lab.start_cluster()?;
        api.install_gateways()?;
        lab.follow(&api, &api.gateways())?;
        api.apply(&namespace(SHOP))?;
        let both = [format!("{VIP_V4}/32"), format!("{VIP_V6}/128")];
        api.apply(&pool("lab", &[&both[0], &both[1]]))?;
        let six = Version::V6;
        api.apply(&web_service_of(six, SHOP, "web"))?;
        let ready = [0, 1, 2].map(Endpoint::Ready);
        api.apply(&slice_of(six, SHOP, "web", &ready))?;
        // Services without an address, which no balancer would look at but for the route.
        for (name, pods) in [("stable", &ready[..2]), ("canary", &ready[2..])] {
            api.apply(&inner_service(SHOP, name))?;
            api.apply(&slice(SHOP, name, pods))?;
        }
        let edge = gateway(SHOP, "edge", VIP_V4.into());
        let route = |weights: &[(&str, u32)]| tcp_route(SHOP, "edge", weights);
        api.apply(&edge)?;
        api.apply(&route(&[("stable", 1), ("canary", 1)]))?;
        let is_served = |name: &str, backends: &[&str]| {
            let backends: Vec<_> = backends.iter().map(|b| (*b, "active")).collect();
            wait_until(&format!("{name} has {backends:?}"), SOON, || {
                let status = lab.balancers[0].status()?;
                Ok(status.serves(name, &backends)?.then_some(()))
            })
        };
        let listener = format!("{SHOP}/edge-gateway/web");
        is_served(SERVICE, &["s1", "s2", "s3"])?;
        is_served(&listener, &["s1", "s2", "s3"])?;
        carries(lab, Version::V6, &["s1", "s2", "s3"])?;
        carries(lab, Version::V4, &["s1", "s2", "s3"])?;
        let status = api.get(&web_service(SHOP, "web"))?;
        let ingress = &status["status"]["loadBalancer"]["ingress"];
        ensure!(ingress[0]["ip"] == json!(VIP_V6), "{status}");
        let holds = |kind: &str, status: &Value| {
            let is = |c: &Value| c["type"] == *kind && c["status"] == "True";
            conditions(status).any(is)
        };
        wait_until("the Gateway says that it is served", SOON, || {
            let status = &api.get(&edge)?["status"];
            let address = status["addresses"][0]["value"] == json!(VIP_V4);
            Ok((address && holds("Programmed", status)).then_some(()))
        })?;

        // Nothing goes to the canary any more.
        api.apply(&route(&[("stable", 1), ("canary", 0)]))?;
        is_served(&listener, &["s1", "s2"])?;
        carries(lab, Version::V4, &["s1", "s2"])?;
        wait_until("the route says that it is accepted", SOON, || {
            let parent = &api.get(&route(&[]))?["status"]["parents"][0];
            Ok(holds("Accepted", parent).then_some(()))
        })
    });
}

#[test]
fn scenario_kubernetes_a_leader_that_is_killed_is_followed_and_no_request_fails() {
    scenario(&Lab::builder(), |lab| {
        let api = lab.start_kubernetes()?;
        api.apply(&namespace(SHOP))?;
        // One more than the lab has a route for.
        api.apply(&pool("lab", &["203.0.113.10-203.0.113.11"]))?;
        says(lab, "leads", &json!(true))?;
        let controller = Controller::start(&lab.balancers[0], &api)?;
        api.apply(&web_service(SHOP, "web"))?;
        api.apply(&slice(SHOP, "web", &[0, 1].map(Endpoint::Ready)))?;
        serves(lab, &[("s1", "active"), ("s2", "active")])?;
        let address = |name: &str| -> Result<Value> {
            let service = api.get(&web_service(SHOP, name))?;
            Ok(service["status"]["loadBalancer"]["ingress"][0]["ip"].clone())
        };
        ensure!(address("web")? == json!(VIP_V4));

        // Longer than it takes: what is left of it is not waited for.
        let short = Wrk::new(Version::V4.url()).connection_per_request();
        let load = load(lab, short.seconds(90))?;
        answers(&lab.servers[0], 100)?;
        let led = controller.cluster(&lab.balancers[0])?;
        ensure!(led["leads"] == json!(false), "{led}");
        lab.balancers[0].kill_daemon()?;
        api.apply(&web_service(SHOP, "api"))?;
        // The Lease of who was killed runs out: fifteen seconds, and a look.
        wait_until("the other one leads, and gives an address", LEASE, || {
            let cluster = controller.cluster(&lab.balancers[0])?;
            let given = !address("api")?.is_null();
            Ok((cluster["leads"] == json!(true) && given).then_some(()))
        })?;
        ensure!(address("web")? == json!(VIP_V4));
        ensure!(address("api")? == json!("203.0.113.11"));
        answers(&lab.servers[0], 100)?;
        lab.balancers[0].start_daemon()?;
        says(lab, "serves", &json!("current"))?;
        says(lab, "leads", &json!(false))?;
        api.apply(&slice(SHOP, "web", &[1, 2].map(Endpoint::Ready)))?;
        serves(lab, &[("s2", "active"), ("s3", "active")])?;
        answers(&lab.servers[2], 100)?;
        let report = load.finish()?;
        println!("{report:?}");
        ensure!(report.errors() == 0, "{report:?}");
        ensure!(address("web")? == json!(VIP_V4));
        Ok(())
    });
}
