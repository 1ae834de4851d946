/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What of this host keeps exits from working, or may: settings, other programs' rules and
 * firewalls, and what the kernel lacks. The last is not guessed: all that the configuration
 * wants is made in a network namespace of its own, where it can do no harm.
 */
#include "exit/check.h"

#include <errno.h>
#include <fcntl.h>
#include <libnftnl/chain.h>
#include <linux/fib_rules.h>
#include <linux/netfilter.h>
#include <linux/netfilter/nf_tables.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "exit/internal.h"

#define CHAIN_NAME 31 /* bytes with NUL */

/* Rules of routing that are asked before ours: their preferences, each once. */
struct rules_look {
	uint32_t *ahead;
	size_t count;
};

static void rule_tell(const struct exit_checking *checking, sa_family_t family,
		      uint32_t priority)
{
	struct exit_finding finding = { .name = "rule_ahead" };
	int number = family == AF_INET6 ? 6 : 4;

	snprintf(finding.where, sizeof(finding.where),
		 "routing rules of IPv%d, preference %u", number, priority);
	snprintf(finding.what, sizeof(finding.what),
		 "another program's is asked before those of exits: what it "
		 "has a route for takes that, whatever its source");
	snprintf(finding.hint, sizeof(finding.hint),
		 "look at \"ip -%d rule\"; a preference above %u is asked "
		 "after exits",
		 number, RULE_LOST);
	checking->fn(checking->arg, &finding);
}

static int rule_attribute_take(const struct nlattr *attr, void *arg)
{
	const struct nlattr **at = arg;

	if (mnl_attr_get_type(attr) <= FRA_MAX)
		at[mnl_attr_get_type(attr)] = attr;
	return MNL_CB_OK;
}

static int rule_look(const struct nlmsghdr *msg, void *arg)
{
	const struct nlattr *at[FRA_MAX + 1] = { NULL };
	struct rules_look *look = arg;
	uint32_t priority = 0, *kept;
	uint8_t owner = 0;

	mnl_attr_parse(msg, sizeof(struct fib_rule_hdr), rule_attribute_take,
		       at);
	if (at[FRA_PRIORITY])
		priority = mnl_attr_get_u32(at[FRA_PRIORITY]);
	if (at[FRA_PROTOCOL])
		owner = mnl_attr_get_u8(at[FRA_PROTOCOL]);
	/* The kernel's own are that of local, at 0, and that of VRFs. */
	if (!priority || priority >= EXIT_PRIORITY || at[FRA_L3MDEV] ||
	    owner == EXIT_PROTOCOL || owner == EXIT_LEARNT ||
	    (look->count && priority == look->ahead[look->count - 1]))
		return MNL_CB_OK;
	kept = exit_array_add((void **)&look->ahead, &look->count,
			      sizeof(*kept));
	if (!kept) {
		errno = ENOMEM;
		return MNL_CB_ERROR;
	}
	*kept = priority;
	return MNL_CB_OK;
}

/* They are told of when all are there, for some may be read twice. */
static int family_check(const struct exit_checking *checking, struct rtnl *rtnl,
			sa_family_t family)
{
	struct rules_look look = { .ahead = NULL };
	int tries = 0, err;

	do {
		look.count = 0;
		err = rtnl_rules(rtnl, family, rule_look, &look);
	} while (exit_read_again(err, &tries));
	for (size_t i = 0; i < look.count && !err; i++)
		rule_tell(checking, family, look.ahead[i]);
	free(look.ahead);
	return err;
}

static int rules_check(const struct exit_checking *checking)
{
	static const sa_family_t families[] = { AF_INET, AF_INET6 };
	struct rtnl *rtnl = NULL;
	int err = rtnl_open(&rtnl);

	for (size_t i = 0; i < 2 && !err; i++)
		if (exit_has_family(checking->conf, families[i]))
			err = family_check(checking, rtnl, families[i]);
	rtnl_close(rtnl);
	return err;
}

/* A base chain that drops what is forwarded unless a rule lets it pass. */
struct chain_found {
	char table[CHAIN_NAME], chain[CHAIN_NAME]; /* as much as is told */
};

struct chains_look {
	const struct conf *conf;
	struct chain_found *all;
	size_t count;
};

static void chain_tell(const struct exit_checking *checking,
		       const struct chain_found *found)
{
	struct exit_finding finding = { .name = "firewall" };

	snprintf(finding.where, sizeof(finding.where),
		 "chain %s of table %s of nftables", found->chain,
		 found->table);
	snprintf(finding.what, sizeof(finding.what),
		 "it drops what is forwarded unless a rule lets it pass");
	snprintf(finding.hint, sizeof(finding.hint),
		 "look at \"nft list ruleset\": do its rules let the site's "
		 "packets pass by every exit?");
	checking->fn(checking->arg, &finding);
}

static bool chain_concerns(const struct conf *conf, uint32_t family)
{
	static const sa_family_t families[] = { AF_INET, AF_INET6 };

	for (size_t i = 0; i < 2; i++)
		if ((family == NFPROTO_INET ||
		     family == (uint32_t)families[i]) &&
		    exit_has_family(conf, families[i]) &&
		    exit_forwards(families[i]))
			return true;
	return false;
}

static int chain_keep(struct chains_look *look, const struct nftnl_chain *chain)
{
	struct chain_found *found = exit_array_add(
		(void **)&look->all, &look->count, sizeof(*found));

	if (!found)
		return -ENOMEM;
	snprintf(found->table, sizeof(found->table), "%s",
		 nftnl_chain_get_str(chain, NFTNL_CHAIN_TABLE));
	snprintf(found->chain, sizeof(found->chain), "%s",
		 nftnl_chain_get_str(chain, NFTNL_CHAIN_NAME));
	return 0;
}

static int chain_look(const struct nlmsghdr *msg, void *arg)
{
	struct nftnl_chain *chain = nftnl_chain_alloc();
	struct chains_look *look = arg;
	int err = chain ? 0 : -ENOMEM;

	if (!err && !nftnl_chain_nlmsg_parse(msg, chain) &&
	    nftnl_chain_is_set(chain, NFTNL_CHAIN_HOOKNUM) &&
	    nftnl_chain_get_u32(chain, NFTNL_CHAIN_HOOKNUM) ==
		    NF_INET_FORWARD &&
	    nftnl_chain_get_u32(chain, NFTNL_CHAIN_POLICY) == NF_DROP &&
	    chain_concerns(look->conf,
			   nftnl_chain_get_u32(chain, NFTNL_CHAIN_FAMILY)))
		err = chain_keep(look, chain);
	if (chain)
		nftnl_chain_free(chain);
	errno = -err;
	return err ? MNL_CB_ERROR : MNL_CB_OK;
}

static int chains_dump(struct chains_look *look)
{
	struct mnl_socket *socket =
		mnl_socket_open2(NETLINK_NETFILTER, SOCK_CLOEXEC);
	char buf[NETLINK_ROOM];
	struct nlmsghdr *request = nftnl_nlmsg_build_hdr(
		buf, NFT_MSG_GETCHAIN, NFPROTO_UNSPEC, NLM_F_DUMP, 1);
	ssize_t len = 0;
	int more = MNL_CB_OK;

	if (!socket || mnl_socket_bind(socket, 0, MNL_SOCKET_AUTOPID) < 0 ||
	    mnl_socket_sendto(socket, request, request->nlmsg_len) < 0)
		more = MNL_CB_ERROR;
	while (more > MNL_CB_STOP) {
		len = mnl_socket_recvfrom(socket, buf, sizeof(buf));
		more = len < 0 ? MNL_CB_ERROR :
				 mnl_cb_run(buf, (size_t)len, 1, 0, chain_look,
					    look);
	}
	more = more < 0 ? -errno : 0;
	if (socket)
		mnl_socket_close(socket);
	return more;
}

static int chains_check(const struct exit_checking *checking)
{
	struct chains_look look = { .conf = checking->conf };
	int tries = 0, err;

	do {
		look.count = 0;
		err = chains_dump(&look);
	} while (exit_read_again(err, &tries));
	for (size_t i = 0; i < look.count && !err; i++)
		chain_tell(checking, &look.all[i]);
	free(look.all);
	return err;
}

/* What may be missing, by a word of what was refused. */
static const char *option_of(const char *failed)
{
	static const struct {
		const char *word, *option;
	} options[] = {
		{ " route default from ", "CONFIG_IPV6_SUBTREES" },
		{ " rule ", "CONFIG_IP_MULTIPLE_TABLES and "
			    "CONFIG_IPV6_MULTIPLE_TABLES" },
		{ "ip6tnl",
		  "CONFIG_IPV6_TUNNEL; tunnel = vxlan-gpe does without" },
		{ "ip -6 address ",
		  "IPv6 on new devices (net.ipv6.conf.default.disable_ipv6 = 0)" },
		{ EXIT_TUNNEL, "CONFIG_VXLAN" },
	};

	for (size_t i = 0; i < sizeof(options) / sizeof(options[0]); i++)
		if (strstr(failed, options[i].word))
			return options[i].option;
	return "CONFIG_NF_TABLES_INET, CONFIG_NFT_REJECT_INET and "
	       "CONFIG_NFT_FIB_INET";
}

static void refused_tell(const struct exit_checking *checking,
			 const char *failed, int err)
{
	struct exit_finding finding = { .name = "kernel", .wrong = true };

	snprintf(finding.where, sizeof(finding.where), "this kernel");
	snprintf(finding.what, sizeof(finding.what), "it refuses \"%.80s\": %s",
		 *failed ? failed : "what exits need", strerror(-err));
	snprintf(finding.hint, sizeof(finding.hint), "does it have %s?",
		 option_of(failed));
	checking->fn(checking->arg, &finding);
}

/* In this network namespace, which is empty. */
static int everything_make(const struct conf *conf, struct exit_change *change)
{
	struct rtnl *rtnl = NULL;
	struct nft *nft = NULL;
	int err = rtnl_open(&rtnl);

	if (!err)
		err = nft_open(&nft);
	if (!err)
		err = exit_once(conf, NULL, rtnl, nft, change);
	nft_close(nft);
	rtnl_close(rtnl);
	return err ? err : change->error;
}

static int kernel_check(const struct exit_checking *checking)
{
	char failed[EXIT_TEXT] = "";
	struct exit_change change = { .failed = failed };
	int home = open("/proc/self/ns/net", O_RDONLY | O_CLOEXEC);
	int err = 0, back = 0;

	if (home < 0 || unshare(CLONE_NEWNET) < 0) {
		err = -errno;
		if (home >= 0)
			close(home);
		return err;
	}
	err = everything_make(checking->conf, &change);
	if (err)
		refused_tell(checking, failed, err);
	if (setns(home, CLONE_NEWNET) < 0)
		back = -errno;
	close(home);
	return back;
}

int exit_check(const struct conf *conf,
	       void (*fn)(void *arg, const struct exit_finding *finding),
	       void *arg)
{
	const struct exit_checking checking = { conf, fn, arg };
	int err;

	exit_settings_check(conf, fn, arg);
	networkd_check(&checking);
	err = rules_check(&checking);
	if (!err)
		err = chains_check(&checking);
	return err ? err : kernel_check(&checking);
}
