# SPDX-License-Identifier: BSD-2-Clause
"""What the kernel engines have in the kernel, as bpftool sees it."""

import contextlib
import glob
import itertools
import json
import os
import re
import shutil
import subprocess

from .server import PINS

BPFTOOL = shutil.which("bpftool") or "/usr/sbin/bpftool"
HASH = "1"  # BPF_MAP_TYPE_HASH


def _tool(*argv):
    """bpftool's answer; None where it knows of no such thing."""
    done = subprocess.run([BPFTOOL, "-j", *map(str, argv)], capture_output=True, text=True,
                          timeout=20, check=False)
    return None if done.returncode else json.loads(done.stdout)


def directory(node):
    """Where the broker pins for the namespace of this node."""
    return f"{PINS}/net-{os.stat(node.path or '/proc/self/ns/net').st_ino}"


def names(node):
    """Everything that is pinned there."""
    return sorted(os.listdir(directory(node))) if os.path.isdir(directory(node)) else []


def programs(node):
    """Numbers of the programs that pinned links hold at the devices."""
    links = [_tool("link", "show", "pinned", os.path.join(directory(node), name))
             for name in names(node) if name.startswith("link-")]
    return sorted({link["prog_id"] for link in links if link})


def loaded(numbers):
    """Those of these programs that the kernel still has."""
    return [number for number in numbers if _tool("prog", "show", "id", number)]


def flows(node):
    """Entries of the table that packets are looked up in: two for each pair."""
    path = os.path.join(directory(node), "wire_flows")
    return len(_tool("map", "dump", "pinned", path) or []) if os.path.exists(path) else 0


def entries(pids):
    """Entries of all the hash tables that these processes hold: flows of pairs and of lanes."""
    tables = set()
    for info in itertools.chain(*(glob.glob(f"/proc/{pid}/fdinfo/*") for pid in pids)):
        with contextlib.suppress(FileNotFoundError), open(info, encoding="ascii") as file:
            fields = dict(re.findall(r"^(map_type|map_id):\s*(\d+)$", file.read(), re.M))
            if fields.get("map_type") == HASH:
                tables.add(fields["map_id"])
    return sum(len(_tool("map", "dump", "id", table) or []) for table in tables)
