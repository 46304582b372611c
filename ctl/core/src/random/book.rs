//! What was handed out and cannot be derived: answers that are given again until a time, and how
//! many calls of a session each replica has made.
//!
//! The caller writes each [`Record`] to disk before it hands out what stands in it, and reads all
//! of them at its start. Records are dropped when their time is over, never before: a full book
//! takes no new ones, so that nothing that was handed out is forgotten for the sake of what comes.

use super::kept::{Kept, Numbers};
use super::request::{Key, Name};
use crate::drains::Timestamp;
use serde::{Deserialize, Serialize};
use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv6Addr};

/// The most records.
pub const MAX_RECORDS: usize = 200_000;
/// The most sessions of one client in them: the others find a place.
pub const MAX_OF_CLIENT: usize = MAX_RECORDS / 16;
/// The most bytes of numbers in them.
pub const MAX_BYTES: usize = 64 << 20;

/// See the module.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Book {
    records: BTreeMap<Id, (Timestamp, Content)>,
    /// By the end of their time.
    ends: BTreeSet<(Timestamp, Id)>,
    bytes: usize,
    /// Sessions by whose they are.
    sessions: BTreeMap<IpAddr, usize>,
}

/// Whom an address stands for: IPv6 hosts have as many as they like of their /64.
pub fn client_of(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(v6) => Ipv6Addr::from_bits(v6.to_bits() & (u128::MAX << 64)).into(),
        v4 => v4,
    }
}

/// There is no place for one more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Full {
    /// For anybody.
    #[error("as many random numbers are kept as can be; they are forgotten as their time ends")]
    All,
    /// For this client.
    #[error(
        "as many sessions of this client are kept as can be ({MAX_OF_CLIENT}); they are forgotten as their time ends"
    )]
    Client,
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Id {
    Answer(Key),
    Calls(Name, IpAddr),
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Content {
    Answer(Numbers),
    Calls(u64),
}

/// Something to be kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    id: Id,
    until: Timestamp,
    content: Content,
}

impl Record {
    /// An answer.
    pub fn answer(key: Key, kept: Kept) -> Self {
        Record {
            id: Id::Answer(key),
            until: kept.until,
            content: Content::Answer(kept.numbers),
        }
    }

    /// As a line of a file, with its end.
    pub fn to_line(&self) -> String {
        let until = self.until;
        let line = match (&self.id, &self.content) {
            (Id::Answer(key), Content::Answer(numbers)) => Line::Answer {
                key: key.as_str().to_owned(),
                until,
                numbers: numbers.clone(),
            },
            (Id::Calls(session, client), Content::Calls(calls)) => Line::Calls {
                session: session.as_str().to_owned(),
                client: *client,
                until,
                calls: *calls,
            },
            (Id::Answer(_), Content::Calls(_)) | (Id::Calls(..), Content::Answer(_)) => {
                unreachable!("records are made with the content of their kind")
            }
        };
        let mut text = serde_json::to_string(&line).expect("text and numbers always serialize");
        text.push('\n');
        text
    }

    /// What [`Record::to_line`] gave, without its end.
    pub fn from_line(line: &str) -> Option<Self> {
        Some(match serde_json::from_str(line).ok()? {
            Line::Answer {
                key,
                until,
                numbers,
            } => Record::answer(Key::from_text(&key), Kept { until, numbers }),
            Line::Calls {
                session,
                client,
                until,
                calls,
            } => Record {
                id: Id::Calls(Name::new(&session)?, client),
                until,
                content: Content::Calls(calls),
            },
        })
    }

    fn size(&self) -> usize {
        size(&self.content)
    }
}

fn size(content: &Content) -> usize {
    match content {
        Content::Answer(numbers) => numbers.size(),
        Content::Calls(_) => 8,
    }
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "lowercase", deny_unknown_fields)]
enum Line {
    Answer {
        key: String,
        until: Timestamp,
        numbers: Numbers,
    },
    Calls {
        session: String,
        client: IpAddr,
        until: Timestamp,
        calls: u64,
    },
}

impl Book {
    /// The answer to a key, while its time lasts.
    pub fn answer(&self, key: &Key, now: Timestamp) -> Option<Kept> {
        match self.records.get(&Id::Answer(key.clone()))? {
            (until, Content::Answer(numbers)) if *until > now => Some(Kept {
                until: *until,
                numbers: numbers.clone(),
            }),
            _ => None,
        }
    }

    /// The next call of a replica in a session, to be kept until a time.
    pub fn next_call(
        &self,
        session: &Name,
        client: IpAddr,
        now: Timestamp,
        until: Timestamp,
    ) -> (u64, Record) {
        let id = Id::Calls(session.clone(), client);
        let calls = match self.records.get(&id) {
            Some((until, Content::Calls(calls))) if *until > now => calls + 1,
            _ => 1,
        };
        let record = Record {
            id,
            until,
            content: Content::Calls(calls),
        };
        (calls, record)
    }

    /// Drops what is over, and says whether there is a place for a record then.
    ///
    /// # Errors
    /// When there is none.
    pub fn make_room(&mut self, record: &Record, now: Timestamp) -> Result<(), Full> {
        self.drop_what_is_over(now);
        let old = self.records.get(&record.id);
        if let (Id::Calls(_, client), None) = (&record.id, old) {
            self.has_share(*client)?;
        }
        let records = self.records.len() + usize::from(old.is_none());
        let bytes = self.bytes - old.map_or(0, |(_, c)| size(c)) + record.size();
        match records <= MAX_RECORDS && bytes <= MAX_BYTES {
            true => Ok(()),
            false => Err(Full::All),
        }
    }

    /// Whether there is a place for one more, of whatever; for a session, which client's it is.
    /// Drops what is over.
    ///
    /// # Errors
    /// When there is none.
    pub fn has_room(&mut self, client: Option<IpAddr>, now: Timestamp) -> Result<(), Full> {
        self.drop_what_is_over(now);
        client.map_or(Ok(()), |client| self.has_share(client))?;
        match self.records.len() < MAX_RECORDS && self.bytes < MAX_BYTES {
            true => Ok(()),
            false => Err(Full::All),
        }
    }

    fn has_share(&self, client: IpAddr) -> Result<(), Full> {
        let sessions = self.sessions.get(&client_of(client));
        match sessions.is_none_or(|sessions| *sessions < MAX_OF_CLIENT) {
            true => Ok(()),
            false => Err(Full::Client),
        }
    }

    /// Notes that a client has a session less.
    fn end_session(&mut self, id: &Id) {
        if let Id::Calls(_, client) = id
            && let Entry::Occupied(mut sessions) = self.sessions.entry(client_of(*client))
        {
            *sessions.get_mut() -= 1;
            if *sessions.get() == 0 {
                sessions.remove();
            }
        }
    }

    fn drop_what_is_over(&mut self, now: Timestamp) {
        while let Some((until, id)) = self.ends.pop_first() {
            if until > now {
                self.ends.insert((until, id));
                break;
            }
            if let Some((_, content)) = self.records.remove(&id) {
                self.bytes -= size(&content);
                self.end_session(&id);
            }
        }
    }

    /// Keeps a record, in place of an earlier one of the same thing.
    pub fn keep(&mut self, record: Record) {
        let Record { id, until, content } = record;
        self.bytes += size(&content);
        self.ends.insert((until, id.clone()));
        if let Some((before, old)) = self.records.insert(id.clone(), (until, content)) {
            self.bytes -= size(&old);
            if before != until {
                self.ends.remove(&(before, id));
            }
        } else if let Id::Calls(_, client) = id {
            *self.sessions.entry(client_of(client)).or_insert(0) += 1;
        }
    }

    /// Everything that is kept.
    pub fn records(&self) -> impl Iterator<Item = Record> {
        self.records.iter().map(|(id, (until, content))| Record {
            id: id.clone(),
            until: *until,
            content: content.clone(),
        })
    }

    /// How many records there are.
    pub fn len(&self) -> usize {
        self.records.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.records.is_empty()
    }
}

#[cfg(test)]
mod tests;
