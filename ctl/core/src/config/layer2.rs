//! `[layer2]`: VIPs announced by ARP and neighbor discovery, one owner each among some balancers.

use crate::layer2::{MAX_MEMBERS, Timing};
use lockstep_topology::diagnostics::{Diagnostics, Source};
use lockstep_topology::duration;
use serde::Deserialize;
use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;
use toml::Spanned;

/// The port of hellos where the file says none.
pub const PORT: u16 = 26_667;

/// The longest name of a balancer or group, in bytes.
const MAX_NAME: usize = 63;

/// The longest name of an interface (`IFNAMSIZ` of Linux, without its zero).
const MAX_INTERFACE: usize = 15;

const INTERVALS: (Duration, Duration) = (Duration::from_millis(20), Duration::from_secs(5));
const HOLDS: (Duration, Duration) = (Duration::ZERO, Duration::from_secs(3_600));

/// See the module.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Layer2 {
    /// Where neighbors are told.
    pub interfaces: BTreeSet<String>,
    /// Where hellos are sent from, and come to.
    pub listen: SocketAddr,
    /// The other balancers, by name.
    pub peers: BTreeMap<String, SocketAddr>,
    /// Balancers of other groups are not listened to.
    pub group: String,
    /// How often they talk, and when a VIP goes back.
    pub timing: Timing,
    /// The file with the key that hellos are authenticated by; they are not where there is none.
    pub key_file: Option<PathBuf>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawLayer2 {
    interfaces: Spanned<Vec<Spanned<String>>>,
    listen: Spanned<String>,
    #[serde(default)]
    peers: Vec<RawPeer>,
    group: Option<Spanned<String>>,
    interval: Option<Spanned<String>>,
    hold: Option<Spanned<String>>,
    key_file: Option<Spanned<String>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawPeer {
    name: Spanned<String>,
    address: Spanned<String>,
}

impl RawLayer2 {
    pub(super) fn to_layer2(&self, source: Source<'_>, found: &mut Diagnostics) -> Layer2 {
        let listen = endpoint(&self.listen, PORT, source, found);
        if listen.ip().is_unspecified() {
            let text = "hellos need an address of this host, which its peers know it by";
            found.push(
                source
                    .error(self.listen.span(), text)
                    .help("write one such as \"10.0.0.1\""),
            );
        }
        let group = self.group.as_ref();
        let key_file = self.key_file.as_ref();
        let peers = self.peers(listen, source, found);
        if key_file.is_none() && !peers.is_empty() {
            found.push(
                source
                    .warning(
                        self.listen.span(),
                        "hellos are not authenticated: whoever can send from a peer's address \
                         can take VIPs away",
                    )
                    .help("set `key_file`, the same key on every balancer"),
            );
        }
        Layer2 {
            interfaces: self.interfaces(source, found),
            listen,
            peers,
            group: group.map_or_else(|| "default".to_owned(), |g| name(g, source, found)),
            timing: Timing {
                interval: time(&self.interval, ("200ms", INTERVALS), source, found),
                hold: time(&self.hold, ("5s", HOLDS), source, found),
            },
            key_file: key_file.map(|file| PathBuf::from(file.get_ref())),
        }
    }

    fn interfaces(&self, source: Source<'_>, found: &mut Diagnostics) -> BTreeSet<String> {
        let mut interfaces = BTreeSet::new();
        for interface in self.interfaces.get_ref() {
            let text = interface.get_ref();
            let is = !text.is_empty() && text.len() <= MAX_INTERFACE && !text.contains(['/', ' ']);
            if !is {
                let message = format!("{text:?} is not the name of an interface");
                let help = "write one of `ip link`, such as \"eth0\"";
                found.push(source.error(interface.span(), message).help(help));
            } else if !interfaces.insert(text.clone()) {
                let message = format!("{text} stands here twice");
                found.push(
                    source
                        .error(interface.span(), message)
                        .help("once is enough"),
                );
            }
        }
        if self.interfaces.get_ref().is_empty() {
            found.push(
                source
                    .error(self.interfaces.span(), "no interface to announce VIPs on")
                    .help("name those of `ip link` that clients or routers are behind"),
            );
        }
        interfaces
    }

    fn peers(
        &self,
        listen: SocketAddr,
        source: Source<'_>,
        found: &mut Diagnostics,
    ) -> BTreeMap<String, SocketAddr> {
        let mut peers = BTreeMap::new();
        let mut addresses = BTreeMap::from([(listen.ip(), "this balancer".to_owned())]);
        for peer in &self.peers {
            let address = endpoint(&peer.address, listen.port(), source, found);
            let name = name(&peer.name, source, found);
            if address.is_ipv4() != listen.is_ipv4() {
                let message = format!("{} cannot be reached from {}", address.ip(), listen.ip());
                let help = "`listen` and every peer have addresses of one family";
                found.push(source.error(peer.address.span(), message).help(help));
            }
            if let Some(other) = addresses.insert(address.ip(), name.clone()) {
                let message = format!("{} is the address of {other}", address.ip());
                let help = "every balancer has an address of its own";
                found.push(source.error(peer.address.span(), message).help(help));
            }
            if peers.insert(name.clone(), address).is_some() {
                let message = format!("{name} stands here twice");
                let help = "every balancer has a name of its own: its `[node] name`";
                found.push(source.error(peer.name.span(), message).help(help));
            }
        }
        if let Some(last) = self.peers.last().filter(|_| peers.len() >= MAX_MEMBERS) {
            let message = format!("more than {MAX_MEMBERS} balancers");
            let help = "share out the VIPs among several groups, or use BGP";
            found.push(source.error(last.name.span(), message).help(help));
        }
        peers
    }
}

/// An address, or an address and a port.
fn endpoint(
    text: &Spanned<String>,
    port: u16,
    source: Source<'_>,
    found: &mut Diagnostics,
) -> SocketAddr {
    let address = text.get_ref().parse::<IpAddr>();
    let address = address.map(|ip| SocketAddr::new(ip, port));
    let address = address.or_else(|_| text.get_ref().parse::<SocketAddr>());
    address.unwrap_or_else(|_| {
        let message = format!("{:?} is not an address", text.get_ref());
        let help = format!("write one such as \"10.0.0.1\" or \"10.0.0.1:{PORT}\"");
        found.push(source.error(text.span(), message).help(help));
        // Not unspecified, which would be reported again.
        SocketAddr::from(([127, 0, 0, 1], port))
    })
}

fn name(text: &Spanned<String>, source: Source<'_>, found: &mut Diagnostics) -> String {
    let name = text.get_ref();
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    if name.is_empty() || name.len() > MAX_NAME || !name.chars().all(plain) {
        let message = format!("{name:?} is not a name");
        let help = format!("use 1 to {MAX_NAME} letters, digits, `-`, `_` or `.`");
        found.push(source.error(text.span(), message).help(help));
    }
    name.clone()
}

fn time(
    text: &Option<Spanned<String>>,
    (default, (least, most)): (&str, (Duration, Duration)),
    source: Source<'_>,
    found: &mut Diagnostics,
) -> Duration {
    let default = duration::parse(default).expect("defaults are durations");
    let Some(text) = text else {
        return default;
    };
    let message = match duration::parse(text.get_ref()) {
        Ok(time) if (least..=most).contains(&time) => return time,
        Ok(_) => format!("{:?} is out of range", text.get_ref()),
        Err(_) => format!("{:?} is not a duration", text.get_ref()),
    };
    let (least, most) = (duration::format(least), duration::format(most));
    let help = format!("it is from {least:?} to {most:?}");
    found.push(source.error(text.span(), message).help(help));
    default
}

#[cfg(test)]
mod tests {
    use crate::config::parse;
    use std::time::Duration;

    #[test]
    fn a_section_says_where_and_with_whom() {
        let text = "[layer2]\ninterfaces = [\"eth0\"]\nlisten = \"10.0.0.1\"\npeers = [{ name = \
                    \"lb2\", address = \"10.0.0.2\" }, { name = \"lb3\", address = \
                    \"10.0.0.3:700\" }]\n";
        let file = parse("lockstepd.toml", text).unwrap();
        let layer2 = file.config.layer2.unwrap();
        assert_eq!(layer2.listen, "10.0.0.1:26667".parse().unwrap());
        assert_eq!(layer2.peers["lb2"], "10.0.0.2:26667".parse().unwrap());
        assert_eq!(layer2.peers["lb3"], "10.0.0.3:700".parse().unwrap());
        assert_eq!(layer2.timing.interval, Duration::from_millis(200));
        assert_eq!(layer2.timing.hold, Duration::from_secs(5));
        let warnings = file.warnings.to_string();
        assert!(
            warnings.contains(":3:10: warning: hellos are not"),
            "{warnings}"
        );
    }

    #[test]
    fn everything_wrong_is_said_at_its_place() {
        let text = "[layer2]\n\
                    interfaces = [\"eth0\", \"eth0\", \"a name that is long\"]\n\
                    listen = \"0.0.0.0\"\n\
                    group = \"a group\"\n\
                    interval = \"1ms\"\n\
                    hold = \"soon\"\n\
                    [[layer2.peers]]\nname = \"lb2\"\naddress = \"10.0.0.2\"\n\
                    [[layer2.peers]]\nname = \"lb2\"\naddress = \"10.0.0.2\"\n\
                    [[layer2.peers]]\nname = \"lb3\"\naddress = \"2001:db8::3\"\n\
                    [[layer2.peers]]\nname = \"lb4\"\naddress = \"lb4\"\n";
        let errors = parse("lockstepd.toml", text).unwrap_err().to_string();
        for line in [
            "lockstepd.toml:2:23: eth0 stands here twice",
            "lockstepd.toml:2:31: \"a name that is long\" is not the name of an interface",
            "lockstepd.toml:3:10: hellos need an address of this host",
            "lockstepd.toml:4:9: \"a group\" is not a name",
            "lockstepd.toml:5:12: \"1ms\" is out of range; it is from \"20ms\" to \"5s\"",
            "lockstepd.toml:6:8: \"soon\" is not a duration",
            "lockstepd.toml:11:8: lb2 stands here twice",
            "lockstepd.toml:12:11: 10.0.0.2 is the address of lb2",
            "lockstepd.toml:15:11: 2001:db8::3 cannot be reached from 0.0.0.0",
            "lockstepd.toml:18:11: \"lb4\" is not an address; write one such as",
        ] {
            assert!(errors.contains(line), "{line}\nis not in\n{errors}");
        }
    }
}
