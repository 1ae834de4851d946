# SPDX-License-Identifier: BSD-2-Clause
"""Bad links: what the kernel's netem does to all packets that a device sends.

What is lost is a packet, as on a wire: segments are made before the device, not by it.
"""

import contextlib

from . import tap
from .topo import run


def require(node):
    """Skips the whole script where the kernel has no netem."""
    try:
        with bad([(node, "lo")], "delay", "0"):
            pass
    except (RuntimeError, FileNotFoundError):
        tap.skip_all("no netem in this kernel, or no tc; selftests/qemu/exits.py runs it in a guest")


@contextlib.contextmanager
def bad(ends, *words):
    """Inside the block netem with these words is at each of `ends`: (node, device)."""
    with contextlib.ExitStack() as stack:
        for node in dict(ends):
            devices = [device for each, device in ends if each is node]
            _batch(node, "ip", [f"link set {device} gso_max_segs 1" for device in devices])
            _batch(node, "tc", [f"qdisc add dev {device} root netem {' '.join(words)}"
                                for device in devices])
            stack.callback(_batch, node, "tc", [f"qdisc del dev {device} root"
                                                for device in devices])
        yield


def _batch(node, program, lines):
    run(*node.command([program, "-batch", "-"]), input="\n".join(lines) + "\n")
