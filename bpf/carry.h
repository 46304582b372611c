/* Carrying a packet to its backend without the engine: the same table, the same hash, the same
 * tunnel header, but no memory of flows. `engine/wire/src/flow.rs` and `ipip.rs` say the same in
 * Rust; `engine/src/agent/steering/carry/tests.rs` compares the two. */
#pragma once

#include <linux/udp.h>

#include "maps.h"

/* The words of the hash that chooses a backend, and of the one that makes flow labels and source
 * ports. Set before loading. */
const volatile __u64 selection_seed[8];
const volatile __u64 label_seed[8];

#define CARRY_TTL 64
#define IP_DF 0x4000

/* What the outer header takes over from the inner one. */
struct inner {
	__u16 length;
	__u8 protocol;
	/* DSCP and ECN. */
	__u8 ds_field;
	__u8 dont_fragment;
	__u8 ttl;
};

/* The product of two words in 128 bits. BPF multiplies 64 by 64 to the low 64 only. */
static __always_inline void wide(__u64 x, __u64 y, __u64 *low, __u64 *high)
{
	__u64 x0 = (__u32)x, x1 = x >> 32, y0 = (__u32)y, y1 = y >> 32;
	__u64 p00 = x0 * y0, p01 = x0 * y1, p10 = x1 * y0, p11 = x1 * y1;
	__u64 middle = (p00 >> 32) + (__u32)p01 + (__u32)p10;

	*low = middle << 32 | (__u32)p00;
	*high = p11 + (p01 >> 32) + (p10 >> 32) + (middle >> 32);
}

static __always_inline __u64 folded(__u64 x, __u64 y)
{
	__u64 low, high;

	wide(x, y, &low, &high);
	return low ^ high;
}

static __always_inline __u64 half(const __u8 *address)
{
	__u64 bits;

	__builtin_memcpy(&bits, address, sizeof(bits));
	return bpf_be64_to_cpu(bits);
}

static __always_inline __u32 quarter(const __u8 *address)
{
	__u32 bits;

	__builtin_memcpy(&bits, address, sizeof(bits));
	return bpf_ntohl(bits);
}

/* `FlowKey4::hash` and `FlowKey6::hash`. */
static __noinline __u64 flow_hash(const struct steer_flow *flow, int v6, int label)
{
	const volatile __u64 *seed = label ? label_seed : selection_seed;
	__u64 rest = (__u64)bpf_ntohs(flow->source_port) << 48 |
		     (__u64)bpf_ntohs(flow->destination_port) << 32 | flow->protocol;
	__u64 x, y, low, high;

	if (v6) {
		x = folded(half(flow->source) ^ seed[4], half(flow->source + 8) ^ seed[5]) ^ rest;
		y = folded(half(flow->destination) ^ seed[6], half(flow->destination + 8) ^ seed[7]);
	} else {
		x = (__u64)quarter(flow->source + 12) << 32 | quarter(flow->destination + 12);
		y = rest;
	}
	wide(x ^ seed[0], y ^ seed[1], &low, &high);
	return folded(low ^ seed[2], high ^ seed[3]);
}

/* The backend of a flow: the one it was given, if somebody wrote that down, else its hash's. */
static __always_inline struct steer_backend *choose(struct steer_flow *flow, int v6, __u32 service)
{
	__u32 zero = 0;
	__u32 number;
	__u32 *pin = bpf_map_lookup_elem(&pinned, flow);

	if (pin) {
		number = *pin;
		return bpf_map_lookup_elem(&backends, &number);
	}
	void *ring = bpf_map_lookup_elem(&rings, &service);
	if (!ring)
		return 0;
	struct steer_ring *head = bpf_map_lookup_elem(ring, &zero);
	if (!head || !head->entries)
		return 0;
	struct steer_flow client __attribute__((aligned(8))) = {};
	__builtin_memcpy(client.source, flow->source, sizeof(client.source));
	__u64 hash = flow_hash(head->by_client ? &client : flow, v6, 0);
	/* As `Maglev::lookup`. */
	__u32 at = ((hash >> 32) * head->entries) >> 32;
	__u32 element = 1 + at / STEER_CHUNK;
	struct steer_chunk *chunk = bpf_map_lookup_elem(ring, &element);
	if (!chunk)
		return 0;
	number = chunk->backends[at % STEER_CHUNK];
	return bpf_map_lookup_elem(&backends, &number);
}

/* Reads the header of the packet to be carried; 0 where it is not whole. */
static __always_inline int read_inner(struct inner *inner, void *at, void *end, int v6)
{
	if (v6) {
		struct ipv6hdr *ip = at;

		if ((void *)(ip + 1) > end)
			return 0;
		__u32 length = sizeof(*ip) + bpf_ntohs(ip->payload_len);
		if (length > 0xffff)
			return 0;
		inner->length = length;
		inner->protocol = IPPROTO_IPV6;
		inner->ds_field = ip->priority << 4 | ip->flow_lbl[0] >> 4;
		inner->dont_fragment = 1;
		inner->ttl = ip->hop_limit;
	} else {
		struct iphdr *ip = at;

		if ((void *)(ip + 1) > end)
			return 0;
		inner->length = bpf_ntohs(ip->tot_len);
		inner->protocol = IPPROTO_IPIP;
		inner->ds_field = ip->tos;
		inner->dont_fragment = (ip->frag_off & bpf_htons(IP_DF)) != 0;
		inner->ttl = ip->ttl;
	}
	return (__u64)(end - at) >= inner->length;
}

/* One hop less (RFC 1624, equation 3, for the checksum). */
static __always_inline void count_hop(void *at, void *end, int v6)
{
	if (v6) {
		struct ipv6hdr *ip = at;

		if ((void *)(ip + 1) <= end)
			ip->hop_limit--;
		return;
	}
	struct iphdr *ip = at;

	if ((void *)(ip + 1) > end)
		return;
	__u32 sum = bpf_ntohs(ip->check) + 0x100;

	ip->check = bpf_htons(sum + (sum >= 0xffff));
	ip->ttl--;
}

static __always_inline void write_v4(struct iphdr *ip, const struct steer_backend *backend,
				     const struct inner *inner, __u16 length)
{
	__u16 *words = (__u16 *)ip;
	__u32 sum = 0;

	ip->version = 4;
	ip->ihl = 5;
	ip->tos = inner->ds_field;
	ip->tot_len = bpf_htons(length);
	ip->id = inner->dont_fragment ? 0 : bpf_get_prandom_u32();
	ip->frag_off = inner->dont_fragment ? bpf_htons(IP_DF) : 0;
	ip->ttl = CARRY_TTL;
	ip->protocol = backend->port ? IPPROTO_UDP : inner->protocol;
	ip->check = 0;
	__builtin_memcpy(&ip->saddr, backend->source, 4);
	__builtin_memcpy(&ip->daddr, backend->destination, 4);
#pragma unroll
	for (int i = 0; i < 10; i++)
		sum += words[i];
	sum = (sum & 0xffff) + (sum >> 16);
	sum = (sum & 0xffff) + (sum >> 16);
	ip->check = ~sum;
}

static __always_inline void write_v6(struct ipv6hdr *ip, const struct steer_backend *backend,
				     const struct inner *inner, __u16 payload, __u64 label)
{
	__u32 bits = label >> 44;

	if (!bits)
		bits = 1;
	*(__be32 *)ip = bpf_htonl(6 << 28 | (__u32)inner->ds_field << 20 | bits);
	ip->payload_len = bpf_htons(payload);
	ip->nexthdr = backend->port ? IPPROTO_UDP : inner->protocol;
	ip->hop_limit = CARRY_TTL;
	__builtin_memcpy(&ip->saddr, backend->source, 16);
	__builtin_memcpy(&ip->daddr, backend->destination, 16);
}

/* GUE, variant 1: the packet directly behind UDP. */
static __always_inline void write_udp(struct udphdr *udp, const struct steer_backend *backend,
				      __u16 inner, __u64 label)
{
	udp->source = bpf_htons(0xc000 | (__u16)(label >> 50));
	udp->dest = backend->port;
	udp->len = bpf_htons(inner + sizeof(*udp));
	udp->check = 0;
}

/* Writes the link header; returns where the outer header begins, or 0. */
static __always_inline void *write_link(void *data, void *end, const struct steer_backend *backend)
{
	struct {
		__u8 macs[2 * ETH_ALEN];
		__be16 ethertype;
		struct vlan_tag tag;
	} __attribute__((packed)) *link = data;
	__be16 ethertype = bpf_htons(backend->version == 4 ? ETH_P_IP : ETH_P_IPV6);

	/* Longer than a link header without a tag, but an outer header follows in any case. */
	if ((void *)(link + 1) > end)
		return 0;
	__builtin_memcpy(link->macs, backend->macs, sizeof(link->macs));
	if (!backend->vlan) {
		link->ethertype = ethertype;
		return data + ETH_HLEN;
	}
	link->ethertype = bpf_htons(ETH_P_8021Q);
	link->tag.tci = backend->vlan;
	link->tag.ethertype = ethertype;
	return data + sizeof(*link);
}

static __always_inline int write_outer(void *at, void *end, const struct steer_backend *backend,
				       const struct inner *inner, __u64 label)
{
	__u16 udp_length = backend->port ? sizeof(struct udphdr) : 0;
	struct udphdr *udp;

	if (backend->version == 4) {
		struct iphdr *ip = at;

		if ((void *)(ip + 1) > end)
			return 0;
		write_v4(ip, backend, inner, sizeof(*ip) + udp_length + inner->length);
		udp = (void *)(ip + 1);
	} else {
		struct ipv6hdr *ip = at;

		if ((void *)(ip + 1) > end)
			return 0;
		write_v6(ip, backend, inner, udp_length + inner->length, label);
		udp = (void *)(ip + 1);
	}
	if (!udp_length)
		return 1;
	if ((void *)(udp + 1) > end)
		return 0;
	write_udp(udp, backend, inner->length, label);
	return 1;
}

static __always_inline int left_to_kernel(enum steer_counter why)
{
	count(&counters, why);
	return XDP_PASS;
}

/* Sends the packet of `flow` to its backend, or leaves it to the kernel as it came. `tags` are the
 * frame's VLAN tags. */
static __noinline int carry(struct xdp_md *ctx, struct steer_flow *flow, __u32 service, __u32 tags)
{
	void *data = (void *)(long)ctx->data;
	void *end = (void *)(long)ctx->data_end;
	struct inner inner = {};

	if (tags > MAX_VLANS)
		return left_to_kernel(STEER_NO_WAY);
	void *at = data + ETH_HLEN + tags * sizeof(struct vlan_tag);
	__u8 *version = at;
	if ((void *)(version + 1) > end)
		return left_to_kernel(STEER_NO_WAY);
	int v6 = *version >> 4 == 6;

	struct steer_backend *backend = choose(flow, v6, service);
	if (!backend || !backend->version || !backend->interface)
		return left_to_kernel(STEER_NO_WAY);
	if (!read_inner(&inner, at, end, v6))
		return left_to_kernel(STEER_NO_WAY);
	if (inner.ttl <= 1)
		return left_to_kernel(STEER_TTL_EXCEEDED);

	__u32 outer = backend->version == 4 ? sizeof(struct iphdr) : sizeof(struct ipv6hdr);
	if (backend->port)
		outer += sizeof(struct udphdr);
	if (inner.length + outer > backend->mtu)
		return left_to_kernel(STEER_TOO_BIG);
	__u32 link = ETH_HLEN + (backend->vlan ? sizeof(struct vlan_tag) : 0);
	__u64 label = backend->version == 6 || backend->port ? flow_hash(flow, v6, 1) : 0;

	if (bpf_xdp_adjust_head(ctx, (int)(ETH_HLEN + tags * sizeof(struct vlan_tag)) -
					     (int)(link + outer)))
		return left_to_kernel(STEER_NO_HEADROOM);
	data = (void *)(long)ctx->data;
	end = (void *)(long)ctx->data_end;
	count_hop(data + link + outer, end, v6);
	at = write_link(data, end, backend);
	/* Cannot fail, there was room for both; the verifier wants to see it. */
	if (!at || !write_outer(at, end, backend, &inner, label)) {
		count(&counters, STEER_NO_HEADROOM);
		return XDP_DROP;
	}
	count(&counters, STEER_CARRIED);
	return bpf_redirect(backend->interface, 0);
}
