"""The line where questions are typed."""

from __future__ import annotations

from prompt_toolkit import PromptSession
from prompt_toolkit.key_binding import KeyBindings, KeyPressEvent
from prompt_toolkit.keys import Keys
from prompt_toolkit.patch_stdout import patch_stdout


class Leave(Exception):
    """The person wants to go."""


class Prompt:
    """What happens while somebody types is shown above the line. The history ends with us:
    what people ask has no business on a disk."""

    def __init__(self) -> None:
        keys = KeyBindings()

        @keys.add("c-c")
        @keys.add(Keys.SIGINT)
        def _(event: KeyPressEvent) -> None:
            if event.current_buffer.text:
                event.current_buffer.reset()
            else:
                event.app.exit(exception=Leave)

        self._session: PromptSession[str] = PromptSession("> ", key_bindings=keys)

    async def line(self) -> str:
        """What was typed. Raises Leave on Ctrl-C or Ctrl-D in an empty line."""
        try:
            # Raw: our own lines are styled, and what others say has been filtered.
            with patch_stdout(raw=True):
                return await self._session.prompt_async()
        except EOFError:
            raise Leave from None
