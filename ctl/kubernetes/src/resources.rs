//! The resources of our own group, `lockstep.dev/v1alpha1`. Their schemas are generated from these
//! types.
#![allow(
    clippy::duplicated_attributes,
    reason = "columns of one type repeat it; each is an attribute of its own"
)]

mod address_pool;
mod advertisement;
pub mod dire;
#[cfg(test)]
mod manifests;
#[cfg(test)]
mod rules;

pub use address_pool::{AddressPool, AddressPoolSpec, AddressPoolStatus, Selector};
pub use advertisement::{Advertisement, AdvertisementSpec, AdvertisementStatus, AdvertisementType};
pub use dire::{Dire, DireSpec, DireStatus};
