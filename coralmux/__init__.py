"""CoralMux: talk to the AI agent at home through a relay that cannot read along.

This package is the client side and the wire contract; it never imports Django.
"""

__version__ = "0.1.0"
