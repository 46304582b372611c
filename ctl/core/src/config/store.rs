//! `[store]`: what the balancers of a group share their state by.

use super::random::Url;
use crate::random::request::Name;
use crate::services::values::{FromText, deserialize_from_text};
use lockstep_topology::diagnostics::{Diagnostics, Source};
use lockstep_topology::duration;
use serde::Deserialize;
use std::path::PathBuf;
use std::time::Duration;
use toml::Spanned;

/// The most endpoints of a store.
const MAX_ENDPOINTS: usize = 16;

/// An etcd, and the group in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Store {
    /// Where it answers: one or several of its members.
    pub endpoints: Vec<String>,
    /// The balancers that share.
    pub group: String,
    /// How long a balancer that is not heard of counts as alive.
    pub lease: Duration,
    /// Who asks, and the file with the password; nobody where the store knows no users.
    pub user: Option<(String, PathBuf)>,
    /// How the store is known over TLS; plain TCP where endpoints are `http`.
    pub tls: Option<Tls>,
}

/// Certificates, as files in PEM.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tls {
    /// Who signs for the store.
    pub ca: PathBuf,
    /// Who we are, with the key; nobody where the store does not ask.
    pub own: Option<(PathBuf, PathBuf)>,
}

/// Where one member of an etcd answers.
struct Endpoint(Url);

impl FromText for Endpoint {
    const WANTED: &str = "a string such as \"http://10.0.0.2:2379\"";

    fn from_text(text: &str) -> Result<Self, String> {
        let wrong = || {
            format!(
                "{text:?} is not an endpoint; write one such as \"http://10.0.0.2:2379\", with \
                 its port and without a path"
            )
        };
        let url = Url::from_text(text).map_err(|_| wrong())?;
        let authority = text.split_once("://").map_or("", |(_, rest)| rest);
        let port = format!(":{}", url.port);
        match url.path == "/" && authority.trim_end_matches('/').ends_with(&port) {
            true => Ok(Endpoint(url)),
            false => Err(wrong()),
        }
    }
}

/// The name of a group.
struct Group(String);

impl FromText for Group {
    const WANTED: &str = "a string such as \"lb\"";

    fn from_text(text: &str) -> Result<Self, String> {
        match Name::new(text) {
            Some(name) => Ok(Group(name.as_str().to_owned())),
            None => Err(format!(
                "{text:?} is not a name; use 1 to 64 letters, digits, `-`, `_`, `.` or `:`"
            )),
        }
    }
}

/// The time of a lease, in whole seconds.
struct Lease(Duration);

impl FromText for Lease {
    const WANTED: &str = "a string such as \"5s\"";

    fn from_text(text: &str) -> Result<Self, String> {
        let time = duration::parse(text)
            .map_err(|error| format!("{text:?} is not a duration; {error}"))?;
        match time.subsec_millis() == 0 && (2..=300).contains(&time.as_secs()) {
            true => Ok(Lease(time)),
            false => Err(format!(
                "{text:?} is out of range; a lease is from \"2s\" to \"5m\", in whole seconds"
            )),
        }
    }
}

deserialize_from_text!(Endpoint, Group, Lease);

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawStore {
    endpoints: Spanned<Vec<Spanned<Endpoint>>>,
    group: Option<Group>,
    lease: Option<Lease>,
    user: Option<Spanned<String>>,
    password_file: Option<Spanned<PathBuf>>,
    ca: Option<Spanned<PathBuf>>,
    certificate: Option<Spanned<PathBuf>>,
    key: Option<Spanned<PathBuf>>,
}

impl RawStore {
    pub(super) fn to_store(&self, source: Source<'_>, found: &mut Diagnostics) -> Store {
        Store {
            endpoints: self.endpoints(source, found),
            group: self.group.as_ref().map_or("lb", |g| &g.0).to_owned(),
            lease: self.lease.as_ref().map_or(Duration::from_secs(5), |l| l.0),
            user: self.user(source, found),
            tls: self.tls(source, found),
        }
    }

    fn endpoints(&self, source: Source<'_>, found: &mut Diagnostics) -> Vec<String> {
        let endpoints = self.endpoints.get_ref();
        if endpoints.is_empty() || endpoints.len() > MAX_ENDPOINTS {
            let text = format!("a store has 1 to {MAX_ENDPOINTS} endpoints");
            found.push(source.error(self.endpoints.span(), text));
        }
        let tls = endpoints.first().is_some_and(|e| e.get_ref().0.tls);
        for endpoint in endpoints {
            if endpoint.get_ref().0.tls != tls {
                let text = "endpoints are all `http` or all `https`";
                found.push(source.error(endpoint.span(), text));
            }
        }
        endpoints.iter().map(|e| address(&e.get_ref().0)).collect()
    }

    fn user(&self, source: Source<'_>, found: &mut Diagnostics) -> Option<(String, PathBuf)> {
        match (&self.user, &self.password_file) {
            (None, None) => None,
            (Some(user), Some(file)) => Some((user.get_ref().clone(), file.get_ref().clone())),
            (Some(user), None) => {
                let text = "a `user` has a `password_file`";
                found.push(source.error(user.span(), text));
                None
            }
            (None, Some(file)) => {
                let text = "a `password_file` is that of a `user`";
                found.push(source.error(file.span(), text));
                None
            }
        }
    }

    fn tls(&self, source: Source<'_>, found: &mut Diagnostics) -> Option<Tls> {
        let own = match (&self.certificate, &self.key) {
            (None, None) => None,
            (Some(certificate), Some(key)) => {
                Some((certificate.get_ref().clone(), key.get_ref().clone()))
            }
            (Some(one), None) | (None, Some(one)) => {
                let text = "a `certificate` and its `key` stand together";
                found.push(source.error(one.span(), text));
                None
            }
        };
        let secure = self.endpoints.get_ref().iter().find(|e| e.get_ref().0.tls);
        match (secure, &self.ca) {
            (Some(_), Some(ca)) => Some(Tls {
                ca: ca.get_ref().clone(),
                own,
            }),
            (Some(endpoint), None) => {
                let text = "an `https` endpoint needs a `ca`, the file of who signs for it";
                found.push(source.error(endpoint.span(), text));
                None
            }
            (None, ca) => {
                for file in [ca, &self.certificate, &self.key].into_iter().flatten() {
                    let text = "endpoints without `https` have no certificates";
                    found.push(source.error(file.span(), text));
                }
                None
            }
        }
    }
}

/// The port always stands there: etcd's is neither that of HTTP nor that of HTTPS.
fn address(url: &Url) -> String {
    let scheme = if url.tls { "https" } else { "http" };
    let host = match url.host.contains(':') {
        true => format!("[{}]", url.host),
        false => url.host.clone(),
    };
    format!("{scheme}://{host}:{}", url.port)
}

#[cfg(test)]
mod tests {
    use super::super::parse;
    use super::*;

    fn read(text: &str) -> Result<Store, String> {
        let parsed = parse("lockstepd.toml", &format!("[store]\n{text}"));
        parsed
            .map(|file| file.config.store.unwrap())
            .map_err(|errors| errors.to_string())
    }

    #[test]
    fn a_store_is_read_with_its_defaults() {
        let store = read("endpoints = [\"http://10.0.0.2:2379\", \"http://[::1]:2379\"]").unwrap();
        assert_eq!(
            store,
            Store {
                endpoints: vec!["http://10.0.0.2:2379".into(), "http://[::1]:2379".into()],
                group: "lb".into(),
                lease: Duration::from_secs(5),
                user: None,
                tls: None,
            }
        );
    }

    #[test]
    fn every_key_is_read() {
        let text = "endpoints = [\"https://etcd.example:2379\"]\ngroup = \"east\"\nlease = \"10s\"\n\
                    user = \"lb\"\npassword_file = \"/p\"\nca = \"/ca\"\ncertificate = \"/c\"\n\
                    key = \"/k\"";
        let store = read(text).unwrap();
        assert_eq!(store.endpoints, ["https://etcd.example:2379"]);
        assert_eq!((store.group.as_str(), store.lease.as_secs()), ("east", 10));
        assert_eq!(store.user, Some(("lb".into(), "/p".into())));
        let own = Some(("/c".into(), "/k".into()));
        assert_eq!(
            store.tls,
            Some(Tls {
                ca: "/ca".into(),
                own
            })
        );
    }

    #[test]
    fn what_is_wrong_is_said_with_what_is_allowed() {
        let http = "endpoints = [\"http://a:1\"]\n";
        for (text, error) in [
            ("".to_owned(), "endpoints"),
            ("endpoints = []".to_owned(), "a store has 1 to 16 endpoints"),
            (
                "endpoints = [\"a:1\"]".to_owned(),
                "is not an endpoint; write one",
            ),
            ("endpoints = [\"http://a\"]".to_owned(), "with its port"),
            (
                "endpoints = [\"http://a:1/x\"]".to_owned(),
                "without a path",
            ),
            (
                "endpoints = [\"http://a:1\", \"https://a:1\"]\nca = \"/x\"".to_owned(),
                "all `http`",
            ),
            ("endpoints = [\"https://a:1\"]".to_owned(), "needs a `ca`"),
            (format!("{http}ca = \"/x\""), "have no certificates"),
            (format!("{http}user = \"u\""), "has a `password_file`"),
            (format!("{http}password_file = \"/u\""), "that of a `user`"),
            (format!("{http}key = \"/u\""), "stand together"),
            (format!("{http}group = \"a b\""), "is not a name"),
            (format!("{http}lease = \"1s\""), "from \"2s\" to \"5m\""),
            (format!("{http}leash = \"1s\""), "lease"),
        ] {
            let found = read(&text).unwrap_err();
            assert!(found.contains(error), "{text}: {found}");
        }
    }
}
