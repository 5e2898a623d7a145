"""What can be typed behind `coralmux-agent`: options, their help, and what becomes of them."""

from __future__ import annotations

import asyncio
import functools
import json
import logging
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import click
from rich.console import Console

from coralmux import LinkError, StoreError, __version__
from coralmux.bridge import backends, config, links, template
from coralmux.bridge.backend import Place
from coralmux.bridge.backends import BackendUnusable
from coralmux.bridge.config import Config, ConfigError
from coralmux.bridge.config_file import write_new
from coralmux.bridge.home import Home, placed, placed_anew
from coralmux.bridge.pairing import PairingError
from coralmux.bridge.phone_commands import forget, pair, pair_first, phones, unpair
from coralmux.bridge.phones import PhoneError
from coralmux.bridge.registration import normalised
from coralmux.bridge.relay_failures import RelayProblem
from coralmux.text import discreet, one_line

DONE, FAILED, REFUSED, INTERRUPTED = 0, 1, 2, 130

_HELP = """\
Let your phone talk to the AI on this machine, end-to-end encrypted through a relay.

\b
Start here:
  coralmux-agent init --backend openai
      writes a config with every setting explained; look through it
  coralmux-agent pair --relay wss://relay.example.com
      shows a code and a link for your phone
  coralmux-agent run
      answers, until Ctrl-C

\b
Or all in one, with an AI that needs no more than this:
  coralmux-agent run --relay wss://relay.example.com --backend openai \\
      --base-url http://127.0.0.1:11434/v1 --model llama3.2

`coralmux-agent check` finds out what is wrong when something is. To try the line without
any AI: coralmux-agent run --backend echo.

The config and all that is kept are in the directory "agent" of your data directory, or of
--data-dir. Each command explains itself with --help.

\b
Exit status:
  0    done; or the agent was told to leave
  1    something went wrong; standard error says what
  2    the pairing or the config is refused: it has to be changed first
  130  interrupted by Ctrl-C
"""

F = TypeVar("F", bound=Callable[..., Any])

_BACKEND_OPTIONS = (
    click.option("--backend", metavar="NAME", help="Which AI answers, instead of the config's."),
    click.option("--model", metavar="NAME", help="The backend's setting `model`."),
    click.option("--base-url", metavar="URL", help="The backend's setting `base_url`."),
    click.option("--app", metavar="MODULE:OBJECT", help="The backend's setting `app`."),
    click.option("--command", metavar="PROGRAM", help="The backend's setting `command`."),
    click.option("--name", help="What phones show as the agent's name."),
)


def _chosen(function: F) -> F:
    """Adds the options that win over the config; the command gets a `load` for the outcome."""

    @functools.wraps(function)
    def with_load(home: Home, *, backend: str | None, name: str | None, **options: Any) -> Any:
        given = {key: options.pop(key) for key in ("model", "base_url", "app", "command")}
        settings = {key: value for key, value in given.items() if value is not None}
        overrides = {"backend": backend, "name": name, "settings": settings}
        load = functools.partial(config.load, home.config, home.directory, overrides=overrides)
        return function(home=home, load=load, **options)

    for option in reversed(_BACKEND_OPTIONS):
        with_load = option(with_load)
    return placed(with_load)  # type: ignore[return-value]


class _Group(click.Group):
    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        # Click would repeat the word, which may be a link without --link before it.
        if self.get_command(ctx, args[0]) is None:
            ctx.fail(f"There is no such command. There are: {', '.join(self.list_commands(ctx))}.")
        return super().resolve_command(ctx, args)


@click.group(
    cls=_Group,
    help=_HELP,
    no_args_is_help=False,
    invoke_without_command=True,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.version_option(__version__, prog_name="coralmux-agent")
@click.pass_context
def agent(ctx: click.Context) -> int:
    if ctx.invoked_subcommand is None:
        click.echo(ctx.get_help())
    return DONE


for _command in (pair, phones, unpair, forget):
    agent.add_command(_command)


@agent.command("run")
@_chosen
@click.option("--relay", default="", metavar="URL", help="Pair a phone there if there is none yet.")
@click.option("--link", multiple=True, metavar="LINK", help="Serve this pairing alone; - reads it.")
@click.option("--link-file", multiple=True, metavar="FILE", help="A file that holds such links.")
@click.option("--log-json", is_flag=True, help="Log JSON objects, one a line.")
@click.option("-q", "--quiet", is_flag=True, help="Say nothing but what goes wrong.")
def _run(
    home: Home,
    load: Callable[[], Config],
    relay: str,
    link: tuple[str, ...],
    link_file: tuple[str, ...],
    log_json: bool,
    quiet: bool,
) -> int:
    """Answer the paired phones with the AI that the config names, until told to leave.

    Phones that are paired or unpaired meanwhile are taken on or let go. Ctrl-C and SIGTERM let
    the answers that are running come to their end first (`drain_seconds`).

    With --relay the first phone is paired on the way, as by `coralmux-agent pair`; where there
    is a phone already, nothing is paired.

    With --link, --link-file or CORALMUX_AGENT_LINK the pairings given there are served instead
    of the config's.
    """
    from coralmux.bridge import daemon

    one_off = links.read(link, link_file, _warn)
    if not one_off and not config.load_phones(home.config):
        if not relay:
            _warn("There is no phone yet. Pair one first: coralmux-agent pair, or run --relay URL")
            return REFUSED
        # What is wrong with the config or the backend is found before there is a token.
        loaded = load()
        backends.make(loaded.backend, loaded.settings, Place(home.directory))
        pair_first(home, relay)
    return daemon.run(load(), links=one_off, log_json=log_json, quiet=quiet, reload=load)


@agent.command("check")
@_chosen
@click.option("--json", "as_json", is_flag=True, help="Print JSON objects, one a line.")
def _check(home: Home, load: Callable[[], Config], as_json: bool) -> int:
    """Try the config, the relay and the AI, and say what is wrong and what to do.

    Nothing is changed, and an agent that is running goes on. Exit status 0: all is well.
    """
    return asyncio.run(_show_findings(home, load, as_json))


async def _show_findings(home: Home, load: Callable[[], Config], as_json: bool) -> int:
    from coralmux.bridge.check import check

    # The file's mode is told as a finding.
    logging.getLogger("coralmux").addHandler(logging.NullHandler())
    console = Console(highlight=False, markup=False, emoji=False, soft_wrap=True)
    bad = 0
    async for about, found in check(home, load):
        bad += not found.good
        if as_json:
            values = {"about": about, "good": found.good, "text": found.text}
            click.echo(json.dumps({**values, "remedy": found.remedy}))
            continue
        console.print("✓" if found.good else "✗", style="green" if found.good else "red", end=" ")
        console.print(found.text)
        if found.remedy:
            console.print(f"    {found.remedy}")
    if not as_json:
        console.print()
        console.print("All is well." if not bad else f"To be seen to: {bad}.")
    return FAILED if bad else DONE


@agent.command("init")
@placed_anew
@click.option("--backend", default="", metavar="NAME", help="Choose this backend right away.")
@click.option("--relay", default="", metavar="URL", help="The relay to pair phones at.")
@click.option("--force", is_flag=True, help="Overwrite a config, its phones included.")
def _init(home: Home, backend: str, relay: str, force: bool) -> int:
    """Write a config in which every setting is explained.

    It is for you to edit, and holds the phones' links later on: its mode is 600.
    """
    if backend:
        backends.find(backend)
    text = template.config(backend=backend, relay=relay and normalised(relay))
    if home.config.exists() and not force:
        _warn(f"{home.config} is there already. To overwrite it, phones included: --force.")
        return FAILED
    write_new(home.config, text)
    click.echo(f"Written: {home.config}", err=True)
    if not backend:
        click.echo(f"Choose the AI in it (backend = ...): {', '.join(backends.names())}.", err=True)
    click.echo("Look through it, then try it: coralmux-agent check", err=True)
    return DONE


def _warn(text: str) -> None:
    click.echo(f"coralmux-agent: {text}", err=True)


def run(arguments: Sequence[str]) -> int:
    """Do what the arguments say; the exit status."""
    try:
        status = agent.main(list(arguments), "coralmux-agent", standalone_mode=False)
    except click.UsageError as error:
        _warn(f"{discreet(one_line(error.format_message()))} See coralmux-agent --help.")
        return FAILED
    except (KeyboardInterrupt, click.Abort):
        return INTERRUPTED
    except (BackendUnusable, ConfigError, LinkError) as error:
        _warn(discreet(one_line(str(error))))
        return REFUSED
    except (PairingError, PhoneError, RelayProblem, StoreError) as error:
        _warn(discreet(one_line(str(error))))
        return FAILED
    except OSError as error:
        what = one_line(error.strerror or type(error).__name__)
        _warn(f"{one_line(str(error.filename))}: {what}." if error.filename else f"{what}.")
        return FAILED
    return status if isinstance(status, int) else DONE
