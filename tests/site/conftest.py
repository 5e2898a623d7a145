"""The real parts that tests of the site use."""

from tests.support.parts import chromium

__all__ = ["chromium"]
