# SPDX-License-Identifier: BSD-2-Clause
"""Routing daemons in namespaces: babeld, BIRD; and a steady beat of packets beside them."""

import os
import select
import shutil
import threading
import time

from . import tap


def need(program):
    """Skip unless this daemon is installed."""
    if not shutil.which(program):
        raise tap.Skip(f"{program} is not installed (tools/deps routing)")


class _Daemon:
    """Takes its routes back when it is closed."""

    process = None

    def close(self):
        self.process.stop()


class Babeld(_Daemon):
    """babeld on a node. `take`: what it tells the others of, in the words of its configuration."""

    program = "babeld"

    def __init__(self, lab, node, links, take=(), tables=(254,)):
        base = os.path.join(lab.dir, f"babeld{lab.next_number()}")
        lines = [f"interface {link} type wired hello-interval 1 update-interval 1"
                 for link in links]
        lines += [f"import-table {table}" for table in tables]
        lines += [f"redistribute {each}" for each in take]
        lines += ["redistribute local deny", "redistribute deny", "skip-kernel-setup true",
                  "ipv6-subtrees true"]
        _write(f"{base}.conf", lines)
        self.process = lab.spawn(node, ["babeld", "-c", f"{base}.conf", "-I", f"{base}.pid",
                                        "-S", f"{base}.state", *links], "babeld")


class BabeldOfHosts(Babeld):
    """babeld that tells the others of host routes of culvert's."""

    def __init__(self, lab, node, links, hosts):
        super().__init__(lab, node, links,
                         [f"ip {host}/128 eq 128 proto 200" for host in hosts])


class BirdOfHosts(_Daemon):
    """BIRD with OSPF (v2 for IPv4, v3 for IPv6) that does the same."""

    program = "bird"

    def __init__(self, lab, node, links, hosts):
        base = os.path.join(lab.dir, f"bird{lab.next_number()}")
        lines = [f"router id 192.0.2.{lab.next_number()};", "protocol device { scan time 1; }"]
        for version, kind in ((4, "v2"), (6, "v3")):
            own = [host for host in hosts if (":" in host) == (version == 6)]
            bits = 128 if version == 6 else 32
            wanted = f"net ~ [ {', '.join(f'{host}/{bits}' for host in own)} ]" if own else "false"
            lines += [
                f"protocol kernel {{ learn; scan time 1; ipv{version} {{ import where {wanted};",
                "  export where source = RTS_OSPF_EXT2; }; }",
                f"protocol ospf {kind} {{ ipv{version} {{ import all;",
                f"  export where source = RTS_INHERIT && {wanted}; }}; area 0 {{",
                *[f'  interface "{link}" {{ type ptp; hello 1; dead 4; }};' for link in links],
                "}; }"]
        _write(f"{base}.conf", lines)
        self.process = lab.spawn(node, ["bird", "-f", "-c", f"{base}.conf", "-s", f"{base}.ctl"],
                                 "bird")


class BabeldOfSources(Babeld):
    """babeld that tells the others of default routes of these sources, IPv6, so dear."""

    def __init__(self, lab, node, links, sources, metric):
        super().__init__(lab, node, links,
                         [f"ip ::/0 eq 0 src-ip {source} src-eq {source.split('/')[1]} "
                          f"proto 4 metric {metric}" for source in sources])


class BirdOfSources(_Daemon):
    """BIRD with a static default route for each source, IPv6, by the first of these hops that is
    there; it puts them into the kernel."""

    program = "bird"

    def __init__(self, lab, node, hops, sources):
        need("bird")
        base = os.path.join(lab.dir, f"bird{lab.next_number()}")
        lines = ["router id 192.0.2.1;", "protocol device { }", "ipv6 sadr table sources;",
                 "protocol kernel { ipv6 sadr { table sources; export all; }; }"]
        for place, hop in enumerate(hops):
            lines += ["protocol static {",
                      f"  ipv6 sadr {{ table sources; preference {200 - place}; }};",
                      *[f"  route ::/0 from {source} via {hop};" for source in sources], "}"]
        _write(f"{base}.conf", lines)
        self.process = lab.spawn(node, ["bird", "-f", "-c", f"{base}.conf", "-s", f"{base}.ctl"],
                                 "bird")


def _write(path, lines):
    with open(path, "w", encoding="ascii") as file:
        file.write("\n".join(lines) + "\n")


class Beat:
    """Datagrams from an address of X to Y and back, one every 10 ms, until it is closed."""

    def __init__(self, site, version, index):
        self.far = site.peer.bound(version, udp=True)
        self.near = site.client.datagrams(self.far.getsockname()[:2], index)
        self.near.setblocking(False)
        self.far.setblocking(False)
        self.sent, self.back, self.errors = 0, set(), 0
        self._over = threading.Event()
        self._threads = [threading.Thread(target=each, daemon=True)
                         for each in (self._echo, self._send, self._take)]
        for thread in self._threads:
            thread.start()

    def _echo(self):
        while not self._over.is_set():
            if select.select([self.far], [], [], 0.1)[0]:
                data, sender = self.far.recvfrom(64)
                self.far.sendto(data, sender)

    def _send(self):
        while not self._over.wait(0.01):
            try:
                self.near.send(str(self.sent).encode())
                self.sent += 1
            except OSError:
                self.errors += 1

    def _take(self):
        while not self._over.is_set():
            if select.select([self.near], [], [], 0.1)[0]:
                try:
                    self.back.add(self.near.recv(64))
                except OSError:
                    self.errors += 1

    def lost(self, timeout=2):
        """How many of those sent so far have not come back, waited for a little."""
        sent = self.sent
        until = time.monotonic() + timeout
        while time.monotonic() < until:
            if all(str(number).encode() in self.back for number in range(sent)):
                return 0
            time.sleep(0.01)
        return sent - sum(str(number).encode() in self.back for number in range(sent))

    def close(self):
        self._over.set()
        for thread in self._threads:
            thread.join()
        self.near.close()
        self.far.close()
