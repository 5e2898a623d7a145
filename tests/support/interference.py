"""What a hostile relay can do to single messages, one purpose each.

Each is a `relay.tamper` that leaves all alone but the nth frame of a type and sender:
`relay.tamper = Flip("chat.stream", nth=3)`. `nth=None` strikes every one, and
`struck` holds the frames that were, as their sender wrote them. `Flip`, `Truncate` and
`Recount` count only frames that have the field which they change. Both versions' payloads
are known by their shape; nothing here holds a key (see `tests.support.middle`).
"""

from __future__ import annotations

import base64
from collections.abc import Callable
from typing import Any

from coralmux.protocol import Role, encode
from tests.support.hostile_relay import Frame, Outputs

Condition = Callable[[Frame], bool]


def sealed(frame: Frame) -> bool:
    """A record of version 2 or a sealed payload of version 1."""
    return frame.payload.get("enc") is True


def step(number: int) -> Condition:
    """A `key_exchange` with this step of version 2 in the clear, that is 0 to 2."""
    return lambda frame: frame.type == "key_exchange" and frame.payload.get("step") == number


class On:
    """The nth frame that is of this type, from this sender and fulfils `where`."""

    def __init__(
        self,
        type: str | None = None,
        *,
        sender: Role | None = None,
        nth: int | None = 1,
        where: Condition = lambda frame: True,
    ) -> None:
        self.type = type
        self.sender = sender
        self.nth = nth
        self.where = where
        self.struck: list[Frame] = []
        self._seen = 0

    def __call__(self, frame: Frame) -> Outputs:
        if not self.matches(frame):
            return [frame.data]
        self._seen += 1
        if self.nth not in (None, self._seen):
            return [frame.data]
        self.struck.append(frame)
        return self.strike(frame)

    def matches(self, frame: Frame) -> bool:
        return (
            self.type in (None, frame.type)
            and self.sender in (None, frame.sender)
            and self.where(frame)
        )

    def strike(self, frame: Frame) -> Outputs:
        """What is forwarded instead."""
        raise NotImplementedError


class Drop(On):
    """The frame never arrives."""

    def strike(self, frame: Frame) -> Outputs:
        return []


class _Later(On):
    """Lets the first struck frame out after `after` more frames of its sender."""

    def __init__(self, *arguments: Any, after: int, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.after = after
        self._passed = -1

    def __call__(self, frame: Frame) -> Outputs:
        outputs = [*super().__call__(frame)]
        if self.struck and frame.sender is self.struck[0].sender:
            self._passed += 1
            if self._passed == self.after:
                outputs.append(self.struck[0].data)
        return outputs


class Replay(_Later):
    """The frame arrives, and once more after `after` more frames of its sender."""

    def __init__(self, *arguments: Any, after: int = 0, **options: Any) -> None:
        super().__init__(*arguments, after=after, **options)

    def strike(self, frame: Frame) -> Outputs:
        return [frame.data]


class Reorder(_Later):
    """The frame arrives only after `by` more frames of its sender."""

    def __init__(self, *arguments: Any, by: int = 1, **options: Any) -> None:
        super().__init__(*arguments, after=by, **options)

    def strike(self, frame: Frame) -> Outputs:
        return []


class Relabel(On):
    """The frame arrives under another type."""

    def __init__(self, *arguments: Any, to: str, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.to = to

    def strike(self, frame: Frame) -> Outputs:
        return [frame.rewritten(type=self.to)]


class Renumber(On):
    """The frame arrives under another id."""

    def __init__(self, *arguments: Any, to: str = "another-id", **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.to = to

    def strike(self, frame: Frame) -> Outputs:
        return [frame.rewritten(id=self.to)]


class _Edit(On):
    """Changes one field of the payload, and counts only frames that have it."""

    field = ""

    def matches(self, frame: Frame) -> bool:
        return super().matches(frame) and self.field in frame.payload

    def strike(self, frame: Frame) -> Outputs:
        payload = frame.payload
        payload[self.field] = self.edit(payload[self.field])
        return [frame.rewritten(payload=payload)]

    def edit(self, value: Any) -> Any:
        raise NotImplementedError


class Recount(_Edit):
    """A record's `n` is changed."""

    field = "n"

    def __init__(self, *arguments: Any, by: int = 1, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.by = by

    def edit(self, value: Any) -> Any:
        return value + self.by


class Truncate(_Edit):
    """The last `by` bytes of a field in base64 are cut off, whole characters of it."""

    def __init__(
        self, *arguments: Any, by: int = 1, field: str = "ciphertext", **options: Any
    ) -> None:
        super().__init__(*arguments, **options)
        self.by = by
        self.field = field

    def edit(self, value: Any) -> Any:
        raw = base64.b64decode(value)
        return base64.b64encode(raw[: max(0, len(raw) - self.by)]).decode()


class Flip(_Edit):
    """One bit of a field in base64 is flipped; `byte` counts from the end if negative."""

    def __init__(
        self,
        *arguments: Any,
        byte: int = 0,
        bit: int = 0,
        field: str = "ciphertext",
        **options: Any,
    ) -> None:
        super().__init__(*arguments, **options)
        self.byte = byte
        self.bit = bit
        self.field = field

    def edit(self, value: Any) -> Any:
        raw = bytearray(base64.b64decode(value))
        raw[self.byte] ^= 1 << self.bit
        return base64.b64encode(raw).decode()


class StripVersion(_Edit):
    """`"v":2` is taken out of handshakes and records, every one unless `nth` is given."""

    field = "v"

    def __init__(self, *arguments: Any, nth: int | None = None, **options: Any) -> None:
        super().__init__(*arguments, nth=nth, **options)

    def strike(self, frame: Frame) -> Outputs:
        payload = frame.payload
        del payload["v"]
        return [frame.rewritten(payload=payload)]


class AnswerForOther(On):
    """The sender gets its own frame back as if its peer had written it.

    The peer gets it too, unless `instead`. `as_type` relabels what is sent back.
    """

    def __init__(
        self, *arguments: Any, instead: bool = True, as_type: str | None = None, **options: Any
    ) -> None:
        super().__init__(*arguments, **options)
        self.instead = instead
        self.as_type = as_type

    def strike(self, frame: Frame) -> Outputs:
        back = frame.data if self.as_type is None else frame.rewritten(type=self.as_type)
        forwarded: list[bytes | tuple[Role, bytes]] = [] if self.instead else [frame.data]
        return [*forwarded, (frame.sender, back)]


class ReplayStep1(On):
    """Behind the struck frame, the agent gets the phone's first step 1 once more."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.first: Frame | None = None

    def __call__(self, frame: Frame) -> Outputs:
        if self.first is None and step(1)(frame):
            self.first = frame
            return [frame.data]
        return super().__call__(frame)

    def matches(self, frame: Frame) -> bool:
        return self.first is not None and super().matches(frame)

    def strike(self, frame: Frame) -> Outputs:
        # `matches` has seen to it that there is one.
        return [frame.data] if self.first is None else [frame.data, (Role.AGENT, self.first.data)]


class ReplayOldSession(On):
    """Before the struck frame, both sides get all sealed frames of an earlier meeting.

    Counted are frames of later meetings only: those after a reconnection of either side.
    """

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.old: list[Frame] = []

    def __call__(self, frame: Frame) -> Outputs:
        if sealed(frame) and (not self.old or _same(self.old[0], frame)):
            self.old.append(frame)
        return super().__call__(frame)

    def matches(self, frame: Frame) -> bool:
        return bool(self.old) and not _same(self.old[0], frame) and super().matches(frame)

    def strike(self, frame: Frame) -> Outputs:
        return [*((old.sender.peer, old.data) for old in self.old), frame.data]


def _same(old: Frame, new: Frame) -> bool:
    return old.meeting == new.meeting


class ForgeError(On):
    """Behind the struck frame, a `chat.error` that nobody wrote goes to `to`.

    `ref` is the struck frame's id unless given; `more` goes into the payload.
    """

    def __init__(
        self,
        *arguments: Any,
        code: str,
        to: Role,
        ref: str | None = None,
        message: str = "forged",
        more: dict[str, Any] | None = None,
        **options: Any,
    ) -> None:
        super().__init__(*arguments, **options)
        self.code = code
        self.to = to
        self.ref = ref
        self.message = message
        self.more = more or {}

    def strike(self, frame: Frame) -> Outputs:
        payload = {
            "code": self.code,
            "message": self.message,
            "ref": frame.id if self.ref is None else self.ref,
            **self.more,
        }
        return [frame.data, (self.to, encode("chat.error", payload, ts=0))]
