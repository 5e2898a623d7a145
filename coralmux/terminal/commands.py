"""What can be typed behind `coralmux-phone`: options, their help, and what becomes of them."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import click

from coralmux import __version__
from coralmux.client.attachments import Attachment
from coralmux.client.errors import ClientError
from coralmux.client.phone import SILENCE_SECONDS
from coralmux.e2e.link import LinkError
from coralmux.protocol.limits import MAX_MESSAGE_BYTES
from coralmux.terminal import pairing
from coralmux.terminal.ask import Question, ask
from coralmux.terminal.pictures import load
from coralmux.terminal.standard_input import StandardInput, TooMuchInput
from coralmux.terminal.words import (
    FAILED,
    INTERRUPTED,
    exit_status,
    of_error,
)
from coralmux.text import discreet, one_line

_HELP = """\
Talk to your AI agent from a terminal, end-to-end encrypted through a relay.

\b
Start here:
  coralmux-phone --link 'https://relay.example.com/phone#token=...&psk=...'
      opens a chat; /help in it tells more
  coralmux-phone --link-file ~/agent.link ask "What is in this picture?" --image cat.jpg
      prints the answer and nothing else
  git diff | coralmux-phone ask "Anything wrong with this?"
      with the link in the environment variable CORALMUX_LINK

The link is what your agent's side shows when you pair: it names the relay and the pairing,
and holds a secret that the relay never sees. It is good for one phone. What this phone
needs to come back is kept on this machine, so the same link works here again.

Other users of a machine can read what stands on a command line. Where there are any, use
--link-file with a file of mode 600, --link - (reads it from standard input) or
CORALMUX_LINK.

\b
Exit status:
  0    the answer came to its end; the chat was left
  1    something else went wrong; standard error says what
  2    the pairing is refused or the link is no good: get a new link
  130  cancelled by Ctrl-C
"""

_ASK_HELP = """\
Ask one question, print the answer to standard output, and leave.

The question is what stands here, or what is piped in. With both, the piped text follows
behind the question, after an empty line; in loops and jobs whose input is something else,
add </dev/null. A single - asks what is piped in.

A pipe or file gets the answer exactly as the agent gives it; a terminal gets it without
control characters. With --json there is one object a line: {"type": "delta", "text"},
{"type": "tool", "tool", "status"}, and at the end {"type": "done", "text", ...} or
{"type": "error", "code", "message", "status"}.
"""

# Seconds until somebody is told that we wait for the end of standard input.
_HINT_SECONDS = 3.0

F = TypeVar("F", bound=Callable[..., Any])


def _shared(function: F) -> F:
    """Options that may stand before `ask` or behind it."""
    options = [
        click.option("--link", default="", metavar="LINK", help="The pairing link; - reads it."),
        click.option("--link-file", default="", metavar="FILE", help="A file that holds it."),
        click.option(
            "--image",
            multiple=True,
            metavar="FILE",
            help="Send a picture with the (first) question. Repeatable.",
        ),
        click.option("--agent", default="", metavar="ID", help="Which of several agents to ask."),
        click.option(
            "--save", default="", metavar="DIR", help="Where to keep files that come with answers."
        ),
        click.option(
            "--data-dir",
            default="",
            metavar="DIR",
            help="Where to keep the pairing, instead of your data directory.",
        ),
        click.option("-q", "--quiet", is_flag=True, help="Nothing on standard error but errors."),
    ]
    for option in reversed(options):
        function = option(function)
    return function


class _Group(click.Group):
    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        # Click would repeat the word, which may be a link without --link before it.
        if self.get_command(ctx, args[0]) is None:
            ctx.fail(
                "There is no such command. A link belongs behind --link, a question behind ask."
            )
        return super().resolve_command(ctx, args)


@click.group(
    cls=_Group,
    help=_HELP,
    invoke_without_command=True,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@_shared
@click.version_option(__version__, prog_name="coralmux-phone")
@click.pass_context
def phone(ctx: click.Context, /, **options: Any) -> int:
    ctx.obj = options
    return 0 if ctx.invoked_subcommand else _chat(options)


@phone.command("ask", help=_ASK_HELP)
@click.argument("question", nargs=-1)
@_shared
@click.option(
    "--timeout",
    type=click.FloatRange(min=0, min_open=True, max=86_400),
    default=SILENCE_SECONDS,
    show_default=True,
    metavar="SECONDS",
    help="Give up when nothing came for so long.",
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON, one object a line.")
@click.pass_context
def _ask(
    ctx: click.Context,
    /,
    question: tuple[str, ...],
    timeout: float,
    as_json: bool,
    **options: Any,
) -> int:
    merged = {name: value or ctx.obj[name] for name, value in options.items()}
    merged["image"] = (*ctx.obj["image"], *options["image"])
    stdin = StandardInput()
    link = pairing.read_link(merged["link"], merged["link_file"], stdin, _warn)
    pictures = _pictures(merged["image"])
    text = _question(" ".join(question), stdin)
    if not text.strip() and not pictures:
        raise click.UsageError(
            'There is no question. For example: coralmux-phone ask "How are you?"'
        )
    asked = Question(
        text=text,
        pictures=pictures,
        agent_id=merged["agent"],
        timeout=timeout,
        save=merged["save"],
        as_json=as_json,
        quiet=merged["quiet"],
    )
    return asyncio.run(ask(link, pairing.store(merged["data_dir"]), asked))


def _chat(options: dict[str, Any]) -> int:
    # Takes a while to import, which a single question can do without.
    from coralmux.terminal.chat import chat

    stdin = StandardInput()
    link = pairing.read_link(options["link"], options["link_file"], stdin, _warn)
    talk = chat(
        link,
        pairing.store(options["data_dir"]),
        stdin,
        pictures=_pictures(options["image"]),
        agent_id=options["agent"],
        save=options["save"],
        quiet=options["quiet"],
    )
    return asyncio.run(talk)


def _pictures(paths: Sequence[str]) -> list[Attachment]:
    return [load(path) for path in paths]


def _question(argument: str, stdin: StandardInput) -> str:
    """What stands on the command line, what is piped in, or the one behind the other."""
    typed = "" if argument == "-" else argument
    if any("\ud800" <= character <= "\udfff" for character in typed):
        raise click.UsageError("The question is not UTF-8 text. Pipe it in after iconv.")
    if typed and not stdin.is_piped:
        return typed
    piped = _read(stdin)
    return f"{typed}\n\n{piped}" if typed and piped.strip() else typed or piped


def _read(stdin: StandardInput) -> str:
    hint = "Reading standard input to its end (Ctrl-D). To ask without it, add </dev/null."
    timer = threading.Timer(_HINT_SECONDS, _warn, [hint])
    timer.daemon = True
    timer.start()
    try:
        data = stdin.read_all(MAX_MESSAGE_BYTES)
    finally:
        timer.cancel()
    try:
        return data.decode().rstrip("\r\n")
    except UnicodeDecodeError:
        pass
    raise click.UsageError(
        "Standard input is not UTF-8 text. To send a picture or another file use --image FILE."
    )


def _warn(text: str) -> None:
    click.echo(f"coralmux-phone: {text}", err=True)


def run(arguments: Sequence[str]) -> int:
    """Do what the arguments say; the exit status."""
    try:
        status = phone.main(list(arguments), "coralmux-phone", standalone_mode=False)
    except click.UsageError as error:
        _warn(f"{discreet(one_line(error.format_message()))} See coralmux-phone --help.")
        return FAILED
    except (KeyboardInterrupt, click.Abort):
        return INTERRUPTED
    except TooMuchInput:
        _warn("Standard input holds more than one message can. Send less, or a file by --image.")
        return FAILED
    except (LinkError, ClientError, pairing.NoLink, OSError) as error:
        _warn(of_error(error))
        return exit_status(error)
    return status if isinstance(status, int) else 0
