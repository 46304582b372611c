//! UDP with the kernel's own sockets at both ends: what is sent, what comes back, and the ICMP errors
//! that the kernel heard about what a socket sent.

use super::netns::Netns;
use super::wait::wait_until;
use anyhow::{Context, Result, bail, ensure};
use nix::libc::sock_extended_err;
use nix::sys::socket::sockopt::{Ipv4RecvErr, Ipv4Ttl, Ipv6RecvErr, Ipv6Ttl};
use nix::sys::socket::{ControlMessageOwned, MsgFlags, SockaddrStorage, recvmsg, setsockopt};
use std::io::IoSliceMut;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::os::fd::AsRawFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

const SOON: Duration = Duration::from_secs(5);
/// How long an answer is waited for before the datagram is sent again.
const ANSWER: Duration = Duration::from_millis(200);
/// `SO_EE_ORIGIN_ICMP` and `SO_EE_ORIGIN_ICMP6` of Linux's errqueue.h: the error came from the network.
const BY_ICMP: [u8; 2] = [2, 3];

/// An ICMP error as its receiver's kernel understood it: it quotes a packet of the socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Heard {
    /// Who said it.
    pub from: IpAddr,
    /// The message's type.
    pub kind: u8,
    /// Its code.
    pub code: u8,
    /// Of "too big": what fits.
    pub mtu: u32,
}

/// A UDP socket of a namespace.
#[derive(Debug)]
pub struct Datagrams {
    socket: UdpSocket,
}

impl Datagrams {
    /// One that is bound to `at`, whose port may be 0.
    pub fn bind(netns: &Netns, at: SocketAddr) -> Result<Self> {
        let bind = || UdpSocket::bind(at).with_context(|| format!("cannot bind {at}"));
        let socket = netns.within(bind)?;
        socket.set_read_timeout(Some(ANSWER))?;
        match at {
            SocketAddr::V4(_) => setsockopt(&socket, Ipv4RecvErr, &true)?,
            SocketAddr::V6(_) => setsockopt(&socket, Ipv6RecvErr, &true)?,
        }
        Ok(Datagrams { socket })
    }

    /// Where it is bound.
    pub fn at(&self) -> Result<SocketAddr> {
        Ok(self.socket.local_addr()?)
    }

    /// Sends what follows with this TTL or hop limit.
    pub fn set_ttl(&self, ttl: u8) -> Result<()> {
        match self.at()? {
            SocketAddr::V4(_) => setsockopt(&self.socket, Ipv4Ttl, &i32::from(ttl))?,
            SocketAddr::V6(_) => setsockopt(&self.socket, Ipv6Ttl, &i32::from(ttl))?,
        }
        Ok(())
    }

    /// Sends a datagram. One that the kernel refuses because of what it heard before is sent again.
    pub fn send(&self, datagram: &[u8], to: SocketAddr) -> Result<()> {
        // The error is the socket's only once.
        let again = |_| self.socket.send_to(datagram, to);
        let sent = self.socket.send_to(datagram, to).or_else(again);
        sent.map(drop)
            .with_context(|| format!("cannot send to {to}"))
    }

    /// The next datagram and who sent it, or none for a while.
    pub fn receive(&self) -> Option<(Vec<u8>, SocketAddr)> {
        let mut buffer = vec![0; 65_536];
        let (length, from) = self.socket.recv_from(&mut buffer).ok()?;
        buffer.truncate(length);
        Some((buffer, from))
    }

    /// Sends a datagram until one comes back: UDP may lose some, and the first too long one is what
    /// its sender learns the MTU by.
    pub fn ask(&self, datagram: &[u8], to: SocketAddr) -> Result<Vec<u8>> {
        for _ in 0..20 {
            // The kernel itself refuses what it has learned to be too long and must not cut.
            if self.send(datagram, to).is_ok()
                && let Some((answer, from)) = self.receive()
            {
                ensure!(from == to, "{from} answers what {to} was asked");
                return Ok(answer);
            }
        }
        bail!(
            "{to} does not answer a datagram of {} bytes",
            datagram.len()
        )
    }

    /// The next error about what this socket sent.
    pub fn hears(&self) -> Result<Heard> {
        wait_until("an ICMP error is heard", SOON, || self.heard())
    }

    /// The errors from the network that nobody asked for yet, the oldest one.
    pub fn heard(&self) -> Result<Option<Heard>> {
        let (mut quoted, mut control) = ([0; 2_048], [0; 512]);
        let mut into = [IoSliceMut::new(&mut quoted)];
        let flags = MsgFlags::MSG_ERRQUEUE | MsgFlags::MSG_DONTWAIT;
        let fd = self.socket.as_raw_fd();
        loop {
            let message = match recvmsg::<SockaddrStorage>(fd, &mut into, Some(&mut control), flags)
            {
                Ok(message) => message,
                Err(nix::errno::Errno::EAGAIN) => return Ok(None),
                Err(error) => return Err(error).context("cannot read a socket's errors"),
            };
            if let Some(heard) = message.cmsgs()?.find_map(heard) {
                return Ok(Some(heard));
            }
        }
    }
}

/// What a control message says, where it is an error from the network: the kernel puts its own there too.
fn heard(message: ControlMessageOwned) -> Option<Heard> {
    let (error, from): (sock_extended_err, IpAddr) = match message {
        ControlMessageOwned::Ipv4RecvErr(error, from) => {
            let bytes = from?.sin_addr.s_addr.to_ne_bytes();
            (error, Ipv4Addr::from(bytes).into())
        }
        ControlMessageOwned::Ipv6RecvErr(error, from) => {
            (error, Ipv6Addr::from(from?.sin6_addr.s6_addr).into())
        }
        _ => return None,
    };
    BY_ICMP.contains(&error.ee_origin).then_some(Heard {
        from,
        kind: error.ee_type,
        code: error.ee_code,
        mtu: error.ee_info,
    })
}

/// Runs `task` while every one of these sockets sends back what comes to it, and returns how much
/// came to each.
pub fn while_echoing(
    servers: &[Datagrams],
    task: impl FnOnce() -> Result<()>,
) -> Result<Vec<usize>> {
    let done = AtomicBool::new(false);
    let echo = |server: &Datagrams| {
        let mut count = 0;
        while !done.load(Ordering::Relaxed) {
            if let Some((datagram, from)) = server.receive() {
                count += 1;
                // What is too long for the way back is learned of by sending it.
                let _ = server.send(&datagram, from);
            }
        }
        count
    };
    thread::scope(|scope| {
        let echo = &echo;
        let running: Vec<_> = servers
            .iter()
            .map(|server| scope.spawn(move || echo(server)))
            .collect();
        let result = task();
        done.store(true, Ordering::Relaxed);
        let counts = running.into_iter().map(|thread| thread.join());
        let counts: Vec<usize> = counts.flatten().collect();
        result.map(|()| counts)
    })
}
