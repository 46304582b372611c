//! Sockets of checks.

use super::ask::{Question, Trouble};
use super::tunnel::{End, Pass, TCP, Tunnel, UDP};
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use tokio::net::{TcpSocket, TcpStream, UdpSocket};

/// The way of a check's packets.
#[derive(Debug)]
pub enum Way {
    /// As any other packet of this host.
    Direct,
    /// Through the tunnel to a backend.
    Tunnel(Arc<Tunnel>, End),
}

/// A connection to the backend. It is reset when it is dropped, as HAProxy's checks are: neither
/// side keeps it in TIME_WAIT. The pass has to be kept as long.
pub async fn connect(question: &Question<'_>) -> Result<(TcpStream, Option<Pass>), Trouble> {
    let failed = |error| Trouble::of_socket("connecting", &error);
    let socket = match question.to {
        SocketAddr::V4(_) => TcpSocket::new_v4(),
        SocketAddr::V6(_) => TcpSocket::new_v6(),
    };
    let socket = socket.map_err(failed)?;
    socket.set_zero_linger().map_err(failed)?;
    let pass = match &question.way {
        Way::Direct => None,
        Way::Tunnel(tunnel, end) => {
            tunnel.mark(&socket).map_err(|e| here(&e))?;
            let source = source(tunnel, end, question)?;
            socket.bind(source).map_err(|e| here(&e))?;
            let source = socket.local_addr().map_err(|e| here(&e))?;
            Some(tunnel.admit(TCP, source, *end))
        }
    };
    let connecting = async { socket.connect(question.to).await.map_err(failed) };
    let stream = question.within("no connection", connecting).await?;
    // A check writes once and waits.
    stream.set_nodelay(true).map_err(failed)?;
    Ok((stream, pass))
}

/// A socket that sends datagrams to the backend and hears of those that nobody takes.
pub async fn datagrams(question: &Question<'_>) -> Result<(UdpSocket, Option<Pass>), Trouble> {
    let failed = |error| Trouble::of_socket("sending", &error);
    let any: IpAddr = match question.to {
        SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    let (socket, pass) = match &question.way {
        Way::Direct => (UdpSocket::bind((any, 0)).await.map_err(failed)?, None),
        Way::Tunnel(tunnel, end) => {
            let source = source(tunnel, end, question)?;
            let socket = UdpSocket::bind(source).await.map_err(|e| here(&e))?;
            tunnel.mark(&socket).map_err(|e| here(&e))?;
            let source = socket.local_addr().map_err(|e| here(&e))?;
            let pass = tunnel.admit(UDP, source, *end);
            (socket, Some(pass))
        }
    };
    socket.connect(question.to).await.map_err(failed)?;
    Ok((socket, pass))
}

fn source(tunnel: &Tunnel, end: &End, question: &Question<'_>) -> Result<SocketAddr, Trouble> {
    let source = tunnel.source(end, question.to.ip()).map_err(|e| here(&e))?;
    Ok(SocketAddr::new(source, 0))
}

fn here(error: &io::Error) -> Trouble {
    Trouble::Here(format!(
        "cannot ask through the tunnel ({error}): give lockstepd CAP_NET_ADMIN, and this host an \
         address from which the backend can be reached"
    ))
}
