"""How tasks and results are written as bytes: the client's side of the payload conventions, and the engine's."""

from __future__ import annotations

import functools
import io
import pickle
from typing import Any, Callable, List, Mapping, Optional, Sequence, Tuple

from ._versions import load, stamped

PROTOCOL = 5


class Dependency:
    """Stands in a task's arguments for the result of another task, when the task itself is built elsewhere."""

    __slots__ = ("index",)

    def __init__(self, index: int) -> None:
        self.index = index

    def __reduce__(self) -> Any:
        raise pickle.PicklingError("a Dependency is written by dumps_task alone")


class Call:
    """First among a task's arguments: the task calls this function instead of its session's.

    Only tasks that depend on others may bring one: they must be in the session whose results they need, whatever they do with them.
    ``function`` is pickled, so that an engine keeps what it has unpickled; without ``with_state`` it is not given the session's state.
    """

    __slots__ = ("function", "with_state")

    def __init__(self, function: bytes, with_state: bool) -> None:
        self.function, self.with_state = function, with_state

    def __reduce__(self) -> Any:
        return Call, (self.function, self.with_state)


#: What :class:`Call` brings, unpickled.
called = functools.lru_cache(maxsize=64)(functools.partial(load, "the function"))


def run_calls(calls: Sequence[Tuple[Callable[..., Any], Sequence[Any], Mapping[str, Any]]]) -> List[Any]:
    """Calls in a row, as one task: what joblib hands out."""
    return [function(*args, **kwargs) for function, args, kwargs in calls]


class _TaskPickler(pickle.Pickler):
    """Writes whatever ``index_of`` knows as a reference to a dependency, however deep it lies in the arguments."""

    def __init__(self, file: io.BytesIO, index_of: Callable[[Any], Optional[int]]) -> None:
        super().__init__(file, PROTOCOL)
        self._index_of = index_of

    def persistent_id(self, obj: Any) -> Optional[int]:
        if type(obj) is Dependency:
            return obj.index
        return self._index_of(obj)


def dumps_task(
    args: Sequence[Any], kwargs: Optional[Mapping[str, Any]] = None, index_of: Optional[Callable[[Any], Optional[int]]] = None
) -> bytes:
    """The payload of one call.

    ``index_of`` says of an object whether it stands for the task's n-th dependency (a future, say) or not (``None``). The engine
    puts the dependency's value in its place. Falls back to cloudpickle for what pickle cannot write.
    """
    call = (tuple(args), dict(kwargs or {}))
    if index_of is None:
        try:
            return pickle.dumps(call, PROTOCOL)
        except Exception:
            # It holds a `Dependency`, or something that only cloudpickle can write.
            index_of = _nothing
    file = io.BytesIO()
    try:
        _TaskPickler(file, index_of).dump(call)
        return file.getvalue()
    except Exception:
        return _cloudpickled(call, index_of)


def _nothing(_: Any) -> None:
    return None


def _cloudpickled(call: Any, index_of: Callable[[Any], Optional[int]]) -> bytes:
    cloudpickle = _cloudpickle()

    class TaskPickler(cloudpickle.Pickler):  # type: ignore[name-defined,misc]
        def persistent_id(self, obj: Any) -> Optional[int]:
            return obj.index if type(obj) is Dependency else index_of(obj)

    file = io.BytesIO()
    TaskPickler(file, PROTOCOL).dump(call)
    return stamped(file.getvalue())


class _TaskUnpickler(pickle.Unpickler):
    def __init__(self, payload: bytes, values: Sequence[Any]) -> None:
        super().__init__(io.BytesIO(payload))
        self._values = values
        self.used: set[int] = set()

    def persistent_load(self, pid: Any) -> Any:
        self.used.add(pid)
        return self._values[pid]


def loads_task(payload: bytes, dependencies: Sequence[bytes]) -> Tuple[Tuple[Any, ...], Mapping[str, Any]]:
    """Arguments of a call, with its dependencies in their places. Those without a place follow as further positional arguments."""
    values: List[Any] = [pickle.loads(d) for d in dependencies]
    unpickler = _TaskUnpickler(payload, values)
    args, kwargs = unpickler.load()
    rest = [value for i, value in enumerate(values) if i not in unpickler.used]
    return (*args, *rest), kwargs


def dumps_value(value: Any) -> bytes:
    """A result. Falls back to cloudpickle for what pickle cannot write: instances of classes that travelled with the function."""
    try:
        return pickle.dumps(value, PROTOCOL)
    except Exception as e:
        try:
            return bytes(_cloudpickle().dumps(value, PROTOCOL))
        except Exception:
            raise e from None


def loads_value(payload: bytes) -> Any:
    """The value of a result."""
    return pickle.loads(payload)


def _cloudpickle() -> Any:
    import cloudpickle

    return cloudpickle
