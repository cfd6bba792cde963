"""``Grid``: an executor whose workers are the grid's."""

from __future__ import annotations

import atexit
import concurrent.futures
import pickle
import threading
import types
import uuid
import weakref
from collections import OrderedDict
from typing import Any, Callable, Dict, Iterable, Iterator, List, Mapping, Optional, Sequence, Tuple, Union

from . import _wire as wire
from ._channel import Batch, Channel
from ._functions import FORMATS, Function, Packed, decoder, dumps, dumps_call, dumps_calls, encode, pack_function
from ._http import Server
from ._map import Results, Run, feed
from .engine.payload import Call, _cloudpickled, dumps_task
from .errors import Failure, TaskFailed
from .session import Session, list_sessions

#: Idle sessions that a grid keeps open for functions that may come again.
KEPT = 32
_NOTHING: Any = object()
_by_value = threading.local()
_grids: "weakref.WeakSet[Grid]" = weakref.WeakSet()


class Future(concurrent.futures.Future):  # type: ignore[type-arg]
    """One task's result to come. As an argument of another call on the same grid it stands for its value, which stays on the grid."""

    def __init__(self, channel: Optional[Channel] = None) -> None:
        super().__init__()
        #: The task's number in its session, once the server has taken it.
        self.task: Optional[int] = None
        self.payload = b""
        self.needs: Sequence[Future] = ()
        self._channel = channel
        self._counted = False
        #: It was cancelled on its way, and is to be stopped if it runs.
        self._stop = False

    @property
    def session(self) -> Optional[str]:
        """The id of its session."""
        return None if self._channel is None else self._channel.session.id

    def cancel(self, running: bool = False) -> bool:
        """Gives the task up, whether it runs or not. ``False`` if it is done.

        It is never run if it has not begun, wherever it waits. If it runs, it goes on in vain, unless ``running`` says that it is to be
        stopped, or nothing else of its session is wanted.
        """
        channel = self._channel
        if self.cancelled():
            if running and channel is not None and self.task is not None:
                channel.give_up(range(self.task, self.task + 1), True)
            return True
        if not super().cancel():
            return False
        self._stop = running
        try:
            self.set_running_or_notify_cancel()
        except (RuntimeError, concurrent.futures.InvalidStateError):
            return True
        if channel is not None:
            with channel.lock:
                if self._counted:
                    self._counted = False
                    channel.wanted -= 1
                    if self.task is not None:
                        channel.unwanted += 1
                        channel.give_up(range(self.task, self.task + 1), running)
                    channel.settle()
        return True

    def _resolve(self, value: Any, error: Optional[BaseException]) -> None:
        try:
            if error is not None:
                self.set_exception(error)
            else:
                self.set_result(value)
        except concurrent.futures.InvalidStateError:
            # It was cancelled meanwhile.
            pass

    def __reduce__(self) -> Any:
        if not getattr(_by_value, "on", False):
            raise pickle.PicklingError("a tidemill.Future can be an argument of calls on its own grid, and cannot travel otherwise")
        return pickle.loads, (dumps(self.result(0)),)


class FutureBatch(Batch):
    """Futures that were sent together."""

    def __init__(self, channel: Channel, futures: List[Future], decode: Callable[[bytes], Any], loads: Any) -> None:
        self._channel, self._decode, self._loads = channel, decode, loads
        self.payloads: List[bytes] = []
        self.dependencies: Optional[List[List[int]]] = None
        self.futures: List[Future] = []
        self._broken: List[Tuple[Future, BaseException]] = []
        self._settled: List[Tuple[Future, int, Any]] = []
        place: Dict[int, int] = {}
        lists: List[List[int]] = []
        for future in futures:
            if future.cancelled():
                continue
            numbers: List[int] = []
            for need in future.needs:
                here = place.get(id(need))
                if here is not None:
                    numbers.append(wire.OWN | here)
                elif need.task is not None:
                    numbers.append(need.task)
                else:
                    break
            else:
                place[id(future)] = len(self.futures)
                self.futures.append(future)
                self.payloads.append(future.payload)
                lists.append(numbers)
                continue
            self._broken.append((future, TaskFailed("dependency", "a task whose result it needs was cancelled, or could not be sent")))
        if any(lists):
            self.dependencies = lists
        super().__init__(len(self.futures))
        if self._broken:
            with channel.lock:
                for future, error in self._broken:
                    channel.wanted -= self._uncount(future)
                    self._settled.append((future, -1, error))
                channel.settle()
            self.after()

    def sent(self, first: int) -> None:
        self.first = first
        for number, future in enumerate(self.futures, first):
            future.task = number
            if not future._counted:
                # It was cancelled on the way.
                self._channel.unwanted += 1
                self._channel.give_up(range(number, number + 1), future._stop)
            future.payload, future.needs = b"", ()

    @staticmethod
    def _uncount(future: Future) -> int:
        counted, future._counted = future._counted, False
        return int(counted)

    def put(self, at: int, statuses: bytes, values: Sequence[bytes]) -> int:
        wanted = 0
        for future, status, value in zip(self.futures[at : at + len(values)], statuses, values):
            wanted += self._uncount(future)
            self._settled.append((future, status, value))
        self.left -= len(values)
        return wanted

    def fail(self, error: Callable[[], BaseException]) -> int:
        wanted = 0
        for future in self.futures:
            if future._counted:
                wanted += self._uncount(future)
                self._settled.append((future, -1, error()))
        self.left = 0
        return wanted

    def after(self) -> None:
        settled, self._settled = self._settled, []
        for future, status, value in settled:
            if status == wire.OK:
                try:
                    future._resolve(self._decode(value), None)
                except Exception as e:
                    future._resolve(None, e)
            elif isinstance(value, concurrent.futures.CancelledError):
                future.cancel()
            else:
                future._resolve(None, value if status < 0 else Failure(value).exception(self._loads))


class Grid(concurrent.futures.Executor):
    """Runs functions on a grid. An executor: ``submit``, ``map``, ``shutdown``, and ``with``.

    - ``server``, or ``url``, ``token``, ``ca``, ``data`` (a server's data folder): which grid. See :class:`~tidemill.Server`.
    - ``setup``, ``data_object`` through ``data=``: see :meth:`with_state` below.

    State that engines keep warm: ``setup`` is called once in each engine with ``data`` as its argument (without ``data``: with none), and
    what it returns is the first argument of every call. With ``data`` alone, that is the first argument.

    Functions travel by cloudpickle, or with ``by="name"`` by their names. Each distinct function has a session of its own on the server.

    - ``name``: of the sessions; else the function's.
    - ``priority``: higher goes first, -1000 to 1000.
    - ``retries``: how often a task whose function fails is tried again. What is lost with its engine or worker always is.
    - ``timeout``: seconds that one task may take. ``memory``: bytes (or ``"2GiB"``) that one engine may use.
    - ``env``: variables in the environment of engines. ``parameters``: for functions to read by ``tidemill.engine.parameters()``.
    - ``packages``: packages of files, each ``"name@version"``, ``"name"`` for the newest, or ``{"name", "version", "digest"}``.
    - ``engine``: the kind of engine. ``input``, ``output``: ``pickle``, ``json``, ``arrow`` or ``bytes``.
    - ``labels``: for people and for searching. ``worker_class``: which workers.
    - ``progress``: a line that shows how far a map is; by default only in terminals and notebooks.
    - ``idle_timeout``: seconds (or ``"24h"``, or ``"never"``) after which the server closes a session in which there is nothing to do and
      nobody reads. ``keep_alive``: a session of which this process is not heard for so long is cancelled, or with ``on_abandon="close"``
      closed; without it, work goes on when this process dies.
    - ``budget``: for each session: ``tasks``, ``engine_seconds``, ``failures``, ``wall`` (seconds, or ``"8h"``), ``deadline`` (RFC 3339),
      ``on_met`` (``"finish"``, or ``"cancel"`` what runs).
    """

    def __init__(
        self,
        *,
        server: Union[Server, str, None] = None,
        token: Optional[str] = None,
        ca: Optional[str] = None,
        by: str = "cloudpickle",
        setup: Optional[Function] = None,
        data: Any = _NOTHING,
        name: Optional[str] = None,
        priority: int = 0,
        retries: int = 0,
        timeout: Optional[float] = None,
        memory: Union[int, str, None] = None,
        env: Optional[Mapping[str, str]] = None,
        parameters: Optional[Mapping[str, str]] = None,
        packages: Optional[Sequence[Union[str, Mapping[str, str]]]] = None,
        engine: str = "python",
        input: str = "pickle",
        output: str = "pickle",
        labels: Optional[Mapping[str, str]] = None,
        worker_class: Optional[str] = None,
        progress: Optional[bool] = None,
        idle_timeout: Union[float, str, None] = None,
        keep_alive: Union[float, str, None] = None,
        on_abandon: Optional[str] = None,
        budget: Optional[Mapping[str, Any]] = None,
    ) -> None:
        if by not in ("cloudpickle", "name"):
            raise ValueError(f"by is {by!r}; functions travel by 'cloudpickle' or by 'name'")
        self.server = server if isinstance(server, Server) else Server(server, token, ca=ca)
        self._by, self._input, self._output, self._progress = by, input, output, progress
        self._options: Dict[str, Any] = {
            "engine": engine, "input": input, "output": output, "worker_class": worker_class, "priority": priority, "retries": retries,
            "timeout": timeout, "memory": memory, "env": env, "parameters": parameters, "packages": packages, "labels": labels,
            "idle_timeout": idle_timeout, "keep_alive": keep_alive, "on_abandon": on_abandon, "budget": budget,
        }  # fmt: skip
        if name is not None:
            self._options["name"] = name
        for word in (input, output):
            if word not in FORMATS:
                raise ValueError(f"{word!r} is no format; there are {', '.join(FORMATS)}")
        self._setup = None if setup is None else pack_function(setup, by)
        self._data = self._encode_data(data)
        self._decode = decoder(output)
        self._loads = self._decode if output == "pickle" else None
        self._lock = threading.RLock()
        self._channels: "OrderedDict[Any, Channel]" = OrderedDict()
        self._shut = False
        #: Calls that wait here for values of other sessions.
        self._later = 0
        self._quiet = threading.Condition(self._lock)
        _grids.add(self)

    def _encode_data(self, data: Any) -> Optional[bytes]:
        if data is _NOTHING:
            return None
        if self._input != "pickle":
            return encode(self._input, data)
        return dumps(((data,), {})) if self._setup is not None else dumps(data)

    def __repr__(self) -> str:
        return f"<tidemill.Grid at {self.server.url}>"

    # Sessions behind it.

    def _pack(self, fn: Function) -> Packed:
        if self._shut:
            raise RuntimeError("cannot schedule new futures after shutdown")
        # By value each time: what a function refers to may have changed since, and an old value would be wrong without a word.
        return pack_function(fn, self._by)

    def _channel(self, packed: Packed, with_state: bool = True) -> Channel:
        key = (*packed.key, with_state)
        with self._lock:
            channel = self._channels.get(key)
            if channel is not None and not channel.dead:
                self._channels.move_to_end(key)
                return channel
            state: Dict[str, Any] = {"setup": self._setup, "data": self._data} if with_state else {}
            session = Session.open(packed, server=self.server, client_token=uuid.uuid4().hex, **state, **self._options)
            channel = Channel(session, self._batch, key)
            self._channels[key] = channel
            self._tidy()
            return channel

    def _tidy(self) -> None:
        dead = [k for k, c in self._channels.items() if c.dead]
        for key in dead:
            self._channels.pop(key).close()
        for key, channel in list(self._channels.items())[:-1]:
            if len(self._channels) <= KEPT:
                return
            if channel.idle:
                del self._channels[key]
                channel.close()

    def _batch(self, channel: Channel, futures: List[Any]) -> Batch:
        return FutureBatch(channel, futures, self._decode, self._loads)

    # The executor.

    def submit(self, fn: Function, /, *args: Any, **kwargs: Any) -> Future:
        """Runs ``fn(*args, **kwargs)``, after the set-up state if there is one. Futures of this grid may be among the arguments, however
        deep; the call runs when they are done, with their values in their places."""
        return self._submit(fn, args, kwargs, True)

    def _submit(self, fn: Function, args: Tuple[Any, ...], kwargs: Dict[str, Any], with_state: bool) -> Future:
        packed = self._pack(fn)
        if self._input != "pickle":
            if len(args) != 1 or kwargs:
                raise TypeError(f"with input={self._input!r} a function takes one argument")
            return self._enqueue(packed, with_state, encode(self._input, args[0]))
        try:
            payload = dumps_call(args, kwargs)
        except Exception:
            found = _futures_in(args, kwargs)
            if not found:
                raise
            return self._submit_needy(packed, args, kwargs, with_state, found)
        return self._enqueue(packed, with_state, payload)

    def _enqueue(self, packed: Packed, with_state: bool, payload: bytes, future: Optional[Future] = None) -> Future:
        future = future or Future()
        future.payload = payload
        self._taken(packed, with_state, lambda channel: self._queue(channel, future))
        return future

    def _taken(self, packed: Packed, with_state: bool, take: Callable[[Channel], bool]) -> Channel:
        """The session's channel that took it. One may end before it takes anything; the next is tried then."""
        while True:
            channel = self._channel(packed, with_state)
            if take(channel):
                return channel
            if channel.error is not None:
                # Its results could not be read. Another session would not fare better, and they would be opened without end.
                raise channel.ended()

    @staticmethod
    def _queue(channel: Channel, future: Future) -> bool:
        with channel.lock:
            if channel.dead:
                return False
            if future.cancelled():
                return True
            future._channel, future._counted = channel, True
            channel.wanted += 1
        channel.put(future)
        return True

    def _submit_needy(self, packed: Packed, args: Any, kwargs: Any, with_state: bool, found: List[Future]) -> Future:
        """A call that needs results: in the session that has them, if need be with a function of its own."""
        home = self._home(packed, with_state, found)
        if home is None:
            return self._submit_later(packed, args, kwargs, with_state, found)
        channel, needs = home
        away = [f for f in found if f not in needs]
        if any(not f.done() for f in away):
            return self._submit_later(packed, args, kwargs, with_state, found)
        if channel.key != (*packed.key, with_state):
            args = (Call(packed.pickled(), with_state and channel.key[-1]), *args)
        future = Future()
        future.needs = needs
        index = {id(f): i for i, f in enumerate(needs)}
        future.payload = _dumps_needy(args, kwargs, lambda obj: index.get(id(obj)))
        if not self._queue(channel, future):
            return self._submit_later(packed, args, kwargs, with_state, found)
        return future

    def _home(self, packed: Packed, with_state: bool, found: List[Future]) -> Optional[Tuple[Channel, List[Future]]]:
        if self._output != "pickle":
            return None
        by_channel: Dict[int, Tuple[Channel, List[Future]]] = {}
        for future in found:
            channel = future._channel
            if channel is None or channel.dead or future.cancelled():
                continue
            if with_state and not channel.key[-1] and self._setup is not None:
                # That session's engines do not have the state.
                continue
            with self._lock:
                own = self._channels.get(channel.key) is channel
            if own:
                by_channel.setdefault(id(channel), (channel, []))[1].append(future)
        if not by_channel:
            return None
        key = (*packed.key, with_state)
        return max(by_channel.values(), key=lambda home: (len(home[1]), home[0].key == key))

    def _submit_later(self, packed: Packed, args: Any, kwargs: Any, with_state: bool, found: List[Future]) -> Future:
        """When all that it needs is done: with the values."""
        future = Future()
        left = [len(found)]
        lock = threading.Lock()
        with self._lock:
            self._later += 1

        def done(_: Any) -> None:
            with lock:
                left[0] -= 1
                if left[0]:
                    return
            try:
                if not future.cancelled():
                    self._enqueue(packed, with_state, _dumps_values(args, kwargs), future)
            except concurrent.futures.CancelledError:
                future._resolve(None, TaskFailed("dependency", "a task whose result it needs was cancelled"))
            except Exception as e:
                future._resolve(None, e)
            finally:
                with self._lock:
                    self._later -= 1
                    self._quiet.notify_all()

        for needed in found:
            needed.add_done_callback(done)
        return future

    def map(
        self,
        fn: Function,
        *iterables: Iterable[Any],
        timeout: Optional[float] = None,
        chunksize: int = 1,
        ordered: bool = True,
        return_exceptions: bool = False,
        progress: Optional[bool] = None,
        buffersize: Optional[int] = None,
    ) -> Results:
        """Runs ``fn`` over the iterables in parallel, as ``map`` does one by one, and gives the results in order, or with
        ``ordered=False`` as they come. A task that fails raises what it raised; with ``return_exceptions`` that is its result.

        Any number of tasks: they are submitted as far ahead of the consumer as memory allows. ``chunksize`` is ignored, since the grid
        bundles tasks by itself.
        """
        if not iterables:
            raise TypeError("map needs at least one iterable")
        if self._input != "pickle" and len(iterables) != 1:
            raise TypeError(f"with input={self._input!r} a function takes one argument, so map takes one iterable")
        packed = self._pack(fn)
        channel = self._taken(packed, True, lambda channel: channel.want())
        total = _length(iterables)
        run = Run(channel, ordered)
        calls, pack = self._calls(iterables)
        threading.Thread(target=feed, args=(run, calls, pack, total), name=f"tidemill-feed-{channel.session.id}", daemon=True).start()
        shown = self._progress if progress is None else progress
        return Results(run, self._decode, self._loads, total, timeout, return_exceptions, shown, packed.label)

    def _calls(self, iterables: Sequence[Iterable[Any]]) -> Tuple[Iterator[Any], Callable[[List[Any]], List[bytes]]]:
        if self._input == "pickle":
            none: Dict[str, Any] = {}
            return ((args, none) for args in zip(*iterables)), dumps_calls
        format = self._input
        return iter(iterables[0]), lambda values: [encode(format, value) for value in values]

    def map_frame(self, fn: Function, rows: Any, **options: Any) -> Any:
        """:meth:`map` over the rows of a ``pandas.DataFrame``, each as a dictionary, or over any iterable. The results come as a frame, with
        the index of the one that was given. ``options`` are those of :meth:`map`."""
        from ._tables import to_pandas

        if hasattr(rows, "to_dict") and hasattr(rows, "index"):
            return to_pandas(list(self.map(fn, rows.to_dict("records"), **options)), rows.index)
        return to_pandas(list(self.map(fn, rows, **options)))

    def reduce(self, fn: Function, items: Iterable[Any], *, fan_in: int = 16) -> Future:
        """A tree: ``fn`` gets lists of at most ``fan_in`` of the items (futures of this grid, or values), then lists of its own results,
        until one is left. Like ``sum``, it must not mind how it is grouped. It is not given the set-up state. Results of futures stay
        on the grid."""
        if fan_in < 2:
            raise ValueError(f"fan_in is {fan_in}; use 2 or more")
        level = list(items)
        if not level:
            raise ValueError("reduce needs at least one item")
        while True:
            level = [self._submit(fn, (level[at : at + fan_in],), {}, False) for at in range(0, len(level), fan_in)]
            if len(level) == 1:
                return level[0]  # type: ignore[no-any-return]

    @staticmethod
    def as_completed(futures: Iterable[Future], timeout: Optional[float] = None) -> Iterator[Future]:
        """Futures in the order in which they are done."""
        return concurrent.futures.as_completed(futures, timeout)  # type: ignore[return-value]

    def sessions(self, state: Optional[str] = None, user: Optional[str] = None) -> Iterator[Dict[str, Any]]:
        """The server's sessions, newest first, whoever opened them."""
        return list_sessions(self.server, state, user)

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Takes no more. Waits for what is under way, or with ``cancel_futures`` stops it. Its sessions end."""
        with self._lock:
            self._shut = True
            channels = list(self._channels.values())
        for channel in channels:
            channel.draining = True
            if cancel_futures and not channel.idle:
                channel.cancel()
        if wait or cancel_futures:
            self._end()
        else:
            threading.Thread(target=self._end, name="tidemill-end", daemon=True).start()

    def _end(self) -> None:
        """Waits until everything has come, and ends the sessions."""
        while True:
            with self._lock:
                channels = list(self._channels.values())
                if not self._later and all(c.idle for c in channels):
                    self._channels.clear()
                    break
                if all(c.idle for c in channels):
                    self._quiet.wait(0.5)
            for channel in channels:
                channel.draining = True
                channel.wait_idle()
        for channel in channels:
            channel.close()
        for channel in channels:
            channel.join()
            channel.session.stop()
        self.server.close()

    def __exit__(self, kind: Any, value: Any, trace: Optional[types.TracebackType]) -> None:
        # Whoever leaves by an error, or by Ctrl-C, does not want to wait for the rest.
        self.shutdown(wait=True, cancel_futures=kind is not None)


def _length(iterables: Sequence[Iterable[Any]]) -> Optional[int]:
    try:
        return min(len(i) for i in iterables)  # type: ignore[arg-type]
    except TypeError:
        return None


def _futures_in(args: Any, kwargs: Any) -> List[Future]:
    """The futures in the arguments, each once, in the order in which they are met."""
    found: Dict[int, Future] = {}

    def look(obj: Any) -> Optional[int]:
        if isinstance(obj, Future):
            found.setdefault(id(obj), obj)
            return 0
        return None

    dumps_task(args, kwargs, look)
    return list(found.values())


def _dumps_values(args: Any, kwargs: Any) -> bytes:
    """A call with the values of its futures, which are done. Raises what the first of them that failed has raised."""
    _by_value.on = True
    try:
        return dumps_call(args, kwargs)
    finally:
        _by_value.on = False


def _dumps_needy(args: Any, kwargs: Any, index_of: Callable[[Any], Optional[int]]) -> bytes:
    _by_value.on = True
    try:
        data = dumps_task(args, kwargs, index_of)
        if b"__main__" in data:
            try:
                return _cloudpickled((tuple(args), dict(kwargs)), index_of)
            except ImportError:
                pass
        return data
    finally:
        _by_value.on = False


@atexit.register
def _at_exit() -> None:
    """Sessions of grids that nobody has shut down are closed: what they have is run, and they end."""
    for grid in list(_grids):
        for channel in list(grid._channels.values()):
            channel.close()
            channel.join(5)


