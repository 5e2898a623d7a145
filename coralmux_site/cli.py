"""The command `coralmux-relay`: serve, and manage tokens."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path
from typing import NoReturn
from urllib.parse import quote

from coralmux import __version__

_DESCRIPTION = """\
Relay between phones and AI agents. Both dial out to it by WebSocket (/ws), meet
under a pairing token, and talk end-to-end encrypted: the relay forwards what it
cannot read.
"""

_EPILOG = """\
examples:
  coralmux-relay -addr :8080 -admin-key my-secret
      serve on every address, port 8080

  curl -X POST http://localhost:8080/api/v1/pair -H "X-Admin-Key: my-secret"
      create a pairing token for one phone and one agent

  coralmux-relay token list
      tokens, who is connected last, bytes used (see: coralmux-relay token --help)

  coralmux-relay phone-page DIR
      write the phone's page to a new folder, to serve it from elsewhere (docs/phone.md)

Flags take one dash or two. Every limit and timer is an environment variable:
see docs/settings.md. A file .env in the working directory is read too.
"""

_TOKEN_HELP = """\
usage: coralmux-relay [-db PATH] token COMMAND [options]

Manage pairing tokens, beside a running relay or without one.

commands:
  issue     create a token and print it, once
  list      list tokens with their state and use
  revoke    revoke a token; a running relay closes its connections
  usage     bytes and messages by day
  prune     delete tokens revoked or expired long ago, and old usage

Each takes --json for scripts and --help for its options.
"""

_TOKEN_COMMANDS = {
    "issue": "issuetoken",
    "list": "listtokens",
    "revoke": "revoketoken",
    "usage": "usage",
    "prune": "prunetokens",
}


def main(argv: list[str] | None = None) -> NoReturn:
    """Entry point. Exit status: 0 after SIGTERM, 1 if it could not serve, 2 for wrong usage."""
    arguments = sys.argv[1:] if argv is None else argv
    try:
        sys.exit(_run(arguments))
    except _Refused as error:
        sys.stderr.write(f"coralmux-relay: {error}\n")
        sys.exit(error.status)


class _Refused(Exception):
    def __init__(self, text: str, status: int = 1) -> None:
        super().__init__(text)
        self.status = status


def _run(arguments: list[str]) -> int:
    options = _parser().parse_args(arguments)
    if options.rest and options.command == "serve":
        raise _Refused(f"unknown argument {options.rest[0]!r}. Try coralmux-relay --help.", 2)
    _set_environment(options)
    _set_up_django()
    if options.command == "token":
        return _token(options.rest)
    if options.command == "phone-page":
        return _phone_page(options.rest)
    return _serve(options)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="coralmux-relay",
        description=_DESCRIPTION,
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
        add_help=False,
    )

    def flag(name: str, **options: object) -> None:
        parser.add_argument(f"-{name}", f"--{name}", **options)  # type: ignore[arg-type]

    flag(
        "addr",
        metavar="HOST:PORT",
        help="address to listen on; :8080 is every address "
        "(default 127.0.0.1:8080, or CORALMUX_ADDR)",
    )
    flag(
        "admin-key",
        metavar="KEY",
        help="key for creating tokens and for /metrics (or CORALMUX_ADMIN_KEY, "
        "RELAY_ADMIN_KEY, which other users cannot see in the process list)",
    )
    flag(
        "make-admin-key",
        action="store_true",
        help="if no admin key is given, make one, print it and keep it in the state directory",
    )
    flag(
        "db",
        metavar="PATH",
        help="SQLite file (default: coralmux.sqlite3 in the state directory; or DATABASE_URL)",
    )
    flag(
        "state-dir",
        metavar="DIR",
        help="directory for the database and keys (or CORALMUX_STATE_DIR)",
    )
    flag(
        "public",
        action="store_true",
        help="open POST /api/v1/register to everyone (or CORALMUX_PUBLIC=1)",
    )
    flag(
        "log-format",
        choices=["console", "json"],
        help="how log lines look (or CORALMUX_LOG_FORMAT)",
    )
    flag("version", action="version", version=f"coralmux-relay {__version__}")
    parser.add_argument("-h", "-help", "--help", action="help", help="show this help and exit")
    parser.add_argument(
        "command",
        nargs="?",
        choices=["serve", "token", "phone-page"],
        default="serve",
        metavar="serve | token | phone-page",
        help="serve (the default), manage tokens, or write the phone's page",
    )
    parser.add_argument("rest", nargs=argparse.REMAINDER, help=argparse.SUPPRESS)
    return parser


def _set_environment(options: argparse.Namespace) -> None:
    """Flags win over the environment, and Django's settings read only the environment."""
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "coralmux_site.settings")
    if options.admin_key is not None:
        os.environ["CORALMUX_ADMIN_KEY"] = options.admin_key
    if options.db is not None:
        os.environ["DATABASE_URL"] = f"sqlite:///{quote(str(Path(options.db).absolute()))}"
    if options.state_dir is not None:
        os.environ["CORALMUX_STATE_DIR"] = options.state_dir
    if options.public:
        os.environ["CORALMUX_PUBLIC"] = "1"
    if options.log_format is not None:
        os.environ["CORALMUX_LOG_FORMAT"] = options.log_format


def _set_up_django() -> None:
    try:
        import django
    except ModuleNotFoundError:
        raise _Refused(
            "the relay's packages are missing. Install them: pip install 'coralmux[relay]'"
        ) from None
    from coralmux_site.environment import BadSetting

    _prefer_uvloop()
    try:
        django.setup()
    except BadSetting as error:
        raise _Refused(str(error), 2) from None
    except OSError as error:
        raise _Refused(
            f"the state directory cannot be used: {error.strerror}: {error.filename}. "
            "Choose another with -state-dir, or mend its permissions."
        ) from None


def _prefer_uvloop() -> None:
    """Before anything makes the loop that Daphne's reactor runs on."""
    try:
        import uvloop
    except ModuleNotFoundError:
        return
    import asyncio

    asyncio.set_event_loop_policy(uvloop.EventLoopPolicy())


def _token(arguments: list[str]) -> int:
    from django.core.management import load_command_class

    if not arguments or arguments[0] in ("-h", "-help", "--help"):
        sys.stdout.write(_TOKEN_HELP)
        return 0
    name, *rest = arguments
    if name not in _TOKEN_COMMANDS:
        known = ", ".join(_TOKEN_COMMANDS)
        raise _Refused(f"unknown token command {name!r}; there are {known}.", 2)
    _migrate()
    command = load_command_class("pairing", _TOKEN_COMMANDS[name])
    command.run_from_argv(["coralmux-relay token", name, *rest])
    return 0


def _phone_page(arguments: list[str]) -> int:
    from coralmux_site import phone_files, phone_folder

    if len(arguments) != 1 or arguments[0].startswith("-"):
        raise _Refused("phone-page takes the folder to write: coralmux-relay phone-page DIR", 2)
    try:
        phone_folder.write(Path(arguments[0]))
    except phone_files.PackagesMissing as error:
        raise _Refused(str(error)) from None
    except OSError as error:
        raise _Refused(f"the page cannot be written: {error.strerror or error}") from None
    return 0


def _serve(options: argparse.Namespace) -> int:
    from django.conf import settings

    from coralmux_site.server import CannotListen, RelayServer, listen, raise_file_limit

    host, port = _address(options.addr or settings.CORALMUX["ADDR"])
    try:
        listener = listen(host, port)
    except CannotListen as error:
        raise _Refused(str(error)) from None
    made = _make_admin_key() if options.make_admin_key else None
    _migrate()
    raise_file_limit(settings.CORALMUX["MAX_CONNECTIONS"])

    from coralmux_site.asgi import application
    from relay.runtime import runtime

    server = RelayServer(application, listener, runtime)
    _greet(host, listener.getsockname()[1], made)
    server.run()
    return 0


def _migrate() -> None:
    from coralmux_site import database

    try:
        database.migrate()
    except database.CannotMigrate as error:
        raise _Refused(str(error)) from None


def _address(text: str) -> tuple[str, int]:
    host, colon, port = text.rpartition(":")
    try:
        number = int(port)
        if not colon or not 0 <= number <= 65535:
            raise ValueError
    except ValueError:
        raise _Refused(
            f"-addr cannot be {text!r}. It takes HOST:PORT, as in 127.0.0.1:8080, or :8080.", 2
        ) from None
    return host.removeprefix("[").removesuffix("]"), number


def _make_admin_key() -> str | None:
    """Put a kept or new admin key in force; the key if it is new."""
    import secrets

    from coralmux_site.settings import CORALMUX, STATE_DIR, state_file

    if CORALMUX["ADMIN_KEY"]:
        return None
    new = not (STATE_DIR / "admin-key").exists()
    CORALMUX["ADMIN_KEY"] = state_file("admin-key", secrets.token_hex(16))
    return str(CORALMUX["ADMIN_KEY"]) if new else None


def _greet(host: str, port: int, made_key: str | None) -> None:
    """Tell the person at the terminal where it is and what to do next."""
    from coralmux_site.settings import CORALMUX, STATE_DIR

    name = "localhost" if host in ("", "0.0.0.0", "::") else host
    origin = f"http://[{name}]:{port}" if ":" in name else f"http://{name}:{port}"
    websocket = origin.replace("http", "ws", 1) + "/ws"
    lines = [f"CoralMux Relay {__version__} on {origin} (WebSocket at {websocket})"]
    key_file = STATE_DIR / "admin-key"
    if made_key:
        lines.append(f"Admin key, made now and kept in {key_file}: {made_key}")
    if not CORALMUX["ADMIN_KEY"]:
        lines.append("No admin key: tokens are created by `coralmux-relay token issue` only.")
    else:
        kept = key_file.exists() and key_file.read_text().strip() == CORALMUX["ADMIN_KEY"]
        key = f"$(cat '{key_file}')" if kept else "$CORALMUX_ADMIN_KEY"
        lines.append("Create a pairing token:")
        lines.append(f'  curl -X POST {origin}/api/v1/pair -H "X-Admin-Key: {key}"')
    sys.stdout.write("\n".join(lines) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
