//! What a backend is asked, and what it has to answer.

use regex_automata::nfa::thompson::{self, pikevm::PikeVM};
use regex_automata::util::syntax;
use std::fmt;
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::sync::Arc;

/// The most of an answer that is read for `body` and `expect`, in bytes.
pub const MAX_BODY: usize = 64 << 10;

/// A question to a backend.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Probe {
    /// It accepts a connection, and answers where it is asked something.
    Tcp(Exchange),
    /// It answers a datagram, or at least does not refuse it.
    Udp(Exchange),
    /// It answers an HTTP request.
    Http(Box<Http>),
    /// It answers `grpc.health.v1.Health/Check` with SERVING.
    Grpc {
        /// The service asked for; empty for the whole server.
        service: String,
        /// `None` for plain text.
        tls: Option<Tls>,
    },
    /// It answers a ping.
    Icmp,
    /// A program says so.
    Script {
        /// A file in the directory of `[health]`, and its arguments.
        command: Vec<String>,
    },
}

impl Probe {
    /// Its `type` in the file.
    pub fn name(&self) -> &'static str {
        match self {
            Probe::Tcp(_) => "tcp",
            Probe::Udp(_) => "udp",
            Probe::Http(http) => match (http.version, &http.tls) {
                (HttpVersion::Http2, _) => "http2",
                (HttpVersion::Http1, Some(_)) => "https",
                (HttpVersion::Http1, None) => "http",
            },
            Probe::Grpc { .. } => "grpc",
            Probe::Icmp => "icmp",
            Probe::Script { .. } => "script",
        }
    }
}

/// On which way a backend is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Via {
    /// At its own address.
    #[default]
    Address,
    /// At the VIP, by packets in the tunnel that clients' packets take.
    Tunnel,
}

/// What is sent, and what has to come back.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Exchange {
    /// Nothing is sent where it is empty; an empty datagram by UDP.
    pub send: Vec<u8>,
    /// The answer has it in it; where it is empty, none is waited for.
    pub expect: Vec<u8>,
}

/// An HTTP request and what its answer has to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Http {
    /// How it is asked.
    pub version: HttpVersion,
    /// `None` for plain text.
    pub tls: Option<Tls>,
    /// The path and query.
    pub path: String,
    /// `Host` or `:authority`; the address and port asked where there is none.
    pub host: Option<String>,
    /// More of what is sent.
    pub headers: Vec<(String, String)>,
    /// The statuses that are fine.
    pub status: Statuses,
    /// What the first [`MAX_BODY`] bytes of the answer have in them.
    pub body: Option<Pattern>,
}

/// A version of HTTP.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HttpVersion {
    /// HTTP/1.1.
    Http1,
    /// HTTP/2, without asking whether the server has it.
    Http2,
}

/// How TLS is checked.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Tls {
    /// The certificate has to be one of these authorities'; any will do where none is named.
    pub ca: Option<PathBuf>,
    /// The name asked for (SNI), which the certificate is for; that of `host` where none is named.
    pub server_name: Option<String>,
}

/// Statuses of HTTP that are fine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Statuses(pub Vec<RangeInclusive<u16>>);

impl Statuses {
    /// Whether this one is.
    pub fn contains(&self, status: u16) -> bool {
        self.0.iter().any(|range| range.contains(&status))
    }
}

impl Default for Statuses {
    /// What a browser takes for an answer: 200 to 399.
    fn default() -> Self {
        Statuses(vec![200..=399])
    }
}

impl fmt::Display for Statuses {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, range) in self.0.iter().enumerate() {
            let comma = if at > 0 { ", " } else { "" };
            match range.start() == range.end() {
                true => write!(f, "{comma}{}", range.start())?,
                false => write!(f, "{comma}{}-{}", range.start(), range.end())?,
            }
        }
        Ok(())
    }
}

/// A regular expression over bytes, compiled once and shared by all clones. Two are equal when
/// they are written the same.
#[derive(Clone)]
pub struct Pattern {
    compiled: Arc<(String, PikeVM)>,
}

impl Pattern {
    /// Bytes that a compiled expression may take.
    const MAX_SIZE: usize = 1 << 20;

    /// Compiles an expression in the syntax of the `regex` crate. It is searched for in a time
    /// that grows with the answer only, whatever the expression is.
    ///
    /// # Errors
    /// Why it is none, or takes too much memory: the end of a sentence.
    pub fn new(source: &str) -> Result<Self, String> {
        let syntax = syntax::Config::new().unicode(false).utf8(false);
        // It draws an arrow under the pattern, over several lines; the last one has words.
        let hir = syntax::parse_with(source, &syntax).map_err(|error| {
            let drawn = error.to_string();
            let said = drawn.lines().last().unwrap_or_default();
            said.strip_prefix("error: ").unwrap_or(said).to_owned()
        })?;
        let thompson = thompson::Config::new()
            .utf8(false)
            .nfa_size_limit(Some(Self::MAX_SIZE));
        let compiled = thompson::Compiler::new()
            .configure(thompson)
            .build_from_hir(&hir)
            .and_then(PikeVM::new_from_nfa)
            .map_err(|_| "it takes too much memory; make its repetitions shorter".to_owned())?;
        Ok(Pattern {
            compiled: Arc::new((source.to_owned(), compiled)),
        })
    }

    /// The expression as written.
    pub fn as_str(&self) -> &str {
        &self.compiled.0
    }

    /// Whether it matches somewhere in these bytes.
    pub fn is_in(&self, bytes: &[u8]) -> bool {
        let machine = &self.compiled.1;
        machine.is_match(&mut machine.create_cache(), bytes)
    }
}

impl PartialEq for Pattern {
    fn eq(&self, other: &Self) -> bool {
        self.as_str() == other.as_str()
    }
}

impl Eq for Pattern {}

impl fmt::Debug for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Pattern").field(&self.as_str()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statuses_are_ranges() {
        let statuses = Statuses(vec![200..=204, 301..=301]);
        assert_eq!(statuses.to_string(), "200-204, 301");
        assert!(statuses.contains(200) && statuses.contains(301));
        assert!(!statuses.contains(205) && !statuses.contains(300));
    }

    #[test]
    fn patterns_are_of_bytes() {
        let pattern = Pattern::new(r"^ok|\xff\d+").unwrap();
        assert!(pattern.is_in(b"ok then") && pattern.is_in(b"a \xff12"));
        assert!(!pattern.is_in(b"not ok") && !pattern.is_in(b"\xff"));
        let error = Pattern::new("a(b").unwrap_err();
        assert!(error.contains("unclosed group"), "{error}");
    }
}
