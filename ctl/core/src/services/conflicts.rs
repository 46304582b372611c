//! What is wrong with the services together, at its line in the file.

use super::replicate::FileReplicate;
use super::values::FileMode;
use super::{Document, FileBackend, FileService};
use lockstep_plan::mask::MAX_MASKS;
use lockstep_plan::{Limits, PlanError, ServiceName, Vip};
use lockstep_topology::diagnostics::{Diagnostic, Diagnostics, Source};
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::ops::Range;
use toml::Spanned;

/// Backend names that stand for two backends of a service: `lockstep drain NAME` would not know
/// which. The plan has no such rule, since the engine knows backends by address.
pub fn in_names(source: Source<'_>, document: &Document) -> Diagnostics {
    document
        .service
        .iter()
        .flat_map(|s| names_of(source, s.get_ref()))
        .collect()
}

fn names_of(source: Source<'_>, service: &FileService) -> Vec<Diagnostic> {
    let mut found = Vec::new();
    let mut owners: BTreeMap<&str, IpAddr> = BTreeMap::new();
    for backend in backends(service) {
        let Some(name) = &backend.name else { continue };
        let (text, address) = (name.get_ref().0.as_str(), backend.address.get_ref().0);
        let service = &service.name.get_ref().0;
        if let Some(owner) = owners
            .insert(text, address)
            .filter(|&owner| owner != address)
        {
            let message = format!("service {service}: backend {owner} is named {text} already");
            found.push(
                source
                    .error(name.span(), message)
                    .help("give each backend its own name"),
            );
        }
        if text.parse::<IpAddr>().is_ok_and(|other| other != address) {
            let message = format!("service {service}: backend {address} is named {text}");
            let error = source.error(name.span(), message);
            found.push(error.help("a name that is an address has to be the backend's own"));
        }
    }
    found
}

/// Policies of services that do not replicate, and masks that are none.
pub fn in_policies(source: Source<'_>, document: &Document) -> Diagnostics {
    services(document)
        .flat_map(|s| policy_of(source, s))
        .collect()
}

fn policy_of(source: Source<'_>, service: &FileService) -> Vec<Diagnostic> {
    let Some(policy) = &service.replicate else {
        return Vec::new();
    };
    let mut found = Vec::new();
    let name = &service.name.get_ref().0;
    if !matches!(service.mode, FileMode::Replicate) {
        let message =
            format!("service {name}: `replicate` says how it replicates, but it does not");
        let error = source.error(policy.span(), message);
        found.push(error.help("set mode = \"replicate\", or leave `replicate` out"));
    }
    for (at, (span, mask)) in policy.get_ref().masks().enumerate() {
        if let Some(problem) = mask.problem() {
            let message = format!("service {name}: {problem}");
            let help = "write { offset = 0, length = 8 } or { pattern = 'Date: [^\\r]*' }";
            found.push(source.error(span.clone(), message).help(help));
        }
        if at == MAX_MASKS {
            let message = format!("service {name}: more than {MAX_MASKS} masks");
            let help = "each is paid for with every byte; alternatives behind the same literal text fit in one pattern";
            found.push(source.error(span, message).help(help));
        }
    }
    found
}

/// The plan's errors, each at the line of what it is about.
pub fn located(source: Source<'_>, document: &Document, errors: &[PlanError]) -> Diagnostics {
    let one = |(at, error): (usize, &PlanError)| {
        // An error that stands there twice concerns two places of the same content.
        let nth = errors[..at]
            .iter()
            .filter(|&earlier| earlier == error)
            .count();
        let places = places(document, error);
        match places.get(nth).or(places.last()) {
            Some(span) => source.error(span.clone(), error.to_string()),
            None => source.whole(error.to_string()),
        }
    };
    errors.iter().enumerate().map(one).collect()
}

/// Where an error can stand, in the order of the file; none for one about the whole file.
fn places(document: &Document, error: &PlanError) -> Vec<Range<usize>> {
    match error {
        PlanError::DuplicateService(name) => named(document, name)
            .skip(1)
            .map(FileService::span)
            .collect(),
        PlanError::NoVip(name) => named(document, name)
            .filter(|s| s.vips.get_ref().is_empty())
            .map(|s| s.vips.span())
            .collect(),
        PlanError::DuplicateVip { service, vip, .. } => repeated_vip(document, service, *vip),
        PlanError::DuplicateBackend { service, address } => named(document, service)
            .flat_map(|s| with_address(s, *address).skip(1))
            .collect(),
        PlanError::BackendAddress { service, address }
        | PlanError::BackendIsVip {
            service, address, ..
        } => named(document, service)
            .flat_map(|s| with_address(s, *address))
            .collect(),
        PlanError::MixedTunnel(name) => named(document, name)
            .filter_map(first_of_other_version)
            .collect(),
        PlanError::TunnelPort { service, address } => named(document, service)
            .flat_map(|s| port_of(s, *address))
            .collect(),
        PlanError::ReplicateVip { service, vip }
        | PlanError::EveryPort { service, vip, .. }
        | PlanError::TranslatedVersion { service, vip, .. }
        | PlanError::OverlappingRange { service, vip, .. } => named(document, service)
            .flat_map(|s| s.vips.get_ref())
            .filter(|v| v.get_ref().0 == *vip)
            .map(Spanned::span)
            .collect(),
        PlanError::Quorum { service, .. } => named(document, service)
            .map(|s| policy_span(s, FileReplicate::commit_span))
            .collect(),
        PlanError::MinSync { service, .. } | PlanError::MinSyncBelowQuorum { service, .. } => {
            named(document, service)
                .map(|s| policy_span(s, FileReplicate::min_sync_span))
                .collect()
        }
        PlanError::IdleTime(name) => named(document, name).map(FileService::span).collect(),
        PlanError::TooMany { limit, .. } if *limit == Limits::BACKENDS_PER_SERVICE => {
            too_many_backends(document, *limit, |_| true)
        }
        PlanError::TooMany { limit, .. } if *limit == Limits::REPLICAS => {
            too_many_backends(document, *limit, |mode| matches!(mode, FileMode::Replicate))
        }
        PlanError::TooMany { .. } => Vec::new(),
    }
}

fn services(document: &Document) -> impl Iterator<Item = &FileService> {
    document.service.iter().map(|s| s.get_ref())
}

fn named<'a>(
    document: &'a Document,
    name: &'a ServiceName,
) -> impl Iterator<Item = &'a FileService> {
    services(document).filter(move |s| s.name.get_ref().0 == *name)
}

fn backends(service: &FileService) -> impl Iterator<Item = &FileBackend> {
    service.backends.get_ref().iter().map(|b| b.get_ref())
}

fn with_address(service: &FileService, address: IpAddr) -> impl Iterator<Item = Range<usize>> {
    backends(service)
        .filter(move |b| b.address.get_ref().0 == address)
        .map(|b| b.address.span())
}

/// The port of the backend of this address.
fn port_of(service: &FileService, address: IpAddr) -> impl Iterator<Item = Range<usize>> {
    backends(service)
        .filter(move |b| b.address.get_ref().0 == address)
        .filter_map(|b| b.port.as_ref().map(Spanned::span))
}

/// Where a key of the policy stands; its service's name where it is left out.
fn policy_span(
    service: &FileService,
    key: impl Fn(&FileReplicate) -> Option<Range<usize>>,
) -> Range<usize> {
    let named = service.replicate.as_ref().and_then(|p| key(p.get_ref()));
    named.unwrap_or_else(|| service.span())
}

/// Every place of a VIP but its first in the file, as far as it is in services of this name.
fn repeated_vip(document: &Document, service: &ServiceName, vip: Vip) -> Vec<Range<usize>> {
    services(document)
        .flat_map(|s| s.vips.get_ref().iter().map(move |v| (s, v)))
        .filter(|(_, v)| v.get_ref().0 == vip)
        .skip(1)
        .filter(|(s, _)| s.name.get_ref().0 == *service)
        .map(|(_, v)| v.span())
        .collect()
}

fn too_many_backends(
    document: &Document,
    limit: usize,
    concerns: impl Fn(&FileMode) -> bool,
) -> Vec<Range<usize>> {
    services(document)
        .filter(|s| concerns(&s.mode) && s.backends.get_ref().len() > limit)
        .map(FileService::span)
        .collect()
}

fn first_of_other_version(service: &FileService) -> Option<Range<usize>> {
    let first = backends(service).next()?.address.get_ref().0;
    backends(service)
        .find(|b| b.address.get_ref().0.is_ipv4() != first.is_ipv4())
        .map(|b| b.address.span())
}
