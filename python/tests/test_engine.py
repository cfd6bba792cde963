"""The Python engine, driven by a small host of its own that knows only the page about the protocol."""

import io
import os
import pickle
import platform
import shutil
import struct
import subprocess
import sys
import tempfile
import textwrap
import threading
import unittest
from pathlib import Path
from unittest import mock

import tidemill
from tidemill.engine import Dependency, dumps_task
from tidemill.engine import _versions
from tidemill.engine.payload import dumps_value, loads_task

KIT = Path(__file__).resolve().parents[1]
PICKLE, RAW, JSON, ARROW = range(4)

MODEL = """
import os, sys, time

class Odd(Exception):
    def __init__(self, a, b):
        super().__init__(f"{a} and {b}")

def load(rate, *, shift=0):
    return {"rate": rate + shift}

def price(state, years):
    return state["rate"] * years

def do(what, *rest):
    if what == "print":
        print("printed", *rest); sys.stdout.flush()
    elif what == "write":
        os.write(1, b"written to descriptor 1\\n")
    elif what == "read":
        return sys.stdin.read()
    elif what == "raise":
        raise Odd(1, 2)
    elif what == "exit":
        sys.exit(3)
    elif what == "interrupt":
        raise KeyboardInterrupt()
    elif what == "lambda":
        x = rest[0]
        return lambda y: x + y
    elif what == "lock":
        import threading
        return threading.Lock()
    elif what == "fork":
        if os.fork() == 0:
            return "child"
        os.wait()
    elif what == "deep":
        return (lambda f: f(f))(lambda f: f(f))
    elif what == "sleep":
        time.sleep(rest[0])
    elif what == "until":
        for _ in range(2000):
            if os.path.exists(rest[0]):
                break
            time.sleep(0.01)
    elif what == "package":
        from tidemill import engine
        return (engine.package("calendars") / "days.txt").read_text(), engine.packages(), engine.parameters()["desk"], engine.engine_id()
    return what

def upper(data, *others):
    return data.upper() + b"".join(others)

def total(value):
    return {"total": sum(value)}

def frame(table):
    return table

class Family:
    @staticmethod
    def twice(x):
        return 2 * x
"""


def name(text):
    data = text.encode()
    return struct.pack("<I", len(data)) + data


class Host:
    def __init__(self, load=(), packages=(), flush_us=1000, kit=KIT):
        self.folder = tempfile.TemporaryDirectory()
        (Path(self.folder.name) / "model.py").write_text(MODEL)
        arguments = [sys.executable, "-m", "tidemill.engine"]
        for module in load:
            arguments += ["--load", module]
        env = {"PYTHONPATH": os.pathsep.join([str(kit), self.folder.name]), "PATH": os.environ["PATH"], "PYTHONDONTWRITEBYTECODE": "1"}
        self.child = subprocess.Popen(
            arguments, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=self.folder.name, env=env
        )
        self.log = io.BytesIO()
        self.reader = threading.Thread(target=lambda: self.log.write(self.child.stderr.read()), daemon=True)
        self.reader.start()
        body = b"TMEP" + struct.pack("<HHIII", 1, 1, 64 << 20, 65536, flush_us) + name("e1") + name(self.folder.name)
        body += struct.pack("<I", len(packages)) + b"".join(name(n) + name(v) + name(str(p)) for n, v, p in packages)
        self.send(0x01, body)

    def send(self, kind, body):
        self.child.stdin.write(struct.pack("<IB", len(body), kind) + body)
        self.child.stdin.flush()

    def receive(self):
        head = self.child.stdout.read(5)
        if len(head) < 5:
            return None, head
        length, kind = struct.unpack("<IB", head)
        return kind, self.child.stdout.read(length)

    def open(self, number, function, kind=2, input=PICKLE, output=PICKLE, set_up=(0, b""), data=None, parameters=()):
        body = struct.pack("<IBB", number, input, output)
        body += bytes([kind]) + struct.pack("<I", len(function)) + function
        body += bytes([set_up[0]]) + struct.pack("<I", len(set_up[1])) + set_up[1]
        body += bytes([data is not None]) + struct.pack("<I", len(data or b"")) + (data or b"")
        body += struct.pack("<I", len(parameters)) + b"".join(name(k) + name(v) for k, v in parameters)
        self.send(0x02, body)
        return self.receive()

    def run(self, session, tasks, step=False):
        """``tasks``: (id, payload, dependencies)."""
        all_dependencies = [d for _, _, ds in tasks for d in ds]
        body = struct.pack("<IIII", session, int(step), len(tasks), len(all_dependencies))
        body += b"".join(struct.pack("<Q", i) for i, _, _ in tasks)
        body += b"".join(struct.pack("<I", len(p)) for _, p, _ in tasks)
        if all_dependencies:
            body += b"".join(struct.pack("<I", len(ds)) for _, _, ds in tasks)
            body += b"".join(struct.pack("<I", len(d)) for d in all_dependencies)
        body += b"".join(p for _, p, _ in tasks) + b"".join(all_dependencies)
        self.send(0x04, body)

    def results(self, count):
        """``{id: (status, payload)}``, and how many frames they came in."""
        found, frames = {}, 0
        while len(found) < count:
            kind, body = self.receive()
            assert kind == 0x84, (kind, body, self.log.getvalue())
            _, n = struct.unpack_from("<II", body)
            ids = struct.unpack_from(f"<{n}Q", body, 8)
            lengths = struct.unpack_from(f"<{n}I", body, 8 + 16 * n)
            statuses = body[8 + 20 * n : 8 + 21 * n]
            at = 8 + 21 * n
            for i, length, status in zip(ids, lengths, statuses):
                assert i not in found
                found[i] = (status, body[at : at + length])
                at += length
            assert at == len(body)
            frames += 1
        return found, frames

    def call(self, session, *args, dependencies=(), **kwargs):
        self.run(session, [(7, dumps_task(args, kwargs), list(dependencies))])
        return self.results(1)[0][7]

    def end(self):
        self.child.stdin.close()
        code = self.child.wait(20)
        self.reader.join(20)
        self.child.stdout.close()
        self.child.stderr.close()
        self.folder.cleanup()
        return code, self.log.getvalue().decode()


def error(payload):
    parts, at = [], 0
    for _ in range(4):
        (length,) = struct.unpack_from("<I", payload, at)
        parts.append(payload[at + 4 : at + 4 + length])
        at += 4 + length
    assert at == len(payload)
    return parts[0].decode(), parts[1].decode(), parts[2].decode(), parts[3]


class EngineTest(unittest.TestCase):
    def setUp(self):
        self.host = Host(load=["json"])
        kind, body = self.host.receive()
        self.assertEqual(kind, 0x81, self.host.log.getvalue())
        self.hello = body

    def tearDown(self):
        if self.host.child.poll() is None:
            self.host.end()

    def test_hello_says_what_it_is(self):
        self.assertEqual(struct.unpack_from("<HI", self.hello), (1, self.host.child.pid))
        self.assertIn(b"tidemill-python", self.hello)
        self.assertIn(b"python 3.", self.hello)
        self.assertIn(b"json", self.hello)

    def test_a_session_keeps_its_state(self):
        data = pickle.dumps(((2,), {"shift": 1}), 5)
        kind, _ = self.host.open(1, b"model:price", set_up=(2, b"model:load"), data=data)
        self.assertEqual(kind, 0x82)
        self.host.run(1, [(i, dumps_task((i,)), []) for i in range(1000)])
        found, frames = self.host.results(1000)
        self.assertEqual([pickle.loads(found[i][1]) for i in range(1000)], [3 * i for i in range(1000)])
        self.assertLess(frames, 100)
        self.host.run(1, [(i, dumps_task((i,)), []) for i in range(100)], step=True)
        self.assertEqual(self.host.results(100)[1], 100)
        self.assertEqual(self.host.open(2, b"model:price", data=pickle.dumps({"rate": 5}))[0], 0x82)
        self.assertEqual(pickle.loads(self.host.call(2, 4)[1]), 20)
        self.host.send(0x03, struct.pack("<I", 1))
        self.assertEqual(pickle.loads(self.host.call(2, 4)[1]), 20)

    def test_functions_travel_by_value_and_by_name(self):
        import cloudpickle

        here = 40
        self.assertEqual(self.host.open(1, cloudpickle.dumps(lambda x: here + x), kind=1)[0], 0x82)
        self.assertEqual(pickle.loads(self.host.call(1, 2)[1]), 42)
        self.assertEqual(self.host.open(2, b"model:Family.twice")[0], 0x82)
        self.assertEqual(pickle.loads(self.host.call(2, 21)[1]), 42)
        for function, cls in ((b"model:nothing", "AttributeError"), (b"model", "ValueError"), (b"os:sep", "TypeError")):
            kind, body = self.host.open(3, function)
            self.assertEqual((kind, error(body[4:])[0]), (0x83, cls))

    def test_what_another_cloudpickle_wrote_is_refused_with_both_versions(self):
        import cloudpickle

        # As it comes from a client with another version: it names what the engine's has not.
        broken = b"\x80\x05\x8c\x17cloudpickle.cloudpickle\x8c\x11_setstate_of_9_8_\x93."

        def stamped(versions, data):
            with mock.patch.object(_versions, "_here", return_value=versions):
                return _versions.stamped(data)

        here = platform.python_version()
        kind, body = self.host.open(1, stamped(("9.8.7", "3.99.1"), broken), kind=1)
        cls, message, _, value = error(body[4:])
        self.assertEqual((kind, cls), (0x83, "_pickle.UnpicklingError"))
        for part in (
            "the function was pickled by cloudpickle 9.8.7 on Python 3.99.1",
            f"cloudpickle {cloudpickle.__version__} on Python {here}",
            "_setstate_of_9_8_",
            "cloudpickle==9.8.7",
            "the same Python on both sides",
            "by='name'",
        ):
            self.assertIn(part, message)
        self.assertIsInstance(pickle.loads(value), pickle.UnpicklingError)
        # With the same versions it is what it is.
        kind, body = self.host.open(1, stamped((cloudpickle.__version__, here), broken), kind=1)
        self.assertEqual((kind, error(body[4:])[0]), (0x83, "AttributeError"))

        self.assertEqual(self.host.open(2, b"model:do")[0], 0x82)
        other = (cloudpickle.__version__, "3.99.1")
        self.host.run(2, [(1, stamped(other, broken), []), (2, stamped(other, dumps_task(("raise",))), []), (3, dumps_task(("fine",)), [])])
        found, _ = self.host.results(3)
        self.assertIn("the task was pickled by", error(found[1][1])[1])
        self.assertIn("use the same Python on both sides: 3.99 for the engines", error(found[1][1])[1])
        self.assertEqual(error(found[2][1])[:2], ("model.Odd", "1 and 2"), "arguments that can be read are not to blame")
        self.assertEqual(pickle.loads(found[3][1]), "fine")

    def test_versions_say_nothing_to_whoever_can_read(self):
        import cloudpickle

        data = _versions.stamped(cloudpickle.dumps(lambda x: x + 1))
        self.assertEqual(pickle.loads(data)(2), 3)
        self.assertEqual(_versions._stamp(data), (cloudpickle.__version__, platform.python_version()))
        for plain in (b"", b"\x80\x05\x8c", pickle.dumps("tidemill:1 2", 5), pickle.dumps((), 5)):
            self.assertIsNone(_versions._stamp(plain))

    def test_errors_are_told_whole_and_the_engine_lives(self):
        self.host.open(1, b"model:do")
        status, payload = self.host.call(1, "raise")
        cls, message, trace, value = error(payload)
        self.assertEqual((status, cls, message, value), (1, "model.Odd", "1 and 2", b""))
        self.assertIn('raise Odd(1, 2)', trace)
        self.assertNotIn("_serve.py", trace)
        for what, cls in (("exit", "SystemExit"), ("interrupt", "KeyboardInterrupt"), ("deep", "RecursionError"), ("lock", "TypeError")):
            status, payload = self.host.call(1, what)
            self.assertEqual((status, error(payload)[0]), (1, cls), what)
        value = error(self.host.call(1, "exit")[1])[3]
        self.assertIsInstance(pickle.loads(value), SystemExit)
        self.host.run(1, [(1, b"not a pickle", []), (2, dumps_task(("fine",)), [])])
        found, _ = self.host.results(2)
        self.assertEqual((error(found[1][1])[0], pickle.loads(found[2][1])), ("_pickle.UnpicklingError", "fine"))

    def test_what_pickle_cannot_write_cloudpickle_can(self):
        self.host.open(1, b"model:do")
        self.assertEqual(pickle.loads(self.host.call(1, "lambda", 3)[1])(4), 7)

    def test_prints_go_to_the_log(self):
        self.host.open(1, b"model:do")
        for what in ("print", "write"):
            self.assertEqual(pickle.loads(self.host.call(1, what)[1]), what)
        self.assertEqual(pickle.loads(self.host.call(1, "read")[1]), "")
        code, log = self.host.end()
        self.assertEqual(code, 0)
        self.assertIn("printed", log)
        self.assertIn("written to descriptor 1", log)

    def test_a_forked_child_says_nothing(self):
        self.host.open(1, b"model:do")
        tasks = [(0, dumps_task(("fork",)), [])] + [(i, dumps_task((str(i),)), []) for i in range(1, 50)]
        self.host.run(1, tasks)
        found, _ = self.host.results(50)
        self.assertEqual([pickle.loads(found[i][1]) for i in range(3)], ["fork", "1", "2"])
        self.assertEqual(pickle.loads(self.host.call(1, "after")[1]), "after")

    def test_cancel_and_ping_are_heard_between_tasks(self):
        self.host.open(1, b"model:do")
        self.host.run(1, [(0, dumps_task(("sleep", 0.3)), []), (1, dumps_task(("a",)), []), (2, dumps_task(("b",)), [])])
        self.host.run(1, [(3, dumps_task(("c",)), []), (4, dumps_task(("d",)), [])])
        self.host.send(0x05, struct.pack("<IIQQ", 1, 2, 1, 4))
        found, _ = self.host.results(5)
        self.assertEqual({i: status for i, (status, _) in found.items()}, {0: 0, 1: 2, 2: 0, 3: 0, 4: 2})
        self.assertEqual(found[1][1], b"")
        self.host.send(0x06, struct.pack("<Q", 77))
        self.assertEqual(self.host.receive(), (0x86, struct.pack("<Q", 77)))

    def test_results_do_not_wait_behind_a_long_task(self):
        host = Host(flush_us=4_000_000_000)
        try:
            host.receive()
            host.open(1, b"model:do")
            go = Path(host.folder.name) / "go"
            for _ in range(2):
                # The second time the thread that sends is there already.
                quick = [(i, dumps_task((str(i),)), []) for i in range(20)]
                host.run(1, [*quick, (20, dumps_task(("until", str(go))), []), (21, dumps_task(("last",)), [])])
                found, _ = host.results(20)
                self.assertEqual(sorted(found), list(range(20)))
                go.touch()
                found, _ = host.results(2)
                self.assertEqual([pickle.loads(found[i][1]) for i in (20, 21)], ["until", "last"])
                go.unlink()
        finally:
            host.end()

    def test_fork_while_results_are_held(self):
        host = Host(flush_us=4_000_000_000)
        try:
            host.receive()
            host.open(1, b"model:do")
            tasks = [(i, dumps_task(("fork" if i % 10 == 9 else "sleep", 0.003)), []) for i in range(100)]
            host.run(1, tasks)
            self.assertEqual(len(host.results(100)[0]), 100)
        finally:
            host.end()

    def test_dependencies_take_their_places(self):
        self.host.open(1, b"builtins:max")
        one, two = dumps_value([4, 9]), dumps_value([5])
        self.assertEqual(pickle.loads(self.host.call(1, Dependency(1), [6], dependencies=[one, two])[1]), [6])
        self.assertEqual(pickle.loads(self.host.call(1, [1], dependencies=[one, two])[1]), [5])
        marker = object()
        payload = dumps_task(([{"x": marker}],), {}, lambda o: 0 if o is marker else None)
        self.assertEqual(loads_task(payload, [one]), (([{"x": [4, 9]}],), {}))

    def test_other_formats(self):
        self.host.open(1, b"model:upper", input=RAW, output=RAW)
        self.host.run(1, [(1, b"abc", []), (2, b"x", [b"-y"])])
        self.assertEqual(self.host.results(2)[0], {1: (0, b"ABC"), 2: (0, b"X-y")})
        self.host.open(2, b"model:total", input=JSON, output=JSON)
        self.host.run(2, [(1, b"[1, 2, 3]", []), (2, b"[", [])])
        found, _ = self.host.results(2)
        self.assertEqual((found[1], error(found[2][1])[0]), ((0, b'{"total":6}'), "json.decoder.JSONDecodeError"))

    def test_arrow(self):
        try:
            import pyarrow
        except ImportError:
            self.skipTest("there is no pyarrow")
        from tidemill.engine._session import _from_arrow, _to_arrow

        self.host.open(1, b"model:frame", input=ARROW, output=ARROW)
        table = pyarrow.table({"a": [1, 2]})
        self.host.run(1, [(1, _to_arrow(table), [])])
        self.assertEqual(_from_arrow(self.host.results(1)[0][1][1]), table)

    def test_large_frames_in_pieces(self):
        self.host.open(1, b"model:upper", input=RAW, output=RAW)
        big = b"x" * (3 << 20)
        self.host.run(1, [(i, big, []) for i in range(3)])
        found, _ = self.host.results(3)
        self.assertTrue(all(found[i] == (0, big.upper()) for i in range(3)))


class BootTest(unittest.TestCase):
    def test_packages_are_found_and_imported_from(self):
        with tempfile.TemporaryDirectory() as folder:
            (Path(folder) / "days.txt").write_text("2026-12-25")
            (Path(folder) / "python").mkdir()
            (Path(folder) / "python" / "holidays_of_ours.py").write_text("__version__ = '4.5'\ndef count():\n    return 1\n")
            host = Host(packages=[("calendars", "2", folder)])
            host.receive()
            kind, body = host.open(1, b"holidays_of_ours:count")
            self.assertEqual(kind, 0x82)
            self.assertIn(name("holidays_of_ours") + name("4.5"), body)
            host.open(2, b"model:do", parameters=[("desk", "rates")])
            found = pickle.loads(host.call(2, "package")[1])
            self.assertEqual(found, ("2026-12-25", {"calendars": "2"}, "rates", "e1"))
            host.end()

    def test_a_module_that_cannot_be_loaded_ends_the_boot(self):
        host = Host(load=["no_such_module"])
        self.assertEqual(host.receive()[0], None)
        code, log = host.end()
        self.assertNotEqual(code, 0)
        self.assertIn("no_such_module", log)

    def test_what_is_no_host_is_told_so(self):
        host = Host()
        host.receive()
        host.send(0x77, b"")
        self.assertIsNone(host.receive()[0])
        self.assertIn("no frame of kind 0x77", host.end()[1])

    def test_the_engine_runs_without_the_client_around_it(self):
        with tempfile.TemporaryDirectory() as folder:
            shutil.copytree(KIT / "tidemill" / "engine", Path(folder) / "tidemill" / "engine")
            host = Host(kit=folder)
            self.assertEqual(host.receive()[0], 0x81, host.log.getvalue())
            host.open(1, b"model:do")
            self.assertEqual(pickle.loads(host.call(1, "alone")[1]), "alone")
            host.end()

    def test_the_kit_and_the_package_have_one_version(self):
        from tidemill.engine import _frames

        self.assertEqual(_frames.VERSION, tidemill.__version__)

    def test_usage(self):
        ran = subprocess.run([sys.executable, "-m", "tidemill.engine", "--what"], cwd=KIT, capture_output=True, text=True)
        self.assertEqual(ran.returncode, 2)
        self.assertIn("usage", ran.stderr)

    def test_the_end_of_the_input_runs_what_was_registered(self):
        host = Host()
        host.receive()
        source = textwrap.dedent("""
            import atexit, sys
            def f():
                atexit.register(lambda: print("goodbye", file=sys.stderr))
        """)
        (Path(host.folder.name) / "leaver.py").write_text(source)
        host.open(1, b"leaver:f")
        host.call(1)
        code, log = host.end()
        self.assertEqual(code, 0)
        self.assertIn("goodbye", log)


if __name__ == "__main__":
    unittest.main()
