/* SPDX-License-Identifier: BSD-2-Clause */
/* The supervisor's sets of listening sockets: opening, sharing, letting go. */
#include <errno.h>
#include <netinet/tcp.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cmocka.h>

#include "failalloc.h"
#include "main/sockets.h"
#include "transport/udp.h"
#include "unit/conf_from.h"
#include "unit/open_files.h"

#define WORKERS 3

static int open_set(const char *listeners, const struct socket_set *old,
		    struct socket_set *out, struct socket_fault *fault)
{
	struct conf *conf = conf_from(listeners);
	int err = sockets_open(conf, WORKERS, old, out, fault);

	conf_unref(conf);
	return err;
}

static struct socket_set opened(const char *listeners,
				const struct socket_set *old)
{
	struct socket_fault fault;
	struct socket_set set;

	assert_int_equal(open_set(listeners, old, &set, &fault), 0);
	return set;
}

/* Does somebody answer there? */
static bool answers(const union addr *addr)
{
	int fd = socket(addr_family(addr), SOCK_STREAM | SOCK_CLOEXEC, 0);
	int result = connect(fd, &addr->sa, addr_len(addr));

	close(fd);
	return result == 0;
}

static void every_worker_listens_on_the_one_port(void **state)
{
	struct socket_set set =
		opened("[listener a]\naddress = 127.0.0.1:0\n", NULL);

	(void)state;
	assert_int_equal(set.count, 1);
	assert_int_not_equal(addr_port(&set.groups[0].bound), 0);
	for (int i = 0; i < WORKERS; i++) {
		union addr addr;
		socklen_t len = sizeof(addr);

		assert_int_equal(
			getsockname(set.groups[0].fds[i], &addr.sa, &len), 0);
		assert_true(addr_equal(&addr, &set.groups[0].bound));
	}
	assert_true(answers(&set.groups[0].bound));
	sockets_close(&set, NULL);
}

static void an_address_that_stays_keeps_its_sockets(void **state)
{
	struct socket_set old = opened("[listener a]\n"
				       "address = 127.0.0.1:0, 127.0.0.2:0\n",
				       NULL);
	struct socket_set next = opened("[listener a]\n"
					"address = 127.0.0.2:0, 127.0.0.3:0\n",
					&old);
	union addr gone = old.groups[0].bound;

	(void)state;
	assert_memory_equal(next.groups[0].fds, old.groups[1].fds,
			    WORKERS * sizeof(int));
	assert_true(next.groups[0].served);
	assert_false(next.groups[1].served);
	sockets_close(&old, &next);
	assert_false(answers(&gone));
	assert_true(answers(&next.groups[0].bound));
	assert_true(answers(&next.groups[1].bound));
	sockets_close(&next, NULL);
}

static void a_renamed_listener_keeps_its_sockets(void **state)
{
	struct socket_set old =
		opened("[listener a]\naddress = 127.0.0.1:0\n", NULL);
	struct socket_set next =
		opened("[listener b]\naddress = 127.0.0.1:0\n", &old);

	(void)state;
	assert_int_equal(next.groups[0].fds[0], old.groups[0].fds[0]);
	assert_string_equal(next.groups[0].name, "b");
	assert_false(next.groups[0].served);
	sockets_close(&old, &next);
	assert_true(answers(&next.groups[0].bound));
	sockets_close(&next, NULL);
}

static void any_port_twice_is_two_ports(void **state)
{
	const char *twice =
		"[listener a]\naddress = 127.0.0.1:0, 127.0.0.1:0\n";
	struct socket_set old = opened(twice, NULL), next = opened(twice, &old);

	(void)state;
	assert_false(addr_equal(&old.groups[0].bound, &old.groups[1].bound));
	for (int i = 0; i < 2; i++)
		assert_int_equal(next.groups[i].fds[0], old.groups[i].fds[0]);
	sockets_close(&old, &next);
	sockets_close(&next, NULL);
}

static void a_port_of_others_is_named_and_nothing_stays_open(void **state)
{
	struct socket_set other = opened("[listener a]\n"
					 "address = 127.0.0.1:0\n",
					 NULL);
	size_t before = open_files();
	struct socket_fault fault;
	struct socket_set set = { .count = 77 };
	char text[160], address[ADDR_STRLEN];

	(void)state;
	addr_format(&other.groups[0].bound, address);
	snprintf(text, sizeof(text),
		 "[listener b]\naddress = 127.0.0.2:0, %s\n", address);
	assert_int_equal(open_set(text, NULL, &set, &fault), -EADDRINUSE);
	assert_string_equal(fault.address, address);
	assert_false(fault.own);
	assert_int_equal(set.count, 77);
	assert_int_equal(open_files(), before);
	sockets_close(&other, NULL);
}

static void an_overlap_with_itself_is_told_apart(void **state)
{
	struct socket_set old =
		opened("[listener a]\naddress = 127.0.0.1:0\n", NULL);
	struct socket_fault fault;
	struct socket_set set;
	char text[160];

	(void)state;
	snprintf(text, sizeof(text), "[listener a]\naddress = 0.0.0.0:%u\n",
		 addr_port(&old.groups[0].bound));
	assert_int_equal(open_set(text, &old, &set, &fault), -EADDRINUSE);
	assert_true(fault.own);
	assert_true(answers(&old.groups[0].bound));
	sockets_close(&old, NULL);
}

static void an_address_of_other_hosts_is_refused(void **state)
{
	struct socket_fault fault;
	struct socket_set set;

	(void)state;
	assert_int_equal(open_set("[listener a]\naddress = 192.0.2.77:5000\n",
				  NULL, &set, &fault),
			 -EADDRNOTAVAIL);
	assert_string_equal(fault.address, "192.0.2.77:5000");
}

struct sweep {
	struct conf *conf;
	struct socket_set old;
};

static void open_or_fail(void *arg)
{
	struct sweep *sweep = arg;
	struct socket_fault fault;
	struct socket_set set;
	int err = sockets_open(sweep->conf, WORKERS, &sweep->old, &set, &fault);

	if (err)
		assert_int_equal(err, -ENOMEM);
	else
		sockets_close(&set, &sweep->old);
}

static void out_of_memory_leaves_nothing_open(void **state)
{
	struct sweep sweep = {
		.conf = conf_from("[listener a]\n"
				  "address = 127.0.0.1:0, 127.0.0.2:0\n"),
		.old = opened("[listener a]\naddress = 127.0.0.1:0\n", NULL),
	};
	size_t before = open_files();

	(void)state;
	assert_int_equal(failalloc_sweep(open_or_fail, &sweep), 1);
	assert_int_equal(open_files(), before);
	assert_true(answers(&sweep.old.groups[0].bound));
	sockets_close(&sweep.old, NULL);
	conf_unref(sweep.conf);
}

static void udp_and_tcp_share_no_sockets(void **state)
{
	struct socket_set tcp =
		opened("[listener a]\naddress = 127.0.0.1:0\n", NULL);
	unsigned int pid = (unsigned int)getpid();
	struct socket_set udp, both, again;
	char text[256], address[ADDR_STRLEN];
	struct conf *conf;

	(void)state;
	/* An address of our own: what is free for UDP shall be so for TCP. */
	snprintf(text, sizeof(text),
		 "[listener a]\ntransport = udp\naddress = 127.%u.%u.%u:0\n",
		 64 + (pid >> 16 & 63), pid >> 8 & 255, pid & 255);
	udp = opened(text, &tcp);
	assert_false(udp_is(tcp.groups[0].fds[0]));
	assert_true(udp_is(udp.groups[0].fds[WORKERS - 1]));
	addr_format(&udp.groups[0].bound, address);
	snprintf(text, sizeof(text),
		 "[listener a]\naddress = %s\n"
		 "[listener b]\ntransport = udp\naddress = %s\n",
		 address, address);
	sockets_close(&udp, NULL);
	both = opened(text, NULL);
	again = opened(text, &both);
	assert_int_equal(again.count, 2);
	assert_int_equal(again.groups[1].fds[0], both.groups[1].fds[0]);
	/* UDP sockets have no backlog; the others get theirs all the same. */
	conf = conf_from(text);
	sockets_set_backlog(&again, conf);
	conf_unref(conf);
	sockets_close(&both, &again);
	sockets_close(&again, NULL);
	sockets_close(&tcp, NULL);
}

/* For a listening socket the kernel shows the backlog here, tcp_get_info(). */
static unsigned int backlog_of(int fd)
{
	struct tcp_info info;
	socklen_t len = sizeof(info);

	assert_int_equal(getsockopt(fd, IPPROTO_TCP, TCP_INFO, &info, &len), 0);
	return info.tcpi_sacked;
}

static void the_backlog_changes_in_place(void **state)
{
	struct conf *conf = conf_from("[listener a]\naddress = 127.0.0.1:0\n"
				      "backlog = 7\n");
	struct socket_set set = opened("[listener a]\naddress = 127.0.0.1:0\n"
				       "backlog = 9\n",
				       NULL);

	(void)state;
	assert_int_equal(backlog_of(set.groups[0].fds[WORKERS - 1]), 9);
	sockets_set_backlog(&set, conf);
	for (int i = 0; i < WORKERS; i++)
		assert_int_equal(backlog_of(set.groups[0].fds[i]), 7);
	assert_true(answers(&set.groups[0].bound));
	sockets_close(&set, NULL);
	conf_unref(conf);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(every_worker_listens_on_the_one_port),
		cmocka_unit_test(an_address_that_stays_keeps_its_sockets),
		cmocka_unit_test(a_renamed_listener_keeps_its_sockets),
		cmocka_unit_test(any_port_twice_is_two_ports),
		cmocka_unit_test(
			a_port_of_others_is_named_and_nothing_stays_open),
		cmocka_unit_test(an_overlap_with_itself_is_told_apart),
		cmocka_unit_test(an_address_of_other_hosts_is_refused),
		cmocka_unit_test(out_of_memory_leaves_nothing_open),
		cmocka_unit_test(udp_and_tcp_share_no_sockets),
		cmocka_unit_test(the_backlog_changes_in_place),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
