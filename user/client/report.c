/* SPDX-License-Identifier: BSD-2-Clause */
/* The findings of `culvert check`. */
#include "client/report.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

static const char *const names[] = {
	[CLIENT_FINDING_OK] = "ok",
	[CLIENT_FINDING_WARN] = "warn",
	[CLIENT_FINDING_SKIP] = "skip",
	[CLIENT_FINDING_FAIL] = "FAIL",
};

static const char *const colours[] = {
	[CLIENT_FINDING_OK] = "\033[32m",
	[CLIENT_FINDING_WARN] = "\033[33m",
	[CLIENT_FINDING_SKIP] = "\033[2m",
	[CLIENT_FINDING_FAIL] = "\033[1;31m",
};

void client_report_start(struct client_report *report, const char *server,
			 bool json)
{
	memset(report, 0, sizeof(*report));
	report->server = server;
	report->json = json;
	if (!json)
		printf("culvert check: server %s\n", server);
}

static void line_print(const struct client_report_line *line)
{
	bool colour = isatty(STDOUT_FILENO);

	printf("%s%-4s%s  %-11s %s\n", colour ? colours[line->finding] : "",
	       names[line->finding], colour ? "\033[0m" : "", line->name,
	       line->text);
	if (*line->advice)
		printf("%18s-> %s\n", "", line->advice);
	fflush(stdout);
}

void client_report_add(struct client_report *report, const char *name,
		       enum client_finding finding, double ms,
		       const char *advice, const char *fmt, ...)
{
	struct client_report_line *line;
	va_list args;

	if (report->count >= CLIENT_REPORT_MAX)
		return;
	line = &report->line[report->count++];
	line->name = name;
	line->finding = finding;
	line->ms = ms;
	snprintf(line->advice, sizeof(line->advice), "%s", advice);
	va_start(args, fmt);
	vsnprintf(line->text, sizeof(line->text), fmt, args);
	va_end(args);
	if (!report->json)
		line_print(line);
}

bool client_report_failed(const struct client_report *report)
{
	for (size_t i = 0; i < report->count; i++)
		if (report->line[i].finding == CLIENT_FINDING_FAIL)
			return true;
	return false;
}

const char *client_json_string(const char *text, char *buf, size_t size)
{
	size_t n = 0;

	buf[n++] = '"';
	/* Room for the longest escape, the quote and the end. */
	for (; *text && n + 8 < size; text++) {
		unsigned char c = (unsigned char)*text;

		if (c < 0x20 || c == 0x7f)
			n += (size_t)snprintf(buf + n, size - n, "\\u%04x", c);
		else if (c == '"' || c == '\\')
			n += (size_t)snprintf(buf + n, size - n, "\\%c", c);
		else
			buf[n++] = (char)c;
	}
	buf[n++] = '"';
	buf[n] = '\0';
	return buf;
}

static void line_print_json(const struct client_report_line *line)
{
	char text[1600];

	printf("    {\"name\": %s, ",
	       client_json_string(line->name, text, sizeof(text)));
	printf("\"status\": \"%s\", ", line->finding == CLIENT_FINDING_FAIL ?
					       "fail" :
					       names[line->finding]);
	if (line->ms >= 0)
		printf("\"ms\": %.3f, ", line->ms);
	printf("\"text\": %s, ",
	       client_json_string(line->text, text, sizeof(text)));
	printf("\"advice\": %s}",
	       client_json_string(line->advice, text, sizeof(text)));
}

void client_report_end(const struct client_report *report)
{
	char text[1600];
	bool failed = client_report_failed(report);

	if (!report->json) {
		printf("%s\n",
		       failed ? "This server does not work as it should." :
				"This server works.");
		return;
	}
	printf("{\n  \"v\": 1,\n  \"server\": %s,\n  \"ok\": %s,\n"
	       "  \"checks\": [\n",
	       client_json_string(report->server, text, sizeof(text)),
	       failed ? "false" : "true");
	for (size_t i = 0; i < report->count; i++) {
		line_print_json(&report->line[i]);
		printf("%s\n", i + 1 < report->count ? "," : "");
	}
	printf("  ]\n}\n");
}
