//! Sockets of checks.

use super::ask::{Question, Trouble};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use tokio::net::{TcpSocket, TcpStream, UdpSocket};

/// The way of a check's packets.
#[derive(Debug)]
pub enum Way {
    /// As any other packet of this host.
    Direct,
}

/// A connection to the backend. It is reset when it is dropped, as HAProxy's checks are: neither
/// side keeps it in TIME_WAIT.
pub async fn connect(question: &Question<'_>) -> Result<TcpStream, Trouble> {
    let failed = |error| Trouble::of_socket("connecting", &error);
    let socket = match question.to {
        SocketAddr::V4(_) => TcpSocket::new_v4(),
        SocketAddr::V6(_) => TcpSocket::new_v6(),
    };
    let socket = socket.map_err(failed)?;
    socket.set_zero_linger().map_err(failed)?;
    let connecting = async { socket.connect(question.to).await.map_err(failed) };
    let stream = question.within("no connection", connecting).await?;
    // A check writes once and waits.
    stream.set_nodelay(true).map_err(failed)?;
    Ok(stream)
}

/// A socket that sends datagrams to the backend and hears of those that nobody takes.
pub async fn datagrams(question: &Question<'_>) -> Result<UdpSocket, Trouble> {
    let failed = |error| Trouble::of_socket("sending", &error);
    let any: IpAddr = match question.to {
        SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    let socket = UdpSocket::bind((any, 0)).await.map_err(failed)?;
    socket.connect(question.to).await.map_err(failed)?;
    Ok(socket)
}
