/* Ends tunnels on a real server whose kernel has no driver for them: IPv4 or IPv6 in IPv4 or IPv6
 * (RFC 2003, RFC 2473, RFC 4213), or the same behind UDP (GUE variant 1, draft-ietf-intarea-gue),
 * where the outer destination is one of `addresses`. The inner packet goes on to the kernel under
 * the Ethernet header and VLAN tags of the outer one. */
#include <linux/udp.h>

#include "decap.h"
#include "packet.h"

/* The UDP port that GUE tunnels end at, or 0: none do. Set before loading. */
const volatile __u16 gue_port;

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, DECAP_ADDRESSES);
	__type(key, struct decap_key);
	__type(value, __u8);
} addresses SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, DECAP_COUNTERS);
	__type(key, __u32);
	__type(value, __u64);
} counters SEC(".maps");

/* The two ECN bits of the traffic class (RFC 3168, section 5). */
enum ecn {
	ECN_NONE = 0,
	ECN_ECT1 = 1,
	ECN_ECT0 = 2,
	ECN_CE = 3,
};

/* The tunnel's end is a struct of its own: the verifier forgets what it knows about the length of a
 * header that lies beside a key whose address a helper takes. */
struct outer {
	/* Bytes of the outer IP header. */
	__u32 header;
	/* The protocol it carries. */
	__u8 protocol;
	__u8 ecn;
};

/* Reads an outer IPv4 header; 0 where it is not one of a whole tunnelled packet. */
static __always_inline int outer_v4(struct outer *outer, struct decap_key *to, void *at,
				    void *end)
{
	struct iphdr *ip = at;

	if ((void *)(ip + 1) > end || ip->version != 4 || ip->ihl < 5)
		return 0;
	/* The kernel would have to put fragments together first; the balancer sends none. */
	if (ip->frag_off & bpf_htons(0x3fff))
		return 0;
	outer->header = ip->ihl * 4;
	outer->protocol = ip->protocol;
	outer->ecn = ip->tos & ECN_CE;
	map_v4(to->address, ip->daddr);
	return 1;
}

/* Reads an outer IPv6 header. One with extension headers is not ours: the balancer sends none, not
 * even the encapsulation limit of RFC 2473. */
static __always_inline int outer_v6(struct outer *outer, struct decap_key *to, void *at,
				    void *end)
{
	struct ipv6hdr *ip = at;

	if ((void *)(ip + 1) > end || ip->version != 6)
		return 0;
	outer->header = sizeof(*ip);
	outer->protocol = ip->nexthdr;
	outer->ecn = (ip->flow_lbl[0] >> 4) & ECN_CE;
	__builtin_memcpy(to->address, &ip->daddr, sizeof(to->address));
	return 1;
}

/* Whether the outer header carries GUE for us. Its variant 1 is the packet itself, so what follows
 * is told by the IP version in its first bits; the variant's own bits, 01, are a part of those. */
static __always_inline int behind_udp(struct outer *outer, void *at, void *end)
{
	struct udphdr *udp = at + outer->header;
	__u8 *version = (void *)(udp + 1);

	if ((void *)(version + 1) > end || udp->dest != bpf_htons(gue_port))
		return 0;
	outer->protocol = *version >> 4 == 4 ? IPPROTO_IPIP : IPPROTO_IPV6;
	outer->header += sizeof(*udp);
	return 1;
}

/* The inner ECN bits after decapsulation (RFC 6040, figure 4), or -1: drop the packet. */
static __always_inline int decapsulated_ecn(__u8 inner, __u8 outer)
{
	if (outer == ECN_CE)
		return inner == ECN_NONE ? -1 : ECN_CE;
	if (outer == ECN_ECT1 && inner == ECN_ECT0)
		return ECN_ECT1;
	return inner;
}

/* Sets the ECN bits of an inner IPv4 header and corrects its checksum (RFC 1624, equation 3). */
static __always_inline void set_ecn_v4(struct iphdr *ip, __u8 ecn)
{
	__u8 tos = (ip->tos & ~ECN_CE) | ecn;
	/* Version and header length share the 16-bit word and cancel out. */
	__u32 sum = (__u16)~ip->check + (__u16)~bpf_htons(ip->tos) + bpf_htons(tos);

	sum = (sum & 0xffff) + (sum >> 16);
	sum = (sum & 0xffff) + (sum >> 16);
	ip->check = (__u16)~sum;
	ip->tos = tos;
}

enum inner {
	INNER_GOOD,
	INNER_MALFORMED,
	INNER_CONGESTED,
};

/* Checks that an IP header of the version that `protocol` promises is there, and merges ECN. */
static __always_inline enum inner inner(void *at, void *end, __u8 protocol, __u8 outer_ecn)
{
	if (protocol == IPPROTO_IPIP) {
		struct iphdr *ip = at;

		if ((void *)(ip + 1) > end || ip->version != 4 || ip->ihl < 5)
			return INNER_MALFORMED;
		__u8 was = ip->tos & ECN_CE;
		int ecn = decapsulated_ecn(was, outer_ecn);
		if (ecn < 0)
			return INNER_CONGESTED;
		if (ecn != was)
			set_ecn_v4(ip, ecn);
	} else {
		struct ipv6hdr *ip = at;

		if ((void *)(ip + 1) > end || ip->version != 6)
			return INNER_MALFORMED;
		__u8 was = (ip->flow_lbl[0] >> 4) & ECN_CE;
		int ecn = decapsulated_ecn(was, outer_ecn);
		if (ecn < 0)
			return INNER_CONGESTED;
		ip->flow_lbl[0] = (ip->flow_lbl[0] & ~(ECN_CE << 4)) | (ecn << 4);
	}
	return INNER_GOOD;
}

struct link {
	__u8 macs[2 * ETH_ALEN];
	__be16 ethertype;
	struct vlan_tag tags[MAX_VLANS];
} __attribute__((packed));

/* Takes `outer` bytes out between the link-layer header, which stays with its tags, and what
 * follows. The header is read at its longest, which behind a shorter one reaches into the IP
 * header; only as much is written back as there were tags. */
static __always_inline int strip(struct xdp_md *ctx, __u32 outer, __u32 tags, __be16 carried)
{
	struct link *frame = (void *)(long)ctx->data;
	struct link link;

	if ((void *)(frame + 1) > (void *)(long)ctx->data_end)
		return 0;
	__builtin_memcpy(&link, frame, sizeof(link));
	if (bpf_xdp_adjust_head(ctx, outer))
		return 0;
	frame = (void *)(long)ctx->data;
	/* Cannot happen, an inner IP header follows; the verifier wants to see it. */
	if ((void *)(frame + 1) > (void *)(long)ctx->data_end)
		return 0;
	__builtin_memcpy(frame->macs, link.macs, sizeof(frame->macs));
	if (tags == 0) {
		frame->ethertype = carried;
		return 1;
	}
	frame->ethertype = link.ethertype;
	frame->tags[0].tci = link.tags[0].tci;
	if (tags == 1) {
		frame->tags[0].ethertype = carried;
		return 1;
	}
	frame->tags[0].ethertype = link.tags[0].ethertype;
	frame->tags[1].tci = link.tags[1].tci;
	frame->tags[1].ethertype = carried;
	return 1;
}

static __always_inline int verdict(int action, enum decap_counter why)
{
	count(&counters, why);
	return action;
}

SEC("xdp")
int lockstep_decap(struct xdp_md *ctx)
{
	void *data = (void *)(long)ctx->data;
	void *end = (void *)(long)ctx->data_end;
	/* Aligned for the stores of whole words that clang makes of the copies. */
	struct decap_key to __attribute__((aligned(8))) = {};
	struct outer outer = {};
	__u32 tags = 0;
	void *at;
	int whole = 0;

	__be16 ethertype = link_layer(data, end, &at, &tags);
	if (ethertype == bpf_htons(ETH_P_IP))
		whole = outer_v4(&outer, &to, at, end);
	else if (ethertype == bpf_htons(ETH_P_IPV6))
		whole = outer_v6(&outer, &to, at, end);
	if (!whole)
		return verdict(XDP_PASS, DECAP_PASSED);
	if (outer.protocol == IPPROTO_UDP && gue_port) {
		if (!behind_udp(&outer, at, end))
			return verdict(XDP_PASS, DECAP_PASSED);
	} else if (outer.protocol != IPPROTO_IPIP && outer.protocol != IPPROTO_IPV6) {
		return verdict(XDP_PASS, DECAP_PASSED);
	}
	if (!bpf_map_lookup_elem(&addresses, &to))
		return verdict(XDP_PASS, DECAP_PASSED);

	switch (inner(at + outer.header, end, outer.protocol, outer.ecn)) {
	case INNER_MALFORMED:
		return verdict(XDP_PASS, DECAP_MALFORMED);
	case INNER_CONGESTED:
		return verdict(XDP_DROP, DECAP_CONGESTED);
	case INNER_GOOD:
		break;
	}
	__be16 carried = bpf_htons(outer.protocol == IPPROTO_IPIP ? ETH_P_IP : ETH_P_IPV6);
	if (!strip(ctx, outer.header, tags, carried))
		return verdict(XDP_PASS, DECAP_MALFORMED);
	return verdict(XDP_PASS, DECAP_DECAPSULATED);
}

char LICENSE[] SEC("license") = "Apache-2.0";
