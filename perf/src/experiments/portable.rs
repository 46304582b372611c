//! Seed 003 (Takahashi, A Study on Portable Load Balancer for Container Clusters): its figures.

use super::Experiment;

/// In their order.
pub const ALL: &[Experiment] = &[];
