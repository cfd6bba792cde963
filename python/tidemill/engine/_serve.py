"""The engine's loop: read, run, send."""

from __future__ import annotations

import collections
import gc
import importlib
import os
import pickle
import platform
import struct
import sys
import time
import traceback
from pathlib import Path
from typing import Deque, Dict, List, Optional, Sequence, Set, Tuple

from . import _frames as frames
from ._frames import Pipes, ProtocolError, Reader
from ._held import Held
from ._session import Session
from ._surroundings import surroundings
from .payload import dumps_value

RUN_HEAD = struct.Struct("<IIII")
OPENED_HEAD = struct.Struct("<IQ")


class Message:
    """A message that waits, and what has been cancelled of it since it came."""

    __slots__ = ("kind", "body", "cancelled")

    def __init__(self, kind: int, body: bytes) -> None:
        self.kind, self.body = kind, body
        self.cancelled: Set[int] = set()


class Engine:
    """See the module."""

    def __init__(self, pipes: Pipes, load: Sequence[str]) -> None:
        self._pipes = pipes
        self._load = load
        self._waiting: Deque[Message] = collections.deque()
        self._running: Optional[Message] = None
        self._sessions: Dict[int, Session] = {}
        self._known: Set[str] = set()
        self._flush_bytes, self._flush_ns = 65536, 1_000_000
        self._flush_at = 0
        self._held = Held(pipes)
        os.register_at_fork(after_in_child=self._forked)

    def _forked(self) -> None:
        # A child that returns from the task comes to the next flush at once, which ends it.
        self._flush_at = 0

    def serve(self) -> None:
        """Serves until the host closes the engine's input."""
        handlers = {frames.START: self._start, frames.OPEN: self._open, frames.CLOSE: self._close, frames.RUN: self._run}
        while True:
            while not self._waiting:
                if self._pipes.ended:
                    return
                self._read()
            message = self._running = self._waiting.popleft()
            handler = handlers.get(message.kind)
            if handler is None:
                raise ProtocolError(f"a host sends no frame of kind {message.kind:#04x}")
            handler(message)
            self._running = None

    def _read(self) -> None:
        for kind, body in self._pipes.read():
            if kind == frames.PING:
                self._pipes.write(frames.PONG, body)
            elif kind == frames.CANCEL:
                self._cancel(Reader(body))
            else:
                self._waiting.append(Message(kind, body))

    def _cancel(self, reader: Reader) -> None:
        session = reader.u32()
        tasks = struct.unpack(f"<{reader.u32()}Q", reader.body[reader.at :])
        for message in (self._running, *self._waiting):
            if message is not None and message.kind == frames.RUN and message.body[:4] == frames.u32(session):
                message.cancelled.update(tasks)

    def _start(self, message: Message) -> None:
        reader = Reader(message.body)
        if reader.take(4) != b"TMEP":
            raise ProtocolError("the first frame does not begin with TMEP; is this a tidemill host?")
        oldest, newest = reader.u16(), reader.u16()
        if not oldest <= frames.PROTOCOL <= newest:
            raise ProtocolError(
                f"the host speaks versions {oldest} to {newest} of the protocol, this kit {frames.PROTOCOL}; install the host's `tidemill`"
            )
        self._pipes.frame_bytes = reader.u32()
        self._flush_bytes, self._flush_ns = reader.u32(), reader.u32() * 1000
        surroundings.engine_id, surroundings.scratch = reader.text(), Path(reader.text())
        for _ in range(reader.u32()):
            name, version, path = reader.text(), reader.text(), Path(reader.text())
            surroundings.packages[name] = (version, path)
            # Libraries travel as packages, too: a folder `python` in one can be imported from, and so can pure wheels.
            for folder in (path / "python", *sorted(path.glob("*-none-any.whl"))):
                if folder.exists():
                    sys.path.append(str(folder))
        for name in self._load:
            importlib.import_module(name)
        self._known = set(sys.modules)
        loaded = [("tidemill", frames.VERSION), *((name, _version(name)) for name in self._load)]
        gc.collect()
        gc.freeze()
        self._pipes.write(
            frames.HELLO,
            struct.pack("<HI", frames.PROTOCOL, os.getpid()),
            frames.text("tidemill-python", frames.NAME_BYTES),
            frames.text(frames.VERSION, frames.NAME_BYTES),
            frames.text(f"python {platform.python_version()}", frames.NAME_BYTES),
            frames.libraries(loaded),
        )

    def _open(self, message: Message) -> None:
        started = time.perf_counter_ns()
        session = Session(message.body)
        try:
            session.open()
        except BaseException as e:
            self._pipes.write(frames.REFUSED, frames.u32(session.number), _error(e, self._pipes.frame_bytes))
            return
        self._sessions[session.number] = session
        new = sorted(name for name in set(sys.modules) - self._known if "." not in name and not name.startswith("_"))
        loaded = [(name, version) for name, version in ((name, _version(name)) for name in new) if version]
        took_us = (time.perf_counter_ns() - started) // 1000
        self._pipes.write(frames.OPENED, OPENED_HEAD.pack(session.number, took_us), frames.libraries(loaded))

    def _close(self, message: Message) -> None:
        self._sessions.pop(Reader(message.body).u32(), None)
        # Its state may have cycles that were frozen.
        gc.unfreeze()
        gc.collect()
        gc.freeze()

    def _run(self, message: Message) -> None:
        body = message.body
        number, flags, count, dependencies = RUN_HEAD.unpack_from(body)
        session = self._sessions.get(number)
        if session is None:
            raise ProtocolError(f"tasks in session {number}, which is not open")
        ids = struct.unpack_from(f"<{count}Q", body, 16)
        at = 16 + 8 * count
        lengths = struct.unpack_from(f"<{count}I", body, at)
        at += 4 * count
        given = None
        if dependencies:
            given, at = _dependencies(body, at, count, dependencies, sum(lengths))
        surroundings.parameters = session.parameters
        self._run_tasks(message, session, number, ids, lengths, at, given, bool(flags & 1))

    def _run_tasks(
        self,
        message: Message,
        session: Session,
        number: int,
        ids: Tuple[int, ...],
        lengths: Tuple[int, ...],
        at: int,
        given: Optional[List[List[bytes]]],
        step: bool,
    ) -> None:
        body, cancelled, call, clock = message.body, message.cancelled, session.call, time.perf_counter_ns
        most = self._pipes.frame_bytes - self._flush_bytes - (8 << 20)
        if most < 1 << 15:
            most = 1 << 15
        held = self._held
        lock, values, ends, odd = held.lock, held.values, held.ends, held.odd
        waiting, full, last = 0, self._flush_bytes, len(ids) - 1
        with lock:
            held.begin(number, ids)
        for i, length in enumerate(lengths):
            end = at + length
            status = frames.OK
            if cancelled and ids[i] in cancelled:
                value, status = b"", frames.CANCELLED
            else:
                try:
                    value = call(body[at:end]) if given is None else session.call_with(body[at:end], given[i])
                    if len(value) > most:
                        raise ValueError(
                            f"the result has {len(value)} bytes, at most {most} are allowed; put it into an object and return its key"
                        )
                except BaseException as e:
                    value = _error(session.explained(e, body[at:end], () if given is None else given[i]), most)
                    status = frames.ERROR
            at = end
            now = clock()
            waiting += len(value)
            with lock:
                if status:
                    odd[i] = status
                values.append(value)
                ends.append(now)
                due = now >= self._flush_at or waiting >= full or step or i == last
                if due:
                    held.send()
            if due:
                waiting = 0
                if i != last and self._pipes.is_readable():
                    self._read()
                # Nothing is held now: the time of reading is not the next task's.
                held.started = clock()
                self._flush_at = held.started + self._flush_ns
            elif held.unwatched:
                held.watch()


def _dependencies(body: bytes, at: int, count: int, all_of_them: int, payload_bytes: int) -> Tuple[List[List[bytes]], int]:
    """The dependencies of each task, and where the payloads begin."""
    counts = struct.unpack_from(f"<{count}I", body, at)
    lengths = struct.unpack_from(f"<{all_of_them}I", body, at + 4 * count)
    begin = at + 4 * count + 4 * all_of_them
    place = begin + payload_bytes
    pieces = []
    for length in lengths:
        pieces.append(body[place : place + length])
        place += length
    given, next_one = [], 0
    for n in counts:
        given.append(pieces[next_one : next_one + n])
        next_one += n
    return given, begin


def _version(module: str) -> str:
    version = getattr(sys.modules.get(module), "__version__", "")
    return version if isinstance(version, str) else str(version)


def _error(e: BaseException, most: int) -> bytes:
    """An error on the wire: class, message, traceback from the function on, and the error itself for a client in Python."""
    kind = type(e)
    name = kind.__qualname__ if kind.__module__ in ("builtins", "__main__") else f"{kind.__module__}.{kind.__qualname__}"
    try:
        message = str(e)
    except Exception:
        message = "(an error without words: its __str__ fails)"
    trace = e.__traceback__
    while trace is not None and os.path.dirname(trace.tb_frame.f_code.co_filename) == os.path.dirname(__file__):
        trace = trace.tb_next
    try:
        shown = "".join(traceback.format_exception(kind, e, trace))
    except Exception:
        shown = ""
    try:
        value = dumps_value(e)
        pickle.loads(value)
    except BaseException:
        # Errors that cannot be made again from what they are pickled as are common. The text will do.
        value = b""
    return frames.error(name, message, shown, value if len(value) <= most // 2 else b"")


def main(arguments: Sequence[str]) -> int:
    """``python -m tidemill.engine [--load MODULE]...``"""
    load: List[str] = []
    rest = list(arguments)
    while rest:
        word = rest.pop(0)
        if word != "--load" or not rest:
            print(f"usage: python -m tidemill.engine [--load MODULE]... ; what is {word!r}?", file=sys.stderr)
            return 2
        load.append(rest.pop(0))
    pipes = Pipes()
    sys.stdin = open(os.devnull)
    # What is printed reaches the log when it is printed.
    sys.stdout.reconfigure(line_buffering=True)  # type: ignore[union-attr]
    try:
        Engine(pipes, load).serve()
    except BrokenPipeError:
        # The host is gone.
        return 0
    return 0
