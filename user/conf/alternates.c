/* SPDX-License-Identifier: BSD-2-Clause */
/* [alternate] sections: what concerns more than one of their keys. */
#include "conf/parser.h"

static bool family_repeated(const struct conf_alternate *alternate, size_t at)
{
	for (size_t i = 0; i < at; i++)
		if (addr_family(&alternate->addresses[i]) ==
		    addr_family(&alternate->addresses[at]))
			return true;
	return false;
}

static void addresses_check(struct parser *p, const struct section *s,
			    const struct conf_alternate *alternate)
{
	char label[CONF_LABEL_MAX], text[ADDR_STRLEN];

	if (!alternate->address_count)
		conf_error(p, s->line,
			   "%s address: found none; allowed: where that "
			   "server listens, such as 192.0.2.1:3478",
			   conf_label(s->kind, s, label));
	for (size_t i = 0; i < alternate->address_count; i++)
		if (family_repeated(alternate, i))
			conf_error(p, conf_key_line(s, "address"),
				   "%s address: found %s; allowed: one of a "
				   "family",
				   conf_label(s->kind, s, label),
				   addr_format(&alternate->addresses[i], text));
}

static void domain_check(struct parser *p, const struct section *s,
			 const struct conf_alternate *alternate)
{
	char label[CONF_LABEL_MAX];

	if (alternate->domain && !conf_key_refused(s, "transport") &&
	    (alternate->transport == CONF_TRANSPORT_TCP ||
	     alternate->transport == CONF_TRANSPORT_UDP))
		conf_error(p, conf_key_line(s, "domain"),
			   "%s domain: found without TLS; allowed: with a "
			   "transport that has a certificate",
			   conf_label(s->kind, s, label));
}

void conf_alternates_check(struct parser *p)
{
	struct section *s = NULL;

	while ((s = conf_section_next(p, s, SECTION_ALTERNATE)) != NULL) {
		const struct conf_alternate *alternate =
			&p->conf->alternates[s->index];

		if (!conf_key_refused(s, "address"))
			addresses_check(p, s, alternate);
		domain_check(p, s, alternate);
	}
}
