"""Bringing the database up to date at start, by one process at a time."""

from __future__ import annotations

import contextlib
import fcntl
from collections.abc import Iterator
from pathlib import Path

from django.conf import settings
from django.core.management import call_command
from django.db import DatabaseError, connection
from django.db.migrations.executor import MigrationExecutor


class CannotMigrate(Exception):
    """The database cannot be used; the text is for the operator."""


def migrate() -> None:
    """Apply the migrations that are missing. Raises CannotMigrate.

    A database that a newer release has written is refused: old code would
    misread it.
    """
    try:
        with _lock():
            executor = MigrationExecutor(connection)
            unknown = [
                f"{app}.{name}"
                for app, name in executor.loader.applied_migrations
                if app in ("pairing", "relay")
                and (app, name) not in executor.loader.disk_migrations
            ]
            if unknown:
                raise CannotMigrate(
                    f"The database was written by a newer release (it has {', '.join(unknown)}). "
                    "Run that release, or restore a backup from before it."
                )
            if executor.migration_plan(executor.loader.graph.leaf_nodes()):
                call_command("migrate", verbosity=0, interactive=False)
    except (DatabaseError, OSError) as error:
        name = settings.DATABASES["default"]["NAME"]
        raise CannotMigrate(
            f"The database {name} cannot be used: {error}. Check -db, -state-dir and permissions."
        ) from None
    finally:
        connection.close()


@contextlib.contextmanager
def _lock() -> Iterator[None]:
    with (Path(settings.STATE_DIR) / "migrate.lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
