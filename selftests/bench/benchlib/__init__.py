# SPDX-License-Identifier: BSD-2-Clause
"""benchlib: what bench.py and demo.py are made of.

    place    namespaces, processes and their end, the relay's memory cgroup
    relays   direct, culvert, HAProxy, nginx, coturn: configuration, start, stop
    cases    what is measured, and how a run of load becomes figures
    figures  medians, ratios, goals, tables, JSON
    plots    SVG
"""
