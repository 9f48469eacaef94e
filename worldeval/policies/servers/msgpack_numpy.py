"""The bytes of a policy server: msgpack with numpy arrays in it, as openpi writes them.

Enters: a value of dicts, lists, text, numbers and numpy arrays. Leaves: bytes, and back. An array
is a map with byte-string keys, a numpy scalar likewise::

    {b"__ndarray__": True, b"data": raw bytes in C order, b"dtype": "<f4", b"shape": [10, 8]}
    {b"__npgeneric__": True, b"data": 1.5, b"dtype": "<f4"}

Byte for byte the codec of openpi's and RoboArena's client packages, which descends from
msgpack-numpy without its pickle: dtypes of objects, records and complex numbers ("O", "V", "c") are
refused on both sides, so nothing that arrives can ever be run as code. What arrives is also
measured before it is believed: shape times item size must equal the length of the data.
"""

from __future__ import annotations

import math
from typing import Any

import msgpack  # type: ignore[import-untyped]
import numpy as np

from worldeval.errors import PolicyError

MAX_BYTES = 64 * 2**20
"""The largest message that is taken; an action chunk has some hundred bytes."""
REFUSED = "VOc"
"""Kinds of dtype that have no plain bytes of their own, or more than one meaning."""


def pack(value: Any) -> bytes:
    """``value`` as one message."""
    try:
        data: bytes = msgpack.packb(value, default=_pack_array)
    except (TypeError, ValueError, OverflowError) as error:
        raise PolicyError(
            f"a message to the policy server cannot be packed ({error}); send dicts, lists, text, "
            "numbers and numpy arrays of numbers"
        ) from error
    return data


def unpack(data: bytes) -> Any:
    """The value in one message; its arrays are the caller's own, writable copies."""
    if len(data) > MAX_BYTES:
        raise PolicyError(
            f"a message of the policy server has {len(data)} bytes, expected at most {MAX_BYTES}"
        )
    try:
        return msgpack.unpackb(data, object_hook=_unpack_array, ext_hook=refuse_extension)
    except PolicyError:
        raise
    except (ValueError, TypeError, KeyError, msgpack.UnpackException) as error:
        raise PolicyError(
            f"a message of the policy server ({len(data)} bytes, beginning {data[:12]!r}) is no "
            f"msgpack ({type(error).__name__}: {error}); is another kind of server at this address?"
        ) from error


def _pack_array(value: Any) -> dict[bytes, Any]:
    if isinstance(value, np.ndarray | np.generic) and value.dtype.kind in REFUSED:
        raise TypeError(f"an array of dtype {value.dtype} has no plain bytes")
    if isinstance(value, np.ndarray):
        return {
            b"__ndarray__": True,
            b"data": value.tobytes(),
            b"dtype": value.dtype.str,
            b"shape": value.shape,
        }
    if isinstance(value, np.generic):
        return {b"__npgeneric__": True, b"data": value.item(), b"dtype": value.dtype.str}
    raise TypeError(f"{type(value).__name__} has no form in msgpack")


def _unpack_array(value: dict[Any, Any]) -> Any:
    if b"__ndarray__" in value:
        return array_of(value.get(b"dtype"), value.get(b"shape"), value.get(b"data"))
    if b"__npgeneric__" in value:
        return _dtype(value.get(b"dtype")).type(value.get(b"data"))
    return value


def array_of(name: Any, shape: Any, data: Any) -> np.ndarray:
    """The array of a dtype's name, a shape and raw bytes, measured before it is believed."""
    dtype = _dtype(name)
    if (
        not isinstance(shape, list)
        or not all(type(n) is int and n >= 0 for n in shape)
        or not isinstance(data, bytes)
        or math.prod(shape) * dtype.itemsize != len(data)
    ):
        length = len(data) if isinstance(data, bytes) else type(data).__name__
        raise PolicyError(
            f"the policy server sent an array of shape {shape} and dtype {dtype} with {length} "
            "bytes, which do not fit together; its message is damaged"
        )
    return np.frombuffer(data, dtype).reshape(shape).copy()


def _dtype(name: Any) -> np.dtype[Any]:
    try:
        dtype = np.dtype(name) if isinstance(name, str) else None
    except (TypeError, ValueError, SyntaxError):
        dtype = None
    if dtype is None or dtype.kind in REFUSED or not dtype.itemsize:
        raise PolicyError(
            f"the policy server sent an array of dtype {name!r}, expected plain numbers or text "
            "such as '<f4'; objects, records and complex numbers are refused"
        )
    return dtype


def refuse_extension(code: int, data: bytes) -> Any:
    """For ``ext_hook``: what would let bytes become a value of another's making."""
    raise PolicyError(
        f"the policy server sent the msgpack extension {code} ({len(data)} bytes), expected none"
    )
