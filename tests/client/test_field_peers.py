"""The field's connector and phone app meet through the real relay, as they always did."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import hashlib
import hmac
import json
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from tests.support.client import Client, log_in
from tests.support.field import FieldConnector, FieldError, FieldPeer, FieldPhone, pictures
from tests.support.process import RelayProcess, relay_process
from tests.support.waiting import eventually

PICTURE = ("image/png", b"\x89PNG\r\n\x1a\n" + bytes(range(256)))


@pytest.fixture(scope="module")
def relay() -> Iterator[RelayProcess]:
    with relay_process() as process:
        yield process


@contextlib.asynccontextmanager
async def peers(
    relay: RelayProcess, *, first: str = "agent", **options: Any
) -> AsyncIterator[tuple[FieldPhone, FieldConnector]]:
    token = relay.token()
    phone = FieldPhone(relay.url, token)
    connector = FieldConnector(relay.url, token, **options)
    order: list[FieldPeer] = [connector, phone] if first == "agent" else [phone, connector]
    async with order[0], order[1]:
        yield phone, connector
    for peer in order:
        assert peer.surprises == []
        assert peer.unreadable == []


async def talk(phone: FieldPhone, connector: FieldConnector, text: str) -> None:
    assert await phone.ask(text) == (["Hel", "lo"], {"full_text": "Hello"})
    assert connector.chats[-1].payload == {"text": text}
    assert connector.chats[-1].sealed
    assert [message.sealed for message in phone.received[-3:]] == [True] * 3


@pytest.mark.parametrize("first", ["agent", "phone"])
async def test_they_chat_sealed_whoever_comes_first(relay: RelayProcess, first: str) -> None:
    async with peers(relay, first=first) as (phone, connector):
        await talk(phone, connector, "one")
        await talk(phone, connector, "two")


@pytest.mark.parametrize("first", ["agent", "phone"])
@pytest.mark.parametrize("leaver", ["agent", "phone"])
async def test_they_chat_sealed_again_after_either_reconnects(
    relay: RelayProcess, first: str, leaver: str
) -> None:
    async with peers(relay, first=first) as (phone, connector):
        await talk(phone, connector, "before")
        leaving = connector if leaver == "agent" else phone
        for round in range(3):
            await leaving.reconnect()
            assert leaving.greeting["paired"] is True
            # The one that stayed has to hear of it first, or it seals for the old key.
            await eventually(lambda n=round + 2: len(phone.peer_keys) == n)
            await eventually(lambda n=round + 2: len(connector.peer_keys) == n)
            await talk(phone, connector, f"after {round}")


async def test_a_phone_app_has_new_keys_for_each_connection(relay: RelayProcess) -> None:
    async with peers(relay) as (phone, connector):
        await eventually(lambda: len(connector.peer_keys) == 1)
        await phone.reconnect()
        await eventually(lambda: len(connector.peer_keys) == 2)
        assert connector.peer_keys[0] != connector.peer_keys[1]


async def test_the_connector_forgets_and_answers_in_the_clear_until_a_key_comes(
    relay: RelayProcess,
) -> None:
    token = relay.token()
    async with FieldConnector(relay.url, token) as connector:
        seen = set()
        for _ in range(2):
            async with log_in(relay.url, token, "phone") as phone:
                public = (await phone.expect("key_exchange"))["payload"]["pubkey"]
                assert public not in seen
                seen.add(public)
                assert await chat(phone, {"text": "hi"}) == ["Hel", "lo", "Hello"]
                assert not connector.chats[-1].sealed
                aead, ours = agree(public)
                await phone.send("key_exchange", {"pubkey": ours})
                assert await chat(phone, seal(aead, {"text": "hi"}), aead) == ["Hel", "lo", "Hello"]
                assert connector.chats[-1].sealed
                # A clear question gets a sealed answer.
                assert await chat(phone, {"text": "hi"}, aead) == ["Hel", "lo", "Hello"]


async def chat(phone: Client, payload: dict[str, object], aead: AESGCM | None = None) -> list[str]:
    """Deltas and full text, opened by hand; nothing may come in any other form."""
    await phone.send("chat.send", payload)
    texts = []
    for n, type in enumerate(["chat.stream", "chat.stream", "chat.done"], 1):
        payload = (await phone.expect(type))["payload"]
        if aead is not None:
            assert set(payload) == {"enc", "ciphertext", "nonce"}
            nonce, sealed = (base64.b64decode(str(payload[k])) for k in ("nonce", "ciphertext"))
            payload = json.loads(aead.decrypt(nonce, sealed, None))
        assert set(payload) == ({"delta", "seq"} if type == "chat.stream" else {"full_text"})
        assert payload.get("seq", n) == n
        texts.append(str(payload.get("delta") or payload["full_text"]))
    return texts


def agree(public: str) -> tuple[AESGCM, str]:
    """The key by RFC 5869, step by step; our public key."""
    private = X25519PrivateKey.generate()
    peer = X25519PublicKey.from_public_bytes(base64.b64decode(public))
    secret = hmac.digest(b"openclaw-relay-e2e-v1", private.exchange(peer), hashlib.sha256)
    key = hmac.digest(secret, b"chat-encryption\x01", hashlib.sha256)
    return AESGCM(key), base64.b64encode(private.public_key().public_bytes_raw()).decode()


def seal(aead: AESGCM, payload: dict[str, object]) -> dict[str, object]:
    nonce = bytes(12)
    sealed = aead.encrypt(nonce, json.dumps(payload).encode(), None)
    return {
        "enc": True,
        "ciphertext": base64.b64encode(sealed).decode(),
        "nonce": base64.b64encode(nonce).decode(),
    }


async def test_pictures_travel_inside_the_messages(relay: RelayProcess) -> None:
    async with peers(relay, attachments=[PICTURE]) as (phone, connector):
        _, done = await phone.ask("look", attachments=[PICTURE, PICTURE], agent_id="main")
        assert pictures(done) == [PICTURE]
        assert pictures(connector.chats[0].payload) == [PICTURE, PICTURE]
        assert connector.chats[0].payload["agent_id"] == "main"


async def test_chats_asked_at_once_are_answered_one_after_the_other(relay: RelayProcess) -> None:
    async def echo(payload: dict[str, object]) -> AsyncIterator[str]:
        for letter in str(payload["text"]):
            await asyncio.sleep(0)
            yield letter

    async with peers(relay, reply=echo) as (phone, _):
        answers = await asyncio.gather(phone.ask("abc"), phone.ask("xyz"))
        assert [deltas for deltas, _ in answers] == [list("abc"), list("xyz")]


async def test_a_long_reply_comes_whole(relay: RelayProcess) -> None:
    reply = [f"{n} " for n in range(500)]
    async with peers(relay, reply=reply) as (phone, _):
        assert await phone.ask("count") == (reply, {"full_text": "".join(reply)})


async def test_tool_status_comes_in_the_clear(relay: RelayProcess) -> None:
    async with peers(relay, tools=["search"]) as (phone, _):
        await phone.ask("find")
        assert [(m.payload, m.sealed) for m in phone.of_type("chat.tool_status")] == [
            ({"tool": "search", "status": "running"}, False),
            ({"tool": "search", "status": "done"}, False),
        ]


async def test_every_request_is_answered_in_the_clear(relay: RelayProcess) -> None:
    async with peers(relay) as (phone, connector):
        await phone.ask("hi")
        agents = (await phone.request("agent.list"))["agents"]
        assert agents == [{"id": "main", "name": "Main"}]
        made = await phone.request("agent.create", {"id": "b", "name": "B"})
        assert made == {"ok": True, "action": "create", "agent": {"id": "b", "name": "B"}}
        changed = await phone.request("agent.update", {"id": "b", "name": "C"})
        assert changed["agent"] == {"id": "b", "name": "C"}
        assert (await phone.request("agent.delete", {"id": "b"}))["ok"] is True
        refused = await phone.request("agent.delete", {"id": "b"})
        assert refused == {"ok": False, "action": "delete", "error": "no such agent"}
        history = await phone.request("chat.history", {"agent_id": "main", "limit": 2})
        assert [(m["role"], m["content"]) for m in history["messages"]] == [
            ("user", "hi"),
            ("assistant", "Hello"),
        ]
        query = {"agent_id": "main", "query": "tea", "limit": 5}
        found = await phone.request("memory.search", query)
        assert list(found) == ["memories"]
        assert [sorted(item) for item in found["memories"]] == [["path", "score", "snippet"]]
        assert (await phone.request("group.list"))["rooms"] == [{"id": "hall"}]
        said = await phone.request("group.send", {"room_id": "hall", "text": "hello"})
        assert said == {"room_id": "hall", "message": {"text": "hello"}}
        heard = await phone.request("group.messages", {"room_id": "hall"})
        assert heard == {"room_id": "hall", "messages": [{"text": "hello"}]}
        assert (await phone.request("system.status"))["uptime_seconds"] == 60
        assert {m.sealed for m in connector.received if m.type != "chat.send"} == {False}


async def test_an_error_of_the_backend_reaches_the_phone(relay: RelayProcess) -> None:
    async def fail(_: dict[str, object]) -> AsyncIterator[str]:
        yield "so far"
        raise FieldError("BACKEND_ERROR", "no model")

    async with peers(relay, reply=fail) as (phone, _):
        with pytest.raises(FieldError, match="no model") as caught:
            await phone.ask("hi")
        assert caught.value.code == "BACKEND_ERROR"


async def test_a_phone_alone_hears_that_nobody_is_there(relay: RelayProcess) -> None:
    async with FieldPhone(relay.url, relay.token()) as phone:
        with pytest.raises(FieldError) as caught:
            await phone.ask("hi", sealed=False)
        assert caught.value.code == "PEER_OFFLINE"
        with pytest.raises(TimeoutError):
            await phone.ask("hi", within=0.1)


async def test_a_phone_that_loses_its_connection_says_so(relay: RelayProcess) -> None:
    token = relay.token()
    async with FieldPhone(relay.url, token) as phone, log_in(relay.url, token, "agent") as agent:
        await agent.expect("key_exchange")
        asking = asyncio.create_task(phone.ask("hi", sealed=False))
        await agent.expect("chat.send")
        async with log_in(relay.url, token, "phone"):
            with pytest.raises(FieldError) as caught:
                await asking
        assert caught.value.code == "CONNECTION_ENDED"
        assert phone.close_code == 4002


async def test_a_wrong_token_is_refused(relay: RelayProcess) -> None:
    with pytest.raises(FieldError) as caught:
        await FieldPhone(relay.url, "nonsense").connect()
    assert caught.value.code == "UNAUTHORIZED"


async def test_what_a_version_1_peer_cannot_take_is_kept_for_the_test(relay: RelayProcess) -> None:
    token = relay.token()
    async with FieldPhone(relay.url, token) as phone, log_in(relay.url, token, "agent") as agent:
        await agent.expect("key_exchange")
        strange = [
            await agent.send("key_exchange", {"v": 2, "step": 0}),
            await agent.send("key_exchange", {"pubkey": "AAAA"}),
            await agent.send("file.begin", {"file_id": "f"}),
            await agent.send("chat.done", {"enc": True, "v": 2, "n": 0, "ciphertext": ""}),
        ]
        broken = await agent.send("chat.done", {"enc": True, "nonce": "AAAA", "ciphertext": "x"})
        await eventually(lambda: phone.unreadable)
        assert [message["id"] for message in phone.surprises] == strange
        assert [message["id"] for message in phone.unreadable] == [broken]
        assert not phone.keyed.is_set()


def test_they_know_nothing_of_our_code() -> None:
    names = "import sys, tests.support.field; print([m for m in sys.modules if 'coralmux' in m])"
    # A fresh interpreter: this one has imported the library for other tests.
    command = [sys.executable, "-c", names]
    assert subprocess.run(command, capture_output=True, text=True, check=True).stdout == "[]\n"
