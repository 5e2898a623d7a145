"""Django's view of the relay application."""

from django.apps import AppConfig


class RelayConfig(AppConfig):
    name = "relay"

    def ready(self) -> None:
        from pairing import presence, signals
        from relay.runtime import runtime

        presence.register(runtime.directory.online_roles)
        signals.token_revoked.connect(runtime.on_token_revoked, dispatch_uid="relay")
