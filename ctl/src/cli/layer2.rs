//! `lockstep layer2`.

use super::output::{Out, table};
use super::{Answer, Failure, Global, ask, units};
use crate::transport::Peer;
use lockstep_api as api;
use serde::Serialize;
use std::time::{SystemTime, UNIX_EPOCH};

/// What the daemon says, as JSON.
#[derive(Debug, Serialize)]
struct Layer2 {
    enabled: bool,
    name: String,
    group: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    problem: String,
    vips: Vec<Vip>,
    peers: Vec<Member>,
    interfaces: Vec<Interface>,
    hellos_sent: u64,
    hellos_received: u64,
    hellos_refused: u64,
    claims: u64,
}

#[derive(Debug, Serialize)]
struct Vip {
    vip: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    owner: String,
    ours: bool,
    willing: bool,
    /// Seconds since it became ours.
    #[serde(skip_serializing_if = "Option::is_none")]
    for_seconds: Option<f64>,
}

#[derive(Debug, Serialize)]
struct Member {
    name: String,
    address: String,
    alive: bool,
    hears_us: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    for_seconds: Option<f64>,
    owned: u32,
    willing: u32,
}

#[derive(Debug, Serialize)]
struct Interface {
    name: String,
    mac: String,
    answers: u64,
    unanswered: u64,
    announcements: u64,
}

impl Layer2 {
    /// `now` in seconds since 1970.
    fn new(reply: api::Layer2Reply, now: f64) -> Self {
        let ago = |since: f64| (since > 0.0).then(|| (now - since).max(0.0));
        let vip = |vip: api::Layer2Vip| Vip {
            vip: vip.address,
            owner: vip.owner,
            ours: vip.ours,
            willing: vip.willing,
            for_seconds: ago(vip.since),
        };
        let member = |peer: api::Layer2Peer| Member {
            name: peer.name,
            address: peer.address,
            alive: peer.alive,
            hears_us: peer.hears_us,
            for_seconds: ago(peer.since),
            owned: peer.owned,
            willing: peer.willing,
        };
        let interface = |interface: api::Layer2Interface| Interface {
            name: interface.name,
            mac: interface.mac,
            answers: interface.answers,
            unanswered: interface.unanswered,
            announcements: interface.announcements,
        };
        Layer2 {
            enabled: reply.enabled,
            name: reply.name,
            group: reply.group,
            problem: reply.problem,
            vips: reply.vips.into_iter().map(vip).collect(),
            peers: reply.peers.into_iter().map(member).collect(),
            interfaces: reply.interfaces.into_iter().map(interface).collect(),
            hellos_sent: reply.hellos_sent,
            hellos_received: reply.hellos_received,
            hellos_refused: reply.hellos_refused,
            claims: reply.claims,
        }
    }

    fn text(&self) -> String {
        if !self.enabled {
            return "layer 2 is not in use: lockstepd.toml has no [layer2]".to_owned();
        }
        let mut text = format!("{} in group {}\n", self.name, self.group);
        if !self.problem.is_empty() {
            return text + &format!("takes no part: {}\n", self.problem);
        }
        let time = |seconds: Option<f64>| seconds.map_or_else(|| "-".to_owned(), units::time);
        let yes = |is: bool| if is { "yes" } else { "no" }.to_owned();
        let vip = |vip: &Vip| {
            let owner = match (vip.ours, vip.owner.as_str()) {
                (true, owner) => format!("{owner} (here)"),
                (false, "") => "nobody".to_owned(),
                (false, owner) => owner.to_owned(),
            };
            vec![
                vip.vip.clone(),
                owner,
                time(vip.for_seconds),
                yes(vip.willing),
            ]
        };
        let member = |peer: &Member| {
            let state = match (peer.alive, peer.hears_us) {
                (false, _) => "silent",
                (true, true) => "alive",
                (true, false) => "does not hear us",
            };
            vec![
                peer.name.clone(),
                peer.address.clone(),
                state.to_owned(),
                time(peer.for_seconds),
                units::count(peer.owned.into()),
                units::count(peer.willing.into()),
            ]
        };
        let interface = |interface: &Interface| {
            let mac = match interface.mac.as_str() {
                "" => "not there",
                mac => mac,
            };
            vec![
                interface.name.clone(),
                mac.to_owned(),
                units::count(interface.answers),
                units::count(interface.announcements),
            ]
        };
        let blocks = [
            table(
                &["VIP", "OWNER", "HERE FOR", "CAN BE HERE"],
                self.vips.iter().map(vip),
            ),
            table(
                &["BALANCER", "ADDRESS", "STATE", "FOR", ">OWNS", ">WILLING"],
                self.peers.iter().map(member),
            ),
            table(
                &["INTERFACE", "MAC", ">ANSWERS", ">ANNOUNCEMENTS"],
                self.interfaces.iter().map(interface),
            ),
        ];
        for block in blocks.iter().filter(|block| !block.is_empty()) {
            text += "\n";
            text += block;
        }
        text
    }
}

/// Prints who owns which VIP.
pub async fn run(global: &Global, out: &mut Out) -> Result<Answer, Failure> {
    let mut daemon = ask::daemon(global).await?;
    let reply = ask::present(Peer::Daemon, daemon.layer2(api::Layer2Request {})).await?;
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    let answer = Layer2::new(reply, now.unwrap_or_default().as_secs_f64());
    out.answer(&answer, || answer.text())?;
    Ok(match answer.problem.is_empty() {
        true => Answer::Yes,
        false => Answer::No,
    })
}

/// What needs attention on the link, a sentence each, for `lockstep status`.
pub fn troubles(reply: &api::Layer2Reply) -> Vec<String> {
    if !reply.problem.is_empty() {
        return vec![format!(
            "layer 2: this balancer takes no part: {}",
            reply.problem
        )];
    }
    let silent = reply.peers.iter().filter(|peer| !peer.alive);
    let silent = silent.map(|peer| {
        let (name, address) = (&peer.name, &peer.address);
        format!("layer 2: nothing is heard of {name} ({address}); see `lockstep layer2`")
    });
    let missing = reply.interfaces.iter().filter(|i| i.mac.is_empty());
    let missing = missing.map(|i| format!("layer 2: there is no interface {}", i.name));
    silent.chain(missing).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn owners_peers_and_interfaces_are_tables() {
        let vip = |address: &str, owner: &str, since: f64| api::Layer2Vip {
            address: address.to_owned(),
            owner: owner.to_owned(),
            ours: owner == "lb1",
            willing: true,
            since,
        };
        let reply = api::Layer2Reply {
            enabled: true,
            name: "lb1".to_owned(),
            group: "default".to_owned(),
            vips: vec![
                vip("203.0.113.10", "lb1", 940.0),
                vip("203.0.113.11", "", 0.0),
            ],
            peers: vec![api::Layer2Peer {
                name: "lb2".to_owned(),
                address: "10.0.0.2:26667".to_owned(),
                alive: true,
                since: 990.0,
                owned: 3,
                willing: 1_234,
                ..api::Layer2Peer::default()
            }],
            interfaces: vec![api::Layer2Interface {
                name: "eth0".to_owned(),
                answers: 7,
                ..api::Layer2Interface::default()
            }],
            ..api::Layer2Reply::default()
        };
        assert_eq!(
            Layer2::new(reply, 1_000.0).text(),
            "lb1 in group default\n\n\
             VIP           OWNER       HERE FOR  CAN BE HERE\n\
             203.0.113.10  lb1 (here)  1m 0s     yes\n\
             203.0.113.11  nobody      -         yes\n\n\
             BALANCER  ADDRESS         STATE             FOR  OWNS  WILLING\n\
             lb2       10.0.0.2:26667  does not hear us  10s     3    1,234\n\n\
             INTERFACE  MAC        ANSWERS  ANNOUNCEMENTS\n\
             eth0       not there        7              0\n"
        );
        let off = Layer2::new(api::Layer2Reply::default(), 0.0);
        assert!(off.text().contains("not in use"));
    }
}
