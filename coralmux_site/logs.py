"""Logs: structlog over the standard library, with every pairing token cut out.

A token stands in the path of `/api/v1/pair/<token>` by contract, and Django,
Daphne and Twisted print paths. So the last step before a line leaves the
process replaces whatever looks like a token or stands in that path, whoever
wrote the line.
"""

from __future__ import annotations

import logging
import os
import re
import sys
from collections.abc import MutableMapping
from typing import Any

import structlog

_SECRET = re.compile(r"oc_pair_[0-9A-Za-z_-]+|(?<=/api/v1/pair/)[^\s\"'?,)>\]]+")


def redact(line: str) -> str:
    """The line with `oc_pair_…` and `/api/v1/pair/…` in place of tokens."""
    return _SECRET.sub(lambda found: "oc_pair_…" if found[0].startswith("oc_pair_") else "…", line)


class _Redacting(structlog.stdlib.ProcessorFormatter):
    def format(self, record: logging.LogRecord) -> str:
        return redact(super().format(record))


def private_opener(path: str, flags: int) -> int:
    """For open(): a file that only its owner reads (0600)."""
    return os.open(path, flags, 0o600)


def configure(log_format: str) -> None:
    """Send structlog's and the standard library's records to stderr, as console or json."""
    shared: list[Any] = [
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.format_exc_info,
    ]
    renderer: Any = (
        structlog.processors.JSONRenderer()
        if log_format == "json"
        else structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty())
    )
    formatter = _Redacting(
        foreign_pre_chain=[structlog.stdlib.add_logger_name, *shared],
        processors=[
            _without_django_objects,
            structlog.stdlib.ProcessorFormatter.remove_processors_meta,
            renderer,
        ],
    )
    handler = logging.StreamHandler()
    handler.setFormatter(formatter)
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.INFO)
    # One line per failed HTTP request is noise that a scanner can write at will.
    for name, level in {
        "daphne": logging.WARNING,
        "axes": logging.WARNING,
        "django.request": logging.ERROR,
        "django.security": logging.ERROR,
        "django.security.DisallowedHost": logging.CRITICAL,
        "asyncio": logging.WARNING,
    }.items():
        logging.getLogger(name).setLevel(level)
    structlog.configure(
        processors=[*shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=True,
    )


def _without_django_objects(
    _logger: Any, _name: str, event: MutableMapping[str, Any]
) -> MutableMapping[str, Any]:
    """Drop request objects that Django attaches: their repr prints the path."""
    event.pop("request", None)
    return event


def redact_uvicorn_access_log() -> None:
    """Cut tokens out of the access log of uvicorn, which has handlers of its own."""
    logging.getLogger("uvicorn.access").addFilter(_redact_arguments)


def _redact_arguments(record: logging.LogRecord) -> bool:
    # uvicorn's formatter takes the arguments apart, so they stay as many as they are.
    if isinstance(record.args, tuple):
        record.args = tuple(redact(a) if isinstance(a, str) else a for a in record.args)
    return True


def redact_daphne_access_log() -> None:
    """Cut tokens out of the access log that plain `daphne` writes to standard output.

    That log goes round the logging module, so its one writing method is wrapped.
    """
    access = sys.modules.get("daphne.access")
    if access is None:
        return
    write_entry = access.AccessLogGenerator.write_entry

    def redacted(self: Any, host: str, date: Any, request: str, *rest: Any, **more: Any) -> None:
        write_entry(self, host, date, redact(request), *rest, **more)

    access.AccessLogGenerator.write_entry = redacted
