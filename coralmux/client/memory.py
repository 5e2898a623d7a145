"""What one end of a pairing remembers: its secrets, and which ids it has seen."""

from __future__ import annotations

import asyncio
import logging
from collections import OrderedDict, deque

from coralmux.client.store import PairingState, Store, StoreError, load_own
from coralmux.e2e.events import Secrets
from coralmux.e2e.link import PairingLink
from coralmux.protocol import Role
from coralmux.protocol.limits import SEEN_IDS

log = logging.getLogger("coralmux")

# Seconds until ids that were seen are on disk.
_SAVE_SECONDS = 1.0


class Memory:
    """The state of a pairing, written to a store where there is one (`lasting`).

    Raises StoreError when it cannot be read, or is the other role's.
    """

    def __init__(self, store: Store | None, link: PairingLink, role: Role) -> None:
        self.lasting = store is not None
        self._store = store
        self._token = link.token
        self._role = role
        kept = None if store is None else load_own(store, link.token, role)
        self._state = PairingState.for_link(kept, link.secret)
        self._state.role = role.value
        self._seen: OrderedDict[str, None] = OrderedDict.fromkeys(self._state.seen_ids)
        self._saving: asyncio.TimerHandle | None = None

    def __repr__(self) -> str:
        return f"<Memory of the {self._role}, {len(self._seen)} ids>"

    @property
    def secrets(self) -> Secrets | None:
        """None for a pairing by token alone."""
        return self._state.secrets

    @property
    def peer_name(self) -> str:
        """What the other end last called itself."""
        return self._state.peer_name

    @peer_name.setter
    def peer_name(self, name: str) -> None:
        self._state.peer_name = name

    def keep(self, secrets: Secrets) -> None:
        """Write new secrets down, now. Raises StoreError."""
        if self._store is not None:
            # The other end may have begun to keep its own there meanwhile.
            load_own(self._store, self._token, self._role)
        self._state.secrets = secrets
        self._save()

    def has_seen(self, id: str) -> bool:
        """Whether this id came before; it has from now on. The last 1,024 are remembered."""
        if id in self._seen:
            return True
        self._seen[id] = None
        if len(self._seen) > SEEN_IDS:
            self._seen.popitem(last=False)
        if self._store is not None and self._saving is None:
            loop = asyncio.get_running_loop()
            self._saving = loop.call_later(_SAVE_SECONDS, self._save_seen)
        return False

    def close(self) -> None:
        """Write down what waits to be."""
        if self._saving is not None:
            self._save_seen()

    def _save(self) -> None:
        if self._saving is not None:
            self._saving.cancel()
            self._saving = None
        if self._store is not None:
            self._state.seen_ids = deque(self._seen)
            self._store.save(self._token, self._state)

    def _save_seen(self) -> None:
        try:
            self._save()
        except StoreError as error:
            # Worth a warning, and no reason to end a conversation: the ids are still
            # in memory, and are written with the next ones.
            log.warning("%s", error)
