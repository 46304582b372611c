//! The control packet (RFC 5880 section 4.1): 24 bytes without authentication.

use super::{Diagnostic, State};
use std::num::{NonZeroU8, NonZeroU32};

/// The version of RFC 5880.
const VERSION: u8 = 1;

const POLL: u8 = 0x20;
const FINAL: u8 = 0x10;
const INDEPENDENT: u8 = 0x08;
const AUTHENTICATED: u8 = 0x04;
const DEMAND: u8 = 0x02;
const MULTIPOINT: u8 = 0x01;

/// What a packet asks for and says beside its state.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Flags {
    /// It wants an answer at once, with [`Flags::last`].
    pub poll: bool,
    /// It is that answer ("final").
    pub last: bool,
    /// The sender's sessions outlive its control plane. Ours do not: they live in the daemon.
    pub independent: bool,
    /// While both are up, the receiver shall send nothing unasked.
    pub demand: bool,
}

/// A control packet that was taken for valid.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Packet {
    /// The sender's state.
    pub state: State,
    /// Why it left its last session.
    pub diagnostic: Diagnostic,
    /// See [`Flags`].
    pub flags: Flags,
    /// This many packets of the sender may be lost in a row before it counts as dead.
    pub multiplier: NonZeroU8,
    /// The sender's number of the session.
    pub mine: NonZeroU32,
    /// The receiver's number of the session; 0 where the sender does not know it yet.
    pub yours: u32,
    /// The sender would like to send this often, in microseconds.
    pub transmit: u32,
    /// The sender can take a packet this often, in microseconds; 0: none at all.
    pub receive: u32,
    /// The sender can take an echo packet this often, in microseconds; 0: none at all.
    pub echo: u32,
}

/// Why bytes are no packet (RFC 5880 section 6.8.6, in its order). They change nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
pub enum PacketError {
    /// Fewer bytes than a header.
    #[error("too short")]
    Short,
    /// Another version of BFD.
    #[error("another version")]
    Version,
    /// Its length field is under its own header, or over what came.
    #[error("wrong length")]
    Length,
    /// A detection multiplier of zero.
    #[error("detection multiplier 0")]
    Multiplier,
    /// Reserved for multipoint sessions.
    #[error("multipoint bit")]
    Multipoint,
    /// A sender without a number for the session.
    #[error("discriminator 0")]
    Discriminator,
    /// No discriminator of ours, though the sender says that it heard us.
    #[error("no discriminator of ours")]
    Unaddressed,
    /// Authentication, which we do not do.
    #[error("authenticated")]
    Authenticated,
    /// Poll and final at once (section 4.1).
    #[error("poll and final at once")]
    PollAndFinal,
}

impl Packet {
    /// Its bytes.
    pub const LEN: usize = 24;

    /// Reads a packet, and says what is wrong with it otherwise. What follows it is ignored.
    pub fn parse(bytes: &[u8]) -> Result<Self, PacketError> {
        let Some(header) = bytes.first_chunk::<{ Packet::LEN }>() else {
            return Err(PacketError::Short);
        };
        let word = |at: usize| {
            u32::from_be_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]])
        };
        let [first, second, multiplier, length, ..] = *header;
        if first >> 5 != VERSION {
            return Err(PacketError::Version);
        }
        let least = match second & AUTHENTICATED {
            0 => Packet::LEN,
            _ => Packet::LEN + 2,
        };
        if usize::from(length) < least || usize::from(length) > bytes.len() {
            return Err(PacketError::Length);
        }
        let multiplier = NonZeroU8::new(multiplier).ok_or(PacketError::Multiplier)?;
        if second & MULTIPOINT != 0 {
            return Err(PacketError::Multipoint);
        }
        let mine = NonZeroU32::new(word(4)).ok_or(PacketError::Discriminator)?;
        let (state, yours) = (state(second), word(8));
        match state {
            State::Init | State::Up if yours == 0 => return Err(PacketError::Unaddressed),
            State::AdminDown | State::Down | State::Init | State::Up => {}
        }
        if second & AUTHENTICATED != 0 {
            return Err(PacketError::Authenticated);
        }
        if second & POLL != 0 && second & FINAL != 0 {
            return Err(PacketError::PollAndFinal);
        }
        Ok(Packet {
            state,
            diagnostic: Diagnostic::from_code(first),
            flags: Flags {
                poll: second & POLL != 0,
                last: second & FINAL != 0,
                independent: second & INDEPENDENT != 0,
                demand: second & DEMAND != 0,
            },
            multiplier,
            mine,
            yours,
            transmit: word(12),
            receive: word(16),
            echo: word(20),
        })
    }

    /// Its bytes on the wire.
    pub fn emit(&self) -> [u8; Packet::LEN] {
        let mut bytes = [0; Packet::LEN];
        let bit = |on: bool, bit: u8| if on { bit } else { 0 };
        bytes[0] = VERSION << 5 | self.diagnostic.code();
        bytes[1] = code(self.state) << 6
            | bit(self.flags.poll, POLL)
            | bit(self.flags.last, FINAL)
            | bit(self.flags.independent, INDEPENDENT)
            | bit(self.flags.demand, DEMAND);
        bytes[2] = self.multiplier.get();
        bytes[3] = Packet::LEN as u8;
        let words = [
            self.mine.get(),
            self.yours,
            self.transmit,
            self.receive,
            self.echo,
        ];
        for (place, word) in bytes[4..].chunks_exact_mut(4).zip(words) {
            place.copy_from_slice(&word.to_be_bytes());
        }
        bytes
    }
}

const fn state(second: u8) -> State {
    match second >> 6 {
        0 => State::AdminDown,
        1 => State::Down,
        2 => State::Init,
        _ => State::Up,
    }
}

const fn code(state: State) -> u8 {
    match state {
        State::AdminDown => 0,
        State::Down => 1,
        State::Init => 2,
        State::Up => 3,
    }
}

#[cfg(test)]
mod tests;
