/* SPDX-License-Identifier: BSD-2-Clause */
/* The findings of `culvert check`, for people and as JSON. */
#ifndef CLIENT_REPORT_H
#define CLIENT_REPORT_H

#include <stdbool.h>
#include <stddef.h>

enum client_finding {
	CLIENT_FINDING_OK,
	CLIENT_FINDING_WARN, /* it works; somebody should know */
	CLIENT_FINDING_SKIP, /* could not be tried, or need not work */
	CLIENT_FINDING_FAIL,
};

#define CLIENT_REPORT_MAX 16

struct client_report_line {
	const char *name;
	enum client_finding finding;
	char text[256];
	char advice[192]; /* what to do; "" when nothing */
	double ms; /* how long it took; below 0: not measured */
};

struct client_report {
	const char *server;
	bool json; /* printed at the end; else each line as it comes */
	struct client_report_line line[CLIENT_REPORT_MAX];
	size_t count;
};

void client_report_start(struct client_report *report, const char *server,
			 bool json);
/* One finding. `name` must be a constant. */
void client_report_add(struct client_report *report, const char *name,
		       enum client_finding finding, double ms,
		       const char *advice, const char *fmt, ...)
	__attribute__((format(printf, 6, 7)));
bool client_report_failed(const struct client_report *report);
/* Prints what is left to print. */
void client_report_end(const struct client_report *report);

/* Text as a JSON string, with its quotes; cut when it does not fit. */
const char *client_json_string(const char *text, char *buf, size_t size);

#endif
