/* SPDX-License-Identifier: BSD-2-Clause */
/* Sets of rules and routes: collecting, comparing, writing them out. */
#include <errno.h>
#include <linux/rtnetlink.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include "base/syscalls.h"
#include "exit/internal.h"
#include "exit/tunnel.h"

SYSCALLS_SOCKET(SYSCALLS_EXIT, AF_UNIX, 0); /* if_indextoname() */
SYSCALLS(SYSCALLS_EXIT, "ioctl recvmsg close");

/* Dumps during which somebody changes what is dumped are begun again. */
#define DUMP_TRIES 10

#define METRIC_TEXT  32 /* bytes of one in words */
#define METRICS_TEXT 128 /* of all of them, with NUL */

void *exit_array_add(void **array, size_t *count, size_t size)
{
	/* The room is the next power of two: full when the count is one. */
	if (!(*count & (*count - 1))) {
		size_t room = *count ? *count * 2 : 1;
		void *grown = realloc(*array, room * size);

		if (!grown)
			return NULL;
		*array = grown;
	}
	return memset((char *)*array + size * (*count)++, 0, size);
}

bool exit_read_again(int err, int *tries)
{
	return err == -EINTR && ++*tries < DUMP_TRIES;
}

/* Does the kernel say no more after this datagram? */
static bool is_last(const char *answer, ssize_t size)
{
	const struct nlmsghdr *msg = (const void *)answer;
	int len = (int)size;

	for (; mnl_nlmsg_ok(msg, len); msg = mnl_nlmsg_next(msg, &len))
		if (msg->nlmsg_type == NLMSG_DONE ||
		    msg->nlmsg_type == NLMSG_ERROR ||
		    !(msg->nlmsg_flags & NLM_F_MULTI))
			return true;
	return false;
}

void exit_rest_drop(struct mnl_socket *socket, char *answer, size_t room,
		    ssize_t len)
{
	while (len >= 0 && !is_last(answer, len))
		len = mnl_socket_recvfrom(socket, answer, room);
}

uint64_t exit_digest(uint64_t digest, const void *data, size_t len)
{
	const uint8_t *bytes = data;

	for (size_t i = 0; i < len; i++)
		digest = (digest ^ bytes[i]) * UINT64_C(0x100000001b3);
	return digest;
}

uint64_t exit_digest_prefixes(uint64_t digest, const struct prefix *prefixes,
			      size_t count)
{
	for (size_t i = 0; i < count; i++) {
		const struct prefix *one = &prefixes[i];

		digest = exit_digest(digest, &one->family, sizeof(one->family));
		digest = exit_digest(digest, &one->bits, sizeof(one->bits));
		digest = exit_digest(digest, one->bytes, sizeof(one->bytes));
	}
	return digest;
}

uint64_t exit_digest_addrs(uint64_t digest, const union addr *addrs,
			   size_t count)
{
	for (size_t i = 0; i < count; i++) {
		size_t len;
		const uint8_t *bytes = addr_bytes(&addrs[i], &len);

		digest = exit_digest(digest, &len, sizeof(len));
		digest = exit_digest(digest, bytes, len);
	}
	return digest;
}

bool exit_news_lost(int err)
{
	return err == ENOBUFS || err == ENOSPC;
}

const struct exit_metrics *exit_metrics_keep(struct exit_metrics **list,
					     const void *bytes, size_t len)
{
	struct exit_metrics *one;

	for (one = *list; one; one = one->next)
		if (one->len == len && !memcmp(one->bytes, bytes, len))
			return one;
	one = malloc(sizeof(*one) + len);
	if (!one)
		return NULL;
	one->next = *list;
	one->len = len;
	memcpy(one->bytes, bytes, len);
	*list = one;
	return one;
}

static void metrics_clear(struct exit_metrics *list)
{
	while (list) {
		struct exit_metrics *one = list;

		list = one->next;
		free(one);
	}
}

void exit_state_clear(struct exit_state *state)
{
	free(state->rules);
	free(state->routes);
	metrics_clear(state->metrics);
	*state = (struct exit_state){ 0 };
}

void exit_host_clear(struct exit_host *host)
{
	free(host->links);
	free(host->ways);
	metrics_clear(host->metrics);
	free(host->ends);
	free(host->locals);
	*host = (struct exit_host){ 0 };
}

static int number_compare(uint32_t a, uint32_t b)
{
	return (a > b) - (a < b);
}

static int rule_compare(const void *left, const void *right)
{
	const struct exit_rule *a = left, *b = right;
	int order = prefix_compare(&a->from, &b->from);

	if (!order)
		order = prefix_compare(&a->to, &b->to);
	if (!order)
		order = number_compare(a->priority, b->priority);
	if (!order)
		order = number_compare(a->skip_to, b->skip_to);
	if (!order)
		order = number_compare(a->mark, b->mark);
	if (!order)
		order = number_compare(a->table, b->table);
	return order ? order : number_compare(a->site, b->site);
}

static int metrics_compare(const struct exit_metrics *a,
			   const struct exit_metrics *b)
{
	if (!a || !b)
		return (a != NULL) - (b != NULL);
	return a->len != b->len ? (a->len > b->len) - (a->len < b->len) :
				  memcmp(a->bytes, b->bytes, a->len);
}

/* What the kernel tells routes apart by. */
static int place_compare(const void *left, const void *right)
{
	const struct exit_route *a = left, *b = right;
	int order = prefix_compare(&a->to, &b->to);

	if (!order)
		order = prefix_compare(&a->from, &b->from);
	if (!order)
		order = number_compare(a->table, b->table);
	if (!order)
		order = number_compare(a->metric, b->metric);
	if (!order)
		order = number_compare((uint32_t)a->link, (uint32_t)b->link);
	return order ? order : addr_compare_host(&a->gateway, &b->gateway);
}

static int route_compare(const void *left, const void *right)
{
	const struct exit_route *a = left, *b = right;
	int order = place_compare(a, b);

	if (!order)
		order = addr_compare_host(&a->remote, &b->remote);
	if (!order)
		order = addr_compare_host(&a->source, &b->source);
	if (!order)
		order = number_compare(a->preference, b->preference);
	return order ? order : metrics_compare(a->metrics, b->metrics);
}

/* Of what is the same twice, one stays. */
static size_t sorted_once(void *array, size_t count, size_t size,
			  int (*compare)(const void *, const void *))
{
	char *all = array;
	size_t kept = 0;

	if (!count)
		return 0;
	qsort(array, count, size, compare);
	for (size_t i = 1; i < count; i++)
		if (compare(all + kept * size, all + i * size) != 0)
			memcpy(all + ++kept * size, all + i * size, size);
	return kept + 1;
}

void exit_state_sort(struct exit_state *state)
{
	state->rule_count = sorted_once(state->rules, state->rule_count,
					sizeof(*state->rules), rule_compare);
	state->route_count = sorted_once(state->routes, state->route_count,
					 sizeof(*state->routes), route_compare);
}

bool exit_route_there(const struct exit_state *state,
		      const struct exit_route *route)
{
	return state->route_count &&
	       bsearch(route, state->routes, state->route_count, sizeof(*route),
		       route_compare);
}

const struct exit_route *exit_route_like(const struct exit_state *state,
					 const struct exit_route *route)
{
	return state->route_count ?
		       bsearch(route, state->routes, state->route_count,
			       sizeof(*route), place_compare) :
		       NULL;
}

static bool rule_there(const struct exit_state *state,
		       const struct exit_rule *rule)
{
	return state->rule_count &&
	       bsearch(rule, state->rules, state->rule_count, sizeof(*rule),
		       rule_compare);
}

void exit_state_missing(const struct exit_state *want,
			const struct exit_state *have,
			const struct exit_differ *differ)
{
	for (size_t i = 0; i < want->route_count; i++)
		if (!exit_route_there(have, &want->routes[i]))
			differ->route(differ->arg, &want->routes[i]);
	for (size_t i = 0; i < want->rule_count; i++)
		if (!rule_there(have, &want->rules[i]))
			differ->rule(differ->arg, &want->rules[i]);
}

void exit_state_surplus(const struct exit_state *want,
			const struct exit_state *have,
			const struct exit_differ *differ)
{
	for (size_t i = have->rule_count; i--;)
		if (!rule_there(want, &have->rules[i]))
			differ->rule(differ->arg, &have->rules[i]);
	for (size_t i = have->route_count; i--;)
		if (!exit_route_there(want, &have->routes[i]))
			differ->route(differ->arg, &have->routes[i]);
}

/* Of those that have a number, what people know best. */
static const char *metrics_words(const struct exit_metrics *metrics,
				 char out[METRICS_TEXT])
{
	static const char *const names[RTAX_MAX + 1] = {
		[RTAX_WINDOW] = "window",     [RTAX_MTU] = "mtu",
		[RTAX_ADVMSS] = "advmss",     [RTAX_HOPLIMIT] = "hoplimit",
		[RTAX_INITCWND] = "initcwnd", [RTAX_INITRWND] = "initrwnd",
	};
	const struct nlattr *attr;
	const void *bytes;
	uint32_t locked = 0;
	size_t used = 0;

	out[0] = '\0';
	if (!metrics)
		return out;
	bytes = metrics->bytes;
	mnl_attr_for_each_payload(bytes, metrics->len)
		if (mnl_attr_get_type(attr) == RTAX_LOCK &&
		    mnl_attr_validate(attr, MNL_TYPE_U32) == 0)
			locked = mnl_attr_get_u32(attr);
	mnl_attr_for_each_payload(bytes, metrics->len) {
		uint16_t type = mnl_attr_get_type(attr);

		if (type > RTAX_MAX || !names[type] ||
		    mnl_attr_validate(attr, MNL_TYPE_U32) < 0 ||
		    used >= METRICS_TEXT - METRIC_TEXT)
			continue;
		used += (size_t)snprintf(out + used, METRICS_TEXT - used,
					 " %s %s%u", names[type],
					 locked & 1u << type ? "lock " : "",
					 mnl_attr_get_u32(attr));
	}
	return out;
}

static const char *family_option(const struct prefix *prefix)
{
	return prefix->family == AF_INET6 ? "-6" : "-4";
}

static const char *prefix_words(const char *word, const struct prefix *prefix,
				char out[ADDR_STRLEN + 16])
{
	char text[ADDR_STRLEN];

	out[0] = '\0';
	if (prefix->bits)
		snprintf(out, ADDR_STRLEN + 16, " %s %s", word,
			 prefix_format(prefix, text));
	return out;
}

void exit_rule_format(const struct exit_rule *rule, char out[EXIT_TEXT])
{
	char from[ADDR_STRLEN + 16], to[ADDR_STRLEN + 16];
	char mark[40] = "", does[80];

	if (rule->mark)
		snprintf(mark, sizeof(mark), " fwmark 0x%x/0x%x", rule->mark,
			 EXIT_MARKS);

	if (rule->site)
		snprintf(does, sizeof(does),
			 "lookup main suppress_prefixlength 0 "
			 "suppress_ifgroup %u",
			 EXIT_GROUP);
	else if (rule->skip_to)
		snprintf(does, sizeof(does), "goto %u", rule->skip_to);
	else if (rule->table)
		snprintf(does, sizeof(does), "lookup %u", rule->table);
	else
		snprintf(does, sizeof(does), "unreachable");
	snprintf(out, EXIT_TEXT, "ip %s rule pref %u%s%s%s %s protocol %u",
		 family_option(&rule->from), rule->priority,
		 prefix_words("from", &rule->from, from),
		 prefix_words("to", &rule->to, to), mark, does, EXIT_PROTOCOL);
}

void exit_route_format(const struct exit_route *route, char out[EXIT_TEXT])
{
	char to[ADDR_STRLEN], from[ADDR_STRLEN + 16], via[ADDR_STRLEN + 16];
	char host[ADDR_STRLEN], device[IFNAMSIZ + 16], name[IFNAMSIZ];
	char encap[TUNNEL_TEXT], metrics[METRICS_TEXT];

	via[0] = device[0] = '\0';
	if (addr_family(&route->gateway) != AF_UNSPEC)
		snprintf(via, sizeof(via), " via %s",
			 addr_format_host(&route->gateway, host));
	if (route->link == TUNNEL_PLANNED)
		snprintf(device, sizeof(device), " dev %s", EXIT_TUNNEL);
	else if (route->link && if_indextoname((unsigned int)route->link, name))
		snprintf(device, sizeof(device), " dev %s", name);
	else if (route->link)
		snprintf(device, sizeof(device), " dev if%d", route->link);
	snprintf(out, EXIT_TEXT,
		 "ip %s route %s%s%s%s%s%s table %u metric %u proto %u%s",
		 family_option(&route->to),
		 route->local ? "local " :
		 route->link  ? "" :
				"unreachable ",
		 route->to.bits ? prefix_format(&route->to, to) : "default",
		 prefix_words("from", &route->from, from),
		 tunnel_encap_format(route, encap), via, device, route->table,
		 route->metric, route->expires_s ? EXIT_LEARNT : EXIT_PROTOCOL,
		 metrics_words(route->metrics, metrics));
}
