//! Sockets of BGP: with passwords (RFC 2385), lifetimes of packets, and from the address wanted.

use crate::daemon::disk;
use lockstep_ctl_core::config::bgp::{Distance, MAX_PASSWORD, Password, Peer};
use nix::sys::socket::SetSockOpt;
use nix::{setsockopt_impl, sockopt_impl};
use socket2::{Domain, Protocol, SockRef, Socket, Type};
use std::io;
use std::net::{IpAddr, SocketAddr};
use tokio::net::{TcpListener, TcpSocket, TcpStream};

/// The kernel's `struct tcp_md5sig`: an address in `sockaddr_storage`, flags, prefix length, key
/// length, interface, key.
type Md5Signature = [u8; MD5_KEY + MAX_PASSWORD];
const MD5_KEY_LENGTH: usize = 130;
const MD5_KEY: usize = 136;

sockopt_impl!(
    /// The password of connections with an address; an empty one takes it back.
    TcpMd5, SetOnly, libc::IPPROTO_TCP, libc::TCP_MD5SIG, Md5Signature
);
sockopt_impl!(
    /// The least lifetime that packets may have left.
    Ipv4MinimumLifetime, SetOnly, libc::IPPROTO_IP, libc::IP_MINTTL, libc::c_int
);
sockopt_impl!(
    /// The same of IPv6.
    Ipv6MinimumLifetime, SetOnly, libc::IPPROTO_IPV6, libc::IPV6_MINHOPCOUNT, libc::c_int
);

/// Connections that wait to be accepted.
const BACKLOG: i32 = 64;
/// Class of internetwork control (RFC 4271 §5, RFC 2474): not to be dropped first.
const CONTROL: u32 = 0xc0;
const LONGEST_LIFE: u8 = 255;

/// The password of a peer; `None` where it has none.
pub fn password(peer: &Peer) -> io::Result<Option<String>> {
    let path = match &peer.password {
        None => return Ok(None),
        Some(Password::Text(secret)) => return Ok(Some(secret.0.clone())),
        Some(Password::File(path)) => path,
    };
    let wrong = |why: String| io::Error::other(format!("password_file {}: {why}", path.display()));
    let text = disk::read_named(path).map_err(|error| wrong(error.to_string()))?;
    let text = String::from_utf8(text).map_err(|error| wrong(error.to_string()))?;
    let line = text.lines().next().unwrap_or_default();
    match (1..=MAX_PASSWORD).contains(&line.len()) {
        true => Ok(Some(line.to_owned())),
        false => Err(wrong(format!(
            "the first line has {} bytes; a password has 1 to {MAX_PASSWORD}",
            line.len()
        ))),
    }
}

fn signature(address: IpAddr, password: &str) -> Md5Signature {
    let mut bytes = [0; MD5_KEY + MAX_PASSWORD];
    match address {
        IpAddr::V4(v4) => {
            bytes[..2].copy_from_slice(&(libc::AF_INET as u16).to_ne_bytes());
            bytes[4..8].copy_from_slice(&v4.octets());
        }
        IpAddr::V6(v6) => {
            bytes[..2].copy_from_slice(&(libc::AF_INET6 as u16).to_ne_bytes());
            bytes[8..24].copy_from_slice(&v6.octets());
        }
    }
    let key = &password.as_bytes()[..password.len().min(MAX_PASSWORD)];
    let length = key.len() as u16;
    bytes[MD5_KEY_LENGTH..MD5_KEY_LENGTH + 2].copy_from_slice(&length.to_ne_bytes());
    bytes[MD5_KEY..MD5_KEY + key.len()].copy_from_slice(key);
    bytes
}

/// Sets the password of connections with an address; an empty one takes it back.
pub fn set_password(
    socket: &impl std::os::fd::AsFd,
    address: IpAddr,
    password: &str,
) -> io::Result<()> {
    TcpMd5
        .set(socket, &signature(address, password))
        .map_err(io::Error::from)
}

/// What a connection with a peer has, whoever has opened it.
pub fn prepare(socket: &impl std::os::fd::AsFd, address: IpAddr, peer: &Peer) -> io::Result<()> {
    let options = SockRef::from(socket);
    options.set_tcp_nodelay(true)?;
    let (lifetime, least) = match peer.distance {
        Distance::Any => (None, None),
        Distance::Hops(hops) => (Some(hops.get()), None),
        Distance::Secured(hops) => {
            let least = LONGEST_LIFE - (hops.get() - 1);
            (Some(LONGEST_LIFE), Some(libc::c_int::from(least)))
        }
    };
    match address {
        IpAddr::V4(_) => {
            options.set_tos_v4(CONTROL)?;
            if let Some(lifetime) = lifetime {
                options.set_ttl_v4(lifetime.into())?;
            }
            if let Some(least) = least {
                Ipv4MinimumLifetime.set(socket, &least)?;
            }
        }
        IpAddr::V6(_) => {
            options.set_tclass_v6(CONTROL)?;
            if let Some(lifetime) = lifetime {
                options.set_unicast_hops_v6(lifetime.into())?;
            }
            if let Some(least) = least {
                Ipv6MinimumLifetime.set(socket, &least)?;
            }
        }
    }
    Ok(())
}

/// Opens a connection to a peer.
pub async fn connect(address: IpAddr, peer: &Peer) -> io::Result<TcpStream> {
    let socket = match address {
        IpAddr::V4(_) => TcpSocket::new_v4()?,
        IpAddr::V6(_) => TcpSocket::new_v6()?,
    };
    prepare(&socket, address, peer)?;
    let asked = peer.clone();
    let read = tokio::task::spawn_blocking(move || password(&asked));
    if let Some(password) = read.await.map_err(io::Error::other)?? {
        set_password(&socket, address, &password)?;
    }
    if let Some(source) = peer.source {
        socket.bind(SocketAddr::new(source, 0))?;
    }
    socket.connect(SocketAddr::new(address, peer.port)).await
}

/// Listens for connections of peers. An IPv6 address is not for IPv4.
pub fn listen(on: SocketAddr) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(on), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    // The first answer has to arrive as well, at peers that look at lifetimes.
    match on {
        SocketAddr::V4(_) => socket.set_ttl_v4(LONGEST_LIFE.into())?,
        SocketAddr::V6(_) => {
            socket.set_only_v6(true)?;
            socket.set_unicast_hops_v6(LONGEST_LIFE.into())?;
        }
    }
    socket.bind(&on.into())?;
    socket.listen(BACKLOG)?;
    TcpListener::from_std(socket.into())
}
