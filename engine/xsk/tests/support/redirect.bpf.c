/* What the tests attach: frames of the local experimental EtherType go to this queue's socket,
 * all others to the kernel (IPv6 announces itself on every new interface). Needs no libbpf
 * headers. */
#include <linux/bpf.h>

#define SEC(name) __attribute__((section(name), used))
#define ROOM 20

static long (*redirect_map)(void *map, __u64 key, __u64 flags) = (void *)BPF_FUNC_redirect_map;
static long (*adjust_head)(struct xdp_md *ctx, int delta) = (void *)BPF_FUNC_xdp_adjust_head;

struct {
	int (*type)[BPF_MAP_TYPE_XSKMAP];
	int (*max_entries)[64];
	__u32 *key;
	__u32 *value;
} sockets SEC(".maps");

static __attribute__((always_inline)) int ours(struct xdp_md *ctx)
{
	unsigned char *data = (void *)(long)ctx->data;
	unsigned char *end = (void *)(long)ctx->data_end;

	return data + 14 <= end && data[12] == 0x88 && data[13] == 0xb5;
}

SEC("xdp") int redirect(struct xdp_md *ctx)
{
	if (!ours(ctx))
		return XDP_PASS;
	return redirect_map(&sockets, ctx->rx_queue_index, XDP_PASS);
}

SEC("xdp") int redirect_with_room(struct xdp_md *ctx)
{
	if (!ours(ctx))
		return XDP_PASS;
	if (adjust_head(ctx, -ROOM))
		return XDP_DROP;
	return redirect_map(&sockets, ctx->rx_queue_index, XDP_PASS);
}
