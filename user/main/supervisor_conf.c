/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Loading the configuration whole: the file, the certificates and keys it names,
 * and whether TLS can be spoken with them. What is wrong is told by file and line
 * of the configuration before any of it is used.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include "crypto/crypto.h"
#include "main/supervisor_internal.h"
#include "store/store.h"
#include "turn/turn.h"

#define DAY_S     86400
#define WARN_DAYS 14

struct check {
	const char *path; /* of the configuration */
	conf_report_fn report;
	void *arg;
	const struct conf_listener *listener;
};

static const char *date_format(int64_t when, char out[32])
{
	time_t seconds = (time_t)when;
	struct tm date;

	if (!gmtime_r(&seconds, &date) ||
	    !strftime(out, 32, "%Y-%m-%d %H:%M UTC", &date))
		snprintf(out, 32, "long ago");
	return out;
}

/* Which key the fault is about, and with that which line and file. */
static void fault_report(const struct check *check,
			 const struct tls_fault *fault)
{
	const struct conf_listener *l = check->listener;
	const char *key = "transport", *found = "TLS";
	char message[600];
	unsigned int line = 0;

	switch (fault->part) {
	case TLS_PART_CERTIFICATE:
		key = "certificate";
		line = l->certificate_line;
		found = l->certificates[fault->pair].path;
		break;
	case TLS_PART_KEY:
		key = "private_key";
		line = l->private_key_line;
		found = l->private_keys[fault->pair].path;
		break;
	case TLS_PART_CIPHERS:
		key = "ciphers";
		line = l->ciphers_line;
		found = l->ciphers;
		break;
	case TLS_PART_OTHER:
		break;
	}
	snprintf(message, sizeof(message),
		 "[listener %s] %s: found \"%.200s\", but %s", l->name, key,
		 found, fault->text);
	check->report(check->arg, true, check->path, line, message);
}

/* A server goes on with an expired certificate, but somebody should know. */
static void expiry_report(const struct check *check,
			  const struct tls_server *server)
{
	const struct conf_listener *l = check->listener;
	int64_t now = (int64_t)time(NULL);
	char message[400], date[32];

	for (size_t i = 0; i < l->certificate_count; i++) {
		int64_t end = tls_server_expires(server, i);

		if (end > now + WARN_DAYS * DAY_S)
			continue;
		snprintf(
			message, sizeof(message),
			"[listener %s] certificate: \"%.200s\" %s on %s: renew "
			"it and reload",
			l->name, l->certificates[i].path,
			end <= now ? "has expired" : "expires",
			date_format(end, date));
		check->report(check->arg, false, check->path,
			      l->certificate_line, message);
	}
}

static int listener_check(const struct check *check)
{
	struct tls_server *server;
	struct tls_fault fault;
	int err = turn_listener_tls(check->listener, &server, &fault);

	if (err == -EINVAL)
		fault_report(check, &fault);
	else if (err)
		check->report(check->arg, true, check->path, 0,
			      "out of memory");
	else if (server)
		expiry_report(check, server);
	if (!err)
		tls_server_unref(server);
	return err;
}

/* It is not shown: there may be a password in it. */
static int database_check(const struct check *check, const struct conf *conf)
{
	if (store_url_ok(conf->database.url))
		return 0;
	check->report(
		check->arg, true, check->path, conf->database.url_line,
		"[database] url: found what is none (not shown); allowed: " STORE_URLS);
	return -EINVAL;
}

int supervisor_load(const char *path, conf_report_fn report, void *arg,
		    struct conf **out, char **text, size_t *len)
{
	struct check check = { path, report, arg, NULL };
	struct conf *conf;
	int err = conf_load(path, report, arg, &conf, text, len);

	if (err)
		return err;
	err = database_check(&check, conf);
	for (size_t i = 0; i < conf->listener_count; i++) {
		int wrong;

		check.listener = &conf->listeners[i];
		wrong = listener_check(&check);
		err = err ? err : wrong;
	}
	if (!err) {
		*out = conf;
		return 0;
	}
	conf_unref(conf);
	if (text) {
		crypto_wipe(*text, *len);
		free(*text);
		*text = NULL;
	}
	return err;
}
