/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Probes: an echo request of ICMPv6 to the anycast address of each exit that is reached
 * by a tunnel, every probe_interval. Its router's kernel answers while the router is
 * alive, whatever culvertd does there.
 *
 *   answers --(probe_losses in a row without an answer)--> silent --(an answer)--> answers
 *
 * Which of these counts, and when, is for health.c to say, which damps what flaps. At
 * first all are taken for well: what is, is not to be lost by a start. A request has a
 * secret that changes with each answer; who has not seen the request cannot answer it.
 * While main has no way to the address nothing is asked: it would leave by a provider,
 * and the exit is lost by that alone.
 */
#include "exit/probe.h"

#include <errno.h>
#include <netinet/icmp6.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/log.h"
#include "base/random.h"
#include "base/secret.h"
#include "base/syscalls.h"
#include "exit/tunnel.h"

SYSCALLS_SOCKET(SYSCALLS_SUPERVISOR, AF_INET6, IPPROTO_ICMPV6);
SYSCALLS(SYSCALLS_SUPERVISOR, "setsockopt close");
SYSCALLS(SYSCALLS_EXIT, "sendmsg recvfrom close");

#define SECRET 16 /* bytes */

struct echo {
	struct icmp6_hdr head;
	uint8_t secret[SECRET];
};

struct probe {
	struct prober *prober;
	const struct conf_exit *exit;
	union addr anycast;
	struct timer timer;
	uint8_t secret[SECRET];
	unsigned int unanswered; /* in a row */
	bool silent;
};

struct prober {
	struct loop *loop;
	struct prober_params params;
	struct watch watch;
	uint16_t id; /* of our requests */
	size_t count;
	struct probe probes[];
};

bool probe_anycast(const struct conf_exit *exit, union addr *out)
{
	/* Of whichever prefix: all are at the same routers. */
	const struct prefix any = { .family = AF_INET };

	return exit->health == CONF_HEALTH_PROBE && tunnel_leads(exit) &&
	       tunnel_anycast(exit, &any, out);
}

int exit_probe_socket(const struct conf *conf)
{
	struct icmp6_filter filter;
	union addr anycast;
	bool wanted = false;
	int fd, err;

	for (size_t i = 0; i < conf->exit_count; i++)
		wanted |= probe_anycast(&conf->exits[i], &anycast);
	if (!wanted)
		return -ENOENT;
	fd = socket(AF_INET6, SOCK_RAW | SOCK_CLOEXEC | SOCK_NONBLOCK,
		    IPPROTO_ICMPV6);
	if (fd < 0)
		return -errno;
	ICMP6_FILTER_SETBLOCKALL(&filter);
	ICMP6_FILTER_SETPASS(ICMP6_ECHO_REPLY, &filter);
	if (setsockopt(fd, IPPROTO_ICMPV6, ICMP6_FILTER, &filter,
		       sizeof(filter)) == 0)
		return fd;
	err = -errno;
	close(fd);
	return err;
}

static void told(struct probe *probe, bool silent)
{
	const struct prober_params *params = &probe->prober->params;
	char text[ADDR_STRLEN];

	if (probe->silent == silent)
		return;
	probe->silent = silent;
	addr_format_host(&probe->anycast, text);
	if (silent)
		log_warn(ROOM,
			 "event=exit_silent exit=%s anycast=%s unanswered=%u "
			 "effect=\"its sources are refused\" hint=\"is its "
			 "router up, and does it answer echo requests?\"",
			 probe->exit->name, text, probe->unanswered);
	else
		log_info(ROOM, "event=exit_answers exit=%s anycast=%s",
			 probe->exit->name, text);
	health_answer(params->health, &probe->anycast, !silent, clock_ms());
	params->fn(params->arg);
}

/* By the router's own address that its tunnels have, if it is known. */
static void source_put(struct msghdr *msg, const union addr *source)
{
	struct in6_pktinfo info = { .ipi6_ifindex = 0 };
	struct cmsghdr *cmsg = CMSG_FIRSTHDR(msg);

	if (addr_family(source) != AF_INET6) {
		msg->msg_controllen = 0;
		return;
	}
	info.ipi6_addr = source->in6.sin6_addr;
	cmsg->cmsg_level = IPPROTO_IPV6;
	cmsg->cmsg_type = IPV6_PKTINFO;
	cmsg->cmsg_len = CMSG_LEN(sizeof(info));
	memcpy(CMSG_DATA(cmsg), &info, sizeof(info));
}

/* What cannot be sent is not answered. */
static void ask(struct probe *probe)
{
	struct prober *prober = probe->prober;
	char control[CMSG_SPACE(sizeof(struct in6_pktinfo))]
		__attribute__((aligned(8))) = "";
	struct echo echo = { .head = { .icmp6_type = ICMP6_ECHO_REQUEST } };
	struct iovec part = { .iov_base = &echo, .iov_len = sizeof(echo) };
	union addr to = probe->anycast;
	struct msghdr msg = { .msg_name = &to,
			      .msg_namelen = addr_len(&to),
			      .msg_iov = &part,
			      .msg_iovlen = 1,
			      .msg_control = control,
			      .msg_controllen = sizeof(control) };

	echo.head.icmp6_id = prober->id;
	echo.head.icmp6_seq = htons((uint16_t)(probe - prober->probes));
	memcpy(echo.secret, probe->secret, SECRET);
	source_put(&msg, &prober->params.host->tunnel_source);
	(void)sendmsg(prober->watch.fd, &msg, 0);
}

static bool has_way(const struct probe *probe)
{
	const struct prefix any = { .family = AF_INET };

	return tunnel_end(probe->prober->params.host, probe->exit, &any);
}

static void due(struct timer *timer)
{
	struct probe *probe = list_entry(timer, struct probe, timer);

	timer_arm(probe->prober->loop, timer, probe->exit->probe_interval_ms,
		  due);
	if (!has_way(probe)) {
		probe->unanswered = 0;
		return;
	}
	if (probe->unanswered >= probe->exit->probe_losses)
		told(probe, true);
	else
		probe->unanswered++;
	ask(probe);
}

static void answer_take(struct prober *prober, const struct echo *echo,
			const union addr *from)
{
	size_t index = ntohs(echo->head.icmp6_seq);
	struct probe *probe = &prober->probes[index];

	if (index >= prober->count || echo->head.icmp6_id != prober->id ||
	    echo->head.icmp6_code || !addr_same_host(from, &probe->anycast) ||
	    !secret_equal(echo->secret, probe->secret, SECRET))
		return;
	random_bytes(probe->secret, SECRET);
	probe->unanswered = 0;
	told(probe, false);
}

static void answers_ready(struct watch *watch, uint32_t events)
{
	struct prober *prober = list_entry(watch, struct prober, watch);
	struct echo echo;
	union addr from;
	socklen_t len = sizeof(from);
	ssize_t got;

	(void)events;
	while ((got = recvfrom(watch->fd, &echo, sizeof(echo), MSG_TRUNC,
			       &from.sa, &len)) >= 0 ||
	       errno != EAGAIN) {
		if (got == (ssize_t)sizeof(echo))
			answer_take(prober, &echo, &from);
		len = sizeof(from);
	}
}

static void probes_start(struct prober *prober)
{
	const struct conf *conf = prober->params.conf;

	for (size_t i = 0; i < conf->exit_count; i++) {
		struct probe *probe = &prober->probes[prober->count];

		if (!probe_anycast(&conf->exits[i], &probe->anycast))
			continue;
		probe->prober = prober;
		probe->exit = &conf->exits[i];
		random_bytes(probe->secret, SECRET);
		probe->silent =
			health_silent(prober->params.health, &probe->anycast);
		prober->count++;
		due(&probe->timer);
	}
}

int prober_new(struct loop *loop, const struct prober_params *params,
	       int socket, struct prober **out)
{
	struct prober *prober =
		calloc(1, sizeof(*prober) + params->conf->exit_count *
						    sizeof(prober->probes[0]));
	int err = prober ? 0 : -ENOMEM;

	if (!err) {
		prober->loop = loop;
		prober->params = *params;
		random_bytes(&prober->id, sizeof(prober->id));
		err = watch_add(loop, &prober->watch, socket, EPOLLIN,
				answers_ready);
	}
	if (err) {
		close(socket);
		free(prober);
		return err;
	}
	probes_start(prober);
	*out = prober;
	return 0;
}

void prober_free(struct prober *prober)
{
	if (!prober)
		return;
	for (size_t i = 0; i < prober->count; i++)
		timer_cancel(prober->loop, &prober->probes[i].timer);
	watch_close(prober->loop, &prober->watch);
	free(prober);
}
