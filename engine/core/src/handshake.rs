//! TCP where there is no connection: segments read before it is known whose they are, segments
//! written that nobody keeps, and SYN cookies.

pub mod cookie;
pub mod segment;
