//! What gets its addresses by a Service made for it: Dires and Gateways.

use super::*;

const DEPLOYMENTS: &str = "/apis/apps/v1/deployments";
const GATEWAY_API: &str = "/apis/gateway.networking.k8s.io/v1";
const GRANTS: &str = "/apis/gateway.networking.k8s.io/v1beta1/referencegrants";

fn pod(name: &str, address: &str) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"namespace": "games", "name": name, "labels": {"app": "hive"}},
        "spec": {"containers": []},
        "status": {
            "phase": "Running", "podIP": address,
            "conditions": [{"type": "Ready", "status": "True"}],
        },
    })
}

fn names(offer: &Offer) -> Vec<&str> {
    let services = offer.services.iter();
    let backends = services.flat_map(|service| &service.backends);
    backends.map(|backend| &*backend.name).collect()
}

#[tokio::test]
async fn a_dire_has_an_address_and_the_pods_of_its_deployment() {
    let mut desk = Desk::new();
    desk.api.put(
        DEPLOYMENTS,
        json!({
            "apiVersion": "apps/v1", "kind": "Deployment",
            "metadata": {"namespace": "games", "name": "hive"},
            "spec": {
                "replicas": 2, "selector": {"matchLabels": {"app": "hive"}},
                "template": {},
            },
        }),
    );
    desk.api.put(PODS, pod("a", "10.1.0.1"));
    desk.api.put(PODS, pod("b", "10.1.0.2"));
    desk.api.put(
        DIRES,
        json!({
            "apiVersion": "lockstep.dev/v1alpha1", "kind": "Dire",
            "metadata": {"namespace": "games", "name": "hive", "generation": 1},
            "spec": {"hiveDeploymentName": "hive", "forwardedPorts": [7000]},
        }),
    );
    desk.until_offered(|offer| names(offer) == ["a", "b"]).await;
    let service = &desk.offer.services[0];
    assert_eq!(service.name.as_str(), "games/hive-dire");
    assert_eq!(service.vips[0].to_string(), "203.0.113.0:7000/tcp");
    assert!(service.mode.replicate().is_some());
    let is_ready = |api: &FakeApi, _: &KubernetesReply| {
        let status = &api.get(DIRES, "games/hive")["status"];
        let conditions = status["conditions"].as_array();
        let ready = conditions.into_iter().flatten();
        let mut ready = ready.filter(|c| c["type"] == "Ready" && c["status"] == "True");
        ready.next().is_some() && status["syncedReplicas"] == 2
    };
    desk.until("the status", is_ready).await;
    desk.api.remove(PODS, "games/a");
    desk.api.put(PODS, pod("c", "10.1.0.3"));
    desk.until_offered(|offer| names(offer) == ["b", "c"]).await;
}

#[tokio::test]
async fn a_route_of_a_gateway_is_served_although_not_every_kind_is_installed() {
    let api = FakeApi::default();
    let kind = |plural: &str| format!("{GATEWAY_API}/{plural}");
    api.absent(&kind("udproutes"), true);
    api.absent(GRANTS, true);
    api.put(POOLS, pool());
    let version = "gateway.networking.k8s.io/v1";
    api.put(
        &kind("gatewayclasses"),
        json!({
            "apiVersion": version, "kind": "GatewayClass", "metadata": {"name": "lockstep"},
            "spec": {"controllerName": "lockstep.dev/gateway"},
        }),
    );
    api.put(
        &kind("gateways"),
        json!({
            "apiVersion": version, "kind": "Gateway",
            "metadata": {"namespace": "shop", "name": "edge"},
            "spec": {
                "gatewayClassName": "lockstep",
                "listeners": [{"name": "web", "port": 8000, "protocol": "TCP"}],
            },
        }),
    );
    api.put(
        &kind("tcproutes"),
        json!({
            "apiVersion": version, "kind": "TCPRoute",
            "metadata": {"namespace": "shop", "name": "web"},
            "spec": {
                "parentRefs": [{"name": "edge"}],
                "rules": [{"backendRefs": [{"name": "web", "port": 80}]}],
            },
        }),
    );
    // One that no class of ours is asked for.
    let mut inside = service("web");
    inside["spec"] = json!({
        "type": "ClusterIP", "ports": [{"name": "http", "protocol": "TCP", "port": 80}],
    });
    api.put(SERVICES, inside);
    api.put(SLICES, slice("web", &["10.1.0.1"]));
    let mut desk = Desk::with(&api, Arc::new(tempfile::tempdir().unwrap()));
    desk.start("gateway_controller = \"lockstep.dev/gateway\"");
    desk.until_offered(|offer| backends(offer) == 1).await;
    let service = &desk.offer.services[0];
    assert_eq!(service.name.as_str(), "shop/edge-gateway/web");
    assert_eq!(service.vips[0].to_string(), "203.0.113.0:8000/tcp");
    let is_programmed = |api: &FakeApi, _: &KubernetesReply| {
        let gateway = api.get(&format!("{GATEWAY_API}/gateways"), "shop/edge");
        let route = api.get(&format!("{GATEWAY_API}/tcproutes"), "shop/web");
        let listener = &gateway["status"]["listeners"][0];
        let parent = &route["status"]["parents"][0];
        listener["attachedRoutes"] == 1
            && gateway["status"]["addresses"][0]["value"] == "203.0.113.0"
            && parent["controllerName"] == "lockstep.dev/gateway"
    };
    desk.until("the status", is_programmed).await;
}
