#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-2-Clause
"""A browser: Chromium gathers relay candidates and passes data between two peer connections.

One Chromium in the client's namespace loads a page from a server of this test, which says there
what it wants tried and hears what came of it; each way to the relay is a test by itself.
"""

import http.server
import json
import os
import shutil
import sys
import threading

sys.dont_write_bytecode = True
sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))

from culvertlab import tap, tls  # noqa: E402
from culvertlab.lab import Lab, need_namespaces  # noqa: E402
from culvertlab.tap import check, equal  # noqa: E402
from culvertlab.wait import wait_for  # noqa: E402

lab = Lab()
PAGE = os.path.join(os.path.dirname(os.path.abspath(__file__)), "browser.html")
WAYS = ("udp", "tcp", "tls")
TLS_PORT = 5349
results = {}


class Desk(http.server.BaseHTTPRequestHandler):
    """Gives out the page and the list of servers, takes the results."""

    def do_GET(self):  # noqa: N802
        if self.path == "/servers":
            kind, body = "application/json", json.dumps(servers()).encode()
        else:
            with open(PAGE, "rb") as file:
                kind, body = "text/html", file.read()
        self.answer(kind, body)

    def do_POST(self):  # noqa: N802
        results.update(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
        self.answer("text/plain", b"")

    def answer(self, kind, body):
        self.send_response(200)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_args):
        """TAP alone is printed."""


def servers():
    host, port = lab.topo.relay.addr(), lab.port
    urls = {"udp": f"turn:{host}:{port}?transport=udp", "tcp": f"turn:{host}:{port}?transport=tcp",
            "tls": f"turns:{host}:{TLS_PORT}?transport=tcp"}
    return {way: {"urls": urls[way], "username": "alice", "credential": "wonderland"}
            for way in WAYS}


def config():
    certificate, key = tls.certificate(lab.dir)
    return {"listener datagrams": {"transport": "udp", "address": f"0.0.0.0:{lab.port}"},
            "listener sealed": {"transport": "tls", "address": f"0.0.0.0:{TLS_PORT}",
                                "certificate": certificate, "private_key": key}}


def desk_open():
    with lab.topo.client.entered():
        desk = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Desk)
    threading.Thread(target=desk.serve_forever, daemon=True).start()
    return desk


def browse(url):
    program = shutil.which("chromium") or shutil.which("chromium-browser")
    if not program:
        tap.skip("chromium is not installed (package chromium)")
    argv = [program, "--headless", "--no-sandbox", "--no-first-run", "--disable-gpu",
            "--disable-dev-shm-usage", "--disable-background-networking", "--disable-sync",
            "--disable-component-update", "--disable-extensions", "--mute-audio",
            "--ignore-certificate-errors", f"--user-data-dir={lab.dir}/chromium", url]
    return lab.spawn(lab.topo.client, argv, "chromium", env={"HOME": lab.dir})


@tap.test("Chromium starts, loads the page and reports", 60)
def _():
    need_namespaces(lab)
    server = lab.server(config())
    before = server.counters()["allocations_made"]
    desk = desk_open()
    process = browse(f"http://127.0.0.1:{desk.server_port}/")
    try:
        wait_for(lambda: results or process.status is not None, 45, "results")
        check(results, f"it ended with {process.status}: {process.err()[-800:]}")
    finally:
        desk.shutdown()
    check(server.counters()["allocations_made"] >= before + 2 * len(WAYS), "allocations made")


def way_test(way):
    def run():
        if way not in results:
            tap.skip("the browser has not run")
        result = results[way]
        said = json.dumps(result)[:1500]
        equal(result["messages"], 40, f"messages there and back, of {said}")
        check(result["candidates"] and all(" typ relay " in one for one in result["candidates"]),
              f"relay candidates alone, in {said}")
        equal(result["protocols"], [way], "what the relay is spoken to by")
    return run


for _way in WAYS:
    tap.add(f"two peer connections pass data by relay candidates, over {_way.upper()}",
            way_test(_way))


tap.main()
