//! What one case carries, held against what another does.

use super::case::Case;
use super::failed::Row;
use crate::measure::{median, rounded};
use serde::{Deserialize, Serialize};
use std::fmt;

/// How a ratio is to be read, where a side may carry more than the generator could offer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Bound {
    /// Both sides were taken to their limits.
    Exact,
    /// The case may carry more.
    AtLeast,
    /// What it is held against may carry more.
    AtMost,
    /// Either may: it says nothing.
    Neither,
}

/// A ratio.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Ratio {
    /// The name of what the case is held against.
    pub to: String,
    /// By how much the case carries more.
    pub ratio: f64,
    /// How it is to be read.
    pub bound: Bound,
}

/// A row that is held against others.
pub trait Held: Row {
    /// Whether both have the same load.
    fn is_like(&self, other: &Self) -> bool;
    /// What it carries a second, the median of the rounds.
    fn per_second(&self) -> f64;
    /// What it carried in each of them.
    fn rounds(&self) -> &[f64];
    /// Whether it may carry more than could be offered.
    fn may_be_more(&self) -> bool;
}

impl Ratio {
    /// Of a row to that of `peer` with the same load; none where there is none among `all`, and none of a
    /// case to itself. The median of the rounds' own, which have what the machine did in a round on both sides;
    /// where either lacks a round, that of the medians.
    pub fn of<R: Held>(row: &R, peer: Case, all: &[R]) -> Option<Self> {
        let mut others = all.iter().filter(|other| other.case() != row.case());
        let peer = others.find(|other| other.case() == peer.name() && row.is_like(other))?;
        Some(Ratio {
            to: peer.case().to_owned(),
            ratio: rounded(by_rounds(row, peer), 2),
            bound: match (row.may_be_more(), peer.may_be_more()) {
                (false, false) => Bound::Exact,
                (true, false) => Bound::AtLeast,
                (false, true) => Bound::AtMost,
                (true, true) => Bound::Neither,
            },
        })
    }
}

fn by_rounds<R: Held>(row: &R, peer: &R) -> f64 {
    let (ours, theirs) = (row.rounds(), peer.rounds());
    if ours.len() != theirs.len() || ours.is_empty() {
        return row.per_second() / peer.per_second();
    }
    let ratios = ours.iter().zip(theirs).map(|(ours, theirs)| ours / theirs);
    median(ratios.collect())
}

impl Bound {
    /// In front of the ratio.
    pub const fn sign(self) -> &'static str {
        match self {
            Bound::Exact => "",
            Bound::AtLeast => "≥ ",
            Bound::AtMost => "≤ ",
            Bound::Neither => "? ",
        }
    }
}

impl fmt::Display for Ratio {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{:.2}", self.bound.sign(), self.ratio)
    }
}

/// The ratio, and whom to; `-` where there is none. Results of some time ago have such of a case to itself.
pub fn held(ratio: Option<&Ratio>, case: &str) -> String {
    let ratio = ratio.filter(|ratio| ratio.to != case);
    ratio.map_or("-".to_owned(), |ratio| format!("{ratio} {}", ratio.to))
}

#[cfg(test)]
mod tests {
    use super::super::part::Part;
    use super::*;

    /// What a case carried in each round, and whether it may carry more.
    struct Line(Case, &'static [f64], bool);

    impl Row for Line {
        fn case(&self) -> &str {
            self.0.name()
        }

        fn part(&self) -> Part {
            Part::Packets
        }
    }

    impl Held for Line {
        fn is_like(&self, _: &Self) -> bool {
            true
        }

        fn per_second(&self) -> f64 {
            median(self.1.to_vec())
        }

        fn rounds(&self) -> &[f64] {
            self.1
        }

        fn may_be_more(&self) -> bool {
            self.2
        }
    }

    #[test]
    fn a_ratio_is_that_of_the_rounds_where_each_has_both() {
        let of = |ours, theirs| {
            let all = [
                Line(Case::Haproxy, ours, false),
                Line(Case::NftablesDnat, theirs, false),
            ];
            Ratio::of(&all[0], Case::NftablesDnat, &all).map(|ratio| ratio.ratio)
        };
        // The machine was twice as fast in the second.
        assert_eq!(of(&[10.0, 22.0, 12.0], &[10.0, 20.0, 8.0]), Some(1.1));
        assert_eq!(of(&[10.0, 22.0], &[10.0, 20.0, 8.0]), Some(1.6));
    }

    #[test]
    fn a_ratio_says_which_side_may_carry_more() {
        let of = |ours: bool, theirs: bool| {
            let all = [
                Line(Case::Haproxy, &[3.0], ours),
                Line(Case::NftablesDnat, &[2.0], theirs),
            ];
            Ratio::of(&all[0], Case::NftablesDnat, &all).map(|ratio| ratio.to_string())
        };
        assert_eq!(of(false, false).as_deref(), Some("1.50"));
        assert_eq!(of(true, false).as_deref(), Some("≥ 1.50"));
        assert_eq!(of(false, true).as_deref(), Some("≤ 1.50"));
        assert_eq!(of(true, true).as_deref(), Some("? 1.50"));
    }

    #[test]
    fn a_row_is_held_against_neither_itself_nor_what_was_not_measured() {
        // Another round's would be another rate.
        let all = [
            Line(Case::Haproxy, &[3.0], true),
            Line(Case::Haproxy, &[2.0], true),
        ];
        assert_eq!(Ratio::of(&all[0], Case::Haproxy, &all), None);
        assert_eq!(Ratio::of(&all[0], Case::NftablesDnat, &all), None);
        let own = Ratio {
            to: "haproxy".to_owned(),
            ratio: 1.5,
            bound: Bound::Exact,
        };
        assert_eq!(held(Some(&own), "haproxy"), "-");
        assert_eq!(held(Some(&own), "nginx-stream"), "1.50 haproxy");
        assert_eq!(held(None, "haproxy"), "-");
    }
}
