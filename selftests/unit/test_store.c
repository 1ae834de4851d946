/* SPDX-License-Identifier: BSD-2-Clause */
/* The user database: questions, answers, what is remembered; SQLite. */
#include "unit/store_file.h"

#include <errno.h>
#include <sys/stat.h>

#include "store/redis.h"
#include "store/url.h"
#include "unit/failalloc.h"
#include "unit/until.h"

static struct store_file file;
static struct store *store;
static struct loop *loop;

static struct store_params params(void)
{
	return (struct store_params){
		.url = file.url,
		.timeout_ms = 5000,
		.cache_ms = 60000,
		.absent_ms = 60000,
		.cache_users = 100,
	};
}

static void configure(const struct store_params *wish)
{
	assert_int_equal(store_configure(store, wish), 0);
}

static int setup(void **state)
{
	struct store_params usual;

	(void)state;
	file_begin(&file);
	assert_int_equal(loop_new(&loop), 0);
	assert_int_equal(store_new(&store), 0);
	usual = params();
	configure(&usual);
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	store_free(store);
	loop_free(loop);
	file_end(&file);
	return 0;
}

static unsigned int answers;

static void answered(struct store_ask *ask)
{
	assert_true(ask->answered);
	answers++;
}

static void ask_begin(struct store_ask *ask, const char *name)
{
	*ask = (struct store_ask){ .key = key_of(name) };
	store_ask(store, ask, loop, answered);
}

/* What the database says, by way of the store. */
static int ask_for(const char *name)
{
	struct store_ask ask;

	ask_begin(&ask, name);
	UNTIL(loop, ask.answered);
	if (!ask.result)
		assert_string_equal(ask.user.name, name);
	return ask.result;
}

/* What is known without asking. */
static int known(const char *name)
{
	struct store_key key = key_of(name);
	struct store_user user;
	int result = store_find(store, &key, &user);
	uint8_t md5[STORE_MD5_LEN];

	if (result)
		return result;
	assert_string_equal(user.name, name);
	stun_long_term_key(name, REALM, PASSWORD, md5);
	assert_memory_equal(user.md5, md5, sizeof(md5));
	return 0;
}

static void who_was_asked_for_is_known(void **state)
{
	(void)state;
	file_add(&file, "alice");
	assert_int_equal(known("alice"), -EAGAIN);
	assert_int_equal(ask_for("alice"), 0);
	assert_int_equal(known("alice"), 0);
}

static void who_is_not_there_is_known_not_to_be(void **state)
{
	(void)state;
	file_add(&file, "alice");
	assert_int_equal(ask_for("bob"), -ENOENT);
	assert_int_equal(known("bob"), -ENOENT);
	file_add(&file, "bob");
	assert_int_equal(known("bob"), -ENOENT);
	store_forget(store);
	assert_int_equal(known("bob"), -EAGAIN);
	assert_int_equal(ask_for("bob"), 0);
}

static void the_same_name_of_another_realm_is_another(void **state)
{
	struct store_ask ask = { .key = key_of("alice") };

	(void)state;
	file_add(&file, "alice");
	snprintf(ask.key.realm, sizeof(ask.key.realm), "second.org");
	store_ask(store, &ask, loop, answered);
	UNTIL(loop, ask.answered);
	assert_int_equal(ask.result, -ENOENT);
}

static void a_file_that_is_missing_has_nobody(void **state)
{
	struct store_params wish = params();

	(void)state;
	wish.absent_ms = 0;
	configure(&wish);
	assert_int_equal(ask_for("alice"), -ENOENT);
	file_add(&file, "alice");
	assert_int_equal(ask_for("alice"), 0);
}

static void a_file_that_was_replaced_is_read(void **state)
{
	struct store_params wish = params();

	(void)state;
	wish.cache_ms = wish.absent_ms = 0;
	configure(&wish);
	file_add(&file, "alice");
	assert_int_equal(ask_for("alice"), 0);
	assert_int_equal(unlink(file.path), 0);
	assert_int_equal(ask_for("alice"), -ENOENT);
	file_add(&file, "bob");
	assert_int_equal(ask_for("bob"), 0);
	assert_int_equal(ask_for("alice"), -ENOENT);
}

static void a_file_that_others_may_write_to_lets_nobody_in(void **state)
{
	(void)state;
	file_add(&file, "alice");
	assert_int_equal(chmod(file.path, 0660), 0);
	assert_int_equal(ask_for("alice"), -EPERM);
	assert_int_equal(known("alice"), -EAGAIN);
	assert_int_equal(chmod(file.path, 0602), 0);
	assert_int_equal(ask_for("alice"), -EPERM);
	assert_int_equal(chmod(file.path, 0640), 0);
	assert_int_equal(ask_for("alice"), 0);
}

static void what_is_no_user_database_is_a_failure(void **state)
{
	FILE *out = fopen(file.path, "w");

	(void)state;
	assert_non_null(out);
	fputs("by no means a database, but long enough to be looked at\n", out);
	fclose(out);
	assert_int_equal(chmod(file.path, 0600), 0);
	assert_int_equal(ask_for("alice"), -EBADMSG);
	assert_int_equal(unlink(file.path), 0);
	file_run(&file, "CREATE TABLE users (name)");
	assert_int_equal(chmod(file.path, 0600), 0);
	assert_int_equal(ask_for("alice"), -EBADMSG);
	file_run(&file, "PRAGMA user_version = 2");
	assert_int_equal(ask_for("alice"), -EBADMSG);
}

static void a_row_that_is_malformed_is_a_failure(void **state)
{
	static const char *const rows[] = {
		"UPDATE users SET md5 = x'00'",
		"UPDATE users SET sha256 = zeroblob(33)",
		"UPDATE users SET md5 = 7",
		"UPDATE users SET name = ''",
		"UPDATE users SET name = 'a' || char(10) || 'level=error'",
		"UPDATE users SET name = '\"'",
		"UPDATE users SET name = x'ff'",
		"UPDATE users SET name = CAST(zeroblob(5) AS TEXT)",
		"UPDATE users SET name = hex(zeroblob(300))",
	};
	struct store_params wish = params();

	(void)state;
	wish.cache_ms = 0;
	configure(&wish);
	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		file_add(&file, "alice");
		assert_int_equal(ask_for("alice"), 0);
		file_run(&file, rows[i]);
		assert_int_equal(ask_for("alice"), -EBADMSG);
	}
}

static void a_locked_file_is_waited_for(void **state)
{
	struct store_ask asks[50], other;

	(void)state;
	file_add(&file, "alice");
	file_add(&file, "bob");
	file_lock(&file);
	answers = 0;
	for (size_t i = 0; i < 50; i++)
		ask_begin(&asks[i], "alice");
	ask_begin(&other, "bob");
	for (int i = 0; i < 20; i++)
		assert_int_equal(loop_tick(loop, 5), 0);
	assert_int_equal(answers, 0);
	file_unlock(&file);
	UNTIL(loop, answers == 51);
	for (size_t i = 0; i < 50; i++)
		assert_int_equal(asks[i].result, 0);
	assert_string_equal(other.user.name, "bob");
}

static void a_file_that_stays_locked_is_given_up(void **state)
{
	struct store_params wish = params();

	(void)state;
	wish.timeout_ms = 30;
	configure(&wish);
	file_add(&file, "alice");
	assert_int_equal(ask_for("alice"), 0);
	store_forget(store);
	file_lock(&file);
	assert_int_equal(ask_for("alice"), -EBUSY);
	assert_int_equal(known("alice"), -EAGAIN);
	file_unlock(&file);
	assert_int_equal(ask_for("alice"), 0);
}

static void an_answer_from_before_a_change_is_not_kept(void **state)
{
	struct store_ask before, after;

	(void)state;
	file_add(&file, "alice");
	file_lock(&file);
	answers = 0;
	ask_begin(&before, "alice");
	ask_begin(&after, "bob");
	for (int i = 0; i < 5; i++)
		assert_int_equal(loop_tick(loop, 5), 0);
	store_forget(store);
	file_unlock(&file);
	UNTIL(loop, answers == 2);
	assert_int_equal(before.result, 0);
	assert_int_equal(known("alice"), -EAGAIN);
	assert_int_equal(known("bob"), -EAGAIN);
}

static void names_that_do_not_exist_push_out_their_like(void **state)
{
	struct store_params wish = params();
	char name[32];

	(void)state;
	wish.cache_users = 4;
	configure(&wish);
	file_add(&file, "alice");
	assert_int_equal(ask_for("alice"), 0);
	for (int i = 0; i < 12; i++) {
		snprintf(name, sizeof(name), "nobody%d", i);
		assert_int_equal(ask_for(name), -ENOENT);
	}
	assert_int_equal(known("nobody7"), -EAGAIN);
	assert_int_equal(known("nobody8"), -ENOENT);
	assert_int_equal(known("nobody11"), -ENOENT);
	assert_int_equal(known("alice"), 0);
}

static void the_longest_unused_is_pushed_out(void **state)
{
	static const char *const names[] = { "a", "b", "c", "d" };
	struct store_params wish = params();

	(void)state;
	wish.cache_users = 3;
	configure(&wish);
	for (int i = 0; i < 4; i++)
		file_add(&file, names[i]);
	for (int i = 0; i < 3; i++)
		assert_int_equal(ask_for(names[i]), 0);
	assert_int_equal(known("a"), 0);
	assert_int_equal(ask_for("d"), 0);
	assert_int_equal(known("b"), -EAGAIN);
	assert_int_equal(known("a"), 0);
	assert_int_equal(known("c"), 0);
}

static void what_is_remembered_expires(void **state)
{
	struct store_params wish = params();

	(void)state;
	wish.cache_ms = 400;
	wish.absent_ms = 20;
	configure(&wish);
	file_add(&file, "alice");
	assert_int_equal(ask_for("alice"), 0);
	assert_int_equal(ask_for("bob"), -ENOENT);
	assert_int_equal(known("alice"), 0);
	UNTIL(loop, known("bob") == -EAGAIN);
	UNTIL(loop, known("alice") == -EAGAIN);
}

static void another_configuration_begins_anew(void **state)
{
	struct store_params wish = params();
	struct store_file second;

	(void)state;
	file_add(&file, "alice");
	assert_int_equal(ask_for("alice"), 0);
	configure(&wish); /* the same: nothing is forgotten */
	assert_int_equal(known("alice"), 0);
	file_begin(&second);
	file_add(&second, "bob");
	wish.url = second.url;
	configure(&wish);
	assert_int_equal(ask_for("bob"), 0);
	assert_int_equal(ask_for("alice"), -ENOENT);
	wish.url = "none";
	configure(&wish);
	assert_int_equal(known("bob"), -ENOENT);
	file_end(&second);
}

static void who_waits_at_the_end_is_told(void **state)
{
	struct store_ask asks[3];

	(void)state;
	file_add(&file, "alice");
	file_lock(&file);
	answers = 0;
	for (size_t i = 0; i < 3; i++)
		ask_begin(&asks[i], i ? "alice" : "bob");
	store_stop(store);
	assert_int_equal(known("alice"), -ENOENT);
	UNTIL(loop, answers == 3);
	for (size_t i = 0; i < 3; i++)
		assert_int_equal(asks[i].result, -ECANCELED);
	file_unlock(&file);
}

struct names {
	char text[256];
	size_t count, stop_at;
};

static bool name_collect(void *arg, const char *realm, const char *name)
{
	struct names *names = arg;
	size_t len = strlen(names->text);

	assert_string_equal(realm, REALM);
	snprintf(names->text + len, sizeof(names->text) - len, "%s ", name);
	return ++names->count != names->stop_at;
}

static struct store_admin *admin_open(bool make)
{
	const struct store_owner nobody = { .set = false };
	struct store_admin *admin = NULL;
	char why[STORE_WHY_SIZE];

	return store_admin_open(file.url, &nobody, make, &admin, why) ? NULL :
									admin;
}

static void users_are_listed_replaced_and_removed(void **state)
{
	struct store_user user = { .name = "bob" };
	struct store_key key = key_of("bob");
	struct names all = { .stop_at = 0 }, one = { .stop_at = 1 };
	struct store_admin *admin;
	char why[STORE_WHY_SIZE];
	bool replaced = false;
	struct stat st;

	(void)state;
	assert_null(admin_open(false));
	file_add(&file, "alice");
	file_add(&file, "bob");
	assert_int_equal(stat(file.path, &st), 0);
	assert_int_equal(st.st_mode & 0777, 0640);
	admin = admin_open(false);
	assert_non_null(admin);
	assert_int_equal(store_admin_put(admin, &key, &user, &replaced, why),
			 0);
	assert_true(replaced);
	assert_int_equal(store_admin_each(admin, name_collect, &all, why), 0);
	assert_string_equal(all.text, "alice bob ");
	assert_int_equal(store_admin_each(admin, name_collect, &one, why), 0);
	assert_int_equal(one.count, 1);
	assert_int_equal(store_admin_remove(admin, &key, why), 0);
	assert_int_equal(store_admin_remove(admin, &key, why), -ENOENT);
	store_admin_close(admin);
	assert_int_equal(ask_for("alice"), 0);
	assert_int_equal(ask_for("bob"), -ENOENT);
}

static void a_file_that_is_not_ours_is_not_changed(void **state)
{
	(void)state;
	file_add(&file, "alice");
	assert_int_equal(chmod(file.path, 0666), 0);
	assert_null(admin_open(true));
	assert_int_equal(chmod(file.path, 0600), 0);
	file_run(&file, "PRAGMA user_version = 2");
	assert_null(admin_open(true));
	file_run(&file, "PRAGMA user_version = 1");
	store_admin_close(admin_open(true));
}

static void urls_are_judged_by_their_form(void **state)
{
	static const char *const good[] = {
		"none",
		"sqlite:/a/b",
		"postgresql://u:p@h/d",
		"postgresql:///d?host=/run&sslmode=disable",
		"redis://h",
		"redis://:p@h:1/2",
		"redis://u:p@[2001:db8::1]:6379/0",
		"redis+unix:///a",
		"redis+unix://u:p%40@/a?db=7",
	};
	static const char *const bad[] = {
		"",
		"nowhere",
		"sqlite:",
		"sqlite:a",
		"http://a/",
		"/a/b",
		"postgresql://h/d?colour=blue",
		"redis://",
		"redis:///1",
		"redis://h:0",
		"redis://h:65536",
		"redis://h:",
		"redis://h/x",
		"redis://h/1/2",
		"redis://u@h",
		"redis://u:@h",
		"redis://u:%0@h",
		"redis://u:%00@h",
		"redis://[::1",
		"redis://[::1]x",
		"redis+unix://a",
		"redis+unix:///a?db=",
		"redis+unix:///a?no=1",
	};

	(void)state;
	for (size_t i = 0; i < sizeof(good) / sizeof(good[0]); i++)
		if (!store_url_ok(good[i]))
			fail_msg("%s", good[i]);
	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
		if (store_url_ok(bad[i]))
			fail_msg("%s", bad[i]);
}

static void a_url_of_redis_is_taken_apart(void **state)
{
	struct redis_url url;

	(void)state;
	assert_int_equal(redis_url_parse("redis://a%3Ab:p%2f@[::1]:7/9", &url),
			 0);
	assert_string_equal(url.user, "a:b");
	assert_string_equal(url.password, "p/");
	assert_string_equal(url.host, "::1");
	assert_int_equal(url.port, 7);
	assert_int_equal(url.db, 9);
	assert_int_equal(redis_url_parse("redis+unix://:p@/a%20b?db=3", &url),
			 0);
	assert_string_equal(url.user, "");
	assert_string_equal(url.password, "p");
	assert_string_equal(url.host, "");
	assert_string_equal(url.path, "/a b");
	assert_int_equal(url.db, 3);
	assert_int_equal(redis_url_parse("redis://h", &url), 0);
	assert_int_equal(url.port, 6379);
	assert_int_equal(url.db, 0);
}

static bool redis_reads(const char *text)
{
	redisReader *reader = redisReaderCreate();
	redisReplyObjectFunctions functions;
	void *reply = NULL;
	bool whole;

	assert_non_null(reader);
	store_redis_bound(reader, &functions);
	assert_int_equal(redisReaderFeed(reader, text, strlen(text)), REDIS_OK);
	whole = redisReaderGetReply(reader, &reply) == REDIS_OK && reply;
	if (whole)
		freeReplyObject(reply);
	redisReaderFree(reader);
	return whole;
}

static void answers_of_redis_have_the_shape_of_ours(void **state)
{
	(void)state;
	assert_true(redis_reads("+OK\r\n"));
	assert_true(redis_reads("*3\r\n$1\r\na\r\n$-1\r\n$1\r\nb\r\n"));
	assert_false(redis_reads("*9\r\n:1\r\n:2\r\n:3\r\n:4\r\n:5\r\n:6\r\n"
				 ":7\r\n:8\r\n:9\r\n"));
	/* Eight of eight of eight and so on are very many. */
	assert_false(redis_reads("*1\r\n*1\r\n:1\r\n"));
}

/* Nobody is let in, and nobody waits for nothing. */
static void a_server_that_is_not_there_is_left_alone_for_a_while(void **state)
{
	struct store_params wish = params();
	char url[100];

	(void)state;
	snprintf(url, sizeof(url), "redis+unix://%s/nothing", file.dir);
	wish.url = url;
	configure(&wish);
	assert_int_equal(ask_for("alice"), -EIO);
	assert_int_equal(ask_for("alice"), -EHOSTDOWN);
	assert_int_equal(known("alice"), -EAGAIN);
	UNTIL(loop, ask_for("alice") == -EIO);
}

/* Whatever runs out of memory, every question has its answer. */
static void once_without_memory(void *arg)
{
	struct store_params wish = params();
	struct store_ask ask = { .key = key_of("alice") };
	struct store *mine;

	(void)arg;
	if (store_new(&mine))
		return;
	if (!store_configure(mine, &wish)) {
		store_ask(mine, &ask, loop, answered);
		UNTIL(loop, ask.answered);
		assert_true(failalloc_hit() || ask.result == 0);
	}
	store_free(mine);
}

static void survives_lack_of_memory(void **state)
{
	(void)state;
	file_add(&file, "alice");
	assert_in_range(failalloc_sweep(once_without_memory, NULL), 8, 1000);
}

#define CASE(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		CASE(who_was_asked_for_is_known),
		CASE(who_is_not_there_is_known_not_to_be),
		CASE(the_same_name_of_another_realm_is_another),
		CASE(a_file_that_is_missing_has_nobody),
		CASE(a_file_that_was_replaced_is_read),
		CASE(a_file_that_others_may_write_to_lets_nobody_in),
		CASE(what_is_no_user_database_is_a_failure),
		CASE(a_row_that_is_malformed_is_a_failure),
		CASE(a_locked_file_is_waited_for),
		CASE(a_file_that_stays_locked_is_given_up),
		CASE(an_answer_from_before_a_change_is_not_kept),
		CASE(names_that_do_not_exist_push_out_their_like),
		CASE(the_longest_unused_is_pushed_out),
		CASE(what_is_remembered_expires),
		CASE(another_configuration_begins_anew),
		CASE(who_waits_at_the_end_is_told),
		CASE(users_are_listed_replaced_and_removed),
		CASE(a_file_that_is_not_ours_is_not_changed),
		CASE(urls_are_judged_by_their_form),
		CASE(a_url_of_redis_is_taken_apart),
		CASE(answers_of_redis_have_the_shape_of_ours),
		CASE(a_server_that_is_not_there_is_left_alone_for_a_while),
		CASE(survives_lack_of_memory),
	};

	return cmocka_run_group_tests_name("store", tests, NULL, NULL);
}
