"""One session at work: a thread that sends what was submitted, a thread that reads what came of it, and the account between them."""

from __future__ import annotations

import bisect
import queue
import threading
from array import array
from concurrent.futures import CancelledError
from typing import Any, Callable, List, Optional, Sequence, Tuple

from . import _wire as wire
from .errors import TaskFailed, TidemillError
from .session import Session

#: A place in which no result lies yet.
EMPTY: Any = type("Empty", (), {"__repr__": lambda self: "<empty>", "__slots__": ()})()
_CLOSE, _CANCEL = object(), object()


class _GivenUp:
    """Tasks that nobody waits for any more; ``running``: they are stopped if they run."""

    __slots__ = ("tasks", "running")

    def __init__(self, tasks: range, running: bool) -> None:
        self.tasks, self.running = tasks, running


class Batch:
    """Tasks of one submission. Its methods are called under the channel's lock, except :meth:`after`."""

    def __init__(self, count: int) -> None:
        self.first, self.count = -1, count
        #: Tasks without a result.
        self.left = count
        #: The server has been told, or is about to be, that nobody wants the rest.
        self.given_up = False

    def put(self, at: int, statuses: bytes, values: Sequence[bytes]) -> int:
        """Takes results of tasks that follow one another. Returns how many the channel had still counted."""
        raise NotImplementedError

    def fail(self, error: Callable[[], BaseException]) -> int:
        """Every task that has no result gets none."""
        raise NotImplementedError

    def sent(self, first: int) -> None:
        """The server has taken it, and this is its first task's number."""
        self.first = first

    def after(self) -> None:
        """Tells whoever waits. Called without locks."""


class Channel:
    """See the module."""

    def __init__(self, session: Session, make_batch: Callable[["Channel", List[Any]], Batch], key: Any = None) -> None:
        self.session, self.key = session, key
        #: Takes no more work.
        self.dead = False
        #: Nothing more will come of it.
        self.over = False
        #: What reading results came to grief on.
        self.error: Optional[Exception] = None
        #: The sender has been told to end.
        self._ending = False
        #: Those who feed it do not wait for those who consume: it is about to end.
        self.draining = False
        self._make_batch = make_batch
        self.lock = threading.Lock()
        self._changed = threading.Condition(self.lock)
        self._firsts: List[int] = []
        self._batches: List[Batch] = []
        #: Submissions that are under way. Answers may come in another order than the server took them.
        self._sending = 0
        self._early: List[Tuple[Sequence[int], bytes, List[bytes]]] = []
        #: What somebody still waits for: tasks that are submitted or about to be, and feeders.
        self.wanted = 0
        #: Tasks that nobody waits for any more, and that may run.
        self.unwanted = 0
        self._outbox: "queue.SimpleQueue[Any]" = queue.SimpleQueue()
        self._sender = threading.Thread(target=self._send_all, name=f"tidemill-send-{session.id}", daemon=True)
        self._reader = threading.Thread(target=self._read_all, name=f"tidemill-read-{session.id}", daemon=True)
        self._sender.start()
        self._reader.start()

    # What is submitted.

    def want(self, count: int = 1) -> bool:
        """Counts work in. ``False``: the channel takes no more."""
        with self.lock:
            if self.dead:
                return False
            self.wanted += count
            return True

    def unwant(self, count: int = 1, running: int = 0) -> None:
        """Counts work out that came to its end, or (``running`` of it) that nobody waits for any more. What runs for nobody is stopped."""
        with self.lock:
            self.wanted -= count
            self.unwanted += running
            self.settle()

    def settle(self) -> None:
        """Looks whether anybody still waits. Called under the lock."""
        if self.wanted == 0:
            if self.unwanted > 0 and not self.dead:
                # Nobody wants anything of the session now, so that what runs in vain may be stopped. The session goes on.
                for batch in self._batches:
                    self.give_up_batch(batch)
            self._changed.notify_all()

    def give_up(self, tasks: range, running: bool) -> None:
        """Lets the server know that nobody wants these tasks any more."""
        self._outbox.put(_GivenUp(tasks, running))

    def give_up_batch(self, batch: "Batch") -> None:
        """Stops what is left of a batch, if the server has taken it. Called under the lock."""
        if batch.left and batch.first >= 0 and not batch.given_up:
            batch.given_up = True
            self.give_up(range(batch.first, batch.first + batch.count), True)

    def put(self, item: Any) -> None:
        """Queues one task. It must have been counted in."""
        self._outbox.put(item)

    def _send_all(self) -> None:
        get, get_now = self._outbox.get, self._outbox.get_nowait
        while True:
            items, size = [get()], 0
            try:
                # What has gathered while the last request was under way goes together.
                while len(items) < wire.SUBMISSION_TASKS and size < wire.SUBMISSION_BYTES:
                    size += len(getattr(items[-1], "payload", b""))
                    items.append(get_now())
            except queue.Empty:
                pass
            signals = [i for i in items if i is _CLOSE or i is _CANCEL]
            given_up = [i for i in items if type(i) is _GivenUp]
            items = [i for i in items if i is not _CLOSE and i is not _CANCEL and type(i) is not _GivenUp]
            if items and _CANCEL in signals:
                self._drop(items)
            elif items:
                self._send(items)
            if given_up and _CANCEL not in signals:
                self._tell_given_up(given_up)
            if signals:
                self._finish(_CANCEL in signals)
                return

    def _tell_given_up(self, given_up: List[_GivenUp]) -> None:
        for running in (False, True):
            tasks = [g.tasks for g in given_up if g.running is running]
            if not tasks:
                continue
            try:
                self.session.cancel_tasks(tasks, running=running)
            except TidemillError:
                # The session has ended, or the server is away: what runs in vain ends by itself.
                pass

    def _drop(self, items: List[Any]) -> None:
        batch = self._make_batch(self, items)
        with self.lock:
            self.wanted -= batch.fail(CancelledError)
            self.settle()
        batch.after()

    def _send(self, items: List[Any]) -> None:
        batch: Any = self._make_batch(self, items)
        if batch.count == 0:
            return
        try:
            self.send_batch(batch, wire.pack(batch.payloads, batch.dependencies))
        except Exception as e:
            error = e
            with self.lock:
                self.wanted -= batch.fail(lambda: error)
                self.settle()
            batch.after()

    def send_batch(self, batch: Batch, submission: bytes) -> None:
        """Submits, from whatever thread, and watches for what comes of it."""
        with self.lock:
            self._sending += 1
        try:
            first, count = self.session.submit_packed(submission)
            if count != batch.count:
                raise TidemillError(f"the server took {count} tasks where {batch.count} were sent")
        except BaseException:
            with self.lock:
                self._sent()
            raise
        with self.lock:
            if self.over:
                # It ended under way, or was given up; nothing will come.
                why = self.ended()
                self.wanted -= batch.fail(lambda: why)
                touched: List[Batch] = [batch]
            else:
                batch.sent(first)
                at = bisect.bisect_left(self._firsts, first)
                self._firsts.insert(at, first)
                self._batches.insert(at, batch)
                touched = []
                early, self._early = self._early, []
                for tasks, statuses, values in early:
                    self._place(tasks, statuses, values, touched)
            self._sent()
            self.settle()
        for b in touched:
            b.after()

    def _sent(self) -> None:
        self._sending -= 1
        if self._sending == 0:
            # Everything has its place by now; what is left is wanted by nobody.
            self._early.clear()

    # What comes of it.

    def _read_all(self) -> None:
        why: Exception
        try:
            for delivery in self.session.deliveries(0, early=True):
                touched: List[Batch] = []
                with self.lock:
                    self._place(delivery.tasks, delivery.statuses, delivery.values, touched)
                    self.settle()
                for batch in touched:
                    batch.after()
            why = self.ended("stopped")
        except Exception as e:
            self.error = e
            self.session.state = self.session.state or "lost"
            why = e
        with self.lock:
            self.dead = self.over = True
            left, self._batches, self._firsts = self._batches, [], []
            for batch in left:
                self.wanted -= batch.fail(lambda: why)
            self._changed.notify_all()
        for batch in left:
            batch.after()

    def ended(self, otherwise: str = "cancelled") -> Exception:
        """Why a task of a session that is over has no result."""
        state = self.session.state or otherwise
        why = "" if self.error is None else f" ({type(self.error).__name__}: {self.error})"
        error = TaskFailed("cancelled" if state == "cancelled" else "lost", f"session {self.session.id} is {state}{why}, and this task has no result")
        error.__cause__ = self.error
        return error

    def _place(self, tasks: Sequence[int], statuses: bytes, values: List[bytes], touched: List[Batch]) -> None:
        """Brings results to their batches, in as few and as long runs as they make."""
        count = len(values)
        at = 0
        in_a_row = count > 0 and tasks[count - 1] - tasks[0] == count - 1 and tasks == array("Q", range(tasks[0], tasks[0] + count))
        while at < count:
            task = tasks[at]
            where = bisect.bisect_right(self._firsts, task) - 1
            batch = self._batches[where] if where >= 0 else None
            if batch is None or task >= batch.first + batch.count:
                if self._sending:
                    # Its submission has not been answered yet.
                    self._early.append(([task], statuses[at : at + 1], [values[at]]))
                at += 1
                continue
            most = batch.first + batch.count - task
            stop = at + min(count - at, most)
            if not in_a_row:
                stop = at + 1
                while stop < count and stop - at < most and tasks[stop] == task + stop - at:
                    stop += 1
            wanted = batch.put(task - batch.first, statuses[at:stop], values[at:stop])
            self.wanted -= wanted
            self.unwanted = max(0, self.unwanted - (stop - at - wanted))
            at = stop
            if not touched or touched[-1] is not batch:
                touched.append(batch)
            if batch.left == 0:
                del self._firsts[where], self._batches[where]

    # The end.

    @property
    def idle(self) -> bool:
        """Whether nobody waits for anything."""
        return self.wanted == 0

    def wait_idle(self, timeout: Optional[float] = None) -> bool:
        """Waits until nobody waits for anything."""
        with self.lock:
            return self._changed.wait_for(lambda: self.wanted == 0, timeout)

    def close(self) -> None:
        """Takes no more; the session ends when its tasks have. One that has ended by itself lets go of its threads."""
        with self.lock:
            if self._ending:
                return
            self.dead = self._ending = True
        self._outbox.put(_CLOSE)

    def cancel(self) -> None:
        """Takes no more, and stops what runs. Whoever waits hears at once."""
        with self.lock:
            if self.dead:
                return
            self.dead = self.over = self._ending = True
            batches, self._batches, self._firsts = self._batches, [], []
            for batch in batches:
                self.wanted -= batch.fail(CancelledError)
            self.settle()
        self._outbox.put(_CANCEL)
        for batch in batches:
            batch.after()

    def _finish(self, cancel: bool) -> None:
        try:
            if cancel:
                self.session.cancel()
            else:
                self.session.close()
        except TidemillError:
            # It has ended by itself, or the server is away for longer than anybody waits.
            pass
        if self.wait_idle(0):
            self.session.stop()

    def join(self, timeout: Optional[float] = None) -> None:
        """Waits until the server has been told."""
        self._sender.join(timeout)

    def stop_when_idle(self) -> None:
        """Lets go of the stream once everything has come."""
        self.wait_idle()
        self.session.stop()
