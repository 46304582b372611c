/* Makes UDP packets of many flows and sends them from an interface, at a rate: run by the kernel over
 * frames of its own (BPF_F_TEST_XDP_LIVE_FRAMES), which come to whoever receives them as those of a
 * driver do, in a page and without an skb. */
#include "packet.h"

/* Packets that the kernel runs the program for before it sends them. */
#define BATCH 64
/* Source ports of each source address, and the first of them. */
#define PORTS 50000
#define FIRST_PORT 10000
/* What was not sent in time is not made up for when it is more than this, in nanoseconds. */
#define LATE 1000000
/* Looks at the clock for one batch: several times as many as a batch of the lowest rate takes. */
#define LOOKS (1 << 22)

struct headers {
	struct ethhdr eth;
	struct iphdr ip;
	__be16 source;
	__be16 destination;
	__be16 length;
	__be16 checksum;
} __attribute__((packed));

/* The interface to send from. Set before loading, as all of these. */
const volatile __u32 out;
/* What each packet begins with, but for its flow. Its addresses are rewritten by whoever forwards
 * it, in the same memory. */
const volatile __u16 first[sizeof(struct headers) / 2];
/* Flows, the time between the starts of two batches, and for how long, in nanoseconds. */
const volatile __u32 flows = 1;
const volatile __u64 interval;
const volatile __u64 duration;

/* Packets sent. */
__u64 sent;
/* When the first was, when the last batch was due, and when it was over. */
__u64 begin;
__u64 due;
__u64 end;
/* The next packet's flow. */
__u32 flow;

static long is_due(__u32 look, void *unused)
{
	(void)look;
	(void)unused;
	return bpf_ktime_get_ns() >= due;
}

/* Whether there is a batch to be sent: waits until it is due. */
static __always_inline int next_batch(void)
{
	__u64 now = bpf_ktime_get_ns();

	if (!begin)
		begin = due = now;
	else
		due += interval;
	if (now > due + LATE)
		due = now;
	if (due - begin >= duration) {
		/* The last batch has its time, too. */
		end = now > due ? now : due;
		return 0;
	}
	bpf_loop(LOOKS, is_due, 0, 0);
	return 1;
}

SEC("xdp")
int lockstep_offer(struct xdp_md *ctx)
{
	void *behind = (void *)(long)ctx->data_end;
	struct headers *to = (void *)(long)ctx->data;

	if (end || (void *)(to + 1) > behind)
		return XDP_DROP;
	if (sent % BATCH == 0 && !next_batch())
		return XDP_DROP;
	__u16 *half = (void *)to;
#pragma unroll
	for (unsigned int i = 0; i < sizeof(struct headers) / 2; i++)
		half[i] = first[i];
	__u32 host = flow / PORTS;
	if (host) {
		__u32 address = bpf_ntohl(to->ip.saddr);
		/* RFC 1624, equation 3, for the half that changes: fewer hosts than it has numbers. */
		__u32 sum = (__u16)~bpf_ntohs(to->ip.check) + (__u16)~address + (__u16)(address + host);
		sum = (sum & 0xffff) + (sum >> 16);
		sum = (sum & 0xffff) + (sum >> 16);
		to->ip.check = bpf_htons(~sum);
		to->ip.saddr = bpf_htonl(address + host);
	}
	to->source = bpf_htons(FIRST_PORT + flow % PORTS);
	flow = flow + 1 < flows ? flow + 1 : 0;
	sent++;
	return bpf_redirect(out, 0);
}

char LICENSE[] SEC("license") = "Apache-2.0";
