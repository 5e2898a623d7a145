"""The demo in the local network: this machine's address there, a certificate for it, and TLS.

A page from `http://192.168…` gets no WebCrypto from browsers, so phones need https even at
home; and no authority certifies such an address, so that the certificate is our own.
"""

from __future__ import annotations

import asyncio
import contextlib
import datetime
import ipaddress
import socket
import ssl
from collections.abc import AsyncIterator
from pathlib import Path

import psutil
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from coralmux import private_files
from demo.parts import DemoError

Address = ipaddress.IPv4Address | ipaddress.IPv6Address

# Some phones refuse certificates that are good for more than 825 days.
_GOOD_FOR = datetime.timedelta(days=365)
# A demo that is started now should be good for this long.
_MARGIN = datetime.timedelta(days=1)

_CHUNK = 65_536


def address(wanted: str) -> Address:
    """The address that is wanted; with "1" the one that other machines at home know.

    Raises DemoError.
    """
    if wanted != "1":
        try:
            return ipaddress.ip_address(wanted)
        except ValueError:
            raise DemoError(
                f"LAN={wanted} is no IP address. Give this machine's, such as "
                "LAN=192.168.1.20, or LAN=1 to have it found."
            ) from None
    candidates = [_toward_others(), *_own()]
    for found in candidates:
        if found is not None and found.is_private and not found.is_loopback:
            return found
    raise DemoError(
        "This machine has no address in a local network. Connect it to one, or give the "
        "address: make demo LAN=192.168.1.20"
    )


def _toward_others() -> Address | None:
    """The address that this machine would send from."""
    with contextlib.suppress(OSError), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        # Sends nothing: for datagrams this only looks up the route. The address is one of
        # those that are kept for documentation.
        probe.connect(("192.0.2.1", 9))
        return ipaddress.ip_address(probe.getsockname()[0])
    return None


def _own() -> list[Address]:
    up = {name for name, about in psutil.net_if_stats().items() if about.isup}
    return [
        ipaddress.ip_address(found.address)
        for name, addresses in psutil.net_if_addrs().items()
        for found in addresses
        if name in up and found.family == socket.AF_INET
    ]


def certificate(directory: Path, address: Address) -> tuple[Path, Path]:
    """Certificate and key for this address: those that are kept here, or new ones.

    Raises OSError.
    """
    certificate, key = directory / "cert.pem", directory / "key.pem"
    if not (key.exists() and _is_good(certificate, address)):
        private_files.make_directory(directory)
        made, its_key = _make(address)
        private_files.replace(key, its_key)
        private_files.replace(certificate, made)
    return certificate, key


def fingerprint(directory: Path) -> str:
    """What browsers show of the certificate that is kept here."""
    found = x509.load_pem_x509_certificate((directory / "cert.pem").read_bytes())
    return found.fingerprint(hashes.SHA256()).hex(":").upper()


def _is_good(path: Path, address: Address) -> bool:
    try:
        found = x509.load_pem_x509_certificate(path.read_bytes())
        names = found.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except (OSError, ValueError, x509.ExtensionNotFound):
        return False
    until = found.not_valid_after_utc - _MARGIN
    return address in names.get_values_for_type(x509.IPAddress) and until > _now()


def _make(address: Address) -> tuple[bytes, bytes]:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"CoralMux demo at {address}")])
    extensions: list[tuple[x509.ExtensionType, bool]] = [
        (x509.SubjectAlternativeName([x509.IPAddress(address)]), False),
        (x509.BasicConstraints(ca=False, path_length=None), True),
        (x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), False),
        (x509.SubjectKeyIdentifier.from_public_key(key.public_key()), False),
    ]
    builder = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        # Clocks at home differ.
        .not_valid_before(_now() - _MARGIN)
        .not_valid_after(_now() + _GOOD_FOR)
    )
    for extension, critical in extensions:
        builder = builder.add_extension(extension, critical)
    return (
        builder.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM),
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        ),
    )


def _now() -> datetime.datetime:
    return datetime.datetime.now(datetime.UTC)


@contextlib.asynccontextmanager
async def tls_in_front(
    relay_port: int, address: Address, port: int, files: tuple[Path, Path]
) -> AsyncIterator[int]:
    """End TLS at this address and pipe what is inside to the relay; the port, 0 being any.

    Raises DemoError.
    """
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(*files)
    connections: set[asyncio.Task[None]] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        connections.add(task)
        task.add_done_callback(connections.discard)
        await _connect(relay_port, reader, writer)

    try:
        server = await asyncio.start_server(serve, str(address), port, ssl=context)
    except OSError as error:
        raise DemoError(
            f"Nobody can listen on {address}, port {port or 'any'}: {error.strerror}. "
            "Give an address of this machine (LAN=) and a port that is free (PORT=)."
        ) from None
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        for task in connections:
            task.cancel()
        await asyncio.gather(*connections, return_exceptions=True)


async def _connect(
    relay_port: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
) -> None:
    """Carry bytes both ways until either side has had enough."""
    try:
        relay_reader, relay_writer = await asyncio.open_connection("127.0.0.1", relay_port)
    except OSError:
        writer.close()
        return
    ways = {
        asyncio.create_task(_carry(reader, relay_writer)),
        asyncio.create_task(_carry(relay_reader, writer)),
    }
    try:
        await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for way in ways:
            way.cancel()
        await asyncio.gather(*ways, return_exceptions=True)
        writer.close()
        relay_writer.close()


async def _carry(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError):
        while data := await reader.read(_CHUNK):
            writer.write(data)
            await writer.drain()
