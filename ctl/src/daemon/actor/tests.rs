//! The actor without an engine, with one that never answers, and with services of providers.

use super::*;
use lockstep_ctl_core::announce::ways::Advertisements;
use lockstep_ctl_core::drains::find_targets;
use lockstep_ctl_core::group::DrainChange;
use lockstep_ctl_core::services::parse;
use lockstep_ctl_core::services::sources::Offer;
use lockstep_plan::health::Verdict;
use std::fs;
use tempfile::TempDir;
use tonic::transport::Endpoint;

const WEB: &str = r#"
[[service]]
name = "web"
vips = ["203.0.113.10:80/tcp"]
health = { type = "tcp" }
backends = [{ address = "10.0.0.1" }, { address = "10.0.0.2" }]
"#;

struct Desk {
    dir: TempDir,
    actor: Actor,
    wires: super::super::parts::Wires,
    view: watch::Receiver<View>,
}

/// An actor with this services file.
fn desk(services: &str) -> Desk {
    use super::super::parts::{Reports, Wires};
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("services.toml"), services).unwrap();
    let options = Options {
        services: dir.path().join("services.toml"),
        config: Some(dir.path().join("lockstepd.toml")),
        engine_socket: dir.path().join("engine.sock"),
        socket: dir.path().join("lockstepd.sock"),
        state_dir: dir.path().join("state"),
    };
    fs::write(options.config(), "").unwrap();
    let store = Store::open(&options).unwrap();
    let (events, _inbox) = mpsc::channel(1);
    let orders = Orders::new(Config::default());
    let wires = Wires::new(
        &orders,
        &Reports::default(),
        events,
        options.state_dir.clone(),
    );
    let (replicas, _) = Replicas::new();
    let (actor, view) = Actor::new(&options, store, replicas, orders).unwrap();
    Desk {
        dir,
        actor,
        wires,
        view,
    }
}

fn provided(revision: u64, text: &str) -> Event {
    let offer: Offer = parse("provided", text).unwrap().into();
    let offer = Arc::new(offer);
    let provided = Provided::Services { revision, offer };
    Event::Provided(Provider::Kubernetes, provided)
}

/// An engine that takes connections and never says a word.
fn silent() -> EngineClient<Channel> {
    let connect = |_: tonic::transport::Uri| {
        std::future::pending::<std::io::Result<hyper_util::rt::TokioIo<tokio::net::UnixStream>>>()
    };
    let endpoint = Endpoint::from_static("http://engine");
    EngineClient::new(endpoint.connect_with_connector_lazy(tower::service_fn(connect)))
}

fn drain(backend: &str) -> (Event, oneshot::Receiver<Result<DrainReply, Refusal>>) {
    let (reply, answer) = oneshot::channel();
    let request = DrainRequest {
        backend: backend.to_owned(),
        ..DrainRequest::default()
    };
    (Event::Command(Command::Drain(request, None, reply)), answer)
}

#[tokio::test]
async fn services_of_a_provider_are_checked_and_announced_beside_the_files() {
    let mut desk = desk(WEB);
    let other = WEB
        .replace("web", "shop")
        .replace("203.0.113.10", "203.0.113.11");
    let same = WEB.replace("\"web\"", "\"same\"");
    desk.actor.handle(provided(4, &(other.clone() + &same)));
    desk.actor.publish();
    let checked = desk.wires.subjects.borrow().clone();
    let services: BTreeSet<&str> = checked.keys().map(|t| t.service.as_str()).collect();
    assert_eq!(services, BTreeSet::from(["shop", "web"]));
    let vips: Vec<String> = {
        desk.actor.withdraw = None;
        desk.actor.publish();
        let announced = desk.wires.announcements.borrow().clone();
        announced.vips.keys().map(ToString::to_string).collect()
    };
    assert_eq!(vips, ["203.0.113.10", "203.0.113.11"]);
    let placed = desk.wires.placed.borrow().clone();
    assert!(placed.in_force.is_empty(), "no engine has it");
    let (name, why) = placed.left_out.first_key_value().unwrap();
    assert!(
        name.as_str() == "same" && why.contains("belongs to service web"),
        "{why}"
    );

    // A drain ends with its backend, whoever has that.
    let target = checked
        .keys()
        .find(|t| t.service.as_str() == "shop")
        .unwrap();
    desk.actor.drains.drain(target.clone(), None);
    desk.actor.handle(provided(5, &other));
    desk.actor.accept();
    assert_eq!(desk.actor.drains.iter().count(), 1);
    desk.actor.handle(provided(6, "service = []"));
    desk.actor.end_drains_of_others();
    assert_eq!(desk.actor.drains.iter().count(), 1, "no engine has it so");
    desk.actor.accept();
    assert_eq!(desk.actor.drains.iter().count(), 0);
}

#[tokio::test]
async fn vips_of_a_provider_are_announced_as_it_says_and_while_it_is_awaited_as_it_said() {
    use lockstep_ctl_core::announce::ways::{Advertised, Interfaces, to_json};
    let vip = |text: &str| text.parse().unwrap();
    let on_the_link = Advertised {
        layer2: Some(Interfaces::All),
        ..Advertised::default()
    };
    let ways = [
        (vip("203.0.113.11"), on_the_link),
        (vip("203.0.113.12"), Advertised::default()),
        // The file has this one, and goes everywhere.
        (vip("203.0.113.10"), Advertised::default()),
    ];
    let ways = Advertisements::from(ways);
    let mut desk = desk(WEB);
    let with =
        |name: &str, address: &str| WEB.replace("web", name).replace("203.0.113.10", address);
    let text = with("shop", "203.0.113.11") + &with("news", "203.0.113.12");
    let offer = Offer {
        advertised: ways.clone(),
        ..parse("provided", &text).unwrap().into()
    };
    let offer = Arc::new(offer);
    let provided = Provided::Services { revision: 1, offer };
    let event = Event::Provided(Provider::Kubernetes, provided);
    desk.actor.handle(event);
    // An engine has it all.
    let all = Snapshot::new(1, desk.actor.wanted.services().to_vec()).unwrap();
    desk.actor.has = Some(all);
    desk.actor.publish();
    let announced = desk.wires.announcements.borrow().clone();
    assert_eq!(announced.vips[&vip("203.0.113.10")], None);
    assert_eq!(announced.vips[&vip("203.0.113.11")], None);
    let withheld = &announced.vips[&vip("203.0.113.12")];
    assert_eq!(*withheld, Some(Withheld::NotAdvertised));
    assert_eq!(announced.ways.len(), 2);

    // The next daemon reads what this one has kept.
    let path = desk.dir.path().join("state/advertised.json");
    fs::write(&path, to_json(&ways)).unwrap();
    assert_eq!(desk.actor.store.load_advertised(), ways);
    fs::write(&path, "{").unwrap();
    assert_eq!(desk.actor.store.load_advertised(), Advertisements::new());
}

#[tokio::test]
async fn an_engine_that_never_answers_holds_up_nobody_and_is_told_of_in_the_end() {
    let (events, inbox) = mpsc::channel(8);
    let Desk {
        dir,
        mut actor,
        view,
        wires,
    } = desk(WEB);
    actor.withdraw = None;
    let running = tokio::spawn(actor.run(inbox));
    events.send(Event::EngineUp(silent())).await.unwrap();
    let begun = Instant::now();
    let (first, answer) = drain("10.0.0.1");
    let (second, other) = drain("10.0.0.2");
    events.send(first).await.unwrap();
    events.send(second).await.unwrap();
    let (alive, lives) = oneshot::channel();
    events.send(Event::Alive(alive)).await.unwrap();
    lives.await.unwrap();
    let (reply, drained) = oneshot::channel();
    let command = Command::DrainBalancer(true, reply);
    events.send(Event::Command(command)).await.unwrap();
    assert!(drained.await.unwrap().unwrap().drained);
    let (done, ended) = oneshot::channel();
    events
        .send(Event::Ending(Ending::Shutdown, done))
        .await
        .unwrap();
    ended.await.unwrap();
    assert!(begun.elapsed() < CURRENT_TIMEOUT / 2);
    assert!(view.borrow().drained);

    let refusal = answer.await.unwrap().unwrap_err().to_string();
    assert!(
        refusal.contains("has not answered for 3s; see `lockstep status`; nothing was"),
        "{refusal}"
    );
    assert!(begun.elapsed() >= CURRENT_TIMEOUT);
    assert!(view.borrow().drains.is_empty());
    assert!(view.borrow().engine_error.contains("has not answered"));
    // Those that still wait when the engine goes are not forgotten.
    events.send(Event::EngineDown).await.unwrap();
    let refusal = other.await.unwrap().unwrap_err();
    assert!(matches!(refusal, Refusal::NoEngine(_)), "{refusal}");
    drop((events, wires));
    running.await.unwrap();
    drop(dir);
}

#[tokio::test]
async fn more_commands_than_wait_are_refused() {
    let mut desk = desk(WEB);
    desk.actor.handle(Event::EngineUp(silent()));
    let mut answers = Vec::new();
    for _ in 0..66 {
        let (event, answer) = drain("10.0.0.1");
        desk.actor.handle(event);
        answers.push(answer);
    }
    let refusal = answers.pop().unwrap().await.unwrap().unwrap_err();
    assert!(
        refusal.to_string().contains("64 commands wait"),
        "{refusal}"
    );
    assert!(answers.iter_mut().all(|answer| answer.try_recv().is_err()));
}

#[tokio::test]
async fn a_clock_that_is_set_moves_the_deadlines_of_others_and_none_that_was_given_here() {
    let mut desk = desk(WEB);
    let actor = &mut desk.actor;
    let target = |backend: &str| {
        let mut targets = find_targets(actor.wanted.services(), backend, None).unwrap();
        targets.remove(0)
    };
    let (mine, others) = (target("10.0.0.1"), target("10.0.0.2"));
    let minute = Duration::from_secs(60);
    let deadline = actor.clock.now().after(minute);
    actor.drains.drain(mine.clone(), Some(deadline));
    actor.note_begun(std::slice::from_ref(&mine), Some(deadline));
    // What another balancer has begun, whose clock is right: this one is ten minutes late.
    actor.handle(Event::Group(Group {
        changes: vec![DrainChange {
            target: others.clone(),
            drain: Some(Some(deadline.after(minute * 5))),
        }],
        ..Group::default()
    }));
    actor.follow_wall_clock(Clock::wall());
    assert_eq!(actor.begun[&mine], deadline, "not set");
    actor.follow_wall_clock(Clock::wall().after(minute * 10));
    actor.advance();
    assert_eq!(actor.drains.phase(&others), Some(Phase::Removed));
    let Some(Phase::Draining {
        deadline: Some(deadline),
    }) = actor.drains.phase(&mine)
    else {
        panic!("{:?}", actor.drains);
    };
    let left = deadline.since(actor.clock.now());
    assert!(left > minute - minute / 10 && left <= minute, "{left:?}");
}

#[tokio::test]
async fn a_drain_that_waits_for_the_engine_while_the_clock_is_set_is_as_long_as_was_said() {
    let mut desk = desk(WEB);
    let actor = &mut desk.actor;
    let minute = Duration::from_secs(60);
    actor.handle(Event::EngineUp(silent()));
    let (reply, _answer) = oneshot::channel();
    let request = DrainRequest {
        backend: "10.0.0.1".to_owned(),
        ..DrainRequest::default()
    };
    actor.command(Command::Drain(request, Some(minute), reply));
    actor.follow_wall_clock(Clock::wall().after(minute * 10));
    let errand = actor.errand.as_ref().unwrap();
    let (_, drains) = actor.with_errand(errand);
    let left = drains.next_deadline().unwrap().since(actor.clock.now());
    assert!(left > minute - minute / 10 && left <= minute, "{left:?}");
}

#[tokio::test]
async fn what_an_engine_was_left_without_is_guessed_once_for_each_service_from_before() {
    let three = |name: &str, address: &str| {
        let text = WEB.replace("web", name).replace("203.0.113.10", address);
        text.replace(
            "{ address = \"10.0.0.2\" }]",
            "{ address = \"10.0.0.2\" }, { address = \"10.0.0.3\" }]",
        )
    };
    let shop = |text: &str| text.replace("web", "shop").replace("113.10:", "113.11:");
    let mut desk = desk(WEB);
    let actor = &mut desk.actor;
    actor.wanted.change(|sources| {
        sources.expect(&BTreeSet::from([Provider::Kubernetes]));
    });
    let all: Offer = parse("all", &(WEB.to_owned() + &shop(WEB))).unwrap().into();
    let mut services = all.services;
    services.iter_mut().for_each(|s| drop(s.backends.remove(1)));
    let first = Snapshot::new(7, services).unwrap();
    let down = |actor: &Actor| -> Vec<String> {
        let shown = |t: &Target| format!("{} {}", t.service, t.backend);
        let down = actor.verdicts.iter().filter(|(_, v)| **v == Verdict::Down);
        down.map(|(t, _)| shown(t)).collect()
    };
    actor.learn_verdicts(&first);
    assert_eq!(down(actor), ["web 10.0.0.2"]);
    assert_eq!(actor.found(), Verdicts::new(), "guessed");
    actor.stop_guessing(Instant::now() + GUESS);
    assert!(down(actor).is_empty());

    // A provider names its services later, and the file has one backend more by then.
    let file: Offer = parse("file", &three("web", "203.0.113.10")).unwrap().into();
    actor
        .wanted
        .change(|sources| sources.set_file(Arc::new(file)));
    actor.handle(provided(1, &shop(WEB)));
    actor.learn_verdicts(&first);
    assert_eq!(down(actor), ["shop 10.0.0.2"]);
    actor.stop_guessing(Instant::now() + GUESS);
    actor.handle(provided(2, &three("shop", "203.0.113.11")));
    actor.learn_verdicts(&first);
    assert!(down(actor).is_empty(), "{:?}", down(actor));
}

#[tokio::test]
async fn an_epoch_that_may_have_been_taken_is_not_used_again() {
    let mut desk = desk(WEB);
    let actor = &mut desk.actor;
    let told = |epoch| Snapshot::new(epoch, Vec::new()).unwrap();
    actor.hear_late(told(5));
    actor.hear_late(told(3));
    assert_eq!((actor.highest, actor.sent.epoch()), (5, 5));
}

#[tokio::test]
async fn what_was_not_answered_is_looked_at_once_more() {
    let mut desk = desk(WEB);
    let actor = &mut desk.actor;
    assert!(actor.line.doubt.is_none());
    let before = Instant::now();
    actor.hear_nothing();
    assert!(
        actor
            .line
            .doubt
            .is_some_and(|doubt| doubt >= before + ENGINE_TIMEOUT)
    );
    // Another engine was never told it.
    actor.handle(Event::EngineDown);
    assert!(actor.line.doubt.is_none() && !actor.line.settled);
    actor.hear_nothing();
    actor.look_again();
    assert!(actor.line.doubt.is_none());
}
