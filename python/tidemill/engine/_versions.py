"""What pickled something, said in the pickle itself, so that an engine with other versions can say why it cannot read it.

cloudpickle promises to be read by the same version of itself and of Python, and by no other. What goes wrong then says nothing of that:
``Can't get attribute '_function_setstate'``.
"""

from __future__ import annotations

import functools
import pickle
import platform
from typing import Any, Callable, Optional, Tuple

_MARK = "tidemill:"
#: PROTO 5, SHORT_BINUNICODE: a text that is pushed, and popped again before what follows is read.
_BEGIN, _POP = b"\x80\x05\x8c", b"0"


@functools.lru_cache(maxsize=1)
def _here() -> Tuple[str, str]:
    """The versions of cloudpickle (empty: there is none) and of Python."""
    try:
        import cloudpickle
    except ImportError:
        return "", platform.python_version()
    return str(cloudpickle.__version__), platform.python_version()


def stamped(data: bytes) -> bytes:
    """What cloudpickle wrote, with the versions before it. Whoever unpickles it does not notice."""
    text = (_MARK + " ".join(_here())).encode()
    return b"".join((_BEGIN, bytes([len(text)]), text, _POP, data))


def _stamp(data: bytes) -> Optional[Tuple[str, str]]:
    """The versions that a pickle says it was made with."""
    head = bytes(data[:259])
    if len(head) < 5 or not head.startswith(_BEGIN):
        return None
    text = head[4 : 4 + head[3]].decode(errors="replace")
    cloudpickle, space, python = text[len(_MARK) :].partition(" ")
    return (cloudpickle, python) if text.startswith(_MARK) and space else None


def load(what: str, data: bytes, loads: Callable[[bytes], Any] = pickle.loads) -> Any:
    """Unpickles. If that fails, and it was pickled with other versions than those here, the error names both and what to do."""
    try:
        return loads(data)
    except Exception as e:
        other = mismatch(what, data, e)
        if other is None:
            raise
        raise other from e


def mismatch(what: str, data: bytes, error: BaseException) -> Optional[Exception]:
    """The error that names the versions, if they differ."""
    there, here = _stamp(data), _here()
    if there is None or there == here:
        return None
    if there[0] == here[0]:
        advice = f"use the same Python on both sides: {_minor(there[1])} for the engines or {_minor(here[1])} for the client"
    else:
        advice = f"install cloudpickle {there[0]} for the engines (`cloudpickle=={there[0]}` in the requirements of `tidemill grid python`)"
        if here[0]:
            advice += f", or {here[0]} for the client"
        if _minor(there[1]) != _minor(here[1]):
            advice += ", and use the same Python on both sides"
    engine = f"cloudpickle {here[0]}" if here[0] else "no cloudpickle"
    return pickle.UnpicklingError(
        f"{what} was pickled by cloudpickle {there[0]} on Python {there[1]}, and the engine, which has {engine} on Python {here[1]}, "
        f"cannot read it ({type(error).__name__}: {error}); {advice}; a function that the engines can import may go by its name (by='name')"
    )


def _minor(version: str) -> str:
    return ".".join(version.split(".")[:2])
