"""The connection with an OpenClaw gateway: one for everybody, for as long as the bridge runs.

JSON in text frames: `req` {id, method, params}, `res` {id, ok, payload or error} in any
order, `event` {event, payload, seq}. One task reads. Source: the gateway's protocol, version
4 (docs/gateway/protocol of the npm package openclaw).
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
import random
import sys
import time
from collections.abc import AsyncIterator, Callable, Mapping
from pathlib import Path
from typing import Any

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, WebSocketException

import coralmux
from coralmux.bridge.openclaw.device import Device, DeviceError
from coralmux.bridge.openclaw.frames import (
    address_of,
    challenge_of,
    part,
    read_frame,
    request_frame,
)
from coralmux.bridge.openclaw.trouble import (
    ASK_AGAIN,
    NoResponse,
    Trouble,
    of_error,
    of_refusal,
    words,
)
from coralmux.text import duration

PROTOCOL = 4
ROLE = "operator"
SCOPES = ("operator.read", "operator.write")

# Seconds for the connection with its handshake, for a request on its way (files of 20 MB go
# along), and from there for the answer to it.
_HANDSHAKE_SECONDS = 15.0
_SENDING_SECONDS = 300.0
_REQUEST_SECONDS = 30.0

# Seconds between attempts: doubled up to the longest.
_FIRST_PAUSE, _LONGEST_PAUSE = 1.0, 30.0

# Seconds between two ticks where the gateway does not say, and what is believed of it.
_TICK_SECONDS = 30.0
_SHORTEST_TICK, _LONGEST_TICK = 0.05, 600.0

# Bytes of a frame that are taken; the gateway's own limit is 25 MiB unless it is changed.
_LARGEST_FRAME = 64 * 1024 * 1024

# Of a token that was good once: the gateway has taken it back.
_TAKEN_BACK = (
    "AUTH_DEVICE_TOKEN_MISMATCH",
    "AUTH_SCOPE_MISMATCH",
    "AUTH_TOKEN_MISMATCH",
    "AUTH_UNAUTHORIZED",
)

logger = logging.getLogger(__name__)

# At its level DEBUG websockets logs frames, which hold messages and tokens.
_frames = logging.getLogger(f"{__name__}.frames")
_frames.setLevel(logging.WARNING)


class Gateway:
    """`start`, then `request` as often as wanted, then `stop`.

    `on_event(name, payload)` is told every event, `on_gap()` that some were lost, and
    `on_end(trouble)` that the connection is gone, and all that ran on it.
    """

    def __init__(
        self,
        url: str,
        directory: Path,
        *,
        token: str = "",
        password: str = "",
        say: Callable[[str], None] = lambda text: None,
        on_event: Callable[[str, Mapping[str, Any]], None] = lambda name, payload: None,
        on_gap: Callable[[], None] = lambda: None,
        on_end: Callable[[Trouble], None] = lambda trouble: None,
    ) -> None:
        self._url = url
        self._directory = directory
        self._token, self._password = token, password
        self._say = say
        self._on_event, self._on_gap, self._on_end = on_event, on_gap, on_end
        self._ids = itertools.count(1)
        self._pending: dict[str, asyncio.Future[Any]] = {}
        self._connection: ClientConnection | None = None
        self._device: Device | None = None
        self._task: asyncio.Task[None] | None = None
        # The outcome of the attempt that is under way or comes next.
        self._attempt: asyncio.Future[Trouble | None] | None = None
        self._hurry = asyncio.Event()
        # Why there is no attempt for now, whoever asks.
        self._barred: Trouble | None = None
        self._told = ""
        self.hello: Mapping[str, Any] = {}
        # Seconds that the gateway's clock was ahead of ours when the connection began.
        self.clock_ahead = 0.0

    @property
    def where(self) -> str:
        """The gateway's address, without whatever else a URL may hold."""
        parts = address_of(self._url)
        if parts is None:
            return "the address in base_url"
        return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}"

    @property
    def connected(self) -> bool:
        return self._connection is not None

    def start(self) -> None:
        """Connect, and go on connecting. `ready` tells how it went."""
        self._attempt = asyncio.get_running_loop().create_future()
        self._task = asyncio.create_task(self._run())

    async def stop(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])
        stopped = self._barred = Trouble("The bridge is leaving.")
        self._ended(stopped)
        self._settle(stopped)

    async def ready(self) -> None:
        """Wait for the connection. Raises Trouble where the next attempt fails."""
        if self._connection is not None:
            return
        if self._attempt is None:
            raise Trouble("The bridge has not begun to look for the OpenClaw gateway.")
        if self._barred is not None:
            raise self._barred.with_traceback(None)
        self._hurry.set()
        trouble = await asyncio.shield(self._attempt)
        if trouble is not None:
            # Everybody who waits is told by the same one.
            raise trouble.with_traceback(None)

    async def request(self, method: str, params: Mapping[str, Any]) -> Any:
        """What the gateway answers. Raises Trouble, and NoResponse where it does not."""
        await self.ready()
        connection = self._connection
        if connection is None:
            raise self._closed()
        id = str(next(self._ids))
        loop = asyncio.get_running_loop()
        answer = self._pending[id] = loop.create_future()
        seconds = _SENDING_SECONDS
        try:
            async with asyncio.timeout(seconds) as limit:
                await connection.send(request_frame(id, method, params))
                seconds = _REQUEST_SECONDS
                limit.reschedule(loop.time() + seconds)
                return await answer
        except TimeoutError:
            raise NoResponse(
                f"The OpenClaw gateway has not answered for {duration(seconds)}.",
                "Try again; if this repeats, look whether it is well: openclaw gateway status",
            ) from None
        except ConnectionClosed:
            raise self._closed() from None
        finally:
            self._pending.pop(id, None)

    async def _run(self) -> None:
        pause = _FIRST_PAUSE
        while True:
            try:
                async with self._connecting() as connection:
                    pause = _FIRST_PAUSE
                    self._began(connection)
                    await self._read(connection)
            except DeviceError as error:
                trouble = Trouble(str(error))
            except Trouble as error:
                trouble = error
            except (OSError, ValueError, WebSocketException) as error:
                trouble = of_error(error, self.where)
            except Exception as error:
                # Whatever it was, the next question must find somebody who connects.
                logger.error("The connection with the gateway failed: %s", type(error).__name__)
                trouble = of_error(error, self.where)
            if not self._ended(trouble):
                self._settle(trouble)
            self._tell(str(trouble))
            await self._rest(pause, trouble)
            pause = min(2 * pause, _LONGEST_PAUSE)

    async def _rest(self, pause: float, trouble: Trouble) -> None:
        """Wait before the next attempt, but no longer than until somebody asks."""
        self._hurry.clear()
        if trouble.retry_seconds:
            self._barred = trouble
            await asyncio.sleep(trouble.retry_seconds)
            self._barred = None
            return
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(pause * random.uniform(0.8, 1.2)):
                await self._hurry.wait()

    def _began(self, connection: ClientConnection) -> None:
        self._connection = connection
        self._settle(None)
        if self._told:
            self._tell("")
            self._say(f"The OpenClaw gateway at {self.where} is there.")

    def _ended(self, trouble: Trouble) -> bool:
        """Whether there was a connection. What ran on it fails at once."""
        if self._connection is None:
            return False
        self._connection = None
        for answer in self._pending.values():
            if not answer.done():
                answer.set_exception(trouble)
        self._on_end(trouble)
        return True

    def _settle(self, outcome: Trouble | None) -> None:
        """The attempt is over; from now on the next one is waited for."""
        if self._attempt is not None:
            self._attempt.set_result(outcome)
            self._attempt = self._attempt.get_loop().create_future()

    def _tell(self, text: str) -> None:
        """Tell the operator, once for as long as it is so."""
        if text and text != self._told:
            self._say(text)
        self._told = text

    def _closed(self) -> Trouble:
        return Trouble(f"The OpenClaw gateway at {self.where} closed the connection.", ASK_AGAIN)

    @contextlib.asynccontextmanager
    async def _connecting(self) -> AsyncIterator[ClientConnection]:
        """A connection that the gateway has taken."""
        try:
            async with self._dialed() as connection:
                yield connection
                return
        except Trouble as trouble:
            device = self._device
            if not device or not device.token(self._url) or trouble.code not in _TAKEN_BACK:
                raise
        await asyncio.to_thread(device.keep_token, self._url, "")
        # What the config has may still be good.
        async with self._dialed() as connection:
            yield connection

    @contextlib.asynccontextmanager
    async def _dialed(self) -> AsyncIterator[ClientConnection]:
        address = address_of(self._url)
        if address is None:
            raise Trouble(
                "The gateway's address cannot be read.", "base_url is like ws://127.0.0.1:18789."
            )
        here = address.hostname in ("localhost", "127.0.0.1", "::1")
        async with contextlib.AsyncExitStack() as stack:
            async with asyncio.timeout(_HANDSHAKE_SECONDS):
                connection = await stack.enter_async_context(
                    connect(
                        self._url,
                        compression=None,
                        max_size=_LARGEST_FRAME,
                        ping_interval=None,  # the gateway's ticks tell as much
                        close_timeout=1,
                        proxy=None if here else True,
                        logger=_frames,
                    )
                )
                await self._shake_hands(connection)
            yield connection

    async def _shake_hands(self, connection: ClientConnection) -> None:
        challenge = challenge_of(read_frame(await connection.recv()))
        self.clock_ahead = challenge["ts"] / 1000 - time.time()
        if self._device is None:
            # Not before there is somebody who wants the key: a check may find nobody.
            self._device = await asyncio.to_thread(Device.load, self._directory)
        device = self._device
        id = str(next(self._ids))
        introduction = self._introduction(challenge, device)
        await connection.send(request_frame(id, "connect", introduction))
        while (frame := read_frame(await connection.recv())).get("id") != id:
            pass
        if frame.get("ok") is not True:
            error = frame.get("error")
            raise of_refusal(error if isinstance(error, Mapping) else {}, self._secrets())
        hello = frame.get("payload")
        if not isinstance(hello, Mapping) or hello.get("type") != "hello-ok":
            raise ValueError("no hello")
        if hello.get("protocol") != PROTOCOL:
            raise of_refusal({"details": {"code": "PROTOCOL_MISMATCH"}}, ())
        self.hello = hello
        given = part(hello, "auth").get("deviceToken")
        if isinstance(given, str) and given:
            await asyncio.to_thread(device.keep_token, self._url, given)

    def _introduction(self, challenge: Mapping[str, Any], device: Device) -> dict[str, Any]:
        """The parameters of `connect`, with the device's own token before the config's."""
        client = {
            "id": "gateway-client",
            "version": coralmux.__version__,
            "platform": sys.platform,
            "mode": "backend",
        }
        token = device.token(self._url) or self._token
        auth = {"token": token} if token else {}
        if self._password:
            auth["password"] = self._password
        return {
            "minProtocol": PROTOCOL,
            "maxProtocol": PROTOCOL,
            "client": client,
            "role": ROLE,
            "scopes": list(SCOPES),
            "caps": ["tool-events"],
            "auth": auth,
            "device": device.proof(challenge, client=client, role=ROLE, scopes=SCOPES, token=token),
        }

    async def _read(self, connection: ClientConnection) -> None:
        """Take what comes until the connection ends. Raises Trouble and ConnectionClosed."""
        tick = part(self.hello, "policy").get("tickIntervalMs")
        seconds = tick / 1000 if isinstance(tick, int | float) else _TICK_SECONDS
        patience = 2 * min(max(seconds, _SHORTEST_TICK), _LONGEST_TICK)
        last: int | None = None
        while True:
            try:
                async with asyncio.timeout(patience):
                    text = await connection.recv()
            except TimeoutError:
                raise Trouble(
                    f"The OpenClaw gateway at {self.where} has fallen silent.",
                    "Ask again. If this repeats, look whether it is well: openclaw gateway status",
                ) from None
            try:
                frame = read_frame(text)
            except ValueError:
                continue  # what is no frame says nothing
            if frame.get("type") == "res":
                self._answered(frame)
            elif frame.get("type") == "event":
                seq = frame.get("seq")
                if isinstance(seq, int):
                    if last is not None and seq <= last:
                        continue
                    if last is not None and seq > last + 1:
                        self._on_gap()
                    last = seq
                self._on_event(str(frame.get("event")), part(frame, "payload"))

    def _answered(self, frame: Mapping[str, Any]) -> None:
        answer = self._pending.get(str(frame.get("id")))
        if answer is None or answer.done():
            return
        if frame.get("ok") is True:
            answer.set_result(frame.get("payload"))
            return
        error = part(frame, "error")
        answer.set_exception(
            Trouble(
                "The OpenClaw gateway refuses.",
                said=words(error.get("message"), self._secrets()),
                code=str(error.get("code") or ""),
            )
        )

    def _secrets(self) -> tuple[str, ...]:
        kept = self._device.token(self._url) if self._device else ""
        return tuple(filter(None, (kept, self._token, self._password)))
