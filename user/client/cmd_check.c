/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * culvert check: does this server work?
 *
 * One step after the other, each waiting for its outcome while the loop runs. A
 * step that fails ends those that need it. Two allocations are made: `callee` gets
 * a permission and a connection, `caller` makes it, so that every byte passes the
 * relay twice and nothing but the server is needed.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/fd.h"
#include "base/random.h"
#include "client/check_stream.h"
#include "client/report.h"
#include "client/say.h"
#include "client/session.h"
#include "client/turn_client.h"

#define MARGIN_MS 1000 /* the library's own time limits strike first */
#define ROUNDS    64

/* One client of the check and what has happened to it. */
struct side {
	struct check *check;
	struct culvert_client *client;
	bool connected, ready, ended, answered;
	bool failed; /* failure tells */
	struct client_failure failure;
	union addr mapped;
	int fd; /* the data connection; -1 */
};

struct check {
	struct client_session session;
	struct client_report report;
	struct side callee, caller, other;
	int family; /* of callee and caller */
};

static double ms_since(uint64_t start_ns)
{
	return (double)(clock_ns() - start_ns) / 1e6;
}

static void side_fail(struct side *side, const struct culvert_error *error)
{
	side->failed = true;
	client_failure_set(&side->failure, error->code, error->during, "%s",
			   error->reason);
}

/* ---- Callbacks: note, and let the step that waits look ---- */

static void on_connected(void *arg)
{
	((struct side *)arg)->connected = true;
}

static void on_ready(void *arg)
{
	((struct side *)arg)->ready = true;
}

static void on_ended(void *arg, const struct culvert_error *error)
{
	struct side *side = arg;

	side->ended = true;
	if (error)
		side_fail(side, error);
}

static void on_answer(void *arg, const struct culvert_error *error)
{
	struct side *side = arg;

	side->answered = true;
	if (error)
		side_fail(side, error);
}

static void on_binding(void *arg, const struct culvert_error *error,
		       const struct sockaddr *mapped)
{
	struct side *side = arg;

	on_answer(arg, error);
	if (mapped)
		client_addr_take(&side->mapped, mapped);
}

static void stream_keep(struct side *side, const struct culvert_stream *stream)
{
	int fd = stream->fd;

	/* Nobody has sent anything yet: early bytes are the server's. */
	if (side->fd >= 0 || stream->early_len) {
		fd_close(&fd);
		return;
	}
	side->fd = fd;
}

static void on_connect(void *arg, const struct culvert_error *error,
		       const struct culvert_stream *stream)
{
	on_answer(arg, error);
	if (stream)
		stream_keep(arg, stream);
}

static void on_accepted(void *arg, const struct culvert_stream *stream)
{
	stream_keep(arg, stream);
}

static void on_attempt_failed(void *arg, const struct sockaddr *peer,
			      const struct culvert_error *error)
{
	(void)peer;
	side_fail(arg, error);
}

static void on_stop(struct client_session *session)
{
	client_session_finish(session, CLIENT_EXIT_FAILURE);
}

/* Runs the loop until *flag, the client's end, or the time limit. */
static bool side_wait(struct side *side, const bool *flag)
{
	struct client_session *session = &side->check->session;
	uint64_t until = clock_ms() + MARGIN_MS +
			 (uint64_t)session->config->timeout_s * 1000;

	while (!*flag && !side->failed && !side->ended && !session->done &&
	       clock_ms() < until)
		if (culvert_loop_dispatch(session->library,
					  (int)(until - clock_ms())))
			break;
	return *flag && !side->failed;
}

static int side_open(struct check *check, struct side *side, int family)
{
	static const struct culvert_events events = {
		.connected = on_connected,
		.ready = on_ready,
		.accepted = on_accepted,
		.attempt_failed = on_attempt_failed,
		.ended = on_ended,
	};
	struct culvert_options options;

	side->check = check;
	side->fd = -1;
	client_session_options(&check->session, family, &options);
	options.manual = true;
	return culvert_client_new(check->session.library, &options, &events,
				  side, &side->client);
}

/* ---- Findings ---- */

static void add_error(struct check *check, const char *name,
		      enum client_finding finding, const struct side *side)
{
	const struct culvert_error *error = &side->failure.error;

	if (!side->failed)
		client_report_add(&check->report, name, finding, -1,
				  client_error_advice(-ETIMEDOUT),
				  "nothing came in time");
	else if (error->code > 0)
		client_report_add(&check->report, name, finding, -1,
				  client_error_advice(error->code), "%s: %d %s",
				  error->during, error->code, error->reason);
	else
		client_report_add(&check->report, name, finding, -1,
				  client_error_advice(error->code), "%s: %s",
				  error->during, error->reason);
}

/* ---- Steps; each returns whether those that need it may follow ---- */

static bool step_reach(struct check *check)
{
	struct side *side = &check->callee;
	uint64_t start = clock_ns();
	struct culvert_info info;
	char addr[ADDR_STRLEN];
	int err = side_open(check, side, check->family);

	if (err) {
		client_report_add(&check->report, "reach", CLIENT_FINDING_FAIL,
				  -1, "", "%s", strerror(-err));
		return false;
	}
	if (!side_wait(side, &side->connected)) {
		add_error(check, "reach", CLIENT_FINDING_FAIL, side);
		return false;
	}
	culvert_client_info(side->client, &info);
	client_report_add(&check->report, "reach", CLIENT_FINDING_OK,
			  ms_since(start), "", "connected to %s in %.2f ms",
			  addr_format((union addr *)&info.server, addr),
			  ms_since(start));
	return true;
}

static bool step_binding(struct check *check)
{
	struct side *side = &check->callee;
	uint64_t start = clock_ns();
	struct culvert_info info;
	char addr[ADDR_STRLEN];

	side->answered = false;
	if (culvert_client_binding(side->client, on_binding, side) ||
	    !side_wait(side, &side->answered)) {
		add_error(check, "binding", CLIENT_FINDING_FAIL, side);
		return false;
	}
	culvert_client_info(side->client, &info);
	client_report_add(&check->report, "binding", CLIENT_FINDING_OK,
			  ms_since(start), "",
			  "answered in %.2f ms, sees you as %s%s%s",
			  ms_since(start), addr_format(&side->mapped, addr),
			  *info.software ? ", software " : "", info.software);
	return true;
}

static void add_login(struct check *check, const struct side *side)
{
	const char *user = check->session.config->user;
	struct culvert_info info;

	culvert_client_info(side->client, &info);
	if (side->failed &&
	    (side->failure.error.code == STUN_CODE_UNAUTHENTICATED ||
	     side->failure.error.code == STUN_CODE_WRONG_CREDENTIALS))
		client_report_add(&check->report, "login", CLIENT_FINDING_FAIL,
				  -1,
				  user ? "check -u and the password" :
					 "give -u and --password-file",
				  "%s", side->failure.error.reason);
	else if (*info.realm)
		client_report_add(&check->report, "login", CLIENT_FINDING_OK,
				  -1, "", "user %s, realm %s", user,
				  info.realm);
	else if (side->ready)
		client_report_add(&check->report, "login", CLIENT_FINDING_WARN,
				  -1, "its operator should ask for credentials",
				  "the server relays for anybody");
}

static bool step_allocate(struct check *check)
{
	struct side *side = &check->callee;
	uint64_t start = clock_ns();
	struct culvert_info info;
	char addr[ADDR_STRLEN];
	bool ok = !culvert_client_allocate(side->client) &&
		  side_wait(side, &side->ready);
	double ms = ms_since(start);

	add_login(check, side);
	if (!ok) {
		add_error(check, "allocation", CLIENT_FINDING_FAIL, side);
		return false;
	}
	culvert_client_info(side->client, &info);
	client_report_add(&check->report, "allocation", CLIENT_FINDING_OK, ms,
			  "", "TCP, relayed %s for %u s, in %.2f ms",
			  addr_format((union addr *)&info.relayed, addr),
			  info.lifetime_s, ms);
	return true;
}

/* An allocation that runs through by itself. */
static bool side_allocate(struct check *check, struct side *side, int family)
{
	return !side_open(check, side, family) &&
	       side_wait(side, &side->connected) &&
	       !culvert_client_allocate(side->client) &&
	       side_wait(side, &side->ready);
}

/* The other address family is a luxury: its absence is no fault. */
static void step_other_family(struct check *check)
{
	int family = check->family == AF_INET ? AF_INET6 : AF_INET;
	const char *name = family == AF_INET6 ? "ipv6" : "ipv4";
	struct side *side = &check->other;
	struct culvert_info info;
	char addr[ADDR_STRLEN];

	if (side_allocate(check, side, family)) {
		culvert_client_info(side->client, &info);
		client_report_add(&check->report, name, CLIENT_FINDING_OK, -1,
				  "", "relayed %s",
				  addr_format((union addr *)&info.relayed,
					      addr));
	} else {
		add_error(check, name, CLIENT_FINDING_SKIP, side);
	}
	culvert_client_free(side->client);
	side->client = NULL;
}

static void relayed_get(const struct side *side, union addr *out)
{
	struct culvert_info info;

	culvert_client_info(side->client, &info);
	memcpy(out, &info.relayed, sizeof(*out));
}

/* The answer to a request about a peer: a refusal by policy is no fault. */
static enum client_finding refusal_finding(const struct side *side)
{
	if (side->failed && side->failure.error.code == STUN_CODE_FORBIDDEN)
		return CLIENT_FINDING_SKIP;
	return CLIENT_FINDING_FAIL;
}

static bool step_permission(struct check *check)
{
	struct side *side = &check->callee;
	char addr[ADDR_STRLEN];
	union addr peer;

	if (!side_allocate(check, &check->caller, check->family)) {
		add_error(check, "second", CLIENT_FINDING_FAIL, &check->caller);
		return false;
	}
	relayed_get(&check->caller, &peer);
	side->answered = false;
	if (culvert_client_permit(side->client, &peer.sa, on_answer, side) ||
	    !side_wait(side, &side->answered)) {
		add_error(check, "permission", refusal_finding(side), side);
		return false;
	}
	client_report_add(&check->report, "permission", CLIENT_FINDING_OK, -1,
			  "", "%s may connect", addr_format_host(&peer, addr));
	return true;
}

static bool callee_accepted(struct check *check)
{
	struct side *side = &check->callee;
	bool accepted = side->fd >= 0;
	uint64_t until = clock_ms() + MARGIN_MS +
			 (uint64_t)check->session.config->timeout_s * 1000;

	while (!accepted && !side->failed && !side->ended &&
	       !check->session.done && clock_ms() < until) {
		if (culvert_loop_dispatch(check->session.library,
					  (int)(until - clock_ms())))
			break;
		accepted = side->fd >= 0;
	}
	return accepted;
}

static bool step_connect(struct check *check)
{
	struct side *caller = &check->caller;
	uint64_t start = clock_ns();
	char addr[ADDR_STRLEN];
	union addr peer;

	relayed_get(&check->callee, &peer);
	caller->answered = false;
	if (culvert_client_connect(caller->client, &peer.sa, on_connect,
				   caller) ||
	    !side_wait(caller, &caller->answered) || caller->fd < 0) {
		add_error(check, "connect", refusal_finding(caller), caller);
		return false;
	}
	if (!callee_accepted(check)) {
		add_error(check, "attempt", CLIENT_FINDING_FAIL,
			  &check->callee);
		return false;
	}
	client_report_add(&check->report, "connect", CLIENT_FINDING_OK,
			  ms_since(start), "",
			  "relay to relay to %s, both ends bound, in %.2f ms",
			  addr_format(&peer, addr), ms_since(start));
	return true;
}

static bool step_echo(struct check *check)
{
	int timeout_ms = (int)check->session.config->timeout_s * 1000;
	struct client_echo echo;
	int err = client_check_echo(check->session.library, check->caller.fd,
				    check->callee.fd, ROUNDS, timeout_ms,
				    &echo);

	if (err) {
		client_report_add(&check->report, "data", CLIENT_FINDING_FAIL,
				  -1, "the server does not carry data whole",
				  "after %zu bytes each way: %s", echo.bytes,
				  err == -EBADMSG ? "other bytes came back" :
						    strerror(-err));
		return false;
	}
	client_report_add(&check->report, "data", CLIENT_FINDING_OK,
			  echo.p50_ms, "",
			  "%zu KiB echoed whole, round trip p50 %.3f ms, "
			  "worst %.3f ms",
			  echo.bytes / 1024, echo.p50_ms, echo.worst_ms);
	return true;
}

static void step_half_close(struct check *check)
{
	int timeout_ms = (int)check->session.config->timeout_s * 1000;
	int err = client_check_half_close(check->session.library,
					  check->caller.fd, check->callee.fd,
					  timeout_ms);

	if (!err)
		client_report_add(&check->report, "half-close",
				  CLIENT_FINDING_OK, -1, "",
				  "the answer comes after the question's end");
	else
		client_report_add(&check->report, "half-close",
				  CLIENT_FINDING_FAIL, -1,
				  "use the server only where no side ends its "
				  "stream first",
				  "what is sent after the other side's end of "
				  "stream is lost: %s",
				  strerror(-err));
}

static void step_loopback(struct check *check)
{
	struct side *side = &check->callee;
	union addr loopback, relayed;

	addr_parse(check->family == AF_INET6 ? "::1" : "127.0.0.1", 0,
		   &loopback);
	relayed_get(side, &relayed);
	if (addr_same_host(&loopback, &relayed)) {
		client_report_add(&check->report, "loopback",
				  CLIENT_FINDING_SKIP, -1, "",
				  "the relayed address is loopback itself");
		return;
	}
	side->answered = side->failed = false;
	if (culvert_client_permit(side->client, &loopback.sa, on_answer, side))
		return;
	if (side_wait(side, &side->answered))
		client_report_add(&check->report, "loopback",
				  CLIENT_FINDING_WARN, -1,
				  "its operator should refuse 127.0.0.0/8 and "
				  "::1 as peers",
				  "the server lets users reach its own "
				  "loopback services");
	else if (side->failed && side->failure.error.code > 0)
		client_report_add(&check->report, "loopback", CLIENT_FINDING_OK,
				  -1, "", "refused as a peer (%d)",
				  side->failure.error.code);
	else
		add_error(check, "loopback", CLIENT_FINDING_FAIL, side);
}

static void check_steps(struct check *check)
{
	if (!step_reach(check) || !step_binding(check) || !step_allocate(check))
		return;
	step_other_family(check);
	if (step_permission(check) && step_connect(check) && step_echo(check))
		step_half_close(check);
	if (!check->callee.ended)
		step_loopback(check);
}

/* Gives the allocations back before the next step of the user's. */
static void check_close(struct check *check)
{
	struct side *sides[] = { &check->callee, &check->caller };

	for (size_t i = 0; i < 2; i++) {
		struct side *side = sides[i];

		fd_close(&side->fd);
		if (side->client && !side->ended) {
			side->failed = false;
			culvert_client_close(side->client);
			side_wait(side, &side->ended);
		}
		culvert_client_free(side->client);
	}
	client_session_close(&check->session);
}

enum client_exit client_cmd_check(const struct client_config *config)
{
	struct check check;
	bool failed;
	int err;

	memset(&check, 0, sizeof(check));
	check.callee.fd = check.caller.fd = check.other.fd = -1;
	check.family = config->family == AF_INET6 ? AF_INET6 : AF_INET;
	err = client_session_open(&check.session, config);
	if (err)
		return client_exit_for(err);
	check.session.on_stop = on_stop;
	client_report_start(&check.report, check.session.server.name,
			    config->json);
	check_steps(&check);
	if (check.session.done) {
		client_error("check: interrupted");
		failed = true;
	} else {
		client_report_end(&check.report);
		failed = client_report_failed(&check.report);
	}
	check_close(&check);
	return failed ? CLIENT_EXIT_FAILURE : CLIENT_EXIT_OK;
}
