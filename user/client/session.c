/* SPDX-License-Identifier: BSD-2-Clause */
/* What every subcommand stands on: loop, signals, server, engines, errors. */
#include "client/session.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <unistd.h>

#include "base/fd.h"
#include "client/say.h"
#include "client/turn_client.h"

#define PIPE_SIZE   (1u << 20)
#define PIPES       256
#define COPY_BUFFER (256u << 10)

struct advice {
	int code;
	const char *text;
};

static const struct advice advices[] = {
	{ STUN_CODE_TRY_ALTERNATE,
	  "it was not followed: give that server with -s" },
	{ STUN_CODE_BAD_REQUEST, "does the server speak RFC 6062?" },
	{ STUN_CODE_UNAUTHENTICATED, "check -u and the password" },
	{ STUN_CODE_FORBIDDEN, "the server's policy refuses this; its operator "
			       "can allow it" },
	{ STUN_CODE_ADDRESS_FAMILY_NOT_SUPPORTED,
	  "the server has no relayed address of this family" },
	{ STUN_CODE_WRONG_CREDENTIALS, "check -u and the password" },
	{ STUN_CODE_UNSUPPORTED_TRANSPORT,
	  "the server does not relay TCP (RFC 6062)" },
	{ STUN_CODE_PEER_ADDRESS_FAMILY_MISMATCH,
	  "peer and relayed address must both be IPv4 or both IPv6" },
	{ STUN_CODE_CONNECTION_TIMEOUT_OR_FAILURE,
	  "is the peer listening, and does its firewall let the relay in?" },
	{ STUN_CODE_ALLOCATION_QUOTA_REACHED,
	  "close other allocations of this user, or have its quota raised" },
	{ STUN_CODE_INSUFFICIENT_CAPACITY,
	  "the server is full, drains, or cannot use its relayed address: its log "
	  "says which" },
	{ -ECONNREFUSED, "is the server running, and is this its port?" },
	{ -ETIMEDOUT, "does a firewall drop this, or is the server stuck?" },
	{ -EPROTO, "is this a TURN server's TCP port, or its TLS port with "
		   "--tls?" },
	{ -EBADMSG, "is somebody between you and the server?" },
	{ -EKEYREJECTED, "is somebody between you and the server?" },
	{ -ENOKEY, "give who vouches for it with --ca-file, and its name with "
		   "--tls-name" },
	{ -ENETUNREACH, "there is no route; try -4 or -6" },
	{ -EHOSTUNREACH, "there is no route; try -4 or -6" },
	{ -EMFILE, "raise the limit of open files (ulimit -n)" },
	{ 0, NULL },
};

const char *client_error_advice(int code)
{
	for (const struct advice *at = advices; at->text; at++)
		if (at->code == code)
			return at->text;
	return "";
}

void client_session_error(const struct client_session *session,
			  const char *what, const struct culvert_error *error)
{
	const char *advice = client_error_advice(error->code);
	const char *server = session->server.name;

	if (error->code > 0)
		client_error("%s: server %s: %s: %d %s%s%s", what, server,
			     error->during, error->code, error->reason,
			     *advice ? "; " : "", advice);
	else
		client_error("%s: server %s: %s: %s%s%s", what, server,
			     error->during, error->reason, *advice ? "; " : "",
			     advice);
}

bool client_session_may_tell(struct client_session *session)
{
	uint64_t swallowed = 0;

	if (!log_allow(&session->refusals, loop_now(session->loop), &swallowed))
		return false;
	if (swallowed)
		client_error("%llu more connections were refused",
			     (unsigned long long)swallowed);
	return true;
}

static void signal_ready(struct watch *watch, uint32_t events)
{
	struct client_session *session =
		list_entry(watch, struct client_session, signals);
	struct signalfd_siginfo info;

	(void)events;
	if (read(watch->fd, &info, sizeof(info)) != sizeof(info))
		return;
	/* The second one means now. */
	if (session->stopping || !session->on_stop) {
		client_say_status(NULL);
		_exit(CLIENT_EXIT_FAILURE);
	}
	session->stopping = true;
	session->on_stop(session);
}

static int signals_take(struct client_session *session)
{
	sigset_t set;
	int fd, err;

	sigemptyset(&set);
	sigaddset(&set, SIGINT);
	sigaddset(&set, SIGTERM);
	sigaddset(&set, SIGHUP);
	fd = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
	if (fd < 0)
		return -errno;
	err = watch_add(session->loop, &session->signals, fd, EPOLLIN,
			signal_ready);
	if (err) {
		fd_close(&fd);
		return err;
	}
	sigprocmask(SIG_BLOCK, &set, NULL);
	return 0;
}

static unsigned int least(unsigned int a, uint64_t b)
{
	return b < a ? (unsigned int)b : a;
}

/*
 * Takes as many descriptors as there may be, and shares them out: a quarter for
 * pipes of two ends each, three for a connection (both sides of it, and an
 * allocation or a dial), some for the rest.
 */
static void descriptors_share(struct client_session *session)
{
	struct rlimit limit = { .rlim_cur = 1024 };
	uint64_t all;

	if (!getrlimit(RLIMIT_NOFILE, &limit)) {
		limit.rlim_cur = limit.rlim_max;
		if (setrlimit(RLIMIT_NOFILE, &limit))
			getrlimit(RLIMIT_NOFILE, &limit);
	}
	all = limit.rlim_cur < 48 ? 0 : limit.rlim_cur - 48;
	session->pipes = least(PIPES, all / 8);
	session->connections = least(session->config->connections, all / 4);
	if (!session->connections)
		session->connections = 1;
	if (session->connections < session->config->connections)
		client_debug("%u connections at a time: more descriptors there "
			     "are not (ulimit -n)",
			     session->connections);
}

static int tls_options_check(const struct client_session *session)
{
	const struct client_config *config = session->config;

	if (session->server.tls ||
	    (!config->tls_authorities && !config->tls_name &&
	     !config->tls_unverified))
		return 0;
	client_error("--ca-file, --tls-name and --no-verify are for TLS: give "
		     "--tls, too");
	return -EINVAL;
}

static int server_find(struct client_session *session)
{
	const struct client_config *config = session->config;
	bool plain = strncasecmp(config->server, "turns:", 6) != 0;
	char text[sizeof(session->server.name)];
	int err = -EINVAL;

	/* --tls HOST is turns:HOST; what says turn: must not mean it. */
	if (snprintf(text, sizeof(text), "%s%s",
		     plain && config->tls ? "turns:" : "",
		     config->server) < (int)sizeof(text))
		err = culvert_resolve(text, config->family, &session->server);
	switch (err) {
	case 0:
		return tls_options_check(session);
	case -EINVAL:
		client_error("server %s: HOST[:PORT] or "
			     "turn:HOST[:PORT]?transport=tcp is wanted, or "
			     "turns: for TLS",
			     config->server);
		break;
	case -EPROTONOSUPPORT:
		client_error("server %s: only turn: and turns: over TCP are "
			     "supported",
			     config->server);
		break;
	case -ENOENT:
		client_error("server %s: no such host%s; check the name",
			     config->server,
			     config->family == AF_INET6 ? " with IPv6" :
			     config->family == AF_INET  ? " with IPv4" :
							  "");
		break;
	default:
		client_error("server %s: looking the name up failed: %s; try "
			     "later, or give its address",
			     config->server, strerror(-err));
	}
	return err;
}

int client_session_open(struct client_session *session,
			const struct client_config *config)
{
	int err;

	memset(session, 0, sizeof(*session));
	session->config = config;
	session->signals.fd = -1;
	descriptors_share(session);
	err = server_find(session);
	if (err)
		return err;
	err = culvert_loop_new(&session->library);
	if (err)
		goto fail;
	session->loop = session->library->loop;
	err = signals_take(session);
	if (!err)
		return 0;
	culvert_loop_free(session->library);
fail:
	client_error("starting failed: %s", strerror(-err));
	return err;
}

static void engine_unavailable(void *arg, const char *name, int error)
{
	(void)arg;
	client_debug("engine %s is not available: %s", name, strerror(-error));
}

int client_session_open_engines(struct client_session *session)
{
	const struct engine_params params = {
		.pipe_size = PIPE_SIZE,
		.pipes = session->pipes,
		.copy_buffer = COPY_BUFFER,
	};
	const char *order[] = { "splice", "uring", "copy" };
	size_t count = sizeof(order) / sizeof(order[0]);
	int err;

	if (session->config->engine) {
		order[0] = session->config->engine;
		count = 1;
	}
	err = engine_set_new(session->loop, &params, order, count,
			     engine_unavailable, NULL, &session->engines);
	if (err == -EINVAL)
		client_error("--engine %s: splice, uring or copy is wanted",
			     order[0]);
	else if (err)
		client_error(
			"no engine can carry bytes here (%s); try --engine "
			"copy",
			strerror(-err));
	return err;
}

void client_session_close(struct client_session *session)
{
	int fd = session->signals.fd;

	watch_del(session->loop, &session->signals);
	fd_close(&fd);
	engine_set_free(session->engines);
	culvert_loop_free(session->library);
}

enum client_exit client_exit_for(int error)
{
	if (!error)
		return CLIENT_EXIT_OK;
	return error == -EINVAL || error == -EPROTONOSUPPORT ?
		       CLIENT_EXIT_USAGE :
		       CLIENT_EXIT_FAILURE;
}

enum client_exit client_session_run(struct client_session *session)
{
	int err = 0;

	while (!session->done && !err)
		err = culvert_loop_dispatch(session->library, -1);
	if (err) {
		client_error("waiting for events failed: %s", strerror(-err));
		return CLIENT_EXIT_FAILURE;
	}
	return session->result;
}

void client_session_finish(struct client_session *session,
			   enum client_exit result)
{
	if (session->done)
		return;
	session->done = true;
	session->result = result;
}

void client_session_options(const struct client_session *session, int family,
			    struct culvert_options *out)
{
	const struct client_config *config = session->config;

	*out = (struct culvert_options){
		.server = &session->server,
		.user = config->user,
		.password = config->has_password ? config->password : NULL,
		.family = family,
		.tls_authorities = config->tls_authorities,
		.tls_name = config->tls_name,
		.tls_unverified = config->tls_unverified,
		.lifetime_s = config->lifetime_s,
		.dial_timeout_ms = config->timeout_s * 1000,
		.request_timeout_ms = config->timeout_s * 1000,
	};
}
