"""What the tests share: a really started relay, and clients that speak v1 to it."""
