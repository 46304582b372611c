//! `[random]`: the random numbers that replicas ask for.

use crate::services::values::{FromText, deserialize_from_text};
use lockstep_topology::diagnostics::{Diagnostics, Source};
use lockstep_topology::duration;
use serde::Deserialize;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

/// Where clients of the seed's service ask.
pub const PORT: u16 = 26_666;

/// See the module.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Random {
    /// Where it is served.
    pub listen: SocketAddr,
    /// Where the numbers are from; the operating system where the file has none.
    pub source: Option<Url>,
    /// Certificates that an `https` source is checked with, in PEM.
    pub source_ca: PathBuf,
    /// How long a source may take to answer.
    pub source_timeout: Duration,
    /// For how long the first answer to some parameters is given to all who send the same.
    pub ttl: Duration,
    /// For how long calls are counted after the last one, and numbers of another source kept for
    /// those who come late.
    pub keep: Duration,
}

impl Default for Random {
    fn default() -> Self {
        Random {
            listen: SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), PORT),
            source: None,
            source_ca: PathBuf::from("/etc/ssl/certs/ca-certificates.crt"),
            source_timeout: Duration::from_secs(5),
            ttl: Duration::from_secs(10),
            keep: Duration::from_secs(24 * 60 * 60),
        }
    }
}

/// An HTTP service with random.org's schema.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Url {
    /// Whether it is asked over TLS.
    pub tls: bool,
    /// Its name or address.
    pub host: String,
    /// Its port.
    pub port: u16,
    /// The path, which begins with a slash.
    pub path: String,
}

impl fmt::Display for Url {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = if self.tls { "https" } else { "http" };
        write!(f, "{scheme}://{}{}", self.authority(), self.path)
    }
}

impl Url {
    /// Host and port, as in a `Host` field (RFC 9110, section 7.2).
    pub fn authority(&self) -> String {
        let default = if self.tls { 443 } else { 80 };
        let host = match self.host.contains(':') {
            true => format!("[{}]", self.host),
            false => self.host.clone(),
        };
        match self.port == default {
            true => host,
            false => format!("{host}:{}", self.port),
        }
    }
}

impl FromText for Url {
    const WANTED: &str = "a string such as \"https://www.random.org/integers/\"";

    fn from_text(text: &str) -> Result<Self, String> {
        url(text).ok_or_else(|| {
            format!(
                "{text:?} is not the address of a service; write one such as \
                 \"https://www.random.org/integers/\", without a query"
            )
        })
    }
}

fn url(text: &str) -> Option<Url> {
    let (tls, rest) = match text.split_once("://")? {
        ("http", rest) => (false, rest),
        ("https", rest) => (true, rest),
        _ => return None,
    };
    let (authority, path) = match rest.find('/') {
        Some(at) => rest.split_at(at),
        None => (rest, "/"),
    };
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_.~/%".contains(c);
    let (host, port) = match authority.strip_prefix('[') {
        Some(rest) => {
            let (host, after) = rest.split_once(']')?;
            host.parse::<std::net::Ipv6Addr>().ok()?;
            let port = after.strip_prefix(':');
            (after.is_empty() || port.is_some()).then_some((host, port))?
        }
        None => match authority.split_once(':') {
            Some((host, port)) => (host, Some(port)),
            None => (authority, None),
        },
    };
    let name = |c: char| c.is_ascii_alphanumeric() || "-_.:".contains(c);
    let fits = !host.is_empty() && host.len() <= 253 && host.chars().all(name);
    let port = match port {
        Some(port) => port.parse().ok().filter(|&p: &u16| p != 0)?,
        None if tls => 443,
        None => 80,
    };
    (fits && path.chars().all(plain)).then(|| Url {
        tls,
        host: host.to_owned(),
        port,
        path: path.to_owned(),
    })
}

/// An address to listen at, with or without a port.
struct Listen(SocketAddr);

impl FromText for Listen {
    const WANTED: &str = "a string such as \"10.0.0.5:26666\"";

    fn from_text(text: &str) -> Result<Self, String> {
        let alone = text.parse().map(|address| SocketAddr::new(address, PORT));
        alone.or_else(|_| text.parse()).map(Listen).map_err(|_| {
            format!(
                "{text:?} is not an address; write one such as \"10.0.0.5:{PORT}\", or \
                 \"0.0.0.0\" for every address of this host"
            )
        })
    }
}

/// A time between a second (a tenth of one for the source) and a year.
struct Time<const LEAST: u64>(Duration);

impl<const LEAST: u64> FromText for Time<LEAST> {
    const WANTED: &str = "a string such as \"10s\"";

    fn from_text(text: &str) -> Result<Self, String> {
        let time = duration::parse(text)
            .map_err(|error| format!("{text:?} is not a duration; {error}"))?;
        let (least, most) = (
            Duration::from_millis(LEAST),
            Duration::from_secs(365 * 86_400),
        );
        match (least..=most).contains(&time) {
            true => Ok(Time(time)),
            false => Err(format!(
                "{text:?} is out of range; it is from {:?} to \"8760h\"",
                duration::format(least)
            )),
        }
    }
}

deserialize_from_text!(Url, Listen, Time<1_000>, Time<100>);

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawRandom {
    listen: Option<Listen>,
    source: Option<Url>,
    source_ca: Option<PathBuf>,
    source_timeout: Option<Time<100>>,
    ttl: Option<Time<1_000>>,
    keep: Option<Time<1_000>>,
}

impl RawRandom {
    pub(super) fn to_random(&self, _: Source<'_>, _: &mut Diagnostics) -> Random {
        let defaults = Random::default();
        Random {
            listen: self.listen.as_ref().map_or(defaults.listen, |l| l.0),
            source: self.source.clone(),
            source_ca: self.source_ca.clone().unwrap_or(defaults.source_ca),
            source_timeout: self
                .source_timeout
                .as_ref()
                .map_or(defaults.source_timeout, |t| t.0),
            ttl: self.ttl.as_ref().map_or(defaults.ttl, |t| t.0),
            keep: self.keep.as_ref().map_or(defaults.keep, |t| t.0),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::parse;
    use super::*;

    fn read(text: &str) -> Result<Random, String> {
        let parsed = parse("lockstepd.toml", &format!("[random]\n{text}"));
        parsed
            .map(|file| file.config.random.unwrap())
            .map_err(|errors| errors.to_string())
    }

    #[test]
    fn an_empty_section_serves_this_host_only() {
        let random = read("").unwrap();
        assert_eq!(random, Random::default());
        assert!(random.listen.ip().is_loopback());
    }

    #[test]
    fn every_key_is_read() {
        let text = "listen = \"0.0.0.0\"\nsource = \"https://www.random.org/integers/\"\n\
                    source_ca = \"/ca.pem\"\nsource_timeout = \"500ms\"\nttl = \"1m\"\nkeep = \"2h\"";
        let random = read(text).unwrap();
        assert_eq!(random.listen, "0.0.0.0:26666".parse().unwrap());
        let source = random.source.unwrap();
        assert_eq!(source.to_string(), "https://www.random.org/integers/");
        assert_eq!((source.tls, source.port), (true, 443));
        assert_eq!(random.source_ca, PathBuf::from("/ca.pem"));
        assert_eq!(random.source_timeout, Duration::from_millis(500));
        assert_eq!(random.ttl, Duration::from_secs(60));
        assert_eq!(random.keep, Duration::from_secs(7_200));
    }

    #[test]
    fn addresses_of_services_are_read() {
        for (text, authority, path) in [
            ("http://a.example", "a.example", "/"),
            ("http://a.example:8080/x/", "a.example:8080", "/x/"),
            ("https://[2001:db8::1]/x", "[2001:db8::1]", "/x"),
            ("http://[::1]:81/", "[::1]:81", "/"),
        ] {
            let url = url(text).unwrap();
            assert_eq!(
                (url.authority().as_str(), url.path.as_str()),
                (authority, path)
            );
        }
        for wrong in [
            "",
            "a.example",
            "ftp://a/",
            "http:///x",
            "http://a:0/",
            "http://a/?x=1",
            "http://a b/",
            "http://[1]/",
            "http://[::1]x/",
            "http://u@a/",
        ] {
            assert_eq!(url(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn what_is_wrong_is_said_with_what_is_allowed() {
        for (text, error) in [
            (
                "listen = \"here\"",
                "\"here\" is not an address; write one such as \"10.0.0.5:26666\"",
            ),
            ("source = \"random.org\"", "is not the address of a service"),
            ("ttl = \"10ms\"", "it is from \"1s\" to \"8760h\""),
            ("ttl = \"long\"", "is not a duration"),
            ("keep = \"9000h\"", "out of range"),
            ("sauce = 1", "source"),
        ] {
            let found = read(text).unwrap_err();
            assert!(found.contains(error), "{found}");
        }
    }
}
