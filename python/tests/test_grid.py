"""The client against a server and its workers. ``TIDEMILL_BIN`` names the program ``tidemill``; without it these tests are skipped."""

import concurrent.futures
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
import unittest
from pathlib import Path

KIT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(KIT))

from tidemill import ApiError, Grid, RemoteTraceback, Server, Session, TaskFailed  # noqa: E402

BIN = os.environ.get("TIDEMILL_BIN")
try:
    import cloudpickle  # noqa: F401

    MISSING = "" if BIN else "TIDEMILL_BIN does not name the program `tidemill`, so there is no server to test against"
except ImportError:
    MISSING = "cloudpickle is not installed"
try:
    import joblib
except ImportError:
    joblib = None


class Serve:
    """A server with one worker of two slots, at a port that stays the same when it comes back."""

    def __init__(self):
        self.folder = tempfile.TemporaryDirectory()
        self.data = Path(self.folder.name, "data")
        self.process = None
        self.listen = "127.0.0.1:0"
        self.start()

    def start(self):
        (self.data / "server.json").unlink(missing_ok=True)
        # Engines run this very Python, so that they find the same cloudpickle.
        path = os.path.dirname(sys.executable) + os.pathsep + os.environ["PATH"]
        self.log = open(Path(self.folder.name, "log"), "ab")
        command = [BIN, "serve", "--data", str(self.data), "--listen", self.listen, "--workers", "1..1", "--slots", "2"]
        self.process = subprocess.Popen(command, env={**os.environ, "PATH": path}, stdout=self.log, stderr=self.log)
        deadline = time.monotonic() + 60
        while not (self.data / "server.json").exists() or not (self.data / "admin-token").exists():
            if time.monotonic() > deadline or self.process.poll() is not None:
                raise RuntimeError(Path(self.folder.name, "log").read_text()[-4000:])
            time.sleep(0.05)

    def server(self, test):
        server = Server(data=str(self.data), patience=90)
        test.addCleanup(server.close)
        return server

    def kill(self):
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()
        self.log.close()

    def stop(self):
        self.process.terminate()
        try:
            self.process.wait(30)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.log.close()
        self.folder.cleanup()


@unittest.skipIf(MISSING, MISSING)
class GridTests(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.serve = Serve()

    @classmethod
    def tearDownClass(cls):
        cls.serve.stop()

    def grid(self, **options):
        return Grid(server=self.serve.server(self), **options)

    def test_a_hundred_thousand_tasks_that_do_nothing(self):
        with self.grid(name="no-ops") as grid:
            started, cpu = time.monotonic(), time.process_time()
            self.assertEqual(list(grid.map(abs, range(100_000))), list(range(100_000)))
            took, cpu = time.monotonic() - started, time.process_time() - cpu
            print(f"\n100,000 tasks in {took:.2f} s ({100_000 / took:,.0f}/s), {cpu:.2f} s of the client's CPU", file=sys.stderr)
            self.assertLess(cpu, 2.0)
            status = Session.attach(next(iter(grid._channels.values())).session.id, server=grid.server).status()
            self.assertEqual((status["name"], status["tasks"]["succeeded"], status["attempts"]), ("no-ops", 100_000, 100_000))

    def test_exceptions_come_with_the_engines_traceback(self):
        def price(x):
            if x == 3:
                raise ValueError("a negative volatility")
            return x

        with self.grid() as grid:
            with self.assertRaisesRegex(ValueError, "a negative volatility") as caught:
                list(grid.map(price, range(10)))
            self.assertIsInstance(caught.exception.__cause__, RemoteTraceback)
            self.assertIn("in price", str(caught.exception.__cause__))
            values = list(grid.map(price, range(10), return_exceptions=True))
            self.assertEqual([v for v in values if not isinstance(v, ValueError)], [0, 1, 2, 4, 5, 6, 7, 8, 9])

    def test_an_error_of_the_scripts_own_class_is_that_class(self):
        space = {"__name__": "__main__"}
        exec("class Bad(Exception):\n    pass\ndef fail(x):\n    raise Bad(x)\n", space)
        main = sys.modules["__main__"]
        main.Bad, main.fail = space["Bad"], space["fail"]
        try:
            with self.grid() as grid, self.assertRaises(main.Bad) as caught:
                grid.submit(main.fail, 5).result(60)
            self.assertEqual(caught.exception.args, (5,))
        finally:
            del main.Bad, main.fail

    def test_a_killed_engine_fails_its_task_and_no_other(self):
        def risky(x):
            if x == 40:
                import os

                os.kill(os.getpid(), 9)
            return x

        with self.grid() as grid:
            values = list(grid.map(risky, range(200), return_exceptions=True))
            crash = values.pop(40)
            self.assertIsInstance(crash, TaskFailed)
            self.assertEqual((crash.kind, values), ("crash", [x for x in range(200) if x != 40]))

    def test_a_task_that_takes_too_long_is_stopped(self):
        with self.grid(timeout=0.3) as grid:
            with self.assertRaises(TaskFailed) as caught:
                grid.submit(time.sleep, 60).result(60)
            self.assertEqual(caught.exception.kind, "timeout")

    def test_cancel_reaches_what_runs(self):
        with tempfile.TemporaryDirectory() as folder, self.grid() as grid:
            began = Path(folder, "began")

            def hang(path):
                import pathlib
                import time

                pathlib.Path(path).write_text("yes")
                time.sleep(600)

            future = grid.submit(hang, str(began))
            deadline = time.monotonic() + 60
            while not began.exists() and time.monotonic() < deadline:
                time.sleep(0.02)
            self.assertTrue(began.exists())
            self.assertTrue(future.cancel())
            session = Session.attach(future.session, server=grid.server)
            while session.status()["tasks"]["cancelled"] < 1 and time.monotonic() < deadline:
                time.sleep(0.02)
            self.assertEqual((session.status()["tasks"]["cancelled"], session.status()["state"]), (1, "running"))
            # The slot is free again, and the grid goes on.
            self.assertEqual([f.result(60) for f in [grid.submit(abs, -i) for i in range(4)]], [0, 1, 2, 3])

    def ended(self, session):
        """What the server says of a session once it has ended by itself."""
        session.wait(60)
        return session.status()

    def test_tasks_that_are_given_up_are_told_and_those_that_failed_run_again(self):
        with tempfile.TemporaryDirectory() as folder, self.grid() as grid:
            mended = Path(folder, "mended")

            def work(path, number):
                import pathlib
                import time

                if number == 1 and not pathlib.Path(path).exists():
                    raise ValueError("not yet")
                time.sleep(0.2 if number < 40 else 0)
                return number

            futures = [grid.submit(work, str(mended), n) for n in range(40)]
            with self.assertRaises(ValueError):
                futures[1].result(60)
            session = Session.attach(futures[0].session, server=grid.server)
            said = session.cancel_tasks([range(20, 40)])
            self.assertEqual(sum(said.values()), 20)
            done = concurrent.futures.wait(futures, 60).done
            self.assertEqual(len(done), 40)
            kinds = [f.exception(0).kind for f in futures[20:] if f.exception(0) is not None]
            self.assertEqual(set(kinds), {"cancelled"}, "no worker begins twenty tasks at once")
            tasks = session.status()["tasks"]
            self.assertEqual((tasks["cancelled"], tasks["failed"], tasks["succeeded"]), (len(kinds), 1, 39 - len(kinds)))
            self.assertEqual(session.cancel_tasks([range(20, 40)])["cancelled"], len(kinds), "asking again changes nothing")
            # What failed runs again, and a cursor that stands behind its failure finds the result.
            cursor = session.status()["deliveries"]
            mended.touch()
            self.assertEqual((session.retry([futures[1].task]), session.retry([futures[1].task])), (1, 0))
            self.assertEqual(next(session.results(after=cursor)), (futures[1].task, 1))

    def test_a_session_that_has_used_up_its_budget_says_so_and_takes_nothing_more(self):
        with self.grid(budget={"failures": 3}) as grid:
            futures = [grid.submit(lambda n: 1 / 0 if n < 3 else n, n) for n in range(3)]
            concurrent.futures.wait(futures, 60)
            session = Session.attach(futures[0].session, server=grid.server)
            status = self.ended(session)
            self.assertIn("budget of 3 failures", status["reason"])
            self.assertEqual((status["state"], status["open"]), ("failed", False))
            with self.assertRaisesRegex(ApiError, "budget of 3 failures.*open another with more"):
                session.submit_many([b"late"])
            with self.assertRaisesRegex(ApiError, "larger budget"):
                session.retry()
        with self.grid(budget={"tasks": 5}) as grid:
            session = Session.open("builtins:len", server=grid.server, budget={"tasks": 5})
            with self.assertRaisesRegex(ApiError, "may have 5 tasks.*submit at most 5"):
                session.submit_many([b"x"] * 6)
            session.cancel()

    def test_an_idle_session_is_closed(self):
        with self.grid() as grid:
            session = Session.open("builtins:len", server=grid.server, idle_timeout="2s")
            status = self.ended(session)
            self.assertEqual((status["state"], status["open"]), ("succeeded", False))
            self.assertIn("for 2s", status["reason"])

    def test_results_of_tasks_are_arguments_of_others(self):
        with self.grid() as grid:
            curve = grid.submit(lambda: {"rate": 0.05, "big": b"x" * 1_000_000})
            prices = [grid.submit(lambda c, n: c["rate"] * n, curve, n) for n in range(50)]
            self.assertEqual({p.session for p in prices}, {curve.session})
            self.assertAlmostEqual(grid.reduce(sum, prices, fan_in=4).result(60), 0.05 * sum(range(50)))
            bad = grid.submit(lambda: 1 / 0)
            with self.assertRaises(TaskFailed) as caught:
                grid.submit(lambda x: x, bad).result(60)
            self.assertEqual(caught.exception.kind, "dependency")

    def test_state_is_kept_warm(self):
        def load(data):
            import os

            return {"pid": os.getpid(), "rate": data["rate"], "calls": []}

        def price(state, n):
            state["calls"].append(n)
            return state["pid"], state["rate"] * n, len(state["calls"])

        with self.grid(setup=load, data={"rate": 3}) as grid:
            values = list(grid.map(price, range(300)))
            self.assertEqual([v for _, v, _ in values], [3 * n for n in range(300)])
            self.assertLessEqual(len({pid for pid, _, _ in values}), 2, "two engines, each with one state")
            self.assertGreater(max(calls for _, _, calls in values), 100)

    def test_another_process_goes_on_where_one_left_off(self):
        server = self.serve.server(self)
        session = Session.open("builtins:bytes.upper", server=server, input="bytes", output="bytes", labels={"desk": "rates"})
        ranges = session.submit_many(b"t%d" % i for i in range(3000))
        self.assertEqual(sum(map(len, ranges)), 3000)
        stream = session.deliveries()
        first = next(stream)
        stream.close()
        other = Session.attach(session.id, server=server, input="bytes", output="bytes")
        other.close()
        rest = list(other.results(after=first.n))
        self.assertEqual(sorted([*first.tasks, *(task for task, _ in rest)]), list(range(3000)))
        self.assertTrue(all(value == b"T%d" % task for task, value in rest))
        self.assertEqual((other.state, other.wait(10), other.status()["labels"]), ("succeeded", "succeeded", {"desk": "rates"}))

    def test_large_results_outlive_their_session(self):
        server = self.serve.server(self)
        session = Session.open("builtins:bytes", server=server, input="json", output="bytes")
        session.submit_many([b"20000"] * 200)
        session.close()
        self.assertEqual(session.wait(60), "succeeded")
        # What its attempts left behind is swept when a session ends.
        time.sleep(1)
        again = Session.attach(session.id, server=server, input="json", output="bytes")
        self.assertEqual({task: len(value) for task, value in again.results(after=0)}, dict.fromkeys(range(200), 20_000))

    def test_a_pause_holds_what_waits(self):
        session = Session.open("builtins:bytes.upper", server=self.serve.server(self), input="bytes", output="bytes")
        session.pause()
        session.submit_many([b"a", b"b"])
        time.sleep(0.5)
        self.assertEqual(session.status()["tasks"]["succeeded"], 0)
        session.resume()
        session.close()
        self.assertEqual(session.wait(60), "succeeded")

    def test_json_and_dependencies_below_the_executor(self):
        session = Session.open("builtins:max", server=self.serve.server(self), input="json", output="json")
        session.submit_many([b"[1,2]", b"[7,3]"])
        numbers = session.submit_many([b"5"], [[0, 1]])
        session.close()
        self.assertEqual(dict(session.results())[numbers[0][0]], 7)

    @unittest.skipIf(joblib is None, "joblib is not installed")
    def test_joblib_runs_on_the_grid(self):
        import tidemill.joblib  # noqa: F401

        with joblib.parallel_config(backend="tidemill", server=self.serve.server(self)):
            values = joblib.Parallel()(joblib.delayed(pow)(i, 2) for i in range(300))
            self.assertEqual(values, [i * i for i in range(300)])
            with self.assertRaises(ZeroDivisionError):
                joblib.Parallel()(joblib.delayed(divmod)(1, i) for i in (1, 0))

    def test_it_does_what_an_executor_does(self):
        with self.grid() as grid:
            futures = {grid.submit(pow, n, 3): n for n in range(500)}
            for future in concurrent.futures.as_completed(futures, timeout=60):
                self.assertEqual(future.result(), futures[future] ** 3)


@unittest.skipIf(MISSING, MISSING)
class KilledServerTests(unittest.TestCase):
    def test_a_map_outlives_its_server(self):
        serve = Serve()
        self.addCleanup(serve.stop)
        with Grid(server=serve.server(self)) as grid:
            done = []
            midway = threading.Event()

            def restart():
                midway.wait()
                serve.kill()
                time.sleep(0.5)
                serve.start()

            # If the map fails before it is halfway, nobody waits for this thread.
            thread = threading.Thread(target=restart, daemon=True)
            thread.start()

            def slow(x):
                import time

                time.sleep(0.0003)
                return x

            for value in grid.map(slow, range(20_000)):
                done.append(value)
                if len(done) == 2000:
                    midway.set()
            thread.join()
            self.assertEqual(done, list(range(20_000)))


if __name__ == "__main__":
    unittest.main()
