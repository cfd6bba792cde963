"""Results that wait to be sent together, and the thread that sees to it that none waits behind a long task."""

from __future__ import annotations

import os
import struct
import threading
import time
from typing import Dict, List, Tuple

from . import _frames as frames
from ._frames import Pipes

#: How often the thread looks, in seconds. A result that waits behind a task is sent after twice as long at most, unless the task keeps the
#: interpreter for itself.
LOOK = 0.1
#: After so many looks at nothing the thread sleeps until it is needed.
PATIENCE = 10


class Held:
    """The results of one message that have not been sent. All but ``watch`` is called with the lock."""

    def __init__(self, pipes: Pipes) -> None:
        self._pipes = pipes
        self.lock = threading.Lock()
        self.values: List[bytes] = []
        #: When each task ended, in nanoseconds; and when the first of them began.
        self.ends: List[int] = []
        self.started = 0
        #: Statuses other than ok, by the task's place in the message.
        self.odd: Dict[int, int] = {}
        self._number = self._first = 0
        self._ids: Tuple[int, ...] = ()
        #: Whoever leaves a result here calls ``watch`` then.
        self.unwatched = True
        self._wake = threading.Semaphore(0)
        self._has_thread = False
        # A fork in a task must not leave the child with a lock that nobody holds.
        os.register_at_fork(before=self.lock.acquire, after_in_parent=self.lock.release, after_in_child=self._forked)

    def _forked(self) -> None:
        self._has_thread, self.unwatched = False, True
        self.lock.release()

    def begin(self, number: int, ids: Tuple[int, ...]) -> None:
        """Begins with the tasks of a message."""
        self._number, self._ids, self._first = number, ids, 0
        self.started = time.perf_counter_ns()

    def send(self) -> None:
        """Sends what is held."""
        values, ends, odd, first = self.values, self.ends, self.odd, self._first
        count = len(values)
        times = [(end - begin) // 1000 for begin, end in zip([self.started, *ends], ends)]
        statuses = bytes(count)
        if odd:
            statuses = bytes(odd.get(first + i, frames.OK) for i in range(count))
            times = [0 if status == frames.CANCELLED else took for status, took in zip(statuses, times)]
        ids = self._ids[first : first + count]
        head = struct.pack(f"<II{count}Q{count}Q{count}I", self._number, count, *ids, *times, *map(len, values))
        self._pipes.write(frames.RESULTS, head, statuses, *values)
        self._first, self.started = first + count, ends[-1]
        values.clear()
        ends.clear()
        odd.clear()

    def watch(self) -> None:
        """Has the thread look after what is held. It is not there before it is needed: forks warn of threads."""
        self.unwatched = False
        if self._has_thread:
            self._wake.release()
        else:
            self._has_thread = True
            threading.Thread(target=self._look, name="tidemill-results", daemon=True).start()

    def _look(self) -> None:
        nothing = 0
        try:
            while True:
                time.sleep(LOOK)
                with self.lock:
                    if self.values:
                        nothing = 0
                        if time.perf_counter_ns() - self.ends[0] >= LOOK * 1e9:
                            self.send()
                        continue
                    nothing += 1
                    if nothing < PATIENCE:
                        continue
                    self.unwatched = True
                nothing = 0
                self._wake.acquire()
        except OSError:
            # The host is gone, which the engine's loop is about to see.
            return
