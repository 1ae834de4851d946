/* SPDX-License-Identifier: BSD-2-Clause */
/* Addresses, prefixes, the hash table, lists, random numbers, wire integers. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/addr.h"
#include "base/bytes.h"
#include "base/clock.h"
#include "base/fd.h"
#include "base/list.h"
#include "base/log.h"
#include "base/opaque.h"
#include "base/random.h"
#include "base/secret.h"
#include "base/table.h"
#include "failalloc.h"

static union addr parsed(const char *text)
{
	union addr addr;

	if (addr_parse(text, 0, &addr))
		fail_msg("%s does not parse", text);
	return addr;
}

static void addresses_are_parsed_and_printed(void **state)
{
	static const struct {
		const char *text, *printed;
		uint16_t port;
	} cases[] = {
		{ "192.0.2.1", "192.0.2.1:3478", 3478 },
		{ "192.0.2.1:1", "192.0.2.1:1", 1 },
		{ "0.0.0.0:0", "0.0.0.0:0", 0 },
		{ "255.255.255.255:65535", "255.255.255.255:65535", 65535 },
		{ "2001:db8::1", "[2001:db8::1]:3478", 3478 },
		{ "[2001:db8::1]", "[2001:db8::1]:3478", 3478 },
		{ "[2001:db8::1]:65535", "[2001:db8::1]:65535", 65535 },
		{ "::", "[::]:3478", 3478 },
		{ "[::]:80", "[::]:80", 80 },
		/* Not port 80: an address without brackets has none. */
		{ "2001:db8::1:80", "[2001:db8::1:80]:3478", 3478 },
		{ "::ffff:192.0.2.1", "[::ffff:192.0.2.1]:3478", 3478 },
		{ "2001:db8:1111:2222:3333:4444:5555:6666",
		  "[2001:db8:1111:2222:3333:4444:5555:6666]:3478", 3478 },
	};
	char text[ADDR_STRLEN];
	union addr addr;

	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		assert_int_equal(addr_parse(cases[i].text, 3478, &addr), 0);
		assert_string_equal(addr_format(&addr, text), cases[i].printed);
		assert_int_equal(addr_port(&addr), cases[i].port);
	}
}

static void bad_addresses_are_refused(void **state)
{
	static const char *const cases[] = {
		"",
		":",
		":80",
		"[",
		"[]",
		"[]:80",
		"[::1",
		"[::1]80",
		"[::1]:",
		"[::1]:65536",
		"[::1]:-1",
		"[::1]:+1",
		"[::1]: 1",
		"[::1]:1x",
		"[::1]:99999999999999999999",
		"[192.0.2.1]:80",
		"192.0.2.1:",
		"192.0.2.1:x",
		"192.0.2.1:65536",
		"192.0.2",
		"192.0.2.256",
		"192.0.2.1.",
		" 192.0.2.1",
		"192.0.2.1 ",
		"localhost",
		"localhost:80",
		"fe80::1%lo",
		"2001:db8::1::2",
		"2001:db8:1111:2222:3333:4444:5555:6666:7777",
		"1111111111111111111111111111111111111111111111111111111111",
	};
	union addr addr, before;

	(void)state;
	memset(&addr, 0x5a, sizeof(addr));
	before = addr;
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		if (addr_parse(cases[i], 1, &addr) != -EINVAL)
			fail_msg("\"%s\" is taken for an address", cases[i]);
		assert_memory_equal(&addr, &before, sizeof(addr));
	}
}

static void addresses_are_compared(void **state)
{
	union addr a = parsed("192.0.2.1:80"), b = parsed("192.0.2.1:81");
	union addr c = parsed("192.0.2.2:80"), d = parsed("[::1]:80");
	union addr mapped = parsed("[::ffff:192.0.2.1]:80");
	union addr none = { .sa.sa_family = AF_UNSPEC };

	(void)state;
	assert_true(addr_equal(&a, &a));
	assert_false(addr_equal(&a, &b));
	assert_true(addr_same_host(&a, &b));
	assert_false(addr_same_host(&a, &c));
	assert_false(addr_same_host(&a, &d));
	assert_false(addr_same_host(&a, &mapped));
	assert_false(addr_equal(&none, &none));
	assert_false(addr_same_host(&none, &a));
	addr_unmap(&mapped);
	assert_true(addr_equal(&a, &mapped));
	addr_unmap(&d);
	assert_int_equal(addr_family(&d), AF_INET6);
	addr_unmap(&a);
	assert_int_equal(addr_family(&a), AF_INET);
	addr_set_port(&b, 80);
	assert_true(addr_equal(&a, &b));
	addr_set_port(&d, 443);
	assert_int_equal(addr_port(&d), 443);
}

static void any_is_all_zero(void **state)
{
	static const char *const yes[] = { "0.0.0.0", "::", "0.0.0.0:9" };
	static const char *const no[] = { "0.0.0.1", "::1", "128.0.0.0",
					  "8000::", "::ffff:0.0.0.0" };
	union addr addr = { .sa.sa_family = AF_UNSPEC };

	(void)state;
	assert_false(addr_is_any(&addr));
	for (size_t i = 0; i < sizeof(yes) / sizeof(yes[0]); i++) {
		addr = parsed(yes[i]);
		assert_true(addr_is_any(&addr));
	}
	for (size_t i = 0; i < sizeof(no) / sizeof(no[0]); i++) {
		addr = parsed(no[i]);
		assert_false(addr_is_any(&addr));
	}
}

static void addresses_give_their_bytes(void **state)
{
	static const uint8_t v6[16] = { 0x20, 1, 0x0d, 0xb8, [15] = 7 };
	union addr addr, same;
	const uint8_t *bytes;
	char text[ADDR_STRLEN];
	size_t len;

	(void)state;
	addr_from_bytes(&addr, AF_INET6, v6, 9);
	same = parsed("[2001:db8::7]:9");
	assert_true(addr_equal(&addr, &same));
	assert_int_equal(addr_len(&addr), sizeof(struct sockaddr_in6));
	bytes = addr_bytes(&addr, &len);
	assert_int_equal(len, 16);
	assert_memory_equal(bytes, v6, 16);
	addr_from_bytes(&addr, AF_INET, v6, 9);
	assert_int_equal(addr_len(&addr), sizeof(struct sockaddr_in));
	assert_string_equal(addr_format_host(&addr, text), "32.1.13.184");
	bytes = addr_bytes(&addr, &len);
	assert_int_equal(len, 4);
	assert_memory_equal(bytes, v6, 4);
	memset(&addr, 0, sizeof(addr));
	assert_null(addr_bytes(&addr, &len));
	assert_int_equal(len, 0);
	assert_string_equal(addr_format(&addr, text), "none");
	assert_string_equal(addr_format_host(&addr, text), "none");
}

static void prefixes_are_parsed_and_printed(void **state)
{
	static const struct {
		const char *text, *printed;
	} cases[] = {
		{ "10.0.0.0/8", "10.0.0.0/8" },
		{ "10.255.255.255/8", "10.0.0.0/8" },
		{ "192.0.2.1", "192.0.2.1/32" },
		{ "192.0.2.255/25", "192.0.2.128/25" },
		{ "255.255.255.255/0", "0.0.0.0/0" },
		{ "255.255.255.255/1", "128.0.0.0/1" },
		{ "255.255.255.255/31", "255.255.255.254/31" },
		{ "::/0", "::/0" },
		{ "2001:db8::1", "2001:db8::1/128" },
		{ "2001:db8:ffff::/33", "2001:db8:8000::/33" },
		{ "ffff::ffff/127", "ffff::fffe/127" },
	};
	char text[ADDR_STRLEN];
	struct prefix prefix;

	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		assert_int_equal(prefix_parse(cases[i].text, &prefix), 0);
		assert_string_equal(prefix_format(&prefix, text),
				    cases[i].printed);
	}
}

static void bad_prefixes_are_refused(void **state)
{
	static const char *const cases[] = {
		"",
		"/",
		"/8",
		"10.0.0.0/",
		"10.0.0.0/33",
		"10.0.0.0/-1",
		"10.0.0.0/8x",
		"10.0.0.0/8/8",
		"10.0.0/8",
		"::/129",
		"[::]/8",
		"10.0.0.0:80/8",
		"host/8",
		"10.0.0.0/65536",
		"10.0.0.0/256",
		"10.0.0.0/ 8",
	};
	struct prefix prefix, before;

	(void)state;
	memset(&prefix, 0x5a, sizeof(prefix));
	memcpy(&before, &prefix, sizeof(prefix));
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		if (prefix_parse(cases[i], &prefix) != -EINVAL)
			fail_msg("\"%s\" is taken for a prefix", cases[i]);
		assert_memory_equal(&prefix, &before, sizeof(prefix));
	}
}

static bool contains(const char *prefix_text, const char *addr_text)
{
	union addr addr = parsed(addr_text);
	struct prefix prefix;

	assert_int_equal(prefix_parse(prefix_text, &prefix), 0);
	return prefix_contains(&prefix, &addr);
}

static void prefixes_contain_what_they_should(void **state)
{
	union addr none = { .sa.sa_family = AF_UNSPEC };
	struct prefix all;

	(void)state;
	assert_true(contains("10.0.0.0/8", "10.0.0.0"));
	assert_true(contains("10.0.0.0/8", "10.255.255.255:80"));
	assert_false(contains("10.0.0.0/8", "11.0.0.0"));
	assert_false(contains("10.0.0.0/8", "9.255.255.255"));
	assert_true(contains("172.16.0.0/12", "172.31.255.255"));
	assert_false(contains("172.16.0.0/12", "172.32.0.0"));
	assert_false(contains("172.16.0.0/12", "172.15.255.255"));
	assert_true(contains("192.0.2.1", "192.0.2.1"));
	assert_false(contains("192.0.2.1", "192.0.2.0"));
	assert_true(contains("0.0.0.0/0", "255.255.255.255"));
	assert_false(contains("0.0.0.0/0", "::"));
	assert_false(contains("::/0", "0.0.0.0"));
	assert_true(contains("fe80::/10", "febf:ffff::1"));
	assert_false(contains("fe80::/10", "fec0::1"));
	assert_true(contains("::1", "::1"));
	assert_false(contains("::1", "::"));
	assert_true(contains("::ffff:0.0.0.0/96", "::ffff:192.0.2.1"));
	assert_false(contains("::ffff:0.0.0.0/96", "192.0.2.1"));
	assert_int_equal(prefix_parse("0.0.0.0/0", &all), 0);
	assert_false(prefix_contains(&all, &none));
}

/* Every length against every single differing bit. */
static void prefix_decides_at_the_right_bit(void **state)
{
	union addr zero = parsed("::");
	struct prefix prefix;
	char text[8];

	(void)state;
	for (unsigned int bits = 0; bits <= 128; bits++) {
		snprintf(text, sizeof(text), "::/%u", bits);
		assert_int_equal(prefix_parse(text, &prefix), 0);
		assert_true(prefix_contains(&prefix, &zero));
		for (unsigned int bit = 0; bit < 128; bit++) {
			union addr addr = zero;

			addr.in6.sin6_addr.s6_addr[bit / 8] =
				(uint8_t)(0x80 >> bit % 8);
			assert_int_equal(prefix_contains(&prefix, &addr),
					 bit >= bits);
		}
	}
}

struct item {
	struct table_node node;
	int number;
};

static struct item *item_find(const struct table *table, uint64_t hash,
			      int number)
{
	struct table_node *node = table_first(table, hash);

	for (; node; node = table_next(node)) {
		struct item *item = list_entry(node, struct item, node);

		if (item->number == number)
			return item;
	}
	return NULL;
}

static void table_finds_what_it_holds(void **state)
{
	enum {
		COUNT = 1000
	};
	static struct item items[COUNT];
	struct table table;

	(void)state;
	assert_int_equal(table_init(&table), 0);
	assert_null(table_first(&table, 0));
	for (int i = 0; i < COUNT; i++) {
		items[i].number = i;
		table_insert(&table, &items[i].node, table_hash(&i, sizeof(i)));
		assert_int_equal(table.count, i + 1);
	}
	assert_true(table.mask + 1 >= COUNT / 2);
	for (int i = 0; i < COUNT; i += 2)
		table_remove(&table, &items[i].node);
	assert_int_equal(table.count, COUNT / 2);
	for (int i = 0; i < COUNT; i++) {
		struct item *found =
			item_find(&table, table_hash(&i, sizeof(i)), i);

		assert_ptr_equal(found, i % 2 ? &items[i] : NULL);
	}
	table_destroy(&table);
	table_destroy(&table);
}

/* Equal hashes: all are found, each once, and one goes without the others. */
static void table_keeps_equal_hashes_apart(void **state)
{
	struct item items[40];
	struct table table;
	unsigned int seen = 0;

	(void)state;
	assert_int_equal(table_init(&table), 0);
	for (int i = 0; i < 40; i++) {
		items[i].number = i;
		/* Two hashes that share their bucket however large. */
		table_insert(&table, &items[i].node,
			     i < 20 ? 5 : 5 + ((uint64_t)1 << 63));
	}
	for (int i = 0; i < 40; i++)
		assert_ptr_equal(item_find(&table, items[i].node.hash, i),
				 &items[i]);
	for (struct table_node *node = table_first(&table, 5); node;
	     node = table_next(node))
		seen++;
	assert_int_equal(seen, 20);
	table_remove(&table, &items[7].node);
	assert_null(item_find(&table, 5, 7));
	assert_ptr_equal(item_find(&table, 5, 8), &items[8]);
	assert_int_equal(table.count, 39);
	/* Removing what is not there changes nothing. */
	table_remove(&table, &items[7].node);
	assert_int_equal(table.count, 39);
	table_destroy(&table);
}

static void table_in_short_memory(void *arg)
{
	struct item items[200];
	struct table table = { .count = 77 };

	(void)arg;
	if (table_init(&table)) {
		assert_int_equal(table.count, 77);
		return;
	}
	for (int i = 0; i < 200; i++) {
		items[i].number = i;
		table_insert(&table, &items[i].node, table_hash(&i, sizeof(i)));
	}
	for (int i = 0; i < 200; i++)
		assert_ptr_equal(item_find(&table, table_hash(&i, sizeof(i)),
					   i),
				 &items[i]);
	table_destroy(&table);
}

static void table_does_without_memory_to_grow(void **state)
{
	(void)state;
	assert_true(failalloc_sweep(table_in_short_memory, NULL) >= 3);
}

static void hash_differs_for_every_length(void **state)
{
	static const uint8_t zero[40];
	uint64_t hashes[41];

	(void)state;
	for (size_t len = 0; len <= 40; len++) {
		hashes[len] = table_hash(zero, len);
		assert_true(hashes[len] == table_hash(zero, len));
		for (size_t i = 0; i < len; i++)
			assert_true(hashes[i] != hashes[len]);
	}
}

static void hash_differs_for_every_byte(void **state)
{
	uint8_t text[21] = { 0 };
	uint64_t plain = table_hash(text, sizeof(text));

	(void)state;
	for (size_t i = 0; i < sizeof(text); i++) {
		text[i] = 1;
		assert_true(table_hash(text, sizeof(text)) != plain);
		text[i] = 0;
	}
}

static void random_numbers_stay_below(void **state)
{
	static const uint32_t limits[] = { 1,     2,           3,         7,
					   16384, 0x80000001u, UINT32_MAX };

	(void)state;
	for (size_t i = 0; i < sizeof(limits) / sizeof(limits[0]); i++)
		for (int n = 0; n < 1000; n++)
			assert_true(random_below(limits[i]) < limits[i]);
}

static void random_numbers_reach_every_value(void **state)
{
	unsigned int seen[10] = { 0 };

	(void)state;
	for (int i = 0; i < 10000; i++)
		seen[random_below(10)]++;
	/* About 1000 each; a miss of 300 is ten standard deviations. */
	for (int i = 0; i < 10; i++)
		assert_in_range(seen[i], 700, 1300);
}

static void random_bytes_fill_exactly(void **state)
{
	static const size_t lens[] = { 0, 1, 12, 255, 256, 257, 4096 };
	static uint8_t buf[4096 + 2], other[4096];

	(void)state;
	for (size_t i = 0; i < sizeof(lens) / sizeof(lens[0]); i++) {
		size_t len = lens[i];

		memset(buf, 0, sizeof(buf));
		random_bytes(buf + 1, len);
		assert_int_equal(buf[0], 0);
		assert_int_equal(buf[len + 1], 0);
		random_bytes(other, len);
		if (len >= 12)
			assert_memory_not_equal(buf + 1, other, len);
	}
}

static void random_bytes_are_not_all_alike(void **state)
{
	uint8_t buf[13];
	unsigned int ones = 0;

	(void)state;
	/* Odd sizes, so that the pool is emptied at every offset. */
	for (int i = 0; i < 1000; i++) {
		random_bytes(buf, sizeof(buf));
		for (size_t k = 0; k < sizeof(buf); k++)
			ones += (unsigned int)__builtin_popcount(buf[k]);
	}
	/* Of 104000 bits half; 161 is one standard deviation. */
	assert_in_range(ones, 50000, 54000);
}

/* A pool drawn before fork() must not serve parent and child alike. */
static void forked_children_draw_other_bytes(void **state)
{
	uint8_t mine[32], theirs[32];
	int ends[2], status;
	pid_t pid;

	(void)state;
	random_bytes(mine, sizeof(mine));
	assert_int_equal(pipe2(ends, O_CLOEXEC), 0);
	pid = fork();
	if (pid == 0) {
		random_bytes(theirs, sizeof(theirs));
		_exit(write(ends[1], theirs, sizeof(theirs)) != sizeof(theirs));
	}
	assert_true(pid > 0);
	random_bytes(mine, sizeof(mine));
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_int_equal(status, 0);
	assert_int_equal(read(ends[0], theirs, sizeof(theirs)), sizeof(theirs));
	assert_memory_not_equal(mine, theirs, sizeof(mine));
	close(ends[0]);
	close(ends[1]);
}

static void lists_keep_their_order(void **state)
{
	struct list head, other, nodes[5], *pos, *tmp;
	int i = 0;

	(void)state;
	list_init(&head);
	list_init(&other);
	assert_true(list_empty(&head));
	list_splice_tail(&other, &head);
	assert_true(list_empty(&head));
	for (int k = 0; k < 5; k++)
		list_add_tail(&nodes[k], k < 3 ? &head : &other);
	list_splice_tail(&other, &head);
	assert_true(list_empty(&other));
	list_for_each(pos, &head)
		assert_ptr_equal(pos, &nodes[i++]);
	assert_int_equal(i, 5);
	list_del(&nodes[0]);
	list_del(&nodes[0]);
	list_del(&nodes[4]);
	i = 1;
	list_for_each_safe(pos, tmp, &head) {
		assert_ptr_equal(pos, &nodes[i++]);
		list_del(pos);
	}
	assert_int_equal(i, 4);
	assert_true(list_empty(&head));
}

static void wire_integers_are_big_endian(void **state)
{
	static const uint8_t wire[] = { 0xff, 0xfe, 0xfd, 0xfc,
					0xfb, 0xfa, 0xf9, 0xf8 };
	uint8_t buf[9];

	(void)state;
	assert_int_equal(get_be16(wire), 0xfffe);
	assert_int_equal(get_be32(wire), 0xfffefdfcu);
	assert_true(get_be64(wire) == 0xfffefdfcfbfaf9f8u);
	put_be16(buf + 1, 0xfffe);
	assert_memory_equal(buf + 1, wire, 2);
	put_be32(buf + 1, 0xfffefdfcu);
	assert_memory_equal(buf + 1, wire, 4);
	put_be64(buf + 1, 0xfffefdfcfbfaf9f8u);
	assert_memory_equal(buf + 1, wire, 8);
}

static void log_limit_lets_one_through_a_second(void **state)
{
	struct log_limit limit = { 0 };
	uint64_t suppressed = 99;

	(void)state;
	assert_true(log_allow(&limit, 5000, &suppressed));
	assert_int_equal(suppressed, 0);
	suppressed = 99;
	for (uint64_t now = 5000; now < 6000; now += 100)
		assert_false(log_allow(&limit, now, &suppressed));
	assert_int_equal(suppressed, 99);
	assert_true(log_allow(&limit, 6000, &suppressed));
	assert_int_equal(suppressed, 10);
	assert_true(log_allow(&limit, 9000, &suppressed));
	assert_int_equal(suppressed, 0);
}

static void log_limit_lets_some_lines_through_per_second(void **state)
{
	struct log_limit limit = { 0 };
	uint64_t suppressed = 99;

	(void)state;
	for (int i = 0; i < 3; i++) {
		assert_true(log_allow_some(&limit, 3, 5000, &suppressed));
		assert_int_equal(suppressed, 0);
	}
	assert_false(log_allow_some(&limit, 3, 5500, &suppressed));
	assert_false(log_allow_some(&limit, 3, 5999, &suppressed));
	assert_true(log_allow_some(&limit, 3, 6000, &suppressed));
	assert_int_equal(suppressed, 2);
	assert_true(log_allow_some(&limit, 3, 6000, &suppressed));
	assert_int_equal(suppressed, 0);
}

/* Runs one log call with standard error going into a pipe; what came out. */
static size_t logged(char *buf, size_t size, enum log_level level,
		     const char *text)
{
	int ends[2], saved = dup(STDERR_FILENO);
	ssize_t got;

	assert_true(saved >= 0);
	assert_int_equal(pipe2(ends, O_CLOEXEC | O_NONBLOCK), 0);
	assert_true(dup2(ends[1], STDERR_FILENO) >= 0);
	log_write(level, "test", "event=%s", text);
	assert_true(dup2(saved, STDERR_FILENO) >= 0);
	got = read(ends[0], buf, size - 1);
	close(saved);
	close(ends[0]);
	close(ends[1]);
	buf[got > 0 ? got : 0] = '\0';
	return got > 0 ? (size_t)got : 0;
}

static void log_lines_cannot_be_forged(void **state)
{
	char buf[4096], text[2000];

	(void)state;
	assert_true(logged(buf, sizeof(buf), LOG_LEVEL_INFO, "a b") > 0);
	assert_string_equal(buf, "level=info room=test event=a b\n");
	logged(buf, sizeof(buf), LOG_LEVEL_ERROR, "x\nlevel=info\033[2J\x7f");
	assert_string_equal(buf, "level=error room=test "
				 "event=x?level=info?[2J?\n");
	/* U+009B is CSI, and some take its last byte for it. */
	logged(buf, sizeof(buf), LOG_LEVEL_ERROR,
	       "\xc3\xa9\xc2\x9b"
	       "2J\xc2\xa0\xc2");
	assert_string_equal(buf, "level=error room=test event=\xc3\xa9"
				 "??2J\xc2\xa0?\n");
	memset(text, 'y', sizeof(text));
	text[sizeof(text) - 1] = '\0';
	assert_int_equal(logged(buf, sizeof(buf), LOG_LEVEL_WARN, text), 1024);
	assert_int_equal(buf[1023], '\n');
	assert_int_equal(buf[1022], 'y');
}

/* The examples of RFC 8265 4.3 first, then one for each rule. */
static void opaque_texts_are_prepared(void **state)
{
	static const char *const texts[][2] = {
		{ "correct horse battery staple",
		  "correct horse battery staple" },
		{ "Correct Horse Battery Staple",
		  "Correct Horse Battery Staple" },
		{ "\u03c0\u00df\u00e5", "\u03c0\u00df\u00e5" },
		{ "Jack of \u2666s", "Jack of \u2666s" },
		{ "foo\u1680bar", "foo bar" },
		{ "\u00a0x\u3000", " x " },
		{ "cafe\u0301", "caf\u00e9" },
		{ "\u212b", "\u00c5" }, /* a singleton of NFC */
		{ "\u1112\u1161\u11ab", "\ud55c" }, /* only NFC makes it good */
		{ "\ufb01 \uff21 \u2168", "\ufb01 \uff21 \u2168" },
		{ "\U0001f511", "\U0001f511" },
		{ "\u0915\u094d\u200d", "\u0915\u094d\u200d" },
		{ "\u0628\u0651\u200c\u0628", "\u0628\u0651\u200c\u0628" },
		{ "l\u00b7l", "l\u00b7l" },
		{ "\u0375\u03b1", "\u0375\u03b1" },
		{ "\u05d0\u05f3", "\u05d0\u05f3" },
		{ "\u30fb\u30a2", "\u30fb\u30a2" },
		{ "\u0661\u0662", "\u0661\u0662" },
	};

	(void)state;
	for (size_t i = 0; i < sizeof(texts) / sizeof(texts[0]); i++) {
		char *out;

		if (opaque_prepare(texts[i][0], &out))
			fail_msg("%s is refused", texts[i][0]);
		assert_string_equal(out, texts[i][1]);
		free(out);
	}
}

static void other_texts_are_refused(void **state)
{
	static const char *const texts[] = {
		"",
		"my cat is a \tby", /* RFC 8265 4.3 */
		"\x7f",
		"\xc2\x85", /* a control of C1 */
		"\xff",
		"\xc3", /* cut short */
		"The\u00adMatrix", /* a soft hyphen, invisible */
		"a\u200db", /* joiners that join nothing */
		"a\u200cb",
		"\u200c",
		"\u1100", /* a part of a syllable, alone */
		"\ufdd0", /* no character */
		"\u0378", /* not assigned */
		"\ue000", /* private */
		"\u2028", /* a line separator */
		"\u202e", /* turns the line around */
		"a\u00b7l",
		"\u0375",
		"\u0375a",
		"\u05f4",
		"\u30fb",
		"\u0661\u06f1",
		"\u06f1\u0661",
		"\u0640",
		"\u3033",
	};

	(void)state;
	for (size_t i = 0; i < sizeof(texts) / sizeof(texts[0]); i++) {
		char *out = NULL;

		if (opaque_prepare(texts[i], &out) != -EINVAL)
			fail_msg("text %zu is taken", i);
		assert_null(out);
	}
}

static void log_level_is_obeyed(void **state)
{
	char buf[256];

	(void)state;
	log_set_level(LOG_LEVEL_WARN);
	assert_true(log_enabled(LOG_LEVEL_ERROR));
	assert_true(log_enabled(LOG_LEVEL_WARN));
	assert_false(log_enabled(LOG_LEVEL_INFO));
	assert_int_equal(logged(buf, sizeof(buf), LOG_LEVEL_INFO, "x"), 0);
	assert_true(logged(buf, sizeof(buf), LOG_LEVEL_WARN, "x") > 0);
	log_set_level(LOG_LEVEL_INFO);
}

/* A reader of standard error that stands still must not stop the relay. */
static void log_never_blocks(void **state)
{
	int ends[2], saved = dup(STDERR_FILENO);
	uint64_t before = log_dropped();

	(void)state;
	assert_int_equal(pipe2(ends, O_CLOEXEC), 0);
	assert_true(dup2(ends[1], STDERR_FILENO) >= 0);
	for (int i = 0; i < 5000; i++)
		log_write(LOG_LEVEL_ERROR, "test", "event=flood n=%d", i);
	assert_true(dup2(saved, STDERR_FILENO) >= 0);
	close(saved);
	close(ends[0]);
	close(ends[1]);
	assert_true(log_dropped() > before);
}

static void closed_descriptors_are_forgotten(void **state)
{
	int fds[2];

	(void)state;
	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, fds), 0);
	errno = EXDEV;
	fd_close(&fds[0]);
	assert_int_equal(fds[0], -1);
	assert_int_equal(errno, EXDEV);
	fd_close(&fds[0]);
	assert_int_equal(errno, EXDEV);
	fd_reset(&fds[1]);
	assert_int_equal(fds[1], -1);
	fd_reset(&fds[1]);
	assert_int_equal(fd_unsent(-1), 0);
}

/* Two connected TCP sockets over loopback. */
static void tcp_pair(int fds[2])
{
	struct sockaddr_in addr = {
		.sin_family = AF_INET,
		.sin_addr.s_addr = htonl(INADDR_LOOPBACK),
	};
	socklen_t len = sizeof(addr);
	int listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

	assert_true(listener >= 0);
	assert_int_equal(bind(listener, (struct sockaddr *)&addr, len), 0);
	assert_int_equal(listen(listener, 1), 0);
	assert_int_equal(getsockname(listener, (struct sockaddr *)&addr, &len),
			 0);
	fds[0] = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	assert_true(fds[0] >= 0);
	assert_int_equal(connect(fds[0], (struct sockaddr *)&addr, len), 0);
	fds[1] = accept(listener, NULL, NULL);
	assert_true(fds[1] >= 0);
	close(listener);
}

static void reset_is_seen_as_a_reset(void **state)
{
	int fds[2];
	char byte;

	(void)state;
	tcp_pair(fds);
	fd_reset(&fds[0]);
	assert_int_equal(recv(fds[1], &byte, 1, 0), -1);
	assert_int_equal(errno, ECONNRESET);
	fd_close(&fds[1]);
	tcp_pair(fds);
	fd_close(&fds[0]);
	assert_int_equal(recv(fds[1], &byte, 1, 0), 0);
	fd_close(&fds[1]);
}

static void secrets_are_compared_to_the_end(void **state)
{
	uint8_t a[32], b[32];

	(void)state;
	memset(a, 7, sizeof(a));
	memset(b, 7, sizeof(b));
	assert_true(secret_equal(a, b, sizeof(a)));
	assert_true(secret_equal(a, b, 0));
	for (size_t i = 0; i < sizeof(a); i++) {
		b[i] ^= 0x80;
		assert_false(secret_equal(a, b, sizeof(a)));
		assert_true(secret_equal(a, b, i));
		b[i] ^= 0x80;
	}
}

/* What secret_line_read says of these bytes, with eight for the line. */
static ssize_t line_of(const char *bytes, size_t len, char line[8])
{
	FILE *in = fmemopen((void *)bytes, len, "r");
	ssize_t got;

	assert_non_null(in);
	memset(line, 'x', 8);
	got = secret_line_read(in, line, 8);
	fclose(in);
	return got;
}
#define LINE_OF(bytes, line) line_of((bytes), sizeof(bytes) - 1, (line))

static void a_secret_is_read_whole_or_not_at_all(void **state)
{
	static const char wiped[8];
	char line[8];

	(void)state;
	assert_int_equal(LINE_OF("sesame\r\nmore\n", line), 6);
	assert_string_equal(line, "sesame");
	assert_int_equal(LINE_OF("sesames", line), 7);
	assert_string_equal(line, "sesames");
	assert_int_equal(LINE_OF("\n", line), 0);
	assert_string_equal(line, "");
	assert_int_equal(LINE_OF("sesame\0secret\n", line), -EILSEQ);
	assert_memory_equal(line, wiped, sizeof(line));
	assert_int_equal(LINE_OF("ses\0\n", line), -EILSEQ);
	assert_int_equal(LINE_OF("se\0", line), -EILSEQ);
	assert_int_equal(LINE_OF("sesamese\n", line), -EMSGSIZE);
	assert_memory_equal(line, wiped, sizeof(line));
	assert_int_equal(line_of("x", 0, line), -ENODATA);
}

static void clocks_go_forward(void **state)
{
	uint64_t ns = clock_ns(), ms = clock_ms(), wall = clock_wall();

	(void)state;
	assert_true(clock_ns() >= ns);
	assert_true(clock_ms() >= ms);
	assert_true(ms >= ns / 1000000u);
	assert_true(wall > 1600000000u);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(addresses_are_parsed_and_printed),
		cmocka_unit_test(bad_addresses_are_refused),
		cmocka_unit_test(addresses_are_compared),
		cmocka_unit_test(any_is_all_zero),
		cmocka_unit_test(addresses_give_their_bytes),
		cmocka_unit_test(prefixes_are_parsed_and_printed),
		cmocka_unit_test(bad_prefixes_are_refused),
		cmocka_unit_test(prefixes_contain_what_they_should),
		cmocka_unit_test(prefix_decides_at_the_right_bit),
		cmocka_unit_test(table_finds_what_it_holds),
		cmocka_unit_test(table_keeps_equal_hashes_apart),
		cmocka_unit_test(table_does_without_memory_to_grow),
		cmocka_unit_test(hash_differs_for_every_length),
		cmocka_unit_test(hash_differs_for_every_byte),
		cmocka_unit_test(random_numbers_stay_below),
		cmocka_unit_test(random_numbers_reach_every_value),
		cmocka_unit_test(random_bytes_fill_exactly),
		cmocka_unit_test(random_bytes_are_not_all_alike),
		cmocka_unit_test(forked_children_draw_other_bytes),
		cmocka_unit_test(lists_keep_their_order),
		cmocka_unit_test(wire_integers_are_big_endian),
		cmocka_unit_test(log_limit_lets_one_through_a_second),
		cmocka_unit_test(log_limit_lets_some_lines_through_per_second),
		cmocka_unit_test(log_lines_cannot_be_forged),
		cmocka_unit_test(opaque_texts_are_prepared),
		cmocka_unit_test(other_texts_are_refused),
		cmocka_unit_test(log_level_is_obeyed),
		cmocka_unit_test(log_never_blocks),
		cmocka_unit_test(closed_descriptors_are_forgotten),
		cmocka_unit_test(reset_is_seen_as_a_reset),
		cmocka_unit_test(secrets_are_compared_to_the_end),
		cmocka_unit_test(a_secret_is_read_whole_or_not_at_all),
		cmocka_unit_test(clocks_go_forward),
	};

	return cmocka_run_group_tests_name("base", tests, NULL, NULL);
}
