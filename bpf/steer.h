/* The ABI between the XDP programs and the agent: map keys, values and the frame marker.
 * `bpf/src/abi.rs` says the same in Rust; a test compares the two. */
#pragma once

#include <linux/types.h>

/* EtherType of a steered frame with room in front of its IP header (IEEE 802 local experimental 1). */
#define STEER_ETHERTYPE 0x88B5
/* VLAN tags and IPv6 extension headers that are followed. */
#define STEER_MAX_VLANS 2
#define STEER_MAX_EXTENSIONS 8

/* A destination that is ours. IPv4 addresses are mapped: ::ffff:a.b.c.d.
 * Looked up as (address, port, protocol), then as (address, 0, protocol); a fragment, which has
 * no ports, as (address, 0, 0). */
struct steer_key {
	__u8 address[16];
	__be16 port;
	__u8 protocol;
	__u8 zero;
};

/* What to do with it. */
struct steer_value {
	/* Bytes between the Ethernet header and the IP header that the engine needs. */
	__u16 room;
	__u16 zero;
};

/* Index into the per-CPU `counters` map. */
enum steer_counter {
	STEER_REDIRECTED,
	STEER_NOT_OURS,
	/* Ours, but no socket is in the map for this queue: the kernel gets it. */
	STEER_NO_SOCKET,
	/* Ours, but the agent's heartbeat is too old: the kernel gets it. */
	STEER_STALE,
	/* Ours, but there was no head-room in front of the frame: the kernel gets it. */
	STEER_NO_HEADROOM,
	STEER_COUNTERS,
};
