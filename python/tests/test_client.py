"""The client against a server of its own, which breaks connections, answers late, and refuses."""

import concurrent.futures
import contextlib
import gc
import itertools
import os
import pickle
import random
import threading
import time
import unittest
from unittest import mock

from fake_server import FakeServer
from tidemill import ApiError, Grid, RemoteTraceback, Server, Session, TaskFailed, TidemillError
from tidemill import _functions as functions
from tidemill import _map
from tidemill import _wire as wire
from tidemill._progress import Progress

try:
    import cloudpickle
except ImportError:
    cloudpickle = None


def grid_of(server, **options):
    return Grid(server=Server(server.url, "secret", patience=10), **options)


class WireTests(unittest.TestCase):
    def test_a_submission_has_the_bytes_of_the_reference(self):
        packed = wire.pack([b"one", b"", b"three"], [[4], [], [wire.OWN, 7]])
        expected = (
            b"TMS1" + bytes([3, 0, 0, 0, 3, 0, 0, 0]) + bytes([3, 0, 0, 0, 0, 0, 0, 0, 5, 0, 0, 0])
            + bytes([1, 0, 0, 0, 0, 0, 0, 0, 2, 0, 0, 0]) + bytes([4, 0, 0, 0, 0, 0, 0, 0])
            + bytes([0, 0, 0, 0, 0, 0, 0, 0x80]) + bytes([7, 0, 0, 0, 0, 0, 0, 0]) + b"onethree"
        )  # fmt: skip
        self.assertEqual(packed, expected)
        self.assertEqual(wire.unpack(packed), ([b"one", b"", b"three"], [[4], [], [wire.OWN, 7]]))
        self.assertEqual(wire.pack([b"ab"], [[]]), b"TMS1" + bytes([1, 0, 0, 0, 0, 0, 0, 0, 2, 0, 0, 0]) + b"ab")

    def test_what_does_not_fit_is_refused_before_it_is_sent(self):
        for payloads, needs in (([], None), ([b"a", b"b"], [[1]]), ([b"a"], [[0] * 10_001])):
            with self.assertRaises(ValueError):
                wire.pack(payloads, needs)

    def test_frames_are_read_however_the_bytes_come(self):
        body = bytes([9, 0, 0, 0, 0, 0, 0, 0, 2, 0, 0, 0]) + bytes([5, 0, 0, 0, 0, 0, 0, 0, 6, 0, 0, 0, 0, 0, 0, 0]) + bytes([0, 1])
        body += bytes([1, 0, 0, 0, 2, 0, 0, 0]) + bytes([2, 0, 0, 0, 3, 0, 0, 0]) + b"okbad"
        stream = bytes([len(body) + 1, 0, 0, 0, 1]) + body + bytes([9, 0, 0, 0, 3]) + bytes(8)
        stream += bytes([18, 0, 0, 0, 2, 9, 0, 0, 0, 0, 0, 0, 0]) + b"succeeded"
        dice = random.Random(4)
        for _ in range(200):
            reader, said, at = wire.FrameReader(), [], 0
            while at < len(stream):
                step = dice.randint(1, 40)
                said += [wire.read_frame(*f) for f in reader.feed(stream[at : at + step])]
                at += step
            delivery, nothing, end = said
            self.assertIsNone(nothing)
            self.assertEqual((end.n, end.state), (9, "succeeded"))
            self.assertEqual((delivery.n, list(delivery.tasks), list(delivery.statuses)), (9, [5, 6], [0, 1]))
            self.assertEqual((list(delivery.run_us), delivery.values), ([1, 2], [b"ok", b"bad"]))
        with self.assertRaises(TidemillError):
            wire.read_frame(77, b"")


class FunctionTests(unittest.TestCase):
    def test_names_go_as_names_and_unpickle_without_being_imported_here(self):
        self.assertEqual(functions.pack_function("risk:price").spec(), {"module": "risk:price"})
        self.assertEqual(functions.pack_function(os.path.join, "name").name, "posixpath:join")
        self.assertIs(pickle.loads(functions.pack_function("os.path:join").pickled()), os.path.join)
        self.assertEqual(pickle.loads(functions.pack_function("collections:OrderedDict.fromkeys").pickled())("a"), {"a": None})
        with self.assertRaisesRegex(TidemillError, "cannot go by name"):
            functions.pack_function(lambda: 1, "name")

    def test_without_cloudpickle_the_error_says_what_to_install(self):
        with mock.patch.object(functions, "_cloudpickle", return_value=None):
            with self.assertRaisesRegex(TidemillError, "pip install cloudpickle"):
                functions.pack_function(lambda: 1)
            self.assertEqual(functions.pack_function(os.path.join).name, "posixpath:join")

    @unittest.skipIf(cloudpickle is None, "cloudpickle is not installed")
    def test_what_a_script_defines_travels_with_it(self):
        space = {"__name__": "__main__"}
        exec("class Trade:\n    def __init__(self, n): self.n = n", space)
        main = __import__("__main__")
        main.Trade = space["Trade"]
        try:
            (plain, odd) = functions.dumps_calls([((1,), {}), ((main.Trade(3),), {})])
        finally:
            del main.Trade
        self.assertEqual(pickle.loads(plain), ((1,), {}))
        self.assertEqual(pickle.loads(odd)[0][0].n, 3)


class ServerTests(unittest.TestCase):
    def test_the_environment_comes_before_the_data_folder(self):
        import tempfile
        from pathlib import Path

        with tempfile.TemporaryDirectory() as folder:
            with mock.patch.dict(os.environ, {"TIDEMILL_DATA": folder}, clear=True):
                with self.assertRaisesRegex(TidemillError, "tidemill serve --data"):
                    Server()
                Path(folder, "server.json").write_text('{"url":"http://127.0.0.1:7","pid":1}')
                with self.assertRaisesRegex(TidemillError, "admin-token"):
                    Server()
                Path(folder, "admin-token").write_text("tm_a\n")
                self.assertEqual(Server().headers()["Authorization"], "Bearer tm_a")
                os.environ.update(TIDEMILL_URL="http://c:3/below/", TIDEMILL_TOKEN="tm_c")
                server = Server()
                self.assertEqual((server.url, server.path("/x", {"a": 1, "b": None})), ("http://c:3/below/", "/below/api/v1/x?a=1"))
        with self.assertRaisesRegex(TidemillError, "no URL"):
            Server("localhost", "t")

    def test_refusals_say_what_the_server_said(self):
        with FakeServer() as server, contextlib.closing(Server(server.url, "wrong")) as wrong, self.assertRaises(ApiError) as caught:
            Session.open("math:sqrt", server=wrong)
        self.assertEqual((caught.exception.status, caught.exception.kind), (401, "denied"))
        self.assertEqual(str(caught.exception), "no such token (bring one)")

    def test_nobody_there_is_an_error_once_patience_is_over(self):
        started = time.monotonic()
        with self.assertRaisesRegex(ApiError, "no answer from http://127.0.0.1:9"):
            Session.open("math:sqrt", server=Server("http://127.0.0.1:9", "t", patience=0.3))
        self.assertLess(time.monotonic() - started, 5)


class SessionTests(unittest.TestCase):
    def test_bytes_go_in_and_results_come_out_after_any_cursor(self):
        with FakeServer() as server:
            at = Server(server.url, "secret")
            self.addCleanup(at.close)
            session = Session.open("builtins:bytes.upper", server=at, input="bytes", output="bytes")
            self.assertEqual(session.submit_many(b"x%d" % i for i in range(2500)), [range(2500)])
            session.submit_many([b"last"])
            other = Session.attach(session.id, server=at, output="bytes")
            first = next(iter(other.deliveries(0, wait=False)))
            self.assertEqual((first.n, len(first), first.values[0]), (1, 1000, b"X0"))
            self.assertEqual(len(list(other.results(first.n, wait=False))), 1501)
            session.close()
            self.assertEqual(session.wait(5), "succeeded")
            rest = list(other.results(other.cursor - 1))
            self.assertEqual((rest, other.state), ([(2500, b"LAST")], "succeeded"))

    def test_what_was_given_ahead_of_its_delivery_is_not_given_again(self):
        def said(n, *tasks):
            return wire.Delivery(n, list(tasks), bytes(len(tasks)), [1] * len(tasks), [b"%d" % t for t in tasks])

        connections = [
            # Tasks 7 and 8 ahead of deliveries 5 and 6; then the connection breaks after the cursor has gone on to 5.
            [said(4, 1), said(4, 7), said(4, 8), said(5, 2)],
            [said(6, 8, 9), said(7, 7), wire.End(7, "succeeded")],
        ]
        with FakeServer() as server:
            at = Server(server.url, "secret")
            self.addCleanup(at.close)
            session = Session.open("builtins:bytes.upper", server=at, input="bytes", output="bytes")
            asked = []

            def follow(wait, early):
                asked.append((session.cursor, early))
                return iter(connections.pop(0))

            with mock.patch.object(session, "_follow", follow):
                given = [(d.n, list(d.tasks), d.values) for d in session.deliveries(3, early=True)]
        self.assertEqual([(n, tasks) for n, tasks, _ in given], [(4, [1]), (4, [7]), (4, [8]), (5, [2]), (6, [9])])
        self.assertEqual(given[-1][2], [b"9"])
        self.assertEqual((asked, session.cursor, session.state), ([(3, True), (5, True)], 7, "succeeded"))

    def test_a_session_in_json(self):
        with FakeServer() as server, grid_of(server, input="json", output="json") as grid:
            self.assertEqual(list(grid.map("builtins:sorted", [[3, 1], "ba"])), [[1, 3], ["a", "b"]])
            with self.assertRaisesRegex(TypeError, "one argument"):
                grid.submit("builtins:sorted", 1, 2)


@unittest.skipIf(cloudpickle is None, "cloudpickle is not installed")
class GridTests(unittest.TestCase):
    def test_it_is_an_executor(self):
        with FakeServer() as server, grid_of(server) as grid:
            self.assertIsInstance(grid, concurrent.futures.Executor)
            futures = [grid.submit(pow, i, 2) for i in range(200)]
            self.assertEqual([f.result(5) for f in futures], [i * i for i in range(200)])
            self.assertEqual(len({f.session for f in futures}), 1)
            self.assertEqual([f.task for f in futures], list(range(200)))
            self.assertEqual(set(grid.as_completed(futures, 5)), set(futures))
            self.assertEqual(concurrent.futures.wait(futures, 5).not_done, set())
            sent = [path for path, _ in server.calls if path.endswith("/tasks")]
            self.assertLess(len(sent), 150, "small submits go together")
        with self.assertRaises(RuntimeError):
            grid.submit(pow, 1, 2)

    def test_when_results_cannot_be_read_every_task_says_why(self):
        with FakeServer() as server, grid_of(server) as grid:
            with mock.patch.object(Session, "_follow", side_effect=TidemillError("the results are out of reach")):
                for call in (lambda: grid.submit(abs, 1).result(30), lambda: list(grid.map(abs, range(10)))):
                    with self.assertRaisesRegex(TidemillError, "the results are out of reach"):
                        call()
            self.assertLessEqual(len([path for path, _ in server.calls if path.endswith("/sessions")]), 2)

    def test_a_map_is_in_order_whatever_its_size(self):
        with FakeServer() as server, grid_of(server) as grid:
            for n in (0, 1, 499, 500, 501, 7_000, 30_000):
                self.assertEqual(list(grid.map(abs, range(n))), list(range(n)))
            self.assertEqual(list(grid.map(lambda a, b: a - b, iter(range(5)), range(9))), [0] * 5)
            self.assertEqual(sorted(grid.map(abs, range(3000), ordered=False)), list(range(3000)))
            self.assertLessEqual(len(server.sessions), 2)

    def test_a_map_stays_near_its_consumer(self):
        taken = []

        def source():
            for i in range(1_000_000):
                taken.append(i)
                yield i

        with mock.patch.object(_map, "AHEAD_TASKS", 1000), FakeServer() as server, grid_of(server) as grid:
            results = grid.map(abs, source())
            self.assertEqual([next(results) for _ in range(10)], list(range(10)))
            time.sleep(0.3)
            self.assertLess(len(taken), 3000)
            results.close()
            time.sleep(0.1)
            before = len(taken)
            time.sleep(0.1)
            self.assertEqual(len(taken), before)

    def test_large_results_keep_a_map_nearer(self):
        with mock.patch.object(_map, "AHEAD_BYTES", 1 << 20), mock.patch.object(_map, "AHEAD_UNKNOWN", 50):
            with FakeServer() as server, grid_of(server) as grid:
                results = grid.map(bytes, itertools.repeat(100_000))
                next(results)
                time.sleep(0.3)
                self.assertLess(results._run.fed, 120)
                results.close()

    def test_letting_go_of_a_map_stops_it(self):
        with mock.patch.object(_map, "AHEAD_TASKS", 1000), FakeServer() as server, grid_of(server) as grid:
            results = grid.map(abs, iter(int, 1))
            next(results)
            run = results._run
            del results
            gc.collect()
            deadline = time.monotonic() + 5
            while not run.fed_all and time.monotonic() < deadline:
                time.sleep(0.01)
            self.assertTrue(run.abandoned and run.fed_all)

    def test_errors_come_back_as_what_they_were(self):
        with FakeServer() as server, grid_of(server) as grid:
            with self.assertRaises(ZeroDivisionError) as caught:
                grid.submit(lambda: 1 / 0).result(5)
            self.assertIsInstance(caught.exception.__cause__, RemoteTraceback)
            self.assertIn("remote lines", str(caught.exception.__cause__))
            results = grid.map(lambda x: 1 / x, [1, 0, 2])
            self.assertEqual(next(results), 1)
            with self.assertRaises(ZeroDivisionError):
                next(results)
            one, error, two = grid.map(lambda x: 1 / x, [1, 0, 2], return_exceptions=True)
            self.assertEqual((one, type(error), two), (1, ZeroDivisionError, 0.5))

            def source():
                yield 1
                raise OSError("the file ended")

            results = grid.map(abs, source())
            self.assertEqual(next(results), 1)
            with self.assertRaisesRegex(OSError, "the file ended"):
                next(results)

    def test_state_is_made_once_and_given_first(self):
        made = "import itertools\ncount = itertools.count()\n"
        with FakeServer() as server, grid_of(server, setup=lambda data: [data, made], data={"rate": 2}) as grid:
            self.assertEqual(list(grid.map(lambda state, x: state[0]["rate"] * x, [1, 2])), [2, 4])
            self.assertEqual(grid.reduce(sum, [grid.submit(lambda state, x: x, i) for i in range(20)], fan_in=3).result(5), 190)
            later = grid.submit(lambda state, a: state[0]["rate"] + a, grid.submit(lambda state: 5))
            self.assertEqual(later.result(5), 7)
        with FakeServer() as server, grid_of(server, data=10) as grid:
            self.assertEqual(grid.submit(lambda state, x: state + x, 1).result(5), 11)

    def test_futures_as_arguments_stay_on_the_grid(self):
        with FakeServer() as server, grid_of(server) as grid:
            big = grid.submit(lambda: b"x" * 100_000)
            big.result(5)
            before = len(server.calls)
            self.assertEqual(grid.submit(len, big).result(5), 100_000)
            self.assertEqual(grid.submit(lambda d: len(d["deep"][0]), {"deep": [big]}).result(5), 100_000)
            self.assertLess(sum(size for _, size in server.calls[before:]), 5_000)
            self.assertEqual(len(server.sessions), 1)
            # Of two sessions: one's value travels.
            three = grid.submit(abs, -3)
            self.assertEqual(grid.submit(lambda a, b: len(a) + b, big, three).result(5), 100_003)
            tree = grid.reduce(sum, (grid.submit(pow, i, 2) for i in range(100)), fan_in=4)
            self.assertEqual(tree.result(5), sum(i * i for i in range(100)))
            self.assertEqual(grid.reduce(max, range(50), fan_in=7).result(5), 49)
            with self.assertRaises(Exception) as caught:
                list(grid.map(abs, [three]))
            self.assertIn("tidemill.Future", str(caught.exception))

    def test_what_depends_on_what_was_given_up_is_told(self):
        with FakeServer() as server, grid_of(server) as grid:
            channel = grid._channel(grid._pack(abs))
            with mock.patch.object(channel, "put", side_effect=lambda item: None):
                first = grid.submit(abs, -1)
                second = grid.submit(abs, first)
            self.assertTrue(first.cancel())
            self.assertTrue(first.cancelled() and first.cancel())
            channel.put(first)
            channel.put(second)
            with self.assertRaisesRegex(TaskFailed, "cancelled"):
                second.result(5)

    def test_a_call_that_waits_for_another_session_is_waited_for_and_hears_of_its_failure(self):
        with FakeServer() as server:
            with grid_of(server) as grid:
                grid.submit(abs, -1).result(5)
                gate = threading.Event()
                session = server.sessions["s0"]
                run = session.run
                with mock.patch.object(session, "run", side_effect=lambda *a: (gate.wait(5), run(*a))):
                    slow = grid.submit(abs, -7)
                    later = grid.submit(lambda a, b, c: a + b + c, slow, grid.submit(pow, 2, 3), grid.submit(pow, 3, 2))
                    broken = grid.submit(lambda a, b: a, slow, grid.submit(lambda: 1 / 0))
                    self.assertFalse(later.done())
                    gate.set()
            self.assertEqual(later.result(0), 24)
            self.assertIsInstance(broken.exception(0), (ZeroDivisionError, TaskFailed))

    def test_answers_may_come_in_another_order_than_submissions_were_taken(self):
        with FakeServer() as server, grid_of(server) as grid:
            grid.submit(abs, -1).result(5)
            session = grid._channel(grid._pack(abs)).session
            plain, second_is_back, calls = session.submit_packed, threading.Event(), itertools.count()

            def late(submission):
                number, said = next(calls), plain(submission)
                if number == 0:
                    second_is_back.wait(5)
                    time.sleep(0.2)
                else:
                    second_is_back.set()
                return said

            with mock.patch.object(session, "submit_packed", late):
                first = grid.map(abs, [-1, -2, -3], timeout=10)
                deadline = time.monotonic() + 5
                while len(server.sessions["s0"].tasks) < 4 and time.monotonic() < deadline:
                    time.sleep(0.01)
                self.assertEqual(list(grid.map(abs, [-4, -5], timeout=5)), [4, 5])
                self.assertEqual(list(first), [1, 2, 3])

    def test_what_breaks_on_the_way_is_made_good(self):
        for name, times in (("unavailable", 4), ("before", 3), ("after", 5), ("cut", 6)):
            with self.subTest(name), FakeServer() as server, grid_of(server) as grid:
                server.faults[name] = times
                self.assertEqual(list(grid.map(abs, range(20_000))), list(range(20_000)))
                self.assertEqual(server.faults[name], 0, "it did break")
                self.assertEqual(sum(len(s.tasks) for s in server.sessions.values()), 20_000, "and nothing ran twice")
                self.assertEqual(grid.submit(abs, -4).result(5), 4)

    def test_a_session_that_is_taken_away_fails_what_it_has_and_another_is_opened(self):
        with FakeServer() as server, grid_of(server) as grid:
            self.assertEqual(grid.submit(abs, -1).result(5), 1)
            session = server.sessions["s0"]
            with mock.patch.object(session, "run"):
                waiting = grid.submit(abs, -2)
                deadline = time.monotonic() + 5
                while waiting.task is None and time.monotonic() < deadline:
                    time.sleep(0.01)
            session.end("cancelled")
            with self.assertRaisesRegex(TaskFailed, "session s0 is cancelled"):
                waiting.result(5)
            self.assertEqual(grid.submit(abs, -3).result(5), 3)
            self.assertEqual(len(server.sessions), 2)

    def test_a_grid_whose_session_has_ended_by_itself_can_be_left(self):
        with FakeServer() as server:
            with grid_of(server) as grid:
                self.assertEqual(grid.submit(abs, -1).result(5), 1)
                channel = grid._channel(grid._pack(abs))
                server.sessions["s0"].end("failed")
                self.until(lambda: channel.over)
            channel.join(5)
            self.assertFalse(channel._sender.is_alive())

    def held(self, grid, server, count):
        """Futures whose tasks the server has taken and does not run."""
        self.assertEqual(grid.submit(abs, -1).result(5), 1)
        session = server.sessions["s0"]
        with mock.patch.object(session, "run"):
            futures = [grid.submit(abs, -2) for _ in range(count)]
            self.until(lambda: all(f.task is not None for f in futures))
        return session, futures

    def until(self, done):
        deadline = time.monotonic() + 5
        while not done() and time.monotonic() < deadline:
            time.sleep(0.01)
        self.assertTrue(done())

    def test_a_future_that_is_cancelled_reaches_the_server_and_the_session_goes_on(self):
        with FakeServer() as server, grid_of(server) as grid:
            session, futures = self.held(grid, server, 3)
            self.assertTrue(futures[0].cancel())
            self.until(lambda: len(session.cancels) == 1)
            self.assertEqual(session.cancels, [([{"first": futures[0].task, "count": 1}], False)])
            self.assertTrue(futures[1].cancel(running=True) and futures[0].cancel(running=True))
            self.until(lambda: sum(len(ranges) for ranges, _ in session.cancels) == 3)
            self.assertTrue(all(running for _, running in session.cancels[1:]))
            # The last one: nobody wants anything of the session, so that what runs is stopped as well.
            self.assertTrue(futures[2].cancel())
            self.until(lambda: session.cancels[-1][1] and session.cancels[-1][0][-1]["count"] == 3)
            self.assertEqual(concurrent.futures.wait(futures, 5).not_done, set())
            self.assertEqual(grid.submit(abs, -4).result(5), 4)
            self.assertEqual((session.state, len(server.sessions)), ("running", 1))

    def test_what_somebody_else_cancels_is_told(self):
        with FakeServer() as server, grid_of(server) as grid:
            session, (future,) = self.held(grid, server, 1)
            said = Session.attach("s0", server=grid.server).cancel_tasks([future.task, range(0, 1)])
            self.assertEqual(said, {"cancelled": 1, "asked": 0, "ended": 0})
            with self.assertRaisesRegex(TaskFailed, "cancelled: it was cancelled"):
                future.result(5)

    def test_a_map_that_is_let_go_of_is_cancelled_and_others_of_its_session_go_on(self):
        with FakeServer() as server, grid_of(server) as grid:
            session, (other,) = self.held(grid, server, 1)
            with mock.patch.object(session, "run"):
                results = grid.map(abs, range(1_000))
                self.until(lambda: len(session.tasks) == 1_002)
                results.close()
            self.until(lambda: sum(r["count"] for ranges, _ in session.cancels for r in ranges) == 1_000)
            self.assertFalse(other.done())
            session.deliver([other.task], [0], [pickle.dumps(2)])
            self.assertEqual(other.result(5), 2)

    def test_an_error_in_the_block_does_not_wait_for_the_rest(self):
        with FakeServer() as server:
            with self.assertRaises(KeyboardInterrupt), grid_of(server) as grid:
                grid.submit(abs, -1).result(5)
                with mock.patch.object(server.sessions["s0"], "run"):
                    left = grid.submit(abs, -2)
                    raise KeyboardInterrupt
            self.assertTrue(left.cancelled())

    def test_a_time_limit_ends_a_map(self):
        with FakeServer() as server, grid_of(server) as grid:
            grid.submit(abs, -1).result(5)
            with mock.patch.object(server.sessions["s0"], "run"), self.assertRaises(concurrent.futures.TimeoutError):
                list(grid.map(abs, [1, 2], timeout=0.2))


class ProgressTests(unittest.TestCase):
    def test_the_line_says_how_far_how_fast_and_how_long(self):
        line = Progress(1000, "price", True)
        line._began -= 10
        said = line.line(250, 500, line._began + 10)
        self.assertEqual(said, "price:  25% |#######                       | 250/1,000 | 25/s | 30.0 s left")
        self.assertIn("250 of 500 so far", Progress(None, "price", True).line(250, 500, time.monotonic() + 1))


if __name__ == "__main__":
    unittest.main()
