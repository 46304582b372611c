//! A worker's way to the network: its sockets and its packet memory.

use lockstep_core::PortId;
use lockstep_core::replicate::stack::Transmit;
use lockstep_plan::DropReason;
use lockstep_wire::{LinkHeader, ethernet};
use lockstep_xsk::{Burst, Frame, FramePool, Port, XskError};

/// See the module.
pub struct Links {
    /// Packet memory that is in no ring.
    pub pool: FramePool,
    /// The sockets.
    pub ports: Vec<Port>,
    /// For each socket, its interface.
    pub interfaces: Vec<PortId>,
    /// For each interface, the socket to send by.
    pub ways_out: Vec<Option<usize>>,
    /// Packets that sessions sent, since this was last looked at.
    pub transmitted: u64,
}

impl Links {
    /// One burst from one socket, with the interface it came in by.
    pub fn receive(&mut self, at: usize, burst: &mut Burst) -> PortId {
        self.ports[at].receive(burst);
        self.interfaces[at]
    }

    /// Sends a frame from an interface. One that cannot be sent goes back to the pool.
    pub fn send(&mut self, interface: PortId, frame: Frame) -> Result<(), DropReason> {
        let Some(way) = out(&self.ways_out, interface) else {
            self.pool.put(frame);
            return Err(DropReason::NoPort);
        };
        self.ports[way].send(frame).map_err(|frame| {
            self.pool.put(frame);
            DropReason::TxFull
        })
    }

    /// Sends the first `length` bytes of a frame from an interface.
    pub fn forward(
        &mut self,
        interface: PortId,
        length: u16,
        mut frame: Frame,
    ) -> Result<(), DropReason> {
        if frame.set_len(usize::from(length)).is_err() {
            self.pool.put(frame);
            return Err(DropReason::NoPort);
        }
        self.send(interface, frame)
    }

    /// Gives the kernel what was sent, and free frames to receive into.
    pub fn flush(&mut self) -> Result<(), XskError> {
        for port in &mut self.ports {
            port.flush()?;
            port.reap(&mut self.pool);
            port.refill(&mut self.pool);
        }
        Ok(())
    }

    /// Whether every interface is still there.
    pub fn check(&self) -> Result<(), XskError> {
        self.ports.iter().try_for_each(Port::check)
    }

    /// System calls made to send.
    pub fn tx_wakeups(&self) -> u64 {
        self.ports.iter().map(|p| p.counters().tx_wakeups).sum()
    }
}

/// What sessions send by.
impl Transmit for Links {
    fn transmit(
        &mut self,
        interface: PortId,
        link: &LinkHeader,
        length: usize,
        write: impl FnOnce(&mut [u8]),
    ) -> bool {
        let Some(mut frame) = self.pool.take() else {
            return false;
        };
        let sent = match fill(&mut frame, link, length, write) {
            Some(()) => self.send(interface, frame).is_ok(),
            None => {
                self.pool.put(frame);
                false
            }
        };
        self.transmitted += u64::from(sent);
        sent
    }
}

/// Writes a packet with its link header; `None` when it does not fit the frame.
fn fill(
    frame: &mut Frame,
    link: &LinkHeader,
    length: usize,
    write: impl FnOnce(&mut [u8]),
) -> Option<()> {
    frame.set_len(link.len() + length).ok()?;
    let (header, packet) = frame.bytes_mut().split_at_mut(link.len());
    write(packet);
    let ethertype = match packet.first()? >> 4 {
        4 => ethernet::IPV4,
        _ => ethernet::IPV6,
    };
    link.write(header, ethertype)
}

fn out(ways_out: &[Option<usize>], PortId(port): PortId) -> Option<usize> {
    ways_out.get(usize::from(port)).copied().flatten()
}
