//! Deterministic servers: what comes out is a function of what went in.
//!
//! Each client's first bytes name the program and the session, so that a server finds what the
//! client really sent. The output depends on every byte before it: one lost, repeated or turned
//! anywhere shows in all that follows.

use super::dice::{Dice, mix};
use std::collections::VecDeque;

/// Bytes in front of the input: program, a zero, two of check, the session's number.
pub const HEADER: usize = 8;

/// The port whose server listens to what the client says.
pub const LISTENS: u16 = 80;
/// Ports whose servers talk at once, and how much.
pub const TALKS: [(u16, u64); 3] = [(81, 900), (82, 30_000), (83, 400_000)];

/// What a program that listens does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Every byte is answered by one, until the client's FIN.
    Echo,
    /// Requests of eight bytes, answers of any length; after the last one the server ends first.
    Ask,
    /// All is read until the client's FIN, then comes the answer.
    Upload,
    /// So many bytes are read, then comes the answer, and RST: the rest is nobody's.
    Part,
}

#[derive(Debug)]
enum Mode {
    Unknown(Vec<u8>),
    Echo,
    Ask(Vec<u8>),
    Upload,
    Part(u64),
    Talk,
}

/// An answer that is not given yet.
#[derive(Debug)]
struct Answer {
    left: u64,
    text: Dice,
}

/// A server's side of one connection.
#[derive(Debug)]
pub struct Program {
    mode: Mode,
    state: u64,
    ready: VecDeque<u8>,
    answers: VecDeque<Answer>,
    /// No more answers are to come.
    ended: bool,
}

pub fn header(kind: Kind, session: u32) -> [u8; HEADER] {
    let kind = match kind {
        Kind::Echo => 1,
        Kind::Ask => 2,
        Kind::Upload => 3,
        Kind::Part => 4,
    };
    let [a, b, c, d] = session.to_be_bytes();
    [kind, 0, 0x4c, 0x53, a, b, c, d]
}

/// What a server reads of the kind that resets, behind the header.
pub const PART: u64 = 5_000;
/// What it answers then: all of it fits in any buffer.
pub const LAST_WORDS: u64 = 1_000;

/// A request for so many bytes; the server ends after the last one.
pub fn request(length: u32, last: bool, salt: u16) -> [u8; 8] {
    let [a, b, c, d] = length.to_be_bytes();
    let [e, f] = salt.to_be_bytes();
    [a, b, c, d, u8::from(last), e, f, 0]
}

impl Program {
    pub fn new(port: u16) -> Self {
        let mut program = Program {
            mode: Mode::Unknown(Vec::new()),
            state: u64::from(port),
            ready: VecDeque::new(),
            answers: VecDeque::new(),
            ended: false,
        };
        if let Some((_, length)) = TALKS.iter().find(|(p, _)| *p == port) {
            program.mode = Mode::Talk;
            program.answer(*length);
            program.ended = true;
        }
        program
    }

    /// The client's next bytes.
    pub fn feed(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            self.state = mix(self.state ^ u64::from(byte).wrapping_mul(0x0101_0101_0101));
            self.take(byte);
        }
    }

    fn take(&mut self, byte: u8) {
        match &mut self.mode {
            Mode::Unknown(header) => {
                header.push(byte);
                if header.len() == HEADER {
                    self.mode = match header[0] {
                        1 => Mode::Echo,
                        2 => Mode::Ask(Vec::new()),
                        4 => Mode::Part(PART),
                        _ => Mode::Upload,
                    };
                }
            }
            Mode::Echo => self.ready.push_back(byte ^ (self.state >> 40) as u8),
            Mode::Ask(request) => {
                request.push(byte);
                if let &[a, b, c, d, last, ..] = request.as_slice()
                    && request.len() == 8
                {
                    request.clear();
                    if !self.ended {
                        self.answer(u64::from(u32::from_be_bytes([a, b, c, d])));
                        self.ended = last != 0;
                    }
                }
            }
            Mode::Part(left @ 1..) => {
                *left -= 1;
                if *left == 0 {
                    self.answer(LAST_WORDS);
                }
            }
            Mode::Upload | Mode::Part(_) | Mode::Talk => {}
        }
    }

    /// The client has sent its FIN.
    pub fn finish(&mut self) {
        if !self.ended && matches!(self.mode, Mode::Upload) {
            self.answer(1_000);
        }
        self.ended = true;
    }

    fn answer(&mut self, length: u64) {
        self.answers.push_back(Answer {
            left: length,
            text: Dice::new(self.state),
        });
    }

    /// Appends output, about `most` bytes.
    pub fn produce(&mut self, out: &mut Vec<u8>, most: usize) {
        let echoed = self.ready.len().min(most);
        out.extend(self.ready.drain(..echoed));
        let mut left = most - echoed;
        while let Some(answer) = self.answers.front_mut()
            && left > 0
        {
            let word = answer.text.next().to_be_bytes();
            let length = answer.left.min(8) as usize;
            out.extend(&word[..length]);
            answer.left -= length as u64;
            left = left.saturating_sub(length);
            if answer.left == 0 {
                self.answers.pop_front();
            }
        }
    }

    /// Whether there is something to say.
    pub fn has_output(&self) -> bool {
        !self.ready.is_empty() || !self.answers.is_empty()
    }

    /// Whether it reads on: like a server of one thread, it answers first.
    pub fn is_listening(&self) -> bool {
        !matches!(self.mode, Mode::Part(0)) && self.ready.len() < 16_384 && self.answers.len() < 8
    }

    /// Whether the server resets the connection, once it has said all.
    pub fn resets(&self) -> bool {
        matches!(self.mode, Mode::Part(0)) && !self.has_output()
    }

    /// Whether all was said: the server ends the connection.
    pub fn is_complete(&self) -> bool {
        self.ended && !self.has_output()
    }
}

/// What a client says, and when.
#[derive(Debug, Clone)]
pub struct Script {
    pub port: u16,
    pub input: Vec<u8>,
    /// Input up to the second number may be sent once so much output has come.
    pub gates: Vec<(u64, usize)>,
    /// When the client sends its FIN.
    pub finish: Finish,
}

/// When a client sends its FIN.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Finish {
    /// As soon as everything is sent.
    WhenSent,
    /// When that much output has come.
    AfterOutput(u64),
    /// After the server's.
    AfterServer,
}

impl Script {
    /// A script for a session. Transfers are `most` bytes at most, and mostly much shorter.
    pub fn write(dice: &mut Dice, session: u32, most: u64) -> Script {
        match dice.below(8) {
            0 => {
                let (port, _) = TALKS[dice.below(if most < 100_000 { 2 } else { 3 }) as usize];
                let finish = dice.pick(&[Finish::WhenSent, Finish::AfterServer]);
                Script {
                    port,
                    input: Vec::new(),
                    gates: Vec::new(),
                    finish,
                }
            }
            1 | 2 => Script::upload(dice, session, most),
            3..6 => Script::ask(dice, session, most),
            _ => Script::echo(dice, session, most),
        }
    }

    fn body(dice: &mut Dice, kind: Kind, session: u32, length: u64) -> Vec<u8> {
        let mut input = header(kind, session).to_vec();
        while (input.len() as u64) < length + HEADER as u64 {
            input.extend(dice.next().to_be_bytes());
        }
        input
    }

    pub fn upload(dice: &mut Dice, session: u32, most: u64) -> Script {
        let length = dice.size(most);
        let input = Script::body(dice, Kind::Upload, session, length);
        Script {
            port: LISTENS,
            gates: vec![(0, input.len())],
            input,
            finish: Finish::WhenSent,
        }
    }

    pub fn echo(dice: &mut Dice, session: u32, most: u64) -> Script {
        let length = dice.size(most);
        let input = Script::body(dice, Kind::Echo, session, length);
        let echoed = (input.len() - HEADER) as u64;
        Script {
            port: LISTENS,
            gates: vec![(0, input.len())],
            finish: dice.pick(&[Finish::WhenSent, Finish::AfterOutput(echoed)]),
            input,
        }
    }

    /// More than the server will read.
    pub fn part(dice: &mut Dice, session: u32, most: u64) -> Script {
        let length = PART + 1 + dice.size(most);
        let input = Script::body(dice, Kind::Part, session, length);
        Script {
            port: LISTENS,
            gates: vec![(0, input.len())],
            input,
            finish: Finish::AfterServer,
        }
    }

    pub fn ask(dice: &mut Dice, session: u32, most: u64) -> Script {
        let mut input = header(Kind::Ask, session).to_vec();
        let (mut gates, mut output) = (vec![(0, HEADER)], 0);
        let count = dice.between(1, 6);
        let pipelined = dice.chance(3_000);
        let ends = dice.chance(5_000);
        for n in 1..=count {
            let length = dice.size(most / count) + 1;
            let last = ends && n == count;
            input.extend(request(length as u32, last, dice.next() as u16));
            gates.push((if pipelined { 0 } else { output }, input.len()));
            output += length;
        }
        let finish = if ends {
            Finish::AfterServer
        } else {
            dice.pick(&[Finish::WhenSent, Finish::AfterOutput(output)])
        };
        Script {
            port: LISTENS,
            input,
            gates,
            finish,
        }
    }

    /// Input that may be sent once so much output has come.
    pub fn allowed(&self, output: u64) -> usize {
        let open = self.gates.iter().take_while(|(after, _)| *after <= output);
        open.map(|(_, upto)| *upto).max().unwrap_or(0)
    }
}
