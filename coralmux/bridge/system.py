"""How this machine is doing, for phones whose owner may know."""

from __future__ import annotations

import time
from typing import Any

# Seconds over which the load of the processors is measured.
_MEASURED_SECONDS = 0.2


def status() -> dict[str, Any]:
    """The payload of `system.status.result`. Takes a moment: call it off the event loop."""
    import psutil

    memory = psutil.virtual_memory()
    return {
        "cpu_percent": psutil.cpu_percent(interval=_MEASURED_SECONDS),
        "memory_percent": memory.percent,
        "memory_used_gb": round((memory.total - memory.available) / 1e9, 2),
        "memory_total_gb": round(memory.total / 1e9, 2),
        "uptime_seconds": int(time.time() - psutil.boot_time()),
    }
