//! Frames of the scenario's own making, put on a link by a packet socket.

use super::netns::Netns;
use anyhow::{Context, Result, ensure};
use nix::ifaddrs::getifaddrs;
use nix::sys::socket::{
    AddressFamily, LinkAddr, MsgFlags, SockFlag, SockType, SockaddrStorage, sendto, socket,
};
use std::os::fd::{AsRawFd, OwnedFd};

/// Sends frames out of one device as they are, from the Ethernet header on.
#[derive(Debug)]
pub struct Injector {
    socket: OwnedFd,
    device: LinkAddr,
}

impl Injector {
    /// Opens `device` of a namespace.
    pub fn open(netns: &Netns, device: &str) -> Result<Self> {
        netns.within(|| {
            let socket = socket(
                AddressFamily::Packet,
                SockType::Raw,
                SockFlag::SOCK_CLOEXEC,
                None,
            )
            .context("cannot open a packet socket")?;
            let device = (getifaddrs()?.filter(|entry| entry.interface_name == device))
                .filter_map(|entry| entry.address)
                .find_map(|address: SockaddrStorage| address.as_link_addr().copied())
                .with_context(|| format!("there is no device {device}"))?;
            Ok(Injector { socket, device })
        })
    }

    /// Its device, as packet sockets name it.
    pub(super) fn device(&self) -> LinkAddr {
        self.device
    }

    /// Sends one frame.
    pub fn send(&self, frame: &[u8]) -> Result<()> {
        let sent = sendto(
            self.socket.as_raw_fd(),
            frame,
            &self.device,
            MsgFlags::empty(),
        )
        .context("cannot send a frame")?;
        ensure!(
            sent == frame.len(),
            "only {sent} of {} bytes were sent",
            frame.len()
        );
        Ok(())
    }
}
