//! What the balancer knows of a connection of which it sees only the client's half.
//!
//! Under direct server return the server's packets never pass here. The states say no more than
//! how long an entry is worth keeping, and whether it may give way to a new flow.

use lockstep_plan::IdleTimeouts;
use lockstep_wire::TcpFlags;

/// The state of a flow's entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum FlowState {
    /// A SYN came, nothing after it: may be a flood's.
    Syn,
    /// The client answered the server, or was found in the middle of a connection.
    Established,
    /// The client sent FIN or RST.
    Fin,
    /// UDP.
    Udp,
}

impl FlowState {
    /// The state's name in `lockstep flows`.
    pub const fn name(self) -> &'static str {
        match self {
            FlowState::Syn => "syn",
            FlowState::Established => "established",
            FlowState::Fin => "fin",
            FlowState::Udp => "udp",
        }
    }

    /// Seconds without a packet after which an entry in this state is forgotten.
    pub const fn idle_limit(self, idle: &IdleTimeouts) -> u32 {
        match self {
            FlowState::Syn => idle.tcp_syn,
            FlowState::Established => idle.tcp_established,
            FlowState::Fin => idle.tcp_fin,
            FlowState::Udp => idle.udp,
        }
    }

    /// Whether a full bucket may forget an entry in this state for a new flow. Never an
    /// established connection or a UDP flow: that is what keeps them through a SYN flood.
    pub const fn gives_way(self) -> bool {
        match self {
            FlowState::Syn | FlowState::Fin => true,
            FlowState::Established | FlowState::Udp => false,
        }
    }
}

/// What a segment from the client does to tracking.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Segment {
    /// SYN alone: a connection is opened.
    Open,
    /// FIN or RST.
    Close,
    /// Anything else.
    Data,
    /// Not TCP.
    Datagram,
}

impl Segment {
    /// The segment that a TCP header's flags make.
    #[inline]
    pub const fn of_tcp(flags: TcpFlags) -> Self {
        // RST beats everything: a SYN with RST opens nothing (RFC 9293, section 3.10.7).
        if flags.contains(TcpFlags::RST) || flags.contains(TcpFlags::FIN) {
            Segment::Close
        } else if flags.contains(TcpFlags::SYN) {
            Segment::Open
        } else {
            Segment::Data
        }
    }
}

/// What becomes of an entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Transition {
    /// The flow goes on in this state.
    To(FlowState),
    /// A new connection under an old one's addresses: chosen afresh, as IPVS does when a port is
    /// used again.
    Restart,
}

/// The state of a new flow's entry by its first segment.
#[inline]
pub const fn first(segment: Segment) -> FlowState {
    match segment {
        Segment::Open => FlowState::Syn,
        // Found in the middle: another balancer or an earlier engine saw it open.
        Segment::Data => FlowState::Established,
        Segment::Close => FlowState::Fin,
        Segment::Datagram => FlowState::Udp,
    }
}

/// The state machine of a known flow.
#[inline]
pub const fn next(state: FlowState, segment: Segment) -> Transition {
    use FlowState::{Established, Fin, Syn, Udp};
    match (state, segment) {
        // A repeated SYN; and one inside a connection, which the server answers with a
        // challenge ACK (RFC 5961, section 4).
        (Syn, Segment::Open) => Transition::To(Syn),
        (Established, Segment::Open) => Transition::To(Established),
        (Syn | Established, Segment::Data) => Transition::To(Established),
        (Syn | Established | Fin, Segment::Close) => Transition::To(Fin),
        // The client still acknowledges the server's data after its own FIN.
        (Fin, Segment::Data) => Transition::To(Fin),
        (Fin, Segment::Open) => Transition::Restart,
        (Udp, Segment::Open | Segment::Data | Segment::Close | Segment::Datagram)
        | (Syn | Established | Fin, Segment::Datagram) => Transition::To(Udp),
    }
}

#[cfg(test)]
mod tests {
    use super::FlowState::{Established, Fin, Syn, Udp};
    use super::Segment::{Close, Data, Datagram, Open};
    use super::*;

    #[test]
    fn the_table_written_again() {
        let rows = [
            (Syn, Open, Transition::To(Syn)),
            (Syn, Data, Transition::To(Established)),
            (Syn, Close, Transition::To(Fin)),
            (Established, Open, Transition::To(Established)),
            (Established, Data, Transition::To(Established)),
            (Established, Close, Transition::To(Fin)),
            (Fin, Open, Transition::Restart),
            (Fin, Data, Transition::To(Fin)),
            (Fin, Close, Transition::To(Fin)),
            (Udp, Datagram, Transition::To(Udp)),
        ];
        for (state, segment, expected) in rows {
            assert_eq!(next(state, segment), expected, "{state:?} {segment:?}");
        }
    }

    #[test]
    fn flags_make_segments() {
        let rows = [
            (TcpFlags::SYN, Open),
            (TcpFlags::SYN | TcpFlags::ACK, Open),
            (TcpFlags::SYN | TcpFlags::RST, Close),
            (TcpFlags::ACK, Data),
            (TcpFlags::FIN | TcpFlags::ACK, Close),
            (TcpFlags::RST, Close),
        ];
        for (flags, expected) in rows {
            assert_eq!(Segment::of_tcp(flags), expected, "{flags:?}");
        }
    }

    #[test]
    fn only_half_open_and_closing_entries_give_way() {
        assert!(Syn.gives_way() && Fin.gives_way());
        assert!(!Established.gives_way() && !Udp.gives_way());
    }
}
