"""Attachments: what the bytes are, what a name may be, and what fits a version 1 message."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import unicodedata
from base64 import b64encode
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from hypothesis import given
from hypothesis import strategies as st

from coralmux.client.attachments import (
    MAX_NAME_BYTES,
    Attachment,
    AttachmentError,
    RemoteAttachment,
    check_inline,
    from_inline,
    max_inline_bytes,
    megabytes,
    safe_name,
    sealed_v1_size,
    sniff,
)
from coralmux.protocol.envelope import encode
from coralmux.protocol.limits import MAX_MESSAGE_BYTES

PNG = b"\x89PNG\r\n\x1a\n" + bytes(32)
JPEG = b"\xff\xd8\xff\xe0\x00\x10JFIF" + bytes(32)
BMP = b"BM" + (70).to_bytes(4, "little") + bytes(4) + b"\x36\0\0\0" + b"\x28\0\0\0" + bytes(40)


def ftyp(*brands: bytes) -> bytes:
    """The first box of an ISO base media file: the major brand, a version, compatible ones."""
    body = b"ftyp" + brands[0] + bytes(4) + b"".join(brands[1:])
    return (len(body) + 4).to_bytes(4, "big") + body + b"\0\0\0\x08mdat"


KNOWN = [
    (PNG, "image/png"),
    (JPEG, "image/jpeg"),
    (b"GIF87a" + bytes(8), "image/gif"),
    (b"GIF89a" + bytes(8), "image/gif"),
    (b"RIFF\x10\0\0\0WEBPVP8 ", "image/webp"),
    (BMP, "image/bmp"),
    (b"II*\0" + bytes(8), "image/tiff"),
    (b"MM\0*" + bytes(8), "image/tiff"),
    (ftyp(b"avif", b"mif1"), "image/avif"),
    (ftyp(b"mif1", b"miaf", b"avif"), "image/avif"),
    (ftyp(b"heic", b"mif1"), "image/heic"),
    (ftyp(b"mif1", b"heic"), "image/heic"),
    (ftyp(b"msf1"), "image/heic"),
    (b"%PDF-1.7\n", "application/pdf"),
]
UNKNOWN = [
    b"",
    b"BM",
    b"BMW is a car, and this is a text about it.",
    b"RIFF\x10\0\0\0WAVEfmt ",
    ftyp(b"isom", b"avif"),
    b"<svg xmlns='http://www.w3.org/2000/svg'/>",
    b"\x89PNG",
    b"GIF88a",
]


@pytest.mark.parametrize(("data", "mime_type"), KNOWN)
def test_the_bytes_tell_the_type(data: bytes, mime_type: str) -> None:
    assert sniff(data) == mime_type
    assert Attachment.from_bytes(data).mime_type == mime_type
    assert Attachment.from_bytes(data).is_image == mime_type.startswith("image/")


@pytest.mark.parametrize("data", UNKNOWN)
def test_what_is_no_known_picture_is_not_taken_for_one(data: bytes) -> None:
    assert sniff(data) is None
    attachment = Attachment.from_bytes(data, name="photo.png")
    assert attachment.mime_type == "application/octet-stream"
    assert not attachment.is_image
    with pytest.raises(AttachmentError, match="bytes are not those of a known picture"):
        Attachment.from_bytes(data, "image/png")


@given(st.binary(max_size=64))
def test_any_bytes_can_be_looked_at(data: bytes) -> None:
    sniff(data)
    sniff(b"\0\0\0\x18ftyp" + data)
    sniff(b"BM" + data)


def test_a_picture_under_the_type_of_another_is_refused_wherever_it_is_made() -> None:
    for make in (
        lambda: Attachment("a.png", "image/png", JPEG),
        lambda: Attachment.from_bytes(JPEG, "image/png"),
        lambda: Attachment.from_bytes(b"%PDF-1.7", "image/png"),
    ):
        with pytest.raises(AttachmentError, match=r"said to be image/png, but its bytes are .*/"):
            make()


def test_a_file_is_read_with_its_name_type_and_checksum(tmp_path: Path) -> None:
    path = tmp_path / "note.txt"
    path.write_bytes(b"hello")
    attachment = Attachment.from_path(path)
    assert (attachment.name, attachment.mime_type) == ("note.txt", "text/plain")
    assert attachment.data == b"hello"
    assert attachment.sha256 == hashlib.sha256(b"hello").hexdigest()
    assert Attachment.from_path(str(path), "text/markdown").mime_type == "text/markdown"
    with pytest.raises(FileNotFoundError):
        Attachment.from_path(tmp_path / "missing")


def test_the_bytes_win_over_the_extension(tmp_path: Path) -> None:
    path = tmp_path / "photo.jpg"
    path.write_bytes(PNG)
    assert Attachment.from_path(path).mime_type == "image/png"


@pytest.mark.parametrize(
    ("told", "kept"),
    [("IMAGE/JPG", "image/jpeg"), ("image/jpeg; q=1", "image/jpeg"), ("image/pjpeg", "image/jpeg")],
)
def test_mime_types_are_written_one_way(told: str, kept: str) -> None:
    assert Attachment.from_bytes(JPEG, told).mime_type == kept


@pytest.mark.parametrize(
    "wrong", ["png", "image/", "/png", "a/b/c", "text/pl\nain", "a/" + "b" * 200]
)
def test_what_is_no_mime_type_is_refused(wrong: str) -> None:
    with pytest.raises(AttachmentError, match="mime type"):
        Attachment.from_bytes(b"x", wrong)


def test_a_file_without_a_name_gets_one_that_fits_its_type() -> None:
    assert Attachment.from_bytes(PNG).name == "file.png"
    assert Attachment("", "text/plain", b"x").name == "file"


def test_neither_contents_nor_name_show_in_a_repr() -> None:
    attachment = Attachment.from_bytes(b"confidential", name="confidential.txt")
    assert "confidential" not in repr(attachment)
    assert "confidential" not in repr(
        RemoteAttachment("image/png", "https://example.com/confidential")
    )


# Names


@pytest.mark.parametrize(
    ("told", "kept"),
    [
        ("photo.png", "photo.png"),
        ("/etc/passwd", "passwd"),
        ("../../.ssh/id", "id"),
        ("C:\\Users\\a\\b.txt", "b.txt"),
        ("C:b.txt", "C_b.txt"),
        ("a/b/", "b"),
        ("a\0b\n.txt", "ab.txt"),
        ("photo\u202egpj.exe", "photogpj.exe"),
        (".\u200e.", "file"),
        ("..", "file"),
        (".", "file"),
        ("", "file"),
        ("///", "file"),
        ("a. .", "a"),
        ("  a b  ", "a b"),
        (".profile", ".profile"),
        ("Fotos \u00fc 日本.png", "Fotos \u00fc 日本.png"),
        ("\ud800x", "x"),
    ],
)
def test_a_name_is_bare_and_safe(told: str, kept: str) -> None:
    assert safe_name(told) == kept


@given(st.one_of(st.text(max_size=500), st.text("./\\: \u202e\0a", max_size=20)))
def test_any_name_becomes_a_name(told: str) -> None:
    name = safe_name(told)
    assert 0 < len(name.encode()) <= MAX_NAME_BYTES
    assert not re.search(r"[/\\:\x00-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]", name)
    assert name not in (".", "..")
    assert all(unicodedata.category(c) != "Cs" for c in name)
    assert safe_name(name) == name


def test_a_long_name_keeps_its_extension() -> None:
    name = safe_name("ä" * 5_000 + ".jpeg")
    assert name.endswith("ä.jpeg")
    assert MAX_NAME_BYTES - 2 < len(name.encode()) <= MAX_NAME_BYTES
    assert len(safe_name("a" + "." + "b" * 5_000)) == MAX_NAME_BYTES


# What is read from a disk


def test_a_file_over_the_limit_is_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "film.mp4"
    with path.open("wb") as file:
        file.truncate(25_000_001)
    monkeypatch.setattr(Path, "open", None)
    monkeypatch.setattr(Path, "read_bytes", None)
    with pytest.raises(AttachmentError, match=r"film\.mp4 is too large: at most 25\.0 MB"):
        Attachment.from_path(path)


def test_a_file_of_the_limit_is_read_and_the_limit_can_be_set(tmp_path: Path) -> None:
    path = tmp_path / "a.bin"
    path.write_bytes(bytes(10))
    assert Attachment.from_path(path, max_bytes=10).data == bytes(10)
    with pytest.raises(AttachmentError, match="at most 9 bytes"):
        Attachment.from_path(path, max_bytes=9)


def test_a_file_that_says_less_of_its_size_than_it_has_is_not_read_on() -> None:
    # Linux gives the files of its kernel as regular ones without a size.
    path = Path("/proc/self/maps")
    if not path.exists():
        pytest.skip("needs a file that does not tell its size")
    with pytest.raises(AttachmentError, match="too large"):
        Attachment.from_path(path, max_bytes=10)


def test_what_is_no_regular_file_is_not_opened(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)  # opening it would wait for somebody who writes
    link = tmp_path / "link.png"
    link.symlink_to("/dev/zero")
    for path in (pipe, link, tmp_path, Path("/dev/zero")):
        with pytest.raises(AttachmentError, match="not a file"):
            Attachment.from_path(path)


# Inside a version 1 message


def test_a_picture_goes_inline_and_comes_back() -> None:
    attachment = Attachment.from_bytes(PNG)
    item = attachment.to_inline()
    assert item == {
        "type": "image",
        "mime_type": "image/png",
        "content_b64": b64encode(PNG).decode(),
    }
    back = from_inline(json.loads(json.dumps(item)))
    assert isinstance(back, Attachment)
    assert (back.mime_type, back.data, back.name) == ("image/png", PNG, "file.png")


def test_only_pictures_go_inline() -> None:
    with pytest.raises(AttachmentError, match="Pair by link"):
        Attachment.from_bytes(b"text").to_inline()


def test_a_picture_that_a_program_calls_another_is_taken_for_what_it_is() -> None:
    item = {"type": "image", "mime_type": "image/jpeg", "content_b64": b64encode(PNG).decode()}
    assert from_inline(item).mime_type == "image/png"
    assert from_inline({**item, "mime_type": None}).mime_type == "image/png"


def test_a_url_is_kept_and_never_fetched() -> None:
    item = {"type": "image", "mime_type": "image/png", "url": "https://example.com/a.png"}
    attachment = from_inline(item)
    assert attachment == RemoteAttachment("image/png", "https://example.com/a.png")
    assert attachment.is_image


@pytest.mark.parametrize(
    ("item", "why"),
    [
        ({"content_b64": "iVBO Rw=="}, "not base64"),
        ({"content_b64": "iVBORw"}, "not base64"),
        ({"content_b64": "iVBORw-_"}, "not base64"),
        ({"content_b64": "é==="}, "not base64"),
        ({"content_b64": 7}, "neither"),
        ({}, "neither"),
        ([], "not an object"),
        ({"url": "javascript:alert(1)"}, "does not begin with http"),
        ({"url": "https://example.com/a b"}, "does not begin with http"),
        ({"url": 7}, "neither"),
        ({"content_b64": "", "mime_type": 7}, "not a text"),
        ({"content_b64": "aGVsbG8=", "type": "image"}, "known picture"),
        ({"content_b64": "aGVsbG8=", "mime_type": "image/png"}, "known picture"),
        ({"content_b64": "JVBERi0xLjc=", "type": "image"}, "application/pdf"),
        ({"content_b64": "aGVsbG8=", "mime_type": "x"}, "mime type"),
        ({"content_b64": "A" * 140}, "too large"),
        ({"content_b64": "A" * 136}, "too large"),
    ],
)
def test_a_wrong_inline_attachment_is_refused_in_words(item: dict[str, object], why: str) -> None:
    with pytest.raises(AttachmentError, match=why):
        from_inline(item, max_bytes=100)


def test_the_cap_is_exact() -> None:
    assert isinstance(
        from_inline({"content_b64": b64encode(bytes(100)).decode()}, max_bytes=100), Attachment
    )
    with pytest.raises(AttachmentError, match="too large"):
        from_inline({"content_b64": b64encode(bytes(101)).decode()}, max_bytes=100)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3)
    ),
    max_leaves=5,
)


@given(
    st.dictionaries(st.sampled_from(["type", "mime_type", "content_b64", "url", "x"]), json_values)
    | json_values
)
def test_hostile_inline_attachments_raise_nothing_else(item: dict[str, object]) -> None:
    with contextlib.suppress(AttachmentError):
        from_inline(item)


def sealed_as_v1(plaintext: bytes, id: str | None = None) -> bytes:
    """A version 1 message, put together by hand from PROTOCOL.md."""
    nonce = bytes(12)
    payload = {
        "enc": True,
        "ciphertext": b64encode(AESGCM(bytes(32)).encrypt(nonce, plaintext, None)).decode(),
        "nonce": b64encode(nonce).decode(),
    }
    return encode("chat.send", payload, ts=1_700_000_000_000, id=id)


@given(st.integers(0, 3_000))
def test_the_told_size_bounds_the_real_one_closely(size: int) -> None:
    real = len(sealed_as_v1(bytes(size)))
    assert real <= sealed_v1_size(size) <= real + 128
    assert len(sealed_as_v1(bytes(size), id="i" * 128)) <= sealed_v1_size(size)


def test_the_largest_picture_that_is_promised_fits() -> None:
    largest = max_inline_bytes()
    assert 2_900_000 < largest < 2_950_000
    picture = Attachment.from_bytes(PNG + bytes(largest - len(PNG)))
    payload = json.dumps({"text": "What is this?", "attachments": [picture.to_inline()]}).encode()
    check_inline(len(payload))
    assert len(sealed_as_v1(payload)) <= MAX_MESSAGE_BYTES


def test_a_picture_that_does_not_fit_is_refused_with_what_to_do() -> None:
    with pytest.raises(AttachmentError, match=r"relay takes 5\.2 MB.*about 2\.9 MB.*pair by link"):
        check_inline(5_000_000)
    with pytest.raises(AttachmentError, match=r"relay takes 1\.0 MB"):
        check_inline(800_000, max_message_bytes=1_000_000)


def test_sizes_are_told_for_people() -> None:
    assert [megabytes(n) for n in (12, 2_400, 5_242_880)] == ["12 bytes", "2 kB", "5.2 MB"]
