#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-2-Clause
"""What goes wrong around exits and must not show: reloads, lost news, tables of others."""

import contextlib
import json
import os
import re
import signal
import subprocess
import sys

sys.dont_write_bytecode = True
sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))

from culvertlab import proc, tap  # noqa: E402
from culvertlab.exits import Router, begin, link_down, linked  # noqa: E402
from culvertlab.site import PREFIX, Site, Stream, nothing_dropped, reached, refused  # noqa: E402
from culvertlab.tap import check, equal  # noqa: E402
from culvertlab.wait import wait_for  # noqa: E402

test = tap.test
site, lab = begin(Site)
SECONDS = 4  # of packets while sections change places
RATE = 500  # of each prefix


def sections(many=False, **more):
    """The two exits; with many prefixes nftables finds a packet's."""
    made = linked(**more)
    for number, key in ((81, "a"), (82, "b")):
        made[f"exit isp-{key}"]["prefix"] += "".join(
            f", 10.1{number}.{net}.0/24" for net in range(20 if many else 0))
    return made


def router(exits):
    return contextlib.closing(Router(lab, site.relay, exits))


def table_of(prefix):
    """The routing table that a rule of IPv4 leads this prefix to."""
    said = site.relay.run("ip", "rule")
    return re.search(rf"from {re.escape(prefix)} lookup (\d+)", said)[1]


def reload(server, exits):
    """The server has these sections of exits now, and is told; the condition that it has
    followed."""
    for name in [name for name in server.sections if name.startswith("exit ")]:
        del server.sections[name]
    server.sections.update(exits)
    server.write_config()
    ready = server.log_count(r"event=exits_ready")
    server.process.child.send_signal(signal.SIGHUP)
    return lambda: server.log_count(r"event=exits_ready") > ready


def turn(server):
    """Likewise, with the sections that it has in the other order."""
    names = [name for name in server.sections if name.startswith("exit ")]
    return reload(server, {name: server.sections[name] for name in reversed(names)})


def swapped(many):
    """Two sections change places, again and again, while packets of both pass."""
    with router(sections(many)) as running, contextlib.ExitStack() as stack, nothing_dropped(site):
        stream = Stream(stack, site, ((4, 0), (4, 1)), RATE)
        for second in range(1, SECONDS):
            stream.run(turn(running.server))
            stream.run(lambda second=second: stream.seconds() >= second)
        equal((stream.refused, stream.lost()), (0, 0), "packets refused, and lost")
        equal(running.server.log_count(r"event=exits_ready .* changes=[1-9]"), 1,
              "times that the kernel was changed, the start included")
        tap.note(f"{stream.sent} packets, 0 lost")


@test("two sections that change places in a reload lose no packet, of few prefixes", 40)
def _():
    swapped(False)


@test("two sections that change places in a reload lose no packet, of many prefixes", 40)
def _():
    swapped(True)


def counts(running):
    """{exit: (packets, rejected)} as culvertctl says, with which the daemon agrees."""
    said = json.loads(running.server.control_request(b'{"v":1,"cmd":"exits"}\n'))["data"]["exits"]
    told, shown = ({row["name"]: (row["packets"], row["rejected"]) for row in rows}
                   for rows in (said, running.rows().values()))
    equal(told, shown, "told by the daemon, and by culvertctl")
    return shown


@test("what is counted stays with an exit's name, whatever becomes of its section's place", 40)
def _():
    with router(sections()) as running:
        server = running.server
        with link_down(site.relay, "to_b"):
            wait_for(lambda: running.rows()["isp-b"]["state"] == "down", 5, "the link is lost")
            check(refused(site, site.client, 4, 1), "a dead exit's source goes out")
        wait_for(lambda: not refused(site, site.client, 4, 1), 10, "the exit is back")
        reached(site, site.client, 4, 0)
        # Counted every five seconds.
        before = running.rows()
        before = {name: (row["packets"], row["rejected"]) for name, row in before.items()}
        check(before["isp-a"][0] and before["isp-b"][1], f"nothing is counted: {before}")
        check(before["isp-a"][0] != before["isp-b"][0], f"nothing tells them apart: {before}")
        names = [name for name in server.sections if name.startswith("exit ")]
        server.sections.update({"exit ahead": {"link": "nowhere0", "prefix": "10.99.8.0/24"},
                                **{name: server.sections.pop(name) for name in names}})
        server.write_config()
        equal({name: (row["packets"], row["rejected"]) for name, row in running.rows().items()},
              {"ahead": (0, 0), **before}, "by a file that the daemon has not read yet")
        del server.sections["exit ahead"]
        wait_for(turn(server), 10, "the sections have changed places")
        equal(counts(running), before, "packets and rejected, turned")
        first = {"exit first": {"link": "nowhere0", "prefix": "10.99.9.0/24"}}
        wait_for(reload(server, {**first, **sections()}), 10, "another is the first")
        equal(counts(running), {"first": (0, 0), **before}, "with another in front")
        named = sections()
        named["exit isp-c"] = named.pop("exit isp-b")
        wait_for(reload(server, named), 10, "an exit has another name")
        equal(counts(running), {"isp-a": before["isp-a"], "isp-c": (0, 0)}, "with another name")
        reached(site, site.client, 4, 1)
        check(running.rows()["isp-c"]["packets"] > 0, "no more is counted")


@test("a link that ceases to be a bridge's port, again and again, was never lost", 30)
def _():
    with router(sections()) as running, contextlib.ExitStack() as stack:
        site.relay.run("ip", "link", "add", "fault_br", "type", "bridge")
        stack.callback(site.relay.run, "ip", "link", "del", "fault_br")
        for _ in range(3):
            site.relay.run("ip", "link", "set", "to_b", "master", "fault_br")
            site.relay.run("ip", "link", "set", "to_b", "nomaster")
        # News come in order: this is behind all of it.
        with link_down(site.relay, "to_a"):
            wait_for(lambda: running.server.log_count("event=exit_changed exit=isp-a .*now=down"),
                     5, "the other link is lost")
        equal(running.server.log_count("event=exit_changed exit=isp-b"), 0, "changes of isp-b")


def names(server, change, count=80):
    """That many alternative names of to_a, each of which is in all news of the link."""
    lines = [f"link property {change} dev to_a altname {number:0127}\n" for number in range(count)]
    # The C library would look for addresses for ever.
    os.kill(server.relay_pid(), signal.SIGSTOP)
    subprocess.run(site.relay.command(["ip", "-batch", "-"]), input="".join(lines), text=True,
                   check=True)


@test("news too long to be read are no news missed: a group that somebody changes is ours again")
def _():
    with router(sections()) as running:
        names(running.server, "add")
        try:
            site.relay.run("ip", "link", "set", "to_a", "group", "0")
            wait_for(lambda: "group 20000" in site.relay.run("ip", "link", "show", "to_a"), 5,
                     "the group is that of exits' links")
        finally:
            names(running.server, "del")
            os.kill(running.server.relay_pid(), signal.SIGCONT)


@test("a guard that somebody else has made in our name, without an owner, becomes ours", 20)
def _():
    site.relay.run("nft", "add", "table", "inet", "culvert_guard")
    site.relay.run("nft", "add", "table", "inet", "culvert_exits")
    with router(sections()):
        said = site.relay.run("nft", "list", "ruleset")
        for name in ("culvert_guard", "culvert_exits"):
            check(re.search(rf"table inet {name} \{{ # progname culvertd\b", said) or
                  re.search(rf"table inet {name} \{{[^}}]*flags [^\n]*owner", said),
                  f"nobody owns {name}:\n{said[:600]}")
        check(refused(site, site.client, 6, 2), "a foreign source goes out")


@contextlib.contextmanager
def taken(table, exits):
    """A router, while another process owns the table: both, the other until it is killed."""
    with contextlib.ExitStack() as stack:
        other = stack.enter_context(subprocess.Popen(
            site.relay.command(["nft", "-i"]), stdin=subprocess.PIPE, stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL, text=True))
        stack.callback(other.kill)
        other.stdin.write(f"add table {table} {{ flags owner; }}\n")
        other.stdin.flush()
        wait_for(lambda: table in site.relay.run("nft", "list", "tables"), 5,
                 "another process owns the table")
        running = stack.enter_context(router(exits))
        # Or the router could not take its own away.
        stack.callback(other.wait)
        stack.callback(other.kill)
        yield running, other


@test("while nftables cannot be told who goes where, sources keep the way that they have", 40)
def _():
    def ruled():
        return f"from {PREFIX['b'][4]} lookup" in site.relay.run("ip", "rule")

    with taken("inet culvert_exits", sections()) as (running, other), \
            contextlib.ExitStack() as stack, nothing_dropped(site):
        stream = Stream(stack, site, ((4, 0), (4, 1), (6, 0), (6, 1)), RATE)
        stream.run(reload(running.server, sections(many=True)))
        check(running.server.log_count("event=nftables_failed"), "nftables could be told")
        check(ruled(), "the rule of a prefix is gone")
        until = stream.seconds() + 1
        stream.run(lambda: stream.seconds() > until)
        equal((stream.refused, stream.lost()), (0, 0), "packets refused, and lost")
        other.kill()
        stream.run(lambda: not ruled())
        equal((stream.refused, stream.lost()), (0, 0), "with the map, packets refused, and lost")


@test("without the table by which hosts are told of exits guards hold, and the log says so", 20)
def _():
    exits = sections(tunnel_peer="fd81::9", discovery_host="fd82::/64")
    with taken("ip6 culvert_guard", exits) as (running, _):
        check(running.server.log_count(r"event=hosts_not_told .*effect=.*hint="),
              f"the log:\n{running.server.log()}")
        check(refused(site, site.client, 6, 2), "a foreign source goes out")


@test("an exit role that hangs is killed after a reload, and the new configuration is in force", 30)
def _():
    with router(sections()) as running:
        server = running.server
        pid = next(pid for pid in proc.children(server.process.pid)
                   if int(proc.status_field(pid, "CapPrm"), 16) & 1 << 12 and
                   pid != server.relay_pid())
        os.kill(pid, signal.SIGSTOP)
        wait_for(turn(server), 10, "exits with the new order")
        check(server.log_count(r"event=exit_killed reason="), "nothing is told of it")
        check(not os.path.exists(f"/proc/{pid}"), "it is still there")


tap.main()
