/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * user add, list, remove: the user database is changed by culvertctl itself, as the
 * configuration says where it is; a daemon that runs is told to forget what it has
 * remembered. What is stored is never the password but its keys.
 */
#include <errno.h>
#include <grp.h>
#include <pwd.h>
#include <stdlib.h>
#include <string.h>
#include <termios.h>
#include <unistd.h>

#include "base/opaque.h"
#include "base/secret.h"
#include "base/utf8.h"
#include "conf/conf.h"
#include "crypto/crypto.h"
#include "ctl/ctl.h"
#include "ctl/grid.h"
#include "store/store.h"
#include "stun/stun.h"

#define PASSWORD_MAX 900 /* bytes, as in culvert.conf(5) */
#define LINE_SIZE    (PASSWORD_MAX + 1) /* with NUL */

/* What a change is about. */
struct job {
	struct ctl *ctl;
	struct conf *conf;
	char *realm,
		*name; /* prepared, as clients send them; name NULL: none */
	struct store_key key;
	struct store_admin *admin;
};

/* A configuration being read; is the file itself what is wrong? */
struct load {
	struct ctl *ctl;
	bool whole;
};

static void conf_complain(void *arg, bool is_error, const char *file,
			  unsigned int line, const char *message)
{
	struct load *load = arg;

	if (!is_error)
		return;
	if (line) {
		ctl_complain(load->ctl, "%s:%u: %s", file, line, message);
	} else {
		load->whole = true;
		ctl_complain(load->ctl, "%s: %s", file, message);
	}
}

int ctl_conf_load(struct ctl *ctl, struct conf **out)
{
	struct load load = { ctl, false };
	int err = conf_load(ctl->config, conf_complain, &load, out, NULL, NULL);

	if (load.whole && err == -ENOENT)
		ctl_complain(ctl, "give the path of culvertd's configuration "
				  "with --config");
	if (load.whole && err == -EACCES)
		ctl_complain(ctl, "try as root, or as the user that culvertd "
				  "was started by");
	return err;
}

static const struct conf_realm *realm_find(const struct conf *conf,
					   const char *name)
{
	for (size_t i = 0; i < conf->realm_count; i++)
		if (!strcmp(conf->realms[i].name, name))
			return &conf->realms[i];
	return NULL;
}

/* Users of a realm that has none in the database would never be found. */
static enum ctl_exit realm_check(struct job *job)
{
	const struct conf_realm *realm = realm_find(job->conf, job->realm);

	if (!realm)
		return ctl_fail(job->ctl,
				"there is no [realm %s] in the configuration",
				job->realm);
	if (realm->secret_count)
		return ctl_fail(job->ctl,
				"realm %s has a secret, by which its users are "
				"made: it has none in the database",
				job->realm);
	return CTL_OK;
}

/* The group that the daemon's relay runs with, for a file that root makes. */
static struct store_owner relay_group(const struct conf *conf)
{
	const struct passwd *entry = getpwnam(conf->user);

	if (!entry)
		entry = getpwnam("nobody");
	return (struct store_owner){
		.set = geteuid() == 0 && entry,
		.gid = entry ? entry->pw_gid : 0,
	};
}

static void job_end(struct job *job)
{
	store_admin_close(job->admin);
	conf_unref(job->conf);
	free(job->realm);
	free(job->name);
}

/* What clients will digest and compare. `what` it is. */
static enum ctl_exit text_prepare(struct ctl *ctl, const char *what,
				  const char *text, char **out)
{
	int err = opaque_prepare(text, out);

	if (err == -ENOMEM)
		return ctl_fail(ctl, "no memory");
	return err ? ctl_fail(ctl, "that is no %s: allowed is " OPAQUE_ALLOWED,
			      what) :
		     CTL_OK;
}

static enum ctl_exit names_prepare(struct job *job)
{
	struct ctl *ctl = job->ctl;
	const char *realm = ctl->realm ? ctl->realm : job->conf->realms[0].name;
	enum ctl_exit code = text_prepare(ctl, "realm", realm, &job->realm);

	if (!code && ctl->id)
		code = text_prepare(ctl, "user name", ctl->id, &job->name);
	return code;
}

/* Reads the configuration and opens the database. */
static enum ctl_exit job_begin(struct job *job, struct ctl *ctl, bool make)
{
	struct store_owner owner;
	char why[STORE_WHY_SIZE];
	enum ctl_exit code;
	int err;

	*job = (struct job){ .ctl = ctl };
	if (ctl_conf_load(ctl, &job->conf))
		return CTL_FAILED;
	code = names_prepare(job);
	owner = relay_group(job->conf);
	if (!code) {
		err = store_admin_open(job->conf->database.url, &owner, make,
				       &job->admin, why);
		if (err)
			code = ctl_fail(
				ctl, "the user database: %s%s", why,
				err == -ENOENT && !make ?
					"; culvertctl user add makes it" :
					"");
	}
	if (code)
		job_end(job);
	return code;
}

static enum ctl_exit key_make(struct job *job)
{
	size_t realm_len = strlen(job->realm);

	if (realm_len >= sizeof(job->key.realm) ||
	    stun_userhash(job->name, strlen(job->name), job->realm, realm_len,
			  job->key.hash))
		return ctl_fail(job->ctl, "the name cannot be digested");
	memcpy(job->key.realm, job->realm, realm_len + 1);
	return CTL_OK;
}

/* The daemon of this configuration, if it runs, looks at the database anew. */
static void daemon_tell(struct job *job)
{
	struct ctl *ctl = job->ctl;
	const struct control_request request = { .command = CONTROL_FORGET };
	struct control_answer *answer;
	int err;

	if (!strcmp(ctl->path, CTL_SOCKET))
		ctl->path = job->conf->control;
	err = control_client_new(ctl->path, &ctl->client);
	if (err == -ENOENT || err == -ECONNREFUSED)
		return;
	if (!err)
		err = control_client_ask(ctl->client, &request, CTL_TIMEOUT_MS,
					 &answer);
	if (!err) {
		control_answer_free(answer);
		return;
	}
	ctl_complain(ctl,
		     "culvertd was not told: %s; it sees the change within the "
		     "time of [database] cache",
		     strerror(-err));
}

/* The password's length, or why there is none, as secret_line_read says. */
static ssize_t terminal_ask(struct ctl *ctl, const char *prompt,
			    char line[LINE_SIZE])
{
	struct termios was, hidden;
	ssize_t len;

	if (tcgetattr(STDIN_FILENO, &was) < 0)
		return -errno;
	hidden = was;
	hidden.c_lflag &= ~(tcflag_t)ECHO;
	fputs(prompt, ctl->err);
	fflush(ctl->err);
	tcsetattr(STDIN_FILENO, TCSAFLUSH, &hidden);
	len = secret_line_read(stdin, line, LINE_SIZE);
	tcsetattr(STDIN_FILENO, TCSAFLUSH, &was);
	fputs("\n", ctl->err);
	return len;
}

/* Never an argument, which every user of the system could see. */
static enum ctl_exit password_read(struct ctl *ctl, char line[LINE_SIZE])
{
	char again[LINE_SIZE] = "";
	bool same = true;
	ssize_t len;

	/* It is not to stay in a buffer of stdio's. */
	setvbuf(stdin, NULL, _IONBF, 0);
	if (isatty(STDIN_FILENO)) {
		len = terminal_ask(ctl, "Password: ", line);
		if (len > 0)
			len = terminal_ask(ctl, "Again: ", again);
		same = len <= 0 || !strcmp(line, again);
	} else {
		len = secret_line_read(stdin, line, LINE_SIZE);
	}
	crypto_wipe(again, sizeof(again));
	if (len <= 0)
		return ctl_fail(ctl,
				"no password: %s; standard input's first line "
				"must have 1 to %d bytes",
				len ? secret_line_error(len) : "it is empty",
				PASSWORD_MAX);
	return same ? CTL_OK : ctl_fail(ctl, "the two are not the same");
}

static enum ctl_exit name_check(const struct job *job)
{
	const struct conf *conf = job->conf;
	const char *name = job->name;

	if (!store_name_ok(name, strlen(name)))
		return ctl_fail(job->ctl,
				"that is no user name: allowed are up to %d "
				"bytes of UTF-8 without control characters and "
				"quotation marks",
				STORE_NAME_SIZE - 1);
	for (size_t i = 0; i < conf->user_count; i++)
		if (!strcmp(conf->users[i].name, name) &&
		    !strcmp(conf->users[i].realm, job->realm))
			return ctl_fail(job->ctl,
					"%s of realm %s is in the "
					"configuration, which comes first",
					name, job->realm);
	return CTL_OK;
}

static enum ctl_exit keys_make(const struct job *job, const char *password,
			       struct store_user *user)
{
	if (stun_long_term_key(job->name, job->realm, password, user->md5) ||
	    stun_long_term_key_sha256(job->name, job->realm, password,
				      user->sha256))
		return ctl_fail(job->ctl, "the password cannot be digested");
	return CTL_OK;
}

static enum ctl_exit user_fill(struct job *job, struct store_user *user)
{
	char line[LINE_SIZE] = "", *password = NULL;
	enum ctl_exit code = password_read(job->ctl, line);

	snprintf(user->name, sizeof(user->name), "%s", job->name);
	if (!code)
		code = text_prepare(job->ctl, "password", line, &password);
	if (!code)
		code = keys_make(job, password, user);
	if (password)
		crypto_wipe(password, strlen(password));
	free(password);
	crypto_wipe(line, sizeof(line));
	return code;
}

/* Whoever wrote it: a database need not hold UTF-8. */
static void print_json_string(FILE *out, const char *text)
{
	size_t left = strlen(text), n;

	fputc('"', out);
	for (; left; text += n, left -= n) {
		n = utf8_text_len((const unsigned char *)text, left);
		if (n && *text != '"' && *text != '\\') {
			fwrite(text, 1, n, out);
			continue;
		}
		n = 1;
		fprintf(out, "\\u%04x",
			(unsigned char)*text < 0x80 ? *text : 0xfffd);
	}
	fputc('"', out);
}

/* "done": what was done, to whom. */
static void job_report(const struct job *job, const char *done)
{
	FILE *out = job->ctl->out;

	if (job->ctl->json) {
		fprintf(out, "{\"v\":1,\"%s\":", done);
		print_json_string(out, job->name);
		fputs(",\"realm\":", out);
		print_json_string(out, job->realm);
		fputs("}\n", out);
	} else {
		fprintf(out, "%s %s of realm %s\n", done, job->name,
			job->realm);
	}
}

static enum ctl_exit user_put(struct job *job)
{
	struct store_user user = { 0 };
	char why[STORE_WHY_SIZE];
	bool replaced;
	enum ctl_exit code = user_fill(job, &user);

	if (!code &&
	    store_admin_put(job->admin, &job->key, &user, &replaced, why))
		code = ctl_fail(job->ctl, "the user database: %s", why);
	crypto_wipe(&user, sizeof(user));
	if (code)
		return code;
	daemon_tell(job);
	job_report(job, replaced ? "changed" : "added");
	return CTL_OK;
}

enum ctl_exit ctl_user_add(struct ctl *ctl)
{
	struct job job;
	enum ctl_exit code = job_begin(&job, ctl, true);

	if (code)
		return code;
	code = realm_check(&job);
	if (!code)
		code = name_check(&job);
	if (!code)
		code = key_make(&job);
	if (!code)
		code = user_put(&job);
	job_end(&job);
	return code;
}

static enum ctl_exit user_delete(struct job *job)
{
	char why[STORE_WHY_SIZE];
	int err = store_admin_remove(job->admin, &job->key, why);

	if (err == -ENOENT)
		return ctl_fail(job->ctl, "there is no %s of realm %s",
				job->name, job->realm);
	if (err)
		return ctl_fail(job->ctl, "the user database: %s", why);
	daemon_tell(job);
	job_report(job, "removed");
	return CTL_OK;
}

enum ctl_exit ctl_user_remove(struct ctl *ctl)
{
	struct job job;
	enum ctl_exit code = job_begin(&job, ctl, false);

	if (code)
		return code;
	code = key_make(&job);
	if (!code)
		code = user_delete(&job);
	job_end(&job);
	return code;
}

struct listing {
	struct ctl *ctl;
	const char *realm; /* whose; NULL: all */
	struct grid grid;
	size_t count;
	bool cut; /* there are more than were asked for */
};

static bool list_row(void *arg, const char *realm, const char *name)
{
	struct listing *list = arg;
	FILE *out = list->ctl->out;

	if (list->realm && strcmp(list->realm, realm) != 0)
		return true;
	list->cut = list->count == list->ctl->limit;
	if (list->cut)
		return false;
	if (list->ctl->json) {
		fputs(list->count ? ",{\"realm\":" : "{\"realm\":", out);
		print_json_string(out, realm);
		fputs(",\"user\":", out);
		print_json_string(out, name);
		fputs("}", out);
	} else {
		grid_cell(&list->grid, "%s", realm);
		grid_cell(&list->grid, "%s", name);
	}
	list->count++;
	return true;
}

static enum ctl_exit list_print(struct job *job, struct listing *list)
{
	struct ctl *ctl = job->ctl;
	char why[STORE_WHY_SIZE];
	int err;

	if (ctl->json)
		fputs("{\"v\":1,\"users\":[", ctl->out);
	err = store_admin_each(job->admin, list_row, list, why);
	if (ctl->json)
		fprintf(ctl->out, "],\"more\":%s}\n",
			list->cut ? "true" : "false");
	if (err)
		return ctl_fail(ctl, "the user database: %s", why);
	if (!ctl->json && grid_print(&list->grid, ctl->out))
		return ctl_fail(ctl, "no memory");
	if (!ctl->json && list->cut)
		fprintf(ctl->out, "there are more; --limit N shows them\n");
	return CTL_OK;
}

enum ctl_exit ctl_user_list(struct ctl *ctl)
{
	static const char *const titles[] = { "REALM", "USER" };
	struct listing list = { .ctl = ctl };
	struct job job;
	enum ctl_exit code = job_begin(&job, ctl, false);

	if (code)
		return code;
	if (!ctl->limit)
		ctl->limit = CONTROL_LIMIT_DEFAULT;
	if (ctl->realm)
		list.realm = job.realm;
	grid_init(&list.grid, titles, 2);
	code = list_print(&job, &list);
	grid_free(&list.grid);
	job_end(&job);
	return code;
}
