//! The thread that owns the files of logs, and its disk.

use super::dice::Dice;
use lockstep_core::replicate::event::SessionId;
use lockstep_core::replicate::spill::{SpillReply, SpillRequest};
use std::collections::{BTreeMap, BTreeSet};

/// Files by session.
pub struct Disk {
    files: BTreeMap<SessionId, Vec<u8>>,
    /// Those that could not be written to: nothing is any more.
    broken: BTreeSet<SessionId>,
    dice: Dice,
    /// Requests that fail, of ten thousand.
    full: u32,
    pub written: u64,
}

impl Disk {
    pub fn new(dice: Dice, full: u32) -> Self {
        Disk {
            files: BTreeMap::new(),
            broken: BTreeSet::new(),
            dice,
            full,
            written: 0,
        }
    }

    /// Carries a request out. An error is one that should not have been made.
    pub fn carry_out(&mut self, request: SpillRequest) -> Result<Option<SpillReply>, String> {
        let fails = self.dice.chance(self.full);
        Ok(match request {
            SpillRequest::Append {
                session,
                offset,
                chunk,
            } => {
                let file = self.files.entry(session).or_default();
                if fails || self.broken.contains(&session) {
                    self.broken.insert(session);
                    return Ok(Some(SpillReply::NotAppended {
                        session,
                        offset,
                        chunk,
                    }));
                }
                if file.len() as u64 != offset {
                    let end = file.len();
                    return Err(format!("{session} appends at {offset}, the end is {end}"));
                }
                file.extend(chunk.bytes());
                self.written += chunk.bytes().len() as u64;
                Some(SpillReply::Appended {
                    session,
                    offset,
                    chunk,
                })
            }
            SpillRequest::Read {
                session,
                offset,
                mut chunk,
            } => {
                let length = chunk.bytes().len();
                let file = self.files.get(&session).map_or(&[][..], Vec::as_slice);
                match file.get(offset as usize..).and_then(|f| f.get(..length)) {
                    Some(bytes) if !fails => {
                        chunk.bytes_mut().copy_from_slice(bytes);
                        Some(SpillReply::Filled {
                            session,
                            offset,
                            chunk,
                        })
                    }
                    _ => Some(SpillReply::NotFilled {
                        session,
                        offset,
                        chunk,
                    }),
                }
            }
            SpillRequest::Remove { session } => {
                self.files.remove(&session);
                None
            }
        })
    }

    /// Files there are.
    pub fn files(&self) -> usize {
        self.files.len()
    }
}
