"""What can be typed in a chat beside questions."""

from __future__ import annotations

import shlex
from collections.abc import Awaitable, Callable
from datetime import datetime
from typing import TYPE_CHECKING

from coralmux.client.attachments import Attachment, megabytes
from coralmux.client.errors import AgentError
from coralmux.client.messages import HistoryEntry, SystemStatus
from coralmux.terminal.pictures import load, save_all
from coralmux.terminal.prompt import Leave
from coralmux.terminal.words import (
    of_agent,
    of_error,
    of_proof,
)
from coralmux.text import duration, one_line, without_controls

if TYPE_CHECKING:
    from coralmux.terminal.chat import Chat

_HISTORY = 20

_HELP = """\
/image FILE   send a picture or another file with the next question (/image alone: none)
/agents       which agents there are
/agent ID     talk to another one (/agent alone: to the first again)
/history      the last messages
/save DIR     keep the files that came with the last answer
/status       who answers, and how the agent's machine is doing
/connect      connect now; takes the place back from another device
/quit         leave (or Ctrl-C, Ctrl-D)
//question    asks what begins with a slash"""


def is_command(text: str) -> bool:
    return text.startswith("/") and not text.startswith("//")


def unescaped(text: str) -> str:
    return text[1:] if text.startswith("//") else text


async def run(chat: Chat, text: str) -> None:
    """Carry a command out. Raises Leave, ClientError or OSError."""
    name, _, argument = text[1:].partition(" ")
    command = _COMMANDS.get(name.lower())
    if command is None:
        chat.notes.insist(f"There is no /{one_line(name)}. /help tells what there is.")
        return
    await command(chat, argument.strip())


async def _help(chat: Chat, argument: str) -> None:
    chat.notes.insist(_HELP)


async def _quit(chat: Chat, argument: str) -> None:
    raise Leave


async def _image(chat: Chat, argument: str) -> None:
    if not argument:
        chat.pictures = []
        chat.notes.say("No file goes with the next question. To send one: /image cat.jpg")
        return
    picture: Attachment = load(_path(argument))
    chat.pictures.append(picture)
    size = megabytes(len(picture.data))
    chat.notes.say(f"{one_line(picture.name)} ({size}) goes with the next question.")


async def _agents(chat: Chat, argument: str) -> None:
    for agent in await chat.phone.agents():
        mark = "*" if agent.id == chat.agent_id else " "
        more = " · ".join(one_line(part) for part in (agent.description, agent.model) if part)
        name = one_line(agent.name) or one_line(agent.id)
        chat.notes.insist(f"{mark} {one_line(agent.id)}: {name}{f' ({more})' if more else ''}")
    if not chat.agent_id:
        chat.notes.say("/agent ID talks to one of them; now it is the agent's own choice.")


async def _agent(chat: Chat, argument: str) -> None:
    if argument and argument not in {agent.id for agent in await chat.phone.agents()}:
        chat.notes.insist(f"There is no agent {one_line(argument)}. /agents tells who there is.")
        return
    chat.agent_id = argument
    chat.notes.say(f"Questions go to {one_line(argument) or 'whom the agent chooses'} now.")


async def _history(chat: Chat, argument: str) -> None:
    entries = await chat.phone.history(chat.agent_id, _HISTORY)
    for entry in entries:
        chat.notes.insist(_entry(entry))
    if not entries:
        chat.notes.say("Nothing was said yet.")


async def _save(chat: Chat, argument: str) -> None:
    if not chat.received:
        chat.notes.insist("No files came with an answer yet.")
    elif not argument:
        chat.notes.insist("Where to? For example: /save pictures")
    else:
        save_all(chat.received, _path(argument), chat.notes)


async def _status(chat: Chat, argument: str) -> None:
    channel = chat.phone.channel
    peer = chat.phone.agent
    if peer is None or not channel.ready:
        chat.notes.insist("There is no connection with the agent now.")
        return
    chat.notes.insist(of_agent(peer, chat.link))
    chat.notes.insist(of_proof(peer))
    greeting = channel.greeting
    if greeting and greeting.daily_quota_bytes and greeting.daily_used_bytes is not None:
        used, quota = megabytes(greeting.daily_used_bytes), megabytes(greeting.daily_quota_bytes)
        chat.notes.insist(f"When we connected, {used} of the day's {quota} were used.")
    try:
        chat.notes.insist(_machine(await chat.phone.system_status()))
    except AgentError as error:
        chat.notes.say(of_error(error))


async def _connect(chat: Chat, argument: str) -> None:
    if chat.phone.channel.ready:
        chat.notes.say("The agent is connected already.")
        return
    chat.phone.reconnect()
    if chat.phone.channel.failure is not None:
        # It is over for good, and coming back was not even tried.
        chat.notes.say(of_error(chat.phone.channel.failure))


_COMMANDS: dict[str, Callable[[Chat, str], Awaitable[None]]] = {
    "help": _help,
    "image": _image,
    "agents": _agents,
    "agent": _agent,
    "history": _history,
    "save": _save,
    "status": _status,
    "connect": _connect,
    "quit": _quit,
}


def _path(argument: str) -> str:
    """A path as people type it: whole, or quoted as a terminal does that a file is dropped on."""
    try:
        parts = shlex.split(argument)
    except ValueError:
        return argument
    return parts[0] if len(parts) == 1 else argument


def _entry(entry: HistoryEntry) -> str:
    when = ""
    if isinstance(entry.timestamp, int | float) and 0 < entry.timestamp < 1e14:
        # Seconds from those who do not use milliseconds: the year 5138 in one of them.
        seconds = entry.timestamp / 1000 if entry.timestamp > 1e11 else entry.timestamp
        when = f"{datetime.fromtimestamp(seconds):%Y-%m-%d %H:%M} "
    return f"{when}{one_line(entry.role)}: {without_controls(entry.content)}"


def _machine(status: SystemStatus) -> str:
    parts = []
    if status.cpu_percent is not None:
        parts.append(f"CPU {status.cpu_percent:.0f} %")
    if status.memory_percent is not None:
        parts.append(f"memory {status.memory_percent:.0f} %")
    if status.gpu_percent is not None:
        parts.append(f"GPU {status.gpu_percent:.0f} %")
    if status.uptime_seconds is not None:
        parts.append(f"up for {duration(status.uptime_seconds)}")
    return "The agent's machine: " + (", ".join(parts) or "it tells nothing.")
