"""``Grid.map``: any number of tasks without an object for each, fed ahead of the consumer, results in order from packed columns."""

from __future__ import annotations

import concurrent.futures
import itertools
import threading
import time
import weakref
from collections import deque
from typing import Any, Callable, Deque, Generator, Iterator, List, Optional, Sequence, Tuple

from . import _wire as wire
from ._channel import EMPTY, Batch, Channel
from ._progress import Progress
from .errors import Failure, TaskFailed

#: The first submissions are small, so that engines begin at once.
RAMP = (500, 5_000)
#: So many tasks are submitted ahead of what the consumer has taken, at most.
AHEAD_TASKS = 200_000
#: And so many while nothing is known of how large results are.
AHEAD_UNKNOWN = 10_000
#: And afterwards so many that what they bring fits into this.
AHEAD_BYTES = 256 << 20
#: A slow source is not waited for longer than this before what it gave is sent, seconds.
LINGER = 0.02


class MapBatch(Batch):
    """Results of one submission in the order of its tasks."""

    def __init__(self, run: "Run", count: int) -> None:
        super().__init__(count)
        self.run = run
        self.slots: List[Any] = [EMPTY] * count
        self.failures = False
        #: How many the consumer has had.
        self.taken = 0

    def put(self, at: int, statuses: bytes, values: Sequence[Any]) -> int:
        count = len(values)
        run = self.run
        if statuses.count(0) != count:
            self.failures = True
            values = [v if s == wire.OK else Failure(v) for s, v in zip(statuses, values)]
        if run.abandoned:
            self.left -= count
            return 0
        fresh = count
        if self.slots[at : at + count].count(EMPTY) == count:
            self.slots[at : at + count] = values
            new = values
        else:
            new = []
            for place, value in enumerate(values, at):
                if self.slots[place] is EMPTY:
                    self.slots[place] = value
                    new.append(value)
            fresh = len(new)
        self.left -= fresh
        run.arrived(fresh, sum(len(v) for v in new if type(v) is bytes), new)
        return fresh

    def sent(self, first: int) -> None:
        super().sent(first)
        if self.run.abandoned:
            self.run.channel.give_up_batch(self)

    def fail(self, error: Callable[[], BaseException]) -> int:
        if self.run.abandoned:
            return 0
        failed = 0
        new = []
        for place, value in enumerate(self.slots):
            if value is EMPTY:
                self.slots[place] = made = error()
                new.append(made)
                failed += 1
        self.failures = True
        self.left = 0
        self.run.arrived(failed, 0, new)
        return failed

    def after(self) -> None:
        run = self.run
        with run.condition:
            run.condition.notify_all()


class Run:
    """What feeder, reader and consumer of one map share. The consumer's object is not among it, so that letting go of that ends this."""

    def __init__(self, channel: Channel, ordered: bool) -> None:
        self.channel, self.ordered = channel, ordered
        self.condition = threading.Condition()
        self.batches: Deque[MapBatch] = deque()
        #: Without an order: what has come.
        self.heap: Deque[Sequence[Any]] = deque()
        self.fed = self.come = self.taken = self.bytes = 0
        self.fed_all = False
        self.error: Optional[BaseException] = None
        self.abandoned = False

    def arrived(self, count: int, size: int, new: Sequence[Any]) -> None:
        """Called by the reader."""
        self.come += count
        self.bytes += size
        if not self.ordered and new:
            self.heap.append(new)

    def room(self) -> int:
        """How many tasks more may be submitted now."""
        if self.channel.draining:
            return AHEAD_TASKS
        ahead = max(1, AHEAD_BYTES * self.come // max(1, self.bytes)) if self.come else AHEAD_UNKNOWN
        ahead = min(ahead, AHEAD_TASKS)
        return ahead - (self.fed - self.taken)

    def add(self, batch: MapBatch) -> bool:
        """Counts tasks in that are about to be sent. ``False``: nobody would take them."""
        channel = self.channel
        with channel.lock:
            if self.abandoned or channel.dead:
                return False
            channel.wanted += batch.count
            self.fed += batch.count
            self.batches.append(batch)
            return True

    def take_back(self, batch: MapBatch) -> None:
        """They could not be sent."""
        channel = self.channel
        with channel.lock:
            self.fed -= batch.count
            self.batches.remove(batch)
            if self.abandoned:
                channel.unwanted -= batch.count
            else:
                channel.wanted -= batch.count
            channel.settle()

    def abandon(self) -> None:
        """Nobody wants the rest."""
        channel = self.channel
        with channel.lock:
            if self.abandoned:
                return
            self.abandoned = True
            left = self.fed - self.come
            channel.wanted -= left
            channel.unwanted += left
            for batch in self.batches:
                channel.give_up_batch(batch)
            channel.settle()
        with self.condition:
            self.condition.notify_all()


def feed(run: Run, calls: Iterator[Any], pack: Callable[[List[Any]], List[bytes]], known: Optional[int]) -> None:
    """Packs and submits until there is nothing more, the consumer has gone, or it is too far behind. A thread of its own."""
    ramp = itertools.chain(RAMP, itertools.repeat(wire.SUBMISSION_TASKS))
    try:
        while True:
            most = next(ramp)
            with run.condition:
                # Small steps while the consumer keeps up would cost more than they gain.
                while not (run.abandoned or run.room() >= min(most, AHEAD_TASKS // 20) or run.fed == run.taken):
                    run.condition.wait(0.5)
                if run.abandoned:
                    return
                most = max(1, min(most, run.room()))
            part, error = _some(calls, most, known is not None)
            for payloads in _by_size(pack(part)) if part else ():
                if not _submit(run, payloads):
                    return
            if error is not None:
                raise error
            if not part:
                return
    except BaseException as e:
        run.error = e
    finally:
        with run.condition:
            run.fed_all = True
            run.condition.notify_all()
        run.channel.unwant()


def _some(calls: Iterator[Any], most: int, quick: bool) -> Tuple[List[Any], Optional[Exception]]:
    """The next calls, and what the source raised after them."""
    if quick:
        return list(itertools.islice(calls, most)), None
    out: List[Any] = []
    clock = time.monotonic
    until: Optional[float] = None
    try:
        for call in calls:
            out.append(call)
            if until is None:
                until = clock() + LINGER
            if len(out) >= most or clock() > until:
                break
    except Exception as e:
        return out, e
    return out, None


def _by_size(payloads: List[bytes]) -> Iterator[List[bytes]]:
    if sum(map(len, payloads)) <= wire.SUBMISSION_BYTES:
        yield payloads
        return
    first, size = 0, 0
    for at, payload in enumerate(payloads):
        if at > first and size + len(payload) > wire.SUBMISSION_BYTES:
            yield payloads[first:at]
            first, size = at, 0
        size += len(payload)
    yield payloads[first:]


def _submit(run: Run, payloads: List[bytes]) -> bool:
    batch = MapBatch(run, len(payloads))
    if not run.add(batch):
        if not run.abandoned:
            run.error = run.error or _taken_away(run)
        return False
    try:
        run.channel.send_batch(batch, wire.pack(payloads))
    except Exception:
        run.take_back(batch)
        raise
    return True


def _taken_away(run: Run) -> BaseException:
    if run.channel.error is not None:
        return run.channel.ended()
    return TaskFailed("cancelled", f"session {run.channel.session.id} takes no more tasks")


class _Consumer:
    """The generator's side of :class:`Results`."""

    def __init__(
        self,
        run: Run,
        decode: Callable[[bytes], Any],
        loads: Optional[Callable[[bytes], Any]],
        timeout: Optional[float],
        return_exceptions: bool,
        progress: Progress,
    ) -> None:
        self._run, self._decode, self._loads = run, decode, loads
        self._until = None if timeout is None else time.monotonic() + timeout
        self._timeout, self._return_exceptions, self._progress = timeout, return_exceptions, progress

    def values(self) -> Iterator[Any]:
        """All of them, decoded as they are taken."""
        run, progress = self._run, self._progress
        try:
            while True:
                raw, plain = self._wait()
                if raw is None:
                    return
                yield from map(self._decode, raw) if plain else self._mixed(raw)
                with run.condition:
                    run.taken += len(raw)
                    run.condition.notify_all()
                progress.show(run.come, run.fed)
        finally:
            progress.end(run.come)
            run.abandon()

    def _wait(self) -> Tuple[Optional[Sequence[Any]], bool]:
        run = self._run
        with run.condition:
            while True:
                raw, plain = _next_ordered(run) if run.ordered else _next_any(run)
                if raw:
                    return raw, plain
                if run.fed_all and run.taken >= run.fed:
                    if run.error is not None:
                        raise run.error
                    return None, True
                left = 0.5
                if self._until is not None:
                    left = min(left, self._until - time.monotonic())
                    if left <= 0:
                        raise concurrent.futures.TimeoutError(f"{run.taken} results came within {self._timeout} seconds, and there are more")
                run.condition.wait(left)
                self._progress.show(run.come, run.fed)

    def _mixed(self, raw: Sequence[Any]) -> Iterator[Any]:
        for value in raw:
            if type(value) is bytes:
                yield self._decode(value)
                continue
            error = value.exception(self._loads) if type(value) is Failure else value
            if not self._return_exceptions:
                raise error
            yield error


class Results(Iterator[Any]):
    """Results of :meth:`Grid.map`, an iterator. Letting go of it, or :meth:`close`, stops what has not run."""

    def __init__(
        self,
        run: Run,
        decode: Callable[[bytes], Any],
        loads: Optional[Callable[[bytes], Any]],
        total: Optional[int],
        timeout: Optional[float],
        return_exceptions: bool,
        progress: Optional[bool],
        label: str,
    ) -> None:
        self._run, self._total = run, total
        consumer = _Consumer(run, decode, loads, timeout, return_exceptions, Progress(total, label, progress))
        self._values: Generator[Any, None, None] = consumer.values()  # type: ignore[assignment]
        self._finalizer = weakref.finalize(self, Run.abandon, run)
        # What is left at the end of the process is the session's to close.
        self._finalizer.atexit = False

    def __next__(self) -> Any:
        return next(self._values)

    def __length_hint__(self) -> int:
        return max(0, (self._total or 0) - self._run.taken)

    @property
    def session(self) -> str:
        """The id of its session."""
        return self._run.channel.session.id

    def close(self) -> None:
        """Stops what has not run. Nothing more comes."""
        self._values.close()
        self._finalizer()

    def to_list(self) -> List[Any]:
        """All of them."""
        return list(self)

    def to_pandas(self) -> Any:
        """All of them as a ``pandas.DataFrame``: dictionaries and named tuples become rows, frames and tables are put one after the
        other, anything else becomes the column ``value``."""
        from ._tables import to_pandas

        return to_pandas(list(self))

    def to_arrow(self) -> Any:
        """The same as a ``pyarrow.Table``."""
        from ._tables import to_arrow

        return to_arrow(list(self))


def _next_ordered(run: Run) -> Tuple[Optional[Sequence[Any]], bool]:
    batches = run.batches
    while batches:
        batch = batches[0]
        at = batch.taken
        if batch.left == 0:
            batches.popleft()
            stop = batch.count
        else:
            try:
                stop = batch.slots.index(EMPTY, at)
            except ValueError:
                stop = batch.count
        if stop > at:
            raw = batch.slots[at:stop]
            # What was taken is let go of, and yet not empty.
            batch.slots[at:stop] = [None] * (stop - at)
            batch.taken = stop
            return raw, not batch.failures
        if batch.left > 0:
            return None, True
    return None, True


def _next_any(run: Run) -> Tuple[Optional[Sequence[Any]], bool]:
    if not run.heap:
        return None, True
    raw = run.heap.popleft()
    return raw, all(type(v) is bytes for v in raw)
