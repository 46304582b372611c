/* Takes what is for the load generator, its sink or its responder into the socket of the queue, so
 * that the kernel does not answer for them: TCP and UDP to some addresses and ports, and tunnels with
 * whatever they carry. Everything else, ARP and neighbor discovery included, goes on to the kernel. */
#include "packet.h"
#include "traffic.h"

/* Ports that are taken: from `low[i]` to `high[i]` of `protocol[i]`. Set before loading. */
const volatile __u16 low[TRAFFIC_RANGES];
const volatile __u16 high[TRAFFIC_RANGES];
const volatile __u8 protocol[TRAFFIC_RANGES];
/* How many of these there are. */
const volatile __u32 ranges;
/* Whether packets to every address are taken, and not only to those in `addresses`. */
const volatile __u8 any_address;
/* Whether IP in IP is taken. */
const volatile __u8 tunnels;

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, TRAFFIC_ADDRESSES);
	__type(key, struct traffic_key);
	__type(value, __u8);
} addresses SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_XSKMAP);
	__uint(max_entries, TRAFFIC_QUEUES);
	__type(key, __u32);
	__type(value, __u32);
} xsks SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, TRAFFIC_COUNTERS);
	__type(key, __u32);
	__type(value, __u64);
} counters SEC(".maps");

struct ports {
	__be16 source;
	__be16 destination;
};

/* Whether what follows the IP header is taken, as far as protocol and port tell. */
static __always_inline int port_is_ours(__u8 next, void *at, void *end)
{
	struct ports *ports = at;

	if (next == IPPROTO_IPIP || next == IPPROTO_IPV6)
		return tunnels;
	if ((next != IPPROTO_TCP && next != IPPROTO_UDP) || (void *)(ports + 1) > end)
		return 0;
	__u16 port = bpf_ntohs(ports->destination);
#pragma clang loop unroll(full)
	for (int i = 0; i < TRAFFIC_RANGES; i++) {
		if ((__u32)i < ranges && protocol[i] == next && port >= low[i] && port <= high[i])
			return 1;
	}
	return 0;
}

/* A fragment has no ports, or is not whole: the generator sends none and wants none. */
static __always_inline int ipv4(struct traffic_key *key, void *at, void *end)
{
	struct iphdr *ip = at;

	if ((void *)(ip + 1) > end || ip->version != 4 || ip->ihl < 5)
		return 0;
	if (ip->frag_off & bpf_htons(0x3fff))
		return 0;
	map_v4(key->address, ip->daddr);
	return port_is_ours(ip->protocol, at + ip->ihl * 4, end);
}

/* Nothing of ours has extension headers. */
static __always_inline int ipv6(struct traffic_key *key, void *at, void *end)
{
	struct ipv6hdr *ip = at;

	if ((void *)(ip + 1) > end || ip->version != 6)
		return 0;
	__builtin_memcpy(key->address, &ip->daddr, sizeof(key->address));
	return port_is_ours(ip->nexthdr, ip + 1, end);
}

SEC("xdp")
int lockstep_load(struct xdp_md *ctx)
{
	void *data = (void *)(long)ctx->data;
	void *end = (void *)(long)ctx->data_end;
	/* Aligned for the stores of whole words that clang makes of the copies. */
	struct traffic_key key __attribute__((aligned(8))) = {};
	__u32 tags = 0;
	int ours = 0;
	void *at;

	__be16 ethertype = link_layer(data, end, &at, &tags);
	if (ethertype == bpf_htons(ETH_P_IP))
		ours = ipv4(&key, at, end);
	else if (ethertype == bpf_htons(ETH_P_IPV6))
		ours = ipv6(&key, at, end);
	if (!ours || (!any_address && !bpf_map_lookup_elem(&addresses, &key))) {
		count(&counters, TRAFFIC_NOT_OURS);
		return XDP_PASS;
	}
	int action = bpf_redirect_map(&xsks, ctx->rx_queue_index, XDP_PASS);
	count(&counters, action == XDP_REDIRECT ? TRAFFIC_REDIRECTED : TRAFFIC_NO_SOCKET);
	return action;
}

char LICENSE[] SEC("license") = "Apache-2.0";
