/* SPDX-License-Identifier: BSD-2-Clause */
/* Transactions of nftables that the kernel refuses, in a network namespace of our own. */
#include "exit/internal.h"

#include <errno.h>
#include <libmnl/libmnl.h>
#include <linux/netfilter.h>
#include <sched.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <sys/socket.h>

#include <cmocka.h>

#define TABLE "culvert_test"

static bool isolated;

static int namespace_make(void **state)
{
	(void)state;
	isolated = unshare(CLONE_NEWUSER | CLONE_NEWNET) == 0;
	if (!isolated)
		print_message("# no user namespaces here\n");
	return 0;
}

/* No hook of the family inet has this number. */
static void hook_unknown(struct nft_batch *batch, void *arg)
{
	(void)arg;
	batch_chain_hooked(batch, "nowhere", 99, 0);
}

static int commit(struct nft *nft, enum nft_how how,
		  void (*fill)(struct nft_batch *batch, void *arg))
{
	const struct nft_change change = {
		.how = how, .table = TABLE, .comment = "a test", .fill = fill
	};

	return nft_commit(nft, &change);
}

/* What the kernel does not know for another reason does not disown our tables. */
static void a_refused_change_leaves_the_table_ours(void **state)
{
	struct nft_found found;
	struct nft *nft;
	uint32_t owner;

	(void)state;
	if (!isolated)
		skip();
	assert_int_equal(nft_open(&nft), 0);
	assert_int_equal(commit(nft, NFT_REPLACE, NULL), 0);
	assert_int_equal(nft_table_read(nft, TABLE, &found), 0);
	assert_string_equal(found.comment, "a test");
	owner = found.owner;
	assert_true(commit(nft, NFT_CHANGE, hook_unknown) < 0);
	assert_int_equal(commit(nft, NFT_CHANGE, NULL), 0);
	assert_int_equal(commit(nft, NFT_REPLACE, NULL), 0);
	assert_int_equal(nft_table_read(nft, TABLE, &found), 0);
	assert_int_equal(found.owner, owner);
	assert_int_equal(commit(nft, NFT_REMOVE, NULL), 0);
	assert_int_equal(nft_table_read(nft, TABLE, &found), -ENOENT);
	nft_close(nft);
}

/* Each message is refused, and there is room for the answers to some of them. */
static void answers_that_were_lost_are_no_success(void **state)
{
	const struct addr_range all = { .open = true };
	const struct batch_elements what = {
		.set = "none", .family = AF_INET, .ranges = &all, .count = 1
	};
	const int room = 1;
	uint32_t sequence = 0;
	struct nft_batch batch = { .table = TABLE,
				   .sequence = &sequence,
				   .family = NFPROTO_INET };
	struct mnl_socket *socket = mnl_socket_open(NETLINK_NETFILTER);
	char buf[64];

	(void)state;
	if (!isolated)
		skip();
	assert_non_null(socket);
	assert_int_equal(mnl_socket_bind(socket, 0, MNL_SOCKET_AUTOPID), 0);
	assert_int_equal(setsockopt(mnl_socket_get_fd(socket), SOL_SOCKET,
				    SO_RCVBUF, &room, sizeof(room)),
			 0);
	assert_int_equal(batch_begin(&batch, 0), 0);
	for (int i = 0; i < 50; i++)
		batch_elements(&batch, &what, true);
	batch_end(&batch);
	assert_true(batch_send(&batch, socket) < 0);
	batch_free(&batch);
	/* None of them is left to be taken for another's. */
	assert_int_equal(recv(mnl_socket_get_fd(socket), buf, sizeof(buf),
			      MSG_DONTWAIT),
			 -1);
	assert_int_equal(errno, EAGAIN);
	mnl_socket_close(socket);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_refused_change_leaves_the_table_ours),
		cmocka_unit_test(answers_that_were_lost_are_no_success),
	};

	return cmocka_run_group_tests(tests, namespace_make, NULL);
}
