# SPDX-License-Identifier: BSD-2-Clause
"""One Lab per script: topology, directory, servers, and the shortcuts tests are written in."""

import atexit
import contextlib
import glob
import os
import shutil
import tempfile

from . import boxes, proc, server, tap, topo, turn


SAME = object()


class Lab:
    """Owns everything a script makes and removes it at the end, whatever happens."""

    def __init__(self, boxed=False, topology=None):
        """`boxed`: with an impairment box on each leg, self.near and self.far.

        `topology`: instead of the usual one.
        """
        self.topo = topology or topo.build(boxed)
        _collect_garbage()
        self.dir = tempfile.mkdtemp(prefix=f"culvert-net-{os.getpid()}-")
        os.chmod(self.dir, 0o755)
        self.port = 3478 if self.topo.isolated else self.topo.relay.free_port()
        self.processes = []
        self._count = 0
        self._server = self._changes = None
        self._open = []
        self._spawned = []
        atexit.register(self.close)
        tap.at_end(self.close)
        tap.on_failure(self._log_tails)
        tap.after_each(self._tidy)
        self.near = self.far = None
        if boxed:
            self._join_boxes()

    def _join_boxes(self):
        if not self.topo.isolated:
            tap.skip_all("needs network namespaces (root, or user namespaces)")
        try:
            self.near, self.far = (boxes.Box(self, node, "left", "right", seed)
                                   for seed, node in enumerate(self.topo.boxes, 1))
        except tap.Skip as why:
            tap.skip_all(why)
        self.topo.greet()

    def next_number(self):
        self._count += 1
        return self._count

    def close(self):
        for process in self.processes:
            if process.status is None:
                process.kill()
        self.processes = []
        self._unpin()
        self.topo.remove()
        if not os.environ.get("KEEP_LOGS"):
            shutil.rmtree(self.dir, ignore_errors=True)

    def _unpin(self):
        """Connections that go on in the kernel without their daemon end here."""
        with contextlib.suppress(OSError, TypeError):  # gone already, or no namespace
            inode = os.stat(self.topo.relay.path).st_ino
            shutil.rmtree(f"{server.PINS}/net-{inode}")

    def server(self, changes=SAME, fresh=False):
        """The running culvertd if it has this configuration, else a new one in its place.

        Without `changes`: the configuration this test asked for before, at first the basic one.
        """
        if changes is SAME:
            changes = self._changes
        self._changes = changes
        if self._server and not fresh and self._server.changes == changes \
                and self._server.process.status is None:
            return self._server
        self.stop_server()
        self._server = self._start(changes)
        return self._server

    def _start(self, changes):
        if os.environ.get("SERVER") == "coturn":
            return server.Coturn(self, changes)
        return server.Culvertd(self, changes)

    def stop_server(self):
        """Stop the shared server, insisting on a clean end."""
        running, self._server = self._server, None
        if running:
            running.stop()
            self._unpin()

    def _kill_server(self):
        """After a failure: the next test begins without anything of it."""
        running, self._server = self._server, None
        running.process.kill()
        self._unpin()

    def extra_server(self, changes=None, **more):
        """A culvertd beside the shared one; the test stops it."""
        return server.Culvertd(self, changes, **more)

    def spawn(self, node, argv, label, **more):
        """Run a program on a node, at most until the test ends."""
        process = proc.Process(node, argv, self.dir, f"{label}{self.next_number()}", **more)
        self.processes.append(process)
        self._spawned.append(process)
        return process

    def keep(self, closable):
        """Close this when the test ends."""
        self._open.append(closable)
        return closable

    def client(self, version=4, user="alice", password=None, changes=SAME, on=None):
        """A control connection to the server."""
        password = password or {"alice": "wonderland", "bob": "builder"}.get(user, "")
        running = on or self.server(changes)
        return self.keep(turn.Control(self.topo.client, running.address(version), user, password,
                                      tls=running.tls))

    def allocated(self, version=4, **more):
        client = self.client(version, **more)
        client.allocate(*([turn.family(6)] if version == 6 else []))
        return client

    def listener(self, version=4, index=0, port=0, **more):
        """A peer that waits for connections."""
        return self.keep(self.topo.peer.listen(version, index, port, **more))

    def accept(self, listener):
        sock, _ = listener.accept()
        sock.settimeout(10)
        return self.keep(sock)

    def pair(self, client=None, version=4, early=b"", rcvbuf=0, peer_rcvbuf=0, **more):
        """A bound pair by Connect: (data socket of the client, socket of the peer, client)."""
        client = client or self.allocated(version, **more)
        listener = self.topo.peer.bound(version)
        if peer_rcvbuf:
            listener.setsockopt(turn.socket.SOL_SOCKET, turn.socket.SO_RCVBUF, peer_rcvbuf)
        listener.listen(4)
        with contextlib.closing(listener):
            cid = client.connect(listener.getsockname())
            peer = self.accept(listener)
        return self.keep(client.bind(cid, early, rcvbuf)), peer, client

    def incoming(self, client, index=0, version=4, **more):
        """A pair by ConnectionAttempt: (data socket, peer socket)."""
        client.permit(self.topo.peer.addr(version, index))
        peer = self.keep(self.topo.peer.connect(client.relayed, index))
        cid, seen = client.attempt()
        tap.equal(seen, peer.getsockname()[:2], "peer address in ConnectionAttempt")
        return self.keep(client.bind(cid, **more)), peer

    def drop_connections(self):
        for closable in self._open:
            with contextlib.suppress(OSError):
                closable.close()
        self._open = []

    def _tidy(self, failed):
        """After each test: nothing stays open, and the server is in good health."""
        self.drop_connections()
        for process in self._spawned:
            if process.status is None:
                process.kill()
        self._spawned = []
        self._changes = None
        for box in filter(None, (self.near, self.far)):
            box.clear()
        running = self._server
        if running:
            try:
                running.health()
            except Exception:
                self._kill_server()
                raise
            if failed:
                self._kill_server()

    def _log_tails(self):
        lines = []
        for process in self.processes[-3:]:
            lines += [f"--- {process.label} (status {process.status})", *process.tail()]
        return lines


def _collect_garbage():
    """Directories of runs that were killed."""
    for path in glob.glob(os.path.join(tempfile.gettempdir(), "culvert-net-*-*")):
        if not os.path.exists(f"/proc/{path.split('-')[-2]}"):
            shutil.rmtree(path, ignore_errors=True)


def need(program, package=None):
    """Skip unless a program is installed."""
    if not shutil.which(program):
        raise tap.Skip(f"{program} is not installed" + (f" (package {package})" if package else ""))


def need_namespaces(lab):
    if not lab.topo.isolated:
        raise tap.Skip("needs network namespaces (root, or user namespaces)")


def need_root():
    if os.geteuid() or topo.in_user_namespace():
        raise tap.Skip("needs root")


def need_version(lab, version):
    if version not in lab.topo.versions:
        raise tap.Skip(f"no IPv{version} here")
