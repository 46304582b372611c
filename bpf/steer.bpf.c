/* Steers what is for one of our destinations into this queue's AF_XDP socket, with room in front
 * for a tunnel header. When no live engine is there to take it, the program carries the packets of
 * tunnelled services itself (carry.h). Everything else goes on to the kernel exactly as it came. */
#include "packet.h"
#include "steer.h"
#include "maps.h"
#include "carry.h"

/* Nanoseconds after which an agent that did not beat counts as hung. Set before loading. */
const volatile __u64 deadline_ns = 1000000000;

enum parsed {
	/* No address could be read. */
	PARSED_NOTHING,
	/* The key is complete; its port is 0 where the protocol has none. */
	PARSED_KEY,
	/* The address is known, but not what follows it. */
	PARSED_ADDRESS,
};

/* Bytes of an ICMP message in front of what it quotes, of both versions. */
#define ICMP_HEADER 8

/* Which end of a packet is looked at. */
enum end {
	DESTINATION,
	SOURCE,
};

struct ports {
	__be16 source;
	__be16 destination;
};

/* A request for an echo, or an error about a packet of a flow (RFC 792, RFC 4443). */
static __always_inline int icmp_is_ours(__u8 protocol, __u8 type, enum end looked_at)
{
	if (protocol == IPPROTO_ICMP)
		return type == 3 || type == 11 || type == 12 ||
		       (type == 8 && looked_at == DESTINATION);
	return (type >= 1 && type <= 4) || (type == 128 && looked_at == DESTINATION);
}

/* What every IPv6 extension header begins with (RFC 8200, section 4; RFC 4302 for AH). */
struct extension {
	__u8 next;
	__u8 length;
	__be16 fragment;
};

/* What was read of a packet: who it is for and whom it is from. */
struct packet {
	struct steer_key to;
	struct steer_key from;
	/* Whom a packet was for that an ICMP error may be about: what follows the message's header. */
	struct steer_key quoted;
	/* The type of an ICMP message. */
	__u8 icmp;
};

/* Whom the packet was for that an ICMP message of this version quotes (RFC 792, RFC 4443). Where the
 * message ends before the ports, it stays nobody: the unspecified address. So does what is neither TCP
 * nor UDP, and a fragment other than the first. Behind extension headers it counts as for every port
 * of its address, as ICMP does: following them is the engine's. */
static __always_inline void quoted(struct steer_key *key, void *at, void *end, __u8 protocol)
{
	struct iphdr *v4 = at;
	struct ipv6hdr *v6 = at;
	struct ports *ports;
	__u8 next;

	if (protocol == IPPROTO_ICMP) {
		if ((void *)(v4 + 1) > end || v4->frag_off & bpf_htons(0x1fff))
			return;
		next = v4->protocol;
		ports = at + v4->ihl * 4;
	} else {
		if ((void *)(v6 + 1) > end)
			return;
		next = v6->nexthdr;
		ports = (void *)(v6 + 1);
	}
	if (next == IPPROTO_TCP || next == IPPROTO_UDP) {
		if ((void *)(ports + 1) > end)
			return;
		key->port = ports->destination;
	} else if (protocol == IPPROTO_ICMPV6 &&
		   (next == IPPROTO_HOPOPTS || next == IPPROTO_ROUTING || next == IPPROTO_FRAGMENT ||
		    next == IPPROTO_DSTOPTS || next == IPPROTO_AH)) {
		next = IPPROTO_ICMPV6;
	} else {
		return;
	}
	key->protocol = next;
	if (protocol == IPPROTO_ICMP)
		map_v4(key->address, v4->daddr);
	else
		__builtin_memcpy(key->address, &v6->daddr, sizeof(key->address));
}

/* Puts the transport header at `at` into the keys. `left` is what the IP header says is there: an
 * Ethernet frame is padded to 60 bytes, and padding must not be read as ports. */
static __always_inline enum parsed transport(struct packet *packet, void *at, void *end, __s32 left,
					     __u8 protocol)
{
	struct ports *ports = at;
	__u8 *type = at;

	packet->to.protocol = protocol;
	packet->from.protocol = protocol;
	if (protocol == IPPROTO_ICMP || protocol == IPPROTO_ICMPV6) {
		if (left < 1 || (void *)(type + 1) > end)
			return PARSED_ADDRESS;
		packet->icmp = *type;
		quoted(&packet->quoted, at + ICMP_HEADER, end, protocol);
		return PARSED_KEY;
	}
	if (protocol != IPPROTO_TCP && protocol != IPPROTO_UDP)
		return PARSED_KEY;
	if (left < (__s32)sizeof(*ports) || (void *)(ports + 1) > end)
		return PARSED_ADDRESS;
	packet->to.port = ports->destination;
	packet->from.port = ports->source;
	return PARSED_KEY;
}

static __always_inline enum parsed ipv4(struct packet *packet, void *at, void *end)
{
	struct iphdr *ip = at;

	if ((void *)(ip + 1) > end || ip->version != 4)
		return PARSED_NOTHING;
	map_v4(packet->to.address, ip->daddr);
	map_v4(packet->from.address, ip->saddr);

	__u32 header = ip->ihl * 4;
	if (header < sizeof(*ip) || at + header > end)
		return PARSED_ADDRESS;
	/* The first fragment has ports, the others do not, and all of them must go one way: the engine
	 * tells the others by the first one. */
	if (ip->frag_off & bpf_htons(0x3fff))
		return PARSED_ADDRESS;
	return transport(packet, at + header, end, bpf_ntohs(ip->tot_len) - (__s32)header,
			 ip->protocol);
}

static __always_inline enum parsed ipv6(struct packet *packet, void *at, void *end)
{
	struct ipv6hdr *ip = at;

	if ((void *)(ip + 1) > end || ip->version != 6)
		return PARSED_NOTHING;
	__builtin_memcpy(packet->to.address, &ip->daddr, 16);
	__builtin_memcpy(packet->from.address, &ip->saddr, 16);

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
			return transport(packet, at, end, left, next);
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

static __always_inline struct steer_value *in_ranges(struct steer_key *key, __be16 port)
{
	struct steer_range range __attribute__((aligned(8))) = {
		.bits = 160,
		.protocol = key->protocol,
		.port = port,
	};

	__builtin_memcpy(range.address, key->address, sizeof(range.address));
	return bpf_map_lookup_elem(&ranges, &range);
}

/* The exact port beats a range, a range beats every port. */
static __always_inline struct steer_value *find(struct steer_key *key, enum parsed parsed,
						__u8 icmp)
{
	__be16 port = key->port;
	struct steer_value *value;

	if (parsed == PARSED_ADDRESS) {
		key->protocol = 0;
		key->port = 0;
		return bpf_map_lookup_elem(&destinations, key);
	}
	if ((key->protocol == IPPROTO_ICMP || key->protocol == IPPROTO_ICMPV6) &&
	    !icmp_is_ours(key->protocol, icmp, DESTINATION))
		return 0;
	value = bpf_map_lookup_elem(&destinations, key);
	if (value && !(value->flags & STEER_HAS_RANGES))
		return value;
	if (!value && port) {
		key->port = 0;
		value = bpf_map_lookup_elem(&destinations, key);
		if (!value)
			return 0;
	}
	if (!value)
		return 0;
	if (value->flags & STEER_HAS_RANGES) {
		struct steer_value *range = in_ranges(key, port);

		if (range)
			return range;
	}
	return value->flags & STEER_NO_DESTINATION ? 0 : value;
}

/* The backend of a service whose answers the engine rewrites. An ICMP error can also come from a
 * router on the way to one: it is about what the engine made of a client's packet, which no client
 * would know again. What others send there through this host, and the errors about it, are theirs. */
static __always_inline struct steer_value *answers(struct packet *packet, enum parsed parsed)
{
	struct steer_key *key = &packet->from;
	struct steer_value *value;

	if (parsed == PARSED_ADDRESS) {
		key->protocol = 0;
		key->port = 0;
	} else if (key->protocol == IPPROTO_ICMP || key->protocol == IPPROTO_ICMPV6) {
		if (!icmp_is_ours(key->protocol, packet->icmp, SOURCE))
			return 0;
		value = bpf_map_lookup_elem(&sources, key);
		if (value)
			return value;
		key = &packet->quoted;
	}
	value = bpf_map_lookup_elem(&sources, key);
	if (value || !key->port)
		return value;
	key->port = 0;
	return bpf_map_lookup_elem(&sources, key);
}

/* A hung agent must not blackhole what the kernel could still serve. The coarse clock lags by up
 * to a tick behind the one the agent reads, so a beat may lie in the future: hence signed. */
static __always_inline int stale(void)
{
	__u32 zero = 0;
	__u64 *beat = bpf_map_lookup_elem(&heartbeat, &zero);

	return !beat || (__s64)(bpf_ktime_get_coarse_ns() - *beat) > (__s64)deadline_ns;
}

/* Gives the frame the shape of ADR 1: both MAC addresses, the marker, `room` as a number, the VLAN
 * tag it came with, and `room` bytes from the Ethernet header to the IP header. 0 means it was left
 * as it came. */
static __always_inline int make_room(struct xdp_md *ctx, __u16 room, __u32 tags)
{
	struct marked {
		__u8 macs[2 * ETH_ALEN];
		__be16 ethertype;
		__be16 room;
		__be16 tag;
	} __attribute__((packed)) *frame;
	__u8 macs[2 * ETH_ALEN];
	__be16 tag = 0;

	frame = (void *)(long)ctx->data;
	if ((void *)(frame + 1) > (void *)(long)ctx->data_end)
		return 0;
	__builtin_memcpy(macs, frame->macs, sizeof(macs));
	/* Where the room's number will be is the tag's TCI. */
	if (tags)
		tag = tags == 1 ? frame->room : bpf_htons(STEER_SEVERAL_TAGS);

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
	frame->tag = tag;
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
	struct packet packet __attribute__((aligned(8))) = {};
	enum parsed parsed = PARSED_NOTHING;
	__u32 tags = 0;
	void *at;

	__be16 ethertype = link_layer(data, end, &at, &tags);
	if (ethertype == bpf_htons(ETH_P_IP))
		parsed = ipv4(&packet, at, end);
	else if (ethertype == bpf_htons(ETH_P_IPV6))
		parsed = ipv6(&packet, at, end);
	if (parsed == PARSED_NOTHING)
		return pass(STEER_NOT_OURS);

	/* Looking up takes the port out of a key; the one from the client stays whole. */
	__be16 port = packet.to.port;
	struct steer_value *value = find(&packet.to, parsed, packet.icmp);
	if (!value) {
		__u32 zero = 0;
		struct steer_config *config = bpf_map_lookup_elem(&config_map, &zero);

		if (!config || !config->sources)
			return pass(STEER_NOT_OURS);
		value = answers(&packet, parsed);
		if (!value)
			return pass(STEER_NOT_OURS);
		/* What this host asked a backend itself: health checks, say. */
		if (bpf_map_lookup_elem(&locals, packet.to.address))
			return pass(STEER_TO_HOST);
	}
	__u16 room = value->room;
	__u32 service = value->service;
	enum steer_counter why = STEER_STALE;

	if (!stale()) {
		why = STEER_NO_SOCKET;
		/* Asked before the frame is changed: what the kernel gets must be what came. */
		__u32 queue = ctx->rx_queue_index;
		if (bpf_map_lookup_elem(&xsks, &queue)) {
			if (room && !make_room(ctx, room, tags))
				return pass(STEER_NO_HEADROOM);
			/* The socket can have left since it was looked up. A frame that carries
			 * the marker by then is nothing the kernel could use, and on a bridge it
			 * would travel on. */
			int action = bpf_redirect_map(&xsks, queue, room ? XDP_DROP : XDP_PASS);
			count(&counters,
			      action == XDP_REDIRECT ? STEER_REDIRECTED : STEER_NO_SOCKET);
			return action;
		}
	}
	if (!service || parsed != PARSED_KEY)
		return pass(why);

	struct steer_flow flow __attribute__((aligned(8))) = {
		.source_port = packet.from.port,
		.destination_port = port,
		.protocol = packet.from.protocol,
	};
	__builtin_memcpy(flow.source, packet.from.address, 16);
	__builtin_memcpy(flow.destination, packet.to.address, 16);
	return carry(ctx, &flow, service, tags);
}

char LICENSE[] SEC("license") = "Apache-2.0";
