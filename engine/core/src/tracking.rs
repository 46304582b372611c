//! What the balancer knows of a connection.
//!
//! Under direct server return the server's packets never pass here, where packets are rewritten
//! they do: [`next`] is the client's half, [`answered`] the server's. The states say no more than
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
    /// The client sent FIN.
    Fin,
    /// UDP.
    Udp,
    /// The server sent FIN, the client did not yet.
    ServerFin,
    /// Both sent FIN, or one of them RST.
    Closed,
}

impl FlowState {
    /// The state's name in `lockstep flows`.
    pub const fn name(self) -> &'static str {
        match self {
            FlowState::Syn => "syn",
            FlowState::Established => "established",
            FlowState::Fin => "fin",
            FlowState::Udp => "udp",
            FlowState::ServerFin => "server-fin",
            FlowState::Closed => "closed",
        }
    }

    /// The state of a name.
    pub fn from_name(name: &str) -> Option<Self> {
        let all = [
            FlowState::Syn,
            FlowState::Established,
            FlowState::Fin,
            FlowState::Udp,
            FlowState::ServerFin,
            FlowState::Closed,
        ];
        all.into_iter().find(|state| state.name() == name)
    }

    /// Seconds without a packet after which an entry in this state is forgotten.
    pub const fn idle_limit(self, idle: &IdleTimeouts) -> u32 {
        match self {
            FlowState::Syn => idle.tcp_syn,
            FlowState::Established => idle.tcp_established,
            FlowState::Fin | FlowState::ServerFin | FlowState::Closed => idle.tcp_fin,
            FlowState::Udp => idle.udp,
        }
    }

    /// Whether a full bucket may forget an entry in this state for a new flow. Never an
    /// established connection or a UDP flow: that is what keeps them through a SYN flood. Nor one
    /// that only one side has closed, where both sides are seen: rewritten packets cannot go on
    /// without their entry, those in tunnels can.
    pub const fn gives_way(self, both_sides: bool) -> bool {
        match self {
            FlowState::Syn | FlowState::Closed => true,
            FlowState::Fin => !both_sides,
            FlowState::Established | FlowState::Udp | FlowState::ServerFin => false,
        }
    }

    /// Whether one side has said that it ends.
    pub const fn is_ending(self) -> bool {
        match self {
            FlowState::Fin | FlowState::ServerFin | FlowState::Closed => true,
            FlowState::Syn | FlowState::Established | FlowState::Udp => false,
        }
    }

    /// Whether nothing but a SYN came from the client.
    pub const fn is_half_open(self) -> bool {
        matches!(self, FlowState::Syn)
    }

    /// Whether nothing comes any more but what was under way.
    pub const fn is_closed(self) -> bool {
        matches!(self, FlowState::Closed)
    }
}

/// What a segment does to tracking.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Segment {
    /// SYN alone: a connection is opened.
    Open,
    /// FIN.
    Fin,
    /// RST.
    Reset,
    /// Anything else that acknowledges.
    Data,
    /// No SYN, no RST, and nothing acknowledged: every end of a connection drops it (RFC 9293
    /// section 3.10.7.4), so it says nothing of one.
    Stray,
    /// Not TCP.
    Datagram,
}

impl Segment {
    /// The segment that a TCP header's flags make.
    #[inline]
    pub const fn of_tcp(flags: TcpFlags) -> Self {
        // RST beats everything: a SYN with RST opens nothing (RFC 9293, section 3.10.7).
        if flags.contains(TcpFlags::RST) {
            Segment::Reset
        } else if flags.contains(TcpFlags::ACK) {
            if flags.contains(TcpFlags::FIN) {
                Segment::Fin
            } else if flags.contains(TcpFlags::SYN) {
                Segment::Open
            } else {
                Segment::Data
            }
        } else if flags.contains(TcpFlags::SYN) && !flags.contains(TcpFlags::FIN) {
            Segment::Open
        } else {
            Segment::Stray
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
        Segment::Fin => FlowState::Fin,
        Segment::Reset | Segment::Stray => FlowState::Closed,
        Segment::Datagram => FlowState::Udp,
    }
}

/// The state machine of a known flow, for the client's segments.
#[inline]
pub const fn next(state: FlowState, segment: Segment) -> Transition {
    NEXT[state as usize][segment as usize]
}

/// [`client`] by number: looked up, since with its branches it would be a tenth of a packet's cost.
const NEXT: [[Transition; SEGMENTS.len()]; STATES.len()] = {
    let mut table = [[Transition::Restart; SEGMENTS.len()]; STATES.len()];
    let mut state = 0;
    while state < STATES.len() {
        let mut segment = 0;
        while segment < SEGMENTS.len() {
            table[STATES[state] as usize][SEGMENTS[segment] as usize] =
                client(STATES[state], SEGMENTS[segment]);
            segment += 1;
        }
        state += 1;
    }
    table
};

const STATES: [FlowState; 6] = [
    FlowState::Syn,
    FlowState::Established,
    FlowState::Fin,
    FlowState::Udp,
    FlowState::ServerFin,
    FlowState::Closed,
];

const SEGMENTS: [Segment; 6] = [
    Segment::Open,
    Segment::Fin,
    Segment::Reset,
    Segment::Data,
    Segment::Stray,
    Segment::Datagram,
];

const fn client(state: FlowState, segment: Segment) -> Transition {
    use FlowState::{Closed, Established, Fin, ServerFin, Syn, Udp};
    match (state, segment) {
        // A repeated SYN; and one inside a connection, which the server answers with a
        // challenge ACK (RFC 5961, section 4).
        (Syn, Segment::Open) => Transition::To(Syn),
        (Established, Segment::Open) => Transition::To(Established),
        // Else two packets of a flood would make what never gives way. That an acknowledgment is
        // made up shows by the server's RST.
        (Syn | Established | Fin | ServerFin | Closed, Segment::Stray) => Transition::To(state),
        (Syn | Established, Segment::Data) => Transition::To(Established),
        (Syn | Established | Fin, Segment::Fin) => Transition::To(Fin),
        // The client still acknowledges the server's data after its own FIN.
        (Fin, Segment::Data) => Transition::To(Fin),
        (Fin | Closed, Segment::Open) => Transition::Restart,
        (ServerFin, Segment::Open | Segment::Data) => Transition::To(ServerFin),
        (ServerFin, Segment::Fin) | (Closed, Segment::Fin | Segment::Data) => {
            Transition::To(Closed)
        }
        (Syn | Established | Fin | ServerFin | Closed, Segment::Reset) => Transition::To(Closed),
        (Udp, _) | (Syn | Established | Fin | ServerFin | Closed, Segment::Datagram) => {
            Transition::To(Udp)
        }
    }
}

/// The state machine of a known flow, for the server's segments.
pub const fn answered(state: FlowState, segment: Segment) -> FlowState {
    use FlowState::{Closed, Established, Fin, ServerFin, Syn, Udp};
    match (state, segment) {
        // To a flood's SYNs there are answers too: only the client's ACK makes a connection.
        (Syn, Segment::Open | Segment::Data | Segment::Fin) => Syn,
        (Syn | Established | Fin | ServerFin | Closed, Segment::Stray) => state,
        (Established, Segment::Open | Segment::Data) => Established,
        (Fin, Segment::Open | Segment::Data) => Fin,
        (Established | ServerFin, Segment::Fin) | (ServerFin, Segment::Open | Segment::Data) => {
            ServerFin
        }
        (Fin | Closed, Segment::Fin)
        | (Closed, Segment::Open | Segment::Data)
        | (Syn | Established | Fin | ServerFin | Closed, Segment::Reset) => Closed,
        (Udp, _) | (Syn | Established | Fin | ServerFin | Closed, Segment::Datagram) => Udp,
    }
}

#[cfg(test)]
mod tests {
    use super::FlowState::{Closed, Established, Fin, ServerFin, Syn, Udp};
    use super::Segment::{Data, Datagram, Open, Reset, Stray};
    use super::*;

    #[test]
    fn the_table_written_again() {
        let rows = [
            (Syn, Open, Transition::To(Syn)),
            (Syn, Data, Transition::To(Established)),
            (Syn, Segment::Fin, Transition::To(Fin)),
            (Syn, Reset, Transition::To(Closed)),
            (Syn, Stray, Transition::To(Syn)),
            (Established, Stray, Transition::To(Established)),
            (Established, Open, Transition::To(Established)),
            (Established, Data, Transition::To(Established)),
            (Established, Segment::Fin, Transition::To(Fin)),
            (Established, Reset, Transition::To(Closed)),
            (Fin, Open, Transition::Restart),
            (Fin, Data, Transition::To(Fin)),
            (Fin, Segment::Fin, Transition::To(Fin)),
            (Fin, Reset, Transition::To(Closed)),
            (ServerFin, Data, Transition::To(ServerFin)),
            (ServerFin, Open, Transition::To(ServerFin)),
            (ServerFin, Segment::Fin, Transition::To(Closed)),
            (Closed, Data, Transition::To(Closed)),
            (Closed, Open, Transition::Restart),
            (Udp, Datagram, Transition::To(Udp)),
        ];
        for (state, segment, expected) in rows {
            assert_eq!(next(state, segment), expected, "{state:?} {segment:?}");
        }
    }

    #[test]
    fn the_servers_half() {
        let rows = [
            (Syn, Open, Syn),
            (Syn, Reset, Closed),
            (Established, Data, Established),
            (Established, Segment::Fin, ServerFin),
            (Established, Reset, Closed),
            (Fin, Data, Fin),
            (Fin, Segment::Fin, Closed),
            (ServerFin, Segment::Fin, ServerFin),
            (Closed, Data, Closed),
            (Udp, Datagram, Udp),
        ];
        for (state, segment, expected) in rows {
            assert_eq!(answered(state, segment), expected, "{state:?} {segment:?}");
        }
    }

    #[test]
    fn flags_make_segments() {
        let rows = [
            (TcpFlags::SYN, Open),
            (TcpFlags::SYN | TcpFlags::ACK, Open),
            (TcpFlags::SYN | TcpFlags::RST, Reset),
            (TcpFlags::ACK, Data),
            (TcpFlags::FIN | TcpFlags::ACK, Segment::Fin),
            (TcpFlags::RST, Reset),
            (TcpFlags::SYN | TcpFlags::FIN, Stray),
            (TcpFlags::FIN, Stray),
            (TcpFlags::PSH, Stray),
            (TcpFlags::default(), Stray),
        ];
        for (flags, expected) in rows {
            assert_eq!(Segment::of_tcp(flags), expected, "{flags:?}");
        }
    }

    #[test]
    fn only_half_open_and_closing_entries_give_way() {
        for both_sides in [false, true] {
            assert!(Syn.gives_way(both_sides) && Closed.gives_way(both_sides));
            assert_eq!(Fin.gives_way(both_sides), !both_sides);
            for state in [Established, Udp, ServerFin] {
                assert!(!state.gives_way(both_sides), "{state:?}");
            }
        }
    }
}
