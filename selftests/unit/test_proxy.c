/* SPDX-License-Identifier: BSD-2-Clause */
/* Headers of the PROXY protocol: what they say, and what is none. */
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cmocka.h>

#include "transport/proxy.h"

#define SIGNATURE "\r\n\r\n\0\r\nQUIT\n"
#define TCP4_BODY "\xc0\x00\x02\x01\xc6\x33\x64\x02\x9c\x40\x0d\x96"
#define TCP6_BODY                                                          \
	"\x20\x01\x0d\xb8\0\0\0\0\0\0\0\0\0\0\0\x01\x20\x01\x0d\xb8\0\0\0" \
	"\0\0\0\0\0\0\0\0\x02\x9c\x40\x0d\x96"

struct header {
	const char *bytes;
	size_t len;
	const char *source; /* NULL: nobody */
};

#define HEADER(text, source)                   \
	{                                      \
		text, sizeof(text) - 1, source \
	}

static const struct header good[] = {
	HEADER("PROXY TCP4 192.0.2.1 198.51.100.2 40000 3478\r\n",
	       "192.0.2.1:40000"),
	HEADER("PROXY TCP4 0.0.0.0 255.255.255.255 0 65535\r\n", "0.0.0.0:0"),
	HEADER("PROXY TCP6 2001:db8::1 2001:db8::2 40000 3478\r\n",
	       "[2001:db8::1]:40000"),
	HEADER("PROXY TCP6 ::ffff:192.0.2.1 ::1 1 2\r\n", "192.0.2.1:1"),
	HEADER("PROXY UNKNOWN\r\n", NULL),
	HEADER("PROXY UNKNOWN ffff:f...f:ffff ffff:f...f:ffff 65535 65535\r\n",
	       NULL),
	HEADER(SIGNATURE "\x21\x11\0\x0c" TCP4_BODY, "192.0.2.1:40000"),
	HEADER(SIGNATURE "\x21\x21\0\x24" TCP6_BODY, "[2001:db8::1]:40000"),
	/* With TLVs behind, with bytes that are none. */
	HEADER(SIGNATURE "\x21\x11\0\x13" TCP4_BODY "\x01\0\x04"
			 "stun",
	       "192.0.2.1:40000"),
	HEADER(SIGNATURE "\x20\0\0\0", NULL),
	HEADER(SIGNATURE "\x20\x11\0\x0c" TCP4_BODY, NULL),
	HEADER(SIGNATURE "\x21\0\0\x03"
			 "abc",
	       NULL),
};

static const struct header bad[] = {
	HEADER("proxy TCP4 192.0.2.1 198.51.100.2 40000 3478\r\n", NULL),
	HEADER("PROXY TCP4 192.0.2.1 198.51.100.2 40000 3478\n", NULL),
	HEADER("PROXY TCP4  192.0.2.1 198.51.100.2 40000 3478\r\n", NULL),
	HEADER("PROXY TCP4 192.0.2.1 198.51.100.2 40000\r\n", NULL),
	HEADER("PROXY TCP4 192.0.2.1 198.51.100.2 40000 3478 \r\n", NULL),
	HEADER("PROXY TCP4 192.0.2.1 198.51.100.2 40000 3478 1\r\n", NULL),
	HEADER("PROXY TCP4 192.0.2.1 198.51.100.2 040000 3478\r\n", NULL),
	HEADER("PROXY TCP4 192.0.2.1 198.51.100.2 65536 3478\r\n", NULL),
	HEADER("PROXY TCP4 192.0.2.1 198.51.100.2 -1 3478\r\n", NULL),
	HEADER("PROXY TCP4 192.0.2.1\0 198.51.100.2 40000 3478\r\n", NULL),
	HEADER("PROXY TCP4 192.0.2.999 198.51.100.2 40000 3478\r\n", NULL),
	HEADER("PROXY TCP6 192.0.2.1 198.51.100.2 40000 3478\r\n", NULL),
	HEADER("PROXY UDP4 192.0.2.1 198.51.100.2 40000 3478\r\n", NULL),
	HEADER("PROXY UNKNOWNS\r\n", NULL),
	HEADER("PROXY \r\n", NULL),
	HEADER("PROXY\r\n", NULL),
	HEADER("\x16\x03\x01\x02", NULL),
	HEADER("\0\x01\0\0\x21\x12\xa4\x42", NULL),
	HEADER("\r\n\r\n\r\n", NULL),
	HEADER(SIGNATURE "\x11\x11\0\x0c" TCP4_BODY, NULL),
	HEADER(SIGNATURE "\x22\x11\0\x0c" TCP4_BODY, NULL),
	HEADER(SIGNATURE "\x21\x12\0\x0c" TCP4_BODY, NULL), /* UDP */
	HEADER(SIGNATURE "\x21\x31\0\x0c" TCP4_BODY, NULL), /* UNIX */
	HEADER(SIGNATURE "\x21\x11\0\x0b" TCP4_BODY, NULL),
	HEADER(SIGNATURE "\x21\x21\0\x0c" TCP4_BODY, NULL),
	HEADER(SIGNATURE "\x21\x11\xff\xff", NULL),
};

#define COUNT(list) (sizeof(list) / sizeof((list)[0]))

static void assert_source(const union addr *source, const char *want)
{
	char text[ADDR_STRLEN];

	if (want)
		assert_string_equal(addr_format(source, text), want);
	else
		assert_int_equal(addr_family(source), AF_UNSPEC);
}

/* An exact copy on the heap: a byte too far is caught. */
static ssize_t parse(const struct header *header, size_t len,
		     union addr *source)
{
	uint8_t *copy = malloc(len ? len : 1);
	ssize_t result;

	assert_non_null(copy);
	memcpy(copy, header->bytes, len);
	result = proxy_parse(copy, len, source);
	free(copy);
	return result;
}

static void every_header_says_who_it_is(void **state)
{
	(void)state;
	for (size_t i = 0; i < COUNT(good); i++) {
		union addr source;

		memset(&source, 0xff, sizeof(source));
		for (size_t len = 0; len < good[i].len; len++)
			assert_int_equal(parse(&good[i], len, &source), 0);
		assert_int_equal(parse(&good[i], good[i].len, &source),
				 good[i].len);
		assert_source(&source, good[i].source);
	}
}

static void what_is_no_header_is_refused(void **state)
{
	(void)state;
	for (size_t i = 0; i < COUNT(bad); i++) {
		union addr source = { .sa.sa_family = 77 };

		assert_int_equal(parse(&bad[i], bad[i].len, &source), -EBADMSG);
		assert_int_equal(source.sa.sa_family, 77);
	}
}

static void a_line_ends_in_time(void **state)
{
	char line[200];
	struct header header = { line, sizeof(line), NULL };
	union addr source;

	(void)state;
	memset(line, 'f', sizeof(line));
	memcpy(line, "PROXY UNKNOWN ", 14);
	assert_int_equal(parse(&header, 106, &source), 0);
	assert_int_equal(parse(&header, 107, &source), -EBADMSG);
	memcpy(line + 105, "\r\n", 2);
	assert_int_equal(parse(&header, 200, &source), 107);
	memcpy(line + 105, "f\r\n", 3);
	assert_int_equal(parse(&header, 200, &source), -EBADMSG);
}

/* The longest block that is taken, and one byte more. */
static void a_block_ends_in_time(void **state)
{
	static char block[PROXY_HEADER_MAX + 1] = SIGNATURE "\x21\x11";
	struct header header = { block, sizeof(block), NULL };
	union addr source;

	(void)state;
	block[14] = (char)((PROXY_HEADER_MAX - 16) >> 8);
	block[15] = (char)((PROXY_HEADER_MAX - 16) & 0xff);
	assert_int_equal(parse(&header, PROXY_HEADER_MAX - 1, &source), 0);
	assert_int_equal(parse(&header, PROXY_HEADER_MAX + 1, &source),
			 PROXY_HEADER_MAX);
	block[15]++;
	assert_int_equal(parse(&header, PROXY_HEADER_MAX + 1, &source),
			 -EBADMSG);
}

static void sockets_open(int fds[2])
{
	assert_int_equal(
		socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, fds), 0);
}

static void reading_leaves_what_is_behind(void **state)
{
	(void)state;
	for (size_t i = 0; i < COUNT(good); i++) {
		struct proxy_reader reader = { 0 };
		union addr source;
		char behind[16];
		int fds[2];

		sockets_open(fds);
		/* One by one, then the rest with the client's first bytes. */
		for (size_t len = 0; len + 1 < good[i].len; len++) {
			assert_int_equal(
				send(fds[0], good[i].bytes + len, 1, 0), 1);
			assert_int_equal(proxy_read(&reader, fds[1], &source),
					 -EAGAIN);
		}
		memcpy(behind, good[i].bytes + good[i].len - 1, 1);
		memcpy(behind + 1, "\r\nSTUN\n", 7);
		assert_int_equal(send(fds[0], behind, 8, 0), 8);
		assert_int_equal(proxy_read(&reader, fds[1], &source), 0);
		assert_source(&source, good[i].source);
		assert_int_equal(recv(fds[1], behind, sizeof(behind), 0), 7);
		assert_memory_equal(behind, "\r\nSTUN\n", 7);
		close(fds[0]);
		close(fds[1]);
	}
}

static void an_end_before_the_header_is_told(void **state)
{
	struct proxy_reader reader = { 0 };
	union addr source;
	int fds[2];

	(void)state;
	sockets_open(fds);
	assert_int_equal(send(fds[0], "PROXY", 5, 0), 5);
	assert_int_equal(proxy_read(&reader, fds[1], &source), -EAGAIN);
	close(fds[0]);
	assert_int_equal(proxy_read(&reader, fds[1], &source), -ECONNABORTED);
	close(fds[1]);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(every_header_says_who_it_is),
		cmocka_unit_test(what_is_no_header_is_refused),
		cmocka_unit_test(a_line_ends_in_time),
		cmocka_unit_test(a_block_ends_in_time),
		cmocka_unit_test(reading_leaves_what_is_behind),
		cmocka_unit_test(an_end_before_the_header_is_told),
	};

	return cmocka_run_group_tests_name("proxy", tests, NULL, NULL);
}
