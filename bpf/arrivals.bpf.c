/* Counts the IPv4 packets to some addresses and drops them, where the kernel first sees them: the end of a path to
 * measure, for as little of the sender's time as can be. */
#include "packet.h"

#include <linux/pkt_cls.h>

/* The addresses: their network and its mask, in network order. Set before loading. */
const volatile __be32 network;
const volatile __be32 mask;

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u64);
} counters SEC(".maps");

static __always_inline int arrived(void *data, void *end)
{
	struct ethhdr *eth = data;
	struct iphdr *ip = (void *)(eth + 1);

	if ((void *)(ip + 1) > end || eth->h_proto != bpf_htons(ETH_P_IP))
		return 0;
	if ((ip->daddr & mask) != network)
		return 0;
	count(&counters, 0);
	return 1;
}

/* Of a driver's frames, before there is an skb. */
SEC("xdp")
int lockstep_arrive(struct xdp_md *ctx)
{
	return arrived((void *)(long)ctx->data, (void *)(long)ctx->data_end) ? XDP_DROP : XDP_PASS;
}

/* Of skbs, which XDP would have copied before. */
SEC("tc")
int lockstep_ingress(struct __sk_buff *ctx)
{
	return arrived((void *)(long)ctx->data, (void *)(long)ctx->data_end) ? TC_ACT_SHOT
									     : TC_ACT_OK;
}

char LICENSE[] SEC("license") = "Apache-2.0";
