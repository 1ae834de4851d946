# SPDX-License-Identifier: BSD-2-Clause
"""TAP output: tests register with @test, main() runs them one by one and prints the verdicts.

A test is a function; it passes when it returns.  Skip says why it cannot run here.  A failure
prints where it happened and whatever the registered reporters add (the servers' log tails).
Arguments of a script are substrings of test names to run; `-l` lists the names.
"""

import os
import signal
import sys
import time
import traceback

from .wait import PATIENCE


class Skip(Exception):
    """The test cannot run here; the message says why."""


class Fail(AssertionError):
    """An expectation did not hold."""


class _Deadline(BaseException):
    """Raised by SIGALRM: nothing in a test may catch it."""


_tests = []
_reporters = []
_after = []
_at_end = []


def test(name, timeout=30):
    """Decorator: register a function as the test `name`."""
    def register(function):
        add(name, function, timeout)
        return function
    return register


def add(name, function, timeout=30):
    _tests.append((name, function, timeout * PATIENCE))


def on_failure(function):
    """function() -> lines to print below a failed test."""
    _reporters.append(function)


def after_each(function):
    """Run after every test; raising fails the test that just ran."""
    _after.append(function)


def at_end(function):
    """Run when the script ends, for whatever reason, last registered first."""
    _at_end.append(function)


def skip(why):
    raise Skip(why)


def check(cond, what):
    if not cond:
        raise Fail(what)


def equal(got, want, what="value"):
    if got != want:
        raise Fail(f"{what}: got {_short(got)}, want {_short(want)}")


def within(got, low, high, what="value"):
    if not low <= got <= high:
        raise Fail(f"{what}: got {got}, want {low} to {high}")


def note(text):
    for line in str(text).splitlines():
        print(f"# {line}", flush=True)


def _short(value):
    text = repr(value)
    return text if len(text) < 200 else f"{text[:200]}... ({len(text)} characters)"


def _alarm(_signum, _frame):
    raise _Deadline()


def _terminate(signum, _frame):
    raise SystemExit(128 + signum)


def _attempt(function, timeout):
    """Run one test; returns (ok, skip reason, lines of explanation)."""
    try:
        signal.setitimer(signal.ITIMER_REAL, timeout)
        try:
            function()
            return True, None, []
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
    except Skip as why:
        return True, str(why), []
    except _Deadline:
        return False, None, [f"took longer than {timeout} s", *_where()]
    except Exception as error:  # a test may fail in any way
        return False, None, [f"{type(error).__name__}: {error}", *_where()]


def _where():
    frames = traceback.extract_tb(sys.exc_info()[2])
    own = [f for f in frames if "selftests" in f.filename and not f.filename.endswith("tap.py")]
    return [f"  at {os.path.basename(f.filename)}:{f.lineno} {f.line}" for f in own[-6:]]


def _run_one(number, name, function, timeout):
    start = time.monotonic()
    ok, skip, lines = _attempt(function, timeout)
    if not ok:
        for reporter in _reporters:
            lines += reporter()
    for after in _after:
        fine, _, more = _attempt(lambda call=after: call(not ok), timeout)
        if not fine:
            ok, lines = False, lines + more
    took = time.monotonic() - start
    verdict = "ok" if ok else "not ok"
    suffix = f" # SKIP {skip}" if skip is not None and ok else ""
    print(f"{verdict} {number} - {name}{suffix}", flush=True)
    if took > 2 or not ok:
        note(f"took {took:.1f} s")
    for line in lines:
        note(line)
    return ok


def _selected(args):
    wanted = [a for a in args if not a.startswith("-")]
    return [t for t in _tests if not wanted or any(w in t[0] for w in wanted)]


def main():
    """Run what was registered and exit: 0 all passed or skipped, 1 otherwise."""
    args = sys.argv[1:]
    chosen = _selected(args)
    if "-l" in args:
        print("\n".join(name for name, _, _ in chosen))
        sys.exit(0)
    signal.signal(signal.SIGALRM, _alarm)
    for signum in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(signum, _terminate)
    failed = 0
    try:
        print(f"1..{len(chosen)}", flush=True)
        for number, (name, function, timeout) in enumerate(chosen, 1):
            failed += not _run_one(number, name, function, timeout)
    finally:
        for function in reversed(_at_end):
            function()
    if failed:
        note(f"{failed} of {len(chosen)} failed")
    sys.exit(1 if failed else 0)


def skip_all(reason):
    """For a script that cannot run at all."""
    print(f"1..0 # SKIP {reason}", flush=True)
    sys.exit(0)
