"""End-to-end encryption between phone and agent: pure machines, no I/O.

`session` speaks version 2 (Noise and records), `legacy` version 1, `link` reads and
makes the pairing links that carry the secret past the relay.
"""
