"""Opening a session: from what the host says to one callable over bytes."""

from __future__ import annotations

import gc
import importlib
import json
import pickle
from typing import Any, Callable, Dict, Mapping, Optional, Sequence

from . import payload as payloads
from ._frames import ProtocolError, Reader
from ._surroundings import surroundings
from ._versions import load, mismatch

PICKLE, RAW, JSON, ARROW = 0, 1, 2, 3
_NOTHING = object()


class Session:
    """One function over many tasks, and the state that it keeps between them."""

    def __init__(self, body: bytes) -> None:
        reader = Reader(body)
        self.number = reader.u32()
        self._input, self._output = reader.u8(), reader.u8()
        self._function = (reader.u8(), reader.blob())
        self._set_up = (reader.u8(), reader.blob())
        has_data, data = reader.u8(), reader.blob()
        self._data: Optional[bytes] = data if has_data else None
        self.parameters: Mapping[str, str] = {reader.text(): reader.text() for _ in range(reader.u32())}
        reader.end()
        if self._input > ARROW or self._output > ARROW:
            raise ProtocolError("a format that this kit does not know")
        #: From a task's payload to its result.
        self.call: Callable[[bytes], bytes] = _not_open
        #: The same for a task that depends on others.
        self.call_with: Callable[[bytes, Sequence[bytes]], bytes] = _not_open

    def open(self) -> None:
        """Loads the function, makes the state. Whatever goes wrong is raised."""
        surroundings.parameters = self.parameters
        function = _resolve(*self._function)
        state: Any = _NOTHING
        if self._set_up[0]:
            args, kwargs = ((), {}) if self._data is None else self._arguments(self._data)
            state = _resolve(*self._set_up)(*args, **kwargs)
        elif self._data is not None:
            state = load("the session's state", self._data) if self._input == PICKLE else self._arguments(self._data)[0][0]
        self._data, self._function, self._set_up = None, (0, b""), (0, b"")
        # What is warm stays: the collector need not look through curves and portfolios again and again.
        gc.collect()
        gc.freeze()
        self._bind(function, state)

    def _arguments(self, data: bytes) -> Any:
        if self._input == PICKLE:
            return load("the session's state", data)
        return (_decoder(self._input)(data),), {}

    def explained(self, error: BaseException, payload: bytes, dependencies: Sequence[bytes]) -> BaseException:
        """The error of a task, or what names the versions if its arguments cannot be unpickled here and come from other versions."""
        other = mismatch("the task", payload, error) if self._input == PICKLE else None
        if other is None:
            return error
        try:
            payloads.loads_task(payload, dependencies)
        except Exception:
            return other
        # The arguments are fine; it was the function that failed.
        return error

    def _bind(self, function: Callable[..., Any], state: Any) -> None:
        given = () if state is _NOTHING else (state,)
        encode = _encoder(self._output)
        decode_result = _decoder(self._output)
        if self._input == PICKLE:
            loads_task = payloads.loads_task

            def call_with(payload: bytes, dependencies: Sequence[bytes]) -> bytes:
                if self._output == PICKLE:
                    args, kwargs = loads_task(payload, dependencies)
                    if args and type(args[0]) is payloads.Call:
                        own, args = args[0], args[1:]
                        before = given if own.with_state else ()
                        return encode(payloads.called(own.function)(*before, *args, **kwargs))
                else:
                    args, kwargs = pickle.loads(payload)
                    args = (*args, *map(decode_result, dependencies))
                return encode(function(*given, *args, **kwargs))

            self.call = _pickled(function, given, encode, self._output == PICKLE)
        else:
            decode = _decoder(self._input)

            def call_with(payload: bytes, dependencies: Sequence[bytes]) -> bytes:
                return encode(function(*given, decode(payload), *map(decode_result, dependencies)))

            def call(payload: bytes) -> bytes:
                return encode(function(*given, decode(payload)))

            self.call = call
        self.call_with = call_with


def _pickled(function: Callable[..., Any], given: Any, encode: Callable[[Any], bytes], pickles: bool) -> Callable[[bytes], bytes]:
    """The way of almost all tasks, without a call more than needed: at 100,000 tasks a second each costs a hundredth of a core."""
    loads, dumps, protocol = pickle.loads, pickle.dumps, payloads.PROTOCOL
    if not pickles:

        def other(payload: bytes) -> bytes:
            args, kwargs = loads(payload)
            return encode(function(*given, *args, **kwargs))

        return other
    if given:
        (state,) = given

        def warm(payload: bytes) -> bytes:
            args, kwargs = loads(payload)
            value = function(state, *args, **kwargs)
            try:
                return dumps(value, protocol)
            except Exception:
                return encode(value)

        return warm

    def plain(payload: bytes) -> bytes:
        args, kwargs = loads(payload)
        value = function(*args, **kwargs)
        try:
            return dumps(value, protocol)
        except Exception:
            return encode(value)

    return plain


def _not_open(*_: Any) -> bytes:
    raise ProtocolError("the session is not open")


def _resolve(kind: int, data: bytes) -> Callable[..., Any]:
    if kind == 1:
        found = load("the function", data)
    elif kind == 2:
        module, _, name = data.decode().partition(":")
        if not name:
            raise ValueError(f"{data.decode()!r} names no function; write it as module:name")
        found = importlib.import_module(module)
        for part in name.split("."):
            found = getattr(found, part)
    elif kind == 3:
        raise ValueError(f"the Python engine has no function of its own called {data.decode()!r}; write it as module:name")
    else:
        raise ProtocolError(f"a function of kind {kind}")
    if not callable(found):
        raise TypeError(f"{found!r} cannot be called")
    function: Callable[..., Any] = found
    return function


def _decoder(format: int) -> Callable[[bytes], Any]:
    decoders: Dict[int, Callable[[bytes], Any]] = {PICKLE: pickle.loads, RAW: _same, JSON: json.loads, ARROW: _from_arrow}
    return decoders[format]


def _encoder(format: int) -> Callable[[Any], bytes]:
    return {PICKLE: payloads.dumps_value, RAW: _to_bytes, JSON: _to_json, ARROW: _to_arrow}[format]


def _same(data: bytes) -> bytes:
    return data


def _to_bytes(value: Any) -> bytes:
    if isinstance(value, bytes):
        return value
    if isinstance(value, (bytearray, memoryview)):
        return bytes(value)
    if isinstance(value, str):
        return value.encode()
    raise TypeError(f"the session's results are bytes, and the function returned {type(value).__name__}")


def _to_json(value: Any) -> bytes:
    return json.dumps(value, separators=(",", ":"), allow_nan=False).encode()


def _from_arrow(data: bytes) -> Any:
    import pyarrow

    return pyarrow.ipc.open_stream(data).read_all()


def _to_arrow(value: Any) -> bytes:
    import pyarrow

    if isinstance(value, pyarrow.RecordBatch):
        value = pyarrow.Table.from_batches([value])
    elif not isinstance(value, pyarrow.Table):
        value = pyarrow.Table.from_pandas(value) if hasattr(value, "iloc") else pyarrow.table(value)
    sink = pyarrow.BufferOutputStream()
    with pyarrow.ipc.new_stream(sink, value.schema) as writer:
        writer.write_table(value)
    return bytes(sink.getvalue().to_pybytes())
