# SPDX-License-Identifier: BSD-2-Clause
"""culvertlab: what the network tests are made of.

    topo    client - relay - peer as network namespaces, or loopback without privilege
    proc    processes with captured logs
    server  culvertd with its configuration, coturn
    stun    message codec written from the RFCs, nothing shared with culvert
    turn    TURN-TCP client
    data    streams of bytes and their comparison
    wait    waiting on conditions
    tap     tests and their verdicts
    qemu    other kernels than this machine's, with files and commands in them
    guestnet client - relay - peer inside such a kernel
    lab     all of it in one object per script
"""
