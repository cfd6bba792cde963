"""Tidemill from Python: run functions on a grid.

::

    from tidemill import Grid

    with Grid() as grid:
        values = list(grid.map(price, trades))

:class:`Grid` is a ``concurrent.futures.Executor``. :class:`Session` is the level below it: bytes, cursors and control. Nothing of the
client is imported before it is used, since engines import this package, too.
"""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, Any

if not os.path.exists(os.path.join(__path__[0], "grid.py")):
    # A worker brings this file and the engine. What else there is, the client, is where it was installed, if it was.
    __path__ += [folder for folder in (os.path.join(place, "tidemill") for place in sys.path) if folder not in __path__ and os.path.isdir(folder)]

__version__ = "0.1.0"

__all__ = ["ApiError", "Future", "Grid", "RemoteTraceback", "Results", "Server", "Session", "TaskFailed", "TidemillError"]

_HOME = {
    "ApiError": "errors",
    "RemoteTraceback": "errors",
    "TaskFailed": "errors",
    "TidemillError": "errors",
    "Server": "_http",
    "Session": "session",
    "Future": "grid",
    "Grid": "grid",
    "Results": "_map",
}

if TYPE_CHECKING:
    from ._http import Server
    from ._map import Results
    from .errors import ApiError, RemoteTraceback, TaskFailed, TidemillError
    from .grid import Future, Grid
    from .session import Session


def __getattr__(name: str) -> Any:
    try:
        home = _HOME[name]
    except KeyError:
        raise AttributeError(f"module 'tidemill' has no attribute {name!r}") from None
    import importlib

    try:
        value = getattr(importlib.import_module(f"{__name__}.{home}"), name)
    except ModuleNotFoundError as e:
        if e.name != f"{__name__}.{home}":
            raise
        raise ImportError(f"the client is not installed here, so there is no {name}: `pip install` it into this Python, too") from None
    globals()[name] = value
    return value
