/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Addresses of the tunnels' device, with a kernel of our own; and dumps that the real one
 * says were interrupted: both by libmnl's functions, which are ours here.
 */
#include "exit/tunnel.h"

#include <dlfcn.h>
#include <errno.h>
#include <libmnl/libmnl.h>
#include <linux/if_addr.h>
#include <linux/rtnetlink.h>
#include <sched.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "unit/conf_from.h"

#define DEVICE  7
#define CHANGES 8

/* An address as it was asked for. */
struct change {
	uint16_t type, flags;
	char addr[ADDR_STRLEN];
	struct ifaddrmsg head;
	struct ifa_cacheinfo life;
	uint32_t address_flags;
	uint8_t owner;
};

static struct {
	bool on; /* else the real one is asked */
	int error; /* of all changes */
	int dump_error;
	unsigned int interrupts; /* to come, one for each dump */
	uint32_t interrupted; /* the sequence number of the last */
	uint32_t sequence; /* of the request */
	uint16_t type;
	struct change changes[CHANGES];
	size_t count;
	char dump[4096]; /* what is there */
	size_t dump_len;
} kernel;

static void change_note(const struct nlmsghdr *msg)
{
	struct change *change = &kernel.changes[kernel.count];
	const struct nlattr *attr;
	union addr addr;

	assert_true(kernel.count++ < CHANGES);
	*change = (struct change){ .type = msg->nlmsg_type,
				   .flags = msg->nlmsg_flags };
	memcpy(&change->head, mnl_nlmsg_get_payload(msg), sizeof(change->head));
	mnl_attr_for_each(attr, msg, sizeof(struct ifaddrmsg)) {
		const void *data = mnl_attr_get_payload(attr);

		switch (mnl_attr_get_type(attr)) {
		case IFA_LOCAL:
			addr_from_bytes(&addr, AF_INET6, data, 0);
			addr_format_host(&addr, change->addr);
			break;
		case IFA_CACHEINFO:
			memcpy(&change->life, data, sizeof(change->life));
			break;
		case IFA_FLAGS:
			change->address_flags = mnl_attr_get_u32(attr);
			break;
		case IFA_PROTO:
			change->owner = mnl_attr_get_u8(attr);
			break;
		}
	}
}

ssize_t mnl_socket_sendto(const struct mnl_socket *socket, const void *bytes,
			  size_t len)
{
	static ssize_t (*real)(const struct mnl_socket *socket,
			       const void *bytes, size_t len);
	const struct nlmsghdr *msg = bytes;

	if (!real)
		real = dlsym(RTLD_NEXT, "mnl_socket_sendto");
	if (!kernel.on)
		return real(socket, bytes, len);
	kernel.sequence = msg->nlmsg_seq;
	kernel.type = msg->nlmsg_type;
	if (msg->nlmsg_type != RTM_GETADDR)
		change_note(msg);
	return (ssize_t)len;
}

static ssize_t error_answer(char *answer, int error)
{
	struct nlmsghdr *msg = mnl_nlmsg_put_header(answer);
	struct nlmsgerr *head =
		mnl_nlmsg_put_extra_header(msg, sizeof(struct nlmsgerr));

	msg->nlmsg_type = NLMSG_ERROR;
	msg->nlmsg_seq = kernel.sequence;
	head->error = error;
	return (ssize_t)msg->nlmsg_len;
}

/* All that is there, and the end of it. */
static ssize_t dump_answer(char *answer)
{
	struct nlmsghdr *msg = (void *)answer;
	int left = (int)kernel.dump_len;
	struct nlmsghdr *end;

	memcpy(answer, kernel.dump, kernel.dump_len);
	for (; mnl_nlmsg_ok(msg, left); msg = mnl_nlmsg_next(msg, &left))
		msg->nlmsg_seq = kernel.sequence;
	end = mnl_nlmsg_put_header(answer + kernel.dump_len);
	end->nlmsg_type = NLMSG_DONE;
	end->nlmsg_flags = NLM_F_MULTI;
	end->nlmsg_seq = kernel.sequence;
	mnl_nlmsg_put_extra_header(end, sizeof(int));
	return (ssize_t)(kernel.dump_len + end->nlmsg_len);
}

/* As the kernel does where what is dumped has changed since the dump began. */
static void interrupt(void *answer)
{
	struct nlmsghdr *msg = answer;

	if (!kernel.interrupts || !(msg->nlmsg_flags & NLM_F_MULTI) ||
	    msg->nlmsg_seq == kernel.interrupted)
		return;
	kernel.interrupts--;
	kernel.interrupted = msg->nlmsg_seq;
	msg->nlmsg_flags |= NLM_F_DUMP_INTR;
}

ssize_t mnl_socket_recvfrom(const struct mnl_socket *socket, void *answer,
			    size_t room)
{
	static ssize_t (*real)(const struct mnl_socket *socket, void *answer,
			       size_t room);
	ssize_t len;

	if (!real)
		real = dlsym(RTLD_NEXT, "mnl_socket_recvfrom");
	if (!kernel.on)
		len = real(socket, answer, room);
	else if (kernel.type != RTM_GETADDR)
		len = error_answer(answer, kernel.error);
	else
		len = kernel.dump_error ?
			      error_answer(answer, kernel.dump_error) :
			      dump_answer(answer);
	if (len > 0)
		interrupt(answer);
	return len;
}

static uint8_t bytes_of(const char *text, uint8_t out[16])
{
	union addr addr;
	size_t len;

	assert_int_equal(addr_parse(text, 0, &addr), 0);
	memcpy(out, addr_bytes(&addr, &len), 16);
	return 128;
}

/* owner 0: the kernel has no word of it. */
static void present(const char *text, uint32_t device, uint8_t owner)
{
	struct nlmsghdr *msg =
		mnl_nlmsg_put_header(kernel.dump + kernel.dump_len);
	struct ifaddrmsg *head = mnl_nlmsg_put_extra_header(msg, sizeof(*head));
	uint8_t bytes[16];

	msg->nlmsg_type = RTM_NEWADDR;
	msg->nlmsg_flags = NLM_F_MULTI;
	head->ifa_family = AF_INET6;
	head->ifa_index = device;
	head->ifa_prefixlen = bytes_of(text, bytes);
	mnl_attr_put(msg, IFA_ADDRESS, 16, bytes);
	if (owner)
		mnl_attr_put_u8(msg, IFA_PROTO, owner);
	kernel.dump_len += msg->nlmsg_len;
}

#define TUNNELLED                                              \
	"[exit a]\nlink = wan0\ntunnel_peer = 2001:db8:1::7\n" \
	"prefix = 2001:db8:a::/48\n"
#define BY_IP6 TUNNELLED "tunnel = ip6tnl\n"

struct rig {
	struct rtnl *rtnl;
	struct exit_link link;
	struct exit_host host;
	struct exit_route routes[4];
	struct exit_state want;
	struct exit_change change;
};

/* Two anycast addresses, one of them twice, and what is no address of the device. */
static void rig_make(struct rig *rig)
{
	static const char *const local[] = { "2001:db8:a::f", "2001:db8:b::f",
					     "2001:db8:a::f" };

	memset(&kernel, 0, sizeof(kernel));
	kernel.on = true;
	*rig = (struct rig){
		.link = { .name = EXIT_TUNNEL, .index = DEVICE, .up = true }
	};
	rig->host.links = &rig->link;
	rig->host.link_count = 1;
	for (size_t i = 0; i < 3; i++) {
		rig->routes[i].to.family = AF_INET6;
		rig->routes[i].to.bits =
			bytes_of(local[i], rig->routes[i].to.bytes);
		rig->routes[i].local = true;
	}
	rig->routes[3].to.family = AF_INET6;
	rig->routes[3].to.bits =
		bytes_of("2001:db8:c::f", rig->routes[3].to.bytes);
	rig->want.routes = rig->routes;
	rig->want.route_count = 4;
	assert_int_equal(rtnl_open(&rig->rtnl), 0);
}

static int rig_run(struct rig *rig, const char *text)
{
	struct conf *conf = text ? conf_from(text) : NULL;
	int err = tunnel_addresses(rig->rtnl, conf, &rig->host, &rig->want,
				   &rig->change);

	rtnl_close(rig->rtnl);
	conf_unref(conf);
	kernel.on = false;
	return err;
}

static void change_assert(size_t at, uint16_t type, const char *addr)
{
	assert_true(at < kernel.count);
	assert_int_equal(kernel.changes[at].type, type);
	assert_string_equal(kernel.changes[at].addr, addr);
	assert_int_equal(kernel.changes[at].head.ifa_index, DEVICE);
	assert_int_equal(kernel.changes[at].head.ifa_prefixlen, 128);
}

static void the_device_has_what_tunnels_end_at(void **state)
{
	const struct change *made = &kernel.changes[0];
	struct rig rig;

	(void)state;
	rig_make(&rig);
	assert_int_equal(rig_run(&rig, BY_IP6), 0);
	assert_int_equal(kernel.count, 2);
	change_assert(0, RTM_NEWADDR, "2001:db8:a::f");
	change_assert(1, RTM_NEWADDR, "2001:db8:b::f");
	/* No packet has it as its source unasked, and main has no route by it. */
	assert_int_equal(made->life.ifa_prefered, 0);
	assert_int_equal(made->life.ifa_valid, UINT32_MAX);
	assert_int_equal(made->address_flags,
			 IFA_F_NODAD | IFA_F_NOPREFIXROUTE);
	assert_int_equal(made->owner, EXIT_PROTOCOL);
	assert_true(made->flags & NLM_F_EXCL);
	assert_int_equal(rig.change.count, 2);
}

static void only_addresses_of_ours_are_taken_away(void **state)
{
	struct rig rig;

	(void)state;
	rig_make(&rig);
	present("2001:db8:a::f", DEVICE, EXIT_PROTOCOL);
	present("2001:db8:d::f", DEVICE, EXIT_PROTOCOL);
	present("2001:db8:e::f", DEVICE, 0);
	present("2001:db8:f::f", DEVICE, EXIT_PROTOCOL + 1);
	present("2001:db8:9::f", DEVICE + 1, EXIT_PROTOCOL);
	assert_int_equal(rig_run(&rig, BY_IP6), 0);
	assert_int_equal(kernel.count, 2);
	change_assert(0, RTM_NEWADDR, "2001:db8:b::f");
	change_assert(1, RTM_DELADDR, "2001:db8:d::f");
}

static void without_need_the_device_has_none(void **state)
{
	static const char *const texts[] = { NULL, TUNNELLED,
					     "[exit a]\nlink = wan0\n"
					     "prefix = 2001:db8:a::/48\n" };
	struct rig rig;

	(void)state;
	for (size_t i = 0; i < sizeof(texts) / sizeof(texts[0]); i++) {
		rig_make(&rig);
		present("2001:db8:a::f", DEVICE, EXIT_PROTOCOL);
		assert_int_equal(rig_run(&rig, texts[i]), 0);
		assert_int_equal(kernel.count, 1);
		change_assert(0, RTM_DELADDR, "2001:db8:a::f");
	}
	/* Nor is a device asked that is not there. */
	rig_make(&rig);
	rig.host.link_count = 0;
	kernel.dump_error = -EIO;
	assert_int_equal(rig_run(&rig, BY_IP6), 0);
	assert_int_equal(kernel.count, 0);
}

static void a_plan_changes_no_address(void **state)
{
	struct rig rig;

	(void)state;
	rig_make(&rig);
	rig.change.dry = true;
	present("2001:db8:d::f", DEVICE, EXIT_PROTOCOL);
	assert_int_equal(rig_run(&rig, BY_IP6), 0);
	assert_int_equal(kernel.count, 0);
	assert_int_equal(rig.change.count, 3);
	/* The device is one that would be made. */
	rig_make(&rig);
	rig.change.dry = true;
	rig.host.link_count = 0;
	rig.host.tunnel = TUNNEL_PLANNED;
	assert_int_equal(rig_run(&rig, BY_IP6), 0);
	assert_int_equal(rig.change.count, 2);
}

static void what_is_so_already_is_no_failure(void **state)
{
	char failed[EXIT_TEXT] = "";
	struct rig rig;

	(void)state;
	rig_make(&rig);
	kernel.error = -EEXIST;
	assert_int_equal(rig_run(&rig, BY_IP6), 0);
	assert_int_equal(rig.change.error, 0);
	rig_make(&rig);
	kernel.error = -EADDRNOTAVAIL;
	present("2001:db8:a::f", DEVICE, EXIT_PROTOCOL);
	assert_int_equal(rig_run(&rig, NULL), 0);
	assert_int_equal(rig.change.error, 0);
	/* One that is refused is noted, and the other asked for all the same. */
	rig_make(&rig);
	rig.change.failed = failed;
	kernel.error = -EACCES;
	assert_int_equal(rig_run(&rig, BY_IP6), 0);
	assert_int_equal(kernel.count, 2);
	assert_int_equal(rig.change.error, -EACCES);
	assert_string_equal(failed, "ip -6 address 2001:db8:a::f/128 dev "
				    "culvert_tunnel");
}

static void a_device_that_cannot_be_asked_is_left_alone(void **state)
{
	struct rig rig;

	(void)state;
	rig_make(&rig);
	kernel.dump_error = -EIO;
	assert_int_equal(rig_run(&rig, BY_IP6), -EIO);
	assert_int_equal(kernel.count, 0);
	/* Gone, or without IPv6: it has none. */
	rig_make(&rig);
	kernel.dump_error = -ENODEV;
	assert_int_equal(rig_run(&rig, BY_IP6), 0);
	assert_int_equal(kernel.count, 2);
}

static void addresses_that_change_meanwhile_are_read_again(void **state)
{
	struct rig rig;

	(void)state;
	rig_make(&rig);
	present("2001:db8:a::f", DEVICE, EXIT_PROTOCOL);
	present("2001:db8:d::f", DEVICE, EXIT_PROTOCOL);
	kernel.interrupts = 3;
	assert_int_equal(rig_run(&rig, BY_IP6), 0);
	assert_int_equal(kernel.interrupts, 0);
	assert_int_equal(kernel.count, 2);
	change_assert(0, RTM_NEWADDR, "2001:db8:b::f");
	change_assert(1, RTM_DELADDR, "2001:db8:d::f");
	/* Not for ever. */
	rig_make(&rig);
	present("2001:db8:a::f", DEVICE, EXIT_PROTOCOL);
	kernel.interrupts = 1000;
	assert_int_equal(rig_run(&rig, BY_IP6), -EINTR);
	assert_int_equal(kernel.count, 0);
}

static void finding_count(void *arg, const struct exit_finding *finding)
{
	(void)finding;
	++*(int *)arg;
}

/* Rules first, which need no privilege; chains and the rest may be refused here. */
static void a_check_reads_again_what_changes_meanwhile(void **state)
{
	struct conf *conf = conf_from(TUNNELLED);
	int calm = 0, busy = 0, err;

	(void)state;
	memset(&kernel, 0, sizeof(kernel));
	err = exit_check(conf, finding_count, &calm);
	kernel.interrupts = 3;
	assert_int_equal(exit_check(conf, finding_count, &busy), err);
	assert_int_equal(kernel.interrupts, 0);
	assert_int_equal(busy, calm);
	conf_unref(conf);
}

static void notice_count(void *arg, const struct exit_notice *notice)
{
	assert_true(notice->dead_count > 0);
	++*(int *)arg;
}

/* Or each reload while links change would refuse every source for a while. Needs root. */
static void what_cannot_be_read_at_the_start_is_not_lost(void **state)
{
	struct conf *conf = conf_from(TUNNELLED);
	int told = 0;
	const struct exit_listener listener = { notice_count, &told };
	struct exit_helper *helper;
	struct loop *loop;

	(void)state;
	memset(&kernel, 0, sizeof(kernel));
	if (unshare(CLONE_NEWNET) < 0) {
		conf_unref(conf);
		skip();
	}
	assert_int_equal(loop_new(&loop), 0);
	for (unsigned int interrupts = 1000; interrupts; interrupts /= 1000) {
		kernel.interrupts = interrupts;
		assert_int_equal(
			exit_new(loop, conf, &listener, NULL, -1, &helper), 0);
		exit_free(helper);
		/* It is lost for good then: there are no links here. */
		assert_int_equal(told, interrupts == 1);
	}
	loop_free(loop);
	conf_unref(conf);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(the_device_has_what_tunnels_end_at),
		cmocka_unit_test(only_addresses_of_ours_are_taken_away),
		cmocka_unit_test(without_need_the_device_has_none),
		cmocka_unit_test(a_plan_changes_no_address),
		cmocka_unit_test(what_is_so_already_is_no_failure),
		cmocka_unit_test(a_device_that_cannot_be_asked_is_left_alone),
		cmocka_unit_test(
			addresses_that_change_meanwhile_are_read_again),
		cmocka_unit_test(a_check_reads_again_what_changes_meanwhile),
		cmocka_unit_test(what_cannot_be_read_at_the_start_is_not_lost),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
