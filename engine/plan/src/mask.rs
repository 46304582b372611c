//! Masks: what of a replica's output is left out of comparisons.

use alloc::collections::{BTreeMap, VecDeque};
use alloc::string::{String, ToString};
use alloc::sync::Arc;
use alloc::vec;
use alloc::vec::Vec;
use core::fmt;
use regex_automata::Anchored;
use regex_automata::dfa::{Automaton, StartKind, dense};
use regex_automata::nfa::thompson;
use regex_automata::util::primitives::StateID;
use regex_automata::util::start;
use regex_syntax::hir::{Hir, HirKind};
use thiserror::Error;

/// Masks of one service at most: what each costs is paid for every byte of every replica.
pub const MAX_MASKS: usize = 8;

/// Bytes that may differ between replicas.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Mask {
    /// Bytes `offset..offset + length` of the output.
    Range {
        /// The first byte, from 0.
        offset: u64,
        /// How many.
        length: u32,
    },
    /// Wherever a pattern's literal beginning occurs, the bytes that follow it for as long as they
    /// can still be part of a match.
    Pattern(Pattern),
}

/// A regular expression that begins with literal text, such as `Date: [^\r]*`.
///
/// Classes and `.` are of bytes, not of characters: a stream need not be text. It is compiled once
/// and shared by all clones. Two are equal when they are written the same.
#[derive(Clone)]
pub struct Pattern {
    compiled: Arc<Compiled>,
}

struct Compiled {
    source: String,
    literal: Vec<u8>,
    /// The state after state `s` and byte `b` is `table[s * 256 + b]`. State 0 is dead: the byte
    /// that led there is in no match.
    table: Vec<u16>,
}

/// Where the part of a [`Pattern`] behind its literal beginning stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct PatternState(u16);

impl Pattern {
    /// Bytes of literal text that a pattern has to begin with. Fewer would occur everywhere.
    pub const MIN_LITERAL: usize = 3;
    /// Bytes of literal text that a pattern may begin with.
    pub const MAX_LITERAL: usize = 255;
    /// States that the automaton of a pattern may have: 512 bytes each.
    pub const MAX_STATES: usize = 1024;

    /// Compiles an expression in the syntax of the `regex` crate.
    pub fn new(source: &str) -> Result<Self, PatternError> {
        let hir = regex_syntax::ParserBuilder::new()
            .unicode(false)
            .utf8(false)
            .nest_limit(50)
            .build()
            .parse(source)
            .map_err(|error| PatternError::Syntax(error.to_string()))?;
        if !hir.properties().look_set().is_empty() {
            return Err(PatternError::Look);
        }
        let mut literal = Vec::new();
        let rest = Hir::concat(split(hir, &mut literal));
        if literal.len() < Self::MIN_LITERAL {
            return Err(PatternError::Literal {
                found: literal.len(),
            });
        }
        if literal.len() > Self::MAX_LITERAL {
            return Err(PatternError::LongLiteral {
                found: literal.len(),
            });
        }
        let table = compile(&rest)?;
        Ok(Self {
            compiled: Arc::new(Compiled {
                source: source.to_string(),
                literal,
                table,
            }),
        })
    }

    /// The expression as written.
    pub fn as_str(&self) -> &str {
        &self.compiled.source
    }

    /// The text it begins with.
    pub fn literal(&self) -> &[u8] {
        &self.compiled.literal
    }

    /// The state right behind the literal beginning.
    pub const fn start(&self) -> PatternState {
        PatternState(START)
    }

    /// The state after one more byte, or nothing when that byte can be in no match.
    #[inline]
    pub fn next(&self, state: PatternState, byte: u8) -> Option<PatternState> {
        let next = self.compiled.table[usize::from(state.0) * 256 + usize::from(byte)];
        (next != DEAD).then_some(PatternState(next))
    }
}

impl PartialEq for Pattern {
    fn eq(&self, other: &Self) -> bool {
        self.as_str() == other.as_str()
    }
}

impl Eq for Pattern {}

impl fmt::Debug for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Pattern").field(&self.as_str()).finish()
    }
}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Why an expression cannot be a mask.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum PatternError {
    /// It is not a regular expression.
    #[error("not a regular expression: {0}")]
    Syntax(String),
    /// It looks at what stands around a match.
    #[error("`^`, `$`, `\\b` and their like mean nothing in a stream of bytes: leave them out")]
    Look,
    /// It begins with something else, or with too little.
    #[error(
        "the pattern begins with {found} bytes of literal text, and needs at least {min}, such as `Date: ` in \
         `Date: [^\\r]*`; behind `(?i)`, text is not literal",
        min = Pattern::MIN_LITERAL
    )]
    Literal {
        /// How much it begins with.
        found: usize,
    },
    /// It begins with too much.
    #[error(
        "the pattern begins with {found} bytes of literal text, and {max} are allowed: its last ones are enough",
        max = Pattern::MAX_LITERAL
    )]
    LongLiteral {
        /// How much it begins with.
        found: usize,
    },
    /// It has nothing behind the literal text.
    #[error(
        "nothing would be masked: only what follows the literal text is, such as `[^\\r]*` in `Date: [^\\r]*`"
    )]
    Nothing,
    /// Its automaton is too large.
    #[error(
        "the pattern needs an automaton of more than {max} states: make its repetitions shorter, or use `*`",
        max = Pattern::MAX_STATES
    )]
    Large,
}

const DEAD: u16 = 0;
const START: u16 = 1;

/// Moves the literal beginning of an expression into `literal` and returns what is behind it.
fn split(hir: Hir, literal: &mut Vec<u8>) -> Vec<Hir> {
    match hir.into_kind() {
        HirKind::Literal(text) => {
            literal.extend_from_slice(&text.0);
            Vec::new()
        }
        HirKind::Capture(capture) => split(*capture.sub, literal),
        HirKind::Concat(parts) => {
            let mut rest: Vec<Hir> = Vec::new();
            for part in parts {
                if rest.is_empty() {
                    rest = split(part, literal);
                } else {
                    rest.push(part);
                }
            }
            rest
        }
        HirKind::Empty => Vec::new(),
        HirKind::Class(class) => vec![Hir::class(class)],
        HirKind::Look(look) => vec![Hir::look(look)],
        HirKind::Repetition(repetition) => vec![Hir::repetition(repetition)],
        HirKind::Alternation(parts) => vec![Hir::alternation(parts)],
    }
}

/// The table of an expression that is matched from its start on.
fn compile(rest: &Hir) -> Result<Vec<u16>, PatternError> {
    const BUILD_LIMIT: usize = 4 << 20;
    let nfa = thompson::Compiler::new()
        .configure(
            thompson::Config::new()
                .utf8(false)
                .nfa_size_limit(Some(BUILD_LIMIT)),
        )
        .build_from_hir(rest)
        .map_err(|_| PatternError::Large)?;
    let dfa = dense::Builder::new()
        .configure(
            dense::Config::new()
                .start_kind(StartKind::Anchored)
                .dfa_size_limit(Some(BUILD_LIMIT))
                .determinize_size_limit(Some(BUILD_LIMIT)),
        )
        .build_from_nfa(&nfa)
        .map_err(|_| PatternError::Large)?;
    let first = dfa
        .start_state(&start::Config::new().anchored(Anchored::Yes))
        .map_err(|_| PatternError::Large)?;
    tabulate(&dfa, first)
}

/// Numbers the states that can be reached. The automaton says one byte late that a match has ended:
/// a state from which nothing follows, not even the end, is therefore dead already.
fn tabulate(dfa: &dense::DFA<Vec<u32>>, first: StateID) -> Result<Vec<u16>, PatternError> {
    let alive = |state: StateID| {
        !dfa.is_dead_state(state)
            && (!dfa.is_dead_state(dfa.next_eoi_state(state))
                || (0..=u8::MAX).any(|byte| !dfa.is_dead_state(dfa.next_state(state, byte))))
    };
    let mut numbers = BTreeMap::from([(first, START)]);
    let mut queue = VecDeque::from([first]);
    let mut table = vec![DEAD; 256];
    while let Some(state) = queue.pop_front() {
        for byte in 0..=u8::MAX {
            let next = dfa.next_state(state, byte);
            if !alive(next) {
                table.push(DEAD);
                continue;
            }
            let fresh = numbers.len() + 1;
            let number = *numbers.entry(next).or_insert_with(|| {
                queue.push_back(next);
                u16::try_from(fresh).unwrap_or(u16::MAX)
            });
            if numbers.len() >= Pattern::MAX_STATES {
                return Err(PatternError::Large);
            }
            table.push(number);
        }
    }
    let start = usize::from(START) * 256;
    if table[start..start + 256].iter().all(|&next| next == DEAD) {
        return Err(PatternError::Nothing);
    }
    Ok(table)
}

#[cfg(test)]
mod tests;
