/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What the kernel tells the exits' helper by netlink, here by sockets of libmnl that
 * answer from the input.
 *
 * The first two bytes choose the question. Of the answer follow, message by message, its
 * type and flags, the size of what stands behind its header in units of 4 bytes, and that
 * itself; behind the last the kernel says that it is done. The fixed part of a message is
 * whole, as the kernel makes it; of the rest no byte behind what was received is read.
 */
#include "exit/internal.h"

#include <errno.h>
#include <linux/fib_rules.h>
#include <linux/netfilter/nfnetlink.h>
#include <linux/rtnetlink.h>
#include <sanitizer/asan_interface.h>
#include <stdlib.h>
#include <string.h>

#include "exit/health.h"
#include "exit/learn.h"

/* Of any message: the kernel's own are whole, and of the kind that was asked for. */
#define FIXED       sizeof(struct nlmsgerr)
#define PORT        4711
#define ROOM_OF_ONE (MNL_NLMSG_HDRLEN + 255 * 4)

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);

/* Unlike assert() it stays in every build. */
static void must(bool truth)
{
	if (!truth)
		abort();
}

/* The kernel's end of the sockets. */
static struct {
	const uint8_t *data; /* not told yet */
	size_t len;
	uint32_t sequence; /* of the request */
	bool waits; /* says nothing more rather than that it is done */
	char *behind; /* nothing of the buffer from here on may be read */
	size_t room;
} kernel;

struct mnl_socket *mnl_socket_open(int bus)
{
	(void)bus;
	return (struct mnl_socket *)&kernel;
}

struct mnl_socket *mnl_socket_open2(int bus, int flags)
{
	(void)flags;
	return mnl_socket_open(bus);
}

int mnl_socket_bind(struct mnl_socket *nl, unsigned int groups, pid_t pid)
{
	(void)nl;
	(void)groups;
	(void)pid;
	return 0;
}

int mnl_socket_close(struct mnl_socket *nl)
{
	(void)nl;
	return 0;
}

int mnl_socket_get_fd(const struct mnl_socket *nl)
{
	(void)nl;
	return -1;
}

unsigned int mnl_socket_get_portid(const struct mnl_socket *nl)
{
	(void)nl;
	return PORT;
}

int mnl_socket_setsockopt(const struct mnl_socket *nl, int type, void *buf,
			  socklen_t len)
{
	(void)nl;
	(void)type;
	(void)buf;
	(void)len;
	return 0;
}

ssize_t mnl_socket_sendto(const struct mnl_socket *nl, const void *req,
			  size_t siz)
{
	const struct nlmsghdr *request = req;

	(void)nl;
	must(siz == request->nlmsg_len);
	kernel.sequence = request->nlmsg_seq;
	return (ssize_t)siz;
}

/* Types of messages that are asked for somewhere. */
static uint16_t type_of(uint8_t number)
{
	static const uint16_t types[] = {
		RTM_NEWROUTE,
		RTM_DELROUTE,
		RTM_NEWRULE,
		RTM_NEWLINK,
		RTM_DELLINK,
		NFNL_SUBSYS_NFTABLES << 8,
		NFNL_SUBSYS_NFTABLES << 8 | 15, /* NFT_MSG_NEWGEN */
		NFNL_SUBSYS_ULOG << 8,
		NLMSG_ERROR,
		NLMSG_DONE,
	};

	return types[number % (sizeof(types) / sizeof(types[0]))];
}

/* The next message of the input into a buffer of so many bytes; its size. */
static size_t message_put(char *buf, size_t room)
{
	struct nlmsghdr head = { .nlmsg_seq = kernel.sequence,
				 .nlmsg_pid = PORT };
	size_t size;
	int error;

	if (kernel.len < 3 || room < ROOM_OF_ONE)
		return 0;
	head.nlmsg_type = type_of(kernel.data[0]);
	head.nlmsg_flags = kernel.data[1] & (NLM_F_MULTI | NLM_F_DUMP_INTR);
	size = kernel.data[2] * 4u;
	kernel.data += 3;
	kernel.len -= 3;
	if (size < FIXED)
		size = FIXED;
	head.nlmsg_len = (uint32_t)(MNL_NLMSG_HDRLEN + size);
	memcpy(buf, &head, sizeof(head));
	memset(buf + sizeof(head), 0, size);
	memcpy(buf + sizeof(head), kernel.data,
	       size < kernel.len ? size : kernel.len);
	if (head.nlmsg_type == NLMSG_ERROR || head.nlmsg_type == NLMSG_DONE) {
		error = -(kernel.len ? kernel.data[0] : 0);
		memcpy(buf + sizeof(head), &error, sizeof(error));
	}
	kernel.data += size < kernel.len ? size : kernel.len;
	kernel.len -= size < kernel.len ? size : kernel.len;
	return head.nlmsg_len;
}

static size_t done_put(char *buf)
{
	struct nlmsghdr *head = mnl_nlmsg_put_header(buf);

	mnl_nlmsg_put_extra_header(head, sizeof(struct nlmsgerr));
	head->nlmsg_type = NLMSG_ERROR;
	head->nlmsg_seq = kernel.sequence;
	head->nlmsg_pid = PORT;
	return head->nlmsg_len;
}

static void fence_remove(void)
{
	if (kernel.behind)
		ASAN_UNPOISON_MEMORY_REGION(kernel.behind, kernel.room);
	kernel.behind = NULL;
}

/* Up to three messages at a time. */
ssize_t mnl_socket_recvfrom(const struct mnl_socket *nl, void *buf, size_t siz)
{
	size_t used = 0;

	(void)nl;
	fence_remove();
	for (int i = 0; i < 3; i++)
		used += message_put((char *)buf + used, siz - used);
	if (!used && kernel.waits) {
		errno = EAGAIN;
		return -1;
	}
	if (!used)
		used = done_put(buf);
	kernel.behind = (char *)buf + used;
	kernel.room = siz - used;
	ASAN_POISON_MEMORY_REGION(kernel.behind, kernel.room);
	return (ssize_t)used;
}

static struct conf *configuration(void)
{
	static const char text[] =
		"[realm example.org]\n[user alice]\npassword = secret\n"
		"[exit a]\nlink = wan0\nnext_hop = 192.0.2.1\n"
		"prefix = 10.0.0.0/8, 2001:db8:a::/48\n"
		"tunnel_peer = 2001:db8::1\n"
		"[exit b]\nprefix = 2001:db8:b::/48\ndiscover = yes\n"
		"tunnel_peer = 2001:db8::2\n"
		"[exit c]\nnext_hop = 2001:db8:c::2\n"
		"prefix = 2001:db8:c::/48\nanycast = 2001:db8:c::9\n";
	static struct conf *conf;

	if (!conf)
		must(!conf_parse(text, strlen(text), "fuzz", NULL, NULL,
				 &conf));
	return conf;
}

static bool prefix_sound(const struct prefix *prefix)
{
	return prefix->bits <= (prefix->family == AF_INET6 ? 128 : 32);
}

static void state_check(int err, struct exit_state *state)
{
	if (err)
		return;
	for (size_t i = 0; i < state->rule_count; i++)
		must(prefix_sound(&state->rules[i].from) &&
		     prefix_sound(&state->rules[i].to));
	for (size_t i = 0; i < state->route_count; i++) {
		char text[EXIT_TEXT];

		must(prefix_sound(&state->routes[i].from) &&
		     prefix_sound(&state->routes[i].to));
		exit_route_format(&state->routes[i], text);
		must(memchr(text, '\0', sizeof(text)));
	}
	exit_state_clear(state);
}

static void host_check(struct rtnl *rtnl)
{
	struct exit_host host;
	struct exit_state want;

	if (rtnl_host(rtnl, configuration(), &host))
		return;
	for (size_t i = 0; i < host.link_count; i++)
		must(memchr(host.links[i].name, '\0',
			    sizeof(host.links[i].name)));
	for (size_t i = 0; i < host.way_count; i++)
		must(prefix_sound(&host.ways[i].to));
	if (!exit_want(configuration(), &host, &want))
		exit_state_clear(&want);
	exit_host_clear(&host);
}

static void routes_ask(uint8_t which)
{
	struct exit_state state;
	struct rtnl_way way;
	struct rtnl *rtnl;
	union addr to;
	bool there;

	must(!addr_parse("[2001:db8::1]:1", 0, &to));
	must(!rtnl_open(&rtnl));
	switch (which % 5) {
	case 0:
		state_check(rtnl_state(rtnl, &state), &state);
		break;
	case 1:
		host_check(rtnl);
		break;
	case 2:
		state_check(rtnl_learnt(rtnl, &state), &state);
		break;
	case 3:
		rtnl_find(rtnl, NULL, &to, 0, 0, &way);
		break;
	default:
		rtnl_host_route(rtnl, &to, &there);
	}
	fence_remove();
	rtnl_close(rtnl);
}

/* Of tables libnftnl reads the rest, and ends the process when the kernel is not sound. */
static void tables_watch(void)
{
	struct nft *nft;

	must(!nft_open(&nft));
	kernel.waits = true;
	nft_touched(nft);
	fence_remove();
	nft_close(nft);
}

static int heard(const struct nlmsghdr *msg, void *arg)
{
	union addr from = { .sa.sa_family = 77 }, to = from;

	if (msg->nlmsg_type >= NFNL_SUBSYS_ULOG << 8)
		must(!learn_message(msg, &from, &to) ==
		     (from.sa.sa_family == AF_INET6));
	else
		health_news(arg, msg);
	return MNL_CB_OK;
}

/* What comes without a question. */
static void news_hear(void)
{
	char buf[NETLINK_ROOM];
	struct health *health;
	ssize_t len;

	must(!health_new(configuration(), &health));
	kernel.waits = true;
	while ((len = mnl_socket_recvfrom(NULL, buf, sizeof(buf))) > 0)
		mnl_cb_run(buf, (size_t)len, 0, 0, heard, health);
	fence_remove();
	health_free(health);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
	if (len < 2)
		return 0;
	kernel.data = data + 2;
	kernel.len = len - 2;
	kernel.waits = false;
	switch (data[0] % 3) {
	case 0:
		routes_ask(data[1]);
		break;
	case 1:
		tables_watch();
		break;
	default:
		news_hear();
	}
	return 0;
}
