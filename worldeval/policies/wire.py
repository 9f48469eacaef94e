"""The address that scripts of others know the codec by; it lives in ``policies/servers/wire``."""

from worldeval.policies.servers.wire import pack, unpack

__all__ = ["pack", "unpack"]
