"""The codec against bytes written out by hand from its description."""

from __future__ import annotations

import pickle

import msgpack
import numpy as np
import pytest

from worldeval.errors import PolicyError
from worldeval.policies.servers import msgpack_numpy

ARRAY = (
    b"\x81\xa1a"  # a map of one: "a" ->
    b"\x84"  # a map of four, its keys bytes (c4, length)
    b"\xc4\x0b__ndarray__\xc3"  # true
    b"\xc4\x04data\xc4\x06\x01\x00\x02\x00\xff\xff"  # six bytes
    b"\xc4\x05dtype\xa3<i2"  # text of three
    b"\xc4\x05shape\x92\x03\x01"  # a list of two: 3, 1
)
SCALAR = (
    b"\x83\xc4\x0d__npgeneric__\xc3"
    b"\xc4\x04data\xcb\x3f\xf8\x00\x00\x00\x00\x00\x00"  # the double 1.5
    b"\xc4\x05dtype\xa3<f4"
)


def test_an_array_has_these_bytes() -> None:
    array = np.array([[1], [2], [-1]], "<i2")
    assert msgpack_numpy.pack({"a": array}) == ARRAY
    back = msgpack_numpy.unpack(ARRAY)["a"]
    assert back.dtype == np.dtype("<i2") and np.array_equal(back, array)
    back[0] = 7  # the caller's own


def test_a_scalar_has_these_bytes() -> None:
    assert msgpack_numpy.pack(np.float32(1.5)) == SCALAR
    back = msgpack_numpy.unpack(SCALAR)
    assert isinstance(back, np.float32) and back == 1.5


def test_plain_values_are_plain_msgpack() -> None:
    message = {"prompt": "öffne", "n": [1, -2.5, None, True], "inner": {"b": b"\x00"}}
    assert msgpack_numpy.pack(message) == msgpack.packb(message)
    assert msgpack_numpy.unpack(msgpack_numpy.pack(message)) == message


@pytest.mark.parametrize(
    "array",
    [
        np.zeros((0, 8), np.float32),
        np.float64(np.arange(24)).reshape(2, 3, 4)[:, ::-1],
        np.asfortranarray(np.arange(6, dtype=np.uint8).reshape(2, 3)),
        np.array([True, False]),
        np.array(3, ">i4"),
        np.array(["a", "bcd"]),
        np.array(["2026-01-01"], "M8[D]"),
    ],
)
def test_arrays_come_back(array: np.ndarray) -> None:
    back = msgpack_numpy.unpack(msgpack_numpy.pack(array))
    assert back.dtype == array.dtype and back.shape == array.shape
    assert np.array_equal(back, array) and back.flags.writeable


@pytest.mark.parametrize(
    "value",
    [
        np.array([{}], object),
        np.zeros(2, "i4,f4"),
        np.zeros(2, np.complex64),
        np.complex64(1),
        {1, 2},
        object(),
        2**70,
    ],
)
def test_what_has_no_plain_bytes_is_not_packed(value: object) -> None:
    with pytest.raises(PolicyError, match="cannot be packed"):
        msgpack_numpy.pack({"a": value})


def array_message(**fields: object) -> bytes:
    whole = {"data": bytes(8), "dtype": "<f4", "shape": [2]} | fields
    return msgpack.packb({b"__ndarray__": True} | {k.encode(): v for k, v in whole.items()})


@pytest.mark.parametrize(
    "dtype", ["|O", "O8", "|V8", "<c8", "i4,i4", "(2,)<f4", "S0", "what", 3, None]
)
def test_dtypes_that_are_no_plain_numbers_are_refused(dtype: object) -> None:
    with pytest.raises(PolicyError, match="expected plain numbers"):
        msgpack_numpy.unpack(array_message(dtype=dtype))
    with pytest.raises(PolicyError, match="expected plain numbers"):
        msgpack_numpy.unpack(msgpack.packb({b"__npgeneric__": True, b"data": 1, b"dtype": dtype}))


@pytest.mark.parametrize(
    "fields",
    [
        {"shape": [3]},
        {"shape": [-2, -1]},
        {"shape": [2**62, 2**62]},
        {"shape": 2},
        {"shape": [2.0]},
        {"shape": None},
        {"data": "8 letters"},
        {"data": b""},
    ],
)
def test_arrays_that_do_not_fit_their_data_are_refused(fields: dict[str, object]) -> None:
    with pytest.raises(PolicyError, match="do not fit together"):
        msgpack_numpy.unpack(array_message(**fields))


@pytest.mark.parametrize(
    "data",
    [
        ARRAY[:-1],
        b"",
        b"\xc1",
        b"HTTP/1.1 200 OK\r\n",
        pickle.dumps({"actions": 1}),
        b"\x81\x01\x02",
        b"\x91" * 3000,
        SCALAR.replace(b"\xa3<f4", b"\xa3<i8").replace(b"\x3f\xf8", b"\x7f\xf8"),
    ],
)
def test_what_is_no_message_is_refused(data: bytes) -> None:
    with pytest.raises(PolicyError, match="no msgpack"):
        msgpack_numpy.unpack(data)


def test_extensions_and_giants_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(PolicyError, match="extension 42"):
        msgpack_numpy.unpack(msgpack.packb(msgpack.ExtType(42, b"import os")))
    monkeypatch.setattr(msgpack_numpy, "MAX_BYTES", len(ARRAY) - 1)
    with pytest.raises(PolicyError, match=f"{len(ARRAY)} bytes, expected at most"):
        msgpack_numpy.unpack(ARRAY)
