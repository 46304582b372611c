//! Rendezvous hashing: every balancer computes the same ranks, without talking.

use std::net::IpAddr;

/// The rank of a balancer for a VIP; the highest owns it. The name stands behind the hash, so that
/// two balancers never have the same. All balancers of a group must agree on it, whatever their
/// version: it never changes.
pub fn rank(vip: IpAddr, name: &str) -> (u64, &str) {
    let address = match vip {
        IpAddr::V4(v4) => v4.to_ipv6_mapped(),
        IpAddr::V6(v6) => v6,
    };
    // FNV-1a, then the finalizer of SplitMix64: FNV alone leaves the high bits, which decide here,
    // nearly the same for names that differ in their last letter.
    let bytes = address.octets().into_iter().chain(name.bytes());
    let fnv = bytes.fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    });
    let mixed = (fnv ^ (fnv >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    (mixed ^ (mixed >> 31), name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;
    use std::net::Ipv4Addr;

    fn owner<'a>(vip: IpAddr, names: &[&'a str]) -> &'a str {
        names.iter().copied().max_by_key(|n| rank(vip, n)).unwrap()
    }

    fn vips() -> impl Iterator<Item = IpAddr> {
        (0..1_000u32).map(|n| Ipv4Addr::from(0xcb00_7100 + n).into())
    }

    #[test]
    fn vips_are_shared_out_evenly_and_only_those_of_a_dead_one_move() {
        let names = ["lb1", "lb2", "lb3", "lb4", "lb5"];
        let mut shares = BTreeMap::<&str, u32>::new();
        for vip in vips() {
            let before = owner(vip, &names);
            *shares.entry(before).or_default() += 1;
            let after = owner(vip, &names[..4]);
            assert!(before == "lb5" || before == after, "{vip} moved");
        }
        // 200 each, with a standard deviation of 13.
        assert!(
            shares.values().all(|n| (150..250).contains(n)),
            "{shares:?}"
        );
    }

    #[test]
    fn ranks_are_what_they_were_in_earlier_versions() {
        let vip = IpAddr::from([203, 0, 113, 10]);
        assert_eq!(rank(vip, "lb1").0, RANK_OF_LB1);
    }

    /// Computed apart, by another program.
    const RANK_OF_LB1: u64 = 1_669_007_264_969_323_156;
}
