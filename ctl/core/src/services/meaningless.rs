//! Keys that mean nothing beside the others of their service. To pass over them would leave an
//! operator with a service that is not what the file seems to say.

use super::flows::FileEncapsulation;
use super::values::FileMode;
use super::{Document, FileScheduler, FileService};
use lockstep_topology::diagnostics::{Diagnostic, Diagnostics, Source};
use std::ops::Range;
use toml::Spanned;

/// The errors of every service, each at its key.
pub fn keys(source: Source<'_>, document: &Document) -> Diagnostics {
    let services = document.service.iter().map(Spanned::get_ref);
    services.flat_map(|service| of(source, service)).collect()
}

/// A key that is there, why it should not be, and what to do.
struct Misplaced {
    span: Range<usize>,
    why: String,
    help: &'static str,
}

fn of(source: Source<'_>, service: &FileService) -> Vec<Diagnostic> {
    let mut found = tunnels(service);
    found.extend(choices(service));
    found.extend(stickiness(service));
    if let Some(rate) = &service.rate
        && rate.get_ref().new_flows().is_none()
        && rate.get_ref().packets().is_none()
    {
        found.push(Misplaced {
            span: rate.span(),
            why: "`rate` without keys limits nothing".to_owned(),
            help: "write { new_flows = 1000 }, { packets = 100000 } or both",
        });
    }
    // A list that a program emptied would open the door to everybody.
    if let Some(allow) = &service.allow
        && allow.get_ref().is_empty()
    {
        found.push(Misplaced {
            span: allow.span(),
            why: "`allow` is empty, and so would serve everybody".to_owned(),
            help: "leave it out if that is meant, or deny \"0.0.0.0/0\" and \"::/0\"",
        });
    }
    let name = &service.name.get_ref().0;
    found
        .into_iter()
        .map(|Misplaced { span, why, help }| {
            let message = format!("service {name}: {why}");
            source.error(span, message).help(help)
        })
        .collect()
}

/// Keys of tunnels, elsewhere.
fn tunnels(service: &FileService) -> Vec<Misplaced> {
    let encapsulation = service.encapsulation.as_ref();
    let port = service.gue_port.as_ref();
    match service.mode {
        FileMode::Tunnel => {
            let gue = encapsulation.is_some_and(|e| *e.get_ref() == FileEncapsulation::Gue);
            let misplaced = port.filter(|_| !gue).map(|port| Misplaced {
                span: port.span(),
                why: "`gue_port` is where backends listen for GUE, but its tunnel is IP in IP"
                    .to_owned(),
                help: "set encapsulation = \"gue\", or leave `gue_port` out",
            });
            misplaced.into_iter().collect()
        }
        FileMode::Nat | FileMode::FullNat | FileMode::Replicate => {
            let spans = [
                ("encapsulation", encapsulation.map(Spanned::span)),
                ("gue_port", port.map(Spanned::span)),
            ];
            let misplaced = spans.into_iter().filter_map(|(key, span)| {
                Some(Misplaced {
                    span: span?,
                    why: format!(
                        "`{key}` is about tunnels, and mode = \"{}\" has none",
                        service.mode.name()
                    ),
                    help: "set mode = \"tunnel\", or leave it out",
                })
            });
            misplaced.collect()
        }
    }
}

/// Keys about the choice of a backend, where every backend is chosen.
fn choices(service: &FileService) -> Vec<Misplaced> {
    match service.mode {
        FileMode::Tunnel | FileMode::Nat | FileMode::FullNat => return Vec::new(),
        FileMode::Replicate => {}
    }
    let of_service = [
        ("scheduler", service.scheduler.as_ref().map(Spanned::span)),
        ("sticky", service.sticky.as_ref().map(Spanned::span)),
        ("slow_start", service.slow_start.as_ref().map(Spanned::span)),
        ("table_size", service.table_size.as_ref().map(Spanned::span)),
    ];
    let of_backends = service.backends.get_ref().iter().map(|backend| {
        let priority = backend.get_ref().priority.as_ref();
        ("priority", priority.map(Spanned::span))
    });
    let misplaced = of_service.into_iter().chain(of_backends);
    misplaced
        .filter_map(|(key, span)| {
            Some(Misplaced {
                span: span?,
                why: format!(
                    "`{key}` is about the choice of a backend, and mode = \"replicate\" takes all"
                ),
                help: "leave it out, or use another mode",
            })
        })
        .collect()
}

/// Stickiness where the scheduler decides otherwise.
fn stickiness(service: &FileService) -> Vec<Misplaced> {
    let (Some(sticky), Some(scheduler)) = (&service.sticky, &service.scheduler) else {
        return Vec::new();
    };
    let name = scheduler.get_ref().to_plan().name();
    let (why, help) = match scheduler.get_ref() {
        FileScheduler::Maglev => return vec![],
        FileScheduler::SourceHash => (
            "scheduler = \"source-hash\" is sticky already".to_owned(),
            "leave `sticky` or `scheduler` out",
        ),
        FileScheduler::Wrr | FileScheduler::Wlc | FileScheduler::Random => (
            format!(
                "sticky = \"client\" needs a choice by the client's address alone, and \
                 scheduler = \"{name}\" chooses anew for each flow"
            ),
            "leave one of both out",
        ),
    };
    vec![Misplaced {
        span: sticky.span(),
        why,
        help,
    }]
}
