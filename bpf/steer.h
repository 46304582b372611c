/* The ABI between the steering program and the agent: map keys, values, sizes and the frame
 * marker. `bpf/src/abi.rs` says the same in Rust; a test compares the two. */
#pragma once

#include <linux/types.h>

/* EtherType of a steered frame with room in front of its IP header (IEEE 802 local experimental 1). */
#define STEER_ETHERTYPE 0x88B5
/* VLAN tags and IPv6 extension headers that are followed. */
#define STEER_MAX_VLANS 2
#define STEER_MAX_EXTENSIONS 8
/* Twice what a snapshot can name, because an update adds before it removes. */
#define STEER_DESTINATIONS 65536
/* Queues of one interface that can have a socket. */
#define STEER_QUEUES 256

/* A destination that is ours. IPv4 addresses are mapped: ::ffff:a.b.c.d.
 * Looked up as (address, port, protocol), then as (address, 0, protocol); a protocol without ports
 * as (address, 0, protocol) only. What has no readable ports, a fragment or a packet whose headers
 * are cut off or wrong, is looked up as (address, 0, 0), so that the engine drops it under a name
 * instead of the kernel answering for a VIP it does not serve. */
struct steer_key {
	__u8 address[16];
	__be16 port;
	__u8 protocol;
	__u8 zero;
};

/* What to do with it. */
struct steer_value {
	/* Bytes between the Ethernet header and the IP header that the engine needs: 0 leaves the
	 * frame as it came, else at least 2, because the marker's second half is written there. */
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
