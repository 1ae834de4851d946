# SPDX-License-Identifier: BSD-2-Clause
"""User databases for tests: a file, and real servers of the test's own, on UNIX sockets in its
directory, that can be killed, stopped for a while, and started again."""

import contextlib
import glob
import hashlib
import os
import pwd
import shutil
import signal
import sqlite3
import subprocess

from . import proc, tls
from .tap import Fail, Skip
from .wait import wait_for

REALM = "example.org"
SECRET = "db secret"  # of the servers' user: in no log


def row(name, password, realm=REALM):
    """What is stored of a user: realm, hash, name, MD5 key, SHA-256 key."""
    whole = f"{name}:{realm}:{password}".encode()
    return (realm, hashlib.sha256(f"{name}:{realm}".encode()).digest(), name,
            hashlib.md5(whole).digest(), hashlib.sha256(whole).digest())


class Sqlite:
    """A file that culvertctl makes."""

    def __init__(self, lab):
        self.dir = os.path.join(lab.dir, f"sqlite{lab.next_number()}")
        self.path = os.path.join(self.dir, "users.db")
        self.url = f"sqlite:{self.path}"

    def fill(self, rows):
        with sqlite3.connect(self.path) as db:
            db.executemany("INSERT INTO users VALUES (?, ?, ?, ?, ?)", rows)
        db.close()

    def close(self):
        shutil.rmtree(self.dir, ignore_errors=True)


class Server:
    """What the servers have in common."""

    def __init__(self, lab, label):
        self.lab, self.label = lab, f"{label}{lab.next_number()}"
        self.dir = os.path.join(lab.dir, self.label)
        os.mkdir(self.dir)
        os.chmod(self.dir, 0o755)
        self.process = None

    def launch(self, argv):
        self.process = proc.Process(self.lab.topo.relay, argv, self.lab.dir,
                                    f"{self.label}-{self.lab.next_number()}")
        self.lab.processes.append(self.process)

    def _all(self, signum):
        for pid in [self.process.pid, *proc.descendants(self.process.pid)]:
            with contextlib.suppress(ProcessLookupError):  # it has ended by itself
                os.kill(pid, signum)

    def pause(self):
        self._all(signal.SIGSTOP)

    def resume(self):
        self._all(signal.SIGCONT)

    def kill(self):
        self.process.kill()

    def close(self):
        if self.process and self.process.status is None:
            self.process.kill()


class Postgresql(Server):
    """A cluster of its own; its one user logs in by password."""

    def __init__(self, lab):
        super().__init__(lab, "postgresql")
        found = sorted(glob.glob("/usr/lib/postgresql/*/bin/initdb"))
        if not found:
            raise Skip("PostgreSQL is not installed (package postgresql)")
        self.bin = os.path.dirname(found[-1])
        self.data = os.path.join(self.dir, "data")
        self.url = (f"postgresql://culvert:{SECRET.replace(' ', '%20')}@/postgres"
                    f"?host={self.dir}")
        self._own()
        secret = os.path.join(self.dir, "secret")
        with open(secret, "w", encoding="utf-8") as file:
            file.write(SECRET)
        self._run("initdb", "-D", self.data, "-U", "culvert", "--pwfile", secret, "--no-sync",
                  "--auth=scram-sha-256", "-E", "UTF8", "--no-locale")
        self.start()

    def _own(self):
        """It refuses to run as root."""
        self.prefix, self.owner = [], (os.geteuid(), os.getegid())
        if os.geteuid() == 0:
            user = pwd.getpwnam("nobody")
            self.owner = user.pw_uid, user.pw_gid
            os.chown(self.dir, *self.owner)
            self.prefix = ["setpriv", f"--reuid={user.pw_uid}", f"--regid={user.pw_gid}",
                           "--clear-groups"]

    def _run(self, program, *args):
        done = subprocess.run([*self.prefix, os.path.join(self.bin, program), *args],
                              capture_output=True, text=True, timeout=60, check=False, cwd="/")
        if done.returncode:
            raise Fail(f"{program}: {done.stderr[-400:]}")
        return done.stdout

    def start(self):
        self.launch_with("-c", "listen_addresses=")

    def launch_with(self, *options):
        self.launch([*self.prefix, os.path.join(self.bin, "postgres"), "-D", self.data, "-k",
                     self.dir, "-c", "fsync=off", "-c", "unix_socket_permissions=0777",
                     "-c", "max_connections=20", *options])
        wait_for(lambda: self._query("SELECT 1", check=False) == "1\n", 20, "PostgreSQL answers")

    def _query(self, *sql, check=True, stdin=None):
        argv = [os.path.join(self.bin, "psql"), "-X", "-q", "-t", "-A", self.url]
        for one in sql:
            argv += ["-c", one]
        done = subprocess.run(argv, capture_output=True, text=True, timeout=20, check=False,
                              input=stdin)
        if check and done.returncode:
            raise Fail(f"psql: {done.stderr[-400:]}")
        return done.stdout

    def fill(self, rows):
        lines = [f"{realm}\t\\\\x{digest.hex()}\t{name}\t\\\\x{md5.hex()}\t\\\\x{sha.hex()}\n"
                 for realm, digest, name, md5, sha in rows]
        self._query("COPY culvert_users FROM STDIN", stdin="".join(lines))


class TlsPostgresql(Postgresql):
    """One that is reached by TCP, and lets nobody in without TLS."""

    PORT = "5432"

    def start(self):
        certificate, key = tls.certificate(self.dir, "127.0.0.1")
        shutil.chown(key, *self.owner)
        self.authority = certificate
        with open(os.path.join(self.data, "pg_hba.conf"), "w", encoding="utf-8") as file:
            file.write("local all all scram-sha-256\nhostssl all all all scram-sha-256\n")
        self.launch_with("-c", "listen_addresses=127.0.0.1", "-c", f"port={self.PORT}",
                         "-c", "ssl=on", "-c", f"ssl_cert_file={certificate}",
                         "-c", f"ssl_key_file={key}")

    def tls_url(self, **options):
        """By TCP, with these options of libpq."""
        query = "&".join(f"{name}={value}" for name, value in options.items())
        return (f"postgresql://culvert:{SECRET.replace(' ', '%20')}@127.0.0.1:{self.PORT}"
                f"/postgres?{query}")

    def encrypted(self):
        """By the name of each program that is connected by TCP: whether by TLS."""
        said = self._query("SELECT application_name, ssl FROM pg_stat_activity "
                           "JOIN pg_stat_ssl USING (pid) WHERE client_addr IS NOT NULL")
        return {name: ssl == "t" for name, ssl in (line.split("|") for line in said.split())}


class Redis(Server):
    """A server whose one user, by ACL, may touch culvert's keys alone."""

    def __init__(self, lab):
        super().__init__(lab, "redis")
        if not shutil.which("redis-server"):
            raise Skip("Redis is not installed (package redis-server)")
        self.socket = os.path.join(self.dir, "socket")
        secret = SECRET.replace(" ", "")
        self.login = ["--user", "culvert", "--pass", secret, "--no-auth-warning"]
        self.url = f"redis+unix://culvert:{secret}@{self.socket}?db=3"
        self.conf = os.path.join(self.dir, "redis.conf")
        with open(self.conf, "w", encoding="utf-8") as file:
            file.write(f"port 0\nunixsocket {self.socket}\nunixsocketperm 777\n"
                       f"dir {self.dir}\nappendonly yes\nsave \"\"\nuser default off\n"
                       f"user culvert on >{secret} ~culvert:* +@all -@dangerous +info +debug\n")
        self.start()

    def start(self):
        self.launch(["redis-server", self.conf])
        wait_for(lambda: self.cli("PING") == "PONG\n", 20, "Redis answers")

    def cli(self, *words, stdin=None):
        done = subprocess.run(["redis-cli", "-s", self.socket, "-n", "3", *self.login, *words],
                              capture_output=True, timeout=20, check=False, input=stdin)
        return done.stdout.decode(errors="replace")

    def fill(self, rows):
        commands = b""
        for realm, digest, name, md5, sha in rows:
            key = f"culvert:user:{realm}:{digest.hex()}"
            words = [b"HSET", key.encode(), b"realm", realm.encode(), b"name", name.encode(),
                     b"md5", md5, b"sha256", sha]
            commands += b"*%d\r\n" % len(words)
            commands += b"".join(b"$%d\r\n%s\r\n" % (len(word), word) for word in words)
        self.cli("--pipe", stdin=commands)

    def questions(self):
        """HMGETs so far."""
        for line in self.cli("INFO", "commandstats").splitlines():
            if line.startswith("cmdstat_hmget:"):
                return int(line.split("calls=")[1].split(",")[0])
        return 0
