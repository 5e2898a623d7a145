"""Connections in a meeting, on sockets in memory: every message has exactly one fate.

A message that a connection sent is handed to the peer's socket once, in order;
or it is refused with its id; or its sender's connection has ended. Random
schedules of sending, draining, stalling, replacing and leaving try to break
that.
"""

from __future__ import annotations

import asyncio
import json
from collections import deque
from datetime import date
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from coralmux.protocol.close_codes import CloseCode
from coralmux.protocol.types import Role
from pairing.services import Grant
from relay.consumers import Connection
from relay.runtime import Runtime
from relay.sockets import Data, Disconnected, Origin, Socket, TooLarge


class MemorySocket(Socket):
    """A client that takes messages only when told to; full beyond three."""

    def __init__(self) -> None:
        super().__init__()
        self.inbox: deque[bytes] = deque()
        self.queue: deque[tuple[dict[str, Any], Origin | None, str]] = deque()
        self.taken: list[dict[str, Any]] = []
        self.patient = True
        self._arrived = asyncio.Event()

    async def accept(self) -> None:
        pass

    async def receive(self) -> Data | TooLarge:
        while True:
            if self.close_code:
                raise Disconnected(self.close_code)
            if self.inbox:
                return self.inbox.popleft()
            self._arrived.clear()
            await self._arrived.wait()

    def write(self, data: Data, origin: Origin | None = None, ref: str = "") -> bool:
        if self.close_code:
            return False
        self.queue.append((json.loads(data), origin, ref))
        return True

    @property
    def full(self) -> bool:
        # The relay's own words are not held back.
        return sum(origin is not None for _, origin, _ in self.queue) >= 3

    @property
    def overdue(self) -> bool:
        return not self.patient

    def close(self, code: CloseCode, *, discard: bool = False) -> None:
        if self.close_code:
            return
        self.close_code, self.ended_by = code, "relay"
        if not discard:
            self.take(len(self.queue))
        self._end()

    # The client's side

    def send(self, message: dict[str, Any]) -> None:
        self.inbox.append(json.dumps(message).encode())
        self._arrived.set()

    def take(self, count: int) -> None:
        for _ in range(min(count, len(self.queue))):
            self.taken.append(self.queue.popleft()[0])
        self.wake()

    def vanish(self) -> None:
        if not self.close_code:
            self.close_code, self.ended_by = 1006, "loss"
            self._end()

    def lose_patience(self) -> None:
        self.patient = False
        self.wake()

    def _end(self) -> None:
        lost, self.queue = self.queue, deque()
        for _, origin, ref in lost:
            if origin is not None:
                origin.undelivered(ref)
        self._arrived.set()
        self.wake()


class OpenDoor(Runtime):
    """Lets everybody in as token 1, without a database."""

    async def log_in(self, token: str, role: Role, address: str) -> Grant:
        await asyncio.sleep(0)
        return Grant(
            token_id=1,
            expires_at=None,
            phone_messages_per_minute=0,
            agent_messages_per_minute=0,
            stream_frames_per_second=0,
            daily_quota_bytes=0,
            monthly_quota_bytes=0,
            max_message_bytes=5_000_000,
            used_today=0,
            used_this_month=0,
            day=date(2026, 3, 1),
        )


class Scene:
    """Phones and agents that come and go under one token."""

    def __init__(self) -> None:
        self.runtime = OpenDoor()
        self.runtime.groups.start()
        self.current: dict[Role, MemorySocket] = {}
        self.everyone: list[tuple[Role, MemorySocket]] = []
        self.sent: dict[MemorySocket, list[str]] = {}
        self.tasks: list[asyncio.Task[None]] = []

    async def come(self, role: Role) -> None:
        socket = MemorySocket()
        self.everyone.append((role, socket))
        self.sent[socket] = []
        self.tasks.append(asyncio.create_task(Connection(socket, "192.0.2.1", self.runtime).run()))
        socket.send({"type": "auth", "payload": {"token": "t", "role": role.value}})
        await settle()
        if not socket.close_code:
            self.current[role] = socket

    def say(self, role: Role) -> None:
        if socket := self.current.get(role):
            id = f"{len(self.everyone)}-{role.value}-{len(self.sent[socket])}"
            self.sent[socket].append(id)
            socket.send({"type": "chat.error", "id": id})

    async def end(self) -> None:
        # Everybody reads all there is, then goes.
        for _ in range(200):
            for _, socket in self.everyone:
                socket.take(100)
            await settle()
            if all(not s.inbox and not s.queue for _, s in self.everyone if not s.close_code):
                break
        self.fates = {socket: dict(errors(socket)) for _, socket in self.everyone}
        self.ended = {socket for _, socket in self.everyone if socket.close_code}
        for _, socket in self.everyone:
            socket.vanish()
        await asyncio.wait_for(asyncio.gather(*self.tasks), 10)
        await self.runtime.groups.stop()


def errors(socket: MemorySocket) -> list[tuple[str, str]]:
    return [
        (message["payload"]["ref"], message["payload"]["code"])
        for message in socket.taken
        if message["type"] == "chat.error" and "ref" in message.get("payload", {})
    ]


def delivered(socket: MemorySocket) -> list[str]:
    return [m["id"] for m in socket.taken if m["type"] == "chat.error" and "payload" not in m]


async def settle() -> None:
    for _ in range(12):
        await asyncio.sleep(0)


ROLES = st.sampled_from(Role)
STEPS = st.one_of(
    st.tuples(st.just("say"), ROLES),
    st.tuples(st.just("say"), ROLES),
    st.tuples(st.just("take"), ROLES),
    st.tuples(st.just("settle"), ROLES),
    st.tuples(st.sampled_from(["come", "vanish", "lose patience"]), ROLES),
)


@settings(max_examples=300, deadline=None)
@given(st.lists(STEPS, max_size=60))
@pytest.mark.slow
def test_every_message_is_delivered_once_in_order_or_refused_by_name(
    steps: list[tuple[str, Role]],
) -> None:
    asyncio.run(_play(steps))


async def _play(steps: list[tuple[str, Role]]) -> None:
    scene = Scene()
    await scene.come(Role.PHONE)
    await scene.come(Role.AGENT)
    for what, role in steps:
        socket = scene.current.get(role)
        if what == "come":
            await scene.come(role)
        elif what == "say":
            scene.say(role)
        elif what == "settle":
            await settle()
        elif socket is not None:
            {
                "take": lambda socket=socket: socket.take(2),
                "vanish": socket.vanish,
                "lose patience": socket.lose_patience,
            }[what]()
    await scene.end()
    for role, socket in scene.everyone:
        received = [
            id for other, peer in scene.everyone if other is role.peer for id in delivered(peer)
        ]
        mine = [id for id in received if id in set(scene.sent[socket])]
        refused = scene.fates[socket]
        assert mine == [id for id in scene.sent[socket] if id in set(mine)], "reordered"
        assert len(mine) == len(set(mine)), "doubled"
        assert not set(mine) & set(refused), "delivered and refused"
        if socket not in scene.ended:
            assert set(mine) | set(refused) == set(scene.sent[socket]), "lost"
        _check_order_of_status(role, socket, scene)


def _check_order_of_status(role: Role, socket: MemorySocket, scene: Scene) -> None:
    """`online` once for each new peer, and before any message of it."""
    senders = {id: peer for peer, ids in scene.sent.items() for id in ids}
    newest = None
    order = [peer for other, peer in scene.everyone if other is role.peer]
    for message in socket.taken:
        sender = senders.get(message["id"])
        if sender is not None and newest is not None:
            assert order.index(sender) >= order.index(newest), "after its successor's"
        newest = sender or newest


@pytest.mark.parametrize("role", list(Role))
async def test_a_message_held_for_a_replaced_peer_is_refused_not_given_to_its_successor(
    role: Role,
) -> None:
    scene = Scene()
    await scene.come(role.peer)
    await scene.come(role)
    for _ in range(5):
        scene.say(role)
    await settle()
    old, sender = scene.current[role.peer], scene.current[role]
    assert old.full
    await scene.come(role.peer)
    await scene.end()
    assert delivered(scene.current[role.peer]) == scene.sent[sender][4:]
    assert [ref for ref, _ in errors(sender)] == scene.sent[sender][:4]


async def test_messages_that_waited_for_a_slow_reader_arrive_once_and_in_order() -> None:
    scene = Scene()
    await scene.come(Role.PHONE)
    await scene.come(Role.AGENT)
    for _ in range(9):
        scene.say(Role.AGENT)
    await settle()
    agent, phone = scene.current[Role.AGENT], scene.current[Role.PHONE]
    assert phone.full
    await scene.end()
    assert delivered(phone) == scene.sent[agent]
    assert errors(agent) == []
