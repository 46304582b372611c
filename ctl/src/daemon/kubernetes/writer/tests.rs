use super::super::client::Meter;
use super::super::fake::FakeApi;
use super::*;
use lockstep_kubernetes::CLASS;
use lockstep_kubernetes::facts::Name;
use tokio::time::timeout;

const SERVICES: &str = "/api/v1/services";
const EVENTS: &str = "/apis/events.k8s.io/v1/events";

fn cluster(api: &FakeApi) -> Cluster {
    Cluster {
        client: api.client(),
        server: "https://fake/".to_owned(),
        namespace: "lockstep-system".to_owned(),
        name: "lb1".to_owned(),
        me: "lb1_0".to_owned(),
        node: None,
        guessed: false,
        meter: Meter::default(),
    }
}

fn service(name: &str) -> Object {
    Object {
        kind: Kind::Service,
        name: Name::new("shop", name),
    }
}

fn address(name: &str, address: &str) -> Write {
    Write::Apply {
        object: service(name),
        status: true,
        body: json!({
            "metadata": {"labels": {"not": "by this path"}},
            "status": {"loadBalancer": {"ingress": [{"ip": address}]}},
        }),
    }
}

fn event(note: &str) -> Write {
    Write::Event(Event {
        about: service("web"),
        uid: "u".to_owned(),
        warning: false,
        reason: "IPAllocated",
        action: "Allocate",
        note: note.to_owned(),
    })
}

struct Desk {
    api: FakeApi,
    wanted: watch::Sender<Wanted>,
    written: watch::Receiver<Written>,
    _writer: JoinSet<()>,
}

impl Desk {
    fn new() -> Self {
        let api = FakeApi::default();
        for name in ["web", "api"] {
            let object = json!({
                "apiVersion": "v1", "kind": "Service",
                "metadata": {"namespace": "shop", "name": name}, "spec": {"ports": []},
            });
            api.put(SERVICES, object);
        }
        let (wanted, written) = (watch::Sender::default(), watch::Sender::default());
        let mut writer = JoinSet::new();
        let watched = written.subscribe();
        let class = CLASS.to_owned();
        writer.spawn(run(cluster(&api), class, wanted.subscribe(), written));
        Desk {
            api,
            wanted,
            written: watched,
            _writer: writer,
        }
    }

    fn want(&self, writes: Vec<Write>) {
        self.wanted.send_replace(Wanted {
            writes: shared(writes),
            until: uptime() + Duration::from_secs(60),
            ..Wanted::default()
        });
    }

    async fn until(&mut self, holds: impl Fn(&Written) -> bool) -> Written {
        let waited = self.written.wait_for(|written| holds(written));
        let waited = timeout(Duration::from_secs(20), waited).await;
        waited.expect("in time").expect("it runs").clone()
    }

    fn ip(&self, name: &str) -> Value {
        let object = self.api.get(SERVICES, &format!("shop/{name}"));
        object["status"]["loadBalancer"]["ingress"][0]["ip"].clone()
    }
}

#[tokio::test]
async fn what_is_wanted_is_written_once_and_to_status_only() {
    let mut desk = Desk::new();
    desk.want(vec![address("web", "10.0.0.1"), address("api", "10.0.0.2")]);
    desk.until(|w| w.done == 2 && w.open == 0).await;
    assert_eq!(
        (desk.ip("web"), desk.ip("api")),
        (json!("10.0.0.1"), json!("10.0.0.2"))
    );
    let web = desk.api.get(SERVICES, "shop/web");
    assert_eq!(web["metadata"]["labels"], Value::Null);
    // The watch has not come back yet: wanted again, at another time, it is not sent again.
    desk.want(vec![address("web", "10.0.0.1"), address("api", "10.0.0.3")]);
    desk.until(|w| w.done == 3).await;
    assert_eq!(
        desk.api.count("PATCH /api/v1/namespaces/shop/services/web"),
        1
    );
    assert_eq!(desk.ip("api"), json!("10.0.0.3"));
}

#[tokio::test]
async fn what_fails_is_tried_again_and_holds_up_nothing_else() {
    let mut desk = Desk::new();
    desk.api.refuse("services/web/status", 409);
    desk.want(vec![address("web", "10.0.0.1"), address("api", "10.0.0.2")]);
    let written = desk.until(|w| w.done == 1 && w.failed >= 2).await;
    assert_eq!(desk.ip("api"), json!("10.0.0.2"));
    let (what, why) = written.errors.first_key_value().unwrap();
    assert_eq!(what, "status of Service shop/web");
    assert!(why.contains("409"), "{why}");
    desk.api.refuse("services/web/status", 0);
    let written = desk.until(|w| w.done == 2).await;
    assert_eq!(desk.ip("web"), json!("10.0.0.1"));
    assert!(written.errors.is_empty(), "{:?}", written.errors);
}

#[tokio::test]
async fn whoever_does_not_lead_writes_its_own_part_only() {
    let mut desk = Desk::new();
    let part = Write::Part {
        object: service("api"),
        manager: "lockstepd-lb1".to_owned(),
        body: json!({"status": {"part": 1}}),
    };
    desk.wanted.send_replace(Wanted {
        writes: shared(vec![address("web", "10.0.0.1")]),
        until: uptime(),
        parts: shared(vec![part]),
    });
    desk.until(|w| w.done == 1).await;
    assert_eq!(desk.api.get(SERVICES, "shop/api")["status"]["part"], 1);
    assert_eq!(desk.ip("web"), Value::Null);
    assert_eq!(desk.api.count("services/web"), 0);
}

#[tokio::test]
async fn only_the_very_object_is_deleted() {
    let mut desk = Desk::new();
    let uid = desk.api.get(SERVICES, "shop/web")["metadata"]["uid"].clone();
    let delete = |name: &str, uid: &str| Write::Delete {
        object: service(name),
        uid: uid.to_owned(),
    };
    desk.want(vec![
        delete("web", uid.as_str().unwrap()),
        delete("api", "of another one"),
        delete("gone", "x"),
    ]);
    desk.until(|w| w.done == 3).await;
    let left = desk.api.all(SERVICES);
    assert_eq!(left.len(), 1);
    assert_eq!(left[0]["metadata"]["name"], "api");
}

#[tokio::test]
async fn an_event_is_told_once_while_it_is_wanted() {
    let mut desk = Desk::new();
    desk.want(vec![event("10.0.0.1 from public")]);
    desk.until(|w| w.done == 1).await;
    desk.want(vec![
        event("10.0.0.1 from public"),
        address("web", "10.0.0.1"),
    ]);
    desk.until(|w| w.done == 2).await;
    let events = desk.api.all(EVENTS);
    assert_eq!(events.len(), 1);
    assert_eq!(events[0]["regarding"]["name"], "web");
    assert_eq!(events[0]["note"], "10.0.0.1 from public");
    assert_eq!(events[0]["reportingController"], "lockstep.dev/lockstepd");
}

#[tokio::test]
async fn the_same_event_again_is_a_series_and_another_one_is_not() {
    let api = FakeApi::default();
    let events = Events::new(api.client(), "lb1_0".to_owned());
    for write in [event("a"), event("a"), event("b"), event("a")] {
        let Write::Event(event) = write else {
            unreachable!("it is one")
        };
        events.tell(&event).await.unwrap();
    }
    let mut all = api.all(EVENTS);
    all.sort_by_key(|event| event["note"].to_string());
    assert_eq!(all.len(), 2);
    assert_eq!(
        (&all[0]["note"], &all[0]["series"]["count"]),
        (&json!("a"), &json!(3))
    );
    assert_eq!(
        (&all[1]["note"], &all[1]["series"]),
        (&json!("b"), &Value::Null)
    );
}

#[test]
fn the_time_of_a_condition_makes_no_difference() {
    let write = |time: &str, status: &str| Write::Apply {
        object: service("web"),
        status: true,
        body: json!({"status": {"conditions": [{"type": "A", "status": status,
                                                "lastTransitionTime": time}]}}),
    };
    assert!(is_same(&write("1", "True"), &write("2", "True")));
    assert!(!is_same(&write("1", "True"), &write("1", "False")));
}

#[test]
fn objects_are_named_whole() {
    let body = json!({"metadata": {"uid": "u"}, "status": {}});
    let whole = whole(&service("web"), &body);
    assert_eq!(
        whole,
        json!({
            "apiVersion": "v1", "kind": "Service",
            "metadata": {"uid": "u", "name": "web", "namespace": "shop"}, "status": {},
        })
    );
}

#[tokio::test]
async fn annotations_are_written_beside_what_else_is_ours_of_an_object() {
    let mut desk = Desk::new();
    let object = Write::Apply {
        object: service("web"),
        status: false,
        body: json!({"metadata": {"labels": {"made": "by us"}}}),
    };
    let annotation = Write::Annotate {
        object: service("web"),
        body: json!({"metadata": {"annotations": {"pool": "public"}}}),
    };
    desk.want(vec![object, annotation]);
    desk.until(|w| w.done == 2 && w.open == 0).await;
    // By managers of their own: each takes away what it does not say any more.
    let request = "PATCH /api/v1/namespaces/shop/services/web by";
    let mut requests = desk.api.requests(request);
    requests.sort();
    let managers = [manager(CLASS), annotations_manager(CLASS)];
    assert_eq!(requests, managers.map(|m| format!("{request} {m}")));
}

fn part(body: u32) -> Write {
    Write::Part {
        object: service("api"),
        manager: "lockstepd-lb1".to_owned(),
        body: json!({"status": {"part": body}}),
    }
}

#[test]
fn a_write_that_failed_waits_whatever_it_says_but_for_another_object() {
    let of = |uid: &str, address: &str| Write::Apply {
        object: service("web"),
        status: true,
        body: json!({"metadata": {"uid": uid}, "status": {"ip": address}}),
    };
    let memory = |write: Write, error: Option<&str>| Memory {
        write: Arc::new(write),
        tries: 0,
        again: Instant::now(),
        error: error.map(str::to_owned),
        wanted: Instant::now(),
    };
    assert!(memory(part(1), Some("refused")).holds_up(&part(2)));
    assert!(!memory(part(1), None).holds_up(&part(2)));
    assert!(memory(of("a", "1"), Some("refused")).holds_up(&of("a", "2")));
    assert!(!memory(of("a", "1"), Some("refused")).holds_up(&of("b", "1")));
    assert!(!memory(of("a", "1"), None).holds_up(&of("b", "1")));
}

#[tokio::test]
async fn pauses_grow_although_each_try_says_something_else_and_parts_outlast_the_lead() {
    let api = FakeApi::default();
    let mut writer = Writer::new(&cluster(&api), CLASS);
    for n in 0..3 {
        writer.done(
            target(&part(n)),
            Arc::new(part(n)),
            Err("refused".to_owned()),
        );
    }
    assert_eq!(writer.memory[&target(&part(0))].tries, 2);
    for write in [part(0), address("web", "10.0.0.1")] {
        let handle = writer.under_way.spawn(std::future::pending());
        writer.busy.insert(target(&write), handle);
    }
    writer.want(&Wanted::default());
    assert!(writer.busy.keys().eq([&target(&part(0))]));
    let left = writer.under_way.join_next().await;
    assert!(
        left.expect("one ends")
            .is_err_and(|error| error.is_cancelled())
    );
    assert_eq!(writer.under_way.len(), 1);
}

#[tokio::test]
async fn what_is_decided_about_one_version_is_not_written_to_a_later_one() {
    let mut desk = Desk::new();
    let web = desk.api.get(SERVICES, "shop/web");
    let stale = |ip: &str| {
        let version = &web["metadata"]["resourceVersion"];
        let mut write = address("web", ip);
        if let Write::Apply { body, .. } = &mut write {
            body["metadata"]["resourceVersion"] = version.clone();
        }
        write
    };
    // Who leads now was faster: what this one has on its way comes too late.
    desk.want(vec![stale("10.0.0.1")]);
    desk.until(|w| w.done == 1).await;
    desk.want(vec![stale("10.0.0.2")]);
    let written = desk.until(|w| w.failed > 0).await;
    assert_eq!(desk.ip("web"), json!("10.0.0.1"));
    // Once that is usual, and nobody is told.
    assert!(
        written.failed > 1 || written.errors.is_empty(),
        "{written:?}"
    );
    desk.want(vec![address("web", "10.0.0.2")]);
    desk.until(|w| w.done == 2).await;
    assert_eq!(desk.ip("web"), json!("10.0.0.2"));
}

#[tokio::test]
async fn thousands_are_written_and_told_of_now_and_then() {
    const MANY: usize = 2_000;
    let mut desk = Desk::new();
    for n in 0..MANY {
        let object = json!({
            "apiVersion": "v1", "kind": "Service",
            "metadata": {"namespace": "shop", "name": format!("s{n}")}, "spec": {"ports": []},
        });
        desk.api.put(SERVICES, object);
    }
    let writes = || {
        (0..MANY)
            .map(|n| address(&format!("s{n}"), "10.0.0.1"))
            .collect()
    };
    desk.want(writes());
    let told = async {
        let mut told = 0_u32;
        while desk.written.borrow_and_update().done < MANY as u64 {
            desk.written.changed().await.expect("it runs");
            told += 1;
        }
        told
    };
    let begun = Instant::now();
    let told = timeout(Duration::from_secs(60), told)
        .await
        .expect("in time");
    let most = begun.elapsed().as_millis() / TELL.as_millis() + 2;
    assert!(u128::from(told) <= most, "{told} in {:?}", begun.elapsed());
}

#[tokio::test]
async fn what_may_not_be_written_is_said_once_a_kind_and_again_when_it_was_allowed_meanwhile() {
    let mut writer = Writer::new(&cluster(&FakeApi::default()), CLASS);
    let refused = || Err("we may not patch services/status (403): add the verb".to_owned());
    let mut done = |name: &str, outcome: Result<(), String>| {
        let write = address(name, "10.0.0.1");
        writer.done(target(&write), Arc::new(write), outcome);
        writer.said.len()
    };
    assert_eq!(done("web", Err("no answer in 4s".to_owned())), 0);
    assert_eq!(done("web", refused()), 1);
    assert_eq!(done("api", refused()), 1);
    assert_eq!(done("api", Ok(())), 0);
    assert_eq!(done("web", refused()), 1);
}
