//! The PROXY protocol header, version 2: the client's address for replicas that ask for it.
//!
//! <https://www.haproxy.org/download/3.0/doc/proxy-protocol.txt>, section 2.2.

use arrayvec::ArrayVec;
use core::net::SocketAddr;

/// The longest header written here, over IPv6.
pub(super) const LONGEST: usize = 16 + 36;

const SIGNATURE: [u8; 12] = *b"\r\n\r\n\0\r\nQUIT\n";
/// Version 2, on somebody's behalf.
const PROXY: u8 = 0x21;
const TCP4: u8 = 0x11;
const TCP6: u8 = 0x21;

/// The header of a connection from `client` to `vip`. Both are of one IP version.
pub(super) fn header(client: SocketAddr, vip: SocketAddr) -> ArrayVec<u8, LONGEST> {
    let mut header = ArrayVec::new();
    let mut put = |bytes: &[u8]| {
        // At most the longest by the arithmetic above.
        let _ = header.try_extend_from_slice(bytes);
    };
    put(&SIGNATURE);
    match (client, vip) {
        (SocketAddr::V4(client), SocketAddr::V4(vip)) => {
            put(&[PROXY, TCP4, 0, 12]);
            put(&client.ip().octets());
            put(&vip.ip().octets());
        }
        (client, vip) => {
            put(&[PROXY, TCP6, 0, 36]);
            for address in [client, vip] {
                match address {
                    SocketAddr::V4(v4) => put(&v4.ip().to_ipv6_mapped().octets()),
                    SocketAddr::V6(v6) => put(&v6.ip().octets()),
                }
            }
        }
    }
    put(&client.port().to_be_bytes());
    put(&vip.port().to_be_bytes());
    header
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_header_is_the_specifications() {
        let header = header(
            "198.51.100.7:4000".parse().unwrap(),
            "203.0.113.10:80".parse().unwrap(),
        );
        let expected: &[u8] = &[
            0x0d, 0x0a, 0x0d, 0x0a, 0x00, 0x0d, 0x0a, 0x51, 0x55, 0x49, 0x54, 0x0a, 0x21, 0x11, 0,
            12, 198, 51, 100, 7, 203, 0, 113, 10, 0x0f, 0xa0, 0, 80,
        ];
        assert_eq!(header.as_slice(), expected);
        let six = super::header(
            "[2001:db8::7]:4000".parse().unwrap(),
            "[2001:db8::10]:80".parse().unwrap(),
        );
        assert_eq!(six.len(), LONGEST);
        assert_eq!(six[12..16], [0x21, 0x21, 0, 36]);
        assert_eq!(six[48..], [0x0f, 0xa0, 0, 80]);
    }
}
