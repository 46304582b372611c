//! What engine and daemon do alike as processes: how they [log], what they tell the [manager] of
//! services that started them, and how they write their [metrics].

#![forbid(unsafe_code)]

pub mod log;
pub mod manager;
pub mod metrics;
