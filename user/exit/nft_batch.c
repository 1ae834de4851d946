/* SPDX-License-Identifier: BSD-2-Clause */
/* Messages of one transaction of nftables. */
#include "exit/nft_batch.h"

#include <errno.h>
#include <libmnl/libmnl.h>
#include <libnftnl/batch.h>
#include <libnftnl/chain.h>
#include <libnftnl/expr.h>
#include <libnftnl/object.h>
#include <libnftnl/rule.h>
#include <libnftnl/set.h>
#include <libnftnl/table.h>
#include <libnftnl/udata.h>
#include <linux/netfilter.h>
#include <linux/netfilter/nf_tables.h>
#include <linux/netfilter/nfnetlink.h>
#include <stdlib.h>
#include <string.h>

#include "base/syscalls.h"
#include "exit/internal.h"

SYSCALLS(SYSCALLS_EXIT, "sendmsg recvfrom setsockopt");

#define PAGE     ((uint32_t)1 << 16) /* of a batch */
#define ROOM_MAX (8 << 20) /* bytes of a transaction */
#define ELEMENTS 500 /* of a set in one message: an attribute has 64 KiB */
#define CODE_V4  13 /* communication administratively prohibited */
#define CODE_V6  5 /* source address failed ingress policy, RFC 4443 3.1 */
#define REG      NFT_REG_1

/* nft(8) shows the values of a set by these numbers of its own. */
#define TYPE_IPV4 7
#define TYPE_IPV6 8
#define TYPE_NAME 41 /* of a link */
#define TYPE_BITS 6 /* of each in a pair's */

#define ORDER_HOST 1 /* of bytes, also its own number */

#define PAIR_MS 1000 /* that a pair of addresses is remembered */

void batch_room(struct mnl_socket *socket)
{
	const int room = ROOM_MAX;
	int on = 1;

	/* An error does not bring back what caused it. */
	mnl_socket_setsockopt(socket, NETLINK_CAP_ACK, &on, sizeof(on));

	setsockopt(mnl_socket_get_fd(socket), SOL_SOCKET, SO_SNDBUFFORCE, &room,
		   sizeof(room));
	setsockopt(mnl_socket_get_fd(socket), SOL_SOCKET, SO_RCVBUFFORCE, &room,
		   sizeof(room));
}

static struct nlmsghdr *message_begin(struct nft_batch *batch, uint16_t type,
				      uint16_t flags)
{
	return nftnl_nlmsg_build_hdr(nftnl_batch_buffer(batch->messages), type,
				     batch->family, flags, ++*batch->sequence);
}

static void message_end(struct nft_batch *batch)
{
	if (nftnl_batch_update(batch->messages) < 0)
		batch->error = -ENOMEM;
}

int batch_begin(struct nft_batch *batch, uint32_t generation)
{
	struct nlmsghdr *msg;

	batch->messages = nftnl_batch_alloc(PAGE, PAGE);
	if (!batch->messages)
		return -ENOMEM;
	msg = nftnl_batch_begin(nftnl_batch_buffer(batch->messages),
				++*batch->sequence);
	mnl_attr_put_u32(msg, NFNL_BATCH_GENID, htonl(generation));
	message_end(batch);
	return 0;
}

void batch_end(struct nft_batch *batch)
{
	nftnl_batch_end(nftnl_batch_buffer(batch->messages),
			++*batch->sequence);
	message_end(batch);
}

void batch_free(struct nft_batch *batch)
{
	nftnl_batch_free(batch->messages);
}

static void table_put(struct nft_batch *batch, uint16_t type, uint16_t flags,
		      struct nftnl_table *table)
{
	nftnl_table_set_str(table, NFTNL_TABLE_NAME, batch->table);
	nftnl_table_nlmsg_build_payload(message_begin(batch, type, flags),
					table);
	message_end(batch);
}

void batch_table_add(struct nft_batch *batch, const char *comment, bool tell)
{
	struct nftnl_table *table = nftnl_table_alloc();
	struct nftnl_udata_buf *data = nftnl_udata_buf_alloc(256);

	if (!table || !data) {
		batch->error = -ENOMEM;
	} else {
		nftnl_udata_put_strz(data, NFTNL_UDATA_TABLE_COMMENT, comment);
		nftnl_table_set_data(table, NFTNL_TABLE_USERDATA,
				     nftnl_udata_buf_data(data),
				     nftnl_udata_buf_len(data));
		nftnl_table_set_u32(table, NFTNL_TABLE_FLAGS, batch->flags);
		table_put(batch, NFT_MSG_NEWTABLE,
			  NLM_F_CREATE | (tell ? NLM_F_ACK : 0), table);
	}
	nftnl_udata_buf_free(data);
	nftnl_table_free(table);
}

static void table_remove(struct nft_batch *batch)
{
	struct nftnl_table *table = nftnl_table_alloc();

	if (table)
		table_put(batch, NFT_MSG_DELTABLE, 0, table);
	else
		batch->error = -ENOMEM;
	nftnl_table_free(table);
}

/* What is removed must be there, and what is there is added only with its own flags. */
void batch_table_clear(struct nft_batch *batch, const char *comment, bool tell)
{
	uint32_t flags = batch->flags;

	batch->flags = batch->before[batch->family == NFPROTO_IPV6];
	batch_table_add(batch, comment, tell);
	batch->flags = flags;
	table_remove(batch);
}

static struct nftnl_chain *chain_new(struct nft_batch *batch, const char *name)
{
	struct nftnl_chain *chain = nftnl_chain_alloc();

	if (!chain) {
		batch->error = -ENOMEM;
		return NULL;
	}
	nftnl_chain_set_str(chain, NFTNL_CHAIN_TABLE, batch->table);
	nftnl_chain_set_str(chain, NFTNL_CHAIN_NAME, name);
	return chain;
}

static void chain_put(struct nft_batch *batch, struct nftnl_chain *chain)
{
	nftnl_chain_nlmsg_build_payload(
		message_begin(batch, NFT_MSG_NEWCHAIN, NLM_F_CREATE), chain);
	message_end(batch);
	nftnl_chain_free(chain);
}

void batch_chain(struct nft_batch *batch, const char *name)
{
	struct nftnl_chain *chain = chain_new(batch, name);

	if (chain)
		chain_put(batch, chain);
}

void batch_chain_hooked(struct nft_batch *batch, const char *name,
			uint32_t hook, int32_t priority)
{
	struct nftnl_chain *chain = chain_new(batch, name);

	if (!chain)
		return;
	nftnl_chain_set_str(chain, NFTNL_CHAIN_TYPE, "filter");
	nftnl_chain_set_u32(chain, NFTNL_CHAIN_HOOKNUM, hook);
	nftnl_chain_set_s32(chain, NFTNL_CHAIN_PRIO, priority);
	nftnl_chain_set_u32(chain, NFTNL_CHAIN_POLICY, NF_ACCEPT);
	chain_put(batch, chain);
}

void batch_counter(struct nft_batch *batch, const char *name)
{
	struct nftnl_obj *counter = nftnl_obj_alloc();

	if (!counter) {
		batch->error = -ENOMEM;
		return;
	}
	nftnl_obj_set_str(counter, NFTNL_OBJ_TABLE, batch->table);
	nftnl_obj_set_str(counter, NFTNL_OBJ_NAME, name);
	nftnl_obj_set_u32(counter, NFTNL_OBJ_TYPE, NFT_OBJECT_COUNTER);
	nftnl_obj_nlmsg_build_payload(
		message_begin(batch, NFT_MSG_NEWOBJ, NLM_F_CREATE), counter);
	message_end(batch);
	nftnl_obj_free(counter);
}

static struct nftnl_set *set_new(struct nft_batch *batch, const char *name)
{
	struct nftnl_set *set = nftnl_set_alloc();

	if (!set) {
		batch->error = -ENOMEM;
		return NULL;
	}
	nftnl_set_set_str(set, NFTNL_SET_TABLE, batch->table);
	nftnl_set_set_str(set, NFTNL_SET_NAME, name);
	nftnl_set_set_u32(set, NFTNL_SET_FAMILY, batch->family);
	return set;
}

static void set_put(struct nft_batch *batch, struct nftnl_set *set)
{
	nftnl_set_set_u32(set, NFTNL_SET_ID, ++*batch->sequence);
	nftnl_set_nlmsg_build_payload(
		message_begin(batch, NFT_MSG_NEWSET, NLM_F_CREATE), set);
	message_end(batch);
	nftnl_set_free(set);
}

void batch_set(struct nft_batch *batch, const char *name, sa_family_t family,
	       uint32_t most, bool map)
{
	struct nftnl_set *set = set_new(batch, name);
	bool v6 = family == AF_INET6;

	if (!set)
		return;
	nftnl_set_set_u32(set, NFTNL_SET_FLAGS,
			  (most ? 0 : NFT_SET_INTERVAL) |
				  (map ? NFT_SET_MAP : 0));
	nftnl_set_set_u32(set, NFTNL_SET_KEY_TYPE, v6 ? TYPE_IPV6 : TYPE_IPV4);
	nftnl_set_set_u32(set, NFTNL_SET_KEY_LEN, v6 ? 16 : 4);
	if (map)
		nftnl_set_set_u32(set, NFTNL_SET_DATA_TYPE, NFT_DATA_VERDICT);
	if (most)
		nftnl_set_set_u32(set, NFTNL_SET_DESC_SIZE, most);
	set_put(batch, set);
}

void batch_links(struct nft_batch *batch, const char *name, uint32_t most,
		 bool map)
{
	struct nftnl_udata_buf *data = nftnl_udata_buf_alloc(64);
	struct nftnl_set *set = set_new(batch, name);

	if (!set || !data) {
		batch->error = -ENOMEM;
		nftnl_udata_buf_free(data);
		nftnl_set_free(set);
		return;
	}
	/* For nft(8), which shows no names otherwise. */
	nftnl_udata_put_u32(data, NFTNL_UDATA_SET_KEYBYTEORDER, ORDER_HOST);
	nftnl_set_set_data(set, NFTNL_SET_USERDATA, nftnl_udata_buf_data(data),
			   nftnl_udata_buf_len(data));
	nftnl_udata_buf_free(data);
	nftnl_set_set_u32(set, NFTNL_SET_FLAGS, map ? NFT_SET_MAP : 0);
	nftnl_set_set_u32(set, NFTNL_SET_KEY_TYPE, TYPE_NAME);
	nftnl_set_set_u32(set, NFTNL_SET_KEY_LEN, IFNAMSIZ);
	nftnl_set_set_u32(set, NFTNL_SET_DESC_SIZE, most);
	if (map)
		nftnl_set_set_u32(set, NFTNL_SET_DATA_TYPE, NFT_DATA_VERDICT);
	set_put(batch, set);
}

void batch_pairs(struct nft_batch *batch, const char *name, sa_family_t family,
		 uint32_t most)
{
	struct nftnl_set *set = set_new(batch, name);
	uint32_t type = family == AF_INET6 ? TYPE_IPV6 : TYPE_IPV4;

	if (!set)
		return;
	nftnl_set_set_u32(set, NFTNL_SET_FLAGS, NFT_SET_EVAL | NFT_SET_TIMEOUT);
	nftnl_set_set_u32(set, NFTNL_SET_KEY_TYPE, type << TYPE_BITS | type);
	nftnl_set_set_u32(set, NFTNL_SET_KEY_LEN, family == AF_INET6 ? 32 : 8);
	nftnl_set_set_u64(set, NFTNL_SET_TIMEOUT, PAIR_MS);
	nftnl_set_set_u32(set, NFTNL_SET_DESC_SIZE, most);
	set_put(batch, set);
}

static struct nftnl_set_elem *element_add(struct nftnl_set *set,
					  const uint8_t *key, size_t len)
{
	struct nftnl_set_elem *element = nftnl_set_elem_alloc();

	if (!element)
		return NULL;
	nftnl_set_elem_set(element, NFTNL_SET_ELEM_KEY, key, (uint32_t)len);
	nftnl_set_elem_add(set, element);
	return element;
}

static void verdict_set(struct nftnl_set_elem *element, int code,
			const char *chain)
{
	nftnl_set_elem_set_u32(element, NFTNL_SET_ELEM_VERDICT, (uint32_t)code);
	nftnl_set_elem_set_str(element, NFTNL_SET_ELEM_CHAIN, chain);
}

/* A start and, but for blocks and the last address, an end. False: no memory. */
static bool range_add(struct nftnl_set *set, const struct batch_elements *what,
		      const struct addr_range *range)
{
	size_t len = what->family == AF_INET6 ? 16 : 4;
	struct nftnl_set_elem *element = element_add(set, range->first, len);
	char chain[BATCH_NAME];

	if (!element)
		return false;
	if (what->format) {
		what->format(range->chain, chain);
		verdict_set(element, NFT_GOTO, chain);
	}
	if (range->open || what->blocks)
		return true;
	element = element_add(set, range->behind, len);
	if (element)
		nftnl_set_elem_set_u32(element, NFTNL_SET_ELEM_FLAGS,
				       NFT_SET_ELEM_INTERVAL_END);
	return element != NULL;
}

static void elements_send(struct nft_batch *batch, struct nftnl_set *set,
			  bool there)
{
	nftnl_set_elems_nlmsg_build_payload(
		message_begin(batch,
			      there ? NFT_MSG_NEWSETELEM : NFT_MSG_DELSETELEM,
			      there ? NLM_F_CREATE : 0),
		set);
	message_end(batch);
	nftnl_set_free(set);
}

void batch_link(struct nft_batch *batch, const char *where, const char *link,
		const char *chain)
{
	struct nftnl_set *set = set_new(batch, where);
	struct nftnl_set_elem *element;
	char name[IFNAMSIZ] = "";

	if (!set)
		return;
	snprintf(name, sizeof(name), "%s", link);
	element = element_add(set, (const uint8_t *)name, sizeof(name));
	if (!element) {
		batch->error = -ENOMEM;
		nftnl_set_free(set);
		return;
	}
	if (chain)
		verdict_set(element, NFT_JUMP, chain);
	elements_send(batch, set, true);
}

/* Those of one message, from `at` on; the first that is left. */
static size_t elements_put(struct nft_batch *batch,
			   const struct batch_elements *what, size_t at,
			   bool there)
{
	struct nftnl_set *set = set_new(batch, what->set);
	size_t end = at + ELEMENTS / 2;

	for (; set && at < what->count && at < end; at++)
		if (!range_add(set, what, &what->ranges[at])) {
			batch->error = -ENOMEM;
			break;
		}
	if (!set)
		return at;
	elements_send(batch, set, there);
	return at;
}

void batch_elements(struct nft_batch *batch, const struct batch_elements *what,
		    bool there)
{
	size_t at = 0;

	while (at < what->count && !batch->error)
		at = elements_put(batch, what, at, there);
}

void batch_ranges(struct nft_batch *batch, const char *set, sa_family_t family,
		  const struct addr_range *ranges, size_t count)
{
	const struct batch_elements all = {
		.set = set, .family = family, .ranges = ranges, .count = count
	};

	batch_set(batch, set, family, 0, false);
	batch_elements(batch, &all, true);
}

void batch_rule_begin(struct nft_batch *batch, const char *chain)
{
	batch->rule = nftnl_rule_alloc();
	if (!batch->rule) {
		batch->error = -ENOMEM;
		return;
	}
	nftnl_rule_set_str(batch->rule, NFTNL_RULE_TABLE, batch->table);
	nftnl_rule_set_str(batch->rule, NFTNL_RULE_CHAIN, chain);
}

void batch_rule_end(struct nft_batch *batch)
{
	if (!batch->rule)
		return;
	nftnl_rule_nlmsg_build_payload(message_begin(batch, NFT_MSG_NEWRULE,
						     NLM_F_CREATE |
							     NLM_F_APPEND),
				       batch->rule);
	message_end(batch);
	nftnl_rule_free(batch->rule);
	batch->rule = NULL;
}

/* An expression of the rule under way; NULL: no memory, which is noted. */
static struct nftnl_expr *expression(struct nft_batch *batch, const char *name)
{
	struct nftnl_expr *expr = batch->rule ? nftnl_expr_alloc(name) : NULL;

	if (expr)
		nftnl_rule_add_expr(batch->rule, expr);
	else
		batch->error = -ENOMEM;
	return expr;
}

void batch_meta(struct nft_batch *batch, uint32_t key)
{
	struct nftnl_expr *expr = expression(batch, "meta");

	if (!expr)
		return;
	nftnl_expr_set_u32(expr, NFTNL_EXPR_META_KEY, key);
	nftnl_expr_set_u32(expr, NFTNL_EXPR_META_DREG, REG);
}

static void payload(struct nft_batch *batch, uint32_t base, uint32_t offset,
		    size_t len, uint32_t into)
{
	struct nftnl_expr *expr = expression(batch, "payload");

	if (!expr)
		return;
	nftnl_expr_set_u32(expr, NFTNL_EXPR_PAYLOAD_BASE, base);
	nftnl_expr_set_u32(expr, NFTNL_EXPR_PAYLOAD_OFFSET, offset);
	nftnl_expr_set_u32(expr, NFTNL_EXPR_PAYLOAD_LEN, (uint32_t)len);
	nftnl_expr_set_u32(expr, NFTNL_EXPR_PAYLOAD_DREG, into);
}

void batch_payload(struct nft_batch *batch, uint32_t base, uint32_t offset,
		   size_t len)
{
	payload(batch, base, offset, len, REG);
}

void batch_source(struct nft_batch *batch, sa_family_t family, size_t len)
{
	batch_payload(batch, NFT_PAYLOAD_NETWORK_HEADER,
		      family == AF_INET6 ? 8 : 12, len);
}

void batch_fib(struct nft_batch *batch, uint32_t flags, uint32_t result)
{
	struct nftnl_expr *expr = expression(batch, "fib");

	if (!expr)
		return;
	nftnl_expr_set_u32(expr, NFTNL_EXPR_FIB_FLAGS, flags);
	nftnl_expr_set_u32(expr, NFTNL_EXPR_FIB_RESULT, result);
	nftnl_expr_set_u32(expr, NFTNL_EXPR_FIB_DREG, REG);
}

/* What was loaded becomes (it & mask) ^ turned. */
static void bitwise(struct nft_batch *batch, const void *bits,
		    const void *turned, size_t len)
{
	struct nftnl_expr *expr = expression(batch, "bitwise");

	if (!expr)
		return;
	nftnl_expr_set_u32(expr, NFTNL_EXPR_BITWISE_SREG, REG);
	nftnl_expr_set_u32(expr, NFTNL_EXPR_BITWISE_DREG, REG);
	nftnl_expr_set_u32(expr, NFTNL_EXPR_BITWISE_LEN, (uint32_t)len);
	nftnl_expr_set_data(expr, NFTNL_EXPR_BITWISE_MASK, bits, (uint32_t)len);
	nftnl_expr_set_data(expr, NFTNL_EXPR_BITWISE_XOR, turned,
			    (uint32_t)len);
}

void batch_mask(struct nft_batch *batch, const uint8_t *bits, size_t len)
{
	static const uint8_t zero[16];

	bitwise(batch, bits, zero, len);
}

void batch_network(struct nft_batch *batch, sa_family_t family,
		   unsigned int bits)
{
	size_t len = family == AF_INET6 ? 16 : 4;
	uint8_t mask[16] = { 0 };

	for (unsigned int i = 0; i < bits; i++)
		mask[i / 8] |= (uint8_t)(0x80 >> i % 8);
	batch_source(batch, family, len);
	if (bits && bits < 8 * len)
		batch_mask(batch, mask, len);
}

static void compare(struct nft_batch *batch, uint32_t how, const void *data,
		    size_t len)
{
	struct nftnl_expr *expr = expression(batch, "cmp");

	if (!expr)
		return;
	nftnl_expr_set_u32(expr, NFTNL_EXPR_CMP_SREG, REG);
	nftnl_expr_set_u32(expr, NFTNL_EXPR_CMP_OP, how);
	nftnl_expr_set_data(expr, NFTNL_EXPR_CMP_DATA, data, (uint32_t)len);
}

void batch_equal(struct nft_batch *batch, const void *data, size_t len)
{
	compare(batch, NFT_CMP_EQ, data, len);
}

void batch_differs(struct nft_batch *batch, const void *data, size_t len)
{
	compare(batch, NFT_CMP_NEQ, data, len);
}

void batch_mark(struct nft_batch *batch, uint32_t bits, uint32_t value)
{
	const uint32_t kept = ~bits;
	struct nftnl_expr *expr;

	batch_meta(batch, NFT_META_MARK);
	bitwise(batch, &kept, &value, sizeof(kept));
	expr = expression(batch, "meta");
	if (!expr)
		return;
	nftnl_expr_set_u32(expr, NFTNL_EXPR_META_KEY, NFT_META_MARK);
	nftnl_expr_set_u32(expr, NFTNL_EXPR_META_SREG, REG);
}

void batch_device(struct nft_batch *batch, uint32_t key, const char *device)
{
	char name[IFNAMSIZ] = "";

	snprintf(name, sizeof(name), "%s", device);
	batch_meta(batch, key);
	batch_equal(batch, name, sizeof(name));
}

void batch_family(struct nft_batch *batch, sa_family_t family)
{
	uint8_t protocol = family == AF_INET6 ? NFPROTO_IPV6 : NFPROTO_IPV4;

	batch_meta(batch, NFT_META_NFPROTO);
	batch_equal(batch, &protocol, sizeof(protocol));
}

void batch_lookup(struct nft_batch *batch, const char *set, bool inside)
{
	struct nftnl_expr *expr = expression(batch, "lookup");

	if (!expr)
		return;
	nftnl_expr_set_u32(expr, NFTNL_EXPR_LOOKUP_SREG, REG);
	nftnl_expr_set_str(expr, NFTNL_EXPR_LOOKUP_SET, set);
	if (!inside)
		nftnl_expr_set_u32(expr, NFTNL_EXPR_LOOKUP_FLAGS,
				   NFT_LOOKUP_F_INV);
}

void batch_branch(struct nft_batch *batch, const char *map)
{
	struct nftnl_expr *expr = expression(batch, "lookup");

	if (!expr)
		return;
	nftnl_expr_set_u32(expr, NFTNL_EXPR_LOOKUP_SREG, REG);
	nftnl_expr_set_u32(expr, NFTNL_EXPR_LOOKUP_DREG, NFT_REG_VERDICT);
	nftnl_expr_set_str(expr, NFTNL_EXPR_LOOKUP_SET, map);
}

static void limit_set(struct nftnl_expr *limit, uint32_t rate)
{
	nftnl_expr_set_u64(limit, NFTNL_EXPR_LIMIT_RATE, rate);
	nftnl_expr_set_u64(limit, NFTNL_EXPR_LIMIT_UNIT, 1); /* second */
	nftnl_expr_set_u32(limit, NFTNL_EXPR_LIMIT_BURST, rate);
	nftnl_expr_set_u32(limit, NFTNL_EXPR_LIMIT_TYPE, NFT_LIMIT_PKTS);
}

void batch_limit(struct nft_batch *batch, uint32_t packets)
{
	struct nftnl_expr *limit = expression(batch, "limit");

	if (limit)
		limit_set(limit, packets);
}

void batch_pair_limit(struct nft_batch *batch, const char *set,
		      sa_family_t family)
{
	bool v6 = family == AF_INET6;
	struct nftnl_expr *expr, *limit;

	payload(batch, NFT_PAYLOAD_NETWORK_HEADER, v6 ? 8 : 12, v6 ? 16 : 4,
		REG);
	payload(batch, NFT_PAYLOAD_NETWORK_HEADER, v6 ? 24 : 16, v6 ? 16 : 4,
		v6 ? NFT_REG_2 : NFT_REG32_01);
	expr = expression(batch, "dynset");
	limit = expr ? nftnl_expr_alloc("limit") : NULL;
	if (!limit) {
		batch->error = -ENOMEM;
		return;
	}
	limit_set(limit, 1);
	nftnl_expr_set_u32(expr, NFTNL_EXPR_DYNSET_SREG_KEY, REG);
	nftnl_expr_set_u32(expr, NFTNL_EXPR_DYNSET_OP, NFT_DYNSET_OP_ADD);
	nftnl_expr_set_str(expr, NFTNL_EXPR_DYNSET_SET_NAME, set);
	nftnl_expr_set_u64(expr, NFTNL_EXPR_DYNSET_TIMEOUT, PAIR_MS);
	nftnl_expr_set(expr, NFTNL_EXPR_DYNSET_EXPR, limit, 0);
}

static void immediate(struct nft_batch *batch, uint32_t into, const void *data,
		      uint32_t len)
{
	struct nftnl_expr *expr = expression(batch, "immediate");

	if (!expr)
		return;
	nftnl_expr_set_u32(expr, NFTNL_EXPR_IMM_DREG, into);
	nftnl_expr_set_data(expr, NFTNL_EXPR_IMM_DATA, data, len);
}

void batch_copy_here(struct nft_batch *batch)
{
	const uint32_t device = LOOPBACK;
	struct nftnl_expr *expr;

	immediate(batch, REG, &in6addr_loopback, sizeof(in6addr_loopback));
	immediate(batch, NFT_REG_2, &device, sizeof(device));
	expr = expression(batch, "dup");
	if (!expr)
		return;
	nftnl_expr_set_u32(expr, NFTNL_EXPR_DUP_SREG_ADDR, REG);
	nftnl_expr_set_u32(expr, NFTNL_EXPR_DUP_SREG_DEV, NFT_REG_2);
}

void batch_tracked(struct nft_batch *batch, uint32_t states)
{
	struct nftnl_expr *expr = expression(batch, "ct");
	const uint32_t none = 0;

	if (!expr)
		return;
	nftnl_expr_set_u32(expr, NFTNL_EXPR_CT_KEY, NFT_CT_STATE);
	nftnl_expr_set_u32(expr, NFTNL_EXPR_CT_DREG, REG);
	batch_mask(batch, (const uint8_t *)&states, sizeof(states));
	batch_differs(batch, &none, sizeof(none));
}

void batch_log(struct nft_batch *batch, uint16_t group, uint32_t bytes)
{
	struct nftnl_expr *expr = expression(batch, "log");

	if (!expr)
		return;
	nftnl_expr_set_u16(expr, NFTNL_EXPR_LOG_GROUP, group);
	nftnl_expr_set_u32(expr, NFTNL_EXPR_LOG_SNAPLEN, bytes);
	nftnl_expr_set_u16(expr, NFTNL_EXPR_LOG_QTHRESHOLD, 1);
}

void batch_count(struct nft_batch *batch, const char *counter)
{
	struct nftnl_expr *expr = expression(batch, "objref");

	if (!expr)
		return;
	nftnl_expr_set_u32(expr, NFTNL_EXPR_OBJREF_IMM_TYPE,
			   NFT_OBJECT_COUNTER);
	nftnl_expr_set_str(expr, NFTNL_EXPR_OBJREF_IMM_NAME, counter);
}

void batch_verdict(struct nft_batch *batch, int code, const char *chain)
{
	struct nftnl_expr *expr = expression(batch, "immediate");

	if (!expr)
		return;
	nftnl_expr_set_u32(expr, NFTNL_EXPR_IMM_DREG, NFT_REG_VERDICT);
	nftnl_expr_set_u32(expr, NFTNL_EXPR_IMM_VERDICT, (uint32_t)code);
	if (chain)
		nftnl_expr_set_str(expr, NFTNL_EXPR_IMM_CHAIN, chain);
}

void batch_reject(struct nft_batch *batch, sa_family_t family)
{
	struct nftnl_expr *expr = expression(batch, "reject");

	if (!expr)
		return;
	nftnl_expr_set_u32(expr, NFTNL_EXPR_REJECT_TYPE,
			   NFT_REJECT_ICMP_UNREACH);
	nftnl_expr_set_u8(expr, NFTNL_EXPR_REJECT_CODE,
			  family == AF_INET6 ? CODE_V6 : CODE_V4);
}

static int transmit(struct mnl_socket *socket, struct nftnl_batch *messages)
{
	int pages = nftnl_batch_iovec_len(messages);
	struct iovec *parts = calloc((size_t)pages, sizeof(*parts));
	struct msghdr msg = { .msg_iov = parts, .msg_iovlen = (size_t)pages };
	int err = 0;

	if (!parts)
		return -ENOMEM;
	nftnl_batch_iovec(messages, parts, (uint32_t)pages);
	if (sendmsg(mnl_socket_get_fd(socket), &msg, 0) < 0)
		err = -errno;
	free(parts);
	return err;
}

/* All answers are there when the transaction is sent: the first failure, or 0. */
static int answers_take(struct mnl_socket *socket)
{
	char buf[NETLINK_ROOM];
	int error = 0;

	for (;;) {
		ssize_t len = recv(mnl_socket_get_fd(socket), buf, sizeof(buf),
				   MSG_DONTWAIT);
		const struct nlmsghdr *msg = (const struct nlmsghdr *)buf;
		int left = (int)len;

		/* There were more failures than room for them. */
		if (len < 0 && errno == ENOBUFS) {
			error = error ? error : -ENOBUFS;
			continue;
		}
		if (len < 0)
			return error;
		for (; mnl_nlmsg_ok(msg, left);
		     msg = mnl_nlmsg_next(msg, &left)) {
			const struct nlmsgerr *answer =
				mnl_nlmsg_get_payload(msg);

			if (msg->nlmsg_type == NLMSG_ERROR && !error)
				error = answer->error;
		}
	}
}

int batch_send(struct nft_batch *batch, struct mnl_socket *socket)
{
	int err = batch->error;

	if (!err)
		err = transmit(socket, batch->messages);
	return err ? err : answers_take(socket);
}
