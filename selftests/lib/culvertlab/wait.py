# SPDX-License-Identifier: BSD-2-Clause
"""Waiting on conditions with a deadline; nothing in the suite sleeps for a guessed time."""

import os
import time

STEP = 0.01
PATIENCE = float(os.environ.get("CULVERT_PATIENCE", "1"))  # above 1 on an emulated machine


class Timeout(Exception):
    """A condition did not come true in time."""


def wait_for(cond, timeout=10, what=None):
    """Return the first true value of cond(); raise Timeout after `timeout` seconds, more of them
    where PATIENCE says so."""
    timeout *= PATIENCE
    end = time.monotonic() + timeout
    while True:
        value = cond()
        if value:
            return value
        if time.monotonic() >= end:
            raise Timeout(f"{what or 'condition'}: not within {timeout} s")
        time.sleep(STEP)


def holds_for(cond, seconds, what=None):
    """Check that cond() stays true for the given time: for what must NOT happen."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if not cond():
            raise AssertionError(f"{what or 'condition'}: did not hold for {seconds} s")
        time.sleep(STEP)
