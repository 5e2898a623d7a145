"""Servers that cannot be had in tests, as real servers on free ports."""
