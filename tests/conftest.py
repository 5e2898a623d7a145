"""Settings for every test: state in a temporary directory, made before Django reads it."""

from __future__ import annotations

import os
import signal
import tempfile

import hypothesis

_state = tempfile.TemporaryDirectory(prefix="coralmux-tests-")
os.environ["CORALMUX_STATE_DIR"] = _state.name
for _name in ("DATABASE_URL", "CORALMUX_ADMIN_KEY", "RELAY_ADMIN_KEY", "CORALMUX_PUBLIC"):
    os.environ.pop(_name, None)

# Children inherit what nohup has set, and would not hear of a terminal that closes.
if hasattr(signal, "SIGHUP"):
    signal.signal(signal.SIGHUP, signal.SIG_DFL)

# `make fuzz` asks for the other one.
hypothesis.settings.register_profile("default", deadline=None, max_examples=200)
hypothesis.settings.register_profile("fuzz", deadline=None, max_examples=100_000)
hypothesis.settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "default"))
