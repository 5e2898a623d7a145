"""The bridge with the frameworks that have an environment of their own: `make test-frameworks`."""
