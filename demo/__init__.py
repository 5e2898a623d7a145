"""`make demo`: relay, a real small model and the bridge, by one command."""
