/* Steers what is for one of our destinations into this queue's AF_XDP socket, with room in front
 * for a tunnel header; everything else, and everything when no live engine is there to take it,
 * goes on to the kernel exactly as it came. */
#include "packet.h"
#include "steer.h"

/* Nanoseconds after which an agent that did not beat counts as hung. Set before loading. */
const volatile __u64 deadline_ns = 1000000000;

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, STEER_DESTINATIONS);
	__type(key, struct steer_key);
	__type(value, struct steer_value);
} destinations SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_XSKMAP);
	__uint(max_entries, STEER_QUEUES);
	__type(key, __u32);
	__type(value, __u32);
} xsks SEC(".maps");

/* CLOCK_MONOTONIC of the agent's last beat, in nanoseconds. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u64);
} heartbeat SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, STEER_COUNTERS);
	__type(key, __u32);
	__type(value, __u64);
} counters SEC(".maps");

enum parsed {
	/* No address could be read. */
	PARSED_NOTHING,
	/* The key is complete; its port is 0 where the protocol has none. */
	PARSED_KEY,
	/* The address is known, but not what follows it. */
	PARSED_ADDRESS,
};

struct ports {
	__be16 source;
	__be16 destination;
};

/* What every IPv6 extension header begins with (RFC 8200, section 4; RFC 4302 for AH). */
struct extension {
	__u8 next;
	__u8 length;
	__be16 fragment;
};

/* Puts the transport header at `at` into the key. `left` is what the IP header says is there: an
 * Ethernet frame is padded to 60 bytes, and padding must not be read as ports. */
static __always_inline enum parsed transport(struct steer_key *key, void *at, void *end, __s32 left,
					     __u8 protocol)
{
	struct ports *ports = at;

	key->protocol = protocol;
	if (protocol != IPPROTO_TCP && protocol != IPPROTO_UDP)
		return PARSED_KEY;
	if (left < (__s32)sizeof(*ports) || (void *)(ports + 1) > end)
		return PARSED_ADDRESS;
	key->port = ports->destination;
	return PARSED_KEY;
}

static __always_inline enum parsed ipv4(struct steer_key *key, void *at, void *end)
{
	struct iphdr *ip = at;

	if ((void *)(ip + 1) > end || ip->version != 4)
		return PARSED_NOTHING;
	map_v4(key->address, ip->daddr);

	__u32 header = ip->ihl * 4;
	if (header < sizeof(*ip) || at + header > end)
		return PARSED_ADDRESS;
	/* The first fragment has ports, but the engine could not match the others to it. */
	if (ip->frag_off & bpf_htons(0x3fff))
		return PARSED_ADDRESS;
	return transport(key, at + header, end, bpf_ntohs(ip->tot_len) - (__s32)header, ip->protocol);
}

static __always_inline enum parsed ipv6(struct steer_key *key, void *at, void *end)
{
	struct ipv6hdr *ip = at;

	if ((void *)(ip + 1) > end || ip->version != 6)
		return PARSED_NOTHING;
	__builtin_memcpy(key->address, &ip->daddr, sizeof(key->address));

	__u8 next = ip->nexthdr;
	__s32 left = bpf_ntohs(ip->payload_len);
	at = ip + 1;
	/* Unrolled: clang closes this loop by falling through to its head, which the verifier of
	 * Linux 6.1 (Debian 12) takes for endless. */
#pragma clang loop unroll(full)
	for (int i = 0; i <= STEER_MAX_EXTENSIONS; i++) {
		struct extension *extension = at;
		__u32 length;

		switch (next) {
		case IPPROTO_HOPOPTS:
		case IPPROTO_ROUTING:
		case IPPROTO_DSTOPTS:
		case IPPROTO_FRAGMENT:
		case IPPROTO_AH:
			break;
		default:
			return transport(key, at, end, left, next);
		}
		if (i == STEER_MAX_EXTENSIONS || (void *)(extension + 1) > end)
			return PARSED_ADDRESS;
		if (next == IPPROTO_FRAGMENT) {
			/* Offset or M flag set; an atomic fragment (RFC 6946) is a whole packet. */
			if (extension->fragment & bpf_htons(0xfff9))
				return PARSED_ADDRESS;
			length = 8;
		} else if (next == IPPROTO_AH) {
			length = (extension->length + 2) * 4;
		} else {
			length = (extension->length + 1) * 8;
		}
		next = extension->next;
		at += length;
		left -= length;
		if (at > end)
			return PARSED_ADDRESS;
	}
	return PARSED_ADDRESS;
}

static __always_inline struct steer_value *find(struct steer_key *key, enum parsed parsed)
{
	if (parsed == PARSED_KEY) {
		struct steer_value *value = bpf_map_lookup_elem(&destinations, key);

		if (value || !key->port)
			return value;
	} else {
		key->protocol = 0;
	}
	key->port = 0;
	return bpf_map_lookup_elem(&destinations, key);
}

/* A hung agent must not blackhole what the kernel could still serve. The coarse clock lags by up
 * to a tick behind the one the agent reads, so a beat may lie in the future: hence signed. */
static __always_inline int stale(void)
{
	__u32 zero = 0;
	__u64 *beat = bpf_map_lookup_elem(&heartbeat, &zero);

	return !beat || (__s64)(bpf_ktime_get_coarse_ns() - *beat) > (__s64)deadline_ns;
}

/* Gives the frame the shape of ADR 1: both MAC addresses, the marker, `room` as a number, and
 * `room` bytes from the Ethernet header to the IP header. 0 means it was left as it came. */
static __always_inline int make_room(struct xdp_md *ctx, __u16 room, __u32 tags)
{
	struct marked {
		__u8 macs[2 * ETH_ALEN];
		__be16 ethertype;
		__be16 room;
	} __attribute__((packed)) *frame;
	__u8 macs[2 * ETH_ALEN];

	frame = (void *)(long)ctx->data;
	if ((void *)(frame + 1) > (void *)(long)ctx->data_end)
		return 0;
	__builtin_memcpy(macs, frame->macs, sizeof(macs));

	/* The tags go, so their bytes are room already. */
	if (bpf_xdp_adjust_head(ctx, (int)(tags * sizeof(struct vlan_tag)) - (int)room))
		return 0;
	frame = (void *)(long)ctx->data;
	/* Cannot happen, the frame holds an IP header; the verifier wants to see it. */
	if ((void *)(frame + 1) > (void *)(long)ctx->data_end)
		return 0;
	__builtin_memcpy(frame->macs, macs, sizeof(macs));
	frame->ethertype = bpf_htons(STEER_ETHERTYPE);
	frame->room = bpf_htons(room);
	return 1;
}

static __always_inline int pass(enum steer_counter why)
{
	count(&counters, why);
	return XDP_PASS;
}

SEC("xdp")
int lockstep_steer(struct xdp_md *ctx)
{
	void *data = (void *)(long)ctx->data;
	void *end = (void *)(long)ctx->data_end;
	/* Aligned for the stores of whole words that clang makes of the copies. */
	struct steer_key key __attribute__((aligned(8))) = {};
	enum parsed parsed = PARSED_NOTHING;
	__u32 tags = 0;
	void *at;

	__be16 ethertype = link_layer(data, end, &at, &tags);
	if (ethertype == bpf_htons(ETH_P_IP))
		parsed = ipv4(&key, at, end);
	else if (ethertype == bpf_htons(ETH_P_IPV6))
		parsed = ipv6(&key, at, end);
	if (parsed == PARSED_NOTHING)
		return pass(STEER_NOT_OURS);

	struct steer_value *value = find(&key, parsed);
	if (!value)
		return pass(STEER_NOT_OURS);
	__u16 room = value->room;

	if (stale())
		return pass(STEER_STALE);
	/* Asked before the frame is changed: what the kernel gets must be what came. */
	__u32 queue = ctx->rx_queue_index;
	if (!bpf_map_lookup_elem(&xsks, &queue))
		return pass(STEER_NO_SOCKET);
	if (room && !make_room(ctx, room, tags))
		return pass(STEER_NO_HEADROOM);

	/* The socket can have left since it was looked up. A frame that carries the marker by then
	 * is nothing the kernel could use, and on a bridge it would travel on. */
	int action = bpf_redirect_map(&xsks, queue, room ? XDP_DROP : XDP_PASS);
	count(&counters, action == XDP_REDIRECT ? STEER_REDIRECTED : STEER_NO_SOCKET);
	return action;
}

char LICENSE[] SEC("license") = "Apache-2.0";
