"""How functions, arguments and states travel."""

from __future__ import annotations

import base64
import json
import pickle
import sys
from typing import Any, Callable, List, Optional, Sequence, Tuple, Union

from .engine._versions import stamped
from .engine.payload import dumps_task
from .errors import TidemillError

PROTOCOL = 5
FORMATS = ("pickle", "json", "arrow", "bytes")
#: A function, or ``module:function``.
Function = Union[Callable[..., Any], str]
_MAIN = b"__main__"


class Packed:
    """A function as it travels: its name on the engine, or its bytes."""

    __slots__ = ("name", "data", "label")

    def __init__(self, name: Optional[str], data: Optional[bytes], label: str) -> None:
        self.name, self.data, self.label = name, data, label

    @property
    def key(self) -> Tuple[Optional[str], Optional[bytes]]:
        """Equal for the same function."""
        return self.name, self.data

    def spec(self) -> Any:
        """As a session's description says it."""
        if self.name is None:
            return "packed"
        return {"module" if ":" in self.name else "name": self.name}

    def base64(self) -> Optional[str]:
        """The bytes to send along."""
        return None if self.data is None else base64.b64encode(self.data).decode()

    def pickled(self) -> bytes:
        """Bytes that unpickle to the function, whichever way it travels. A name is imported where they are unpickled, not here."""
        if self.data is not None:
            return self.data
        module, _, name = (part.encode() for part in str(self.name).partition(":"))
        # The opcodes of a function that is pickled by its name: PROTO 4, two SHORT_BINUNICODE, STACK_GLOBAL, STOP.
        return b"".join((b"\x80\x04\x8c", bytes([len(module)]), module, b"\x8c", bytes([len(name)]), name, b"\x93."))


def pack_function(function: Function, by: str = "cloudpickle") -> Packed:
    """Makes a function ready to travel. With ``by="name"`` only its name does, and the engine imports it."""
    if isinstance(function, str):
        return Packed(function, None, function)
    if not callable(function):
        raise TypeError(f"{function!r} is no function; give one, or its name as 'module:function'")
    label = getattr(function, "__qualname__", None) or type(function).__qualname__
    name = _importable(function)
    if by == "name":
        if name is None:
            raise TidemillError(
                f"{label} cannot go by name: an engine could not import it; define it at the top of a module that the engines have, "
                "or let it travel by cloudpickle (leave out by='name')"
            )
        return Packed(name, None, label)
    cloudpickle = _cloudpickle()
    if cloudpickle is None:
        if name is None:
            raise TidemillError(f"{label} cannot be imported by an engine, so it has to travel itself: `pip install cloudpickle` here and there")
        return Packed(name, None, label)
    try:
        return Packed(None, stamped(cloudpickle.dumps(function, PROTOCOL)), label)
    except Exception as e:
        raise TidemillError(f"{label} cannot be pickled: {e}; what it refers to must travel with it") from e


def _importable(function: Callable[..., Any]) -> Optional[str]:
    """``module:name`` if importing that gives this very function."""
    module, name = getattr(function, "__module__", None), getattr(function, "__qualname__", "<")
    if module is None or module == "__main__" or "<" in name:
        return None
    found: Any = sys.modules.get(module)
    for part in name.split("."):
        found = getattr(found, part, None)
    return f"{module}:{name}" if found is function or found == function else None


def _cloudpickle() -> Any:
    try:
        import cloudpickle
    except ImportError:
        return None
    return cloudpickle


def dumps(value: Any) -> bytes:
    """Pickles so that an engine can unpickle it: what the running script defines travels with it."""
    try:
        data = pickle.dumps(value, PROTOCOL)
        if _MAIN not in data:
            return data
        error: Optional[Exception] = None
    except Exception as e:
        data, error = b"", e
    cloudpickle = _cloudpickle()
    if cloudpickle is not None:
        return stamped(cloudpickle.dumps(value, PROTOCOL))
    if error is not None:
        raise error
    # The word may be no more than a word.
    return data


def dumps_call(args: Sequence[Any], kwargs: Any, index_of: Optional[Callable[[Any], Optional[int]]] = None) -> bytes:
    """The payload of a call. ``index_of`` finds what stands for results of other tasks."""
    if index_of is not None:
        return dumps_task(args, kwargs, index_of)
    return dumps((tuple(args), kwargs))


def dumps_calls(calls: List[Tuple[Any, Any]]) -> List[bytes]:
    """The payloads of many calls, each ``(args, kwargs)``."""
    dump, protocol = pickle.dumps, PROTOCOL
    try:
        out = [dump(call, protocol) for call in calls]
    except Exception:
        return [dumps(call) for call in calls]
    return [dumps(call) if _MAIN in data else data for call, data in zip(calls, out)] if any(_MAIN in data for data in out) else out


def encode(format: str, value: Any) -> bytes:
    """One task's input in a format without calls: the function gets it as its only argument."""
    if format == "json":
        return json.dumps(value, separators=(",", ":"), allow_nan=False).encode()
    if format == "bytes":
        return value.encode() if isinstance(value, str) else bytes(memoryview(value))
    if format == "arrow":
        from .engine._session import _to_arrow

        return _to_arrow(value)
    return dumps_call((value,), {})


def decoder(format: str) -> Callable[[bytes], Any]:
    """From a result's bytes to its value."""
    if format == "pickle":
        return pickle.loads
    if format == "json":
        return json.loads
    if format == "bytes":
        return bytes
    if format == "arrow":
        from .engine._session import _from_arrow

        return _from_arrow
    raise ValueError(f"{format!r} is no format; there are {', '.join(FORMATS)}")
