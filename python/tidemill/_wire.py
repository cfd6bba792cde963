"""The two byte layouts between client and server: submissions and the stream of results. ``docs/reference/grid-streams.md`` has both."""

from __future__ import annotations

import struct
import sys
from array import array
from itertools import accumulate
from typing import Iterator, List, Optional, Sequence, Tuple, Union

from .errors import TidemillError

MAGIC = b"TMS1"
MEDIA_TYPE = "application/vnd.tidemill.results"
#: In a dependency: counted from the submission's own first task.
OWN = 1 << 63
MAX_TASKS = 1_000_000
MAX_DEPENDENCIES = 10_000
#: What this client puts into one submission, about.
SUBMISSION_BYTES = 4 << 20
SUBMISSION_TASKS = 50_000
#: A submission that is larger is refused by the server.
MOST_BYTES = 256 << 20

RESULTS, END, NOTHING = 1, 2, 3
OK, ERROR = 0, 1

_SWAP = sys.byteorder == "big"
_HEAD = struct.Struct("<4sII")
_FRAME = struct.Struct("<IB")
_DELIVERY = struct.Struct("<QI")
_N = struct.Struct("<Q")


def _column(code: str, values: Sequence[int]) -> bytes:
    out = array(code, values)
    if _SWAP:
        out.byteswap()
    return out.tobytes()


def _read_column(code: str, data: bytes) -> "array[int]":
    out = array(code)
    out.frombytes(data)
    if _SWAP:
        out.byteswap()
    return out


def pack(payloads: Sequence[bytes], dependencies: Optional[Sequence[Sequence[int]]] = None) -> bytes:
    """A submission of these payloads; ``dependencies`` has one list of task numbers for each, or is left out."""
    count = len(payloads)
    if not 0 < count <= MAX_TASKS:
        raise ValueError(f"{count} tasks; 1 to {MAX_TASKS} fit into one submission")
    lengths = _column("I", list(map(len, payloads)))
    if dependencies is None or not any(dependencies):
        return b"".join((_HEAD.pack(MAGIC, count, 0), lengths, *payloads))
    if len(dependencies) != count:
        raise ValueError(f"{len(dependencies)} lists of dependencies for {count} tasks")
    for needed in dependencies:
        if len(needed) > MAX_DEPENDENCIES:
            raise ValueError(f"a task with {len(needed)} dependencies; at most {MAX_DEPENDENCIES} are allowed, so gather them in steps")
    flat = [d for needed in dependencies for d in needed]
    counts = _column("I", list(map(len, dependencies)))
    return b"".join((_HEAD.pack(MAGIC, count, len(flat)), lengths, counts, _column("Q", flat), *payloads))


def unpack(data: bytes) -> Tuple[List[bytes], Optional[List[List[int]]]]:
    """The payloads and dependencies of a submission: the other direction, for tests and tools."""
    magic, count, total = _HEAD.unpack_from(data)
    if magic != MAGIC:
        raise ValueError("it does not begin with TMS1")
    at = _HEAD.size
    lengths = _read_column("I", data[at : at + 4 * count])
    at += 4 * count
    dependencies: Optional[List[List[int]]] = None
    if total:
        counts = _read_column("I", data[at : at + 4 * count])
        at += 4 * count
        flat = _read_column("Q", data[at : at + 8 * total]).tolist()
        at += 8 * total
        ends = list(accumulate(counts))
        dependencies = [flat[end - n : end] for n, end in zip(counts, ends)]
    return _cut(data, at, lengths), dependencies


def _cut(data: bytes, at: int, lengths: Sequence[int]) -> List[bytes]:
    ends = list(accumulate(lengths, initial=at))
    if ends[-1] != len(data):
        raise ValueError(f"its bytes end at {ends[-1]}, and it has {len(data)}")
    return list(map(data.__getitem__, map(slice, ends, ends[1:])))


class Delivery:
    """Results that came together: columns of the same length."""

    __slots__ = ("n", "tasks", "statuses", "run_us", "values")

    def __init__(self, n: int, tasks: Sequence[int], statuses: bytes, run_us: Sequence[int], values: List[bytes]) -> None:
        #: Its number: the cursor after it.
        self.n = n
        #: Numbers of the tasks.
        self.tasks = tasks
        #: 0: a result; 1: an error.
        self.statuses = statuses
        #: Time in the function, microseconds.
        self.run_us = run_us
        #: Results in the session's output format, errors as JSON.
        self.values = values

    def __len__(self) -> int:
        return len(self.values)


class End:
    """The session has ended, and nothing follows delivery ``n``."""

    __slots__ = ("n", "state")

    def __init__(self, n: int, state: str) -> None:
        self.n, self.state = n, state


def read_frame(kind: int, body: bytes) -> Union[Delivery, End, None]:
    """What a frame says; ``None``: nothing yet."""
    if kind == RESULTS:
        n, count = _DELIVERY.unpack_from(body)
        at = _DELIVERY.size
        tasks = _read_column("Q", body[at : at + 8 * count])
        at += 8 * count
        statuses = body[at : at + count]
        at += count
        run_us = _read_column("I", body[at : at + 4 * count])
        at += 4 * count
        lengths = _read_column("I", body[at : at + 4 * count])
        return Delivery(n, tasks, statuses, run_us, _cut(body, at + 4 * count, lengths))
    if kind == END:
        return End(_N.unpack_from(body)[0], body[8:].decode())
    if kind == NOTHING:
        return None
    raise TidemillError(f"the server sends a frame of kind {kind}, which this client does not know; install the server's `tidemill`")


class FrameReader:
    """Cuts a stream of bytes into frames, however it comes."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, data: bytes) -> Iterator[Tuple[int, bytes]]:
        """Takes bytes, gives the frames that are whole: kind and body."""
        buffer = self._buffer
        buffer += data
        at, have = 0, len(buffer)
        try:
            while have - at >= 5:
                length, kind = _FRAME.unpack_from(buffer, at)
                end = at + 4 + length
                if end > have:
                    break
                with memoryview(buffer) as view:
                    body = bytes(view[at + 5 : end])
                at = end
                yield kind, body
        finally:
            del buffer[:at]
