//! What is asked for: random.org's parameters, and ours for calls of sessions.
//!
//! The parameters, their ranges and that an error is status 503 with a text that begins with
//! `Error:` are as documented at <https://www.random.org/clients/http/>. That page does not have
//! the sentences; those about `num`, `min` and `max` are as clients of the service quote them.

use std::fmt::{self, Write};

/// The most numbers in one answer.
pub const MAX_NUM: i64 = 10_000;
/// The largest number, and the negative of the smallest.
pub const MAX_VALUE: i64 = 1_000_000_000;
/// The most columns.
pub const MAX_COL: i64 = 1_000_000_000;
/// The longest name of a session or identifier, in bytes.
pub const MAX_NAME: usize = 64;
/// The most parameters that are looked at.
const MAX_PARAMETERS: usize = 16;

/// A request without errors.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    /// How many, and between what.
    pub range: Range,
    /// Which of the many answers there are.
    pub which: Which,
    /// How they are written.
    pub layout: Layout,
}

/// How many numbers, and between what.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Range {
    /// 1 to [`MAX_NUM`].
    pub num: u16,
    /// The smallest that may come.
    pub min: i32,
    /// The largest that may come; more than `min`.
    pub max: i32,
}

/// Which of the many answers to a range.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Which {
    /// The one of these moments: that of the first who asked, until its time to live is over.
    Current,
    /// That of a session's n-th call, for ever.
    Call {
        /// The session.
        session: Name,
        /// Counted from 1.
        call: u64,
    },
    /// That of the caller's next call in a session: its address tells it from other replicas.
    NextCall {
        /// The session.
        session: Name,
    },
    /// random.org's `rnd=id.X` and `rnd=date.X`: the same for ever.
    Fixed(Name),
}

/// The name of a session, or a fixed randomization.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Name(String);

impl Name {
    /// 1 to [`MAX_NAME`] letters, digits, `-`, `_`, `.` or `:`.
    pub fn new(text: &str) -> Option<Self> {
        let allowed = |b: u8| b.is_ascii_alphanumeric() || b"-_.:".contains(&b);
        let fits = !text.is_empty() && text.len() <= MAX_NAME && text.bytes().all(allowed);
        fits.then(|| Name(text.to_owned()))
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// How numbers are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Layout {
    /// Columns, 1 to [`MAX_COL`].
    pub col: u32,
    /// The base.
    pub base: Base,
    /// As text or as a page.
    pub format: Format,
}

/// The base that numbers are written in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Base {
    /// 2.
    Binary,
    /// 8.
    Octal,
    /// 10.
    Decimal,
    /// 16.
    Hexadecimal,
}

/// What kind of document the answer is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// Numbers, tabs and line ends.
    Plain,
    /// An HTML page.
    Html,
}

/// Why there is no answer. Its text is what the client gets.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadRequest {
    /// A number is missing, none, or out of its range.
    #[error("Error: The {what} must be an integer in the [{from},{to}] interval")]
    Number {
        /// What it is of.
        what: &'static str,
        /// The least that is allowed.
        from: i64,
        /// The most that is allowed.
        to: i64,
    },
    /// The range is empty.
    #[error("Error: The maximum value must be greater than the minimum value")]
    Order,
    /// Not one of some words.
    #[error("Error: The {what} must be {allowed}")]
    Word {
        /// What it is of.
        what: &'static str,
        /// What is allowed.
        allowed: &'static str,
    },
    /// A parameter that there is not, or twice. A misspelt `session` must not be overlooked.
    #[error("Error: The parameter {0} is unknown, or stands there twice")]
    Parameter(String),
    /// More than there are.
    #[error("Error: There are too many parameters")]
    Parameters,
    /// The day has not come.
    #[error("Error: The date must not be in the future")]
    Future,
}

/// The parameters as text.
#[derive(Default)]
struct Raw<'a> {
    num: Option<&'a str>,
    min: Option<&'a str>,
    max: Option<&'a str>,
    col: Option<&'a str>,
    base: Option<&'a str>,
    format: Option<&'a str>,
    rnd: Option<&'a str>,
    session: Option<&'a str>,
    call: Option<&'a str>,
}

impl<'a> Raw<'a> {
    fn collect(pairs: &'a [(String, String)]) -> Result<Self, BadRequest> {
        if pairs.len() > MAX_PARAMETERS {
            return Err(BadRequest::Parameters);
        }
        let mut raw = Raw::default();
        for (name, value) in pairs {
            let place = match name.as_str() {
                "num" => &mut raw.num,
                "min" => &mut raw.min,
                "max" => &mut raw.max,
                "col" => &mut raw.col,
                "base" => &mut raw.base,
                "format" => &mut raw.format,
                "rnd" => &mut raw.rnd,
                "session" => &mut raw.session,
                "call" => &mut raw.call,
                _ => return Err(BadRequest::Parameter(shown(name))),
            };
            if place.replace(value).is_some() {
                return Err(BadRequest::Parameter(shown(name)));
            }
        }
        Ok(raw)
    }
}

/// The beginning of what a client sent, without what would be more than text in an answer.
fn shown(text: &str) -> String {
    let plain = |c: char| c.is_ascii_graphic() && !"<>&\"'".contains(c);
    text.chars()
        .take(32)
        .map(|c| if plain(c) { c } else { '?' })
        .collect()
}

impl Request {
    /// Reads the parameters of a query, decoded. `today` is the date in UTC, as `YYYY-MM-DD`.
    /// `num`, `min` and `max` have to be there; the rest is `col=1`, `base=10`, `format=plain` and
    /// `rnd=new` where it is missing.
    ///
    /// # Errors
    /// The first parameter that is wrong, in random.org's order.
    pub fn parse(pairs: &[(String, String)], today: &str) -> Result<Self, BadRequest> {
        let raw = Raw::collect(pairs)?;
        let num = number("num value", raw.num, 1, MAX_NUM)?;
        let min = number("minimum value", raw.min, -MAX_VALUE, MAX_VALUE)?;
        let max = number("maximum value", raw.max, -MAX_VALUE, MAX_VALUE)?;
        let col = raw.col.or(Some("1"));
        let col = number("number of columns", col, 1, MAX_COL)?;
        let layout = Layout {
            col: u32::try_from(col).expect("at most MAX_COL"),
            base: base(raw.base)?,
            format: format(raw.format)?,
        };
        if max <= min {
            return Err(BadRequest::Order);
        }
        let range = Range {
            num: u16::try_from(num).expect("at most MAX_NUM"),
            min: i32::try_from(min).expect("at most MAX_VALUE"),
            max: i32::try_from(max).expect("at most MAX_VALUE"),
        };
        Ok(Request {
            range,
            which: which(&raw, today)?,
            layout,
        })
    }
}

fn number(what: &'static str, text: Option<&str>, from: i64, to: i64) -> Result<i64, BadRequest> {
    let number = text.and_then(|text| text.parse().ok());
    number
        .filter(|n| (from..=to).contains(n))
        .ok_or(BadRequest::Number { what, from, to })
}

fn base(text: Option<&str>) -> Result<Base, BadRequest> {
    match text {
        Some("2") => Ok(Base::Binary),
        Some("8") => Ok(Base::Octal),
        None | Some("10") => Ok(Base::Decimal),
        Some("16") => Ok(Base::Hexadecimal),
        Some(_) => Err(BadRequest::Word {
            what: "base",
            allowed: "2, 8, 10 or 16",
        }),
    }
}

fn format(text: Option<&str>) -> Result<Format, BadRequest> {
    match text {
        None | Some("plain") => Ok(Format::Plain),
        Some("html") => Ok(Format::Html),
        Some(_) => Err(BadRequest::Word {
            what: "format",
            allowed: "html or plain",
        }),
    }
}

fn which(raw: &Raw<'_>, today: &str) -> Result<Which, BadRequest> {
    let fixed = randomization(raw.rnd.unwrap_or("new"), today)?;
    let Some(session) = raw.session else {
        return match (raw.call, fixed) {
            (None, None) => Ok(Which::Current),
            (None, Some(name)) => Ok(Which::Fixed(name)),
            (Some(_), _) => Err(BadRequest::Word {
                what: "call value",
                allowed: "given with a session",
            }),
        };
    };
    let session = Name::new(session).ok_or(BadRequest::Word {
        what: "session",
        allowed: "1 to 64 letters, digits, '-', '_', '.' or ':'",
    })?;
    if fixed.is_some() {
        return Err(BadRequest::Word {
            what: "randomization",
            allowed: "new where there is a session",
        });
    }
    match raw.call {
        None => Ok(Which::NextCall { session }),
        call => {
            let call = number("call value", call, 1, i64::MAX)?.unsigned_abs();
            Ok(Which::Call { session, call })
        }
    }
}

/// `None` where a new one is asked for.
fn randomization(text: &str, today: &str) -> Result<Option<Name>, BadRequest> {
    let wrong = BadRequest::Word {
        what: "randomization",
        allowed: "new, id.identifier or date.iso-date",
    };
    if text == "new" {
        return Ok(None);
    }
    if let Some(date) = text.strip_prefix("date.") {
        return match is_date(date) {
            true if date > today => Err(BadRequest::Future),
            true => Ok(Name::new(text)),
            false => Err(wrong),
        };
    }
    // The prefix is not part of what may be so long.
    match text.strip_prefix("id.").and_then(Name::new) {
        Some(_) => Ok(Some(Name(text.to_owned()))),
        None => Err(wrong),
    }
}

/// Whether this is a day of the calendar, as `YYYY-MM-DD`.
fn is_date(text: &str) -> bool {
    let part = |from: usize, to: usize| {
        let digits = text.get(from..to)?;
        let all = digits.bytes().all(|b| b.is_ascii_digit());
        all.then(|| digits.parse::<u32>().ok())?
    };
    let separated = text.len() == 10 && text.get(4..5) == Some("-") && text.get(7..8) == Some("-");
    let (Some(year), Some(month), Some(day)) = (part(0, 4), part(5, 7), part(8, 10)) else {
        return false;
    };
    let leap = year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400));
    let days = match month {
        1 | 3 | 5 | 7 | 8 | 10 | 12 => 31,
        4 | 6 | 9 | 11 => 30,
        2 if leap => 29,
        2 => 28,
        _ => 0,
    };
    separated && (1..=days).contains(&day)
}

/// A date in UTC as `YYYY-MM-DD`, of days since 1970-01-01 (Howard Hinnant's `civil_from_days`).
pub fn date_of(days: u64) -> String {
    let shifted = days + 719_468;
    let (era, of_era) = (shifted / 146_097, shifted % 146_097);
    let year = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year + year / 4 - year / 100);
    // March is the first month here, so that leap days end the year.
    let month = (5 * of_year + 2) / 153;
    let day = of_year - (153 * month + 2) / 5 + 1;
    let (month, carry) = match month {
        0..=9 => (month + 3, 0),
        _ => (month - 9, 1),
    };
    format!("{:04}-{month:02}-{day:02}", era * 400 + year + carry)
}

impl fmt::Display for Range {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "num={}&min={}&max={}", self.num, self.min, self.max)
    }
}

/// What two requests have in common that get the same numbers.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key(String);

impl Key {
    /// Of a range and which of its answers; `None` for [`Which::NextCall`], which has to become a
    /// [`Which::Call`] first.
    pub fn new(range: Range, which: &Which) -> Option<Self> {
        let mut text = match which {
            Which::Current => "current".to_owned(),
            Which::Call { session, call } => format!("call/{}/{call}", session.as_str()),
            Which::Fixed(name) => format!("fixed/{}", name.as_str()),
            Which::NextCall { .. } => return None,
        };
        write!(text, "/{range}").expect("a String takes everything");
        Some(Key(text))
    }

    /// One that was written before.
    pub fn from_text(text: &str) -> Self {
        Key(text.to_owned())
    }

    /// Its text: letters, digits and `/-_.:=&` only.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

#[cfg(test)]
mod tests;
