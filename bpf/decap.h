/* The ABI between the decapsulating program and what attaches it. `bpf/src/abi.rs` says the same
 * in Rust; a test compares the two. */
#pragma once

#include <linux/types.h>

/* Tunnel end points of one interface. */
#define DECAP_ADDRESSES 64

/* A local address that tunnels end at. IPv4 addresses are mapped: ::ffff:a.b.c.d. */
struct decap_key {
	__u8 address[16];
};

/* Index into the per-CPU `counters` map. */
enum decap_counter {
	DECAP_DECAPSULATED,
	/* Not a tunnelled packet for one of the addresses: left to the kernel. */
	DECAP_PASSED,
	/* Tunnelled to us, but the inside is no whole IP header: left to the kernel. */
	DECAP_MALFORMED,
	/* Marked "congestion experienced" on the way, carrying a packet whose sender does not know
	 * ECN: dropped, because a drop is the only sign of congestion it sees (RFC 6040, 4.2). */
	DECAP_CONGESTED,
	DECAP_COUNTERS,
};
