#!/usr/bin/python3
# SPDX-License-Identifier: BSD-2-Clause
"""Two aioice connections that reach each other by their relay candidates alone.

Usage: ice_pair.py HOST PORT udp|tcp|tls USER PASSWORD MESSAGES

Prints the relayed addresses and how many messages came back unchanged. It is for Debian's
python3, which Debian's python3-aioice belongs to; exit status 77: there is no aioice.
"""

import asyncio
import sys

try:
    import aioice
except ImportError:
    sys.exit(77)


def end_of(host, port, way, user, password, controlling):
    return aioice.Connection(
        ice_controlling=controlling, turn_server=(host, port), turn_username=user,
        turn_password=password, turn_transport="udp" if way == "udp" else "tcp",
        turn_ssl=way == "tls", use_ipv6=False, transport_policy=aioice.TransportPolicy.RELAY)


async def introduce(one, other):
    for candidate in one.local_candidates:
        print(candidate.type, f"{candidate.host}:{candidate.port}")
        await other.add_remote_candidate(candidate)
    await other.add_remote_candidate(None)
    other.remote_username, other.remote_password = one.local_username, one.local_password


async def echo(end):
    while True:
        await end.send(await end.recv())


async def main(host, port, way, user, password, messages):
    ends = [end_of(host, int(port), way, user, password, one) for one in (True, False)]
    for end in ends:
        await end.gather_candidates()
    await introduce(ends[0], ends[1])
    await introduce(ends[1], ends[0])
    await asyncio.gather(*(end.connect() for end in ends))
    task = asyncio.ensure_future(echo(ends[1]))
    same = 0
    for number in range(int(messages)):
        data = bytes((number + at) & 255 for at in range(1 + number * 37 % 1200))
        await ends[0].send(data)
        same += await ends[0].recv() == data
    print("same", same)
    task.cancel()
    for end in ends:
        await end.close()


asyncio.run(asyncio.wait_for(main(*sys.argv[1:]), 20))
