"""Who the bridge is to an OpenClaw gateway: a device, named by its Ed25519 key.

`device.json` (0600) holds the private key, and the token that the gateway gave the device
when it was approved, with the address that it is for: no other gateway gets to see it.
"""

from __future__ import annotations

import binascii
import hashlib
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from coralmux import private_files

FILE = "device.json"


class DeviceError(Exception):
    """The file of the device cannot be used; the text says why and what to do."""


class _Kept(msgspec.Struct):
    private_key: str
    gateway: str = ""
    token: str = ""


class Device:
    """`id` is the hex SHA-256 of the raw public key, which goes out in base64url."""

    def __init__(self, path: Path, kept: _Kept) -> None:
        self._path = path
        self._kept = kept
        self._key = Ed25519PrivateKey.from_private_bytes(_bytes(kept.private_key))
        raw = self._key.public_key().public_bytes_raw()
        self.id = hashlib.sha256(raw).hexdigest()
        self.public_key = _text(raw)

    def __repr__(self) -> str:
        return f"<Device {self.id[:8]}>"

    @classmethod
    def load(cls, directory: Path) -> Device:
        """The device of this directory, made where there is none. Raises DeviceError."""
        path = directory / FILE
        try:
            try:
                return cls(path, msgspec.json.decode(private_files.read(path), type=_Kept))
            except FileNotFoundError:
                private_files.make_directory(directory)
            new = cls(path, _Kept(_text(Ed25519PrivateKey.generate().private_bytes_raw())))
            new._write()
        except OSError as error:
            raise DeviceError(
                f"{path} cannot be used: {error.strerror}. See that this user may read and "
                "write it."
            ) from error
        except (ValueError, msgspec.MsgspecError):
            # What is in it stays out of the traceback.
            raise DeviceError(
                f"{path} is damaged. Delete it; the gateway then has to approve this bridge anew."
            ) from None
        return new

    def token(self, gateway: str) -> str:
        """The token that this gateway has given; "" where there is none."""
        return self._kept.token if self._kept.gateway == gateway else ""

    def keep_token(self, gateway: str, token: str) -> None:
        """Keep the token, or with "" drop it. Raises DeviceError."""
        if self.token(gateway) == token:
            return
        self._kept.gateway, self._kept.token = gateway, token
        try:
            self._write()
        except OSError as error:
            raise DeviceError(
                f"{self._path} cannot be written: {error.strerror}. See that this user may "
                "write it, and that the disk has room."
            ) from error

    def proof(
        self,
        challenge: Mapping[str, Any],
        *,
        client: Mapping[str, str],
        role: str,
        scopes: Sequence[str],
        token: str,
    ) -> dict[str, Any]:
        """`device` of the connect request: what the key says to the gateway's challenge."""
        signed_at, nonce = challenge["ts"], challenge["nonce"]
        text = "|".join(
            (
                "v3",
                self.id,
                client["id"],
                client["mode"],
                role,
                ",".join(scopes),
                str(signed_at),
                token,
                nonce,
                client["platform"].lower(),
                client.get("deviceFamily", "").lower(),
            )
        )
        return {
            "id": self.id,
            "publicKey": self.public_key,
            "signature": _text(self._key.sign(text.encode())),
            "signedAt": signed_at,
            "nonce": nonce,
        }

    def _write(self) -> None:
        private_files.replace(self._path, msgspec.json.encode(self._kept))


def _text(data: bytes) -> str:
    return urlsafe_b64encode(data).rstrip(b"=").decode("ascii")


def _bytes(text: str) -> bytes:
    """Raises ValueError."""
    try:
        return urlsafe_b64decode(text + "=" * (-len(text) % 4))
    except binascii.Error as error:
        raise ValueError("no base64url") from error
