from __future__ import annotations

from pairing import presence


def test_without_a_relay_nobody_is_online(online) -> None:
    presence.register(None)
    assert presence.online_roles(1) == frozenset()


def test_the_registered_look_up_answers(online) -> None:
    presence.register(lambda token_id: frozenset({"phone"}) if token_id == 7 else frozenset())
    assert presence.online_roles(7) == {"phone"}
    assert presence.online_roles(8) == frozenset()
