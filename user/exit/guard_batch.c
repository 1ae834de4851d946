/* SPDX-License-Identifier: BSD-2-Clause */
/* The guards' table as one transaction of nftables (see guard.c for what it is). */
#include "exit/guard_batch.h"

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
#include <linux/rtnetlink.h>
#include <net/if.h>
#include <stdlib.h>
#include <string.h>

#include "base/syscalls.h"
#include "exit/guard_sources.h"
#include "exit/internal.h"

SYSCALLS(SYSCALLS_EXIT, "sendmsg recvfrom setsockopt");

#define PAGE     ((uint32_t)1 << 16) /* of a batch */
#define ROOM_MAX (8 << 20) /* bytes of a transaction */
#define ELEMENTS 500 /* of a set in one message: an attribute has 64 KiB */
#define ALL      SIZE_MAX /* the set of every exit's sources */
#define CODE_V4  13 /* communication administratively prohibited */
#define CODE_V6  5 /* source address failed ingress policy, RFC 4443 3.1 */
#define REG      NFT_REG_1

#define REDIRECT_V4 5 /* types of ICMP and ICMPv6 */
#define REDIRECT_V6 137

/* nft(8) shows the values of a set by these numbers of its own. */
#define TYPE_IPV4 7
#define TYPE_IPV6 8

struct making {
	const struct batch_params *params;
	struct nftnl_batch *batch;
	struct nftnl_rule *rule; /* under way */
	int error;
};

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

static struct nlmsghdr *message_begin(struct making *m, uint16_t type,
				      uint16_t flags)
{
	return nftnl_nlmsg_build_hdr(nftnl_batch_buffer(m->batch), type,
				     NFPROTO_INET, flags,
				     ++*m->params->sequence);
}

static void message_end(struct making *m)
{
	if (nftnl_batch_update(m->batch) < 0)
		m->error = -ENOMEM;
}

static void batch_begin(struct making *m)
{
	struct nlmsghdr *msg = nftnl_batch_begin(nftnl_batch_buffer(m->batch),
						 ++*m->params->sequence);

	mnl_attr_put_u32(msg, NFNL_BATCH_GENID, htonl(m->params->generation));
	message_end(m);
}

static void batch_end(struct making *m)
{
	nftnl_batch_end(nftnl_batch_buffer(m->batch), ++*m->params->sequence);
	message_end(m);
}

static void table_put(struct making *m, uint16_t type, uint16_t flags)
{
	struct nftnl_table *table = nftnl_table_alloc();
	struct nftnl_udata_buf *comment = nftnl_udata_buf_alloc(256);

	if (!table || !comment) {
		m->error = -ENOMEM;
	} else {
		nftnl_table_set_str(table, NFTNL_TABLE_NAME, EXIT_NFTABLE);
		if (type == NFT_MSG_NEWTABLE) {
			nftnl_udata_put_strz(comment, NFTNL_UDATA_TABLE_COMMENT,
					     m->params->comment);
			nftnl_table_set_data(table, NFTNL_TABLE_USERDATA,
					     nftnl_udata_buf_data(comment),
					     nftnl_udata_buf_len(comment));
			nftnl_table_set_u32(table, NFTNL_TABLE_FLAGS,
					    m->params->flags);
		}
		nftnl_table_nlmsg_build_payload(message_begin(m, type, flags),
						table);
		message_end(m);
	}
	nftnl_udata_buf_free(comment);
	nftnl_table_free(table);
}

/* hook -1: a chain to jump to. */
static void chain_put(struct making *m, const char *name, int hook)
{
	struct nftnl_chain *chain = nftnl_chain_alloc();

	if (!chain) {
		m->error = -ENOMEM;
		return;
	}
	nftnl_chain_set_str(chain, NFTNL_CHAIN_TABLE, EXIT_NFTABLE);
	nftnl_chain_set_str(chain, NFTNL_CHAIN_NAME, name);
	if (hook >= 0) {
		nftnl_chain_set_str(chain, NFTNL_CHAIN_TYPE, "filter");
		nftnl_chain_set_u32(chain, NFTNL_CHAIN_HOOKNUM, (uint32_t)hook);
		nftnl_chain_set_s32(chain, NFTNL_CHAIN_PRIO, 0);
		nftnl_chain_set_u32(chain, NFTNL_CHAIN_POLICY, NF_ACCEPT);
	}
	nftnl_chain_nlmsg_build_payload(
		message_begin(m, NFT_MSG_NEWCHAIN, NLM_F_CREATE), chain);
	message_end(m);
	nftnl_chain_free(chain);
}

static void counter_put(struct making *m, const char *format, size_t exit)
{
	struct nftnl_obj *counter = nftnl_obj_alloc();
	char name[32];

	if (!counter) {
		m->error = -ENOMEM;
		return;
	}
	snprintf(name, sizeof(name), format, exit);
	nftnl_obj_set_str(counter, NFTNL_OBJ_TABLE, EXIT_NFTABLE);
	nftnl_obj_set_str(counter, NFTNL_OBJ_NAME, name);
	nftnl_obj_set_u32(counter, NFTNL_OBJ_TYPE, NFT_OBJECT_COUNTER);
	nftnl_obj_nlmsg_build_payload(
		message_begin(m, NFT_MSG_NEWOBJ, NLM_F_CREATE), counter);
	message_end(m);
	nftnl_obj_free(counter);
}

static void set_name(char out[32], size_t exit, sa_family_t family)
{
	int version = family == AF_INET6 ? 6 : 4;

	if (exit == ALL)
		snprintf(out, 32, "all_%d", version);
	else
		snprintf(out, 32, "e%zu_%d", exit, version);
}

static struct nftnl_set *set_new(size_t exit, sa_family_t family)
{
	struct nftnl_set *set = nftnl_set_alloc();
	char name[32];

	if (!set)
		return NULL;
	set_name(name, exit, family);
	nftnl_set_set_str(set, NFTNL_SET_TABLE, EXIT_NFTABLE);
	nftnl_set_set_str(set, NFTNL_SET_NAME, name);
	nftnl_set_set_u32(set, NFTNL_SET_FAMILY, NFPROTO_INET);
	return set;
}

static void set_put(struct making *m, size_t exit, sa_family_t family)
{
	struct nftnl_set *set = set_new(exit, family);
	bool v6 = family == AF_INET6;

	if (!set) {
		m->error = -ENOMEM;
		return;
	}
	nftnl_set_set_u32(set, NFTNL_SET_FLAGS, NFT_SET_INTERVAL);
	nftnl_set_set_u32(set, NFTNL_SET_KEY_TYPE, v6 ? TYPE_IPV6 : TYPE_IPV4);
	nftnl_set_set_u32(set, NFTNL_SET_KEY_LEN, v6 ? 16 : 4);
	nftnl_set_set_u32(set, NFTNL_SET_ID, ++*m->params->sequence);
	nftnl_set_nlmsg_build_payload(
		message_begin(m, NFT_MSG_NEWSET, NLM_F_CREATE), set);
	message_end(m);
	nftnl_set_free(set);
}

static bool element_add(struct nftnl_set *set, const uint8_t *key, size_t len,
			bool end)
{
	struct nftnl_set_elem *element = nftnl_set_elem_alloc();

	if (!element)
		return false;
	nftnl_set_elem_set(element, NFTNL_SET_ELEM_KEY, key, (uint32_t)len);
	if (end)
		nftnl_set_elem_set_u32(element, NFTNL_SET_ELEM_FLAGS,
				       NFT_SET_ELEM_INTERVAL_END);
	nftnl_set_elem_add(set, element);
	return true;
}

/* Elements of one message: a start and, but for the last address, an end each. */
static size_t ranges_put(struct making *m, size_t exit, sa_family_t family,
			 const struct guard_range *ranges, size_t count)
{
	struct nftnl_set *set = set_new(exit, family);
	size_t len = family == AF_INET6 ? 16 : 4, i;
	bool all = set != NULL;

	for (i = 0; i < count && i < ELEMENTS / 2 && all; i++) {
		all = element_add(set, ranges[i].first, len, false);
		if (all && !ranges[i].open)
			all = element_add(set, ranges[i].behind, len, true);
	}
	if (all) {
		nftnl_set_elems_nlmsg_build_payload(
			message_begin(m, NFT_MSG_NEWSETELEM, NLM_F_CREATE),
			set);
		message_end(m);
	} else {
		m->error = -ENOMEM;
	}
	if (set)
		nftnl_set_free(set);
	return i;
}

static void sources_put(struct making *m, size_t exit, sa_family_t family)
{
	struct guard_range *ranges;
	size_t count, at = 0;
	int err = guard_sources(m->params->conf, exit, family, &ranges, &count);

	if (err) {
		m->error = err;
		return;
	}
	set_put(m, exit, family);
	while (at < count && !m->error)
		at += ranges_put(m, exit, family, ranges + at, count - at);
	free(ranges);
}

static void rule_begin(struct making *m, const char *chain)
{
	m->rule = nftnl_rule_alloc();
	if (!m->rule) {
		m->error = -ENOMEM;
		return;
	}
	nftnl_rule_set_str(m->rule, NFTNL_RULE_TABLE, EXIT_NFTABLE);
	nftnl_rule_set_str(m->rule, NFTNL_RULE_CHAIN, chain);
}

static void rule_end(struct making *m)
{
	if (!m->rule)
		return;
	nftnl_rule_nlmsg_build_payload(
		message_begin(m, NFT_MSG_NEWRULE, NLM_F_CREATE | NLM_F_APPEND),
		m->rule);
	message_end(m);
	nftnl_rule_free(m->rule);
	m->rule = NULL;
}

/* An expression of the rule under way; NULL: no memory, which is noted. */
static struct nftnl_expr *expression(struct making *m, const char *name)
{
	struct nftnl_expr *expr = m->rule ? nftnl_expr_alloc(name) : NULL;

	if (expr)
		nftnl_rule_add_expr(m->rule, expr);
	else
		m->error = -ENOMEM;
	return expr;
}

static void meta_load(struct making *m, uint32_t key)
{
	struct nftnl_expr *expr = expression(m, "meta");

	if (!expr)
		return;
	nftnl_expr_set_u32(expr, NFTNL_EXPR_META_KEY, key);
	nftnl_expr_set_u32(expr, NFTNL_EXPR_META_DREG, REG);
}

static void compare(struct making *m, const void *data, size_t len)
{
	struct nftnl_expr *expr = expression(m, "cmp");

	if (!expr)
		return;
	nftnl_expr_set_u32(expr, NFTNL_EXPR_CMP_SREG, REG);
	nftnl_expr_set_u32(expr, NFTNL_EXPR_CMP_OP, NFT_CMP_EQ);
	nftnl_expr_set_data(expr, NFTNL_EXPR_CMP_DATA, data, (uint32_t)len);
}

static void family_match(struct making *m, sa_family_t family)
{
	uint8_t protocol = family == AF_INET6 ? NFPROTO_IPV6 : NFPROTO_IPV4;

	meta_load(m, NFT_META_NFPROTO);
	compare(m, &protocol, sizeof(protocol));
}

static void payload_load(struct making *m, uint32_t base, uint32_t offset,
			 size_t len)
{
	struct nftnl_expr *expr = expression(m, "payload");

	if (!expr)
		return;
	nftnl_expr_set_u32(expr, NFTNL_EXPR_PAYLOAD_BASE, base);
	nftnl_expr_set_u32(expr, NFTNL_EXPR_PAYLOAD_OFFSET, offset);
	nftnl_expr_set_u32(expr, NFTNL_EXPR_PAYLOAD_LEN, (uint32_t)len);
	nftnl_expr_set_u32(expr, NFTNL_EXPR_PAYLOAD_DREG, REG);
}

/* The first bytes of the source address, as many as that. */
static void source_load(struct making *m, sa_family_t family, size_t len)
{
	payload_load(m, NFT_PAYLOAD_NETWORK_HEADER, family == AF_INET6 ? 8 : 12,
		     len);
}

static void source_match(struct making *m, sa_family_t family, size_t exit,
			 bool inside)
{
	struct nftnl_expr *expr;
	char name[32];

	family_match(m, family);
	source_load(m, family, family == AF_INET6 ? 16 : 4);
	expr = expression(m, "lookup");
	if (!expr)
		return;
	set_name(name, exit, family);
	nftnl_expr_set_u32(expr, NFTNL_EXPR_LOOKUP_SREG, REG);
	nftnl_expr_set_str(expr, NFTNL_EXPR_LOOKUP_SET, name);
	if (!inside)
		nftnl_expr_set_u32(expr, NFTNL_EXPR_LOOKUP_FLAGS,
				   NFT_LOOKUP_F_INV);
}

/* An address of this host on the device that the packet leaves by. */
static void own_match(struct making *m)
{
	struct nftnl_expr *expr = expression(m, "fib");
	const uint32_t local = RTN_LOCAL;

	if (!expr)
		return;
	nftnl_expr_set_u32(expr, NFTNL_EXPR_FIB_FLAGS,
			   NFTA_FIB_F_SADDR | NFTA_FIB_F_OIF);
	nftnl_expr_set_u32(expr, NFTNL_EXPR_FIB_RESULT,
			   NFT_FIB_RESULT_ADDRTYPE);
	nftnl_expr_set_u32(expr, NFTNL_EXPR_FIB_DREG, REG);
	compare(m, &local, sizeof(local));
}

static void mask(struct making *m, const uint8_t *bits, size_t len)
{
	static const uint8_t zero[16];
	struct nftnl_expr *expr = expression(m, "bitwise");

	if (!expr)
		return;
	nftnl_expr_set_u32(expr, NFTNL_EXPR_BITWISE_SREG, REG);
	nftnl_expr_set_u32(expr, NFTNL_EXPR_BITWISE_DREG, REG);
	nftnl_expr_set_u32(expr, NFTNL_EXPR_BITWISE_LEN, (uint32_t)len);
	nftnl_expr_set_data(expr, NFTNL_EXPR_BITWISE_MASK, bits, (uint32_t)len);
	nftnl_expr_set_data(expr, NFTNL_EXPR_BITWISE_XOR, zero, (uint32_t)len);
}

static void count(struct making *m, const char *format, size_t exit)
{
	struct nftnl_expr *expr = expression(m, "objref");
	char name[32];

	if (!expr)
		return;
	snprintf(name, sizeof(name), format, exit);
	nftnl_expr_set_u32(expr, NFTNL_EXPR_OBJREF_IMM_TYPE,
			   NFT_OBJECT_COUNTER);
	nftnl_expr_set_str(expr, NFTNL_EXPR_OBJREF_IMM_NAME, name);
}

/* chain NULL with NFT_RETURN. */
static void verdict(struct making *m, int code, const char *chain)
{
	struct nftnl_expr *expr = expression(m, "immediate");

	if (!expr)
		return;
	nftnl_expr_set_u32(expr, NFTNL_EXPR_IMM_DREG, NFT_REG_VERDICT);
	nftnl_expr_set_u32(expr, NFTNL_EXPR_IMM_VERDICT, (uint32_t)code);
	if (chain)
		nftnl_expr_set_str(expr, NFTNL_EXPR_IMM_CHAIN, chain);
}

static void reject(struct making *m, uint8_t code)
{
	struct nftnl_expr *expr = expression(m, "reject");

	if (!expr)
		return;
	nftnl_expr_set_u32(expr, NFTNL_EXPR_REJECT_TYPE,
			   NFT_REJECT_ICMP_UNREACH);
	nftnl_expr_set_u8(expr, NFTNL_EXPR_REJECT_CODE, code);
}

static void link_rule(struct making *m, const char *base, const char *link,
		      const char *chain)
{
	char name[IFNAMSIZ] = "";

	snprintf(name, sizeof(name), "%s", link);
	rule_begin(m, base);
	meta_load(m, NFT_META_OIFNAME);
	compare(m, name, sizeof(name));
	verdict(m, NFT_JUMP, chain);
	rule_end(m);
}

/* Sources that begin like this mean the link, or nobody yet (RFC 4862, DHCP). */
static void prefix_pass(struct making *m, const char *chain, sa_family_t family,
			const uint8_t *first, const uint8_t *bits, size_t len)
{
	rule_begin(m, chain);
	family_match(m, family);
	source_load(m, family, len);
	mask(m, bits, len);
	compare(m, first, len);
	verdict(m, NFT_RETURN, NULL);
	rule_end(m);
}

static void special_rules(struct making *m, const char *chain)
{
	static const uint8_t link6[] = { 0xfe, 0x80 }, bits6[] = { 0xff, 0xc0 };
	static const uint8_t link4[] = { 169, 254 }, none[16];
	static const uint8_t whole[16] = { 0xff, 0xff, 0xff, 0xff, 0xff, 0xff,
					   0xff, 0xff, 0xff, 0xff, 0xff, 0xff,
					   0xff, 0xff, 0xff, 0xff };

	prefix_pass(m, chain, AF_INET6, link6, bits6, sizeof(link6));
	prefix_pass(m, chain, AF_INET6, none, whole, 16);
	prefix_pass(m, chain, AF_INET, link4, whole, sizeof(link4));
	prefix_pass(m, chain, AF_INET, none, whole, 4);
}

static void family_rules(struct making *m, const char *chain, size_t exit,
			 sa_family_t family)
{
	rule_begin(m, chain);
	source_match(m, family, exit, true);
	count(m, GUARD_PACKETS, exit);
	verdict(m, NFT_RETURN, NULL);
	rule_end(m);
	rule_begin(m, chain);
	source_match(m, family, ALL, false);
	own_match(m);
	count(m, GUARD_PACKETS, exit);
	verdict(m, NFT_RETURN, NULL);
	rule_end(m);
	rule_begin(m, chain);
	family_match(m, family);
	count(m, GUARD_REJECTS, exit);
	reject(m, family == AF_INET6 ? CODE_V6 : CODE_V4);
	rule_end(m);
}

static void redirect_rule(struct making *m, sa_family_t family,
			  uint8_t protocol, uint8_t type)
{
	rule_begin(m, "output");
	family_match(m, family);
	meta_load(m, NFT_META_L4PROTO);
	compare(m, &protocol, sizeof(protocol));
	payload_load(m, NFT_PAYLOAD_TRANSPORT_HEADER, 0, sizeof(type));
	compare(m, &type, sizeof(type));
	verdict(m, NF_DROP, NULL);
	rule_end(m);
}

static void redirect_rules(struct making *m)
{
	const struct conf *conf = m->params->conf;
	bool hands = false;

	for (size_t i = 0; i < conf->exit_count; i++)
		hands |= exit_hands(&conf->exits[i]);
	if (!hands)
		return;
	redirect_rule(m, AF_INET, IPPROTO_ICMP, REDIRECT_V4);
	redirect_rule(m, AF_INET6, IPPROTO_ICMPV6, REDIRECT_V6);
}

static void exit_put(struct making *m, size_t index)
{
	const struct conf_exit *exit = &m->params->conf->exits[index];
	char chain[32];

	snprintf(chain, sizeof(chain), "e%zu", index);
	chain_put(m, chain, -1);
	counter_put(m, GUARD_PACKETS, index);
	counter_put(m, GUARD_REJECTS, index);
	link_rule(m, "forward", exit->link, chain);
	link_rule(m, "output", exit->link, chain);
	if (exit->unchecked) {
		rule_begin(m, chain);
		count(m, GUARD_PACKETS, index);
		rule_end(m);
		return;
	}
	sources_put(m, index, AF_INET);
	sources_put(m, index, AF_INET6);
	special_rules(m, chain);
	family_rules(m, chain, index, AF_INET);
	family_rules(m, chain, index, AF_INET6);
}

static void table_fill(struct making *m)
{
	const struct conf *conf = m->params->conf;

	chain_put(m, "forward", NF_INET_FORWARD);
	chain_put(m, "output", NF_INET_LOCAL_OUT);
	redirect_rules(m);
	sources_put(m, ALL, AF_INET);
	sources_put(m, ALL, AF_INET6);
	for (size_t i = 0; i < conf->exit_count && !m->error; i++)
		if (conf->exits[i].link)
			exit_put(m, i);
}

static int transmit(struct mnl_socket *socket, struct nftnl_batch *batch)
{
	int pages = nftnl_batch_iovec_len(batch);
	struct iovec *parts = calloc((size_t)pages, sizeof(*parts));
	struct msghdr msg = { .msg_iov = parts, .msg_iovlen = (size_t)pages };
	int err = 0;

	if (!parts)
		return -ENOMEM;
	nftnl_batch_iovec(batch, parts, (uint32_t)pages);
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

int batch_send(struct mnl_socket *socket, const struct batch_params *params)
{
	struct making m = { .params = params };
	int err;

	m.batch = nftnl_batch_alloc(PAGE, PAGE);
	if (!m.batch)
		return -ENOMEM;
	batch_begin(&m);
	table_put(&m, NFT_MSG_NEWTABLE, NLM_F_CREATE | NLM_F_ACK);
	/* There or not, it is gone then. */
	if (!params->adopt)
		table_put(&m, NFT_MSG_DELTABLE, 0);
	if (params->conf && !params->adopt) {
		table_put(&m, NFT_MSG_NEWTABLE, NLM_F_CREATE);
		table_fill(&m);
	}
	if (!params->dry)
		batch_end(&m);
	err = m.error;
	if (!err)
		err = transmit(socket, m.batch);
	nftnl_batch_free(m.batch);
	return err ? err : answers_take(socket);
}
