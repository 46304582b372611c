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
    /// Why not.
    #[serde(skip_serializing_if = "String::is_empty")]
    withheld: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    service: String,
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
    heard: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    other_version: Option<u32>,
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

impl Vip {
    fn can_be_here(&self) -> String {
        let why = self.withheld.replace('_', " ");
        match (self.willing, why.as_str(), self.service.as_str()) {
            (true, ..) => "yes".to_owned(),
            (false, "", _) => "no".to_owned(),
            (false, why, "") => format!("no: {why}"),
            (false, why, service) => format!("no: {why}: {service}"),
        }
    }
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
            withheld: vip.withheld,
            service: vip.service,
            for_seconds: ago(vip.since),
        };
        let member = |peer: api::Layer2Peer| Member {
            name: peer.name,
            address: peer.address,
            alive: peer.alive,
            hears_us: peer.hears_us,
            heard: peer.heard,
            other_version: (peer.other_version > 0).then_some(peer.other_version),
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
                vip.can_be_here(),
            ]
        };
        let member = |peer: &Member| {
            let state = match (peer.other_version, peer.alive, peer.hears_us, peer.heard) {
                (Some(version), ..) => format!("speaks version {version}"),
                (None, true, true, _) => "alive".to_owned(),
                (None, true, false, _) | (None, false, _, true) => "does not hear us".to_owned(),
                (None, false, _, false) => "silent".to_owned(),
            };
            vec![
                peer.name.clone(),
                peer.address.clone(),
                state,
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
    let peers = reply.peers.iter().filter_map(|peer| {
        let said = format!("{} ({})", peer.name, peer.address);
        let what = match (peer.other_version, peer.hears_us, peer.heard) {
            (version @ 1.., ..) => format!(
                "{said} speaks version {version} of the hellos and this balancer another: nothing \
                 of it is understood until both run the same version of Lockstep"
            ),
            (0, true, _) => return None,
            (0, false, true) => format!(
                "{said} is heard and does not hear this balancer: both may answer for the same \
                 VIPs; let this balancer's hellos through to it, and see `lockstep layer2`"
            ),
            (0, false, false) => {
                format!("nothing is heard of {said}; see `lockstep layer2`")
            }
        };
        Some(format!("layer 2: {what}"))
    });
    let cut_off = (reply.vips.iter()).filter(|vip| vip.withheld == "cut_off");
    let cut_off = cut_off.map(|vip| {
        let why = super::bgp::cut_off(&vip.service);
        format!("layer 2: VIP {} cannot be here: {why}", vip.address)
    });
    let missing = reply.interfaces.iter().filter(|i| i.mac.is_empty());
    let missing = missing.map(|i| format!("layer 2: there is no interface {}", i.name));
    peers.chain(cut_off).chain(missing).collect()
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
            ..api::Layer2Vip::default()
        };
        let peer = |name: &str, host: u8| api::Layer2Peer {
            name: name.to_owned(),
            address: format!("10.0.0.{host}:26667"),
            ..api::Layer2Peer::default()
        };
        let reply = api::Layer2Reply {
            enabled: true,
            name: "lb1".to_owned(),
            group: "default".to_owned(),
            vips: vec![
                vip("203.0.113.10", "lb1", 940.0),
                vip("203.0.113.11", "", 0.0),
                api::Layer2Vip {
                    willing: false,
                    withheld: "cut_off".to_owned(),
                    service: "web".to_owned(),
                    ..vip("203.0.113.12", "lb2", 0.0)
                },
            ],
            peers: vec![
                api::Layer2Peer {
                    alive: true,
                    since: 990.0,
                    owned: 3,
                    willing: 1_234,
                    heard: true,
                    ..peer("lb2", 2)
                },
                api::Layer2Peer {
                    other_version: 1,
                    ..peer("lb3", 3)
                },
                api::Layer2Peer {
                    heard: true,
                    ..peer("lb4", 4)
                },
                peer("lb5", 5),
            ],
            interfaces: vec![api::Layer2Interface {
                name: "eth0".to_owned(),
                answers: 7,
                ..api::Layer2Interface::default()
            }],
            ..api::Layer2Reply::default()
        };
        let said = troubles(&reply);
        for (said, what) in said.iter().zip([
            "lb2 (10.0.0.2:26667) is heard and does not hear this balancer",
            "lb3 (10.0.0.3:26667) speaks version 1",
            "lb4 (10.0.0.4:26667) is heard and does not hear",
            "nothing is heard of lb5 (10.0.0.5:26667)",
            "VIP 203.0.113.12 cannot be here: this balancer reaches no backend of service web",
            "there is no interface eth0",
        ]) {
            assert!(said.starts_with(&format!("layer 2: {what}")), "{said}");
        }
        assert_eq!(said.len(), 6);
        assert_eq!(
            Layer2::new(reply, 1_000.0).text(),
            "lb1 in group default\n\n\
             VIP           OWNER       HERE FOR  CAN BE HERE\n\
             203.0.113.10  lb1 (here)  1m 0s     yes\n\
             203.0.113.11  nobody      -         yes\n\
             203.0.113.12  lb2         -         no: cut off: web\n\n\
             BALANCER  ADDRESS         STATE             FOR  OWNS  WILLING\n\
             lb2       10.0.0.2:26667  does not hear us  10s     3    1,234\n\
             lb3       10.0.0.3:26667  speaks version 1  -       0        0\n\
             lb4       10.0.0.4:26667  does not hear us  -       0        0\n\
             lb5       10.0.0.5:26667  silent            -       0        0\n\n\
             INTERFACE  MAC        ANSWERS  ANNOUNCEMENTS\n\
             eth0       not there        7              0\n"
        );
        let off = Layer2::new(api::Layer2Reply::default(), 0.0);
        assert!(off.text().contains("not in use"));
    }
}
