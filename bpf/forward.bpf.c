/* Passes IP packets on to one neighbour and does nothing else: no table, no counter, no checksum.
 * What a program that balances costs on top is what balancing costs; nothing in XDP is faster. */
#include "packet.h"

/* The interface to send on, or 0: everything goes to the kernel as it came. Set before loading. */
const volatile __u32 out;
/* The link-layer addresses to write: destination, source. */
const volatile __u8 macs[2 * ETH_ALEN];

SEC("xdp")
int lockstep_onward(struct xdp_md *ctx)
{
	void *end = (void *)(long)ctx->data_end;
	struct ethhdr *eth = (void *)(long)ctx->data;

	if (!out || (void *)(eth + 1) > end)
		return XDP_PASS;
	if (eth->h_proto != bpf_htons(ETH_P_IP) && eth->h_proto != bpf_htons(ETH_P_IPV6))
		return XDP_PASS;
#pragma unroll
	for (int i = 0; i < ETH_ALEN; i++) {
		eth->h_dest[i] = macs[i];
		eth->h_source[i] = macs[ETH_ALEN + i];
	}
	return bpf_redirect(out, 0);
}

char LICENSE[] SEC("license") = "Apache-2.0";
