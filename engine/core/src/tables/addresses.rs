//! Sets of addresses, for the packets that no port leads to.

use alloc::vec::Vec;
use core::net::IpAddr;

/// Addresses that are built once and then only asked for.
#[derive(Debug, Clone, Default)]
pub(super) struct AddressSet(Vec<IpAddr>);

impl AddressSet {
    /// A set of these, among which some may be the same.
    pub(super) fn new(addresses: impl Iterator<Item = IpAddr>) -> Self {
        let mut addresses: Vec<_> = addresses.collect();
        addresses.sort_unstable();
        addresses.dedup();
        AddressSet(addresses)
    }

    /// Whether an address is among them. The time is logarithmic: strangers may ask often.
    pub(super) fn has(&self, address: IpAddr) -> bool {
        self.0.binary_search(&address).is_ok()
    }
}
