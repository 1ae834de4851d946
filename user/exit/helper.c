/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The helper: applies what the configuration wants, and again whenever the kernel
 * tells of a change that may concern it: links, rules, routes, nftables.
 *
 * Whoever changes what is ours is healed at the end of the tick in which we hear of
 * it; after HEAL_FREE times in a row only HEAL_MS after the last time, so that another
 * program that insists does not keep us busy. Nothing is lost by that, for the kernel
 * itself takes routes by a lost link away. What we change ourselves comes back with our
 * own port and is passed over. A failure is tried again after RETRY_MS.
 *
 *   settled -> (news) due -> applied -> settled
 */
#include <errno.h>
#include <libmnl/libmnl.h>
#include <linux/fib_rules.h>
#include <linux/rtnetlink.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/fd.h"
#include "base/lock.h"
#include "base/log.h"
#include "base/syscalls.h"
#include "exit/internal.h"
#include "exit/learn.h"
#include "exit/probe.h"
#include "exit/urgent.h"

SYSCALLS_SOCKET(SYSCALLS_EXIT, AF_NETLINK, NETLINK_ROUTE);
SYSCALLS_SOCKET(SYSCALLS_EXIT, AF_UNIX, 0); /* if_indextoname() */
SYSCALLS(SYSCALLS_EXIT, "bind getsockname recvmsg setsockopt ioctl close");

#define HEAL_MS   100
#define HEAL_FREE 10 /* in a row without waiting that long */
#define RETRY_MS  10000
#define COUNT_MS  5000 /* between two looks at what has been counted */
#define NEWS_ROOM (4 << 20) /* bytes of messages not read yet */

struct exit_helper {
	struct loop *loop;
	struct conf *conf;
	struct rtnl *rtnl;
	struct nft *nft;
	struct learner *learner; /* NULL: nothing is learnt */
	struct prober *prober; /* NULL: nobody is asked */
	struct mnl_socket *news; /* of rtnetlink */
	struct watch news_watch, guard_watch;
	struct timer timer;
	struct health *health;
	struct exit_host host; /* as it was when we looked last */
	struct range_sets guard, steer;
	struct timer settle; /* a route that has stayed long enough */
	struct deferred look, heal;
	struct log_limit limit;
	struct exit_listener listener;
	struct exit_notice told;
	bool told_once;
	struct exit_history *history;
	size_t history_count;
	struct timer count;
	bool count_hurried; /* it is due within HEAL_MS */
	uint64_t applied_ms;
	unsigned int hurried; /* since it was quiet */
	bool nft_touched; /* somebody touched a table of ours */
};

static void heal_now(struct exit_helper *helper);
static void heal_timed(struct timer *timer);

static void settle_timed(struct timer *timer)
{
	struct exit_helper *helper =
		list_entry(timer, struct exit_helper, settle);

	if (health_settle(helper->health, clock_ms()))
		heal_now(helper);
}

static void settle_arm(struct exit_helper *helper)
{
	uint64_t now = clock_ms(), due = health_due(helper->health);

	if (due != UINT64_MAX)
		timer_arm(helper->loop, &helper->settle,
			  due > now ? due - now : 0, settle_timed);
}

/* Looks at the routes that news were of. True: what is wanted has changed. */
static bool look_now(struct exit_helper *helper)
{
	uint64_t now = clock_ms();
	bool changed = false;
	int err = health_look(helper->health, helper->rtnl, now, &changed);

	if (err) {
		log_error(ROOM,
			  "event=exits_not_looked_at reason=\"no answer about "
			  "the routes to anycast addresses\" error=\"%s\" "
			  "effect=\"their exits stay as they were\"",
			  strerror(-err));
		timer_arm_sooner(helper->loop, &helper->timer, RETRY_MS,
				 heal_timed);
	}
	settle_arm(helper);
	return changed;
}

static int host_read(struct exit_helper *helper)
{
	struct exit_host host;
	int err = rtnl_host(helper->rtnl, helper->conf, &host);

	if (err)
		return err;
	host.health = helper->health;
	exit_host_clear(&helper->host);
	helper->host = host;
	return 0;
}

/* Not before the host has been read once: every exit would be lost. There is always lo. */
static bool host_known(const struct exit_helper *helper)
{
	return helper->host.link_count > 0;
}

static int steer_tell(struct exit_helper *helper, struct exit_change *change)
{
	if (!host_known(helper))
		return -EAGAIN;
	return steer_apply(helper->nft, &helper->steer, helper->conf,
			   &helper->host, helper->nft_touched, change);
}

static void heal_soon(struct exit_helper *helper);

static void touched(struct exit_helper *helper)
{
	helper->nft_touched = true;
	heal_soon(helper);
}

/*
 * All of it. What leads somewhere is there before what leads to it, and what may leave
 * is let out for as long as the old way or the new one has it.
 */
static int all_apply(struct exit_helper *helper, struct exit_change *change)
{
	bool again = helper->nft_touched;
	struct exit_difference difference;
	int host = host_read(helper);
	int open = guard_open(helper->nft, &helper->guard, helper->conf, again,
			      change);
	int routes = host ? host :
			    exit_apply_new(helper->rtnl, helper->conf,
					   &helper->host, &difference, change);
	int steer = steer_tell(helper, change);
	int guard;

	if (!routes)
		routes = exit_apply_old(helper->rtnl, helper->conf,
					&helper->host, &difference, !steer,
					change);
	guard = guard_apply(helper->nft, &helper->guard, helper->conf, false,
			    change);
	if (!open && !steer && !guard)
		helper->nft_touched = false;
	if (nft_touched(helper->nft))
		touched(helper);
	return open ? open : routes ? routes : steer ? steer : guard;
}

/* What is refused; if nftables could not be told so, the relay still is. */
static int dead_find(const struct exit_helper *helper, struct exit_notice *out)
{
	struct range_sets want = { .state = SETS_UNKNOWN };
	int err;

	if (helper->steer.state == SETS_KNOWN)
		return steer_dead(&helper->steer, &out->dead, &out->dead_count);
	err = steer_maps(helper->conf, &helper->host, &want);
	if (!err)
		err = steer_dead(&want, &out->dead, &out->dead_count);
	sets_clear(&want);
	return err;
}

static int notice_make(struct exit_helper *helper, struct exit_notice *out)
{
	struct exit_notice notice = { .tunnels = helper->told.tunnels };
	size_t size = helper->history_count * sizeof(notice.exits[0]);
	int err = dead_find(helper, &notice);

	if (err)
		return err;
	notice.exits = calloc(1, size + 1);
	err = notice.exits ? health_losses(helper->health, &notice.losses) :
			     -ENOMEM;
	if (err) {
		exit_notice_clear(&notice);
		return err;
	}
	memcpy(notice.exits, helper->history, size);
	notice.exit_count = helper->history_count;
	exit_tunnels_read(helper->nft, &notice.tunnels);
	*out = notice;
	return 0;
}

static void notice_tell(struct exit_helper *helper)
{
	struct exit_notice notice;

	if (!host_known(helper))
		return;
	history_look(helper->history, helper->history_count, helper->conf,
		     &helper->host, clock_ms());
	if (notice_make(helper, &notice))
		return;
	if (helper->told_once && exit_notice_same(&notice, &helper->told)) {
		exit_notice_clear(&notice);
		return;
	}
	helper->listener.tell(helper->listener.arg, &notice);
	exit_notice_clear(&helper->told);
	helper->told = notice;
	helper->told_once = true;
}

static void count_timed(struct timer *timer)
{
	struct exit_helper *helper =
		list_entry(timer, struct exit_helper, count);

	helper->count_hurried = false;
	history_count(helper->history, helper->history_count, helper->nft);
	notice_tell(helper);
	timer_arm(helper->loop, timer, COUNT_MS, count_timed);
}

/* What is held back may be so for longer now. */
static void tell_soon(struct exit_helper *helper)
{
	if (!helper->count_hurried)
		timer_arm(helper->loop, &helper->count, HEAL_MS, count_timed);
	helper->count_hurried = true;
}

static uint64_t retry_ms(int err)
{
	return err == -EINTR ? HEAL_MS : RETRY_MS;
}

static void heal_now(struct exit_helper *helper)
{
	struct exit_change change = { 0 };
	uint64_t suppressed;
	int err;

	/* What was asked for until now; what is from here on has its own time. */
	loop_undefer(&helper->heal);
	timer_cancel(helper->loop, &helper->timer);
	urgent_work_begin();
	look_now(helper);
	err = all_apply(helper, &change);
	notice_tell(helper);
	helper->applied_ms = clock_ms();
	if (err)
		timer_arm_sooner(helper->loop, &helper->timer, retry_ms(err),
				 heal_timed);
	if (err && !change.error &&
	    log_allow(&helper->limit, loop_now(helper->loop), &suppressed))
		log_error(ROOM,
			  "event=exits_not_healed error=\"%s\" "
			  "effect=\"tried again soon\" suppressed=%ju",
			  strerror(-err), (uintmax_t)suppressed);
	if (change.count &&
	    log_allow(&helper->limit, loop_now(helper->loop), &suppressed))
		log_info(ROOM, "event=exits_changed changes=%zu suppressed=%ju",
			 change.count, (uintmax_t)suppressed);
	urgent_work_end();
}

static void heal_deferred(struct deferred *deferred)
{
	heal_now(list_entry(deferred, struct exit_helper, heal));
}

static void heal_timed(struct timer *timer)
{
	heal_now(list_entry(timer, struct exit_helper, timer));
}

/* Before anything is asked: what is refused by routes alone is not told why. */
static void steer_now(struct exit_helper *helper)
{
	struct exit_change change = { 0 };

	steer_tell(helper, &change);
}

/* A loss never waits, whatever else goes on: damping bounds how often it comes. */
static void look_deferred(struct deferred *deferred)
{
	struct exit_helper *helper =
		list_entry(deferred, struct exit_helper, look);

	if (!look_now(helper)) {
		tell_soon(helper);
		return;
	}
	steer_now(helper);
	heal_now(helper);
}

/* Something may be amiss. */
static void heal_soon(struct exit_helper *helper)
{
	uint64_t now = clock_ms(), next = helper->applied_ms + HEAL_MS;

	if (now >= next)
		helper->hurried = 0;
	if (now >= next || helper->hurried++ < HEAL_FREE)
		loop_defer(helper->loop, &helper->heal, heal_deferred);
	else
		timer_arm_sooner(helper->loop, &helper->timer, next - now,
				 heal_timed);
}

static int protocol_take(const struct nlattr *attr, void *arg)
{
	if (mnl_attr_get_type(attr) == FRA_PROTOCOL)
		*(uint8_t *)arg = mnl_attr_get_u8(attr);
	return MNL_CB_OK;
}

static int link_take(const struct nlattr *attr, void *arg)
{
	if (mnl_attr_get_type(attr) == RTA_OIF &&
	    mnl_attr_get_payload_len(attr) >= sizeof(uint32_t))
		*(uint32_t *)arg = mnl_attr_get_u32(attr);
	return MNL_CB_OK;
}

/*
 * The kernel's routes tell of subnets, those made by hand of what lies beyond an exit.
 * Of the others only those matter which IPv6 copies, not what a routing protocol learns
 * from providers.
 */
static bool route_concern(const struct conf *conf, const struct nlmsghdr *msg)
{
	const struct rtmsg *route = mnl_nlmsg_get_payload(msg);
	char name[IFNAMSIZ];
	uint32_t link = 0;

	if (route->rtm_protocol == EXIT_PROTOCOL)
		return true;
	/* Addresses of this host have rules where there are many prefixes. */
	if (route->rtm_table == RT_TABLE_LOCAL)
		return route->rtm_type == RTN_LOCAL &&
		       route->rtm_protocol != EXIT_PROTOCOL;
	if (route->rtm_table != RT_TABLE_MAIN)
		return false;
	if (route->rtm_family == AF_INET ||
	    route->rtm_protocol == RTPROT_KERNEL)
		return exit_way_concerns(route->rtm_protocol);
	mnl_attr_parse(msg, sizeof(*route), link_take, &link);
	return !(link && if_indextoname(link, name) &&
		 exit_link_is(conf, name));
}

/* May it change what is wanted, or what there is of it? */
static bool news_concern(const struct conf *conf, const struct nlmsghdr *msg)
{
	uint8_t protocol = 0;

	switch (msg->nlmsg_type) {
	case RTM_NEWLINK:
	case RTM_DELLINK:
		return true;
	case RTM_NEWRULE:
	case RTM_DELRULE:
		mnl_attr_parse(msg, sizeof(struct fib_rule_hdr), protocol_take,
			       &protocol);
		return protocol == EXIT_PROTOCOL;
	case RTM_NEWROUTE:
	case RTM_DELROUTE:
		return route_concern(conf, msg);
	default:
		return false;
	}
}

static void news_ready(struct watch *watch, uint32_t events)
{
	struct exit_helper *helper =
		list_entry(watch, struct exit_helper, news_watch);
	char buf[NETLINK_ROOM];
	bool concern = false, look = false;

	(void)events;
	for (;;) {
		ssize_t len =
			mnl_socket_recvfrom(helper->news, buf, sizeof(buf));
		const struct nlmsghdr *msg = (const struct nlmsghdr *)buf;
		int left = (int)len;

		/* What did not fit may have concerned us. */
		if (len < 0 && exit_news_lost(errno)) {
			health_ask(helper->health);
			concern = true;
			continue;
		}
		if (len <= 0)
			break;
		for (; mnl_nlmsg_ok(msg, left);
		     msg = mnl_nlmsg_next(msg, &left)) {
			if (msg->nlmsg_pid == rtnl_port(helper->rtnl))
				continue;
			look |= health_news(helper->health, msg);
			concern |= news_concern(helper->conf, msg);
		}
	}
	if (look)
		loop_defer(helper->loop, &helper->look, look_deferred);
	if (concern)
		heal_soon(helper);
}

static void guard_ready(struct watch *watch, uint32_t events)
{
	struct exit_helper *helper =
		list_entry(watch, struct exit_helper, guard_watch);

	(void)events;
	if (nft_touched(helper->nft))
		touched(helper);
}

static int news_open(struct exit_helper *helper)
{
	static const int groups[] = { RTNLGRP_LINK,       RTNLGRP_IPV4_RULE,
				      RTNLGRP_IPV6_RULE,  RTNLGRP_IPV4_ROUTE,
				      RTNLGRP_IPV6_ROUTE, RTNLGRP_NEXTHOP };
	const int room = NEWS_ROOM;
	int fd;

	helper->news =
		mnl_socket_open2(NETLINK_ROUTE, SOCK_CLOEXEC | SOCK_NONBLOCK);
	if (!helper->news ||
	    mnl_socket_bind(helper->news, 0, MNL_SOCKET_AUTOPID) < 0)
		return -errno;
	fd = mnl_socket_get_fd(helper->news);
	setsockopt(fd, SOL_SOCKET, SO_RCVBUFFORCE, &room, sizeof(room));
	for (size_t i = 0; i < sizeof(groups) / sizeof(groups[0]); i++)
		if (mnl_socket_setsockopt(helper->news, NETLINK_ADD_MEMBERSHIP,
					  (void *)&groups[i],
					  sizeof(groups[i])) < 0)
			return -errno;
	return watch_add(helper->loop, &helper->news_watch, fd, EPOLLIN,
			 news_ready);
}

/* What is well is not to be lost until the first look, nor what is lost to be well. */
static int health_start(struct exit_helper *helper,
			const struct exit_notice *before)
{
	int err = health_new(helper->conf, &helper->health);

	if (!err && health_watches(helper->health, AF_INET6))
		err = rtnl_rule(helper->rtnl, &exit_rule_look, true);
	if (err)
		return err;
	look_now(helper);
	if (before)
		health_recall(helper->health, &before->losses);
	settle_arm(helper);
	return 0;
}

/* Listens before it looks: what changes in between is heard of. */
static int helper_start(struct exit_helper *helper,
			const struct exit_notice *before)
{
	struct exit_change change = { 0 };
	uint64_t begun = clock_ms();
	int err;

	urgent_work_begin();
	err = rtnl_open(&helper->rtnl);
	if (!err)
		err = nft_open(&helper->nft);
	if (!err)
		err = news_open(helper);
	if (!err)
		err = watch_add(helper->loop, &helper->guard_watch,
				nft_fd(helper->nft), EPOLLIN, guard_ready);
	if (!err)
		err = health_start(helper, before);
	if (!err)
		err = history_new(helper->conf, before, begun, &helper->history,
				  &helper->history_count);
	if (!err)
		history_begin(helper->history, helper->history_count, before,
			      helper->nft);
	/* Closed before it is opened. */
	if (!err)
		err = guard_open(helper->nft, &helper->guard, helper->conf,
				 false, &change);
	if (err)
		return err;
	/* What the kernel refuses is told of and tried again; the rest holds. */
	err = all_apply(helper, &change);
	if (err)
		timer_arm_sooner(helper->loop, &helper->timer, retry_ms(err),
				 heal_timed);
	count_timed(&helper->count);
	if (learn_wanted(helper->conf) &&
	    (err = learner_new(helper->loop, helper->conf, helper->rtnl,
			       &helper->learner)) != 0)
		log_error(ROOM,
			  "event=exits_not_learnt error=\"%s\" "
			  "effect=\"packets go by the default route\" "
			  "hint=\"is the kernel's nfnetlink_log there, and "
			  "the group %d free?\"",
			  strerror(-err), LEARN_GROUP);
	helper->applied_ms = clock_ms();
	log_info(ROOM, "event=exits_ready exits=%zu changes=%zu ms=%ju",
		 helper->conf->exit_count, change.count,
		 (uintmax_t)(helper->applied_ms - begun));
	urgent_work_end();
	return 0;
}

int exit_lock(pid_t *holder)
{
	return lock_take(EXIT_LOCK, holder);
}

static void answers_changed(void *arg)
{
	struct exit_helper *helper = arg;

	loop_defer(helper->loop, &helper->look, look_deferred);
}

static int probes_start(struct exit_helper *helper, int probes)
{
	const struct prober_params params = { .conf = helper->conf,
					      .host = &helper->host,
					      .health = helper->health,
					      .fn = answers_changed,
					      .arg = helper };

	return prober_new(helper->loop, &params, probes, &helper->prober);
}

int exit_new(struct loop *loop, struct conf *conf,
	     const struct exit_listener *listener,
	     const struct exit_notice *before, int probes,
	     struct exit_helper **out)
{
	struct exit_helper *helper = calloc(1, sizeof(*helper));
	int err;

	if (!helper) {
		fd_close(&probes);
		return -ENOMEM;
	}
	helper->loop = loop;
	helper->conf = conf_ref(conf);
	helper->listener = *listener;
	helper->news_watch.fd = helper->guard_watch.fd = -1;
	err = helper_start(helper, before);
	if (!err && probes >= 0) {
		err = probes_start(helper, probes);
		probes = -1;
	}
	fd_close(&probes);
	if (err)
		exit_free(helper);
	else
		*out = helper;
	return err;
}

void exit_free(struct exit_helper *helper)
{
	if (!helper)
		return;
	timer_cancel(helper->loop, &helper->timer);
	timer_cancel(helper->loop, &helper->settle);
	timer_cancel(helper->loop, &helper->count);
	loop_undefer(&helper->look);
	loop_undefer(&helper->heal);
	watch_del(helper->loop, &helper->news_watch);
	watch_del(helper->loop, &helper->guard_watch);
	if (helper->news)
		mnl_socket_close(helper->news);
	learner_free(helper->learner);
	prober_free(helper->prober);
	nft_close(helper->nft);
	rtnl_close(helper->rtnl);
	sets_clear(&helper->guard);
	sets_clear(&helper->steer);
	exit_host_clear(&helper->host);
	health_free(helper->health);
	exit_notice_clear(&helper->told);
	free(helper->history);
	conf_unref(helper->conf);
	free(helper);
}

int exit_once(const struct conf *conf, const struct exit_losses *losses,
	      struct rtnl *rtnl, struct nft *nft, struct exit_change *change)
{
	struct exit_host host = { .health = NULL };
	struct health *health = NULL;
	struct range_sets steer = { .state = SETS_UNKNOWN }, guard = steer;
	struct exit_difference difference;
	int err = rtnl_host(rtnl, conf, &host);

	if (!err && conf)
		err = exit_health(conf, rtnl, losses, &health);
	host.health = health;
	/* What leads somewhere goes before what guards it. */
	if (!err)
		err = exit_apply_new(rtnl, conf, &host, &difference, change);
	if (!err) {
		int old;

		err = steer_apply(nft, &steer, conf, &host, false, change);
		old = exit_apply_old(rtnl, conf, &host, &difference,
				     !err || !conf || change->dry, change);
		err = err ? err : old;
	}
	if (!err && !conf)
		err = learn_forget(rtnl, change);
	if (!err)
		err = guard_apply(nft, &guard, conf, false, change);
	sets_clear(&guard);
	sets_clear(&steer);
	exit_host_clear(&host);
	health_free(health);
	return err;
}

static int once(const struct conf *conf, const struct exit_losses *losses,
		FILE *out, size_t *changes)
{
	struct exit_change change = { .out = out, .dry = conf != NULL };
	struct nft *nft = NULL;
	struct rtnl *rtnl = NULL;
	int err = rtnl_open(&rtnl);

	if (!err)
		err = nft_open(&nft);
	if (!err)
		err = exit_once(conf, losses, rtnl, nft, &change);
	nft_close(nft);
	rtnl_close(rtnl);
	*changes = change.count;
	return err;
}

int exit_plan(const struct conf *conf, const struct exit_losses *losses,
	      FILE *out, size_t *changes)
{
	return once(conf, losses, out, changes);
}

int exit_remove(FILE *out, size_t *changes, pid_t *holder)
{
	int lock = exit_lock(holder);
	int err;

	if (lock < 0)
		return lock;
	err = once(NULL, NULL, out, changes);
	close(lock);
	return err;
}
