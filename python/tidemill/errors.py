"""What can go wrong, as classes."""

from __future__ import annotations

import base64
import json
import pickle
from typing import Any, Callable, Optional


class TidemillError(Exception):
    """The root of what this package raises by itself. What a task raised comes back as what it was."""


class ApiError(TidemillError):
    """The server's answer to a call that it refused, or no answer at all (``status`` 0)."""

    def __init__(self, status: int, kind: str, message: str, hint: str = "") -> None:
        super().__init__(status, kind, message, hint)
        self.status, self.kind, self.message, self.hint = status, kind, message, hint

    def __str__(self) -> str:
        return f"{self.message} ({self.hint})" if self.hint else self.message


class TaskFailed(TidemillError):
    """A task that ended without a result, for a reason that is no exception of its function, or one that cannot be unpickled here.

    ``kind`` is the class of the error as the engine gave it (``ValueError``), or ``crash``, ``timeout``, ``memory``, ``start``,
    ``dependency``, ``cancelled`` and others of the grid's own.
    """

    def __init__(self, kind: str, message: str) -> None:
        super().__init__(kind, message)
        self.kind, self.message = kind, message

    def __str__(self) -> str:
        return f"{self.kind}: {self.message}"


class RemoteTraceback(Exception):
    """The traceback as it was on the engine. It is the ``__cause__`` of what a task raised."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.text = text

    def __str__(self) -> str:
        return f'\n"""\n{self.text}"""'


class Failure:
    """An error of a task as the stream brings it, not yet an exception."""

    __slots__ = ("body",)

    def __init__(self, body: bytes) -> None:
        self.body = body

    def exception(self, loads: Optional[Callable[[bytes], Any]] = pickle.loads) -> BaseException:
        """The original exception where it can be made again, else :class:`TaskFailed`."""
        said = json.loads(self.body)
        error: Optional[BaseException] = None
        if said.get("value") and loads is not None:
            try:
                made = loads(base64.b64decode(said["value"]))
                # `SystemExit` and its like would end the caller instead of telling it.
                error = made if isinstance(made, Exception) else None
            except Exception:
                error = None
        if error is None:
            error = TaskFailed(said["kind"], said["message"])
        if said.get("traceback"):
            error.__cause__ = RemoteTraceback(said["traceback"])
        return error
