//! Seed 002 (mirroring, journal, resynchronisation): its figures.

use super::Experiment;

/// In their order.
pub const ALL: &[Experiment] = &[];
