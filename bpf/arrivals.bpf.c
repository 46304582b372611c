/* Counts the IPv4 packets to some addresses and drops them, where a driver would first see them: the end of
 * a path to measure, for as little of the sender's time as the kernel can do it in. */
#include "packet.h"

/* The addresses: their network and its mask, in network order. Set before loading. */
const volatile __be32 network;
const volatile __be32 mask;

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u64);
} counters SEC(".maps");

SEC("xdp")
int lockstep_arrive(struct xdp_md *ctx)
{
	void *end = (void *)(long)ctx->data_end;
	struct ethhdr *eth = (void *)(long)ctx->data;
	struct iphdr *ip = (void *)(eth + 1);

	if ((void *)(ip + 1) > end || eth->h_proto != bpf_htons(ETH_P_IP))
		return XDP_PASS;
	if ((ip->daddr & mask) != network)
		return XDP_PASS;
	count(&counters, 0);
	return XDP_DROP;
}

char LICENSE[] SEC("license") = "Apache-2.0";
