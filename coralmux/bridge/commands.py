"""What can be typed behind `coralmux-agent`: options, their help, and what becomes of them."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import click

from coralmux import LinkError, StoreError, __version__, user_data_directory
from coralmux.bridge import config, links
from coralmux.bridge.config import ConfigError
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


@dataclass(frozen=True)
class Home:
    """Where things are: the config, and the directory for all that is kept."""

    config: Path
    directory: Path

    @classmethod
    def of(cls, config_file: str, data_dir: str) -> Home:
        """From the options, "" where they are not given. Raises StoreError."""
        directory = (Path(data_dir) if data_dir else user_data_directory()) / "agent"
        return cls(Path(config_file) if config_file else directory / "config.toml", directory)


def _placed(function: F) -> F:
    """Adds the options that say where things are; the function gets a `home`."""

    @click.option("--config", "config_file", default="", metavar="FILE", help="The config file.")
    @click.option(
        "--data-dir",
        default="",
        metavar="DIR",
        help="Where to keep everything, instead of your data directory.",
    )
    @functools.wraps(function)
    def placed(*arguments: Any, config_file: str, data_dir: str, **options: Any) -> Any:
        return function(*arguments, home=Home.of(config_file, data_dir), **options)

    return placed  # type: ignore[return-value]


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


@agent.command("run")
@_placed
@click.option("--backend", metavar="NAME", help="Which AI answers, instead of the config's.")
@click.option("--model", help="The backend's setting `model`.")
@click.option("--base-url", metavar="URL", help="The backend's setting `base_url`.")
@click.option("--app", metavar="MODULE:OBJECT", help="The backend's setting `app`.")
@click.option("--command", metavar="PROGRAM", help="The backend's setting `command`.")
@click.option("--name", help="What phones show as the agent's name.")
@click.option("--link", multiple=True, metavar="LINK", help="Serve this pairing alone; - reads it.")
@click.option("--link-file", multiple=True, metavar="FILE", help="A file that holds such links.")
@click.option("--log-json", is_flag=True, help="Log JSON objects, one a line.")
@click.option("-q", "--quiet", is_flag=True, help="Say nothing but what goes wrong.")
def _run(
    home: Home,
    backend: str | None,
    name: str | None,
    link: tuple[str, ...],
    link_file: tuple[str, ...],
    log_json: bool,
    quiet: bool,
    **settings: str | None,
) -> int:
    """Answer the paired phones with the AI that the config names, until told to leave.

    Phones that are paired or unpaired meanwhile are taken on or let go.
    """
    from coralmux.bridge import daemon

    given = {key: value for key, value in settings.items() if value is not None}
    overrides = {"backend": backend, "name": name, "settings": given}

    def load() -> config.Config:
        return config.load(home.config, home.directory, overrides=overrides)

    one_off = links.read(link, link_file, _warn)
    chosen = load()
    if not chosen.phones and not one_off:
        _warn("There is no phone yet. Pair one first: coralmux-agent pair")
        return REFUSED
    return daemon.run(chosen, links=one_off, log_json=log_json, quiet=quiet, reload=load)


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
    except (ConfigError, LinkError) as error:
        _warn(discreet(one_line(str(error))))
        return REFUSED
    except StoreError as error:
        _warn(discreet(one_line(str(error))))
        return FAILED
    except OSError as error:
        what = one_line(error.strerror or type(error).__name__)
        _warn(f"{one_line(str(error.filename))}: {what}." if error.filename else f"{what}.")
        return FAILED
    return status if isinstance(status, int) else DONE
