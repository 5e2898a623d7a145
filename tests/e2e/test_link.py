"""Pairing links: what is read, what is refused and why, and what a camera sees."""

from __future__ import annotations

import contextlib
import json
import pickle
import re
import time
import traceback
import xml.etree.ElementTree as ElementTree
from pathlib import Path
from typing import Any

import pytest
import segno
from hypothesis import example, given, settings
from hypothesis import strategies as st

from coralmux.e2e.link import LinkError, PairingLink, normalise_relay

VECTORS: dict[str, list[dict[str, Any]]] = json.loads(
    (Path(__file__).parents[1] / "vectors" / "links.json").read_text()
)
TOKEN = "oc_pair_0123456789abcdef0123456789abcdef"
SECRET = bytes(range(32))
LINK = PairingLink("wss://relay.example.com/ws", TOKEN, SECRET)
FIELD = LINK.with_secret(None)

LABEL = st.from_regex(r"[a-z0-9]([a-z0-9-]{0,8}[a-z0-9])?", fullmatch=True)
TOP = st.sampled_from(["example", "EXAMPLE", "localhost", "xn--bcher-kva", "bücher", "例え"])
HOSTS = st.one_of(
    st.builds(lambda labels, top: ".".join([*labels, top]), st.lists(LABEL, max_size=3), TOP),
    st.ip_addresses(v=4).map(str),
    st.ip_addresses(v=6).map(lambda address: f"[{address}]"),
    st.ip_addresses(v=6).map(lambda address: f"[{address.exploded.upper()}]"),
)
PORTS = st.none() | st.integers(1, 65535)
STEPS = st.text("abwsXYZ019-_~!$&'()*+,;=:@", min_size=1, max_size=6) | st.sampled_from(
    ["%20", "%2F", "%c3%A9", "ws", "phone", "a.b", "..."]
)
PATHS = st.lists(STEPS, max_size=3).map(lambda steps: "".join(f"/{step}" for step in steps))
SCHEMES = st.sampled_from(["wss", "ws", "https", "http", "WSS", "Https"])
RELAYS = st.builds(
    lambda scheme, host, port, path, end: (
        f"{scheme}://{host}{'' if port is None else f':{port}'}{path}{end}"
    ),
    SCHEMES,
    HOSTS,
    PORTS,
    PATHS,
    st.sampled_from(["", "/", "/ws", "/ws/"]),
)
TOKENS = st.text(st.characters(min_codepoint=0x21, max_codepoint=0x7E), min_size=1, max_size=256)
SECRETS = st.binary(min_size=32, max_size=32)
PAGES = st.builds(
    lambda scheme, host, port, path: f"{scheme}://{host}{'' if port is None else f':{port}'}{path}",
    st.sampled_from(["https", "http"]),
    HOSTS,
    PORTS,
    st.sampled_from(["", "/", "/phone", "/a/phone/", "/app/index.html"]),
)


def refusal(text: str) -> LinkError:
    with pytest.raises(LinkError) as caught:
        PairingLink.parse(text)
    return caught.value


# ---- Reading


@pytest.mark.parametrize("case", VECTORS["good"], ids=lambda case: case["why"])
def test_links_of_every_form_are_read(case: dict[str, Any]) -> None:
    link = PairingLink.parse(case["text"])
    secret = None if link.secret is None else link.secret.hex()
    assert (link.relay, link.token, secret) == (case["relay"], case["token"], case["secret"])
    assert (link.web(), link.uri()) == (case["web"], case["uri"])


@pytest.mark.parametrize("case", VECTORS["bad"], ids=lambda case: f"{case['part']}: {case['why']}")
def test_a_bad_link_is_refused_by_the_part_that_is_wrong(case: dict[str, Any]) -> None:
    error = refusal(case["text"])
    assert error.part == case["part"]
    # What happened, and what to do.
    assert str(error).endswith(".")
    assert str(error).count(" ") > 3


def test_the_vectors_have_every_part() -> None:
    assert {case["part"] for case in VECTORS["bad"]} == {"scheme", "form", "relay", "token", "psk"}


@given(RELAYS, TOKENS, st.none() | SECRETS)
def test_every_form_that_is_made_is_read_back(relay: str, token: str, secret: bytes | None) -> None:
    link = PairingLink(relay, token, secret)
    assert PairingLink.parse(link.web()) == link
    assert PairingLink.parse(link.uri()) == link
    assert PairingLink.parse(link.with_secret(None).field_uri()) == link.with_secret(None)


@given(RELAYS, PAGES, SECRETS)
def test_a_page_of_another_origin_is_told_the_relay(relay: str, page: str, secret: bytes) -> None:
    link = PairingLink(relay, TOKEN, secret)
    assert PairingLink.parse(link.web(page)) == link


def test_a_page_that_tells_the_relay_by_its_own_address_needs_no_other_word() -> None:
    assert LINK.web("https://relay.example.com:443/phone") == LINK.web()
    assert "relay=" not in LINK.web()
    assert "&relay=wss%3A%2F%2Frelay" in LINK.web("http://relay.example.com/phone")


@pytest.mark.parametrize(
    "page",
    [
        "pages.example.com",
        "wss://pages.example.com",
        "javascript:alert(1)",
        "https://pages.example.com/?a=b",
        "https://pages.example.com/#a",
        "https://someone@pages.example.com/",
        "https://" + "a/" * 2000,
        "",
    ],
)
def test_a_page_that_is_no_plain_address_is_refused(page: str) -> None:
    with pytest.raises(LinkError) as caught:
        LINK.web(page)
    assert caught.value.part == "form"
    assert "page" in str(caught.value)


@given(RELAYS)
def test_a_relay_has_one_spelling(relay: str) -> None:
    once = normalise_relay(relay)
    assert re.fullmatch(r"wss?://[a-z0-9._:\[\]-]+(/[!-~]+)*/ws", once)
    assert normalise_relay(once) == once
    assert normalise_relay(f" {once}\n") == once


@pytest.mark.parametrize(
    "relay",
    [
        "wss://example.com",
        "https://example.com",
        "wss://example.com/ws",
        "HTTPS://EXAMPLE.com:443/",
    ],
)
def test_a_relay_may_be_given_as_people_write_it(relay: str) -> None:
    assert normalise_relay(relay) == "wss://example.com/ws"


@given(
    st.text(max_size=60)
    | st.text("ws:/.@[]%?#\\1a\u0661éß\u200b", max_size=30).map("wss://".__add__)
)
@example("wss://" + "é" * 200)
@example("wss://\ud800")
@example("wss://é\u200b.example")
@example("wss://é\u3002é")
@example("wss://e\uff0fx")
@example("wss://" + ".".join(["é" * 30] * 8))
@example("wss://example.com/" + "a" * 2030)
@example("wss://example.com/" + "a" * 2028)
def test_no_relay_raises_anything_else_and_what_is_taken_is_taken_again(text: str) -> None:
    try:
        once = normalise_relay(text)
    except LinkError:
        return
    assert once.isascii()
    assert normalise_relay(once) == once


@given(st.text(max_size=200))
@example("https://\ud800/phone#token=a")
@example("https://x/phone#token=\ud800")
@example("coralmux://pair?relay=%&token=%#psk=%")
@example("openclaw://pair?relay=%ED%A0%80&token=a")
def test_no_text_raises_anything_but_a_link_error(text: str) -> None:
    for start in ("", "https://", "coralmux://pair?", "openclaw://pair?relay="):
        with contextlib.suppress(LinkError):
            PairingLink.parse(start + text)


@given(st.sampled_from([LINK.web(), LINK.uri(), FIELD.field_uri()]), st.data())
def test_no_damage_makes_a_link_of_another_secret(link: str, data: st.DataObject) -> None:
    at = data.draw(st.integers(0, len(link)))
    damage = data.draw(st.text(max_size=3) | st.sampled_from(["&", "#", "?", "%", "=", "//", "@"]))
    cut = data.draw(st.integers(0, 3))
    try:
        read = PairingLink.parse(link[:at] + damage + link[at + cut :])
    except LinkError:
        return
    assert read.token.isascii()
    assert read.secret is None or len(read.secret) == 32
    assert PairingLink.parse(read.uri()) == read


def test_a_link_cut_off_behind_its_token_never_passes_for_one_without_a_secret() -> None:
    for link in (LINK.web(), LINK.uri()):
        for end in range(link.index(TOKEN) + len(TOKEN) + 1, len(link)):
            assert refusal(link[:end]).part in ("psk", "form")


@pytest.mark.parametrize(
    "text",
    [
        "a" * 1_000_000,
        " " * 1_000_000 + LINK.web(),
        "https://" + "é" * 1_000_000,
        f"https://relay.example.com/phone#token={TOKEN}" + "&x=" * 333_333,
        "wss://" + "é." * 500_000,
        "coralmux://pair?relay=" + "%" * 1_000_000,
    ],
    ids=["letters", "spaces", "international", "fields", "labels", "escapes"],
)
def test_a_megabyte_is_refused_at_once(text: str) -> None:
    begun = time.process_time()
    refusal(text)
    with pytest.raises(LinkError):
        normalise_relay(text)
    assert time.process_time() - begun < 0.2


def test_the_longest_link_that_can_be_made_can_be_read() -> None:
    relay = "wss://example.com/" + "@" * 2027 + "/ws"
    link = PairingLink(relay, "%" * 256, SECRET)
    page = "https://pages.example.com/" + "a" * 2022
    assert len(relay) == len(page) == 2048
    assert PairingLink.parse(link.web(page)) == link


def test_a_user_name_in_an_address_is_named_as_what_is_wrong() -> None:
    with pytest.raises(LinkError, match="user name"):
        normalise_relay("wss://user@example.com")


@pytest.mark.parametrize("label", ["a" * 60, "é" * 30])
def test_a_name_longer_than_the_names_of_the_net_is_refused(label: str) -> None:
    assert normalise_relay(f"wss://{'.'.join([label] * 3)}").startswith("wss://")
    with pytest.raises(LinkError):
        normalise_relay(f"wss://{'.'.join([label] * 9)}")


def test_a_long_international_name_takes_no_time() -> None:
    begun = time.process_time()
    with pytest.raises(LinkError):
        normalise_relay("wss://" + "é" * 2000)
    assert time.process_time() - begun < 0.2


# ---- Making


@pytest.mark.parametrize(
    "token", ["", " ", "a b", "a\n", "é", "\u0661", "\u202e", "\x00", "a" * 257]
)
def test_a_token_that_could_not_be_sent_is_refused(token: str) -> None:
    with pytest.raises(LinkError) as caught:
        PairingLink("wss://relay.example.com", token)
    assert caught.value.part == "token"


@pytest.mark.parametrize("secret", [b"", b"a" * 31, b"a" * 33, "a" * 32, bytearray(32)])
def test_a_secret_of_another_size_or_kind_is_refused(secret: Any) -> None:
    with pytest.raises(LinkError) as caught:
        PairingLink("wss://relay.example.com", TOKEN, secret)
    assert caught.value.part == "psk"


def test_every_new_link_has_a_secret_of_its_own() -> None:
    secrets = {PairingLink.new("https://relay.example.com", TOKEN).secret for _ in range(100)}
    assert len(secrets) == 100
    assert {len(secret or b"") for secret in secrets} == {32}


def test_the_field_form_does_not_drop_a_secret_in_silence() -> None:
    with pytest.raises(LinkError) as caught:
        LINK.field_uri()
    assert caught.value.part == "psk"


# ---- What must not be shown


def test_a_link_shows_neither_token_nor_secret() -> None:
    secret = LINK.web().rpartition("psk=")[2]
    for shown in (repr(LINK), str(LINK), f"{LINK}", repr([LINK]), f"{LINK!r:>10}"):
        assert "oc_pair_0123…" in shown
        assert TOKEN[12:] not in shown
        assert secret not in shown
        assert repr(SECRET) not in shown
    assert "secret=None" in repr(FIELD)
    assert pickle.loads(pickle.dumps(LINK)) == LINK


@pytest.mark.parametrize("token", ["hunter2", "x" * 12, "y" * 23])
def test_a_short_token_is_not_shown_at_all(token: str) -> None:
    assert token[:3] not in repr(PairingLink("wss://relay.example.com", token))


@given(TOKENS.filter(lambda token: len(token) > 8), st.binary(min_size=8, max_size=40))
def test_errors_repeat_nothing_of_a_link(token: str, damage: bytes) -> None:
    marked = f"S3CRET{token}"
    texts = [
        f"https://relay.example.com/phone#token={marked}&psk=S3CRET{damage.hex()}",
        f"https://relay.example.com/S3CRET#token={marked}",
        f"https://S3CRET@example.com/phone#token={marked}",
        f"coralmux://pair?relay=wss%3A%2F%2FS3CRET%7B&token={marked}#psk=",
        f"openclaw://pair?relay=S3CRET&token={marked}",
        f"https://relay.example.com/phone#token=S3CRET%ff&psk={damage.hex()}",
        f"https://relay.example.com/phone?psk=S3CRET{damage.hex()}",
        f"S3CRET://{marked}",
        f"https://S3CRET{'é' * 70}/phone#token={marked}",
        f"https://[S3CRET]/phone#token={marked}",
    ]
    for text in texts:
        error = refusal(text)
        # The whole traceback: a decoding error in its chain would hold the value.
        assert "S3CRET" not in "".join(traceback.format_exception(error))
        assert error.__context__ is None or "S3CRET" not in repr(error.__context__.args)


# ---- QR codes


def drawn_in_blocks(text: str) -> list[list[bool]]:
    """What stands in the terminal, module by module; True is dark."""
    rows: list[list[bool]] = []
    for line in text.removesuffix("\n").split("\n"):
        match = re.fullmatch(r"\x1b\[38;5;16;48;5;231m([ ▀▄█]+)\x1b\[0m", line)
        assert match, "a line sets its colours, draws blocks, and sets the colours back"
        rows.append([block in "▀█" for block in match[1]])
        rows.append([block in "▄█" for block in match[1]])
    return rows


def drawn_in_svg(text: str) -> list[list[bool]]:
    svg = "{http://www.w3.org/2000/svg}"
    root = ElementTree.fromstring(text)
    ground, modules = root.iter(f"{svg}path")
    size = re.fullmatch(r"M0 0h(\d+)v\1h-\1z", ground.attrib["d"])
    assert size
    assert (ground.attrib["fill"], modules.attrib["stroke"]) == ("#fff", "#000")
    rows = [[False] * int(size[1]) for _ in range(int(size[1]))]
    x, y = 0, 0.0
    for command, numbers in re.findall(r"([Mmh])([-0-9. ]+)", modules.attrib["d"]):
        values = [float(number) for number in numbers.split()]
        if command == "M":
            x, y = int(values[0]), values[1]
        elif command == "m":
            x, y = x + int(values[0]), y + values[1]
        else:
            for column in range(x, x + int(values[0])):
                rows[int(y)][column] = True
            x += int(values[0])
    return rows


def expected(text: str, level: str) -> list[list[bool]]:
    """The code's modules in four light ones all around."""
    matrix = [[bool(module) for module in row] for row in segno.make(text, error=level).matrix]
    side = [False] * 4
    empty = [[False] * (len(matrix) + 8) for _ in range(4)]
    return [*empty, *([*side, *row, *side] for row in matrix), *empty]


@settings(max_examples=20)
@given(st.sampled_from(["a", "relay", "a-long-name-for-a-relay"]), SECRETS)
def test_the_terminal_shows_the_code_of_the_link_with_its_quiet_zone(
    host: str, secret: bytes
) -> None:
    link = PairingLink(f"wss://{host}.example.com", TOKEN, secret)
    rows = drawn_in_blocks(link.qr_terminal())
    # Two modules share a line: below an odd last row there is one more light one.
    assert rows[-1] == [False] * len(rows[0])
    assert rows[:-1] == expected(link.web(), "l")
    assert len(rows[0]) <= 80


@settings(max_examples=20)
@given(SECRETS)
def test_the_picture_shows_the_code_of_the_link_with_its_quiet_zone(secret: bytes) -> None:
    link = LINK.with_secret(secret)
    assert drawn_in_svg(link.qr_svg()) == expected(link.web(), "m")


@pytest.mark.parametrize(
    "text", [LINK.uri(), LINK.web("https://pages.example.com/phone"), FIELD.field_uri()]
)
def test_any_form_can_be_drawn(text: str) -> None:
    assert drawn_in_svg(LINK.qr_svg(text)) == expected(text, "m")
    assert drawn_in_blocks(LINK.qr_terminal(text))[:-1] == expected(text, "l")


def test_the_picture_stands_alone_and_has_a_title_that_tells_nothing() -> None:
    text = LINK.qr_svg()
    root = ElementTree.fromstring(text)
    assert root.tag == "{http://www.w3.org/2000/svg}svg"
    assert root.findtext("{http://www.w3.org/2000/svg}title") == "CoralMux pairing link"
    assert TOKEN[12:] not in text
    assert "style" not in text


def test_a_code_too_wide_for_the_terminal_or_for_any_code_is_refused() -> None:
    wide = PairingLink("wss://example.com/" + "a" * 400, TOKEN, SECRET)
    with pytest.raises(LinkError, match="80 columns") as caught:
        wide.qr_terminal()
    assert caught.value.part == "form"
    assert drawn_in_svg(wide.qr_svg()) == expected(wide.web(), "m")
    huge = PairingLink("wss://example.com/" + "@" * 2000, TOKEN, SECRET)
    for draw in (huge.qr_svg, huge.qr_terminal):
        with pytest.raises(LinkError, match="too long") as caught:
            draw(huge.uri())
        assert caught.value.part == "form"
