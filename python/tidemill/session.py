"""The level below :class:`~tidemill.Grid`: one session, bytes in and results out, a cursor that any process can go on from."""

from __future__ import annotations

import base64
import http.client
import time
import uuid
from typing import Any, Dict, Iterable, Iterator, List, Mapping, Optional, Sequence, Tuple, Union

from . import _wire as wire
from ._functions import FORMATS, Function, Packed, decoder, pack_function
from ._http import Server, answer, hang_up
from .errors import Failure

#: The server follows a session at most this long in one call, seconds.
FOLLOW = 300
#: The server speaks at least every few seconds; a connection that is silent for so long is dead.
SILENCE = 30.0
#: Tasks that are remembered as given ahead of their deliveries.
GIVEN = 4_096
#: Runs of tasks in one call.
CANCELLED_AT_ONCE = 20_000
FINAL = frozenset(("succeeded", "failed", "cancelled"))


def _seconds(value: float) -> str:
    return f"{max(1, round(value * 1000))}ms"


def describe(
    name: Optional[str] = None,
    engine: str = "python",
    input: str = "pickle",
    output: str = "pickle",
    worker_class: Optional[str] = None,
    priority: int = 0,
    retries: int = 0,
    timeout: Optional[float] = None,
    memory: Union[int, str, None] = None,
    env: Optional[Mapping[str, str]] = None,
    parameters: Optional[Mapping[str, str]] = None,
    packages: Optional[Sequence[Union[str, Mapping[str, str]]]] = None,
    labels: Optional[Mapping[str, str]] = None,
    idle_timeout: Union[float, str, None] = None,
    keep_alive: Union[float, str, None] = None,
    on_abandon: Optional[str] = None,
    budget: Optional[Mapping[str, Any]] = None,
) -> Dict[str, Any]:
    """A session's description from the options that :class:`~tidemill.Grid` and :meth:`Session.open` share."""
    for what, word in (("input", input), ("output", output)):
        if word not in FORMATS:
            raise ValueError(f"{what} is {word!r}; there are {', '.join(FORMATS)}")
    out: Dict[str, Any] = {"engine": engine, "input": input, "output": output, "priority": priority, "retry": {"attempts": retries + 1}}
    if name:
        out["name"] = name
    if worker_class is not None:
        out["class"] = worker_class
    if timeout is not None:
        out["timeout"] = _seconds(timeout)
    if memory is not None:
        out["memory"] = _bytes(memory)
    for key, mapping in (("env", env), ("parameters", parameters), ("labels", labels)):
        if mapping:
            out[key] = {str(k): str(v) for k, v in mapping.items()}
    for key, span in (("idle_timeout", idle_timeout), ("keep_alive", keep_alive)):
        if span is not None:
            out[key] = span
    if on_abandon is not None:
        out["on_abandon"] = on_abandon
    if budget:
        out["budget"] = dict(budget)
    if packages:
        out["packages"] = [p if isinstance(p, str) else dict(p) for p in packages]
    return out


def _bytes(value: Union[int, str]) -> int:
    if isinstance(value, int):
        return value
    word = value.strip()
    for unit, factor in (("KiB", 1 << 10), ("MiB", 1 << 20), ("GiB", 1 << 30), ("KB", 10**3), ("MB", 10**6), ("GB", 10**9), ("B", 1)):
        if word.endswith(unit):
            return int(float(word[: -len(unit)]) * factor)
    return int(word)


class Session:
    """A session on the server. It outlives this object and this process: :meth:`attach` finds it again by its id."""

    def __init__(self, server: Server, id: str, input: str = "pickle", output: str = "pickle") -> None:
        self.server, self.id = server, id
        #: How payloads and results are encoded.
        self.input, self.output = input, output
        #: The number of the last delivery that :meth:`deliveries` has given: where another process goes on.
        self.cursor = 0
        self.state = ""
        self._following: Optional[http.client.HTTPConnection] = None
        self._stopped = False

    def __repr__(self) -> str:
        return f"<tidemill.Session {self.id}>"

    @classmethod
    def open(
        cls,
        function: Union[Function, Packed],
        *,
        setup: Union[Function, Packed, None] = None,
        data: Optional[bytes] = None,
        server: Optional[Server] = None,
        client_token: Optional[str] = None,
        **options: Any,
    ) -> "Session":
        """Opens a session: ``function`` runs a task, ``setup`` makes what engines keep warm, from ``data`` (bytes, as the engine takes
        them). ``options`` are those of :class:`~tidemill.Grid`: ``name``, ``engine``, ``input``, ``output``, ``priority``, and so on.
        """
        server = server or Server()
        packed = function if isinstance(function, Packed) else pack_function(function)
        options.setdefault("name", packed.label[:200])
        spec = describe(**options)
        spec["function"] = packed.spec()
        request: Dict[str, Any] = {"session": spec, "client_token": client_token or uuid.uuid4().hex}
        if packed.data is not None:
            request["function"] = packed.base64()
        if setup is not None:
            made = setup if isinstance(setup, Packed) else pack_function(setup)
            spec["setup_function"] = made.spec()
            if made.data is not None:
                request["setup_function"] = made.base64()
        if data is not None:
            request["setup"] = base64.b64encode(data).decode()
        said = server.call_json("POST", "/grid/sessions", request)
        return cls(server, said["id"], spec["input"], spec["output"])

    @classmethod
    def attach(cls, id: str, *, server: Optional[Server] = None, input: str = "pickle", output: str = "pickle") -> "Session":
        """A session that some process has opened. :class:`ApiError` if there is none of this id."""
        session = cls(server or Server(), id, input, output)
        session.state = session.status()["state"]
        return session

    def _path(self, below: str = "") -> str:
        return f"/grid/sessions/{self.id}{below}"

    def status(self) -> Dict[str, Any]:
        """State, counts of tasks, times and cost, as the server shows them."""
        return dict(self.server.call("GET", self._path()))

    def submit_packed(self, submission: bytes, client_token: Optional[str] = None) -> Tuple[int, int]:
        """Sends a submission as it is (see the reference). Returns the first task's number, and how many there are."""
        query = {"client_token": client_token or uuid.uuid4().hex}
        said = self.server.call("POST", self._path("/tasks"), query, submission, give_up=lambda: self._stopped)
        return int(said["first"]), int(said["count"])

    def submit_many(self, payloads: Iterable[bytes], dependencies: Optional[Iterable[Sequence[int]]] = None) -> List[range]:
        """Submits tasks with these payloads, in parts as large as is good. Returns the numbers of their tasks, in order, as few ranges
        as they make. ``dependencies`` has for each task the numbers of those whose results it needs.
        """
        out: List[range] = []
        part: List[bytes] = []
        needs: List[Sequence[int]] = []
        size = 0
        needed = None if dependencies is None else iter(dependencies)

        def send() -> None:
            first, count = self.submit_packed(wire.pack(part, needs if needed is not None else None))
            if out and out[-1].stop == first:
                out[-1] = range(out[-1].start, first + count)
            else:
                out.append(range(first, first + count))

        for payload in payloads:
            if part and (size + len(payload) > wire.SUBMISSION_BYTES or len(part) >= wire.SUBMISSION_TASKS):
                send()
                part, needs, size = [], [], 0
            part.append(payload)
            size += len(payload)
            if needed is not None:
                needs.append(next(needed))
        if part:
            send()
        return out

    def deliveries(self, after: Optional[int] = None, wait: bool = True, *, early: bool = False) -> Iterator[wire.Delivery]:
        """What comes after delivery ``after`` (0: all; ``None``: after :attr:`cursor`), in columns, in the server's order. Goes on where it
        was when the connection breaks. Ends with the session, or with ``wait=False`` when there is no more for now.

        ``early``: results of single calls come as soon as they are durable, under the number of the delivery before theirs, and not again
        with theirs. For a caller that keeps no cursor: whoever goes on from it later may get them twice.
        """
        if after is not None:
            self.cursor = after
        given: Dict[int, None] = {}
        while not self._stopped:
            ended = False
            for said in self.server.patiently(lambda: self._follow(wait, early), lambda: self._stopped):
                if isinstance(said, wire.End):
                    self.state = said.state
                    ended = True
                    break
                delivery = _without(said, given) if given else said
                if early and said.n == self.cursor:
                    given.update(dict.fromkeys(said.tasks))
                    while len(given) > GIVEN:
                        del given[next(iter(given))]
                self.cursor = said.n
                if delivery is not None:
                    yield delivery
            if ended or not wait:
                return

    def _follow(self, wait: bool, early: bool = False) -> Iterator[Union[wire.Delivery, wire.End]]:
        """One call. The generator ends when the connection does, well or badly; what came whole until then has been given."""
        connection = self.server.connect(timeout=SILENCE)
        query: Dict[str, Any] = {"after": self.cursor, "wait": FOLLOW if wait else 0}
        if early:
            query["early"] = "true"
        path = self.server.path(self._path("/results"), query)
        try:
            connection.request("GET", path, headers=self.server.headers())
            response = connection.getresponse()
            if response.status >= 300:
                answer(response.status, response.read())
        except BaseException:
            connection.close()
            raise
        return self._frames(connection, response)

    def _frames(self, connection: http.client.HTTPConnection, response: http.client.HTTPResponse) -> Iterator[Union[wire.Delivery, wire.End]]:
        self._following = connection
        reader, read = wire.FrameReader(), response.read1
        try:
            while not self._stopped:
                try:
                    data = read(1 << 18)
                except (OSError, http.client.HTTPException, ValueError, AttributeError):
                    # It broke, or `stop` has ended it under our hands. The next call says what is the matter.
                    time.sleep(0.02)
                    return
                if not data:
                    return
                for kind, body in reader.feed(data):
                    said = wire.read_frame(kind, body)
                    if said is not None:
                        yield said
        finally:
            self._following = None
            connection.close()

    def stop(self) -> None:
        """Ends :meth:`deliveries` in whatever thread it runs. The session goes on."""
        self._stopped = True
        following = self._following
        if following is not None:
            hang_up(following)

    def results(self, after: Optional[int] = None, wait: bool = True, errors: str = "return") -> Iterator[Tuple[int, Any]]:
        """Results as they come: ``(task, value)``. A task that failed gives its exception as the value, or raises it with
        ``errors="raise"``."""
        decode = decoder(self.output)
        loads = decode if self.output == "pickle" else None
        for delivery in self.deliveries(after, wait):
            for task, status, data in zip(delivery.tasks, delivery.statuses, delivery.values):
                if status == wire.OK:
                    yield task, decode(data)
                    continue
                error = Failure(data).exception(loads)
                if errors == "raise":
                    raise error
                yield task, error

    def close(self) -> None:
        """No more tasks will come: the session ends when those it has are done."""
        self._steer("/close")

    def cancel(self) -> None:
        """Stops what runs, drops what waits."""
        self._steer("/cancel")

    def pause(self) -> None:
        """Starts nothing more, until :meth:`resume`."""
        self._steer("/pause")

    def resume(self) -> None:
        """Goes on after :meth:`pause`."""
        self._steer("/resume")

    def set_priority(self, priority: int) -> None:
        """Higher goes first, -1000 to 1000."""
        self.server.call_json("PUT", self._path("/priority"), {"priority": priority})

    def cancel_tasks(self, tasks: Iterable[Union[int, range]], running: bool = False) -> Dict[str, int]:
        """Gives tasks up, by their numbers: what has not begun is not run; what runs goes on, or with ``running`` is stopped. It may be asked
        again. Returns how many are ``cancelled``, how many were ``asked`` of workers, which let go of them unless they have begun them,
        and how many had ``ended``."""
        runs = [{"first": t.start, "count": len(t)} if isinstance(t, range) else {"first": int(t), "count": 1} for t in tasks]
        out = {"cancelled": 0, "asked": 0, "ended": 0}
        for at in range(0, len(runs), CANCELLED_AT_ONCE):
            request = {"tasks": runs[at : at + CANCELLED_AT_ONCE], "running": running}
            said = self.server.call_json("POST", self._path("/tasks/cancel"), request)
            for key in out:
                out[key] += int(said.get(key, 0))
        return out

    def keep_alive(self) -> None:
        """Says that this client is there, for a session with a ``keep_alive``. Submitting and following results says so, too."""
        self._steer("/keep-alive")

    def retry(self, tasks: Optional[Iterable[int]] = None) -> int:
        """Runs again what has failed for good: all, or the tasks of these numbers. Returns how many that are."""
        request = {} if tasks is None else {"tasks": [{"stage": 0, "task": int(t)} for t in tasks]}
        return int(self.server.call_json("POST", self._path("/retry"), request).get("tasks", 0))

    def delete(self) -> None:
        """Takes the session with its tasks and results away. It must have ended."""
        self.server.call("DELETE", self._path())

    def _steer(self, what: str) -> None:
        self.server.call("POST", self._path(what))

    def wait(self, timeout: Optional[float] = None) -> str:
        """Waits for the session's end and returns its state. It must have been closed. ``TimeoutError``."""
        until = None if timeout is None else time.monotonic() + timeout
        pause = 0.01
        while True:
            state = str(self.status()["state"])
            if state in FINAL:
                self.state = state
                return state
            if until is not None and time.monotonic() > until:
                raise TimeoutError(f"session {self.id} is {state} after {timeout} seconds")
            time.sleep(pause)
            pause = min(pause * 1.5, 0.5)


def _without(delivery: wire.Delivery, given: Mapping[int, None]) -> Optional[wire.Delivery]:
    """The delivery without what was given before; ``None`` when nothing is left of it."""
    left = [at for at, task in enumerate(delivery.tasks) if task not in given]
    if len(left) == len(delivery):
        return delivery
    if not left:
        return None
    return wire.Delivery(
        delivery.n,
        [delivery.tasks[at] for at in left],
        bytes(delivery.statuses[at] for at in left),
        [delivery.run_us[at] for at in left],
        [delivery.values[at] for at in left],
    )


def list_sessions(server: Server, state: Optional[str] = None, user: Optional[str] = None) -> Iterator[Dict[str, Any]]:
    """Sessions of the server, newest first."""
    after: Optional[str] = None
    while True:
        page = server.call("GET", "/grid/sessions", {"state": state, "user": user, "after": after, "limit": 200})
        yield from page["sessions"]
        after = page.get("next")
        if not after:
            return


