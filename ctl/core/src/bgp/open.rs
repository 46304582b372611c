//! OPEN: what we offer, and what a session has of what both sides offer.

use super::notification::Notification;
use super::{Families, Family};
use netgauze_bgp_pkt::capabilities::{
    AddPathAddressFamily, AddPathCapability, BgpCapability, FourOctetAsCapability,
    GracefulRestartAddressFamily, GracefulRestartCapability, MultiProtocolExtensionsCapability,
};
use netgauze_bgp_pkt::iana::AS_TRANS;
use netgauze_bgp_pkt::open::{BgpOpenMessage, BgpOpenMessageParameter};
use netgauze_iana::address_family::AddressType;
use std::net::Ipv4Addr;
use std::time::Duration;

/// What a peer's state machine goes by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// Our AS.
    pub local_as: u32,
    /// Our router id.
    pub router_id: Ipv4Addr,
    /// The AS the router must be of.
    pub remote_as: u32,
    /// The hold time we propose, in seconds; 0 for none.
    pub hold_time: u16,
    /// The families we offer.
    pub families: Families,
    /// Whether we offer to send path identifiers.
    pub add_path: bool,
    /// For how many seconds the router is to keep our routes while we restart; `None` for not.
    pub graceful_restart: Option<u16>,
    /// Whether the router connects to us, and we never to it.
    pub passive: bool,
}

impl Settings {
    /// Whether the router is of our AS.
    pub const fn is_internal(&self) -> bool {
        self.local_as == self.remote_as
    }
}

/// What both sides of a session have agreed on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Session {
    /// The router's id.
    pub router_id: Ipv4Addr,
    /// The smaller of both hold times; zero for none (RFC 4271 §4.2).
    pub hold_time: Duration,
    /// Whether AS numbers have four octets (RFC 6793).
    pub four_octet_as: bool,
    /// What it carries.
    pub families: Families,
    /// Where routes have path identifiers (RFC 7911).
    pub add_path: Families,
    /// How long the router needs for a restart of its own, when it knows graceful restart at all
    /// (RFC 4724). Then it keeps our routes while we restart, too.
    pub graceful_restart: Option<Duration>,
}

const fn address_type(family: Family) -> AddressType {
    match family {
        Family::Ipv4 => AddressType::Ipv4Unicast,
        Family::Ipv6 => AddressType::Ipv6Unicast,
    }
}

fn family(address_type: AddressType) -> Option<Family> {
    Family::ALL
        .into_iter()
        .find(|&f| self::address_type(f) == address_type)
}

/// Our OPEN. `restarted`: whether we come back from a restart that the router may have seen as
/// the loss of a session only; what it has of ours is then still forwarded to a running engine.
pub fn offer(settings: &Settings, restarted: bool) -> BgpOpenMessage {
    let families = || settings.families.iter().map(|&f| address_type(f));
    let mut capabilities: Vec<BgpCapability> = families()
        .map(|t| BgpCapability::MultiProtocolExtensions(MultiProtocolExtensionsCapability::new(t)))
        .collect();
    capabilities.push(BgpCapability::RouteRefresh);
    capabilities.push(BgpCapability::FourOctetAs(FourOctetAsCapability::new(
        settings.local_as,
    )));
    if let Some(seconds) = settings.graceful_restart {
        // The engine goes on while the daemon is away: forwarding is preserved (RFC 4724 §3).
        let kept: Vec<_> = families()
            .map(|t| GracefulRestartAddressFamily::new(true, t))
            .collect();
        let seconds = seconds.min(MAX_RESTART_TIME);
        let capability = GracefulRestartCapability::new(restarted, false, seconds, kept);
        capabilities.push(BgpCapability::GracefulRestartCapability(capability));
    }
    if settings.add_path {
        let sent: Vec<_> = families()
            .map(|t| AddPathAddressFamily::new(t, true, false))
            .collect();
        capabilities.push(BgpCapability::AddPath(AddPathCapability::new(sent)));
    }
    // A parameter for each, as all routers read it (RFC 5492 §4). Together far below the 255
    // octets that they may have.
    let parameters: Vec<_> = capabilities
        .into_iter()
        .map(|c| BgpOpenMessageParameter::new_capabilities(vec![c]))
        .collect();
    BgpOpenMessage::new(
        two_octets(settings.local_as),
        settings.hold_time,
        settings.router_id,
        parameters,
    )
}

/// The longest restart time: it has 12 bits (RFC 4724 §3).
pub const MAX_RESTART_TIME: u16 = 4_095;

/// An AS number where there is room for two octets only (RFC 6793 §4.2.2).
pub fn two_octets(number: u32) -> u16 {
    u16::try_from(number).unwrap_or(AS_TRANS)
}

/// The shortest hold time but none (RFC 4271 §4.2).
const MIN_HOLD_TIME: u16 = 3;

/// What a router's OPEN makes of a session.
///
/// # Errors
/// Why there can be none (RFC 4271 §6.2).
pub fn agree(settings: &Settings, open: &BgpOpenMessage) -> Result<Session, Notification> {
    if open.version() != 4 {
        return Err(Notification::new(2, 1).with(4_u16.to_be_bytes()));
    }
    if open.my_asn4() != settings.remote_as {
        return Err(Notification::new(2, 2).because(format!(
            "the router says AS {}, `as` in its [[bgp.peer]] says {}",
            open.my_asn4(),
            settings.remote_as
        )));
    }
    let id = open.bgp_id();
    // RFC 6286 §2.2: not zero, and not our own within an AS.
    if id.is_unspecified() || (settings.is_internal() && id == settings.router_id) {
        return Err(Notification::new(2, 3));
    }
    if (1..MIN_HOLD_TIME).contains(&open.hold_time()) {
        return Err(Notification::new(2, 6));
    }
    let hold_time = match (open.hold_time(), settings.hold_time) {
        (0, _) | (_, 0) => 0,
        (theirs, ours) => theirs.min(ours),
    };
    let offered = Offered::of(open);
    let both: Families = &offered.families & &settings.families;
    if both.is_empty() {
        return Err(Notification::new(2, 7));
    }
    let add_path = match settings.add_path {
        true => &offered.add_path & &both,
        false => Families::new(),
    };
    Ok(Session {
        router_id: id,
        hold_time: Duration::from_secs(hold_time.into()),
        four_octet_as: offered.four_octet_as,
        families: both,
        add_path,
        graceful_restart: offered
            .graceful_restart
            .filter(|_| settings.graceful_restart.is_some()),
    })
}

/// The capabilities of a router that we know.
struct Offered {
    families: Families,
    add_path: Families,
    four_octet_as: bool,
    graceful_restart: Option<Duration>,
}

impl Offered {
    fn of(open: &BgpOpenMessage) -> Self {
        let mut offered = Offered {
            families: Families::new(),
            add_path: Families::new(),
            four_octet_as: false,
            graceful_restart: None,
        };
        let mut multiprotocol = false;
        for capability in open.capabilities() {
            match capability {
                BgpCapability::MultiProtocolExtensions(one) => {
                    multiprotocol = true;
                    offered.families.extend(family(one.address_type()));
                }
                BgpCapability::FourOctetAs(_) => offered.four_octet_as = true,
                BgpCapability::AddPath(all) => {
                    let received = all.address_families().iter().filter(|f| f.receive());
                    let received = received.filter_map(|f| family(f.address_type()));
                    offered.add_path.extend(received);
                }
                BgpCapability::GracefulRestartCapability(restart) => {
                    offered.graceful_restart = Some(Duration::from_secs(restart.time().into()));
                }
                _ => {}
            }
        }
        if !multiprotocol {
            // Without the capability a session is about IPv4 unicast (RFC 4760 §8).
            offered.families.insert(Family::Ipv4);
        }
        offered
    }
}
