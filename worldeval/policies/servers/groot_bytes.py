"""The bytes of GR00T's inference service: msgpack, with each array as a file of numpy's.

Enters: a value of dicts, lists, text, numbers and numpy arrays. Leaves: bytes, and back::

    {"__ndarray_class__": True, "as_npy": bytes of a .npy file}
    {"__ModalityConfig_class__": True, "as_json": ...}     text (N1.5) or a map (N1.6)

Nothing that arrives is run: an array of objects would be a pickle and is refused, as GR00T's own
reader does. What arrives is also measured before it is believed.
"""

from __future__ import annotations

import io
import json
import math
from dataclasses import dataclass
from typing import Any

import msgpack  # type: ignore[import-untyped]
import numpy as np

from worldeval.errors import PolicyError
from worldeval.policies.servers.msgpack_numpy import MAX_BYTES, REFUSED, refuse_extension


@dataclass(frozen=True)
class Modality:
    """What a server says of its video, state, action or language.

    keys: names of its parts. moments: steps from now, 0 the newest observation or the first action.
    configs: of each action how it was represented in training; () where that is not said. flat:
    N1.5's, whose keys stand beside each other ("video.front"); N1.6's are nested.
    """

    keys: tuple[str, ...]
    moments: tuple[int, ...]
    configs: tuple[dict[str, Any], ...] = ()
    flat: bool = False


def pack(value: Any) -> bytes:
    """``value`` as one message."""
    data: bytes = msgpack.packb(value, default=_pack_array)
    return data


def unpack(data: bytes, url: str) -> Any:
    """The value in one message of the server at ``url``."""
    if data == b"ERROR" or data[:2] in (b"PK", b"\x80\x02"):
        raise PolicyError(
            f"{url} speaks GR00T N1's pickles, which are never read here; serve it with N1.5 or "
            "later"
        )
    if len(data) > MAX_BYTES:
        raise PolicyError(f"{url} answered with more than {MAX_BYTES} bytes")
    try:
        return msgpack.unpackb(data, object_hook=_unpack, ext_hook=refuse_extension)
    except PolicyError:
        raise
    except (ValueError, TypeError, KeyError, msgpack.UnpackException, RecursionError) as error:
        raise PolicyError(
            f"{url} answered with {len(data)} bytes, beginning {data[:12]!r}, that are none of "
            f"GR00T's messages ({type(error).__name__}: {error}); is another kind of server at "
            "this address?"
        ) from error


def _pack_array(value: Any) -> dict[str, Any]:
    if not isinstance(value, np.ndarray):
        raise TypeError(f"{type(value).__name__} has no form in GR00T's messages")
    file = io.BytesIO()
    np.save(file, value, allow_pickle=False)
    return {"__ndarray_class__": True, "as_npy": file.getvalue()}


def _unpack(value: dict[Any, Any]) -> Any:
    if "__ndarray_class__" in value:
        return read_npy(value["as_npy"])
    if "__ModalityConfig_class__" in value:
        return _modality(value["as_json"])
    return value


def read_npy(data: Any) -> np.ndarray:
    """The array in the bytes of a .npy file, a writable copy."""
    try:
        file = io.BytesIO(data)
        version = np.lib.format.read_magic(file)
        if version not in ((1, 0), (2, 0)):
            raise ValueError(f"version {version}")
        read = np.lib.format.read_array_header_1_0
        if version == (2, 0):
            read = np.lib.format.read_array_header_2_0
        shape, by_column, dtype = read(file)
        if dtype.hasobject or dtype.kind in REFUSED or not dtype.itemsize:
            raise PolicyError(
                f"the policy server sent an array of dtype {dtype}, expected plain numbers; "
                "objects would be a pickle, which is never read here"
            )
        if min([0, *shape]) < 0 or math.prod(shape) * dtype.itemsize != len(data) - file.tell():
            raise ValueError(f"shape {shape} and dtype {dtype} in {len(data)} bytes")
        numbers = np.frombuffer(data, dtype, offset=file.tell())
        return numbers.reshape(shape, order="F" if by_column else "C").copy()
    except PolicyError:
        raise
    except (ValueError, TypeError, SyntaxError, EOFError, OverflowError) as error:
        raise PolicyError(
            f"the policy server sent an array that cannot be read ({error}); expected the bytes of "
            "a .npy file"
        ) from error


def _modality(said: Any) -> Modality:
    flat = isinstance(said, str)
    found = json.loads(said) if flat else said
    keys, moments = found["modality_keys"], found["delta_indices"]
    if not all(isinstance(key, str) for key in keys) or not all(type(n) is int for n in moments):
        raise ValueError(f"a modality config of {found}")
    configs = found.get("action_configs") or ()
    return Modality(tuple(keys), tuple(moments), tuple(map(dict, configs)), flat)
