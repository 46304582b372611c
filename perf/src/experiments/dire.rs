//! Seed 000 (DIRE): its figures.

use super::Experiment;

/// In their order.
pub const ALL: &[Experiment] = &[];
