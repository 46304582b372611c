//! `health` and `all_down`: how the backends of a service are checked, as an operator writes it.

use super::FileService;
use super::values::FilePort;
use crate::checks::{
    AllDown, Check, Exchange, Http, HttpVersion, Policy, Probe, Statuses, Tls, Via,
};
use lockstep_plan::{Mode, Protocol, Service};
use lockstep_topology::diagnostics::{Diagnostic, Diagnostics, Source};
use serde::Deserialize;
use std::collections::BTreeMap;
use std::ops::Range;
use std::path::PathBuf;
use toml::Spanned;

mod values;

pub(crate) use values::{Count, Pause};
use values::{FileBytes, FileHost, FilePath, FilePattern, FileStatuses};

/// `health = { .. }`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FileHealth {
    r#type: FileType,
    via: Option<Spanned<FileVia>>,
    port: Option<Spanned<FilePort>>,
    interval: Option<Pause>,
    fast_interval: Option<Spanned<Pause>>,
    timeout: Option<Spanned<Pause>>,
    rise: Option<Count>,
    fall: Option<Count>,
    path: Option<Spanned<FilePath>>,
    host: Option<Spanned<FileHost>>,
    headers: Option<Spanned<BTreeMap<String, String>>>,
    status: Option<Spanned<FileStatuses>>,
    body: Option<Spanned<FilePattern>>,
    tls: Option<Spanned<bool>>,
    ca: Option<Spanned<PathBuf>>,
    server_name: Option<Spanned<FileHost>>,
    send: Option<Spanned<FileBytes>>,
    expect: Option<Spanned<FileBytes>>,
    service: Option<Spanned<String>>,
    command: Option<Spanned<Vec<String>>>,
}

/// What a backend is asked.
#[derive(Deserialize, Clone, Copy, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
enum FileType {
    Tcp,
    Udp,
    Http,
    Https,
    Http2,
    Grpc,
    Icmp,
    Script,
}

impl FileType {
    const fn name(self) -> &'static str {
        match self {
            FileType::Tcp => "tcp",
            FileType::Udp => "udp",
            FileType::Http => "http",
            FileType::Https => "https",
            FileType::Http2 => "http2",
            FileType::Grpc => "grpc",
            FileType::Icmp => "icmp",
            FileType::Script => "script",
        }
    }

    /// The types that a key means something to.
    fn of_key(key: &str) -> &'static [FileType] {
        use FileType::{Grpc, Http, Http2, Https, Icmp, Script, Tcp, Udp};
        match key {
            "path" | "headers" | "status" | "body" => &[Http, Https, Http2],
            "host" => &[Http, Https, Http2, Grpc],
            "tls" => &[Http2, Grpc],
            "ca" | "server_name" => &[Https, Http2, Grpc],
            "send" | "expect" => &[Tcp, Udp],
            "service" => &[Grpc],
            "command" => &[Script],
            "port" => &[Tcp, Udp, Http, Https, Http2, Grpc, Script],
            _ => &[Tcp, Udp, Http, Https, Http2, Grpc, Icmp, Script],
        }
    }
}

/// The way to a backend.
#[derive(Deserialize, Clone, Copy, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
enum FileVia {
    Address,
    Tunnel,
}

/// What a service becomes without backends.
#[derive(Deserialize, Clone, Copy, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub enum FileAllDown {
    Keep,
    Drop,
    Reset,
}

impl FileAllDown {
    /// The policy.
    pub const fn to_policy(self) -> AllDown {
        match self {
            FileAllDown::Keep => AllDown::Keep,
            FileAllDown::Drop => AllDown::Drop,
            FileAllDown::Reset => AllDown::Reset,
        }
    }
}

impl FileService {
    /// What the service says of its health.
    pub(super) fn health_policy(&self) -> Policy {
        let all_down = self.all_down.as_ref();
        Policy {
            check: self.health.as_ref().map(|h| h.get_ref().to_check()),
            all_down: all_down.map_or(AllDown::Keep, |a| a.get_ref().to_policy()),
        }
    }
}

impl FileHealth {
    fn to_check(&self) -> Check {
        let spanned = |key: &Option<Spanned<Pause>>| key.as_ref().map(|k| k.get_ref().0);
        Check {
            probe: self.probe(),
            via: match self.via.as_ref().map(|v| *v.get_ref()) {
                None | Some(FileVia::Address) => Via::Address,
                Some(FileVia::Tunnel) => Via::Tunnel,
            },
            port: self.port.as_ref().map(|p| p.get_ref().0.get()),
            interval: self.interval.as_ref().map(|p| p.0),
            fast_interval: spanned(&self.fast_interval),
            timeout: spanned(&self.timeout),
            rise: self.rise.as_ref().map(|c| c.0),
            fall: self.fall.as_ref().map(|c| c.0),
        }
    }

    fn probe(&self) -> Probe {
        let bytes = |key: &Option<Spanned<FileBytes>>| {
            let named = key.as_ref().map(|k| k.get_ref().0.clone());
            named.unwrap_or_default()
        };
        let exchange = || Exchange {
            send: bytes(&self.send),
            expect: bytes(&self.expect),
        };
        let asked = self.tls.as_ref().is_some_and(|tls| *tls.get_ref());
        match self.r#type {
            FileType::Tcp => Probe::Tcp(exchange()),
            FileType::Udp => Probe::Udp(exchange()),
            FileType::Icmp => Probe::Icmp,
            FileType::Http => self.http(HttpVersion::Http1, None),
            FileType::Https => self.http(HttpVersion::Http1, Some(self.tls())),
            FileType::Http2 => self.http(HttpVersion::Http2, asked.then(|| self.tls())),
            FileType::Grpc => Probe::Grpc {
                service: self
                    .service
                    .as_ref()
                    .map_or_else(String::new, |s| s.get_ref().clone()),
                tls: asked.then(|| self.tls()),
            },
            FileType::Script => Probe::Script {
                command: self
                    .command
                    .as_ref()
                    .map_or_else(Vec::new, |c| c.get_ref().clone()),
            },
        }
    }

    fn tls(&self) -> Tls {
        let host = |key: &Option<Spanned<FileHost>>| key.as_ref().map(|h| h.get_ref().0.clone());
        Tls {
            ca: self.ca.as_ref().map(|ca| ca.get_ref().clone()),
            server_name: host(&self.server_name).or_else(|| host(&self.host)),
        }
    }

    fn http(&self, version: HttpVersion, tls: Option<Tls>) -> Probe {
        let headers = self.headers.as_ref().map(|h| h.get_ref().clone());
        Probe::Http(Box::new(Http {
            version,
            tls,
            path: self
                .path
                .as_ref()
                .map_or_else(|| "/".to_owned(), |p| p.get_ref().0.clone()),
            host: self.host.as_ref().map(|h| h.get_ref().0.clone()),
            headers: headers.unwrap_or_default().into_iter().collect(),
            status: self
                .status
                .as_ref()
                .map_or_else(Statuses::default, |s| s.get_ref().0.clone()),
            body: self.body.as_ref().map(|b| b.get_ref().0.clone()),
        }))
    }

    /// The keys that are there, each with its place.
    fn keys(&self) -> Vec<(&'static str, Range<usize>)> {
        let keys = [
            ("path", self.path.as_ref().map(Spanned::span)),
            ("host", self.host.as_ref().map(Spanned::span)),
            ("headers", self.headers.as_ref().map(Spanned::span)),
            ("status", self.status.as_ref().map(Spanned::span)),
            ("body", self.body.as_ref().map(Spanned::span)),
            ("tls", self.tls.as_ref().map(Spanned::span)),
            ("ca", self.ca.as_ref().map(Spanned::span)),
            ("server_name", self.server_name.as_ref().map(Spanned::span)),
            ("send", self.send.as_ref().map(Spanned::span)),
            ("expect", self.expect.as_ref().map(Spanned::span)),
            ("service", self.service.as_ref().map(Spanned::span)),
            ("command", self.command.as_ref().map(Spanned::span)),
            ("port", self.port.as_ref().map(Spanned::span)),
        ];
        let there = keys.into_iter();
        there.filter_map(|(key, span)| Some((key, span?))).collect()
    }
}

/// What is wrong with the checks of one service: keys that mean nothing beside its others, and
/// those that are missing.
fn errors(source: Source<'_>, file: &FileService, service: &Service) -> Vec<Diagnostic> {
    let mut found = Found {
        source,
        name: service.name.as_str(),
        errors: Vec::new(),
    };
    if let Some(all_down) = &file.all_down
        && file.health.is_none()
    {
        let why = "`all_down` says what becomes of it when every check fails, and it has no checks";
        found.error(
            all_down.span(),
            why,
            "add `health`, or leave `all_down` out",
        );
    }
    if let Some(health) = &file.health {
        misplaced(health.get_ref(), &mut found);
        values(health.get_ref(), &mut found);
        ways(health, service, &mut found);
        replicas(file, service, &mut found);
    }
    found.errors
}

struct Found<'a> {
    source: Source<'a>,
    name: &'a str,
    errors: Vec<Diagnostic>,
}

impl Found<'_> {
    fn error(&mut self, span: Range<usize>, why: &str, help: &str) {
        let message = format!("service {}: {why}", self.name);
        self.errors
            .push(self.source.error(span, message).help(help));
    }
}

fn misplaced(health: &FileHealth, found: &mut Found<'_>) {
    let (own, encrypts) = (health.r#type, health.encrypts());
    for (key, span) in health.keys() {
        let types = FileType::of_key(key);
        if !types.contains(&own) {
            let names: Vec<&str> = types.iter().map(|t| t.name()).collect();
            let why = format!(
                "`{key}` is about checks of type {}, and this one is \"{}\"",
                names.join(", "),
                own.name()
            );
            found.error(span, &why, "leave it out, or use another type");
        } else if ["ca", "server_name"].contains(&key) && !encrypts {
            let why = format!("`{key}` is about TLS, and this check has none");
            found.error(span, &why, "set tls = true, or leave it out");
        }
    }
}

fn values(health: &FileHealth, found: &mut Found<'_>) {
    for (name, key) in [
        ("fast_interval", &health.fast_interval),
        ("timeout", &health.timeout),
    ] {
        let longest = health.interval.as_ref().map_or(Pause::TO, |i| i.0);
        if let Some(key) = key.as_ref().filter(|key| key.get_ref().0 > longest) {
            let why = format!("`{name}` is longer than the interval");
            let help = "a check ends before the next one begins: at most the interval";
            found.error(key.span(), &why, help);
        }
    }
    for (name, value) in health.headers.iter().flat_map(|h| h.get_ref()) {
        let token = |b: u8| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b);
        let plain = |b: u8| b == b'\t' || (b' '..=b'~').contains(&b);
        if let Some(headers) = &health.headers
            && (name.is_empty() || !name.bytes().all(token) || !value.bytes().all(plain))
        {
            let why = format!("{name:?} = {value:?} cannot be a header of HTTP");
            let help = "write headers as { \"x-check\" = \"yes\" }, in printable ASCII";
            found.error(headers.span(), &why, help);
        }
    }
    if let Some(command) = &health.command {
        let [program, ..] = command.get_ref().as_slice() else {
            let help = "name a file in the directory `scripts` of [health], and its arguments";
            return found.error(command.span(), "`command` is empty", help);
        };
        if program.contains('/') || [".", "..", ""].contains(&program.as_str()) {
            let why = format!("{program:?} is not the name of a file");
            let help = "scripts are run from the directory `scripts` of [health] in lockstepd.toml only: leave out the path";
            found.error(command.span(), &why, help);
        }
    }
}

/// Whether what is asked can be asked on the way that it is.
fn ways(health: &Spanned<FileHealth>, service: &Service, found: &mut Found<'_>) {
    let (whole, health) = (health.span(), health.get_ref());
    if health.r#type == FileType::Script && health.command.is_none() {
        let help = "add command = [\"check-web\", \"argument\"], a file in the directory `scripts` of [health]";
        found.error(
            whole.clone(),
            "a check of type script needs a `command`",
            help,
        );
    }
    let has_port = |b: &lockstep_plan::Backend| b.port.is_some();
    let named = health.port.is_some() || service.backends.iter().all(has_port);
    let one = service.vips.first().is_none_or(|vip| vip.has_one_port());
    let needs = ![FileType::Icmp, FileType::Script].contains(&health.r#type);
    if needs && !named && !one {
        let why = "its first VIP stands for several ports, and nothing says which one is checked";
        found.error(whole, why, "add `port` to `health`");
    }
    let Some(via) = health.via.as_ref() else {
        return;
    };
    if *via.get_ref() == FileVia::Address {
        return;
    }
    match (&service.mode, health.r#type) {
        (Mode::Nat | Mode::FullNat | Mode::Replicate(_), _) => {
            let why = format!(
                "via = \"tunnel\" is about tunnels, and mode = \"{}\" has none",
                service.mode.name()
            );
            let help = "leave `via` out: its backends are asked at their own addresses";
            found.error(via.span(), &why, help);
        }
        (Mode::Tunnel(_), FileType::Icmp | FileType::Script) => {
            let why = format!(
                "via = \"tunnel\" is about TCP and UDP, and this check is of type \"{}\"",
                health.r#type.name()
            );
            found.error(via.span(), &why, "leave `via` out, or use another type");
        }
        (Mode::Tunnel(_), kind) => {
            let asked = match kind {
                FileType::Udp => Protocol::Udp,
                _ => Protocol::Tcp,
            };
            let first = service.vips.first();
            if first.is_some_and(|vip| vip.protocol() != asked && health.port.is_none()) {
                let why = "its first VIP is of another protocol than the check through the tunnel";
                let help = "put a VIP of the check's protocol first, or add `port`";
                found.error(via.span(), why, help);
            }
        }
    }
}

/// Replicas that are down stay: the engine ends sessions with them by itself.
fn replicas(file: &FileService, service: &Service, found: &mut Found<'_>) {
    if let (Some(all_down), true) = (&file.all_down, service.mode.replicate().is_some()) {
        let why = "`all_down` is about the choice of a backend, and mode = \"replicate\" takes all";
        found.error(all_down.span(), why, "leave it out");
    }
}

impl FileHealth {
    fn encrypts(&self) -> bool {
        self.r#type == FileType::Https || self.tls.as_ref().is_some_and(|tls| *tls.get_ref())
    }
}

/// The errors of every service.
pub(super) fn all(
    source: Source<'_>,
    document: &super::Document,
    services: &[Service],
) -> Diagnostics {
    let files = document.service.iter().map(Spanned::get_ref).zip(services);
    files
        .flat_map(|(file, service)| errors(source, file, service))
        .collect()
}

#[cfg(test)]
mod tests;
