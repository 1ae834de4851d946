# SPDX-License-Identifier: BSD-2-Clause
"""culvertd with [exit] sections on the routers of a site, and what it says of them."""

import contextlib
import errno
import json

from .server import binary
from .wait import wait_for

UNREACHABLE = (errno.EHOSTUNREACH, errno.ENETUNREACH, errno.EACCES)


class Router:
    """culvertd on one node of a site; `sections` are its exits."""

    def __init__(self, lab, node, sections, timeout=5):
        self.node = node
        self.server = lab.extra_server({"engine": {"order": "splice"}, **sections}, node=node)
        try:
            wait_for(lambda: self.server.log_count(r"event=exits_ready"), timeout,
                     "exits are ready")
        except BaseException:
            self.close()
            raise

    def exits(self, *args):
        """What culvertctl exits says here."""
        config = [] if "remove" in args else ["-c", self.server.conf_path]
        return self.node.run(binary("culvertctl"), "exits", *args, *config)

    def rows(self):
        """{exit: what culvertctl tells of it}"""
        return {row["name"]: row for row in json.loads(self.exits("-j"))["exits"]}

    def close(self):
        """Stops it and takes away what it leaves in the kernel."""
        self.server.stop()
        self.exits("remove")


@contextlib.contextmanager
def routers(lab, sections, timeout=5):
    """Runs one on each node: pairs of node and sections; gone afterwards."""
    with contextlib.ExitStack() as stack:
        yield [stack.enter_context(contextlib.closing(Router(lab, node, each, timeout)))
               for node, each in sections]


@contextlib.contextmanager
def link_down(node, link, address6):
    """A link of a node is down inside the block; its IPv6 address comes back with it."""
    node.run("ip", "link", "set", link, "down")
    try:
        yield
    finally:
        node.run("ip", "link", "set", link, "up")
        node.run("ip", "-6", "addr", "replace", address6, "dev", link, "nodad")
