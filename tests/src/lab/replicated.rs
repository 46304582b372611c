//! The text of services with `mode = "replicate"`.

use super::address::host;
use super::services::Version;
use std::fmt::{self, Write};

/// A replicated service, written by its `Display`.
#[derive(Debug, Clone)]
pub struct Replicated {
    name: String,
    vip: Version,
    port: u16,
    backends: Vec<String>,
    policy: String,
}

/// What nginx sends that differs from one second to the next.
pub const DATE_MASK: &str = r"[{ pattern = 'Date: [^\r]*' }]";

impl Replicated {
    /// A service on `port` of the VIP, with the servers of these indices, addressed by the same IP
    /// version.
    pub fn new(name: &str, vip: Version, port: u16, to: &[usize]) -> Self {
        let backend = |&index: &usize| {
            let (address, number) = (vip.server(index), index + 1);
            format!("{{ address = \"{address}\", name = \"s{number}\" }}")
        };
        Replicated {
            name: name.to_owned(),
            vip,
            port,
            backends: to.iter().map(backend).collect(),
            policy: String::new(),
        }
    }

    /// Port 80 of the VIP, with nginx.
    pub fn web(to: &[usize]) -> Self {
        Self::new("web", Version::V4, 80, to).with("masks", DATE_MASK)
    }

    /// Where the servers listen, when it is not the VIP's port.
    #[must_use]
    pub fn at_port(mut self, port: u16) -> Self {
        for backend in &mut self.backends {
            *backend = backend.replace(" }", &format!(", port = {port} }}"));
        }
        self
    }

    /// A key of `[service.replicate]` and its value, as TOML.
    #[must_use]
    pub fn with(mut self, key: &str, value: &str) -> Self {
        let line = writeln!(self.policy, "{key} = {value}");
        line.expect("a String takes all that is written");
        self
    }
}

impl fmt::Display for Replicated {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let vip = host(self.vip.vip());
        writeln!(f, "[[service]]\nname = \"{}\"", self.name)?;
        writeln!(
            f,
            "vips = [\"{vip}:{}/tcp\"]\nmode = \"replicate\"",
            self.port
        )?;
        writeln!(f, "backends = [\n    {},\n]", self.backends.join(",\n    "))?;
        writeln!(f, "[service.replicate]\n{}", self.policy)
    }
}
