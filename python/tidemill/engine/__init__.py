"""The Python engine: a warm process that runs a session's function over many tasks.

The host starts ``python -m tidemill.engine`` and speaks the engine protocol with it over pipes. A function finds what the engine
knows here::

    from tidemill import engine

    def price(trade):
        calendars = engine.package("calendars")     # a folder of static data, read-only
        ...

``--load MODULE`` (any number of times) imports modules at boot, so that no session waits for them.
"""

from __future__ import annotations

from pathlib import Path
from typing import Dict, Mapping

from ._surroundings import surroundings
from .payload import Dependency, dumps_task, loads_value

__all__ = ["Dependency", "dumps_task", "engine_id", "loads_value", "package", "packages", "parameters", "scratch"]


def package(name: str) -> Path:
    """The folder of a package of static data. ``KeyError`` if the engine was not given it."""
    try:
        return surroundings.packages[name][1]
    except KeyError:
        known = ", ".join(sorted(surroundings.packages)) or "none"
        raise KeyError(f"this engine was not given the package {name!r} (it has: {known}); pin it in the session") from None


def packages() -> Dict[str, str]:
    """Names and versions of the packages that the engine was given."""
    return {name: version for name, (version, _) in surroundings.packages.items()}


def parameters() -> Mapping[str, str]:
    """The parameters of the session whose task runs, or that is being opened."""
    return surroundings.parameters


def scratch() -> Path:
    """The engine's own folder, its working folder. It is gone when the engine has ended."""
    return surroundings.scratch


def engine_id() -> str:
    """What the host calls this engine."""
    return surroundings.engine_id
