"""Each interference does what it says to single frames."""

from __future__ import annotations

import base64
import itertools
import json
import os
from typing import Any

import pytest
from cryptography.exceptions import InvalidTag

from coralmux.protocol import Role, decode, encode
from tests.support import interference as how
from tests.support import middle
from tests.support.hostile_relay import Frame, Tamper

PHONE, AGENT = Role.PHONE, Role.AGENT
HS = base64.urlsafe_b64encode(bytes(16)).rstrip(b"=").decode()

_ids = itertools.count()


def frame(type: str, payload: dict[str, Any], sender: Role = AGENT, meeting: int = 2) -> Frame:
    data = encode(type, payload, ts=7, id=f"f{next(_ids)}")
    return Frame(sender, data, decode(data), meeting)


def record(n: int, type: str = "chat.stream", sender: Role = AGENT, meeting: int = 2) -> Frame:
    payload = {"enc": True, "v": 2, "hs": HS, "n": n, "ciphertext": _b64(bytes(range(32)))}
    return frame(type, payload, sender, meeting)


def shake(number: int, sender: Role) -> Frame:
    payload = {"v": 2, "step": number, "hs": HS, "noise": _b64(bytes(48))}
    return frame("key_exchange", payload, sender)


def _b64(data: bytes) -> str:
    return base64.b64encode(data).decode()


def through(tamper: Tamper, *frames: Frame) -> list[bytes | tuple[Role, bytes]]:
    return [output for frame in frames for output in tamper(frame)]


def changed(output: bytes | tuple[Role, bytes], original: Frame) -> dict[str, Any]:
    """The parts of the envelope, and of the payload, that differ from the original's."""
    assert isinstance(output, bytes)
    old, new = json.loads(original.data), json.loads(output)
    payload, was = new.pop("payload"), old.pop("payload")
    gone = {key: None for key in was if key not in payload}
    return {
        **{key: value for key, value in new.items() if old[key] != value},
        **{key: value for key, value in payload.items() if was.get(key) != value},
        **gone,
    }


def test_only_the_nth_frame_of_that_type_and_sender_is_struck() -> None:
    drop = how.Drop("chat.stream", sender=AGENT, nth=2)
    frames = [
        record(0, "chat.done"),
        record(0, sender=PHONE),
        record(1),
        record(2),
        record(3),
    ]
    assert through(drop, *frames) == [frames[n].data for n in (0, 1, 2, 4)]
    assert drop.struck == [frames[3]]
    assert through(how.Drop(nth=None), *frames) == []
    clear = frame("chat.stream", {"delta": "x"})
    assert through(how.Drop(where=how.sealed), clear, frames[2]) == [clear.data]


def test_replay_repeats_at_once_or_later() -> None:
    a, b, c = (record(n) for n in range(3))
    other = record(0, sender=PHONE)
    assert through(how.Replay(), a, b) == [a.data, a.data, b.data]
    assert through(how.Replay(after=1), a, other, b, c) == [x.data for x in (a, other, b, a, c)]


def test_reorder_lets_others_pass() -> None:
    a, b, c = (record(n) for n in range(3))
    other = record(0, sender=PHONE)
    assert through(how.Reorder(), a, other, b, c) == [x.data for x in (other, b, a, c)]
    assert through(how.Reorder(by=2), a, b, c) == [x.data for x in (b, c, a)]


def test_relabel_and_renumber_change_nothing_else() -> None:
    a = record(0)
    assert changed(through(how.Relabel(to="chat.done"), a)[0], a) == {"type": "chat.done"}
    assert changed(through(how.Renumber(to="z"), a)[0], a) == {"id": "z"}


def test_edits_of_a_record_change_one_field() -> None:
    a = record(4)
    cut, flipped = bytes(range(31)), bytes([*range(31), 31 ^ 8])
    assert changed(through(how.Recount(by=-1), a)[0], a) == {"n": 3}
    assert changed(through(how.Truncate(), a)[0], a) == {"ciphertext": _b64(cut)}
    assert changed(through(how.Truncate(by=99), a)[0], a) == {"ciphertext": ""}
    assert changed(through(how.Flip(byte=-1, bit=3), a)[0], a) == {"ciphertext": _b64(flipped)}
    assert changed(through(how.StripVersion(), a)[0], a) == {"v": None}
    step_1 = shake(1, PHONE)
    assert changed(through(how.StripVersion(), step_1)[0], step_1) == {"v": None}
    flip = how.Flip("key_exchange", field="noise", where=how.step(1))
    flipped = bytes([1, *bytes(47)])
    assert changed(through(flip, step_1)[0], step_1) == {"noise": _b64(flipped)}


def test_edits_count_only_frames_that_have_the_field() -> None:
    clear, a = frame("chat.stream", {"delta": "x"}), record(0)
    flip = how.Flip("chat.stream")
    assert through(flip, clear) == [clear.data]
    assert through(flip, a) != [a.data]


def test_answer_for_other_reflects() -> None:
    a = record(0)
    assert through(how.AnswerForOther(), a) == [(AGENT, a.data)]
    assert through(how.AnswerForOther(instead=False), a) == [a.data, (AGENT, a.data)]
    asked = record(0, "chat.send", PHONE)
    [(to, data)] = through(how.AnswerForOther(as_type="chat.done"), asked)
    assert to is PHONE
    assert changed(data, asked) == {"type": "chat.done"}


def test_an_old_step_1_comes_again_behind_the_struck_frame() -> None:
    before, first, second = record(0), shake(1, PHONE), shake(1, PHONE)
    a, b = record(0), record(1)
    tamper = how.ReplayStep1("chat.stream", nth=2)
    assert through(tamper, before, first, second, a, b) == [
        *(x.data for x in (before, first, second, a, b)),
        (AGENT, first.data),
    ]


def test_an_old_sessions_records_come_before_one_of_a_later_meeting() -> None:
    old = [record(0, "chat.send", PHONE), record(0), record(1)]
    clear = frame("key_exchange", {"pubkey": "x"})
    new = [record(0, meeting=3), record(1, meeting=3)]
    tamper = how.ReplayOldSession("chat.stream", nth=2)
    assert through(tamper, clear, *old, *new) == [
        *(x.data for x in (clear, *old, new[0])),
        (AGENT, old[0].data),
        (PHONE, old[1].data),
        (PHONE, old[2].data),
        new[1].data,
    ]


def test_a_forged_error_names_the_frame_or_what_it_is_told_to() -> None:
    a = record(0)
    tamper = how.ForgeError(code="RATE_LIMITED", to=AGENT, more={"retry_after_ms": 5})
    passed, forged = through(tamper, a)
    assert passed == a.data
    assert forged[0] is AGENT
    envelope = json.loads(forged[1])
    assert envelope["type"] == "chat.error"
    assert envelope["payload"] == {
        "code": "RATE_LIMITED",
        "message": "forged",
        "ref": a.id,
        "retry_after_ms": 5,
    }
    _, (_, data) = through(how.ForgeError(code="X", to=PHONE, ref="other"), a)
    assert json.loads(data)["payload"]["ref"] == "other"


# -- in the middle, version 2 --


def ends(token: str, psk: bytes) -> tuple[Any, Any]:
    return (
        middle.noise(token, psk, HS, initiator=True),
        middle.noise(token, psk, HS, initiator=False),
    )


def handshake(tamper: Tamper, phone: Any, agent: Any) -> None:
    """Steps 1 and 2 past the relay; InvalidTag where an end does not open what it gets."""
    sent = frame("key_exchange", _step(1, phone.write_message()), PHONE)
    [to_agent, *_] = through(tamper, sent)
    agent.read_message(_noise(to_agent))
    [to_phone] = through(tamper, frame("key_exchange", _step(2, agent.write_message(b"{}"))))
    phone.read_message(_noise(to_phone))


def _step(number: int, message: bytes) -> dict[str, Any]:
    return {"v": 2, "step": number, "hs": HS, "noise": _b64(bytes(message))}


def _noise(output: Any) -> bytes:
    return base64.b64decode(json.loads(output)["payload"]["noise"])


def test_against_version_2_the_right_secret_reads_all() -> None:
    psk = os.urandom(32)
    phone, agent = ends("t", psk)
    tamper = middle.SwapNoise("t", psk)
    handshake(tamper, phone, agent)
    assert phone.get_handshake_hash() != agent.get_handshake_hash()
    for n, (sender, receiver, role) in enumerate([(phone, agent, PHONE), (agent, phone, AGENT)]):
        sealing = sender.noise_protocol.cipher_state_encrypt
        for text in (b"one", b"two"):
            message = record(sealing.n, "chat.send", role)
            data = f"chat.send\n{message.id}".encode()
            payload = {**message.payload, "ciphertext": _b64(sealing.encrypt_with_ad(data, text))}
            [output] = through(tamper, frame_again(message, payload))
            ciphertext = base64.b64decode(json.loads(output)["payload"]["ciphertext"])
            assert (
                receiver.noise_protocol.cipher_state_decrypt.decrypt_with_ad(data, ciphertext)
                == text
            )
        assert [r.plaintext for r in tamper.read if r.type == "chat.send"][2 * n :] == [
            b"one",
            b"two",
        ]
    assert tamper.refused == 0


def frame_again(message: Frame, payload: dict[str, Any]) -> Frame:
    data = message.rewritten(payload=payload)
    return Frame(message.sender, data, decode(data), message.meeting)


def test_against_version_2_a_wrong_secret_reads_nothing_and_forges_all_the_same() -> None:
    phone, agent = ends("t", os.urandom(32))
    tamper = middle.SwapNoise("t", os.urandom(32))
    sent = frame("key_exchange", _step(1, phone.write_message()), PHONE)
    to_agent, (to, forged) = through(tamper, sent)
    assert (tamper.refused, to) == (1, PHONE)
    with pytest.raises(InvalidTag):
        agent.read_message(_noise(to_agent))
    with pytest.raises(InvalidTag):
        phone.read_message(_noise(forged))
    assert tamper.read == []


@pytest.mark.parametrize("number", [1, 2])
def test_a_swapped_ephemeral_key_keeps_the_rest(number: int) -> None:
    a = shake(number, PHONE if number == 1 else AGENT)
    noise = _noise(through(middle.SwapEphemeral(number), a)[0])
    assert noise[:32] != bytes(32)
    assert noise[32:] == bytes(16)


def test_the_relay_answers_steps_0_and_1_with_what_it_guesses() -> None:
    psk = os.urandom(32)
    phone, agent = ends("t", psk)
    sent = frame("key_exchange", _step(1, phone.write_message()), PHONE)
    [(to, answer)] = through(middle.AnswerKeyExchange("t", psk), sent)
    assert to is PHONE
    assert json.loads(phone.read_message(_noise(answer)))["name"] == "relay"
    asked = frame("key_exchange", {"v": 2, "step": 0})
    [(to, answer)] = through(middle.AnswerKeyExchange("t", psk), asked)
    payload = json.loads(answer)["payload"]
    assert (to, payload["step"]) == (AGENT, 1)
    agent = middle.noise("t", psk, payload["hs"], initiator=False)
    assert agent.read_message(_noise(answer)) == b""


def test_a_downgrade_gives_both_sides_version_1_keys() -> None:
    tamper = middle.Downgrade()
    to_agent, (to, to_phone) = through(tamper, shake(1, PHONE))
    assert to is PHONE
    keys = [json.loads(data)["payload"] for data in (to_agent, to_phone)]
    assert [list(key) for key in keys] == [["pubkey"], ["pubkey"]]
    assert keys[0] != keys[1]
