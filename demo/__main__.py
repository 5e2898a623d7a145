"""A relay, a small language model and the agent between them, all on this machine.

One command, and a link for your phone; Ctrl-C stops all of it. Nothing here needs the
network. The model is small enough to run anywhere, and knows about as little as that
suggests; where it is not installed the agent repeats what you say.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import errno
import json
import secrets
import shlex
import shutil
import signal
import socket
import sys
from pathlib import Path

from coralmux import PairingLink, private_files
from coralmux.bridge.running import AlreadyRunning, alone
from demo import lan
from demo.model import NAME, weights
from demo.parts import DemoError, Part, Parts, Stopping, environment, shown

_EXAMPLES = """\
examples:
  make demo                        for this machine alone
  make demo LAN=1                  for phones in the local network, by https
  make demo LAN=192.168.1.20 PORT=8443

Each start makes a new link, good for one phone; phones of earlier starts are forgotten.
Everything is kept in the directory of --state: delete it, and nothing is left.
"""

_ECHO = """\
# Made by the demo, anew at each start.
name = "Echo"
backend = "echo"
drain_seconds = 1
"""

_OPENAI = """\
# Made by the demo, anew at each start.
name = "SmolLM2"
backend = "openai"
drain_seconds = 1

[openai]
base_url = "{base_url}"
model = "{model}"
system_prompt = "You are a helpful assistant. Answer in one or two short sentences."
max_tokens = 256
temperature = 0
"""


# In a directory that is the demo's to empty.
_MARK = ".demo"


class Demo:
    """One run of it."""

    def __init__(self, state: Path, port: int, lan_wanted: str) -> None:
        self._state = state
        self._port = port
        self._address = lan.address(lan_wanted) if lan_wanted else None
        self._admin_key = secrets.token_urlsafe(24)
        self._parts = Parts()
        self._told = False

    async def run(self) -> None:
        """Until somebody wants it to end. Raises DemoError and OSError."""
        loop = asyncio.get_running_loop()
        for name in ("SIGINT", "SIGTERM", "SIGHUP"):
            with contextlib.suppress(AttributeError, NotImplementedError):  # Windows
                loop.add_signal_handler(getattr(signal, name), self._parts.ask_to_stop)
        # What was paired with an earlier relay has nothing to meet at this one.
        for directory in ("relay", "agent"):
            shutil.rmtree(self._state / directory, ignore_errors=True)
        try:
            async with contextlib.AsyncExitStack() as stack:
                await self._serve(stack)
        except Stopping:
            say("\nStopping …")
        finally:
            await self._parts.stop()

    async def _serve(self, stack: contextlib.AsyncExitStack) -> None:
        port = await self._relay(0 if self._address else self._port)
        model = await self._model()
        link = await self._pair(port, model)
        if self._address is not None:
            link = await self._in_the_network(stack, port, link)
        await self._agent()
        self._tell(link, model)
        await self._parts.until(asyncio.Event().wait())

    async def _relay(self, port: int) -> int:
        """Start it; its port. Raises DemoError where a port is wanted and taken."""
        say("Starting the relay …")
        if port and _is_taken(port):
            raise DemoError(
                f"Another program listens on port {port}. Stop it, or choose another port: "
                "make demo PORT=…"
            )
        relay = Part("relay", self._state / "relay.log")
        greeting = relay.line(r"^CoralMux Relay .*:(\d+) \(WebSocket")
        await self._parts.start(
            relay,
            "coralmux_site.cli",
            *("-addr", f"127.0.0.1:{port}"),
            *("-state-dir", str(self._state / "relay")),
            env=environment(CORALMUX_ADMIN_KEY=self._admin_key),
        )
        return int((await self._parts.until(greeting))[1])

    async def _model(self) -> str:
        """Start it; its base URL, or "" where there is none."""
        if weights() is None:
            return ""
        say("Starting the model …")
        model = Part("model", self._state / "model.log")
        address = model.line(r"^http://\S+$")
        await self._parts.start(model, "demo.model", env=environment())
        return (await self._parts.until(address))[0] + "/v1"

    async def _pair(self, port: int, model: str) -> PairingLink:
        """Write the agent's config, and pair a phone as anybody would."""
        config = self._state / "agent" / "config.toml"
        private_files.make_directory(config.parent)
        settings = _ECHO if not model else _OPENAI.format(base_url=model, model=NAME)
        private_files.replace(config, settings.encode())
        made = await self._parts.output(
            "pairing",
            "coralmux.bridge.cli",
            *("pair", "--relay", f"ws://127.0.0.1:{port}", "--admin-key", "env", "--json"),
            *("--data-dir", str(self._state)),
            env=environment(CORALMUX_ADMIN_KEY=self._admin_key),
        )
        return PairingLink.parse(json.loads(made)["link"])

    async def _agent(self) -> None:
        say("Starting the agent …")
        agent = Part("agent", self._state / "agent.log", hear=self._hear)
        connected = agent.line("connected to ")
        await self._parts.start(
            agent, "coralmux.bridge.cli", "run", "--data-dir", str(self._state), env=environment()
        )
        await self._parts.until(connected)

    async def _in_the_network(
        self, stack: contextlib.AsyncExitStack, relay_port: int, link: PairingLink
    ) -> PairingLink:
        """Make the relay known to the network; the link that phones get there."""
        assert self._address is not None
        files = lan.certificate(self._state, self._address)
        port = await stack.enter_async_context(
            lan.tls_in_front(relay_port, self._address, self._port, files)
        )
        host = f"[{self._address}]" if self._address.version == 6 else str(self._address)
        return PairingLink(f"wss://{host}:{port}", link.token, link.secret)

    def _hear(self, line: str) -> None:
        """What the agent says is for people once they have the link."""
        if self._told:
            say(line)

    def _tell(self, link: PairingLink, model: str) -> None:
        ask = f"{_script('coralmux-phone')} --link {shlex.quote(link.web())}"
        if self._address is not None:
            ask = f"SSL_CERT_FILE={shlex.quote(shown(self._state / 'cert.pem'))} {ask}"
        say("")
        say(link.qr_terminal())
        say(f"The link for your phone, good once:\n\n  {link.web()}\n")
        if self._address is not None:
            say(
                "A browser will warn of the certificate: this machine has made it itself, since "
                f"no authority certifies {self._address}. Its SHA-256 is\n"
                f"  {lan.fingerprint(self._state)}\n"
            )
        if self._address is None:
            say("Open it in a browser on this machine, and chat.")
        else:
            say("Scan the code with your phone's camera, open what it says, and chat.")
        say(f'Or, in another terminal:\n\n  {ask} ask "Say hello"\n')
        if model:
            say("SmolLM2 answers, a language model of 135 million parameters, on this machine.")
        else:
            say(
                "The model is not installed here (make model), so nobody thinks: the agent "
                "repeats what you say."
            )
        say("Ctrl-C stops everything.\n")
        self._told = True


def _is_taken(port: int) -> bool:
    with socket.socket() as probe:
        # As the relay binds: a port that was just left is free.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError as error:
            return error.errno == errno.EADDRINUSE
    return False


def _script(name: str) -> str:
    """One of our commands as it is typed here."""
    beside = Path(sys.executable).parent / name
    return shlex.quote(shown(beside)) if beside.exists() else name


def say(text: str) -> None:
    # Whoever reads it may be gone before the rest is.
    with contextlib.suppress(OSError):
        sys.stdout.write(text + "\n")
        sys.stdout.flush()


def main() -> int:
    """Exit status: 0 after Ctrl-C, 1 when something went wrong, 2 for wrong usage."""
    parser = argparse.ArgumentParser(
        prog="python -m demo",
        description=__doc__,
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--port", type=int, default=0, help="the relay's port (0, the default: any free one)"
    )
    parser.add_argument(
        "--lan",
        default="",
        metavar="ADDRESS",
        help="serve phones in the local network at this address of this machine, by https; "
        "1 finds the address",
    )
    parser.add_argument(
        "--state",
        type=Path,
        default=Path(".state/demo"),
        metavar="DIR",
        help="where everything is kept (default: .state/demo)",
    )
    options = parser.parse_args()
    if not 0 <= options.port <= 65535:
        parser.error("a port is a number from 0 to 65535")
    state = options.state.absolute()
    if _is_somebody_elses(state):
        return _failed(
            f"{shown(state)} holds other things, and the demo begins by deleting. Give it a "
            "directory of its own: make demo STATE=DIR"
        )
    try:
        with alone(state):
            (state / _MARK).touch()
            asyncio.run(Demo(state, options.port, options.lan).run())
    except AlreadyRunning:
        return _failed(
            f"A demo runs on {shown(state)} already. Stop it first, or give this one a "
            "directory of its own: make demo STATE=DIR"
        )
    except DemoError as error:
        return _failed(str(error))
    except OSError as error:
        return _failed(f"{error.filename or 'The demo'}: {error.strerror}.")
    return 0


def _is_somebody_elses(state: Path) -> bool:
    return state.is_dir() and any(state.iterdir()) and not (state / _MARK).exists()


def _failed(text: str) -> int:
    sys.stderr.write(f"demo: {text}\n")
    return 1


if __name__ == "__main__":
    sys.exit(main())
