"""`coralmux-agent run`: a backend, an agent for all phones, and the signals that end it."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from types import FrameType

from coralmux import (
    Agent,
    BackendError,
    ChatMessage,
    ClientError,
    FileStore,
    PairingLink,
    PeerInfo,
    Stopped,
    StoreError,
    events,
)
from coralmux.bridge import backends, serving
from coralmux.bridge.answering import finished
from coralmux.bridge.backend import Backend, Place
from coralmux.bridge.backends import BackendUnusable
from coralmux.bridge.config import Config, ConfigError
from coralmux.bridge.conversations import Conversations, phone_key
from coralmux.bridge.logs import Log
from coralmux.bridge.phones import PairedPhone
from coralmux.bridge.reports import Reports
from coralmux.bridge.running import AlreadyRunning, alone
from coralmux.bridge.seen import Seen
from coralmux.bridge.service import Service

DONE, FAILED, REFUSED = 0, 1, 2

# Seconds between two looks at the config.
_WATCH_SECONDS = 1.0

# Its terminal was closed; Windows has no signal for that.
_HANGUP = getattr(signal, "SIGHUP", None)

# Seconds that is waited at the end for what was left behind.
_LEAVE_SECONDS = 2.0

# Seconds that a backend gets to end an answer when we leave at once.
_HURRIED_SECONDS = 0.5


def run(
    config: Config,
    *,
    links: Sequence[PairingLink] = (),
    log_json: bool = False,
    quiet: bool = False,
    reload: Callable[[], Config] | None = None,
) -> int:
    """Serve the config's phones, or `links` instead, until SIGTERM or Ctrl-C; the exit status.

    With `reload`, which may raise ConfigError, phones are taken on and let go as the config's
    file changes.
    """
    log = Log(as_json=log_json, quiet=quiet)
    try:
        with (
            log.library(),
            alone(config.directory, watches=None if links or reload is None else config.path),
        ):
            return asyncio.run(_Daemon(config, links, log, reload).run())
    except AlreadyRunning:
        log.warn(
            f"An agent runs on {config.directory} already. Stop it first, or give this one "
            "a directory of its own by --data-dir."
        )
    except OSError as error:
        log.warn(f"{error.filename}: {error.strerror}." if error.filename else str(error))
    return FAILED


class _Daemon:
    def __init__(
        self,
        config: Config,
        links: Sequence[PairingLink],
        log: Log,
        reload: Callable[[], Config] | None,
    ) -> None:
        self._config = config
        self._log = log
        self._reload = None if links else reload
        self._phones = _named(links, config) if links else list(config.phones)
        self._store = FileStore(config.directory / "pairings")
        self._seen = Seen(config.directory)
        self._conversations = Conversations(
            config.directory / "conversations", turns=config.history_turns, say=log.warn
        )
        self._reports = Reports(log, self._name)
        self._agent = Agent(name=config.name, store=self._store, finish_unheard=True)
        self._service: Service
        self._main: asyncio.Task[int] | None = None
        self._leaving: asyncio.Task[None] | None = None
        self._changing = asyncio.Lock()
        self._stamp = _stamp(config)

    async def run(self) -> int:
        place = Place(
            self._config.directory / "backends" / self._config.backend,
            self._config.name,
            # What backends say is mostly that somebody has to do something.
            lambda text: self._log.tell("backend", text, warning=True),
        )
        try:
            backend = backends.make(self._config.backend, self._config.settings, place)
        except BackendUnusable as error:
            self._log.tell("refused", str(error), warning=True)
            return REFUSED
        self._main = asyncio.create_task(self._serve(backend))
        with _signals(self._leave):
            status = FAILED
            with contextlib.suppress(asyncio.CancelledError):
                status = await self._main
        await self._end(status)
        return status

    # The life of it.

    async def _serve(self, backend: Backend) -> int:
        config = self._config
        self._service = Service(
            backend,
            self._conversations,
            self._reports,
            silence_seconds=config.silence_seconds,
            system_status=config.system_status,
            heard=self._heard,
            say=self._log.warn,
        )
        self._service.attach(self._agent)
        self._agent.on_event(self._event)
        try:
            await self._announce()
            if not await self._started(backend):
                return FAILED
            for phone in self._phones:
                self._take_on(phone)
            self._log.tell(
                "serving",
                f"{config.name} answers {_phones(len(self._phones))} by the backend "
                f"{config.backend}. Ctrl-C ends it.",
                backend=config.backend,
                phones=len(self._phones),
            )
            return await self._until_left()
        except asyncio.CancelledError:
            # Asked twice to leave: what still runs has had its time.
            await self._agent.close()
            return DONE
        finally:
            await self._service.close()
            await finished(backend.stop(), _LEAVE_SECONDS)
            self._write(at_once=True)
            with contextlib.suppress(OSError):
                serving.withdraw(self._config.directory)

    async def _started(self, backend: Backend) -> bool:
        try:
            await backend.start()
        except (BackendError, BackendUnusable) as error:
            self._log.warn(str(error))
        except Exception as error:
            # Its text may hold anything.
            self._log.warn(f"The backend {self._config.backend} failed ({type(error).__name__}).")
        else:
            return True
        return False

    async def _until_left(self) -> int:
        watching = asyncio.create_task(self._watch())
        try:
            while self._leaving is None and await self._any_phone():
                # Ends with the last pairing, which another may be about to follow.
                await self._agent.serve()
        except Stopped as error:
            text = f"No phone is left to serve. {error} Pair anew: coralmux-agent pair"
            self._log.tell("ended", text, warning=True, code=error.code)
            return REFUSED
        except ClientError as error:
            self._log.warn(str(error))
            return FAILED
        finally:
            watching.cancel()
        if self._leaving is not None:
            await self._leaving
            self._log.tell("left", "Left.")
            return DONE
        self._log.warn("No phone is left to serve. Pair one: coralmux-agent pair")
        return REFUSED

    async def _any_phone(self) -> bool:
        async with self._changing:
            return bool(self._agent.pairings)

    def _leave(self, number: int) -> None:
        """Asked to leave; asked again, leave at once."""
        if self._main is None or self._main.done():
            return
        if self._leaving is not None and number == _HANGUP:
            return  # system and shell both tell of a closed terminal
        if self._leaving is not None or not self._agent.pairings:
            self._log.tell("leaving", "Leaving at once.")
            self._service.stop_seconds = _HURRIED_SECONDS
            self._main.cancel()
            return
        seconds = self._config.drain_seconds
        running = self._service.running
        if running and seconds:
            self._log.tell(
                "leaving",
                f"Leaving; {_answers(running)} may end first, {seconds:g} s at most. "
                "Ctrl-C again leaves at once.",
                answers=running,
            )
        else:
            self._log.tell("leaving", "Leaving.", answers=running)
        self._leaving = asyncio.create_task(self._agent.close(drain_seconds=seconds))

    async def _end(self, status: int) -> None:
        """End the process where something would keep it from ending."""
        loop = asyncio.get_running_loop()
        left = asyncio.all_tasks() - {asyncio.current_task()}
        for task in left:
            task.cancel()
        threads = loop.create_task(loop.shutdown_default_executor())
        _, stubborn = await asyncio.wait({*left, threads}, timeout=_LEAVE_SECONDS)
        ours = threading.main_thread()
        if stubborn or any(not t.daemon and t is not ours for t in threading.enumerate()):
            for stream in (sys.stdout, sys.stderr):
                with contextlib.suppress(OSError, ValueError):
                    stream.flush()
            os._exit(status)

    # Phones.

    def _name(self, link: PairingLink) -> str:
        return next((p.name for p in self._phones if p.link.token == link.token), "A phone")

    def _take_on(self, phone: PairedPhone) -> None:
        try:
            self._agent.add(phone.link)
        except StoreError as error:
            self._log.tell("refused", f"{phone.name}: {error}", warning=True, phone=phone.name)

    async def _let_go(self, phone: PairedPhone) -> None:
        """Serve it no more. What is kept of it is deleted by whoever unpairs it."""
        self._log.tell("let_go", f"{phone.name}: let go.", phone=phone.name)
        with contextlib.suppress(ValueError):
            await self._agent.remove(phone.link)
        self._reports.forget(phone.link)
        self._seen.forget(phone.key)

    async def _announce(self) -> None:
        keys = [phone.key for phone in self._phones]
        with contextlib.suppress(OSError):
            await asyncio.to_thread(serving.announce, self._config.directory, keys)

    def _event(self, link: PairingLink, event: object) -> None:
        self._reports.event(link, event)
        if isinstance(event, events.Established):
            self._mark(link, event.peer)

    def _heard(self, message: ChatMessage) -> None:
        self._mark(message.pairing, message.phone)

    def _mark(self, link: PairingLink, peer: PeerInfo) -> None:
        key, name = phone_key(link.token), self._name(link)
        self._seen.mark(key, name, verified=peer.verified, protocol=peer.protocol)

    # The config.

    async def _watch(self) -> None:
        before = self._stamp
        while self._leaving is None:
            await asyncio.sleep(_WATCH_SECONDS)
            await asyncio.to_thread(self._write)
            now = _stamp(self._config)
            # Editors empty a file, or take it away, before they write it: only what two looks
            # agree on is taken.
            if self._reload is not None and now == before != self._stamp:
                await self._look(self._reload)
            before = now

    async def _look(self, reload: Callable[[], Config]) -> None:
        """Take what has changed in the config."""
        stamp = _stamp(self._config)
        try:
            if stamp is None or not stamp[1]:
                path = self._config.path
                raise ConfigError(f"{path} is {'empty' if stamp else 'missing'}.")
            config = await asyncio.to_thread(reload)
        except (ConfigError, OSError) as error:
            self._stamp = stamp
            self._log.warn(f"The config was changed and is not taken: {error}")
            return
        if _stamp(self._config) != stamp:
            return  # changed again while it was read
        self._stamp = stamp
        async with self._changing:
            await self._change(config.phones)
        if replace(config, phones=()) != replace(self._config, phones=()):
            self._log.warn(
                "The config was changed. Phones are taken on and let go as it says; "
                "the rest holds from the next start on."
            )
        self._config = config

    def _write(self, *, at_once: bool = False) -> None:
        with contextlib.suppress(OSError):
            self._seen.write(at_once=at_once)

    async def _change(self, phones: Sequence[PairedPhone]) -> None:
        before, self._phones = self._phones, list(phones)
        links = {phone.link for phone in phones}
        for phone in before:
            if phone.link not in links:
                await self._let_go(phone)
        links = {phone.link for phone in before}
        for phone in phones:
            if phone.link not in links:
                self._log.tell("taken_on", f"{phone.name}: taken on.", phone=phone.name)
                self._take_on(phone)
        await self._announce()


def _named(links: Sequence[PairingLink], config: Config) -> list[PairedPhone]:
    known = {phone.link.token: phone.name for phone in config.phones}
    return [
        PairedPhone(known.get(link.token, f"Phone {n}" if len(links) > 1 else "Phone"), link)
        for n, link in enumerate(links, 1)
    ]


def _stamp(config: Config) -> tuple[int, int, int] | None:
    """Changes when the file does."""
    try:
        found = config.path.stat()
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size, found.st_ino


@contextlib.contextmanager
def _signals(leave: Callable[[int], None]) -> Iterator[None]:
    """Meanwhile, signals to leave call this in the running loop, with their number."""
    loop = asyncio.get_running_loop()
    numbers = [signal.SIGINT, signal.SIGTERM]
    # Ignored is what nohup makes it.
    if _HANGUP is not None and signal.getsignal(_HANGUP) != signal.SIG_IGN:
        numbers.append(_HANGUP)

    def handle(number: int, frame: FrameType | None) -> None:
        # Not `loop.add_signal_handler`: Windows has none.
        loop.call_soon_threadsafe(leave, number)

    before = {number: signal.signal(number, handle) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _answers(number: int) -> str:
    return "1 answer" if number == 1 else f"{number} answers"


def _phones(number: int) -> str:
    return "1 phone" if number == 1 else f"{number} phones"
