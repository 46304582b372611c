use super::*;
use proptest::prelude::*;

fn packet() -> Packet {
    Packet {
        state: State::Up,
        diagnostic: Diagnostic::NeighborSignaledDown,
        flags: Flags {
            poll: true,
            ..Flags::default()
        },
        multiplier: NonZeroU8::new(3).unwrap(),
        mine: NonZeroU32::new(0x0102_0304).unwrap(),
        yours: 0x0506_0708,
        transmit: 300_000,
        receive: 250_000,
        echo: 0,
    }
}

#[test]
fn a_packet_is_laid_out_as_in_the_rfc() {
    let bytes = [
        0x23, 0xe0, 3, 24, // version 1, diagnostic 3; up, poll; multiplier; length
        1, 2, 3, 4, 5, 6, 7, 8, // mine, yours
        0x00, 0x04, 0x93, 0xe0, // 300,000
        0x00, 0x03, 0xd0, 0x90, // 250,000
        0, 0, 0, 0,
    ];
    assert_eq!(packet().emit(), bytes);
    assert_eq!(Packet::parse(&bytes), Ok(packet()));
}

#[test]
fn what_the_rfc_calls_invalid_is_refused_by_its_name() {
    type Spoil = fn(&mut Vec<u8>);
    let rows: [(&str, Spoil, PacketError); 14] = [
        ("nothing", Vec::clear, PacketError::Short),
        ("a byte short", |b| b.truncate(23), PacketError::Short),
        ("version 0", |b| b[0] &= 0x1f, PacketError::Version),
        ("version 2", |b| b[0] = 2 << 5, PacketError::Version),
        ("length under 24", |b| b[3] = 23, PacketError::Length),
        ("length over what came", |b| b[3] = 25, PacketError::Length),
        (
            "authenticated without the room for it",
            |b| b[1] |= AUTHENTICATED,
            PacketError::Length,
        ),
        ("multiplier 0", |b| b[2] = 0, PacketError::Multiplier),
        (
            "multipoint",
            |b| b[1] |= MULTIPOINT,
            PacketError::Multipoint,
        ),
        (
            "no number of the sender",
            |b| b[4..8].fill(0),
            PacketError::Discriminator,
        ),
        (
            "up without our number",
            |b| b[8..12].fill(0),
            PacketError::Unaddressed,
        ),
        (
            "init without our number",
            |b| {
                b[1] = 2 << 6;
                b[8..12].fill(0);
            },
            PacketError::Unaddressed,
        ),
        (
            "authenticated",
            |b| {
                b.extend([1, 4, 0, 0]);
                b[1] |= AUTHENTICATED;
                b[3] = 28;
            },
            PacketError::Authenticated,
        ),
        (
            "poll and final",
            |b| b[1] |= FINAL,
            PacketError::PollAndFinal,
        ),
    ];
    for (name, spoil, error) in rows {
        let mut bytes = packet().emit().to_vec();
        spoil(&mut bytes);
        assert_eq!(Packet::parse(&bytes), Err(error), "{name}");
    }
}

#[test]
fn a_neighbor_that_is_down_need_not_know_our_number() {
    for state in [State::AdminDown, State::Down] {
        let packet = Packet {
            state,
            yours: 0,
            ..packet()
        };
        assert_eq!(Packet::parse(&packet.emit()), Ok(packet));
    }
}

#[test]
fn what_follows_a_packet_is_not_looked_at() {
    let mut bytes = packet().emit().to_vec();
    bytes.extend([0xff; 40]);
    assert_eq!(Packet::parse(&bytes), Ok(packet()));
}

proptest! {
    #[test]
    fn any_packet_comes_back(
        (state, code, flags, multiplier) in (0usize..4, 0u8..32, any::<[bool; 4]>(), 1u8..),
        (mine, yours, transmit, receive, echo) in (1u32.., 1u32.., any::<u32>(), any::<u32>(), any::<u32>()),
    ) {
        let [poll, last, independent, demand] = flags;
        let packet = Packet {
            state: State::ALL[state],
            diagnostic: Diagnostic::from_code(code),
            flags: Flags { poll: poll && !last, last, independent, demand },
            multiplier: NonZeroU8::new(multiplier).unwrap(),
            mine: NonZeroU32::new(mine).unwrap(),
            yours, transmit, receive, echo,
        };
        prop_assert_eq!(Packet::parse(&packet.emit()), Ok(packet));
    }

    /// What is taken says the same when it is sent on: no bit is lost or made up, but those that
    /// must be zero. Most inputs begin as a packet, so that they get past the first check.
    #[test]
    fn any_bytes_are_refused_or_understood(
        bytes in proptest::collection::vec(any::<u8>(), 0..64),
        begins in any::<bool>(),
        change in (0usize..24, any::<u8>()),
    ) {
        let mut input = bytes;
        if begins {
            let mut head = packet().emit();
            head[change.0] = change.1;
            input.splice(0..0, head);
        }
        if let Ok(packet) = Packet::parse(&input) {
            let mut again = packet.emit();
            again[3] = input[3];
            prop_assert_eq!(&again[..], &input[..Packet::LEN]);
        }
    }
}
