"""The config that `coralmux-agent init` and `pair` write: every key, with what it means."""

from __future__ import annotations

import re

import tomlkit

from coralmux.bridge.config import KEYS
from coralmux.bridge.variables import escaped

_HEAD = """\
# The config of coralmux-agent: the AI that answers your phone.
#
# To begin, write the name of one of the tables below behind `backend =`, and see to that
# table. `coralmux-agent check` says what is missing; docs/agent.md and docs/backends.md tell
# the rest.
{how}#
# "${NAME}" in a value is the environment variable NAME, "${NAME:-x}" is x where that is not
# set, and $$ is a dollar sign. The environment wins over this file: CORALMUX_AGENT_NAME over
# name, CORALMUX_AGENT_OPENAI_MODEL over model in [openai], and so on.
#
# The links of your phones come at the end, and are secret: keep this file to yourself.
"""

_HOW_TABLES = """\
#
# The tables have no effect as they are: of the one that you choose, take away the # of its
# name and settings, where no space is behind it.
"""

# What has a # before it may be left out; it is an example, or what counts then.
_BACKENDS = """
# Any server that speaks OpenAI's language: Ollama, llama.cpp, vLLM, LM Studio, OpenAI itself.
[openai]
base_url = "http://127.0.0.1:11434/v1"  # where it is; this is Ollama
model = "llama3.2"                      # left out: the first that the server names
# api_key = "${OPENAI_API_KEY}"
# system_prompt = "You are a helpful assistant."
# temperature = 0.7
# max_tokens = 1024                     # the longest answer
# headers = { X-Title = "My phone" }    # sent along with every request
# connect_timeout = 10                  # seconds

# The OpenClaw gateway on this machine.
[openclaw]
base_url = "ws://127.0.0.1:18789"
token = "${OPENCLAW_GATEWAY_TOKEN:-}"   # the gateway's
# password = ""                         # where the gateway wants one instead
# agent = "main"                        # who answers phones that name nobody
# session = "main"

# A LangChain Runnable or a LangGraph graph, in process; or a LangGraph server by base_url.
[langchain]
app = "my_app:chain"                    # module and object
# directory = ""                        # where the module is; "": where this runs
# input = ""                            # "text", "messages" or a key, where app does not tell
# nodes = []                            # the nodes that speak to the user; []: all
# base_url = "http://127.0.0.1:2024"    # a server, instead of app
# assistant = "agent"                   # the graph's name there
# api_key = "${LANGSMITH_API_KEY}"

# A CrewAI crew, in process.
[crewai]
app = "my_crew:crew"                    # module and object
# directory = ""                        # where the module is; "": where this runs
# input = ""                            # the placeholder that takes the question
# inputs = { tone = "friendly" }        # what other placeholders are to be
# at_once = 1                           # crews that may run side by side

# An AutoGen AgentChat agent or team, in process.
[autogen]
app = "my_team:team"                    # module and object
# directory = ""                        # where the module is; "": where this runs
# speakers = []                         # the agents whose words are for the user; []: all

# AutoGPT, by the Agent Protocol.
[autogpt]
base_url = "http://127.0.0.1:8000"
# api_key = ""
# max_steps = 25                        # after so many an answer ends
# headers = { X-Title = "My phone" }    # sent along with every request
# connect_timeout = 10                  # seconds

# Any program: it reads the message on standard input, and what it prints is the answer.
[command]
command = "cat"                         # a list, or one line; no shell runs it
# directory = "."                       # where it runs
# env = { NAME = "value" }              # added to its environment
# stdin = "text"                        # "json": an object with the conversation, too
# timeout_seconds = 600

# Says what it was asked: for trying the line without any AI.
[echo]
"""


def as_toml(value: str | float | bool) -> str:
    """A default as people write it."""
    # 300 rather than 300.0, which reads like an accuracy that matters.
    plain = int(value) if isinstance(value, float) and value.is_integer() else value
    return tomlkit.item(plain).as_string()


def config(*, backend: str = "", relay: str = "", tables: bool = True) -> str:
    """The file's text; `backend` may be one that is not described here.

    Without `tables` those of the backends have no effect, for a file that nobody has looked
    through yet: its examples must not mix with what options and the environment say.
    """
    chosen: dict[str, str] = {"backend": escaped(backend), "relay": escaped(relay)}
    lines = [_HEAD.replace("{how}", "" if tables else _HOW_TABLES)]
    for key in KEYS:
        value = as_toml(chosen.get(key.name, key.default))
        lines.append(f"{f'{key.name} = {value}':<39} # {key.meaning}")
    settings = _BACKENDS if tables else re.sub(r"^(?=[\[\w])", "#", _BACKENDS, flags=re.MULTILINE)
    text = "\n".join(lines) + "\n" + settings
    if backend and not re.search(rf"^\[{re.escape(backend)}\]$", text, re.MULTILINE):
        text += f"\n[{backend}]\n"
    return text
