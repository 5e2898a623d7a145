"""Clients of the relay on asyncio: `Agent` and `Phone`, and the connection below them."""
