"""tests/vectors/session.json: a whole session, byte for byte, that the browser computes too."""

from __future__ import annotations

import base64
import hashlib
import json
from pathlib import Path
from typing import Any

import msgspec
import pytest

from coralmux.e2e.events import Event, Opened, Secrets, Send, Store
from coralmux.e2e.initiator import PhoneSession
from coralmux.e2e.responder import AgentSession
from coralmux.e2e.session import Identity
from coralmux.protocol import base64url
from tests.e2e.machines import CountedBytes, Machine, envelope
from tests.e2e.test_noise import Reference

CASES: list[dict[str, Any]] = json.loads(
    (Path(__file__).parents[1] / "vectors" / "session.json").read_text(encoding="utf-8")
)["vectors"]


class Draws(CountedBytes):
    """Writes down what was drawn."""

    def __init__(self, label: str) -> None:
        super().__init__(label)
        self.drawn: list[str] = []

    def __call__(self, length: int) -> bytes:
        data = super().__call__(length)
        self.drawn.append(data.hex())
        return data


def shown(secrets: Secrets) -> dict[str, Any]:
    return {
        "current": base64url.encode(secrets.current),
        "next": None if secrets.next is None else base64url.encode(secrets.next),
        "link": secrets.link,
    }


def recompute(case: dict[str, Any]) -> dict[str, Any]:
    """The case, with all that follows from its inputs computed again."""
    token, secrets = case["token"], Secrets(base64url.decode(case["secret"], 32))
    draws = {role: Draws(case[role]["entropy_label"]) for role in ("phone", "agent")}
    names = {role: msgspec.convert(case[role]["identity"], Identity) for role in ("phone", "agent")}
    machines: dict[str, Machine] = {
        "phone": PhoneSession(token, secrets, names["phone"], entropy=draws["phone"]),
        "agent": AgentSession(
            token, secrets, names["agent"], rotate=case["rotate"], entropy=draws["agent"]
        ),
    }
    stored: dict[str, list[dict[str, Any]]] = {"phone": [], "agent": []}
    handshake: list[dict[str, Any]] = []

    def carry_out(role: str, events: list[Event]) -> None:
        other = "agent" if role == "phone" else "phone"
        for event in events:
            if isinstance(event, Store):
                stored[role].append(shown(event.secrets))
            elif isinstance(event, Send):
                payload = event.payload.decode()
                handshake.append(
                    {"from": role, "type": event.type, "id": event.id, "payload": payload}
                )
                message = envelope(event.type, event.id, event.payload)
                carry_out(other, machines[other].receive(message, 0.0))

    machines["agent"].connected(0.0, paired=False)
    carry_out("phone", machines["phone"].connected(0.0, paired=True))
    records = []
    for record in case["records"]:
        role, type, id = record["from"], record["type"], record["id"]
        payload = machines[role].seal(type, id, record["plaintext"].encode())
        other = machines["agent" if role == "phone" else "phone"]
        assert other.receive(envelope(type, id, payload), 0.0) == [
            Opened(type, id, json.loads(record["plaintext"]), sealed=True)
        ]
        value = json.loads(payload)
        records.append(
            {key: record[key] for key in ("from", "type", "id", "plaintext")}
            | {"n": value["n"], "ciphertext": value["ciphertext"], "payload": payload.decode()}
        )
    computed = {
        role: case[role] | {"drawn": draws[role].drawn, "stored": stored[role]}
        for role in ("phone", "agent")
    }
    hs = json.loads(handshake[0]["payload"])["hs"]
    return case | computed | {"hs": hs, "handshake": handshake, "records": records}


@pytest.mark.parametrize("case", CASES, ids=lambda case: case["name"])
def test_a_session_is_made_as_it_is_written_down(case: dict[str, Any]) -> None:
    assert recompute(case) == case


@pytest.mark.parametrize("case", CASES, ids=lambda case: case["name"])
def test_what_is_written_down_is_what_the_contract_says(case: dict[str, Any]) -> None:
    steps = [json.loads(message["payload"]) for message in case["handshake"]]
    assert [step.get("step") for step in steps] == [1, 2, None, None][: 4 if case["rotate"] else 3]
    assert {step["hs"] for step in steps} == {case["hs"]}
    for role in ("phone", "agent"):
        own = [step for step, m in zip(steps, case["handshake"], strict=True) if m["from"] == role]
        sealed = [step["n"] for step in own if "enc" in step]
        sealed += [record["n"] for record in case["records"] if record["from"] == role]
        assert sealed == list(range(len(sealed)))
        assert len(sealed) >= 3
        final = case[role]["stored"][-1:] or [{"current": case["secret"]}]
        assert (final[0]["current"] != case["secret"]) is case["rotate"]
    lengths = [
        (r["type"], len(r["plaintext"].encode()), len(base64.b64decode(r["ciphertext"])) - 16)
        for r in case["records"]
    ]
    assert any(type == "file.chunk" and plain == sealed for type, plain, sealed in lengths)
    assert any(plain == sealed == 128 for _, plain, sealed in lengths)
    assert all(sealed % 128 == 0 for type, _, sealed in lengths if type != "file.chunk")


@pytest.mark.filterwarnings("ignore:One of ephemeral keypairs is already set")
@pytest.mark.parametrize("case", CASES, ids=lambda case: case["name"])
def test_another_implementation_of_noise_writes_and_seals_the_same(case: dict[str, Any]) -> None:
    psk, hs = base64url.decode(case["secret"], 32), base64url.decode(case["hs"], 16)
    common = {
        "psk": psk,
        "prologue": b"CoralMux/2" + hashlib.sha256(case["token"].encode()).digest() + hs,
    }
    keys = {"phone": case["phone"]["drawn"][1], "agent": case["agent"]["drawn"][0]}
    phone, agent = (
        Reference(initiator=role == "phone", ephemeral=bytes.fromhex(key), **common)
        for role, key in keys.items()
    )
    step_2 = dict(case["agent"]["identity"])
    if case["rotate"]:
        step_2["next_psk"] = case["phone"]["stored"][-1]["current"]
    noise = [json.loads(m["payload"]).get("noise") for m in case["handshake"]]
    first = phone.write_message(b"")
    agent.read_message(first)
    second = agent.write_message(compact(step_2))
    phone.read_message(second)
    assert [base64.b64encode(message).decode() for message in (first, second)] == noise[:2]
    sealed = [{"step": 3, **case["phone"]["identity"]}, {"step": 4}]
    plaintexts = [compact(payload) for payload in sealed]
    plaintexts += [record["plaintext"].encode() for record in case["records"]]
    if not case["rotate"]:
        del plaintexts[1]
    ciphers = dict(zip(("phone", "agent"), phone.split(), strict=True))
    for message, plaintext in zip(
        [*case["handshake"][2:], *case["records"]], plaintexts, strict=True
    ):
        padding = 0 if message["type"] == "file.chunk" else -len(plaintext) % 128
        ad = f"{message['type']}\n{message['id']}".encode()
        ciphertext = ciphers[message["from"]].encrypt_with_ad(ad, plaintext + b" " * padding)
        wire = json.loads(message["payload"])["ciphertext"]
        assert base64.b64encode(ciphertext).decode() == wire


def compact(payload: dict[str, Any]) -> bytes:
    return json.dumps(payload, ensure_ascii=False, separators=(",", ":")).encode()
