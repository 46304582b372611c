/* The ABI between the load generator's program and what attaches it. `bpf/src/traffic.rs` says the
 * same in Rust; a test compares the two. */
#pragma once

#include <linux/types.h>

/* Addresses of one interface whose packets are taken. */
#define TRAFFIC_ADDRESSES 65536
/* Ranges of ports. */
#define TRAFFIC_RANGES 8
/* Queues of one interface that can have a socket. */
#define TRAFFIC_QUEUES 256

/* An address that packets are for. IPv4 addresses are mapped: ::ffff:a.b.c.d. */
struct traffic_key {
	__u8 address[16];
};

/* Index into the per-CPU `counters` map. */
enum traffic_counter {
	/* Handed to a socket. */
	TRAFFIC_REDIRECTED,
	/* None of the generator's: left to the kernel. */
	TRAFFIC_NOT_OURS,
	/* The generator's, but no socket is there for its queue: left to the kernel. */
	TRAFFIC_NO_SOCKET,
	TRAFFIC_COUNTERS,
};
