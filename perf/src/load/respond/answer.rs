//! What is answered to a packet, from that packet alone.

use super::super::flows::Tuple;
use super::super::packet::{Arrived, Content, Link, Segment, write_tcp, write_udp};
use super::SEGMENT;
use lockstep_wire::TcpFlags;

/// The largest segment that is taken, announced with a SYN.
const MSS: u16 = 1_400;
/// The first sequence number: there is nobody who could be confused by it.
const FIRST: u32 = 1_000_000_000;
const ACK: u8 = TcpFlags::ACK.bits();

/// One packet of an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Answer<'a> {
    /// A segment without data.
    Control(Segment),
    /// A piece of the response.
    Data(Segment, &'a [u8]),
    /// An echo.
    Datagram(&'a [u8]),
}

impl Answer<'_> {
    /// Writes it, and returns the frame's length.
    pub fn write(&self, frame: &mut [u8], link: &Link, ends: &Tuple) -> usize {
        match self {
            Answer::Control(segment) => write_tcp(frame, link, ends, segment, MSS, &[]),
            Answer::Data(segment, data) => write_tcp(frame, link, ends, segment, MSS, data),
            Answer::Datagram(payload) => write_udp(frame, link, ends, payload),
        }
    }
}

/// A SYN gets a SYN-ACK, data the response, a FIN a FIN; a datagram itself. A request has to fit one
/// segment, since nobody remembers the first half of one.
pub fn answer<'a>(arrived: &Arrived<'a>, response: &'a [u8]) -> impl Iterator<Item = Answer<'a>> {
    let (control, data, datagram) = match arrived.content {
        Content::Udp(payload) => (None, None, Some(Answer::Datagram(payload))),
        Content::Tcp(segment, payload) => {
            let (control, data) = segments(&segment, payload, response);
            (control, data, None)
        }
    };
    let data = data.into_iter().flat_map(|(first, data)| {
        data.chunks(SEGMENT).zip(0_u32..).map(move |(piece, at)| {
            let mut segment = first;
            segment.sequence = first.sequence.wrapping_add(at * SEGMENT as u32);
            Answer::Data(segment, piece)
        })
    });
    datagram
        .into_iter()
        .chain(data)
        .chain(control.map(Answer::Control))
}

type Segments<'a> = (Option<Segment>, Option<(Segment, &'a [u8])>);

/// What follows the data, and the data.
fn segments<'a>(segment: &Segment, payload: &[u8], response: &'a [u8]) -> Segments<'a> {
    let has = |flag: TcpFlags| segment.flags.contains(flag);
    let fin = has(TcpFlags::FIN);
    if has(TcpFlags::RST) {
        return (None, None);
    }
    let reply = |sequence: u32, received: u32, flags: u8| Segment {
        sequence,
        acknowledgment: segment.sequence.wrapping_add(received),
        flags: TcpFlags::from_bits(flags),
    };
    if has(TcpFlags::SYN) {
        return (Some(reply(FIRST, 1, TcpFlags::SYN.bits() | ACK)), None);
    }
    // No segment is longer than a packet.
    let received = payload.len() as u32 + u32::from(fin);
    let next = segment.acknowledgment;
    let data = (!payload.is_empty()).then(|| {
        let first = reply(next, received, TcpFlags::PSH.bits() | ACK);
        (first, response)
    });
    let behind = next.wrapping_add(data.map_or(0, |(_, data)| data.len() as u32));
    let control = fin.then(|| reply(behind, received, TcpFlags::FIN.bits() | ACK));
    (control, data)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::load::Protocol;
    use crate::load::client::{Client, Event, Manner};

    fn arrived(flags: u8, payload: &[u8]) -> Arrived<'_> {
        let at = "192.0.2.1:80".parse().unwrap();
        let segment = Segment {
            sequence: 100,
            acknowledgment: 500,
            flags: TcpFlags::from_bits(flags),
        };
        Arrived {
            ends: Tuple {
                source: at,
                destination: at,
            },
            content: Content::Tcp(segment, payload),
            segment: b"",
        }
    }

    fn control(sequence: u32, acknowledgment: u32, flags: u8) -> Answer<'static> {
        Answer::Control(Segment {
            sequence,
            acknowledgment,
            flags: TcpFlags::from_bits(flags),
        })
    }

    #[test]
    fn rows() {
        let response = &b"response"[..];
        let data = |sequence, acknowledgment| {
            let flags = TcpFlags::from_bits(0x18);
            Answer::Data(
                Segment {
                    sequence,
                    acknowledgment,
                    flags,
                },
                response,
            )
        };
        for (says, flags, payload, expected) in [
            ("a SYN", 0x02, &b""[..], vec![control(FIRST, 101, 0x12)]),
            ("an acknowledgment", 0x10, b"", vec![]),
            ("a reset", 0x04, b"", vec![]),
            ("a request", 0x18, b"GET", vec![data(500, 103)]),
            ("a FIN", 0x11, b"", vec![control(500, 101, 0x11)]),
            (
                "a request with a FIN",
                0x19,
                b"GET",
                vec![data(500, 104), control(508, 104, 0x11)],
            ),
        ] {
            let answers: Vec<_> = answer(&arrived(flags, payload), response).collect();
            assert_eq!(answers, expected, "{says}");
        }
        let echo = Arrived {
            content: Content::Udp(b"x"),
            ..arrived(0, b"")
        };
        assert!(answer(&echo, response).eq([Answer::Datagram(b"x")]));
    }

    #[test]
    fn a_long_response_comes_in_pieces_in_order() {
        let response = vec![7; 3_000];
        let answers: Vec<_> = answer(&arrived(0x18, b"GET"), &response).collect();
        let pieces: Vec<(u32, usize)> = (answers.iter())
            .map(|answer| match answer {
                Answer::Data(segment, data) => (segment.sequence, data.len()),
                other => panic!("{other:?}"),
            })
            .collect();
        assert_eq!(pieces, [(500, 1_380), (1_880, 1_380), (3_260, 240)]);
    }

    /// The generator and the responder understand each other.
    #[test]
    fn a_client_gets_through_a_transaction() {
        for protocol in [Protocol::Syn, Protocol::Crr] {
            let manner = Manner {
                protocol,
                request: 4,
                patience: 1_000,
            };
            let response = super::super::response(3_000).unwrap();
            let mut client = Client::new();
            let mut sends = vec![client.connect(&manner, 0, Some(0), 7)];
            let mut completed = 0;
            while let Some(send) = sends.pop() {
                let payload: &[u8] = if send.request { b"GET " } else { b"" };
                let at = "192.0.2.1:80".parse().unwrap();
                let packet = Arrived {
                    ends: Tuple {
                        source: at,
                        destination: at,
                    },
                    content: Content::Tcp(send.segment, payload),
                    segment: b"",
                };
                for answer in answer(&packet, &response) {
                    let (segment, data) = match answer {
                        Answer::Control(segment) => (segment, &[][..]),
                        Answer::Data(segment, data) => (segment, data),
                        Answer::Datagram(_) => panic!("no datagram"),
                    };
                    let step = client.arrived(&manner, &segment, data, 1);
                    completed += u32::from(step.event == Some(Event::Completed { good: true }));
                    sends.extend(step.send);
                }
            }
            assert_eq!((completed, client.is_closed()), (1, true), "{protocol:?}");
        }
    }
}
