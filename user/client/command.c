/* SPDX-License-Identifier: BSD-2-Clause */
/* The table of the subcommands. */
#include "client/command.h"

#include <stdint.h>

const struct client_command client_commands[] = {
	{ "forward", "[OPTIONS] [ADDRESS:]PORT PEER:PORT",
	  "Listen on a local port; carry each connection to the peer",
	  CLIENT_FORWARD, 2, 2, client_cmd_forward },
	{ "listen", "[OPTIONS] --allow IP[,IP...] [HOST:]PORT",
	  "Listen on a relayed address; carry each connection to a service",
	  CLIENT_LISTEN, 1, 1, client_cmd_listen },
	{ "send", "[OPTIONS] --peer HOST:PORT [FILE]",
	  "Send a file or standard input to a peer", CLIENT_SEND, 0, 1,
	  client_cmd_send },
	{ "receive", "[OPTIONS] --allow IP[,IP...] [FILE]",
	  "Receive one stream from a peer into a file or standard output",
	  CLIENT_RECEIVE, 0, 1, client_cmd_receive },
	{ "check", "[OPTIONS]", "Find out whether a server works, and say how",
	  CLIENT_CHECK, 0, 0, client_cmd_check },
	{ 0 },
};
