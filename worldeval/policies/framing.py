"""Messages between worldeval and the process of a policy: words as JSON, arrays as their bytes.

Enters: a socket, a JSON object, arrays. Leaves: the same on the other side, in writable arrays. A
message is ``>QQ`` (bytes of the header, bytes of the arrays), the header, the arrays one after the
other; the header's "arrays" says dtype and shape of each. Nothing is unpickled, and nothing larger
than the reader allows is read, so that a broken process cannot harm the one that asks it.
"""

from __future__ import annotations

import json
import math
import select
import socket
import struct
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

PREFIX = struct.Struct(">QQ")
MOST_HEADER = 1 << 24
DTYPES = ("uint8", "float32")
"""What is sent: images, states and actions."""


class Closed(Exception):
    """The other side is gone."""


class Garbled(Exception):
    """The other side sent something that is no message."""


class TooLate(Exception):
    """The other side did not answer in time."""


def send(
    link: socket.socket,
    header: dict[str, Any],
    arrays: Sequence[np.ndarray] = (),
    *,
    limit_s: float = math.inf,
) -> None:
    """Send one message; raises TooLate, or OSError where the other side is gone."""
    kinds = [{"dtype": str(a.dtype), "shape": a.shape} for a in arrays]
    text = json.dumps({**header, "arrays": kinds}).encode()
    parts = [np.ascontiguousarray(a).tobytes() for a in arrays]
    link.settimeout(None if limit_s == math.inf else limit_s)
    try:
        link.sendall(b"".join([PREFIX.pack(len(text), sum(map(len, parts))), text, *parts]))
    except TimeoutError as error:
        raise TooLate from error


def receive(
    link: socket.socket,
    *,
    most_bytes: float = math.inf,
    limit_s: float = math.inf,
    is_alive: Callable[[], bool] = lambda: True,
) -> tuple[dict[str, Any], list[np.ndarray]]:
    """The next message.

    most_bytes: of its arrays together. limit_s: until all of it must be there. is_alive: asked
    while nothing comes, since a process's children may hold its end open after its death.
    Raises Closed, Garbled or TooLate.
    """
    end_s = time.monotonic() + limit_s

    def read(count: int) -> bytearray:
        data = bytearray(count)
        view, got = memoryview(data), 0
        while got < count:
            left_s = end_s - time.monotonic()
            if left_s <= 0:
                raise TooLate
            if not select.select([link], [], [], min(left_s, 0.1))[0]:
                if not is_alive() and not select.select([link], [], [], 0)[0]:
                    raise Closed
                continue
            try:
                new = link.recv_into(view[got:])
            except OSError as error:
                raise Closed from error
            if not new:
                raise Closed
            got += new
        return data

    words, size = PREFIX.unpack(read(PREFIX.size))
    if words > MOST_HEADER or size > most_bytes:
        raise Garbled(f"a message of {words} + {size} bytes")
    try:
        header = json.loads(read(words))
        kinds = [(str(k["dtype"]), tuple(map(int, k["shape"]))) for k in header["arrays"]]
    except (ValueError, KeyError, TypeError) as error:
        raise Garbled(f"{type(error).__name__}: {error}") from error
    counts = [math.prod(shape) for _, shape in kinds]
    if any(dtype not in DTYPES or min(shape, default=0) < 0 for dtype, shape in kinds) or size != (
        sum(n * np.dtype(kind[0]).itemsize for n, kind in zip(counts, kinds, strict=True))
    ):
        raise Garbled(f"arrays {kinds} in {size} bytes")
    data, arrays, place = read(size), [], 0
    for (dtype, shape), count in zip(kinds, counts, strict=True):
        arrays.append(np.frombuffer(data, dtype, count, place).reshape(shape).copy())  # aligned
        place += arrays[-1].nbytes
    return header, arrays
