/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The guards: a table of nftables that lets no source out by the link of an exit that
 * does not authorise it, whatever the routes say. Its host is told at once
 * (ICMPv6 type 1 code 5, source address failed ingress policy; ICMP type 3 code 13).
 *
 *   chain forward, output:  oifname LINK jump eN
 *   chain output:  ICMP redirects are dropped, when there is an exit of another router:
 *                  hosts would keep them by destination alone, whatever the source
 *   chain eN:  source of exit N                    count, let pass
 *              link-local or none                  let pass
 *              of nobody, an address of this link  let pass
 *              else                                count, reject
 *
 * The table is replaced whole in one transaction, which holds only if nobody else has
 * changed the rules since we looked (NFNL_BATCH_GENID). It is ours alone and stays
 * when we end (NFT_TABLE_F_OWNER, NFT_TABLE_F_PERSIST, Linux 6.9): `nft flush ruleset`
 * passes it over. Before 6.9 anybody can take it away; then we are told, and put it
 * back. A digest of what is wanted stands in its comment, so that a new process sees
 * whether there is something to do.
 */
#include "exit/internal.h"

#include <errno.h>
#include <inttypes.h>
#include <libmnl/libmnl.h>
#include <libnftnl/object.h>
#include <libnftnl/set.h>
#include <libnftnl/table.h>
#include <libnftnl/udata.h>
#include <linux/netfilter.h>
#include <linux/netfilter/nf_tables.h>
#include <linux/netfilter/nfnetlink.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>

#include "base/log.h"
#include "base/syscalls.h"
#include "exit/guard_batch.h"

SYSCALLS_EQUAL(SYSCALLS_EXIT, "socket", 0, AF_NETLINK);
SYSCALLS(SYSCALLS_EXIT, "bind getsockname sendto recvmsg close");

#define TABLE_PERSIST 0x4 /* NFT_TABLE_F_PERSIST, not in older headers */
#define TABLE_OURS    (NFT_TABLE_F_OWNER | TABLE_PERSIST)
#define TRIES         8 /* while others change nftables */
#define COMMENT_MAX   64

struct guard {
	struct mnl_socket *socket; /* the table's owner */
	struct mnl_socket *watch;
	uint32_t port, sequence;
	bool shared; /* the kernel knows no owners that leave their table */
	bool pending; /* our table was touched by a change not told of yet */
};

static struct mnl_socket *socket_open(unsigned int groups, int flags)
{
	struct mnl_socket *socket =
		mnl_socket_open2(NETLINK_NETFILTER, SOCK_CLOEXEC | flags);
	int err;

	if (!socket)
		return NULL;
	if (mnl_socket_bind(socket, groups, MNL_SOCKET_AUTOPID) == 0)
		return socket;
	err = errno;
	mnl_socket_close(socket);
	errno = err;
	return NULL;
}

int guard_open(struct guard **out)
{
	struct guard *guard = calloc(1, sizeof(*guard));
	int err;

	if (!guard)
		return -ENOMEM;
	guard->sequence = (uint32_t)time(NULL);
	guard->socket = socket_open(0, 0);
	if (guard->socket)
		guard->watch = socket_open(1u << (NFNLGRP_NFTABLES - 1),
					   SOCK_NONBLOCK);
	if (!guard->watch) {
		err = -errno;
		guard_close(guard);
		return err;
	}
	batch_room(guard->socket);
	guard->port = mnl_socket_get_portid(guard->socket);
	*out = guard;
	return 0;
}

void guard_close(struct guard *guard)
{
	if (!guard)
		return;
	if (guard->socket)
		mnl_socket_close(guard->socket);
	if (guard->watch)
		mnl_socket_close(guard->watch);
	free(guard);
}

/* FNV-1a: to tell one configuration from another, against no adversary. */
static uint64_t digest_add(uint64_t digest, const void *data, size_t len)
{
	const uint8_t *bytes = data;

	for (size_t i = 0; i < len; i++)
		digest = (digest ^ bytes[i]) * UINT64_C(0x100000001b3);
	return digest;
}

static void comment_make(const struct conf *conf, char out[COMMENT_MAX])
{
	uint64_t digest = UINT64_C(0xcbf29ce484222325);

	for (size_t i = 0; i < conf->exit_count; i++) {
		const struct conf_exit *exit = &conf->exits[i];
		const char *link = exit->link ? exit->link : "";

		bool hands = exit_hands(exit);

		digest = digest_add(digest, link, strlen(link) + 1);
		digest = digest_add(digest, &hands, sizeof(hands));
		digest = digest_add(digest, &exit->unchecked,
				    sizeof(exit->unchecked));
		digest = digest_add(digest, exit->prefixes,
				    exit->prefix_count *
					    sizeof(exit->prefixes[0]));
	}
	snprintf(out, COMMENT_MAX, "exits of culvert, %016" PRIx64, digest);
}

/* Asks for one object; -ENOENT: there is none. */
static int ask(struct guard *guard, struct nlmsghdr *request, mnl_cb_t take,
	       void *arg)
{
	char answer[NETLINK_ROOM];
	ssize_t len;

	if (mnl_socket_sendto(guard->socket, request, request->nlmsg_len) < 0)
		return -errno;
	len = mnl_socket_recvfrom(guard->socket, answer, sizeof(answer));
	if (len < 0)
		return -errno;
	return mnl_cb_run(answer, (size_t)len, request->nlmsg_seq, guard->port,
			  take, arg) < 0 ?
		       -errno :
		       0;
}

static int generation_take(const struct nlmsghdr *msg, void *arg)
{
	const struct nlattr *attr;

	mnl_attr_for_each(attr, msg, sizeof(struct nfgenmsg))
		if (mnl_attr_get_type(attr) == NFTA_GEN_ID)
			*(uint32_t *)arg = ntohl(mnl_attr_get_u32(attr));
	return MNL_CB_OK;
}

static int generation_read(struct guard *guard, uint32_t *out)
{
	char buf[NETLINK_ROOM];

	*out = 0;
	return ask(guard,
		   nftnl_nlmsg_build_hdr(buf, NFT_MSG_GETGEN, AF_UNSPEC, 0,
					 ++guard->sequence),
		   generation_take, out);
}

/* The table as it is. */
struct found {
	char comment[COMMENT_MAX];
	uint32_t owner; /* 0: nobody */
};

static int table_take(const struct nlmsghdr *msg, void *arg)
{
	struct nftnl_table *table = nftnl_table_alloc();
	struct found *found = arg;
	const uint8_t *data;
	uint32_t len = 0;

	if (!table)
		return MNL_CB_ERROR;
	if (nftnl_table_nlmsg_parse(msg, table) == 0) {
		data = nftnl_table_get_data(table, NFTNL_TABLE_USERDATA, &len);
		/* Type and length, a byte each, then the text with its NUL. */
		if (data && len > 2 && len - 2 <= COMMENT_MAX && !data[len - 1])
			memcpy(found->comment, data + 2, len - 2);
		if (nftnl_table_is_set(table, NFTNL_TABLE_OWNER))
			found->owner =
				nftnl_table_get_u32(table, NFTNL_TABLE_OWNER);
	}
	nftnl_table_free(table);
	return MNL_CB_OK;
}

/* -ENOENT: there is none. */
static int table_read(struct guard *guard, struct found *out)
{
	struct nftnl_table *table = nftnl_table_alloc();
	char buf[NETLINK_ROOM];
	struct nlmsghdr *request;
	int err;

	if (!table)
		return -ENOMEM;
	memset(out, 0, sizeof(*out));
	nftnl_table_set_str(table, NFTNL_TABLE_NAME, EXIT_NFTABLE);
	request = nftnl_nlmsg_build_hdr(buf, NFT_MSG_GETTABLE, NFPROTO_INET, 0,
					++guard->sequence);
	nftnl_table_nlmsg_build_payload(request, table);
	nftnl_table_free(table);
	err = ask(guard, request, table_take, out);
	return err;
}

/* Without a table that we may own the guard is still there, if less firm. */
static int replace(struct guard *guard, const struct conf *conf,
		   const char *comment, bool dry, bool adopt)
{
	int err = -ERESTART;

	for (int i = 0; i < TRIES && err; i++) {
		struct batch_params params = {
			.conf = conf,
			.comment = comment,
			.flags = guard->shared ? 0 : TABLE_OURS,
			.adopt = adopt,
			.dry = dry,
			.sequence = &guard->sequence,
		};

		err = generation_read(guard, &params.generation);
		if (!err)
			err = batch_send(guard->socket, &params);
		if ((err == -EINVAL || err == -EOPNOTSUPP) && !guard->shared)
			guard->shared = true;
		else if (err != -ERESTART)
			break;
	}
	return err;
}

static void change_told(struct exit_change *change, const char *sign, int err)
{
	change->count++;
	if (change->out)
		fprintf(change->out, "%s table inet %s\n", sign, EXIT_NFTABLE);
	if (!err)
		return;
	log_error(
		ROOM,
		"event=guard_failed table=\"inet %s\" error=\"%s\" hint=\"%s\"",
		EXIT_NFTABLE, strerror(-err),
		err == -EPERM ? "another process owns it: see nft list "
				"tables" :
				"see nft list ruleset");
	if (!change->error)
		change->error = err;
}

int guard_apply(struct guard *guard, const struct conf *conf, bool again,
		struct exit_change *change)
{
	bool wanted = conf && exit_wanted(conf), same;
	char want[COMMENT_MAX] = "";
	struct found found;
	int err = table_read(guard, &found);
	bool there = err != -ENOENT;

	if (there && err)
		return err;
	if (wanted)
		comment_make(conf, want);
	if (!there && !wanted)
		return 0;
	same = there && wanted && !again && !strcmp(found.comment, want);
	if (same && !found.owner && !guard->shared && !change->dry)
		return replace(guard, conf, want, false, true);
	if (same)
		return 0;
	if (there && !wanted)
		err = change->dry ? 0 : replace(guard, NULL, "", false, false);
	else
		err = replace(guard, conf, want, change->dry, false);
	/* A plan beside the helper, whose table this is. */
	if (there && change->dry && err == -EPERM)
		err = 0;
	change_told(change, !wanted ? "-" : there ? "~" : "+", err);
	return err;
}

int guard_fd(const struct guard *guard)
{
	return mnl_socket_get_fd(guard->watch);
}

/* Attribute 1 is the table's name in every message of nftables. */
static bool is_ours(const struct nlmsghdr *msg)
{
	const struct nlattr *attr;

	mnl_attr_for_each(attr, msg, sizeof(struct nfgenmsg))
		if (mnl_attr_get_type(attr) == NFTA_TABLE_NAME &&
		    mnl_attr_validate(attr, MNL_TYPE_NUL_STRING) >= 0)
			return !strcmp(mnl_attr_get_str(attr), EXIT_NFTABLE);
	return false;
}

/* What was changed comes first, who has changed it behind that. */
static bool message_take(struct guard *guard, const struct nlmsghdr *msg)
{
	bool touched;

	if (NFNL_SUBSYS_ID(msg->nlmsg_type) != NFNL_SUBSYS_NFTABLES)
		return false;
	if (NFNL_MSG_TYPE(msg->nlmsg_type) != NFT_MSG_NEWGEN) {
		guard->pending |= is_ours(msg);
		return false;
	}
	touched = guard->pending && msg->nlmsg_pid != guard->port;
	guard->pending = false;
	return touched;
}

bool guard_touched(struct guard *guard)
{
	char buf[NETLINK_ROOM];
	bool touched = false;

	for (;;) {
		ssize_t len =
			mnl_socket_recvfrom(guard->watch, buf, sizeof(buf));
		const struct nlmsghdr *msg = (const struct nlmsghdr *)buf;
		int left = (int)len;

		/* What was lost may have been of our table. */
		if (len < 0 && errno == ENOBUFS) {
			touched = true;
			continue;
		}
		if (len <= 0)
			return touched;
		for (; mnl_nlmsg_ok(msg, left);
		     msg = mnl_nlmsg_next(msg, &left))
			touched |= message_take(guard, msg);
	}
}

static int counter_take(const struct nlmsghdr *msg, void *arg)
{
	struct nftnl_obj *counter = nftnl_obj_alloc();

	if (!counter)
		return MNL_CB_ERROR;
	if (nftnl_obj_nlmsg_parse(msg, counter) == 0)
		*(uint64_t *)arg =
			nftnl_obj_get_u64(counter, NFTNL_OBJ_CTR_PKTS);
	nftnl_obj_free(counter);
	return MNL_CB_OK;
}

static int counter_read(struct guard *guard, const char *name, uint64_t *out)
{
	struct nftnl_obj *counter = nftnl_obj_alloc();
	char buf[NETLINK_ROOM];
	struct nlmsghdr *request;

	if (!counter)
		return -ENOMEM;
	nftnl_obj_set_str(counter, NFTNL_OBJ_TABLE, EXIT_NFTABLE);
	nftnl_obj_set_str(counter, NFTNL_OBJ_NAME, name);
	nftnl_obj_set_u32(counter, NFTNL_OBJ_TYPE, NFT_OBJECT_COUNTER);
	request = nftnl_nlmsg_build_hdr(buf, NFT_MSG_GETOBJ, NFPROTO_INET, 0,
					++guard->sequence);
	nftnl_obj_nlmsg_build_payload(request, counter);
	nftnl_obj_free(counter);
	return ask(guard, request, counter_take, out);
}

int guard_counters(struct guard *guard, size_t exit, uint64_t *packets,
		   uint64_t *rejects)
{
	char name[32];
	uint64_t out = 0, rejected = 0;
	int err;

	snprintf(name, sizeof(name), GUARD_PACKETS, exit);
	err = counter_read(guard, name, &out);
	if (!err) {
		snprintf(name, sizeof(name), GUARD_REJECTS, exit);
		err = counter_read(guard, name, &rejected);
	}
	if (err)
		return err;
	*packets = out;
	*rejects = rejected;
	return 0;
}
