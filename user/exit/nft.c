/* SPDX-License-Identifier: BSD-2-Clause */
/* A connection to nftables (see nft.h). */
#include "exit/nft.h"

#include <errno.h>
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

#include "base/syscalls.h"
#include "exit/internal.h"

SYSCALLS_SOCKET(SYSCALLS_EXIT, AF_NETLINK, NETLINK_NETFILTER);
SYSCALLS(SYSCALLS_EXIT, "bind getsockname setsockopt sendto recvmsg close");

#define TABLE_PERSIST 0x4 /* NFT_TABLE_F_PERSIST, not in older headers */
#define TABLE_OURS    (NFT_TABLE_F_OWNER | TABLE_PERSIST)
#define TABLE_ASLEEP  (NFT_TABLE_F_OWNER | NFT_TABLE_F_DORMANT)
#define PROBE         "culvert_probe"
#define TRIES         8 /* while others change nftables */
#define ELEMENTS_ROOM (1 << 16) /* bytes of a message of a set */

struct nft {
	struct mnl_socket *socket; /* the tables' owner */
	struct mnl_socket *watch;
	uint32_t port, sequence;
	bool asked; /* the kernel, whether it knows owners that leave their table */
	bool shared; /* it does not */
	bool missed; /* somebody changed something while we did not listen */
	bool pending; /* a table of ours was touched by a change not told of yet */
};

/* Does the watch hear of changes? */
static int watch_listen(struct mnl_socket *watch, bool on)
{
	int group = NFNLGRP_NFTABLES;

	return mnl_socket_setsockopt(watch,
				     on ? NETLINK_ADD_MEMBERSHIP :
					  NETLINK_DROP_MEMBERSHIP,
				     &group, sizeof(group)) < 0 ?
		       -errno :
		       0;
}

static struct mnl_socket *socket_open(int flags)
{
	struct mnl_socket *socket =
		mnl_socket_open2(NETLINK_NETFILTER, SOCK_CLOEXEC | flags);
	int err;

	if (!socket)
		return NULL;
	if (mnl_socket_bind(socket, 0, MNL_SOCKET_AUTOPID) == 0)
		return socket;
	err = errno;
	mnl_socket_close(socket);
	errno = err;
	return NULL;
}

int nft_open(struct nft **out)
{
	struct nft *nft = calloc(1, sizeof(*nft));
	int err;

	if (!nft)
		return -ENOMEM;
	nft->sequence = (uint32_t)time(NULL);
	nft->socket = socket_open(0);
	if (nft->socket)
		nft->watch = socket_open(SOCK_NONBLOCK);
	err = nft->watch ? watch_listen(nft->watch, true) : -errno;
	if (err) {
		nft_close(nft);
		return err;
	}
	batch_room(nft->socket);
	nft->port = mnl_socket_get_portid(nft->socket);
	*out = nft;
	return 0;
}

void nft_close(struct nft *nft)
{
	if (!nft)
		return;
	if (nft->socket)
		mnl_socket_close(nft->socket);
	if (nft->watch)
		mnl_socket_close(nft->watch);
	free(nft);
}

/* Asks for one object; -ENOENT: there is none. */
static int ask(struct nft *nft, struct nlmsghdr *request, mnl_cb_t take,
	       void *arg)
{
	char answer[NETLINK_ROOM];
	ssize_t len;

	if (mnl_socket_sendto(nft->socket, request, request->nlmsg_len) < 0)
		return -errno;
	len = mnl_socket_recvfrom(nft->socket, answer, sizeof(answer));
	if (len < 0)
		return -errno;
	return mnl_cb_run(answer, (size_t)len, request->nlmsg_seq, nft->port,
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

static int generation_read(struct nft *nft, uint32_t *out)
{
	char buf[NETLINK_ROOM];

	*out = 0;
	return ask(nft,
		   nftnl_nlmsg_build_hdr(buf, NFT_MSG_GETGEN, AF_UNSPEC, 0,
					 ++nft->sequence),
		   generation_take, out);
}

static int table_take(const struct nlmsghdr *msg, void *arg)
{
	struct nftnl_table *table = nftnl_table_alloc();
	struct nft_found *found = arg;
	const uint8_t *data;
	uint32_t len = 0;

	if (!table)
		return MNL_CB_ERROR;
	if (nftnl_table_nlmsg_parse(msg, table) == 0) {
		data = nftnl_table_get_data(table, NFTNL_TABLE_USERDATA, &len);
		/* Type and length, a byte each, then the text with its NUL. */
		if (data && len > 2 && len - 2 <= NFT_COMMENT_MAX &&
		    !data[len - 1])
			memcpy(found->comment, data + 2, len - 2);
		found->flags = nftnl_table_get_u32(table, NFTNL_TABLE_FLAGS);
		if (nftnl_table_is_set(table, NFTNL_TABLE_OWNER))
			found->owner =
				nftnl_table_get_u32(table, NFTNL_TABLE_OWNER);
	}
	nftnl_table_free(table);
	return MNL_CB_OK;
}

static int table_read(struct nft *nft, uint16_t family, const char *name,
		      struct nft_found *out)
{
	struct nftnl_table *table = nftnl_table_alloc();
	char buf[NETLINK_ROOM];
	struct nlmsghdr *request;

	if (!table)
		return -ENOMEM;
	memset(out, 0, sizeof(*out));
	nftnl_table_set_str(table, NFTNL_TABLE_NAME, name);
	request = nftnl_nlmsg_build_hdr(buf, NFT_MSG_GETTABLE, family, 0,
					++nft->sequence);
	nftnl_table_nlmsg_build_payload(request, table);
	nftnl_table_free(table);
	return ask(nft, request, table_take, out);
}

int nft_table_read(struct nft *nft, const char *name, struct nft_found *out)
{
	return table_read(nft, NFPROTO_INET, name, out);
}

/* Somebody else may have made tables of these names, without an owner. */
static int before_read(struct nft *nft, struct nft_batch *batch)
{
	static const uint16_t families[2] = { NFPROTO_INET, NFPROTO_IPV6 };
	struct nft_found found;
	int err = 0;

	for (size_t i = 0; i < 2 && !err; i++) {
		err = table_read(nft, families[i], batch->table, &found);
		batch->before[i] = err ? batch->flags : found.flags;
		/* Or a family that the kernel does not have. */
		if (err == -ENOENT || err == -EAFNOSUPPORT ||
		    err == -EOPNOTSUPP)
			err = 0;
	}
	return err;
}

static int commit_once(struct nft *nft, const struct nft_change *change,
		       uint32_t flags, uint32_t generation)
{
	struct nft_batch batch = { .table = change->table,
				   .sequence = &nft->sequence,
				   .flags = flags,
				   .family = NFPROTO_INET };
	bool anew = change->how == NFT_REPLACE || change->how == NFT_REMOVE;
	int err = anew ? before_read(nft, &batch) : 0;

	if (!err)
		err = batch_begin(&batch, generation);
	if (err)
		return err;
	/* Something must be answered. */
	if (anew)
		batch_table_clear(&batch, change->comment, true);
	else
		batch_table_add(&batch, change->comment, true);
	if (change->how == NFT_REPLACE)
		batch_table_add(&batch, change->comment, false);
	if (change->fill)
		change->fill(&batch, change->arg);
	if (!change->dry)
		batch_end(&batch);
	err = batch_send(&batch, nft->socket);
	batch_free(&batch);
	return err;
}

/*
 * The kernel tells of each element by a message of its own, thousands for one change
 * of ours, which takes it longer than the change: nobody listens meanwhile. The
 * generation says whether there was another change than this one.
 */
static int commit_unheard(struct nft *nft, const struct nft_change *change,
			  uint32_t flags, uint32_t generation)
{
	uint32_t now = 0;
	int quiet = watch_listen(nft->watch, false);
	int err = commit_once(nft, change, flags, generation);

	if (quiet || watch_listen(nft->watch, true) ||
	    generation_read(nft, &now) ||
	    now - generation != (err || change->dry ? 0 : 1))
		nft->missed = true;
	return err;
}

/*
 * Does the kernel know owners that leave their table? Asked of one that nobody has, of
 * which nothing stays; what it refuses of ours may have other reasons. Without, tables
 * are there all the same, if less firm.
 */
static bool owners_known(struct nft *nft)
{
	const struct nft_change probe = {
		.how = NFT_CHANGE, .table = PROBE, .comment = PROBE, .dry = true
	};
	int err;

	if (nft->asked)
		return !nft->shared;
	err = commit_once(nft, &probe, TABLE_OURS, 0);
	nft->asked = true;
	nft->shared = err == -EINVAL || err == -EOPNOTSUPP;
	return !nft->shared;
}

int nft_commit(struct nft *nft, const struct nft_change *change)
{
	uint32_t flags = change->asleep    ? TABLE_ASLEEP :
			 owners_known(nft) ? TABLE_OURS :
					     0;
	int err = -ERESTART;

	for (int i = 0; i < TRIES && err == -ERESTART; i++) {
		uint32_t generation;

		err = generation_read(nft, &generation);
		if (!err)
			err = commit_unheard(nft, change, flags, generation);
	}
	return err;
}

bool nft_owned(const struct nft *nft, const struct nft_found *found)
{
	return found->owner == nft->port;
}

bool nft_adoptable(struct nft *nft, const struct nft_found *found)
{
	return !found->owner && found->flags & TABLE_PERSIST &&
	       owners_known(nft);
}

bool nft_keepable(struct nft *nft, const struct nft_found *found)
{
	return found->owner || found->flags & TABLE_PERSIST ||
	       !owners_known(nft);
}

int nft_fd(const struct nft *nft)
{
	return mnl_socket_get_fd(nft->watch);
}

/* Attribute 1 is the table's name in every message of nftables. */
static bool is_ours(const struct nlmsghdr *msg)
{
	const struct nlattr *attr;

	mnl_attr_for_each(attr, msg, sizeof(struct nfgenmsg))
		if (mnl_attr_get_type(attr) == NFTA_TABLE_NAME &&
		    mnl_attr_validate(attr, MNL_TYPE_NUL_STRING) >= 0)
			return exit_nftable_is(mnl_attr_get_str(attr));
	return false;
}

/* What was changed comes first, who has changed it behind that. */
static bool message_take(struct nft *nft, const struct nlmsghdr *msg)
{
	bool touched;

	if (NFNL_SUBSYS_ID(msg->nlmsg_type) != NFNL_SUBSYS_NFTABLES)
		return false;
	if (NFNL_MSG_TYPE(msg->nlmsg_type) != NFT_MSG_NEWGEN) {
		nft->pending |= is_ours(msg);
		return false;
	}
	touched = nft->pending && msg->nlmsg_pid != nft->port;
	nft->pending = false;
	return touched;
}

bool nft_touched(struct nft *nft)
{
	char buf[NETLINK_ROOM];
	bool touched = nft->missed;

	nft->missed = false;
	for (;;) {
		ssize_t len = mnl_socket_recvfrom(nft->watch, buf, sizeof(buf));
		const struct nlmsghdr *msg = (const struct nlmsghdr *)buf;
		int left = (int)len;

		/* What was lost may have been of our table. */
		if (len < 0 && exit_news_lost(errno)) {
			touched = true;
			continue;
		}
		if (len <= 0)
			return touched;
		for (; mnl_nlmsg_ok(msg, left);
		     msg = mnl_nlmsg_next(msg, &left))
			touched |= message_take(nft, msg);
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

int nft_counter_read(struct nft *nft, const char *table, const char *name,
		     uint64_t *out)
{
	struct nftnl_obj *counter = nftnl_obj_alloc();
	char buf[NETLINK_ROOM];
	struct nlmsghdr *request;

	if (!counter)
		return -ENOMEM;
	nftnl_obj_set_str(counter, NFTNL_OBJ_TABLE, table);
	nftnl_obj_set_str(counter, NFTNL_OBJ_NAME, name);
	nftnl_obj_set_u32(counter, NFTNL_OBJ_TYPE, NFT_OBJECT_COUNTER);
	request = nftnl_nlmsg_build_hdr(buf, NFT_MSG_GETOBJ, NFPROTO_INET, 0,
					++nft->sequence);
	nftnl_obj_nlmsg_build_payload(request, counter);
	nftnl_obj_free(counter);
	return ask(nft, request, counter_take, out);
}

/* An end of a range while a set is read. */
struct bound {
	uint8_t at[16];
	uint16_t chain;
	bool end;
};

struct bounds {
	struct bound *all;
	size_t count;
	uint16_t (*read)(const char *chain); /* NULL: there are none */
};

static int bound_take(struct nftnl_set_elem *element, void *arg)
{
	struct bounds *bounds = arg;
	uint32_t len;
	const void *key = nftnl_set_elem_get(element, NFTNL_SET_ELEM_KEY, &len);
	struct bound *bound;

	if (!key || len > sizeof(bound->at))
		return 0;
	bound = exit_array_add((void **)&bounds->all, &bounds->count,
			       sizeof(*bound));
	if (!bound)
		return -1;
	memcpy(bound->at, key, len);
	bound->end = nftnl_set_elem_is_set(element, NFTNL_SET_ELEM_FLAGS) &&
		     nftnl_set_elem_get_u32(element, NFTNL_SET_ELEM_FLAGS) &
			     NFT_SET_ELEM_INTERVAL_END;
	if (bounds->read &&
	    nftnl_set_elem_is_set(element, NFTNL_SET_ELEM_CHAIN))
		bound->chain = bounds->read(
			nftnl_set_elem_get_str(element, NFTNL_SET_ELEM_CHAIN));
	return 0;
}

static int elements_take(const struct nlmsghdr *msg, void *arg)
{
	struct nftnl_set *set = nftnl_set_alloc();
	int err = -1;

	if (set && nftnl_set_elems_nlmsg_parse(msg, set) == 0)
		err = nftnl_set_elem_foreach(set, bound_take, arg);
	nftnl_set_free(set);
	if (err) {
		errno = ENOMEM;
		return MNL_CB_ERROR;
	}
	return MNL_CB_OK;
}

static int elements_dump(struct nft *nft, const char *table, const char *name,
			 struct bounds *bounds)
{
	struct nftnl_set *set = nftnl_set_alloc();
	char buf[NETLINK_ROOM], answer[ELEMENTS_ROOM];
	struct nlmsghdr *request;
	int more = MNL_CB_OK;

	if (!set)
		return -ENOMEM;
	nftnl_set_set_str(set, NFTNL_SET_TABLE, table);
	nftnl_set_set_str(set, NFTNL_SET_NAME, name);
	request = nftnl_nlmsg_build_hdr(buf, NFT_MSG_GETSETELEM, NFPROTO_INET,
					NLM_F_DUMP, ++nft->sequence);
	nftnl_set_elems_nlmsg_build_payload(request, set);
	nftnl_set_free(set);
	if (mnl_socket_sendto(nft->socket, request, request->nlmsg_len) < 0)
		return -errno;
	while (more > MNL_CB_STOP) {
		ssize_t len = mnl_socket_recvfrom(nft->socket, answer,
						  sizeof(answer));

		if (len < 0)
			return -errno;
		more = mnl_cb_run(answer, (size_t)len, nft->sequence, nft->port,
				  elements_take, bounds);
		if (more < 0) {
			int err = errno == EINTR ? -EAGAIN : -errno;

			exit_rest_drop(nft->socket, answer, sizeof(answer),
				       len);
			return err;
		}
	}
	return 0;
}

/* At one place a range ends before another begins. */
static int bound_compare(const void *left, const void *right)
{
	const struct bound *a = left, *b = right;
	int order = memcmp(a->at, b->at, sizeof(a->at));

	return order ? order : b->end - a->end;
}

/* They are in order. How many ranges are made of them. */
static size_t bounds_join(const struct bounds *bounds,
			  struct addr_range *ranges)
{
	size_t made = 0;

	for (size_t i = 0; i < bounds->count; i++) {
		const struct bound *bound = &bounds->all[i];

		if (!bound->end) {
			memcpy(ranges[made].first, bound->at,
			       sizeof(bound->at));
			ranges[made].chain = bound->chain;
			ranges[made++].open = true;
		} else if (made) {
			memcpy(ranges[made - 1].behind, bound->at,
			       sizeof(bound->at));
			ranges[made - 1].open = false;
		}
	}
	return made;
}

static size_t bounds_widen(const struct bounds *bounds,
			   const struct prefix *block,
			   struct addr_range *ranges)
{
	struct prefix prefix = *block;

	for (size_t i = 0; i < bounds->count; i++) {
		memcpy(prefix.bytes, bounds->all[i].at, sizeof(prefix.bytes));
		range_of_prefix(&prefix, &ranges[i]);
		ranges[i].chain = bounds->all[i].chain;
	}
	return bounds->count;
}

int nft_ranges_read(struct nft *nft, const char *table, const char *set,
		    const struct prefix *block,
		    uint16_t (*read)(const char *chain),
		    struct addr_range **out, size_t *count)
{
	struct bounds bounds = { .read = read };
	struct addr_range *ranges;
	int err = elements_dump(nft, table, set, &bounds);

	ranges = err ? NULL : calloc(bounds.count + 1, sizeof(*ranges));
	if (!err && !ranges)
		err = -ENOMEM;
	if (err) {
		free(bounds.all);
		return err;
	}
	if (bounds.count)
		qsort(bounds.all, bounds.count, sizeof(*bounds.all),
		      bound_compare);
	*count = block ? bounds_widen(&bounds, block, ranges) :
			 bounds_join(&bounds, ranges);
	free(bounds.all);
	*out = ranges;
	return 0;
}
