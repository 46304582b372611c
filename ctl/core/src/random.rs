//! Random numbers that are the same for every replica of a session: DIRE's service, with the
//! schema of random.org's integer generator.
//!
//! Numbers of the operating system's source are derived and not stored: a pseudorandom function
//! ([`mod@derive`]) of a secret and of what was asked for gives every balancer that has the secret the
//! same numbers, at any time, also after a restart. What cannot be derived (numbers of another
//! source, and which numbers a time to live has begun with) is kept in a [`book`] before it is
//! handed out.

pub mod book;
pub mod derive;
pub mod kept;
pub mod request;
pub mod text;

pub use kept::{Kept, Numbers};
pub use request::{Request, Which};
