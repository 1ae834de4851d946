/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The learner: from ICMPv6 type 1 code 5, which the guards log to us and to nobody
 * else, to routes that tunnel to the exit router.
 *
 * An entry is a route from one source to one destination, to the anycast address of
 * the source's prefix; the prefix and its length come from the configuration. What we
 * are told is only that there is something to learn. The anycast address is asked
 * first: a datagram with a secret goes to a port of it that nobody has, and the error
 * that comes back has the secret in it, so that who has not seen the datagram cannot
 * answer it. While there are entries it is asked every CHECK_MS; without an answer to
 * TRIES in a row, or when an error with the secret says that there is no way, all
 * entries by it go, and nothing is learnt of it for GONE_MS.
 *
 *   asked --(answer)--> there --(no answer)--> gone --(GONE_MS)--> forgotten
 *     \--(no answer)--> gone      \--(no entries)--> forgotten
 *
 * What comes while it is asked waits, PENDING_MAX at most. Entries are bounded by
 * discover_entries, the oldest goes; they end with discover_time in the kernel, too,
 * when we are not there any more.
 *
 * An exit router rejects what comes out of a tunnel and does not leave the site, so that
 * an entry of a destination within the site would be a black hole, and whoever makes us
 * send there, by a forged source, could have us told of it: nothing is learnt of the
 * exits' own prefixes. Nobody has reason to tell of what is tunnelled already: who does
 * has rejected it, or our route is gone. Then the entry goes, and is learnt anew if that
 * was not so.
 */
#include "exit/learn.h"

#include <errno.h>
#include <linux/errqueue.h>
#include <linux/netfilter/nfnetlink_log.h>
#include <linux/rtnetlink.h>
#include <net/if.h>
#include <netinet/icmp6.h>
#include <netinet/ip6.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/list.h"
#include "base/log.h"
#include "base/random.h"
#include "base/secret.h"
#include "base/syscalls.h"
#include "exit/tunnel.h"

SYSCALLS_SOCKET(SYSCALLS_EXIT, AF_NETLINK, NETLINK_NETFILTER);
SYSCALLS_SOCKET(SYSCALLS_EXIT, AF_INET6, 0);
SYSCALLS_SOCKET(SYSCALLS_EXIT, AF_UNIX, 0); /* if_nametoindex() */
SYSCALLS(SYSCALLS_EXIT, "bind getsockname sendto recvmsg recvfrom setsockopt "
			"connect ioctl close");

#define CODE_INGRESS 5 /* source address failed ingress policy, RFC 4443 */
#define ASK_PORT     33434 /* that nobody listens on */
#define SECRET       16 /* bytes */
#define ASK_MS       1000
#define CHECK_MS     2000
#define GONE_MS      10000
#define TRIES        3
#define PENDING_MAX  16
#define ENDS_MAX     64

enum end_state {
	END_ASKED,
	END_THERE,
	END_GONE
};

/* An anycast address. */
struct end {
	struct list link;
	struct learner *learner;
	union addr anycast;
	enum end_state state;
	struct watch watch; /* what it is asked by; fd -1: nothing */
	uint8_t secret[SECRET];
	unsigned int tries; /* without an answer */
	uint64_t due_ms; /* when there is something to do */
	struct pending {
		union addr from, to;
	} pending[PENDING_MAX];
	size_t pending_count;
};

struct entry {
	struct list link; /* oldest first */
	const struct conf_exit *exit;
	const struct end *end;
	struct exit_route route;
	uint64_t since_ms; /* expires the exit's discover_time after that */
};

struct learner {
	struct loop *loop;
	const struct conf *conf; /* of who owns us */
	struct rtnl *rtnl;
	struct mnl_socket *socket;
	struct watch watch;
	struct list ends, entries;
	size_t end_count;
	struct timer timer;
	struct log_limit limit;
};

static void tick(struct timer *timer);

bool learn_wanted(const struct conf *conf)
{
	for (size_t i = 0; i < conf->exit_count; i++)
		if (conf->exits[i].discover)
			return true;
	return false;
}

int learn_parse(const uint8_t *packet, size_t len, union addr *from,
		union addr *to)
{
	const size_t inner = sizeof(struct ip6_hdr) + sizeof(struct icmp6_hdr);
	const uint8_t *about = packet + inner;

	/* Without extension headers: exit routers of ours send none. */
	if (len < inner + sizeof(struct ip6_hdr) || packet[0] >> 4 != 6 ||
	    packet[6] != IPPROTO_ICMPV6 || packet[40] != ICMP6_DST_UNREACH ||
	    packet[41] != CODE_INGRESS || about[0] >> 4 != 6)
		return -EINVAL;
	/* It was told to whom it is about. */
	if (memcmp(packet + 24, about + 8, 16) != 0)
		return -EINVAL;
	addr_from_bytes(from, AF_INET6, about + 8, 0);
	addr_from_bytes(to, AF_INET6, about + 24, 0);
	return 0;
}

static int payload_take(const struct nlattr *attr, void *arg)
{
	if (mnl_attr_get_type(attr) == NFULA_PAYLOAD)
		*(const struct nlattr **)arg = attr;
	return MNL_CB_OK;
}

int learn_message(const struct nlmsghdr *msg, union addr *from, union addr *to)
{
	const struct nlattr *payload = NULL;

	mnl_attr_parse(msg, sizeof(struct nfgenmsg), payload_take, &payload);
	if (!payload)
		return -EINVAL;
	return learn_parse(mnl_attr_get_payload(payload),
			   mnl_attr_get_payload_len(payload), from, to);
}

static void entry_forget(struct learner *learner, struct entry *entry)
{
	rtnl_route(learner->rtnl, &entry->route, false);
	list_del(&entry->link);
	free(entry);
}

static struct entry *entry_find(struct learner *learner, const union addr *from,
				const union addr *to)
{
	struct list *pos;

	list_for_each(pos, &learner->entries) {
		struct entry *entry = list_entry(pos, struct entry, link);

		if (!memcmp(entry->route.from.bytes,
			    from->in6.sin6_addr.s6_addr, 16) &&
		    !memcmp(entry->route.to.bytes, to->in6.sin6_addr.s6_addr,
			    16))
			return entry;
	}
	return NULL;
}

/* Room for one more entry of an exit. */
static void entries_bound(struct learner *learner, const struct conf_exit *exit)
{
	struct entry *oldest = NULL;
	struct list *pos;
	size_t count = 0;

	list_for_each(pos, &learner->entries) {
		struct entry *entry = list_entry(pos, struct entry, link);

		if (entry->exit != exit)
			continue;
		count++;
		if (!oldest)
			oldest = entry;
	}
	if (oldest && count >= exit->discover_entries)
		entry_forget(learner, oldest);
}

/* Is there an entry, of which we are told though it is there? */
static bool entry_told(struct learner *learner, const union addr *from,
		       const union addr *to)
{
	struct entry *entry = entry_find(learner, from, to);

	if (!entry)
		return false;
	/* Of what was on its way before. */
	if (clock_ms() - entry->since_ms >= ASK_MS)
		entry_forget(learner, entry);
	return true;
}

static void entry_learn(struct learner *learner, const struct end *end,
			const union addr *from, const union addr *to)
{
	const struct conf_exit *exit = conf_exit_of(learner->conf, from);
	struct exit_route *route;
	struct entry *entry;
	int err;

	/* Told of twice while the other end was asked. */
	if (entry_find(learner, from, to))
		return;
	entries_bound(learner, exit);
	entry = calloc(1, sizeof(*entry));
	if (!entry)
		return;
	list_add_tail(&entry->link, &learner->entries);
	entry->exit = exit;
	entry->end = end;
	entry->since_ms = clock_ms();
	route = &entry->route;
	route->to = route->from = (struct prefix){ AF_INET6, 128, { 0 } };
	memcpy(route->to.bytes, to->in6.sin6_addr.s6_addr, 16);
	memcpy(route->from.bytes, from->in6.sin6_addr.s6_addr, 16);
	route->table = EXIT_TABLE;
	route->metric = METRIC_DEFAULT;
	route->link = (int)if_nametoindex(EXIT_TUNNEL);
	route->remote = end->anycast;
	route->source = *from;
	route->expires_s = (uint32_t)(exit->discover_time_ms / 1000);
	err = route->link ? rtnl_route(learner->rtnl, route, true) : -ENODEV;
	if (!err)
		return;
	log_warn(ROOM,
		 "event=exit_not_learnt error=\"%s\" effect=\"packets go by "
		 "the router that has told of another\"",
		 strerror(-err));
	entry_forget(learner, entry);
}

static void end_free(struct end *end)
{
	watch_close(end->learner->loop, &end->watch);
	list_del(&end->link);
	end->learner->end_count--;
	free(end);
}

/* Whatever was learnt of it is not so any more. */
static void end_gone(struct end *end, const char *reason)
{
	struct learner *learner = end->learner;
	struct list *pos, *tmp;
	char text[ADDR_STRLEN];
	uint64_t suppressed;
	size_t count = 0;

	list_for_each_safe(pos, tmp, &learner->entries) {
		struct entry *entry = list_entry(pos, struct entry, link);

		if (entry->end != end)
			continue;
		entry_forget(learner, entry);
		count++;
	}
	end->state = END_GONE;
	end->due_ms = clock_ms() + GONE_MS;
	end->pending_count = 0;
	watch_close(learner->loop, &end->watch);
	if (log_allow(&learner->limit, clock_ms(), &suppressed))
		log_warn(ROOM,
			 "event=exit_forgotten anycast=%s entries=%zu "
			 "reason=\"%s\" effect=\"packets go by the default "
			 "route\" suppressed=%ju",
			 addr_format_host(&end->anycast, text), count, reason,
			 (uintmax_t)suppressed);
}

static void end_answered(struct end *end)
{
	end->state = END_THERE;
	end->tries = 0;
	end->due_ms = clock_ms() + CHECK_MS;
	for (size_t i = 0; i < end->pending_count; i++)
		entry_learn(end->learner, end, &end->pending[i].from,
			    &end->pending[i].to);
	end->pending_count = 0;
}

/* The error of a message, or NULL. */
static const struct sock_extended_err *error_of(struct msghdr *msg)
{
	struct cmsghdr *cmsg = CMSG_FIRSTHDR(msg);

	for (; cmsg; cmsg = CMSG_NXTHDR(msg, cmsg))
		if (cmsg->cmsg_level == IPPROTO_IPV6 &&
		    cmsg->cmsg_type == IPV6_RECVERR)
			return (const void *)CMSG_DATA(cmsg);
	return NULL;
}

/* False: there is none. */
static bool answer_take(struct end *end)
{
	char control[256] __attribute__((aligned(8)));
	uint8_t data[SECRET + 1];
	struct iovec part = { .iov_base = data, .iov_len = sizeof(data) };
	struct msghdr msg = { .msg_iov = &part,
			      .msg_iovlen = 1,
			      .msg_control = control,
			      .msg_controllen = sizeof(control) };
	ssize_t len = recvmsg(end->watch.fd, &msg, MSG_ERRQUEUE);
	const struct sock_extended_err *error;

	if (len < 0)
		return false;
	error = error_of(&msg);
	if (!error || error->ee_origin != SO_EE_ORIGIN_ICMP6 ||
	    error->ee_type != ICMP6_DST_UNREACH || len != SECRET ||
	    !secret_equal(data, end->secret, SECRET))
		return true;
	if (error->ee_code == ICMP6_DST_UNREACH_NOPORT)
		end_answered(end);
	else
		end_gone(end, "an error says that there is no way");
	return end->watch.fd >= 0;
}

static void answer_ready(struct watch *watch, uint32_t events)
{
	struct end *end = list_entry(watch, struct end, watch);
	uint8_t ignored[SECRET];

	(void)events;
	/* Whoever does listen there has not heard of us. */
	while (recv(watch->fd, ignored, sizeof(ignored), 0) >= 0)
		;
	while (answer_take(end))
		;
}

static int end_open(struct end *end, const union addr *from)
{
	union addr source = *from, to = end->anycast;
	int on = 1, err = 0;
	int fd = socket(AF_INET6, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

	if (fd < 0)
		return -errno;
	addr_set_port(&source, 0);
	addr_set_port(&to, ASK_PORT);
	if (setsockopt(fd, IPPROTO_IPV6, IPV6_RECVERR, &on, sizeof(on)) < 0 ||
	    bind(fd, &source.sa, addr_len(&source)) < 0 ||
	    connect(fd, &to.sa, addr_len(&to)) < 0)
		err = -errno;
	if (!err)
		err = watch_add(end->learner->loop, &end->watch, fd, EPOLLIN,
				answer_ready);
	if (err)
		close(fd);
	return err;
}

static void end_ask(struct end *end)
{
	ssize_t sent;

	if (end->tries == TRIES) {
		end_gone(end, "no answer");
		return;
	}
	random_bytes(end->secret, SECRET);
	end->tries++;
	end->due_ms = clock_ms() + ASK_MS;
	sent = send(end->watch.fd, end->secret, SECRET, 0);
	/* An error of the one before is told of first. */
	if (sent < 0)
		sent = send(end->watch.fd, end->secret, SECRET, 0);
	if (sent < 0)
		end_gone(end, strerror(errno));
}

static struct end *end_new(struct learner *learner, const union addr *anycast,
			   const union addr *from)
{
	struct end *end;

	if (learner->end_count == ENDS_MAX)
		return NULL;
	end = calloc(1, sizeof(*end));
	if (!end)
		return NULL;
	end->learner = learner;
	end->anycast = *anycast;
	end->watch.fd = -1;
	/* A source that is not ours is refused here. */
	if (end_open(end, from)) {
		free(end);
		return NULL;
	}
	list_add_tail(&end->link, &learner->ends);
	learner->end_count++;
	end_ask(end);
	if (!learner->timer.armed)
		timer_arm(learner->loop, &learner->timer, ASK_MS, tick);
	return end;
}

static struct end *end_find(struct learner *learner, const union addr *anycast)
{
	struct list *pos;

	list_for_each(pos, &learner->ends) {
		struct end *end = list_entry(pos, struct end, link);

		if (addr_same_host(&end->anycast, anycast))
			return end;
	}
	return NULL;
}

/* The anycast address of the longest prefix around a source. */
static bool source_anycast(const struct conf *conf, const union addr *from,
			   union addr *out)
{
	const struct conf_exit *exit = conf_exit_of(conf, from);
	const struct prefix *longest = NULL;

	for (size_t i = 0; exit && i < exit->prefix_count; i++)
		if (prefix_contains(&exit->prefixes[i], from) &&
		    (!longest || exit->prefixes[i].bits > longest->bits))
			longest = &exit->prefixes[i];
	return longest && exit->discover && tunnel_anycast(exit, longest, out);
}

static void heard(struct learner *learner, const union addr *from,
		  const union addr *to)
{
	union addr anycast;
	struct end *end;

	if (!source_anycast(learner->conf, from, &anycast) ||
	    addr_same_host(&anycast, to) || conf_exit_of(learner->conf, to) ||
	    entry_told(learner, from, to))
		return;
	end = end_find(learner, &anycast);
	if (!end)
		end = end_new(learner, &anycast, from);
	if (!end)
		return;
	if (end->state == END_THERE)
		entry_learn(learner, end, from, to);
	else if (end->state == END_ASKED && end->pending_count < PENDING_MAX)
		end->pending[end->pending_count++] =
			(struct pending){ *from, *to };
}

static int message_take(const struct nlmsghdr *msg, void *arg)
{
	union addr from, to;

	if (!learn_message(msg, &from, &to))
		heard(arg, &from, &to);
	return MNL_CB_OK;
}

static void log_ready(struct watch *watch, uint32_t events)
{
	struct learner *learner = list_entry(watch, struct learner, watch);
	char buf[NETLINK_ROOM];
	ssize_t len;

	(void)events;
	/* What did not fit comes again. */
	while ((len = mnl_socket_recvfrom(learner->socket, buf, sizeof(buf))) >=
		       0 ||
	       errno == ENOBUFS)
		if (len > 0)
			mnl_cb_run(buf, (size_t)len, 0, 0, message_take,
				   learner);
}

static void end_tend(struct end *end, uint64_t now)
{
	struct list *pos;

	if (now < end->due_ms)
		return;
	switch (end->state) {
	case END_ASKED:
		end_ask(end);
		return;
	case END_THERE:
		list_for_each(pos, &end->learner->entries)
			if (list_entry(pos, struct entry, link)->end == end) {
				end_ask(end);
				return;
			}
		end_free(end);
		return;
	case END_GONE:
		end_free(end);
		return;
	}
}

static void tick(struct timer *timer)
{
	struct learner *learner = list_entry(timer, struct learner, timer);
	uint64_t now = clock_ms();
	struct list *pos, *tmp;

	list_for_each_safe(pos, tmp, &learner->entries) {
		struct entry *entry = list_entry(pos, struct entry, link);

		if (now - entry->since_ms >= entry->exit->discover_time_ms)
			entry_forget(learner, entry);
	}
	list_for_each_safe(pos, tmp, &learner->ends)
		end_tend(list_entry(pos, struct end, link), now);
	if (!list_empty(&learner->ends))
		timer_arm(learner->loop, &learner->timer, ASK_MS, tick);
}

/* The kernel has learnt routes of an earlier helper until they expire. */
int learn_forget(struct rtnl *rtnl, struct exit_change *change)
{
	struct exit_state learnt;
	char text[EXIT_TEXT];
	int err = rtnl_learnt(rtnl, &learnt);

	if (err)
		return err;
	for (size_t i = 0; i < learnt.route_count; i++) {
		err = rtnl_route(rtnl, &learnt.routes[i], false);
		exit_route_format(&learnt.routes[i], text);
		exit_change_note(change, false, text, err);
	}
	exit_state_clear(&learnt);
	return change->error;
}

static int group_set(struct learner *learner, uint16_t type, const void *value,
		     size_t len)
{
	char buf[128] = "";
	struct nlmsghdr *request = mnl_nlmsg_put_header(buf);
	struct nfgenmsg *head;

	request->nlmsg_type = NFNL_SUBSYS_ULOG << 8 | NFULNL_MSG_CONFIG;
	request->nlmsg_flags = NLM_F_REQUEST | NLM_F_ACK;
	head = mnl_nlmsg_put_extra_header(request, sizeof(*head));
	head->nfgen_family = AF_UNSPEC;
	head->version = NFNETLINK_V0;
	head->res_id = htons(LEARN_GROUP);
	mnl_attr_put(request, type, len, value);
	if (mnl_socket_sendto(learner->socket, request, request->nlmsg_len) < 0)
		return -errno;
	return 0;
}

/* The answer to each: 0, or what the kernel says. */
static int group_answer(struct learner *learner)
{
	char buf[NETLINK_ROOM];
	ssize_t len = mnl_socket_recvfrom(learner->socket, buf, sizeof(buf));

	if (len < 0)
		return -errno;
	return mnl_cb_run(buf, (size_t)len, 0,
			  mnl_socket_get_portid(learner->socket), NULL,
			  NULL) < 0 ?
		       -errno :
		       0;
}

static int log_open(struct learner *learner)
{
	const struct nfulnl_msg_config_cmd bind_it = { NFULNL_CFG_CMD_BIND };
	const struct nfulnl_msg_config_mode mode = {
		.copy_range = htonl(LEARN_BYTES),
		.copy_mode = NFULNL_COPY_PACKET,
	};
	const uint32_t threshold = htonl(1);
	int err;

	learner->socket = mnl_socket_open2(NETLINK_NETFILTER,
					   SOCK_CLOEXEC | SOCK_NONBLOCK);
	if (!learner->socket ||
	    mnl_socket_bind(learner->socket, 0, MNL_SOCKET_AUTOPID) < 0)
		return -errno;
	err = group_set(learner, NFULA_CFG_CMD, &bind_it, sizeof(bind_it));
	if (!err)
		err = group_answer(learner);
	if (!err)
		err = group_set(learner, NFULA_CFG_MODE, &mode, sizeof(mode));
	if (!err)
		err = group_answer(learner);
	if (!err)
		err = group_set(learner, NFULA_CFG_QTHRESH, &threshold,
				sizeof(threshold));
	if (!err)
		err = group_answer(learner);
	return err ? err :
		     watch_add(learner->loop, &learner->watch,
			       mnl_socket_get_fd(learner->socket), EPOLLIN,
			       log_ready);
}

int learner_new(struct loop *loop, const struct conf *conf, struct rtnl *rtnl,
		struct learner **out)
{
	struct learner *learner = calloc(1, sizeof(*learner));
	struct exit_change change = { 0 };
	int err;

	if (!learner)
		return -ENOMEM;
	learner->loop = loop;
	learner->conf = conf;
	learner->rtnl = rtnl;
	learner->watch.fd = -1;
	list_init(&learner->ends);
	list_init(&learner->entries);
	err = learn_forget(rtnl, &change);
	if (!err)
		err = log_open(learner);
	if (err)
		learner_free(learner);
	else
		*out = learner;
	return err;
}

void learner_free(struct learner *learner)
{
	struct list *pos, *tmp;

	if (!learner)
		return;
	timer_cancel(learner->loop, &learner->timer);
	watch_del(learner->loop, &learner->watch);
	if (learner->socket)
		mnl_socket_close(learner->socket);
	list_for_each_safe(pos, tmp, &learner->entries)
		free(list_entry(pos, struct entry, link));
	list_for_each_safe(pos, tmp, &learner->ends)
		end_free(list_entry(pos, struct end, link));
	free(learner);
}
