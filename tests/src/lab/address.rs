//! The lab's addresses, all from the documentation ranges (RFC 5737, RFC 3849) but for the rack.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// The IPv4 virtual address that services are built on.
pub const VIP_V4: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 10);
/// The IPv6 virtual address that services are built on.
pub const VIP_V6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0x113, 0, 0, 0, 0, 0x10);
/// The client.
pub const CLIENT_V4: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 2);
/// The client.
pub const CLIENT_V6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0x100, 0, 0, 0, 0, 2);
/// The router on the client's link.
pub(super) const ROUTER_CLIENT_V4: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 1);
/// The router on the client's link.
pub(super) const ROUTER_CLIENT_V6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0x100, 0, 0, 0, 0, 1);

/// The router in the rack.
pub const fn router_rack_v4() -> Ipv4Addr {
    rack_v4(1)
}

/// The router in the rack.
pub const fn router_rack_v6() -> Ipv6Addr {
    rack_v6(1)
}

/// Balancer `index`, from 0.
pub const fn balancer_v4(index: usize) -> Ipv4Addr {
    rack_v4(2 + index as u8)
}

/// Balancer `index`, from 0.
pub const fn balancer_v6(index: usize) -> Ipv6Addr {
    rack_v6(2 + index as u16)
}

/// The engine's own address on balancer `index`: its kernel has it to answer ARP and ND only.
pub const fn engine_v4(index: usize) -> Ipv4Addr {
    rack_v4(202 + index as u8)
}

/// The engine's own address on balancer `index`: its kernel has it to answer ARP and ND only.
pub const fn engine_v6(index: usize) -> Ipv6Addr {
    rack_v6(0x202 + index as u16)
}

/// The route reflector.
pub(super) const fn reflector_v4() -> Ipv4Addr {
    rack_v4(200)
}

/// The route reflector.
pub(super) const fn reflector_v6() -> Ipv6Addr {
    rack_v6(0x200)
}

/// Server `index`, from 0: server 0 is called `s1` and has 10.0.1.11.
pub const fn server_v4(index: usize) -> Ipv4Addr {
    rack_v4(11 + index as u8)
}

/// Server `index`, from 0: server 0 is called `s1` and has 2001:db8:1::11.
pub const fn server_v6(index: usize) -> Ipv6Addr {
    rack_v6(0x11 + index as u16)
}

const fn rack_v4(host: u8) -> Ipv4Addr {
    Ipv4Addr::new(10, 0, 1, host)
}

const fn rack_v6(host: u16) -> Ipv6Addr {
    Ipv6Addr::new(0x2001, 0xdb8, 1, 0, 0, 0, 0, host)
}

/// The address as it stands in a URL.
pub(super) fn host(address: IpAddr) -> String {
    match address {
        IpAddr::V4(v4) => v4.to_string(),
        IpAddr::V6(v6) => format!("[{v6}]"),
    }
}
