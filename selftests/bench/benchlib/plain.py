# SPDX-License-Identifier: BSD-2-Clause
"""A plain TCP sender and receiver of a file: what stands behind a relay, or in its place.

    plain.py receive ADDR PORT FILE    listen, print "ready", store one connection
    plain.py send ADDR PORT FILE       connect, send, end the stream, wait for the other's end

Each prints one line of JSON: bytes, and seconds from the first byte to the end.
"""

import json
import os
import socket
import sys
import time

CHUNK = 256 * 1024


def receive(addr, port, path):
    buffer = bytearray(CHUNK)
    view = memoryview(buffer)
    total, begun = 0, None
    with socket.create_server((addr, port)) as listener, open(path, "wb", buffering=0) as file:
        print("ready", flush=True)
        sock, _ = listener.accept()
        with sock:
            while True:
                got = sock.recv_into(buffer)
                begun = begun or time.monotonic()
                if not got:
                    break
                done = 0
                while done < got:
                    done += file.write(view[done:got])
                total += got
            seconds = time.monotonic() - begun
            os.fsync(file.fileno())
    return total, seconds


def send(addr, port, path):
    with socket.create_connection((addr, port), timeout=60) as sock, open(path, "rb") as file:
        begun = time.monotonic()
        sock.settimeout(None)
        total, part = 0, 1
        while part:
            part = os.sendfile(sock.fileno(), file.fileno(), None, 8 << 20)
            total += part
        sock.shutdown(socket.SHUT_WR)
        while sock.recv(CHUNK):
            pass
        return total, time.monotonic() - begun


def main():
    action, addr, port, path = sys.argv[1:]
    total, seconds = {"receive": receive, "send": send}[action](addr, int(port), path)
    print(json.dumps({"bytes": total, "seconds": seconds}), flush=True)


if __name__ == "__main__":
    main()
