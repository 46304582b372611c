//! Clients: each says its script, and checks every byte it gets.

use super::dice::Dice;
use super::peer::Peer;
use super::program::{Finish, Program, Script};
use lockstep_core::Micros;
use smoltcp::socket::tcp::State;
use std::net::SocketAddr;
use std::time::Duration;

/// What a corrupt server turns in a byte.
pub const FLIP: u8 = 0x80;

/// How a client behaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Manner {
    /// It reads what comes and writes what it can.
    Plain,
    /// It reads that many bytes, then waits so many microseconds.
    Slow { gulp: usize, pause: u64 },
    /// It sends RST once it has got so many bytes.
    Resets { after: u64 },
    /// Its link is cut once it has got so many bytes.
    Vanishes { after: u64 },
    /// From then on it reads nothing for so many microseconds.
    Rests { after: u64, pause: u64 },
}

/// How a connection ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// FIN both ways, every byte right.
    Complete,
    /// RST from the other side.
    Reset,
    /// It was the client's own doing.
    Own,
}

/// A client with its one connection.
pub struct Client {
    pub session: u32,
    pub address: SocketAddr,
    pub script: Script,
    pub manner: Manner,
    pub peer: Peer,
    pub began: Micros,
    pub outcome: Option<Outcome>,
    /// Nothing it sends arrives, and nothing arrives at it.
    pub is_cut: bool,
    /// Input that was written.
    pub sent: usize,
    pub has_finished: bool,
    /// Bytes that came, and those of them that were turned.
    pub got: u64,
    pub flipped: u64,
    /// A corrupt primary may be believed.
    pub may_be_flipped: bool,
    /// It does not end before the other one of its group has.
    pub holds: bool,
    /// When its timer is to ring.
    pub due: Option<Micros>,
    ended: bool,
    model: Program,
    expected: Vec<u8>,
    dice: Dice,
    write_at: Micros,
    read_at: Micros,
    rested: bool,
}

impl Client {
    pub fn new(
        now: Micros,
        session: u32,
        (address, vip): (SocketAddr, SocketAddr),
        script: Script,
        manner: Manner,
        mut dice: Dice,
    ) -> Self {
        let buffer = dice.pick(&[2_048, 8_192, 32_768, 65_535]);
        Client {
            session,
            address,
            model: Program::new(vip.port()),
            peer: Peer::connect(now, address, vip, dice.next(), buffer),
            script,
            manner,
            began: now,
            outcome: None,
            is_cut: false,
            sent: 0,
            has_finished: false,
            got: 0,
            flipped: 0,
            may_be_flipped: false,
            holds: false,
            due: None,
            ended: false,
            expected: Vec::new(),
            dice,
            write_at: now,
            read_at: now,
            rested: false,
        }
    }

    /// Does what there is to do, and says when to look again. Errors are wrong bytes and wrong ends.
    pub fn work(&mut self, now: Micros) -> Result<Option<Micros>, String> {
        if self.outcome.is_some() {
            return Ok(None);
        }
        let wakes = [self.read(now)?, self.write(now)];
        self.behave(now);
        if self.outcome.is_some() {
            return Ok(None);
        }
        if self.peer.has_ended() && !self.ended {
            self.ended = true;
            self.judge_end()?;
        }
        self.close();
        if self.peer.was_reset() {
            // What has come before the RST can still be read.
            let mut rest = Vec::new();
            self.peer.read(&mut rest, usize::MAX / 2);
            self.verify(&rest)?;
            self.outcome = Some(Outcome::Reset);
        } else if self.ended && matches!(self.peer.state(), State::TimeWait | State::Closed) {
            self.outcome = Some(Outcome::Complete);
        }
        Ok(wakes.into_iter().flatten().filter(|at| *at > now).min())
    }

    fn read(&mut self, now: Micros) -> Result<Option<Micros>, String> {
        let most = match self.manner {
            Manner::Slow { .. } | Manner::Rests { .. } if now < self.read_at => {
                return Ok(Some(self.read_at));
            }
            Manner::Slow { gulp, .. } => gulp,
            _ => usize::MAX / 2,
        };
        let mut got = Vec::new();
        self.peer.read(&mut got, most);
        if got.is_empty() {
            return Ok(None);
        }
        self.verify(&got)?;
        match self.manner {
            Manner::Slow { pause, .. } => self.read_at = now + Duration::from_micros(pause + 10),
            Manner::Rests { after, pause } if self.got >= after && !self.rested => {
                self.rested = true;
                self.read_at = now + Duration::from_micros(pause + 10);
            }
            _ => return Ok(None),
        }
        Ok(Some(self.read_at))
    }

    fn verify(&mut self, got: &[u8]) -> Result<(), String> {
        while self.expected.len() < got.len() && self.model.has_output() {
            let missing = got.len() - self.expected.len();
            self.model.produce(&mut self.expected, missing);
        }
        if self.expected.len() < got.len() {
            let at = self.got + self.expected.len() as u64;
            return Err(format!("bytes that no server sends, from {at} on"));
        }
        for (at, (got, expected)) in got.iter().zip(&self.expected).enumerate() {
            if got == expected {
                continue;
            }
            if *got == expected ^ FLIP && self.may_be_flipped {
                self.flipped += 1;
                continue;
            }
            let at = self.got + at as u64;
            return Err(format!(
                "byte {at} is {got:#04x} instead of {expected:#04x}"
            ));
        }
        self.expected.drain(..got.len());
        self.got += got.len() as u64;
        Ok(())
    }

    fn write(&mut self, now: Micros) -> Option<Micros> {
        if !self.peer.socket().may_send() {
            return None;
        }
        let allowed = self.script.allowed(self.got);
        if self.sent < allowed && now < self.write_at {
            return Some(self.write_at);
        }
        if self.sent < allowed && self.peer.socket().can_send() {
            let piece = 1 + self.dice.size(16_384) as usize;
            let end = allowed.min(self.sent + piece);
            let written = self.peer.write(&self.script.input[self.sent..end]);
            self.model.feed(&self.script.input[self.sent..][..written]);
            self.sent += written;
            let pause = match self.dice.below(20) {
                0 => self.dice.below(300_000),
                1..6 => self.dice.below(3_000),
                _ => 10,
            };
            self.write_at = now + Duration::from_micros(pause);
            return Some(self.write_at);
        }
        None
    }

    /// Sends the FIN when its time has come.
    fn close(&mut self) {
        let complete = self.sent == self.script.input.len();
        let due = match self.script.finish {
            Finish::WhenSent => complete,
            Finish::AfterOutput(output) => complete && self.got >= output,
            Finish::AfterServer => false,
        };
        let due = due && !self.holds;
        if !self.has_finished && self.peer.socket().may_send() && (due || self.ended) {
            self.peer.socket().close();
            self.has_finished = true;
            if complete {
                self.model.finish();
            }
        }
    }

    /// The server's FIN has come: it must have said everything.
    fn judge_end(&mut self) -> Result<(), String> {
        if self.model.is_complete() && self.expected.is_empty() {
            return Ok(());
        }
        // A killed process may say FIN where the others have said RST.
        if self.may_be_reset() {
            return Ok(());
        }
        Err(format!(
            "FIN after {} bytes, before the end: sent {} of {}, FIN {}, {:?}, {} unread; {:?}",
            self.got,
            self.sent,
            self.script.input.len(),
            self.has_finished,
            self.script.finish,
            self.expected.len(),
            self.model
        ))
    }

    fn behave(&mut self, _: Micros) {
        match self.manner {
            Manner::Resets { after } if self.got >= after => {
                self.peer.socket().abort();
                self.outcome = Some(Outcome::Own);
            }
            Manner::Vanishes { after } if self.got >= after => {
                self.is_cut = true;
                self.outcome = Some(Outcome::Own);
            }
            _ => {}
        }
    }

    /// Whether an RST of the servers is right: they have said all that they ever will.
    pub fn may_be_reset(&self) -> bool {
        self.model.resets() && self.expected.is_empty()
    }

    /// What a server may have got of it: how much, and whether the end.
    pub fn said(&self) -> (&[u8], bool) {
        (&self.script.input[..self.sent], self.has_finished)
    }
}
