//! `lockstep group`: the balancers that share what they know, their store, random numbers.

use super::output::{Out, table};
use super::{Answer, Failure, Global, ask, units};
use crate::transport::Peer;
use lockstep_api::{GroupMember, GroupReply, GroupRequest, RandomStatus};
use serde::Serialize;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// The answer as JSON.
#[derive(Debug, Serialize)]
struct Report {
    /// Null where no store is configured.
    group: Option<Group>,
    /// Null where no random numbers are served.
    random: Option<Random>,
}

#[derive(Debug, Serialize)]
struct Group {
    /// What this balancer is called in it.
    name: String,
    group: String,
    endpoints: Vec<String>,
    connected: bool,
    /// Since the store answers, or does not.
    since_seconds: f64,
    /// Null where nothing stands in the way.
    error: Option<String>,
    members: Vec<Member>,
    drains: u32,
}

#[derive(Debug, Serialize)]
struct Member {
    name: String,
    /// Whether it is the one that was asked.
    here: bool,
    alive_seconds: f64,
    heard_seconds: f64,
    up: u32,
    down: u32,
    /// Backends that it has found otherwise than the group: the first of them.
    differing: Vec<Target>,
    differing_count: u32,
    /// Not back yet since the store was lost.
    returning: bool,
}

#[derive(Debug, Serialize)]
struct Target {
    service: String,
    address: String,
}

#[derive(Debug, Serialize)]
struct Random {
    /// Null where it does not listen.
    listen: Option<String>,
    source: String,
    answers: u64,
    errors: u64,
    kept: u64,
    error: Option<String>,
}

fn some(text: String) -> Option<String> {
    Some(text).filter(|text| !text.is_empty())
}

/// Seconds from a time on the daemon's host, which is this one.
fn since(now: Duration, unix_ms: u64) -> f64 {
    now.saturating_sub(Duration::from_millis(unix_ms))
        .as_secs_f64()
}

impl Report {
    fn new(reply: GroupReply, now: Duration) -> Self {
        let random = reply.random.filter(|r| r.configured).map(Random::new);
        if !reply.configured {
            return Report {
                group: None,
                random,
            };
        }
        let members = reply.members.into_iter();
        let group = Group {
            name: reply.name,
            group: reply.group,
            endpoints: reply.endpoints,
            connected: reply.connected,
            since_seconds: since(now, reply.since_unix_ms),
            error: some(reply.error),
            members: members.map(|member| Member::new(member, now)).collect(),
            drains: reply.drains,
        };
        Report {
            group: Some(group),
            random,
        }
    }

    /// What needs attention, a sentence each.
    fn troubles(&self) -> Vec<String> {
        let mut troubles = Vec::new();
        if let Some(group) = &self.group {
            let error = group.error.clone();
            let silent = || format!("group {}: the store does not answer", group.group);
            troubles.extend(error.or_else(|| (!group.connected).then(silent)));
        }
        if let Some(random) = &self.random {
            let error = random.error.clone();
            let unserved = || "random numbers are not served".to_owned();
            troubles.extend(error.or_else(|| random.listen.is_none().then(unserved)));
        }
        troubles
    }

    fn text(&self) -> String {
        let mut parts = Vec::new();
        match &self.group {
            None => parts.push("no group: lockstepd.toml has no [store]".to_owned()),
            Some(group) => parts.push(group.text()),
        }
        match &self.random {
            None => parts.push("no random numbers: lockstepd.toml has no [random]".to_owned()),
            Some(random) => parts.push(random.text()),
        }
        parts.join("\n\n")
    }
}

impl Group {
    fn text(&self) -> String {
        let state = match self.connected {
            true => "answers",
            false => "does NOT answer, what was agreed on stays",
        };
        let mut text = format!(
            "group {}, store {} {state} (for {}), {} drains\n",
            self.group,
            self.endpoints.join(", "),
            units::time(self.since_seconds),
            self.drains,
        );
        if let Some(error) = &self.error {
            text += &format!("Needs attention: {error}\n");
        }
        let columns = ["BALANCER", ">ALIVE", ">HEARD", ">UP", ">DOWN", "DIFFERS IN"];
        text + "\n" + table(&columns, self.members.iter().map(Member::row)).trim_end()
    }
}

impl Member {
    fn new(member: GroupMember, now: Duration) -> Self {
        let targets = member.differing.into_iter();
        Member {
            name: member.name,
            here: member.here,
            alive_seconds: since(now, member.alive_since_unix_ms),
            heard_seconds: since(now, member.heard_unix_ms),
            up: member.up,
            down: member.down,
            differing: targets
                .map(|t| Target {
                    service: t.service,
                    address: t.address,
                })
                .collect(),
            differing_count: member.differing_count,
            returning: member.returning,
        }
    }

    fn row(&self) -> Vec<String> {
        let mut name = self.name.clone();
        if self.here {
            name += " (here)";
        }
        if self.returning {
            name += " (not back yet)";
        }
        let named = self.differing.iter().take(3);
        let mut named: Vec<String> = named
            .map(|t| format!("{}/{}", t.service, t.address))
            .collect();
        let more = self.differing_count as usize - named.len().min(self.differing_count as usize);
        if more > 0 {
            named.push(format!("{more} more"));
        }
        let differing = match named.is_empty() {
            true => "-".to_owned(),
            false => named.join(", "),
        };
        vec![
            name,
            units::time(self.alive_seconds),
            units::time(self.heard_seconds),
            units::count(self.up.into()),
            units::count(self.down.into()),
            differing,
        ]
    }
}

impl Random {
    fn new(status: RandomStatus) -> Self {
        Random {
            listen: some(status.listen),
            source: status.source,
            answers: status.answers,
            errors: status.errors,
            kept: status.kept,
            error: some(status.error),
        }
    }

    fn text(&self) -> String {
        let at = match &self.listen {
            Some(at) => format!("served at {at}"),
            None => "NOT served".to_owned(),
        };
        let mut text = format!(
            "random numbers {at}, from {}: {} answers, {} errors, {} kept",
            self.source,
            units::count(self.answers),
            units::count(self.errors),
            units::count(self.kept),
        );
        if let Some(error) = &self.error {
            text += &format!("\nNeeds attention: {error}");
        }
        text
    }
}

/// Shows the group. The answer is no where something needs attention.
pub async fn run(global: &Global, out: &mut Out) -> Result<Answer, Failure> {
    let mut daemon = ask::daemon(global).await?;
    let reply = ask::present(Peer::Daemon, daemon.group(GroupRequest {})).await?;
    let report = Report::new(reply, now());
    out.answer(&report, || report.text())?;
    Ok(match report.troubles().is_empty() {
        true => Answer::Yes,
        false => Answer::No,
    })
}

/// What needs attention of the group and the random numbers, for `lockstep status`.
pub fn troubles(reply: GroupReply) -> Vec<String> {
    Report::new(reply, now()).troubles()
}

/// Since 1970.
fn now() -> Duration {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    now.unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use lockstep_api::GroupTarget;

    fn reply() -> GroupReply {
        let target = |host| GroupTarget {
            service: "web".into(),
            address: format!("10.0.0.{host}"),
        };
        GroupReply {
            configured: true,
            name: "lb-1".into(),
            group: "east".into(),
            endpoints: vec!["http://10.0.0.2:2379".into()],
            connected: true,
            since_unix_ms: 40_000,
            members: vec![GroupMember {
                name: "lb-1".into(),
                here: true,
                alive_since_unix_ms: 40_000,
                heard_unix_ms: 99_000,
                up: 1_200,
                down: 5,
                differing: (1..=4).map(target).collect(),
                differing_count: 5,
                returning: false,
            }],
            drains: 2,
            ..GroupReply::default()
        }
    }

    #[test]
    fn a_group_is_shown_with_what_its_members_have_found() {
        let report = Report::new(reply(), Duration::from_secs(100));
        assert!(report.troubles().is_empty());
        assert_eq!(
            report.text(),
            "group east, store http://10.0.0.2:2379 answers (for 1m 0s), 2 drains\n\n\
             BALANCER     ALIVE  HEARD     UP  DOWN  DIFFERS IN\n\
             lb-1 (here)  1m 0s     1s  1,200     5  web/10.0.0.1, web/10.0.0.2, web/10.0.0.3, 2 more\n\n\
             no random numbers: lockstepd.toml has no [random]"
        );
    }

    #[test]
    fn what_needs_attention_makes_the_answer_no() {
        let lost = GroupReply {
            connected: false,
            error: "no answer".into(),
            ..reply()
        };
        let deaf = GroupReply {
            random: Some(RandomStatus {
                configured: true,
                error: "cannot listen".into(),
                ..RandomStatus::default()
            }),
            ..reply()
        };
        for (reply, says) in [
            (lost, "does NOT answer"),
            (
                deaf,
                "NOT served, from : 0 answers, 0 errors, 0 kept\nNeeds attention: cannot listen",
            ),
        ] {
            let report = Report::new(reply, Duration::from_secs(100));
            assert!(
                !report.troubles().is_empty() && report.text().contains(says),
                "{}",
                report.text()
            );
        }
        let nothing = Report::new(GroupReply::default(), Duration::ZERO);
        assert!(nothing.troubles().is_empty());
    }
}
