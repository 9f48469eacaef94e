"""An earlier address, kept for scripts; the codec is ``policies/servers/msgpack_numpy.py``."""

from worldeval.policies.servers.msgpack_numpy import pack, unpack

__all__ = ["pack", "unpack"]
