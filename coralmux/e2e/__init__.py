"""End-to-end encryption between phone and agent: pure machines, no I/O.

`session` with `initiator` (the phone) and `responder` (the agent) speaks version 2,
`legacy` version 1; `link` reads and makes the pairing links that carry the secret past
the relay.
"""
