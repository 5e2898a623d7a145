"""The wire contract that both ends and the relay share. See PROTOCOL.md."""

from coralmux.protocol.close_codes import CloseCode
from coralmux.protocol.envelope import Envelope, decode, decode_object, encode, peek_id
from coralmux.protocol.errors import ErrorCode, InvalidMessage, NotUtf8, PeerCode, error_payload
from coralmux.protocol.types import RateClass, Role, rate_class

__all__ = [
    "CloseCode",
    "Envelope",
    "ErrorCode",
    "InvalidMessage",
    "NotUtf8",
    "PeerCode",
    "RateClass",
    "Role",
    "decode",
    "decode_object",
    "encode",
    "error_payload",
    "peek_id",
    "rate_class",
]
