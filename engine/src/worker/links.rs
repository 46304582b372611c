//! A worker's way to the network: its sockets, its packet memory, and the other workers.

use crate::handover::{Given, Handover};
use lockstep_core::PortId;
use lockstep_core::replicate::stack::Transmit;
use lockstep_plan::DropReason;
use lockstep_wire::{LinkHeader, ethernet};
use lockstep_xsk::{Burst, Frame, FramePool, Port, XskError, wait};
use std::time::{Duration, Instant};

/// By what a worker sends from an interface.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// Its socket of that place.
    Socket(usize),
    /// The worker that has lent it its frames, having none and no socket itself.
    Lender(u8),
}

/// See the module.
pub struct Links {
    /// Packet memory that is in no ring: its own, or what it was lent.
    pub pool: FramePool,
    /// To and from the other workers.
    pub handover: Handover,
    /// The sockets.
    pub ports: Vec<Port>,
    /// For each socket, its interface.
    pub interfaces: Vec<PortId>,
    /// For each interface, the way to send by.
    pub ways_out: Vec<Option<Way>>,
    /// Packets that sessions sent by these sockets in this turn.
    transmitted: u64,
    /// How many packets sessions may send in one turn: all may be acknowledged at once, and what the
    /// ring has no room for is lost.
    allowance: u32,
    /// How many they have sent in this turn, by whichever way.
    spent: u32,
}

impl Links {
    /// Those of a worker that has no socket yet.
    pub fn new(
        pool: FramePool,
        handover: Handover,
        ways_out: Vec<Option<Way>>,
        allowance: u32,
    ) -> Self {
        Links {
            pool,
            handover,
            ports: Vec::new(),
            interfaces: Vec::new(),
            ways_out,
            transmitted: 0,
            allowance,
            spent: 0,
        }
    }

    /// One burst from one socket, with the interface it came in by.
    pub fn receive(&mut self, at: usize, burst: &mut Burst) -> PortId {
        self.ports[at].receive(burst);
        self.interfaces[at]
    }

    /// Sends a frame from an interface. One that cannot be sent goes back to the pool.
    pub fn send(&mut self, interface: PortId, frame: Frame) -> Result<(), DropReason> {
        match out(&self.ways_out, interface) {
            Some(Way::Socket(way)) => self.ports[way].send(frame).map_err(|frame| {
                self.pool.put(frame);
                DropReason::TxFull
            }),
            Some(Way::Lender(lender)) => {
                self.handover.send(lender, frame, interface);
                Ok(())
            }
            None => {
                self.pool.put(frame);
                Err(DropReason::NoPort)
            }
        }
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

    /// Gives a frame to another worker. One that cannot be given goes back to the pool.
    pub fn give(&mut self, to: u8, frame: Frame, what: Given) -> Result<(), DropReason> {
        self.handover.give(to, frame, what).map_err(|frame| {
            self.pool.put(frame);
            DropReason::HandoverFull
        })
    }

    /// The same, of a packet as it came in by an interface; timed where it is said when.
    pub fn hand_over(
        &mut self,
        to: u8,
        frame: Frame,
        port: PortId,
        received: Option<Instant>,
    ) -> Result<(), DropReason> {
        let Some(received) = received else {
            return self.give(to, frame, Given::Packet { port, timed: false });
        };
        let given = self.handover.give_timed(to, frame, port, received);
        given.map_err(|frame| {
            self.pool.put(frame);
            DropReason::HandoverFull
        })
    }

    /// Ends a turn of the sessions. The packets that they have sent in it.
    pub fn end_turn(&mut self) -> u64 {
        self.spent = 0;
        std::mem::take(&mut self.transmitted)
    }

    /// Gives the kernel what was sent, and free frames to receive into; and the other workers what is
    /// theirs.
    pub fn flush(&mut self) -> Result<(), XskError> {
        self.handover.publish();
        for port in &mut self.ports {
            port.flush()?;
            port.reap(&mut self.pool);
            port.refill(&mut self.pool);
        }
        // What sockets receive into comes first: loans come back only when sessions send.
        if self.handover.lend(&mut self.pool) {
            self.handover.publish();
        }
        Ok(())
    }

    /// Sleeps until a packet comes, from the network or another worker, at most for `nap`; not at all
    /// when `is_due` says, after the others know that this one sleeps, that there is something to do.
    /// What was sent since the last flush goes out first: it would wait for the end of the sleep.
    pub fn await_packets(
        &mut self,
        nap: Duration,
        is_due: impl FnOnce() -> bool,
    ) -> Result<(), XskError> {
        self.flush()?;
        let waker = self.handover.waker();
        waker.doze();
        if !is_due() && !self.handover.has_mail() {
            wait(&self.ports, Some(waker), nap)?;
        }
        waker.rise();
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

    /// System calls made to take packets in.
    pub fn rx_polls(&self) -> u64 {
        self.ports.iter().map(|p| p.counters().rx_polls).sum()
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
        // What a lender sends, it counts itself.
        self.transmitted += u64::from(sent && !self.ports.is_empty());
        self.spent += u32::from(sent);
        sent
    }

    fn has_room(&mut self, interface: PortId) -> bool {
        // Without a socket there is nothing to wait for: `transmit` says what becomes of it.
        self.spent < self.allowance
            && !self.pool.is_empty()
            && match out(&self.ways_out, interface) {
                Some(Way::Socket(way)) => self.ports[way].has_room(),
                Some(Way::Lender(_)) | None => true,
            }
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

fn out(ways_out: &[Option<Way>], PortId(port): PortId) -> Option<Way> {
    ways_out.get(usize::from(port)).copied().flatten()
}
