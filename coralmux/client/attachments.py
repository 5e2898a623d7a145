"""What travels with a message: a picture or another file, and its version 1 form.

    a = Attachment.from_path("photo.png")
    a.name, a.mime_type, a.data, a.sha256, a.is_image

Toward a version 2 peer an attachment travels as `file.*` (files.py); toward a version 1
peer it stands inside the message: `{"type":"image","mime_type","content_b64"}`
(PROTOCOL.md, payloads).
"""

from __future__ import annotations

import binascii
import hashlib
import mimetypes
import os
import re
import stat
import unicodedata
from base64 import b64encode
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from coralmux.client.errors import ClientError
from coralmux.protocol.limits import MAX_FILE_BYTES, MAX_MESSAGE_BYTES

# Bytes (UTF-8) of a name. File systems take 255; the rest is room for a suffix such
# as " (2)" or ".part" of whoever writes it to a disk.
MAX_NAME_BYTES = 200

# Longer mime types do not exist (RFC 6838, section 4.2, bounds each half at 127).
_MIME_TYPE = re.compile(r"[a-z0-9][a-z0-9!#$&^_.+-]{0,126}/[a-z0-9][a-z0-9!#$&^_.+-]{0,126}")

_UNKNOWN = "application/octet-stream"

# Other schemes (javascript:, file:) would do harm as soon as somebody shows a link.
_URL = re.compile(r"(?i)https?://[^\s\x00-\x1f\x7f]{1,8000}")

# Other names of the same formats, as programs in the field write them.
_ALIASES = {
    "image/jpg": "image/jpeg",
    "image/pjpeg": "image/jpeg",
    "image/x-png": "image/png",
    "image/x-bmp": "image/bmp",
    "image/x-ms-bmp": "image/bmp",
    "image/heif": "image/heic",
    "image/heic-sequence": "image/heic",
    "image/heif-sequence": "image/heic",
    "image/avif-sequence": "image/avif",
}


class AttachmentError(ClientError):
    """An attachment that cannot be what it says, or cannot be sent; the text says why."""


@dataclass(frozen=True, repr=False)
class Attachment:
    """A file that is here as a whole. Raises AttachmentError for a picture that is none.

    `name` is always a bare file name that is safe to show and to write. `mime_type` is
    lower case without parameters; where it says `image/…` the bytes have been looked at.
    """

    name: str
    mime_type: str
    data: bytes

    def __post_init__(self) -> None:
        mime_type = _checked_mime_type(self.mime_type)
        if mime_type.startswith("image/"):
            found = sniff(self.data)
            if found != mime_type:
                raise AttachmentError(_not_that_picture(mime_type, found))
        # The one way to set a field of a frozen dataclass while it is made.
        object.__setattr__(self, "mime_type", mime_type)
        object.__setattr__(self, "name", safe_name(self.name))

    def __repr__(self) -> str:
        return f"Attachment({self.mime_type}, {len(self.data)} bytes)"

    @classmethod
    def from_path(
        cls,
        path: str | os.PathLike[str],
        mime_type: str | None = None,
        *,
        max_bytes: int = MAX_FILE_BYTES,
    ) -> Attachment:
        """Read a file of at most `max_bytes`.

        Raises OSError, or AttachmentError if it is larger, no regular file, or not what
        `mime_type` says.
        """
        path = Path(path)
        name = safe_name(path.name)
        # Asked before it is opened: a pipe would keep us until somebody writes to it.
        found = path.stat()
        if not stat.S_ISREG(found.st_mode):
            raise AttachmentError(f"{name} is not a file that can be sent. Give the path of one.")
        if found.st_size <= max_bytes:
            with path.open("rb") as file:
                data = file.read(max_bytes + 1)  # it may have grown
            if len(data) <= max_bytes:
                return cls.from_bytes(data, mime_type, path.name)
        raise AttachmentError(
            f"{name} is too large: at most {megabytes(max_bytes)} are sent. Send a smaller one."
        )

    @classmethod
    def from_bytes(
        cls, data: bytes | bytearray | memoryview, mime_type: str | None = None, name: str = ""
    ) -> Attachment:
        """An attachment of these bytes; without `mime_type` it is found by bytes, then name."""
        data = bytes(data)
        if not mime_type:
            mime_type = sniff(data) or _guess(name)
        if not name:
            name = "file" + (mimetypes.guess_extension(_checked_mime_type(mime_type)) or "")
        return cls(name, mime_type, data)

    @property
    def is_image(self) -> bool:
        return self.mime_type.startswith("image/")

    @cached_property
    def sha256(self) -> str:
        """SHA-256 of the data, 64 hexadecimal digits; computed once."""
        return hashlib.sha256(self.data).hexdigest()

    def to_inline(self) -> dict[str, str]:
        """The version 1 form. Raises AttachmentError for anything but a picture."""
        if not self.is_image:
            raise AttachmentError(
                "The other end speaks version 1, which carries pictures only. "
                "Pair by link for version 2, which carries any file."
            )
        return {
            "type": "image",
            "mime_type": self.mime_type,
            "content_b64": b64encode(self.data).decode("ascii"),
        }


@dataclass(frozen=True, slots=True)
class RemoteAttachment:
    """An attachment that is only named, by a URL. Nothing here ever fetches it."""

    mime_type: str
    url: str = field(repr=False)

    @property
    def is_image(self) -> bool:
        return self.mime_type.startswith("image/")


def from_inline(
    item: dict[str, Any], *, max_bytes: int = MAX_FILE_BYTES
) -> Attachment | RemoteAttachment:
    """Read an entry of `attachments` with `content_b64` or `url`. Raises AttachmentError.

    A picture under the name of another picture format is taken for what it is: programs
    in the field write image/jpeg beside everything. What is no picture is refused.
    """
    if not isinstance(item, dict):
        raise AttachmentError("The attachment is not an object.")
    content, url = item.get("content_b64"), item.get("url")
    mime_type = item.get("mime_type") or ""
    if not isinstance(mime_type, str):
        raise AttachmentError("The attachment's mime_type is not a text.")
    if content is None and isinstance(url, str):
        if not _URL.fullmatch(url):
            raise AttachmentError("The attachment's url does not begin with http:// or https://.")
        return RemoteAttachment(_checked_mime_type(mime_type or _UNKNOWN), url)
    if not isinstance(content, str):
        raise AttachmentError("The attachment has neither content_b64 nor url, as texts.")
    if len(content) > _base64_size(max_bytes):
        raise AttachmentError(
            f"The attachment is too large: at most {megabytes(max_bytes)} are taken."
        )
    try:
        data = binascii.a2b_base64(content, strict_mode=True)
    except ValueError:
        raise AttachmentError("The attachment's content_b64 is not base64.") from None
    if len(data) > max_bytes:
        raise AttachmentError(
            f"The attachment is too large: at most {megabytes(max_bytes)} are taken."
        )
    found = sniff(data)
    is_picture = found is not None and found.startswith("image/")
    if item.get("type") == "image" and not is_picture:
        raise AttachmentError(_not_that_picture(mime_type or "image", found))
    if is_picture and (not mime_type or mime_type.lower().startswith("image/")):
        mime_type = found or ""
    return Attachment.from_bytes(data, mime_type or None)


def sniff(data: bytes) -> str | None:
    """The mime type that the first bytes tell of, or None; pictures and PDF are known."""
    if data.startswith(b"\x89PNG\r\n\x1a\n"):
        return "image/png"
    if data.startswith(b"\xff\xd8\xff"):
        return "image/jpeg"
    if data.startswith((b"GIF87a", b"GIF89a")):
        return "image/gif"
    if data.startswith(b"RIFF") and data[8:12] == b"WEBP":
        return "image/webp"
    # "BM" alone begins many a text: the reserved bytes and the length of the second
    # header are looked at as well.
    if data.startswith(b"BM") and data[6:10] == bytes(4) and data[15:18] == bytes(3):
        return "image/bmp" if data[14] in (12, 40, 52, 56, 64, 108, 124) else None
    if data.startswith((b"II*\0", b"MM\0*")):
        return "image/tiff"
    if data[4:8] == b"ftyp":
        return _sniff_brands(data)
    if data.startswith(b"%PDF-"):
        return "application/pdf"
    return None


def _sniff_brands(data: bytes) -> str | None:
    """ISO/IEC 14496-12: the box `ftyp` lists what a file can be read as; videos have it too."""
    end = min(int.from_bytes(data[:4], "big"), 256, len(data))
    brands = [data[8:12], *(data[at : at + 4] for at in range(16, end - 3, 4))]
    if brands[0] not in (b"avif", b"avis", b"heic", b"heix", b"heim", b"heis", b"mif1", b"msf1"):
        return None
    for brand in brands:
        if brand in (b"avif", b"avis"):
            return "image/avif"
        if brand in (b"heic", b"heix", b"heim", b"heis"):
            return "image/heic"
    return "image/heic"


def _guess(name: str) -> str:
    guessed = mimetypes.guess_type(name, strict=True)[0] or _UNKNOWN
    # Not a picture by its bytes, so it travels as a file whatever it is called.
    return _UNKNOWN if guessed.startswith("image/") else guessed


def _checked_mime_type(text: str) -> str:
    mime_type = text.partition(";")[0].strip().lower()
    if not _MIME_TYPE.fullmatch(mime_type):
        raise AttachmentError("The mime type must look like image/png.")
    return _ALIASES.get(mime_type, mime_type)


def _not_that_picture(mime_type: str, found: str | None) -> str:
    # A peer's mime type is repeated only where it has been checked.
    told = mime_type if _MIME_TYPE.fullmatch(mime_type) else "a picture"
    what = f"its bytes are {found}" if found else "its bytes are not those of a known picture"
    return (
        f"The attachment is said to be {told}, but {what}. "
        "Send it as PNG, JPEG, GIF, WebP, BMP, TIFF, AVIF or HEIC under its own type."
    )


# Names

# Marks that turn the reading direction: "exe.gpj" is shown as "jpg.exe" behind one.
_BIDI = frozenset("\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")

# Control characters, halves of characters, line and paragraph separators.
_UNSHOWN = frozenset({"Cc", "Cs", "Zl", "Zp"})


def safe_name(name: str) -> str:
    """A bare file name: what stands behind the last slash, fit to be shown and written.

    Control characters and marks that turn the reading direction are taken out, a colon
    becomes "_" (on Windows it names a drive or a stream), and at most MAX_NAME_BYTES
    bytes are kept, the extension among them. Where nothing is left, "file".
    """
    # A peer may name a file with megabytes; no more is looked at than can matter.
    shown = "".join(
        c for c in name[-4096:] if c not in _BIDI and unicodedata.category(c) not in _UNSHOWN
    )
    last = re.split(r"[/\\]", shown.rstrip("/\\ "))[-1].replace(":", "_")
    # A dot or space at the end is dropped by Windows, and "." and ".." are no files.
    return _shortened(last.strip().rstrip(". ")) or "file"


def _shortened(name: str) -> str:
    if len(name.encode()) <= MAX_NAME_BYTES:
        return name
    stem, dot, extension = name.rpartition(".")
    tail = dot + extension
    if not stem or len(tail.encode()) > 20:
        stem, tail = name, ""
    room = MAX_NAME_BYTES - len(tail.encode())
    return stem.encode()[:room].decode("utf-8", "ignore").rstrip() + tail


# The size of a version 1 message

# AES-GCM's tag behind the ciphertext.
_TAG_BYTES = 16

# The envelope around the ciphertext, with the longest id that errors can name and room
# for a long type and time.
_ENVELOPE_BYTES = (
    len(
        '{"v":1,"type":"chat.tool_status","id":"","ts":-9007199254740992,'
        '"payload":{"enc":true,"ciphertext":"","nonce":"AAAAAAAAAAAAAAAA"}}'
    )
    + 128
)


def _base64_size(size: int) -> int:
    return (size + 2) // 3 * 4


def sealed_v1_size(plaintext_bytes: int) -> int:
    """Bytes of the version 1 message that a payload of so many bytes of JSON becomes, at most."""
    return _ENVELOPE_BYTES + _base64_size(plaintext_bytes + _TAG_BYTES)


def max_inline_bytes(max_message_bytes: int = MAX_MESSAGE_BYTES) -> int:
    """Bytes that pictures may have together in one version 1 message, beside a short text.

    They are base64 inside encryption inside base64: 9/16 of the message.
    """
    plaintext = (max_message_bytes - _ENVELOPE_BYTES) // 4 * 3 - _TAG_BYTES
    return max(0, (plaintext - 1024) // 4 * 3)


def check_inline(payload_bytes: int, *, max_message_bytes: int = MAX_MESSAGE_BYTES) -> None:
    """Raise AttachmentError if a payload of so many bytes of JSON is too large for version 1.

    `max_message_bytes` is what the relay announces in `auth.ok`.
    """
    size = sealed_v1_size(payload_bytes)
    if size > max_message_bytes:
        raise AttachmentError(
            f"Encrypted for a peer of version 1, this message has {megabytes(size)}, and the "
            f"relay takes {megabytes(max_message_bytes)}. Pictures may have about "
            f"{megabytes(max_inline_bytes(max_message_bytes))} together: scale them down, or "
            "pair by link for version 2, which sends files in parts."
        )


def megabytes(size: int) -> str:
    """A number of bytes for people: 5242880 is "5.2 MB"."""
    if size < 1_000_000:
        return f"{size / 1000:.0f} kB" if size >= 1000 else f"{size} bytes"
    return f"{size / 1_000_000:.1f} MB"
