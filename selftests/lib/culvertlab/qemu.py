# SPDX-License-Identifier: BSD-2-Clause
"""Other kernels than this machine's: Debian's, booted by QEMU under software emulation.

A Kernel comes from its package, unpacked under build/kernels and not installed.  An Image is an
initramfs made of the files a test needs: programs bring the libraries that ldd names, modules
bring what they depend on.  A Guest is one boot: its shell takes command lines on a virtio port and
answers with their output and exit status; the serial port is the kernel's console.
Nothing of the host is shared with the guest, and the guest has no network card.

What is missing (QEMU, busybox, apt, the package) raises Skip with the reason.  Every wait has a
limit; a guest that is late is killed and its console is in the exception.
"""

import contextlib
import glob
import lzma
import os
import re
import secrets
import select
import shlex
import shutil
import stat
import subprocess
import sys
import tempfile
import time

from .server import BUILD
from .tap import Fail, Skip

QEMU = "qemu-system-x86_64"
CACHE = os.path.join(BUILD, "kernels")
BOOT_S = 120  # on a busy machine; alone it takes 3 to 6
DEPENDS = re.compile(rb"\0depends=([^\0]*)\0")
LIBRARY = re.compile(r"(?:=> )?(/\S+) \(0x")
# What no test needs and no boot should unpack; names up to a hyphen.
UNUSED_PYTHON = {"test", "tests", "idlelib", "lib2to3", "ensurepip", "pydoc_data", "distutils",
                 "tkinter", "turtledemo", "sqlite3", "xmlrpc", "wsgiref",
                 "dist", "site", "config", "dbm", "curses", "msilib"}

INIT = """#!/bin/busybox sh
# The guest's first process: file systems, modules, then commands until power off.
export PATH=/usr/sbin:/usr/bin:/sbin:/bin:/busybox HOME=/root LANG=C.UTF-8
/bin/busybox mkdir -p /busybox /proc /sys /dev /run/netns /tmp /root /var/tmp
/bin/busybox --install -s /busybox
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs dev /dev
mkdir -p /dev/shm /dev/pts
mount -t tmpfs tmpfs /dev/shm
chmod 1777 /tmp
mount -t bpf bpf /sys/fs/bpf
mount -t cgroup2 cgroup2 /sys/fs/cgroup
for module in $(cat /modules/order); do
	insmod /modules/$module || echo "guest: no module $module"
done
ip link set lo up
ulimit -n 65536
token=$(sed 's/.*guest_token=\\([0-9a-f]*\\).*/\\1/' /proc/cmdline)
until [ -c /dev/vport0p1 ]; do usleep 10000; done
exec 3<>/dev/vport0p1 <&3 >&3 2>&3 3<&-
echo "@$token ready"
while read -r line; do
	/bin/sh -c "$line" </dev/null
	printf '\\n@%s %d\\n' "$token" $?
done
poweroff -f
"""


def need():
    """Skip unless guests can run here at all."""
    for program, package in ((QEMU, "qemu-system-x86"), ("busybox", "busybox-static"),
                             ("dpkg-deb", "dpkg")):
        if not shutil.which(program):
            raise Skip(f"{program} is not installed (package {package})")


class Kernel:
    """A kernel of Debian's cloud flavour: release, image, modules."""

    def __init__(self, root):
        self.root = root
        self.image = _only(f"{root}/boot/vmlinuz-*")
        self.release = os.path.basename(self.image).removeprefix("vmlinuz-")
        folder = _only(f"{root}/**/lib/modules/*", recursive=True)
        self._paths = {}
        for here, _, names in os.walk(os.path.join(folder, "kernel")):
            for name in names:
                self._paths[_module_name(name)] = os.path.join(here, name)

    def module(self, name):
        """The module's bytes, None when this kernel has it built in or not at all."""
        path = self._paths.get(_module_name(name))
        if not path:
            return None
        with lzma.open(path) if path.endswith(".xz") else open(path, "rb") as file:
            return file.read()

    def with_needed(self, names):
        """{name: bytes} of these modules and all they depend on, in the order to load them."""
        ordered = {}

        def visit(name):
            name = _module_name(name)
            data = None if name in ordered else self.module(name)
            if data is None:
                return
            found = DEPENDS.search(data)
            for other in filter(None, found[1].decode().split(",") if found else ()):
                visit(other)
            ordered[name] = data
        for name in names:
            visit(name)
        return ordered


def kernel(series):
    """The newest Debian kernel of a series ("6.1"), downloaded once; Skip when there is none."""
    need()
    have = glob.glob(os.path.join(CACHE, f"linux-image-{series}.*"))
    if have:
        return Kernel(have[0])
    if not shutil.which("apt-get"):
        raise Skip("apt-get is not here to download a kernel with")
    os.makedirs(CACHE, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="new-", dir=CACHE) as folder:
        package = _download(series, folder)
        root = os.path.join(folder, "root")
        deb = _only(f"{folder}/linux-image-*.deb")
        subprocess.run(["dpkg-deb", "-x", deb, root], check=True)
        target = os.path.join(CACHE, package)
        os.rename(root, target)
    return Kernel(target)


def _download(series, folder):
    """Fetch the package into `folder`; its name.

    The lists of this machine may be missing or old: the second try is with lists of our own, so
    that nothing of the machine changes.
    """
    lists = os.path.join(CACHE, "lists")
    own = ["-o", f"Dir::State::Lists={lists}", "-o", f"Dir::Cache={CACHE}/cache"]
    said = f"apt knows no linux-image-{series}.*-cloud-amd64"
    for options in ([], own):
        if options:
            os.makedirs(os.path.join(lists, "partial"), exist_ok=True)
            os.makedirs(f"{CACHE}/cache/archives/partial", exist_ok=True)
            _apt("apt-get", *options, "update", "-qq", cwd=folder)
        package = _newest(_apt("apt-cache", *options, "pkgnames",
                               f"linux-image-{series}.", cwd=folder).stdout)
        if not package:
            continue
        done = _apt("apt-get", *options, "download", "-qq", package, cwd=folder)
        if done.returncode == 0:
            return package
        said = f"{package} cannot be downloaded"
    raise Skip(said)


def _apt(*argv, cwd):
    return subprocess.run(argv, cwd=cwd, capture_output=True, text=True, check=False, timeout=240)


def _newest(names):
    def version(name):
        return [int(part) for part in re.findall(r"\d+", name)]
    fit = [n for n in names.split() if re.fullmatch(r"linux-image-[\d.]+\S*-cloud-amd64", n)]
    return max(fit, key=version, default=None)


def _module_name(file_name):
    return re.sub(r"\.ko(\.xz)?$", "", file_name).replace("-", "_")


def _only(pattern, **more):
    found = sorted(glob.glob(pattern, **more))
    if not found:
        raise Fail(f"nothing matches {pattern}")
    return found[0]


class Image:
    """A kernel and the files of a guest, written as an uncompressed cpio archive."""

    def __init__(self, kernel_, modules=()):
        self.kernel = kernel_
        self._entries = {}  # path without leading slash -> (mode, bytes)
        self.program("busybox", "/bin/busybox")
        self.program("sh", "/bin/sh")  # busybox's own prefers its applets to real programs
        self.text("/init", INIT, 0o755)
        self.text("/etc/passwd", "root:x:0:0:root:/root:/bin/sh\n"
                  "nobody:x:65534:65534:nobody:/nonexistent:/bin/sh\n")
        self.text("/etc/group", "root:x:0:\nnogroup:x:65534:\n")
        self.text("/etc/hosts", "127.0.0.1 localhost\n::1 localhost\n")
        self._modules(("virtio_pci", "virtio_console", *modules))

    def text(self, path, content, mode=0o644):
        self._put(path, stat.S_IFREG | mode, content.encode())

    def file(self, source, path=None):
        """A file of this machine, at the same place by default."""
        with open(source, "rb") as file:
            mode = 0o755 if os.access(source, os.X_OK) else 0o644
            self._put(path or os.path.abspath(source), stat.S_IFREG | mode, file.read())

    def program(self, name, path=None):
        """A program of this machine and the libraries it is linked with."""
        source = shutil.which(name)
        if not source:
            raise Skip(f"{name} is not installed")
        self.file(source, path or source)
        self.libraries(source)

    def libraries(self, source):
        done = subprocess.run(["ldd", source], capture_output=True, text=True, check=False)
        for line in done.stdout.splitlines():
            found = LIBRARY.search(line)
            if found and found[1].lstrip("/") not in self._entries:
                self.file(found[1])

    def tree(self, folder, path=None, leave=frozenset()):
        """A folder with all that is in it; shared objects bring their libraries."""
        path = path or os.path.abspath(folder)
        for here, folders, names in os.walk(folder):
            folders[:] = [name for name in folders if name.partition("-")[0] not in leave]
            for name in names:
                source = os.path.join(here, name)
                self.file(source, os.path.join(path, os.path.relpath(source, folder)))
                if name.endswith(".so"):
                    self.libraries(source)

    def python(self):
        """The Python that runs us, with its standard library."""
        real = os.path.realpath(sys.executable)
        self.program(real)
        self.text("/usr/bin/python3", f'#!/bin/sh\nexec {real} "$@"\n', 0o755)
        self.tree(os.path.dirname(os.__file__), leave=UNUSED_PYTHON)

    def _modules(self, names):
        """What the guest loads at its start."""
        needed = self.kernel.with_needed(names)
        for name, data in needed.items():
            self._put(f"/modules/{name}.ko", stat.S_IFREG | 0o644, data)
        self.text("/modules/order", "".join(f"{name}.ko\n" for name in needed))

    def _put(self, path, mode, data):
        path = path.lstrip("/")
        folder = os.path.dirname(path)
        if folder and folder not in self._entries:
            self._put(folder, stat.S_IFDIR | 0o755, b"")
        self._entries[path] = (mode, data)

    def write(self, path):
        """The archive in the "newc" format, which the kernel unpacks."""
        with open(path, "wb") as out:
            for number, (name, (mode, data)) in enumerate(self._entries.items(), 1):
                _cpio_entry(out, number, name, mode, data)
            _cpio_entry(out, 0, "TRAILER!!!", 0, b"")


def _cpio_entry(out, inode, name, mode, data):
    encoded = name.encode() + b"\0"
    links = 2 if stat.S_ISDIR(mode) else 1
    fields = (inode, mode, 0, 0, links, 0, len(data), 0, 0, 0, 0, len(encoded), 0)
    head = b"070701" + b"".join(b"%08X" % field for field in fields)
    out.write(head + encoded + bytes(-(len(head) + len(encoded)) % 4))
    out.write(data + bytes(-len(data) % 4))


class Guest:
    """One boot.  Use it in a `with` block: it is killed at its end."""

    def __init__(self, image, memory_mib=1024, cpus=2, boot_s=BOOT_S):
        need()
        _collect_garbage()
        self._dir = tempfile.mkdtemp(prefix=f"culvert-qemu-{os.getpid()}-")
        self._console = os.path.join(self._dir, "console")
        self._token = secrets.token_hex(8)
        self._buffer = b""
        archive = os.path.join(self._dir, "initramfs")
        image.write(archive)
        started = time.monotonic()
        # With a thread for each processor, emulation may run into a breakpoint that the kernel
        # has already taken out again where it patches itself (static keys), and the guest panics.
        self._process = subprocess.Popen(
            [*_mortal(), QEMU, "-M", "pc", "-accel", "tcg,thread=single", "-cpu",
             "max,la57=off", "-smp", str(cpus), "-m", str(memory_mib), "-nodefaults",
             "-no-user-config", "-display", "none", "-no-reboot", "-net", "none",
             "-kernel", image.kernel.image, "-initrd", archive, "-append",
             "console=ttyS0 panic=-1 mitigations=off nokaslr random.trust_cpu=on "
             f"no_timer_check tsc=reliable loglevel=5 guest_token={self._token}",
             "-serial", f"file:{self._console}",
             "-chardev", "stdio,id=talk,signal=off", "-device", "virtio-serial-pci",
             "-device", "virtserialport,chardev=talk"],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        try:
            self._until(f"@{self._token} ready\n".encode(), boot_s, "boot")
        except BaseException:
            self.close()
            raise
        os.unlink(archive)
        self.boot_seconds = time.monotonic() - started

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def run(self, *argv, timeout=60, env=None):
        """Run a command in the guest; (exit status, its stdout and stderr as text)."""
        words = [f"{key}={shlex.quote(str(value))}" for key, value in (env or {}).items()]
        return self.shell(" ".join([*words, *(shlex.quote(str(word)) for word in argv)]), timeout)

    def shell(self, line, timeout=60):
        """Run one line of shell in the guest; (exit status, its stdout and stderr as text)."""
        assert "\n" not in line
        try:
            self._say(line)
            output = self._until(f"\n@{self._token} ".encode(), timeout, line)
            status = self._until(b"\n", 5, line)
        except BaseException:  # nobody knows what it would answer next
            self.close()
            raise
        return int(status), output.decode(errors="replace")

    @property
    def alive(self):
        return self._process.poll() is None

    def check(self, *argv, **more):
        """run() that must succeed; the output."""
        status, output = self.run(*argv, **more)
        if status:
            raise Fail(f"{shlex.join(map(str, argv))}: status {status}: {output[-2000:]}")
        return output

    def console(self):
        """What the kernel said."""
        with open(self._console, encoding="utf-8", errors="replace") as file:
            return file.read()

    def close(self):
        if self._process.poll() is None:
            self._process.kill()
        self._process.communicate()
        shutil.rmtree(self._dir, ignore_errors=True)

    def _say(self, line):
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.write(line.encode() + b"\n")
            self._process.stdin.flush()

    def _until(self, mark, timeout, doing):
        """What comes before `mark`."""
        deadline = time.monotonic() + timeout
        while mark not in self._buffer:
            left = deadline - time.monotonic()
            ready = select.select([self._process.stdout], [], [], max(left, 0))[0]
            data = os.read(self._process.stdout.fileno(), 65536) if ready else b""
            if not data:
                self._lost("ended" if ready else f"took more than {timeout} s", doing)
            self._buffer += data
        before, _, self._buffer = self._buffer.partition(mark)
        return before

    def _lost(self, how, doing):
        said = self._buffer.decode(errors="replace")[-1500:]
        console = "\n".join(self.console().splitlines()[-25:])
        raise Fail(f"the guest {how} during: {doing[:200]}\n{said}\nconsole:\n{console}")


def _collect_garbage():
    """Directories of runs that were killed."""
    for path in glob.glob(os.path.join(tempfile.gettempdir(), "culvert-qemu-*-*")):
        if not os.path.exists(f"/proc/{path.split('-')[-2]}"):
            shutil.rmtree(path, ignore_errors=True)


def _mortal():
    """Command prefix: the emulator dies with us, even when we are killed."""
    return ["setpriv", "--pdeathsig", "KILL", "--"] if shutil.which("setpriv") else []
