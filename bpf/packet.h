/* What both programs need to walk over a frame. */
#pragma once

#include <linux/bpf.h>
#include <linux/if_ether.h>
#include <linux/in.h>
#include <linux/ip.h>
#include <linux/ipv6.h>

#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

/* Tags that are followed; STEER_MAX_VLANS is the same for the engine. */
#define MAX_VLANS 2

struct vlan_tag {
	__be16 tci;
	__be16 ethertype;
};

/* Sets `*at` behind the Ethernet header and its VLAN tags and `*tags` to their number; returns the
 * EtherType found there, in network order, or 0 where the frame ends first. 802.1Q and 802.1ad
 * tags; a third one stays the EtherType that is returned, which is not IP's. */
static __always_inline __be16 link_layer(void *data, void *end, void **at, __u32 *tags)
{
	struct ethhdr *eth = data;

	if ((void *)(eth + 1) > end)
		return 0;
	__be16 ethertype = eth->h_proto;
	struct vlan_tag *tag = (void *)(eth + 1);
	*tags = 0;
#pragma unroll
	for (int i = 0; i < MAX_VLANS; i++) {
		if (ethertype != bpf_htons(ETH_P_8021Q) && ethertype != bpf_htons(ETH_P_8021AD))
			break;
		if ((void *)(tag + 1) > end)
			return 0;
		ethertype = tag->ethertype;
		tag++;
		(*tags)++;
	}
	*at = tag;
	return ethertype;
}

/* ::ffff:a.b.c.d, the form in which maps hold IPv4 addresses. */
static __always_inline void map_v4(__u8 *address, __be32 v4)
{
	__builtin_memset(address, 0, 10);
	__builtin_memset(address + 10, 0xff, 2);
	__builtin_memcpy(address + 12, &v4, 4);
}

/* Adds one to `counter` of a per-CPU array; no other CPU writes there, so no atomic. */
static __always_inline void count(void *counters, __u32 counter)
{
	__u64 *value = bpf_map_lookup_elem(counters, &counter);

	if (value)
		(*value)++;
}
