/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What a table of nftables has, as one number, to tell whether another table has the same:
 * chains, rules and sets with their elements, in the families inet and ip6, as the kernel
 * tells of them. Names of tables, handles and counts are left out, for they differ anyway;
 * so are the elements of sets that packets make, or that the caller looks at himself.
 *
 * Rules count in their order; what has none is summed up.
 */
#include "exit/nft_digest.h"

#include <errno.h>
#include <libmnl/libmnl.h>
#include <linux/netfilter.h>
#include <linux/netfilter/nf_tables.h>
#include <linux/netfilter/nfnetlink.h>
#include <stdio.h>
#include <string.h>

#include "base/syscalls.h"
#include "exit/internal.h"

SYSCALLS_SOCKET(SYSCALLS_EXIT, AF_NETLINK, NETLINK_NETFILTER);
SYSCALLS(SYSCALLS_EXIT, "bind getsockname sendto recvmsg close");

#define TRIES     8 /* while others change nftables */
#define SETS_MOST 64 /* whose elements are looked at */

#define BIT(attribute) (1u << (attribute))

struct digesting {
	struct mnl_socket *socket;
	unsigned int sequence;
	const struct nft_digest *what;
	const char *table;
	uint16_t family;
	uint32_t left_out; /* attributes of the messages, by bit */
	uint64_t digest, sum;
	char sets[SETS_MOST][BATCH_NAME]; /* with elements that count */
	size_t set_count;
};

static const char *text_of(const struct nlmsghdr *msg, uint16_t type)
{
	const struct nlattr *attr;

	mnl_attr_for_each(attr, msg, sizeof(struct nfgenmsg))
		if (mnl_attr_get_type(attr) == type &&
		    mnl_attr_validate(attr, MNL_TYPE_NUL_STRING) >= 0)
			return mnl_attr_get_str(attr);
	return "";
}

/* Attribute 1 is the table's name in every message of nftables. */
static bool concerns(const struct digesting *on, const struct nlmsghdr *msg)
{
	const struct nfgenmsg *head = mnl_nlmsg_get_payload(msg);

	return head->nfgen_family == on->family &&
	       !strcmp(text_of(msg, NFTA_TABLE_NAME), on->table);
}

static uint64_t message_digest(const struct digesting *on,
			       const struct nlmsghdr *msg, uint64_t digest)
{
	const struct nlattr *attr;

	mnl_attr_for_each(attr, msg, sizeof(struct nfgenmsg)) {
		uint16_t type = mnl_attr_get_type(attr);

		if (type < 32 && !(on->left_out & BIT(type)))
			digest = exit_digest(digest, attr, attr->nla_len);
	}
	return digest;
}

static int rule_take(const struct nlmsghdr *msg, void *arg)
{
	struct digesting *on = arg;

	if (concerns(on, msg))
		on->digest = message_digest(on, msg, on->digest);
	return MNL_CB_OK;
}

static int other_take(const struct nlmsghdr *msg, void *arg)
{
	struct digesting *on = arg;

	if (concerns(on, msg))
		on->sum += message_digest(on, msg, EXIT_DIGEST);
	return MNL_CB_OK;
}

static uint32_t set_flags(const struct nlmsghdr *msg)
{
	const struct nlattr *attr;

	mnl_attr_for_each(attr, msg, sizeof(struct nfgenmsg))
		if (mnl_attr_get_type(attr) == NFTA_SET_FLAGS &&
		    mnl_attr_get_payload_len(attr) >= sizeof(uint32_t))
			return ntohl(mnl_attr_get_u32(attr));
	return 0;
}

static int set_take(const struct nlmsghdr *msg, void *arg)
{
	struct digesting *on = arg;
	const char *name = text_of(msg, NFTA_SET_NAME);

	other_take(msg, arg);
	if (!concerns(on, msg) || set_flags(msg) & NFT_SET_EVAL ||
	    on->what->passed(on->what->arg, name))
		return MNL_CB_OK;
	if (on->set_count == SETS_MOST) {
		errno = EOVERFLOW;
		return MNL_CB_ERROR;
	}
	snprintf(on->sets[on->set_count++], BATCH_NAME, "%s", name);
	return MNL_CB_OK;
}

static int elements_take(const struct nlmsghdr *msg, void *arg)
{
	const char *set = text_of(msg, NFTA_SET_ELEM_LIST_SET);
	uint64_t begun = exit_digest(EXIT_DIGEST, set, strlen(set));
	const struct nlattr *attr, *element;
	struct digesting *on = arg;

	mnl_attr_for_each(attr, msg, sizeof(struct nfgenmsg)) {
		if (mnl_attr_get_type(attr) != NFTA_SET_ELEM_LIST_ELEMENTS)
			continue;
		mnl_attr_for_each_nested(element, attr)
		{
			on->sum +=
				exit_digest(begun, element, element->nla_len);
		}
	}
	return MNL_CB_OK;
}

/* set NULL: of messages that are of no set. */
static int dump(struct digesting *on, uint16_t type, const char *set,
		mnl_cb_t take)
{
	char buf[1024], answer[1 << 16];
	struct nlmsghdr *request = mnl_nlmsg_put_header(buf);
	struct nfgenmsg *head;
	int more = MNL_CB_OK;

	request->nlmsg_type = (uint16_t)(NFNL_SUBSYS_NFTABLES << 8 | type);
	request->nlmsg_flags = NLM_F_REQUEST | NLM_F_DUMP;
	request->nlmsg_seq = ++on->sequence;
	head = mnl_nlmsg_put_extra_header(request, sizeof(*head));
	head->nfgen_family = (uint8_t)on->family;
	mnl_attr_put_strz(request, NFTA_TABLE_NAME, on->table);
	if (set)
		mnl_attr_put_strz(request, NFTA_SET_ELEM_LIST_SET, set);
	if (mnl_socket_sendto(on->socket, request, request->nlmsg_len) < 0)
		return -errno;
	while (more > MNL_CB_STOP) {
		ssize_t len =
			mnl_socket_recvfrom(on->socket, answer, sizeof(answer));

		if (len < 0)
			return -errno;
		more = mnl_cb_run(answer, (size_t)len, on->sequence, 0, take,
				  on);
		if (more < 0) {
			int err = -errno;

			exit_rest_drop(on->socket, answer, sizeof(answer), len);
			return err;
		}
	}
	return 0;
}

static int family_digest(struct digesting *on)
{
	int err;

	on->set_count = 0;
	on->left_out = BIT(NFTA_RULE_TABLE) | BIT(NFTA_RULE_HANDLE) |
		       BIT(NFTA_RULE_POSITION);
	err = dump(on, NFT_MSG_GETRULE, NULL, rule_take);
	on->left_out = BIT(NFTA_CHAIN_TABLE) | BIT(NFTA_CHAIN_HANDLE) |
		       BIT(NFTA_CHAIN_USE) | BIT(NFTA_CHAIN_COUNTERS);
	if (!err)
		err = dump(on, NFT_MSG_GETCHAIN, NULL, other_take);
	/*
	 * Newer kernels tell how many elements it has, behind all known here; for how
	 * many it has room depends on when it was made.
	 */
	on->left_out = BIT(NFTA_SET_TABLE) | BIT(NFTA_SET_DESC) |
		       BIT(NFTA_SET_ID) | BIT(NFTA_SET_HANDLE) |
		       ~(BIT(NFTA_SET_EXPRESSIONS + 1) - 1);
	if (!err)
		err = dump(on, NFT_MSG_GETSET, NULL, set_take);
	for (size_t i = 0; i < on->set_count && !err; i++)
		err = dump(on, NFT_MSG_GETSETELEM, on->sets[i], elements_take);
	return err;
}

static int table_digest(struct digesting *on)
{
	static const uint16_t families[2] = { NFPROTO_INET, NFPROTO_IPV6 };
	int err = 0;

	on->digest = EXIT_DIGEST;
	on->sum = 0;
	for (size_t i = 0; i < 2 && !err; i++) {
		on->family = families[i];
		err = family_digest(on);
		/* No such table, or a family that the kernel does not have. */
		if (err == -ENOENT || err == -EAFNOSUPPORT ||
		    err == -EOPNOTSUPP)
			err = 0;
	}
	return err;
}

int nft_digest(const char *table, const struct nft_digest *what, uint64_t *out)
{
	struct digesting on = { .what = what, .table = table };
	int err = -EINTR;

	on.socket = mnl_socket_open2(NETLINK_NETFILTER, SOCK_CLOEXEC);
	if (!on.socket || mnl_socket_bind(on.socket, 0, MNL_SOCKET_AUTOPID) < 0)
		err = -errno;
	for (int i = 0; i < TRIES && err == -EINTR; i++)
		err = table_digest(&on);
	if (on.socket)
		mnl_socket_close(on.socket);
	if (!err)
		*out = exit_digest(on.digest, &on.sum, sizeof(on.sum));
	return err;
}
