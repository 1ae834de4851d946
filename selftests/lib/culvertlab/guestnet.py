# SPDX-License-Identifier: BSD-2-Clause
"""client - relay - peer inside a guest, with culvertd, load and peer running there.

The addresses are those of topo.Topology.  A leg's devices can be plain veth ends, or what lies
on them: a VLAN device, a bridge.  `impair` gives a leg a rate, a delay and a loss each way.
"""

import glob
import json
import os
import re

from .server import BUILD, ROOT, config_text
from .tap import Fail
from .wait import Timeout, wait_for

MODULES = ["veth", "sch_ingress", "cls_bpf", "sch_netem", "8021q", "bridge", "tls",
           # What TLS encrypts with; nobody loads it there when it is asked for.
           "aesni_intel", "chacha20poly1305", "chacha_x86_64", "poly1305_x86_64"]
PORT = 3478
PEER_PORT = 5001
CLIENT, CLIENT_SIDE = "10.77.1.2", "10.77.1.1"
PEER, PEER_SIDE = "10.77.2.2", "10.77.2.1"
CLIENT6, CLIENT_SIDE6 = "fd77:1::2", "fd77:1::1"
PEER6, PEER_SIDE6 = "fd77:2::2", "fd77:2::1"
LOAD_USER = "bench"
MTU = 1500
PROGRAMS = ("culvertd", "culvertctl", "culvert")
SUITE = "/culvert"
ENGINE_S = 20  # until the kernel's engines are loaded


def fill(image):
    """Put everything a GuestNet runs into an image."""
    # Not busybox's: those start its own applets where a real program is meant.
    for name in ("ip", "tc", "setpriv", "sysctl", "nsenter", "unshare", "mount", "umount"):
        image.program(name)
    for name in (*PROGRAMS, "bench-tools/load", "bench-tools/peer"):
        image.program(os.path.join(BUILD, name), f"/usr/bin/{os.path.basename(name)}")


def fill_suite(image):
    """Put the network tests into an image: they find themselves and the build in SUITE."""
    image.python()
    image.program("openssl")
    selftests = os.path.join(ROOT, "selftests")
    for folder in ("lib", "net"):
        image.tree(os.path.join(selftests, folder), f"{SUITE}/selftests/{folder}")
    tools = glob.glob(os.path.join(BUILD, "net-tools", "*"))
    for path in [*(os.path.join(BUILD, name) for name in PROGRAMS), *tools]:
        if os.access(path, os.X_OK):
            image.program(path, f"{SUITE}/build/{os.path.relpath(path, BUILD)}")


class GuestNet:
    """The three namespaces.  `kind` of each leg's devices in the relay: veth, vlan, bridge."""

    def __init__(self, guest, kind="veth"):
        self.guest, self.kind = guest, kind
        self.running = []  # labels of background programs
        script = ["ip -all netns delete", "set -e"]  # what a failed test has left
        script += [f"ip netns add {name}; ip -n {name} link set lo up"
                   for name in ("client", "relay", "peer")]
        for name, ours, theirs in (("client", 1, CLIENT), ("peer", 2, PEER)):
            script += self._leg(name, ours, theirs)
        script += ["nsenter --net=/run/netns/relay sysctl -qw net.ipv4.ip_forward=1",
                   "nsenter --net=/run/netns/relay sysctl -qw net.ipv6.conf.all.forwarding=1"]
        self.script(script)

    def _leg(self, name, net, address):
        side = f"to{name}"
        lines = [f"ip link add w{net} netns {name} type veth peer name v{net} netns relay"]
        near, far = f"v{net}", f"w{net}"
        if self.kind == "vlan":
            for space, device, vlan in (("relay", near, side), (name, far, "uplink")):
                lines += [f"ip -n {space} link set {device} up",
                          f"ip -n {space} link add {vlan} link {device} type vlan id {10 + net}"]
        elif self.kind == "bridge":
            lines += [f"ip -n relay link add {side} type bridge",
                      f"ip -n relay link set {near} master {side} up",
                      f"ip -n {name} link set {far} name uplink"]
        else:
            lines += [f"ip -n relay link set {near} name {side}",
                      f"ip -n {name} link set {far} name uplink"]
        lines += [f"ip -n relay addr add 10.77.{net}.1/24 dev {side}",
                  f"ip -n relay addr add fd77:{net}::1/64 dev {side} nodad",
                  f"ip -n {name} addr add {address}/24 dev uplink",
                  f"ip -n {name} addr add fd77:{net}::2/64 dev uplink nodad",
                  f"ip -n relay link set {side} up", f"ip -n {name} link set uplink up",
                  f"ip -n {name} route add default via 10.77.{net}.1",
                  f"ip -n {name} route add ::/0 via fd77:{net}::1"]
        return lines

    def close(self):
        """End what runs in the namespaces and remove them."""
        for label in self.running[:]:
            self.stop(label)
        self.script([f"ip netns del {name}" for name in ("client", "relay", "peer")])

    def script(self, lines, timeout=30):
        status, output = self.guest.shell("; ".join(lines), timeout)
        if status:
            raise Fail(f"{lines[:3]}...: status {status}: {output[-1500:]}")
        return output

    def no_segmentation(self):
        """One packet an MTU, as on a wire: loss and delay are per packet then."""
        self.script([f"ip -n {space} link set {device} gso_max_segs 1"
                     for space, device in (("client", "uplink"), ("relay", "toclient"),
                                           ("relay", "topeer"), ("peer", "uplink"))])

    def impair(self, leg, rtt_ms, loss_percent, rate_mbit, queue_ms=50):
        """Give a leg half of the RTT, this loss and this rate each way; a full queue drops."""
        packets = int(rate_mbit * 1e6 / 8 / MTU * (rtt_ms / 2 + queue_ms) / 1000) + 10
        netem = f"netem limit {packets} delay {rtt_ms / 2}ms rate {rate_mbit}mbit"
        if loss_percent:
            netem += f" loss {loss_percent}%"
        self.script([f"tc -n {space} qdisc replace dev {device} root {netem}"
                     for space, device in ((leg, "uplink"), ("relay", f"to{leg}"))])

    def start_peer(self):
        self.background("peer", "peer", "peer --listen [::]:5001 --stats /tmp/stats", "ready")

    def start_culvertd(self, order, settings=None, label="culvertd", users=None):
        """culvertd with this engine order; `label` names its log in /tmp.  `users`: {name: keys}
        beside LOAD_USER."""
        self.configure(label, order, settings, users)
        self.background("relay", label, f"culvertd -c /tmp/{label}.conf", "event=ready")

    def configure(self, label, order, settings=None, users=None):
        """Write /tmp/LABEL.conf; `settings` are further keys of [engine].  A user's password is his
        name."""
        conf = config_text({"server": {"control": "/run/culvertd.sock", "workers": 1,
                                       "user": "nobody"},
                            "listener main": {"address": f"0.0.0.0:{PORT}, [::]:{PORT}"},
                            "realm example.org": {},
                            **{f"user {name}": {"password": name, **keys}
                               for name, keys in {LOAD_USER: {}, **(users or {})}.items()},
                            "engine": {"order": order, **(settings or {})}})
        escaped = conf.replace("\n", "\\n")
        self.script([f"printf '%b' '{escaped}' >/tmp/{label}.conf",
                     f"chmod 600 /tmp/{label}.conf"])

    def background(self, space, label, command, ready):
        """Start a program and wait until its log says it is ready."""
        self.script([f"nsenter --net=/run/netns/{space} {command} >/tmp/{label}.log 2>&1 </dev/null & "
                     f"echo $! >/tmp/{label}.pid"])
        self.running.append(label)
        wait_for(lambda: self.guest.shell(f"grep -q '{ready}' /tmp/{label}.log")[0] == 0
                 or not self._alive(label), 20, f"{label} starts")
        if not self._alive(label):
            raise Fail(f"{label} ended: {self.log(label)}")

    def confinement(self, label="culvertd"):
        """(what /proc says of the seccomp filter of every thread of every culvertd, who owns
        their memory, how many roles have no Landlock)."""
        status, seen = self.guest.shell(
            "for pid in $(pidof culvertd); do cat /proc/$pid/task/*/status; "
            "stat -c 'Owner: %u' /proc/$pid/mem; done")
        if status:
            raise Fail(f"the confinement cannot be seen: {seen[-500:]}")
        without = self.guest.shell(f"grep -c event=files_not_refused /tmp/{label}.log")[1]
        return (re.findall(r"^Seccomp:\s*(\d)", seen, re.M), re.findall(r"^Owner: (\d+)", seen, re.M),
                int(without))

    def _alive(self, label):
        return self.guest.shell(f"kill -0 $(cat /tmp/{label}.pid)")[0] == 0

    def log(self, label):
        return self.guest.shell(f"tail -n 40 /tmp/{label}.log")[1]

    def stop(self, label):
        """End a background program, in order; its exit is waited for."""
        self.running.remove(label)
        self.guest.shell(f"kill $(cat /tmp/{label}.pid)")
        wait_for(lambda: not self._alive(label), 15, f"{label} ends")

    def load(self, case, *options, relay=True, version=4, user=LOAD_USER, timeout=60):
        """One run of `load`, through the relay or routed past it; its figures."""
        peer, relay_side = (PEER6, CLIENT_SIDE6) if version == 6 else (PEER, CLIENT_SIDE)
        form = "[%s]:%d" if version == 6 else "%s:%d"
        where = ["--connect", form % (peer, PEER_PORT)]
        if relay:
            where = ["--turn", form % (relay_side, PORT), "--user", user, "--password",
                     user, "--peer", form % (peer, PEER_PORT)]
        status, output = self.guest.run("nsenter", "--net=/run/netns/client", "load", case, *where,
                                        "--stats", "/tmp/stats", *options, timeout=timeout)
        lines = output.strip().splitlines()
        if not lines or not lines[-1].startswith("{"):
            raise Fail(f"load {case}: status {status}: {output[-500:]}")
        figures = json.loads(lines[-1])
        if not figures["ok"]:
            raise Fail(f"load {case}: {figures['error']}")
        return figures

    def engines(self):
        """{name: row} of culvertctl engines."""
        return {row["name"]: row for row in self.ctl_json("engines")["engines"]}

    def engine_missing(self, name):
        """Why there is no such engine, None when there is; some come after the listeners."""
        def there():
            row = self.engines().get(name)
            return not row or row["available"]
        try:
            wait_for(there, ENGINE_S)
        except Timeout:
            return self.engines()[name]["reason"]
        return None if name in self.engines() else "this culvertd does not know it"

    def ctl(self, *args):
        return self.guest.check("culvertctl", "--socket", "/run/culvertd.sock", *args)

    def ctl_json(self, *args):
        """The data of a culvertctl --json answer."""
        answer = json.loads(self.ctl("--json", *args))
        return answer.get("data", answer)
