/* SPDX-License-Identifier: BSD-2-Clause */
/* A configuration's life: loading the file, references, the end. */
#include "conf/conf.h"

#include <errno.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/fd.h"
#include "base/syscalls.h"
#include "conf/parser.h"

SYSCALLS(SYSCALLS_SUPERVISOR, "openat newfstatat fstat read");

#define FILE_MAX_BYTES ((size_t)4 << 20)

/* Reads up to one byte more than allowed. Returns the length or -errno. */
static ssize_t text_read(int fd, char *text, size_t max)
{
	size_t len = 0;

	while (len < max + 1) {
		ssize_t n = read(fd, text + len, max + 1 - len);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return -errno;
		if (n == 0)
			break;
		len += (size_t)n;
	}
	return len > max ? -EFBIG : (ssize_t)len;
}

int conf_file_read(const char *path, size_t max, char **text, size_t *len,
		   mode_t *mode)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY);
	struct stat st;
	ssize_t n;
	char *buf;

	if (fd < 0)
		return -errno;
	/* Passwords must not stay behind in a block that realloc() left. */
	buf = malloc(max + 2);
	if (!buf) {
		fd_close(&fd);
		return -ENOMEM;
	}
	*mode = fstat(fd, &st) ? 0 : st.st_mode;
	n = text_read(fd, buf, max);
	fd_close(&fd);
	if (n < 0) {
		explicit_bzero(buf, max + 2);
		free(buf);
		return (int)n;
	}
	buf[n] = '\0';
	*text = buf;
	*len = (size_t)n;
	return 0;
}

static void file_refuse(const char *path, int err, conf_report_fn report,
			void *arg)
{
	char message[200];

	if (err == -EFBIG)
		snprintf(message, sizeof(message),
			 "found more than %zu bytes; allowed: up to that",
			 FILE_MAX_BYTES);
	else
		snprintf(message, sizeof(message), "cannot be read: %s",
			 strerror(-err));
	report(arg, true, path, 0, message);
}

static void mode_check(const char *path, const struct conf *conf, mode_t mode,
		       conf_report_fn report, void *arg)
{
	bool secret = conf->user_count;

	for (size_t i = 0; i < conf->realm_count; i++)
		secret |= conf->realms[i].secret_count ||
			  conf->realms[i].oauth_key_count;
	if (secret && S_ISREG(mode) && mode & S_IROTH)
		report(arg, false, path, 0,
		       "every user of this system can read the passwords in "
		       "this file: chmod o-r it");
}

int conf_load(const char *path, conf_report_fn report, void *arg,
	      struct conf **out, char **text_out, size_t *text_len)
{
	struct conf *conf;
	char *text = NULL;
	size_t len = 0;
	mode_t mode = 0;
	int err = conf_file_read(path, FILE_MAX_BYTES, &text, &len, &mode);

	if (err) {
		file_refuse(path, err, report, arg);
		return err;
	}
	err = conf_parse(text, len, path, report, arg, &conf);
	if (!err) {
		err = conf_files_read(conf, path, report, arg);
		if (err)
			conf_unref(conf);
	}
	if (!err) {
		mode_check(path, conf, mode, report, arg);
		conf_exits_look(conf, path, report, arg);
		*out = conf;
	}
	if (!err && text_out) {
		*text_out = text;
		if (text_len)
			*text_len = len;
		return 0;
	}
	if (text)
		explicit_bzero(text, len);
	free(text);
	return err;
}

void conf_secret_free(char *secret)
{
	if (secret)
		explicit_bzero(secret, strlen(secret));
	free(secret);
}

bool conf_database_wanted(const struct conf *conf)
{
	return strcmp(conf->database.url, "none") != 0;
}

const char *conf_database_file(const struct conf *conf)
{
	static const char scheme[] = "sqlite:";
	const char *url = conf->database.url;

	return strncmp(url, scheme, strlen(scheme)) == 0 ?
		       url + strlen(scheme) :
		       NULL;
}

bool conf_database_remote(const struct conf *conf)
{
	return conf_database_wanted(conf) && !conf_database_file(conf);
}

void conf_database_forget(struct conf *conf)
{
	static const char none[] = "none";
	char *url = conf->database.url;
	size_t len = strlen(url);

	explicit_bzero(url, len);
	if (len >= sizeof(none) - 1)
		memcpy(url, none, sizeof(none) - 1);
}

struct conf *conf_ref(struct conf *conf)
{
	atomic_fetch_add_explicit(&conf->refs, 1, memory_order_relaxed);
	return conf;
}

static void names_free(char *const *names, size_t count)
{
	for (size_t i = 0; i < count; i++)
		free(names[i]);
}

static bool engines_name(char *const *order, size_t count, const char *name)
{
	for (size_t i = 0; i < count; i++)
		if (!strcmp(order[i], name))
			return true;
	return false;
}

static bool tls_wanted(const struct conf *conf)
{
	for (size_t i = 0; i < conf->listener_count; i++)
		if (conf->listeners[i].transport == CONF_TRANSPORT_TLS)
			return true;
	return false;
}

/* What has a rate is for copy, too, where the order names sockmap alone. */
static bool rates_wanted(const struct conf *conf)
{
	const struct conf_realm *realms = conf->realms;
	const struct conf_user *users = conf->users;

	for (size_t i = 0; i < conf->realm_count; i++)
		if (realms[i].quota.bandwidth || realms[i].per_user.bandwidth ||
		    realms[i].per_user.allocation_bandwidth)
			return true;
	for (size_t i = 0; i < conf->user_count; i++)
		if (users[i].quota.bandwidth ||
		    users[i].quota.allocation_bandwidth)
			return true;
	return false;
}

bool conf_engine_wanted(const struct conf *conf, const char *name)
{
	const struct conf_engines *pinned;

	if (!strcmp(name, "wire") && conf->engine.wire == CONF_WIRE_NEVER)
		return false;
	if (engines_name(conf->engine.order, conf->engine.order_count, name) ||
	    (!strcmp(name, "copy") && (tls_wanted(conf) || rates_wanted(conf))))
		return true;
	for (size_t i = 0; i < conf->realm_count; i++) {
		pinned = &conf->realms[i].engines;
		if (engines_name(pinned->order, pinned->count, name))
			return true;
	}
	for (size_t i = 0; i < conf->user_count; i++) {
		pinned = &conf->users[i].engines;
		if (engines_name(pinned->order, pinned->count, name))
			return true;
	}
	for (size_t i = 0; i < conf->exit_count; i++) {
		pinned = &conf->exits[i].engines;
		if (engines_name(pinned->order, pinned->count, name))
			return true;
	}
	return false;
}

static void rules_free(struct conf_rules *rules)
{
	free(rules->allow);
	free(rules->deny);
}

static void listeners_free(struct conf *conf)
{
	for (size_t i = 0; i < conf->listener_count; i++) {
		struct conf_listener *listener = &conf->listeners[i];

		free(listener->name);
		free(listener->addresses);
		free(listener->alternates);
		free(listener->proxies);
		free(listener->realm);
		free(listener->ciphers);
		conf_files_free(listener->certificates,
				listener->certificate_count);
		conf_files_free(listener->private_keys,
				listener->private_key_count);
	}
	free(conf->listeners);
}

static void user_forget(struct conf_user *user)
{
	conf_secret_free(user->password);
	user->password = NULL;
	explicit_bzero(&user->ha1, sizeof(user->ha1));
}

static void realm_forget(struct conf_realm *realm)
{
	for (size_t i = 0; i < realm->secret_count; i++) {
		conf_secret_free(realm->secrets[i]);
		realm->secrets[i] = NULL;
	}
	realm->secret_count = 0;
	for (size_t i = 0; i < realm->oauth_key_count; i++) {
		conf_secret_free(realm->oauth_keys[i]);
		realm->oauth_keys[i] = NULL;
	}
	realm->oauth_key_count = 0;
}

void conf_secrets_forget(struct conf *conf)
{
	conf_files_forget(conf);
	for (size_t i = 0; i < conf->user_count; i++)
		user_forget(&conf->users[i]);
	for (size_t i = 0; i < conf->realm_count; i++)
		realm_forget(&conf->realms[i]);
}

static void users_free(struct conf *conf)
{
	for (size_t i = 0; i < conf->user_count; i++) {
		free(conf->users[i].name);
		free(conf->users[i].realm);
		user_forget(&conf->users[i]);
		rules_free(&conf->users[i].rules);
		names_free(conf->users[i].engines.order,
			   conf->users[i].engines.count);
	}
	free(conf->users);
}

static void alternates_free(struct conf *conf)
{
	for (size_t i = 0; i < conf->alternate_count; i++) {
		free(conf->alternates[i].name);
		free(conf->alternates[i].addresses);
		free(conf->alternates[i].domain);
	}
	free(conf->alternates);
}

static void exits_free(struct conf *conf)
{
	for (size_t i = 0; i < conf->exit_count; i++) {
		struct conf_exit *exit = &conf->exits[i];

		free(exit->name);
		free(exit->link);
		free(exit->next_hops);
		free(exit->prefixes);
		free(exit->authorised);
		free(exit->anycast);
		free(exit->tunnel_peers);
		free(exit->discovery_hosts);
		names_free(exit->engines.order, exit->engines.count);
	}
	free(conf->exits);
	free(conf->sources);
}

void conf_unref(struct conf *conf)
{
	if (!conf || atomic_fetch_sub_explicit(&conf->refs, 1,
					       memory_order_acq_rel) != 1)
		return;
	listeners_free(conf);
	users_free(conf);
	exits_free(conf);
	alternates_free(conf);
	for (size_t i = 0; i < conf->realm_count; i++) {
		free(conf->realms[i].oauth);
		free(conf->realms[i].name);
		realm_forget(&conf->realms[i]);
		rules_free(&conf->realms[i].rules);
		names_free(conf->realms[i].engines.order,
			   conf->realms[i].engines.count);
	}
	free(conf->realms);
	names_free(conf->engine.order, conf->engine.order_count);
	names_free(conf->engine.wire_devices, conf->engine.wire_device_count);
	free(conf->engine.pin);
	conf_secret_free(conf->database.url);
	free(conf->relay.addresses);
	rules_free(&conf->peers.rules);
	free(conf->peers.nat64);
	free(conf->user);
	free(conf->control);
	free(conf);
}
