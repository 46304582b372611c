/* The ABI between the steering program and the agent: map keys, values, sizes and the frame
 * marker. `bpf/src/abi.rs` says the same in Rust; a test compares the two. */
#pragma once

#include <linux/types.h>

/* The form of everything below. Whoever changes it counts this up, so that a new program does not
 * take over maps whose contents it would misread. */
#define STEER_ABI 2

/* EtherType of a steered frame with room in front of its IP header (IEEE 802 local experimental 1). */
#define STEER_ETHERTYPE 0x88B5
/* In place of the one VLAN tag that a steered frame came with: there were more. 0: there was none. */
#define STEER_SEVERAL_TAGS 0xFFFF
/* VLAN tags and IPv6 extension headers that are followed. */
#define STEER_MAX_VLANS 2
#define STEER_MAX_EXTENSIONS 8
/* Twice what a snapshot can name, because an update adds before it removes. */
#define STEER_DESTINATIONS 65536
/* Queues of one interface that can have a socket. */
#define STEER_QUEUES 256
/* Prefixes of ports that ranges are made of; one range is at most 30. */
#define STEER_RANGES 65536
/* Addresses and ports that answers come from, and addresses of this host. */
#define STEER_SOURCES 65536
#define STEER_LOCALS 4096
/* Services that the program can carry by itself; number 0 is none. */
#define STEER_SERVICES 1024
/* Their backends, and flows whose backend is not the one that their hash gives. */
#define STEER_BACKENDS 16384
#define STEER_PINNED 65536
/* Entries of a service's table in one element of its map. */
#define STEER_CHUNK 64

/* A destination that is ours. IPv4 addresses are mapped: ::ffff:a.b.c.d.
 * Looked up as (address, port, protocol), then in `ranges`, then as (address, 0, protocol); a protocol
 * without ports as (address, 0, protocol) only, and ICMP only if it is a request for an echo or an
 * error about a packet: neighbour discovery and the rest are the kernel's. What has no readable
 * ports is looked up as (address, 0, 0): a fragment, whose flow the engine knows, or a packet whose
 * headers are cut off or wrong, so that the engine drops it under a name instead of the kernel
 * answering for a VIP it does not serve. */
struct steer_key {
	__u8 address[16];
	__be16 port;
	__u8 protocol;
	__u8 zero;
};

/* What to do with it. */
struct steer_value {
	/* Bytes between the Ethernet header and the IP header that the engine needs: 0 leaves the
	 * frame as it came, else at least 4: the room's number and the VLAN tag are written there. */
	__u16 room;
	__u16 flags;
	/* Its number in `rings`, or 0. */
	__u32 service;
};

/* Of (address, 0, protocol): ports without an entry of their own are looked for in `ranges`. */
#define STEER_HAS_RANGES 1
/* Of (address, 0, protocol): it is there for STEER_HAS_RANGES only, and no destination. */
#define STEER_NO_DESTINATION 2

/* A prefix of ports of an address, in the order in which the kernel compares bits. */
struct steer_range {
	/* 144 for the fields before the port, and as many of the port's bits as count. */
	__u32 bits;
	__u8 address[16];
	__u8 protocol;
	__u8 zero;
	__be16 port;
};

/* Where a packet came from whose destination is not ours: `sources` has addresses and ports of
 * backends whose answers the engine rewrites. Looked up as destinations are, without ranges, and of
 * ICMP errors only; errors of others are found by the address, port and protocol that what they quote was for. A
 * packet to one of `locals`, the host's own addresses, is left to the kernel. */

/* Which maps are worth asking. */
struct steer_config {
	/* Not 0: there are entries in `sources`. */
	__u32 sources;
};

/* Element 0 of a service's map. */
struct steer_ring {
	/* How many entries the table has. They follow in element 1 and those behind it. */
	__u32 entries;
	/* Not 0: the hash is of the client's address alone. */
	__u32 by_client;
	/* Whose it is, for whoever takes the map over. */
	__u64 service;
	/* What is in it. */
	__u64 content;
};

/* An element of a service's map: indices into `backends`. */
struct steer_chunk {
	__u16 backends[STEER_CHUNK];
};

/* A backend in a tunnel. */
struct steer_backend {
	/* Of the outer header; IPv4 addresses in the first four bytes. */
	__u8 source[16];
	__u8 destination[16];
	/* Of the next hop, and of the interface. */
	__u8 macs[12];
	/* The tag's 12 bits, or 0. */
	__be16 vlan;
	/* The UDP port of GUE, or 0: IP in IP. */
	__be16 port;
	/* The interface, or 0: there is no way. */
	__u32 interface;
	/* The longest IP packet it takes. */
	__u16 mtu;
	/* Of the outer header, 4 or 6; 0 where there is no backend. */
	__u8 version;
	__u8 zero[9];
};

/* A flow as a client sends it. */
struct steer_flow {
	__u8 source[16];
	__u8 destination[16];
	__be16 source_port;
	__be16 destination_port;
	__u8 protocol;
	__u8 zero[3];
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
	/* From a backend to this host itself: the kernel gets it. */
	STEER_TO_HOST,
	/* No engine takes it: tunnelled to its backend by the program. */
	STEER_CARRIED,
	/* No engine takes it, and no backend of its service can be reached: the kernel gets it. */
	STEER_NO_WAY,
	/* No engine takes it, and it is too big for the tunnel: the kernel gets it. */
	STEER_TOO_BIG,
	/* No engine takes it, and it has no hop left: the kernel gets it. */
	STEER_TTL_EXCEEDED,
	STEER_COUNTERS,
};
