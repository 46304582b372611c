//! The kernel's end: one rtnetlink socket for requests, one for what changes.
//!
//! Two, so that a flood of changes never crowds out an answer. The socket is rtnetlink's own;
//! its `Connection` is not used, since that has unbounded queues behind the kernel's bounded one.

use super::driver::Kernel;
use super::message;
use super::state::{Answer, Event, Link, Query};
use super::{NextHopError, NoRoute};
use netlink_packet_route::RouteNetlinkMessage;
use nix::sys::socket::{setsockopt, sockopt};
use rtnetlink::MulticastGroup;
use rtnetlink::packet_core::{NetlinkBuffer, NetlinkMessage, NetlinkPayload};
use rtnetlink::sys::protocols::NETLINK_ROUTE;
use rtnetlink::sys::{AsyncSocket, AsyncSocketExt, SocketAddr, TokioSocket};
use std::io;
use std::time::Duration;
use tokio::time::timeout;

/// What is subscribed to.
const GROUPS: [(MulticastGroup, &str); 9] = [
    (MulticastGroup::Link, "link"),
    (MulticastGroup::Neigh, "neighbor"),
    (MulticastGroup::Ipv4Ifaddr, "IPv4 address"),
    (MulticastGroup::Ipv4Route, "IPv4 route"),
    (MulticastGroup::Ipv4Rule, "IPv4 rule"),
    (MulticastGroup::Ipv6Ifaddr, "IPv6 address"),
    (MulticastGroup::Ipv6Route, "IPv6 route"),
    (MulticastGroup::Ipv6Rule, "IPv6 rule"),
    (MulticastGroup::Nexthop, "next-hop object"),
];

/// Longer than any netlink message: the kernel fills at most 32 KiB.
const BUFFER: usize = 64 * 1024;
/// Room for about 4,000 changes while the agent is busy elsewhere.
const EVENT_BUFFER: usize = 4 * 1024 * 1024;
/// Datagrams read at once before the loop looks at other things.
const EVENT_BURST: usize = 64;
/// The kernel answers within the system call; only a kernel in trouble takes longer.
const ANSWER_TIME: Duration = Duration::from_secs(5);
/// How often a list of links is asked for again that changed while it was made.
const DUMPS: usize = 5;

/// `RTM_*` of changes whose content does not matter: any route of their IP version, which their
/// first byte says, may be another.
const ANY_OF_FAMILY: [u16; 4] = [
    20, // RTM_NEWADDR
    21, // RTM_DELADDR
    32, // RTM_NEWRULE
    33, // RTM_DELRULE
];
/// Likewise, but of both versions: an IPv4 route may have a next-hop object with an IPv6 gateway.
const ANY_ROUTE: [u16; 2] = [
    104, // RTM_NEWNEXTHOP
    105, // RTM_DELNEXTHOP
];

/// An open pair of sockets.
pub(super) struct Netlink {
    requests: TokioSocket,
    events: TokioSocket,
    sequence: u32,
    buffer: Vec<u8>,
    event_buffer: Vec<u8>,
}

/// A message that answers a request.
struct Reply {
    sequence: u32,
    /// The table changed while it was dumped: entries may be missing (`NLM_F_DUMP_INTR`).
    interrupted: bool,
    payload: Option<NetlinkPayload<RouteNetlinkMessage>>,
}

impl Netlink {
    /// Opens the sockets and subscribes. What happens from here on is heard of.
    pub(super) fn open() -> Result<Self, NextHopError> {
        let requests = TokioSocket::new(NETLINK_ROUTE).map_err(NextHopError::Open)?;
        let mut events = TokioSocket::new(NETLINK_ROUTE).map_err(NextHopError::Open)?;
        // Without CAP_NET_ADMIN the smaller buffer will do: an overrun is made good.
        if setsockopt(events.socket_ref(), sockopt::RcvBufForce, &EVENT_BUFFER).is_err() {
            tracing::debug!("the rtnetlink buffer keeps its default size");
        }
        let address = SocketAddr::new(0, 0);
        events
            .socket_mut()
            .bind(&address)
            .map_err(NextHopError::Open)?;
        for (group, name) in GROUPS {
            let joined = events.socket_mut().add_membership(group as u32);
            joined.map_err(|source| NextHopError::Subscribe {
                group: name,
                source,
            })?;
        }
        Ok(Netlink {
            requests,
            events,
            sequence: 0,
            buffer: Vec::with_capacity(BUFFER),
            event_buffer: Vec::with_capacity(BUFFER),
        })
    }

    /// Sends queries in one datagram. Their sequence numbers begin with the one returned.
    async fn send(&mut self, queries: &[Query]) -> Result<u32, NextHopError> {
        let first = self.sequence.wrapping_add(1);
        let mut datagram = Vec::new();
        for query in queries {
            self.sequence = self.sequence.wrapping_add(1);
            let mut request = message::request(query);
            request.header.sequence_number = self.sequence;
            request.finalize();
            let start = datagram.len();
            datagram.resize(start + request.buffer_len().next_multiple_of(4), 0);
            request.serialize(&mut datagram[start..]);
        }
        let kernel = SocketAddr::new(0, 0);
        let sent = self.requests.send_to(&datagram, &kernel).await;
        sent.map_err(NextHopError::Socket)?;
        Ok(first)
    }

    /// Receives the next answers.
    async fn receive(&mut self) -> Result<Vec<Reply>, NextHopError> {
        self.buffer.clear();
        let received = timeout(ANSWER_TIME, self.requests.recv_from(&mut self.buffer)).await;
        let from = received
            .map_err(|_| NextHopError::Timeout(ANSWER_TIME.as_secs()))?
            .map_err(NextHopError::Socket)?;
        if from.port_number() != 0 {
            return Ok(Vec::new());
        }
        let reply = |(header, bytes): (NetlinkBuffer<&[u8]>, &[u8])| Reply {
            sequence: header.sequence_number(),
            interrupted: i32::from(header.flags()) & libc::NLM_F_DUMP_INTR != 0,
            payload: payload(bytes),
        };
        Ok(split(&self.buffer).map(reply).collect())
    }

    /// All links, asked for again when they changed meanwhile.
    async fn links(&mut self) -> Result<Vec<Link>, NextHopError> {
        let mut links = Vec::new();
        for _ in 0..DUMPS {
            links.clear();
            if self.dump(&mut links).await? {
                break;
            }
        }
        Ok(links)
    }

    /// One dump of the links; false when it may miss some.
    async fn dump(&mut self, links: &mut Vec<Link>) -> Result<bool, NextHopError> {
        let sequence = self.send(&[Query::Links]).await?;
        let mut whole = true;
        loop {
            for reply in self.receive().await? {
                if reply.sequence != sequence {
                    continue;
                }
                whole &= !reply.interrupted;
                match &reply.payload {
                    Some(NetlinkPayload::InnerMessage(RouteNetlinkMessage::NewLink(link))) => {
                        links.extend(message::link(link));
                    }
                    Some(NetlinkPayload::Done(_)) => return Ok(whole),
                    Some(payload) => {
                        if let Some(errno) = message::errno(payload) {
                            let refused = io::Error::from_raw_os_error(errno);
                            return Err(NextHopError::Links(refused));
                        }
                    }
                    // One interface nobody can read must not hide the others.
                    None => {}
                }
            }
        }
    }
}

impl Kernel for Netlink {
    async fn ask(&mut self, queries: &[Query]) -> Result<Vec<Answer>, NextHopError> {
        if queries.contains(&Query::Links) {
            return Ok(vec![Answer::Links(self.links().await?)]);
        }
        let first = self.send(queries).await?;
        let mut answers: Vec<Option<Answer>> = vec![None; queries.len()];
        let mut missing = queries.len();
        while missing > 0 {
            for reply in self.receive().await? {
                let at = reply.sequence.wrapping_sub(first) as usize;
                // Others are answers to a request that was given up.
                let Some((query, slot)) = queries.get(at).zip(answers.get_mut(at)) else {
                    continue;
                };
                if slot.is_none() {
                    *slot = match &reply.payload {
                        Some(payload) => answer(query, payload),
                        None => Some(unreadable(query)),
                    };
                    missing -= usize::from(slot.is_some());
                }
            }
        }
        Ok(answers.into_iter().flatten().collect())
    }

    async fn events(&mut self, events: &mut Vec<Event>) -> Result<(), NextHopError> {
        self.event_buffer.clear();
        let mut from = self.events.recv_from(&mut self.event_buffer).await;
        // Nothing is awaited from here on: no event is lost when the future is dropped.
        for _ in 0..EVENT_BURST {
            let sender = match from {
                Ok(sender) => sender,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) if error.raw_os_error() == Some(libc::ENOBUFS) => {
                    return Err(NextHopError::Overrun);
                }
                Err(error) => return Err(NextHopError::Socket(error)),
            };
            if sender.port_number() == 0 {
                decode(&self.event_buffer, events);
            }
            self.event_buffer.clear();
            let socket = self.events.socket_ref();
            let received = socket.recv_from(&mut self.event_buffer, libc::MSG_DONTWAIT);
            from = received.map(|(_, sender)| sender);
        }
        Ok(())
    }
}

/// The answer to a query in a message; `None` when the message is none.
fn answer(query: &Query, payload: &NetlinkPayload<RouteNetlinkMessage>) -> Option<Answer> {
    let refused = message::errno(payload);
    let inner = match payload {
        NetlinkPayload::InnerMessage(inner) => Some(inner),
        _ => None,
    };
    match (query, inner, refused) {
        (Query::Route(address), Some(RouteNetlinkMessage::NewRoute(route)), _) => {
            Some(Answer::Route(*address, message::route(route)))
        }
        (Query::Route(address), None, Some(errno)) => {
            Some(Answer::Route(*address, Err(message::no_route(errno))))
        }
        (Query::Look(hop), Some(RouteNetlinkMessage::NewNeighbour(neighbour)), _) => {
            let known = message::neighbour(neighbour).map(|(_, neighbour)| neighbour);
            Some(Answer::Look(*hop, known))
        }
        // ENOENT, or a device that is gone: either way there is no such neighbor.
        (Query::Look(hop), None, Some(_)) => Some(Answer::Look(*hop, None)),
        (Query::Use(hop), None, refused) if matches!(payload, NetlinkPayload::Error(_)) => {
            Some(Answer::Use(*hop, refused.map_or(Ok(()), Err)))
        }
        _ => None,
    }
}

/// What an answer that cannot be read stands for: the address is left out, the rest goes on.
fn unreadable(query: &Query) -> Answer {
    match query {
        Query::Links => Answer::Links(Vec::new()),
        Query::Route(address) => Answer::Route(*address, Err(NoRoute::Refused(libc::EBADMSG))),
        Query::Look(hop) => Answer::Look(*hop, None),
        Query::Use(hop) => Answer::Use(*hop, Err(libc::EBADMSG)),
    }
}

/// Adds the events of a datagram.
fn decode(datagram: &[u8], events: &mut Vec<Event>) {
    for (header, bytes) in split(datagram) {
        let kind = header.message_type();
        if ANY_OF_FAMILY.contains(&kind) {
            events.push(message::any_route(header.payload().first().copied()));
            continue;
        }
        if ANY_ROUTE.contains(&kind) {
            events.push(Event::AllRoutes);
            continue;
        }
        match payload(bytes) {
            Some(NetlinkPayload::InnerMessage(inner)) => events.extend(message::event(inner)),
            Some(_) => {}
            // To ask again is right whatever it says.
            None => events.push(Event::AllRoutes),
        }
    }
}

/// What a message says; `None`, with a warning, for a later kernel's that cannot be read.
fn payload(message: &[u8]) -> Option<NetlinkPayload<RouteNetlinkMessage>> {
    match NetlinkMessage::deserialize(message) {
        Ok(message) => Some(message.payload),
        Err(error) => {
            tracing::warn!(%error, "rtnetlink message not understood");
            None
        }
    }
}

/// The messages of a datagram with their headers; ends at the first that does not fit.
fn split(datagram: &[u8]) -> impl Iterator<Item = (NetlinkBuffer<&[u8]>, &[u8])> {
    let mut rest = datagram;
    std::iter::from_fn(move || {
        let header = NetlinkBuffer::new_checked(rest).ok()?;
        let length = header.length() as usize;
        let message = rest.get(..length)?;
        rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some((header, message))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn datagram(messages: &[(u16, Vec<u8>)]) -> Vec<u8> {
        let mut bytes = Vec::new();
        for (kind, payload) in messages {
            let length = (16 + payload.len()) as u32;
            bytes.extend(length.to_ne_bytes());
            bytes.extend(kind.to_ne_bytes());
            bytes.extend([0; 10]);
            bytes.extend(payload);
            bytes.resize(bytes.len().next_multiple_of(4), 0);
        }
        bytes
    }

    proptest! {
        #[test]
        fn a_datagram_splits_into_the_messages_it_is_made_of(
            messages in prop::collection::vec(
                (any::<u16>(), prop::collection::vec(any::<u8>(), 0..40)),
                0..8,
            )
        ) {
            let bytes = datagram(&messages);
            let found: Vec<(u16, Vec<u8>)> = split(&bytes)
                .map(|(header, message)| (header.message_type(), message[16..].to_vec()))
                .collect();
            prop_assert_eq!(found, messages);
        }

        #[test]
        fn no_datagram_is_a_reason_to_panic(
            bytes in prop::collection::vec(any::<u8>(), 0..200),
            kind in 16u16..110,
        ) {
            decode(&bytes, &mut Vec::new());
            decode(&datagram(&[(kind, bytes)]), &mut Vec::new());
        }
    }

    #[test]
    fn a_message_that_cannot_be_read_leaves_the_others_be() {
        let half_a_route = vec![2, 24];
        let rule = (32, Vec::new());
        let mut events = Vec::new();
        decode(&datagram(&[(24, half_a_route), rule]), &mut events);
        assert_eq!(events, [Event::AllRoutes, Event::AllRoutes]);
    }
}
