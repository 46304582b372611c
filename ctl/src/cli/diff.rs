//! `lockstep diff FILE`: what applying a file would change, what that would move, and which routes
//! come and go.

use super::output::{Out, table};
use super::{Answer, Failure, Global, ask, check, read_file, units};
use crate::convert::{ConvertError, snapshot_from_proto, spreads_from_proto};
use crate::transport::Peer;
use clap::Args;
use lockstep_api::{Announcement, ApplyFileReply, ApplyFileRequest, ServicePreview};
use lockstep_ctl_core::diff::{DiffKind, ServiceDiff, Side, diff};
use lockstep_ctl_core::spread::Spreads;
use lockstep_plan::{Service, ServiceName, Snapshot};
use serde::Serialize;
use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

/// Arguments of `lockstep diff`.
#[derive(Debug, Args)]
pub struct Arguments {
    /// A services.toml or lockstepd.toml; `-` is standard input.
    file: PathBuf,
}

/// The answer as JSON.
#[derive(Debug, Serialize)]
struct Report {
    /// What is in force now.
    epoch: u64,
    changed: bool,
    services: Vec<Entry>,
    /// What routers and neighbors are told, where somebody is to be told.
    routes: Vec<Route>,
    /// The keys of a lockstepd.toml that change.
    settings: Vec<String>,
}

/// A VIP that begins or ends to be announced.
#[derive(Debug, Serialize)]
struct Route {
    address: String,
    /// "announce" or "withdraw".
    what: &'static str,
    /// Why it is withdrawn; null where it is not, or is not there any more.
    why: Option<String>,
}

impl Route {
    fn all(reply: &ApplyFileReply) -> Vec<Self> {
        let told = |list: &[Announcement]| -> BTreeMap<String, String> {
            let pair = |a: &Announcement| (a.address.clone(), a.withheld.clone());
            list.iter().map(pair).collect()
        };
        let (now, then) = (told(&reply.announced), told(&reply.announced_then));
        let is = |withheld: Option<&String>| withheld.is_some_and(String::is_empty);
        let addresses: BTreeSet<&String> = now.keys().chain(then.keys()).collect();
        let route = |address: &String| {
            let (before, after) = (now.get(address), then.get(address));
            let what = match (is(before), is(after)) {
                (false, true) => "announce",
                (true, false) => "withdraw",
                (true, true) | (false, false) => return None,
            };
            let why = after.filter(|why| !why.is_empty()).cloned();
            Some(Route {
                address: address.clone(),
                what,
                why,
            })
        };
        addresses.into_iter().filter_map(route).collect()
    }

    fn text(&self) -> String {
        let why = self
            .why
            .as_ref()
            .map_or(String::new(), |why| format!(" ({why})"));
        format!("route {}: {}{why}", self.address, self.what)
    }
}

/// A service that changes.
#[derive(Debug, Serialize)]
struct Entry {
    name: String,
    /// "added", "removed" or "changed".
    kind: &'static str,
    changes: Vec<String>,
    /// Whether it replicates sessions, before and after: all backends get all of them.
    replicated: bool,
    /// Share of new flows that go to another backend, 0 to 1.
    ring_share_moved: f64,
    flows: u64,
    flows_moved: u64,
    backends: Vec<Share>,
}

/// A backend's share of new flows, 0 to 1.
#[derive(Debug, Serialize)]
struct Share {
    name: String,
    address: String,
    share_before: f64,
    share_after: f64,
}

impl Report {
    fn new(reply: &ApplyFileReply) -> Result<Self, ConvertError> {
        let read = |message: &Option<lockstep_api::Snapshot>| {
            let message = message.clone().unwrap_or_default();
            Ok::<_, ConvertError>((
                snapshot_from_proto(&message)?,
                spreads_from_proto(&message)?,
            ))
        };
        let (current, proposed) = (read(&reply.current)?, read(&reply.proposed)?);
        let previews = reply.preview.as_ref().map_or(&[][..], |p| &p.services);
        fn side((snapshot, spreads): &(Snapshot, Spreads)) -> Side<'_> {
            Side {
                services: snapshot.services(),
                spreads,
            }
        }
        let mut differences = diff(side(&current), side(&proposed));
        let mut checks: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
        for found in &reply.checks {
            let lines = checks.entry(&found.service).or_default();
            lines.push(&found.change);
        }
        // The engine has no part in how backends are checked.
        for name in checks.keys().filter_map(|name| ServiceName::new(name)) {
            if differences.iter().all(|found| found.name != name) {
                differences.push(ServiceDiff {
                    name,
                    kind: DiffKind::Changed,
                    changes: Vec::new(),
                });
            }
        }
        differences.sort_by(|a, b| a.name.cmp(&b.name));
        let entry = |found: ServiceDiff| {
            let preview = previews.iter().find(|p| p.name == found.name.as_str());
            let replicates = |s: &&Service| s.mode.replicate().is_some();
            let named = |s: &&Service| s.name == found.name;
            let sides = [&current, &proposed].map(|(s, _)| s.services().iter().find(named));
            let replicated = sides.iter().flatten().all(replicates);
            let mut entry = Entry::new(&found, preview, replicated);
            let lines = checks.get(found.name.as_str()).into_iter().flatten();
            entry.changes.extend(lines.map(|&line| line.to_owned()));
            entry
        };
        Ok(Report {
            epoch: reply.epoch,
            changed: !differences.is_empty() || !reply.changes.is_empty(),
            services: differences.into_iter().map(entry).collect(),
            routes: Route::all(reply),
            settings: reply.changes.clone(),
        })
    }

    fn text(&self, file: &str) -> String {
        if !self.changed {
            return format!(
                "{file}: no change from what is in force (epoch {})",
                self.epoch
            );
        }
        let services = self.services.iter().map(Entry::text);
        let rest = self
            .settings
            .iter()
            .cloned()
            .chain(self.routes.iter().map(Route::text));
        let rest = rest.collect::<Vec<_>>().join("\n");
        let parts = services.chain(Some(rest).filter(|rest| !rest.is_empty()));
        parts.collect::<Vec<_>>().join("\n")
    }
}

impl Entry {
    fn new(found: &ServiceDiff, preview: Option<&ServicePreview>, replicated: bool) -> Self {
        let shares = preview
            .map_or(&[][..], |p| &p.backends)
            .iter()
            .map(|b| Share {
                name: b.name.clone(),
                address: b.address.clone(),
                share_before: b.share_before,
                share_after: b.share_after,
            });
        Entry {
            name: found.name.as_str().to_owned(),
            kind: found.kind.name(),
            changes: found.changes.iter().map(ToString::to_string).collect(),
            replicated,
            ring_share_moved: preview.map_or(0.0, |p| p.ring_share_moved),
            flows: preview.map_or(0, |p| p.flows),
            flows_moved: preview.map_or(0, |p| p.flows_moved),
            backends: shares.collect(),
        }
    }

    /// What the change is to sessions that are under way.
    fn sessions(&self) -> &'static str {
        match self.kind {
            "added" => "every session goes to all of its backends",
            "removed" => "its sessions end",
            _ => {
                "sessions under way keep their policy: a new replica joins them where that says \
                 `rejoin`, one that is taken out leaves them"
            }
        }
    }

    fn text(&self) -> String {
        let changes: String = self.changes.iter().map(|c| format!("  {c}\n")).collect();
        if self.replicated {
            return format!(
                "service {}: {}\n{changes}  {}\n",
                self.name,
                self.kind,
                self.sessions()
            );
        }
        let moved = format!(
            "  moves {} of new flows, {} of {} live flows\n",
            units::percent(self.ring_share_moved),
            units::count(self.flows_moved),
            units::count(self.flows)
        );
        let share = |b: &Share| {
            let (before, after) = (
                units::percent(b.share_before),
                units::percent(b.share_after),
            );
            vec![format!("  {}", b.name), b.address.clone(), before, after]
        };
        let columns = ["  BACKEND", "ADDRESS", ">SHARE NOW", ">SHARE THEN"];
        let shares = table(&columns, self.backends.iter().map(share));
        format!(
            "service {}: {}\n{changes}{moved}{shares}",
            self.name, self.kind
        )
    }
}

/// Shows what a file would change; the answer is no when it would.
pub async fn run(global: &Global, arguments: &Arguments, out: &mut Out) -> Result<Answer, Failure> {
    let text = read_file(&arguments.file)?;
    let file = arguments.file.display().to_string();
    let (read_as, kind, found) = check::daemons(&file, &text)?;
    if found.has_errors() {
        return check::report(&file, read_as, "", &found, out);
    }
    let request = ApplyFileRequest {
        text,
        file: file.clone(),
        preview: true,
        kind: kind.into(),
    };
    let mut daemon = ask::daemon(global).await?;
    let reply = ask::answer(Peer::Daemon, daemon.apply_file(request)).await?;
    let report = Report::new(&reply).map_err(|error| Failure::Refused(error.to_string()))?;
    out.answer(&report, || report.text(&file))?;
    Ok(if report.changed {
        Answer::No
    } else {
        Answer::Yes
    })
}
