"""How fast the relay forwards, next to a bare relay in the same run.

`python -m bench` (or `make bench`) starts each server pinned to one core and
the load generator pinned to another, prints a table and writes RESULTS.md.
Absolute figures belong to the machine; only the ratio of one run is compared.
"""
