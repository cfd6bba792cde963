"""A server of the grid in a hundred lines, which runs tasks in its own threads and can be told to misbehave."""

import base64
import json
import pickle
import struct
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from tidemill import _wire as wire  # noqa: E402
from tidemill.engine import _session as kit  # noqa: E402

FORMATS = {"pickle": 0, "bytes": 1, "json": 2, "arrow": 3}


def _blob(data):
    return struct.pack("<I", len(data)) + data


def _function(spec, packed):
    if spec is None:
        return b"\0" + _blob(b"")
    if spec == "packed":
        return b"\1" + _blob(base64.b64decode(packed))
    return b"\2" + _blob(spec["module"].encode())


class FakeSession:
    def __init__(self, server, request):
        spec = request["session"]
        self.request, self.server = request, server
        body = struct.pack("<IBB", 1, FORMATS[spec["input"]], FORMATS[spec["output"]])
        body += _function(spec["function"], request.get("function"))
        body += _function(spec.get("setup_function"), request.get("setup_function"))
        data = base64.b64decode(request.get("setup") or "")
        body += bytes([request.get("setup") is not None]) + _blob(data) + struct.pack("<I", 0)
        self.engine = kit.Session(body)
        self.engine.open()
        self.changed = threading.Condition()
        self.tokens, self.tasks, self.frames, self.values = {}, [], [], {}
        self.state, self.closed = "running", False
        self.cancels = []

    def submit(self, token, body):
        with self.changed:
            if token in self.tokens:
                return (*self.tokens[token], True)
            payloads, needs = wire.unpack(body)
            first = len(self.tasks)
            self.tokens[token] = (first, len(payloads))
            self.tasks.extend(payloads)
        self.run(first, payloads, needs)
        return first, len(payloads), False

    def run(self, first, payloads, needs):
        for start in range(0, len(payloads), 1000):
            ids, statuses, values = [], [], []
            for i in range(start, min(start + 1000, len(payloads))):
                given = [first + (d & ~wire.OWN) if d & wire.OWN else d for d in needs[i]] if needs else []
                try:
                    if given:
                        value = self.engine.call_with(payloads[i], [self.values[d] for d in given])
                    else:
                        value = self.engine.call(payloads[i])
                    status = 0
                except Exception as e:
                    said = {"kind": type(e).__name__, "message": str(e), "traceback": "remote lines", "value": ""}
                    said["value"] = base64.b64encode(pickle.dumps(e)).decode()
                    status, value = 1, json.dumps(said).encode()
                self.values[first + i] = value
                ids.append(first + i)
                statuses.append(status)
                values.append(value)
            self.deliver(ids, statuses, values)

    def cancel(self, ranges, running):
        """What has no value yet was not begun, or runs."""
        with self.changed:
            self.cancels.append((ranges, running))
            ids = [i for r in ranges for i in range(r["first"], r["first"] + r["count"]) if i not in self.values]
            self.values.update({i: None for i in ids})
        said = json.dumps({"kind": "cancelled", "message": "it was cancelled", "traceback": "", "value": ""}).encode()
        if ids:
            self.deliver(ids, [1] * len(ids), [said] * len(ids))
        return len(ids)

    def deliver(self, ids, statuses, values):
        with self.changed:
            n = len(self.frames) + 1
            body = struct.pack("<QI", n, len(ids)) + struct.pack(f"<{len(ids)}Q", *ids) + bytes(statuses)
            body += struct.pack(f"<{len(ids)}I", *[7] * len(ids)) + struct.pack(f"<{len(ids)}I", *map(len, values)) + b"".join(values)
            self.frames.append(struct.pack("<IB", len(body) + 1, wire.RESULTS) + body)
            self.changed.notify_all()

    def end(self, state):
        with self.changed:
            self.closed, self.state = True, state
            self.changed.notify_all()


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def log_message(self, *_):
        pass

    def say(self, status, value):
        data = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def fault(self, name):
        with self.server.lock:
            if self.server.faults.get(name, 0) > 0:
                self.server.faults[name] -= 1
                return True
        return False

    def hang_up(self):
        self.close_connection = True
        self.connection.shutdown(2)

    def do_POST(self):
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        url = urlsplit(self.path)
        query = {k: v[0] for k, v in parse_qs(url.query).items()}
        parts = url.path.split("/")[5:]
        self.server.calls.append((url.path, len(body)))
        if self.headers.get("Authorization") != "Bearer secret":
            return self.say(401, {"error": {"kind": "denied", "message": "no such token", "hint": "bring one"}})
        if self.fault("unavailable"):
            return self.say(503, {"error": {"kind": "unavailable", "message": "starting"}})
        if self.fault("before"):
            return self.hang_up()
        if not parts:
            request = json.loads(body)
            with self.server.lock:
                id = self.server.tokens.get(request["client_token"])
                if id is None:
                    id = self.server.tokens[request["client_token"]] = f"s{len(self.server.sessions)}"
                    self.server.sessions[id] = FakeSession(self.server, request)
            if self.fault("after"):
                return self.hang_up()
            return self.say(201, {"id": id, "existing": False})
        session = self.server.sessions[parts[0]]
        if parts[1:] == ["tasks", "cancel"]:
            request = json.loads(body)
            cancelled = session.cancel(request["tasks"], request["running"])
            return self.say(202, {"cancelled": cancelled, "asked": 0, "ended": 0})
        if parts[1] == "tasks":
            if session.closed:
                return self.say(409, {"error": {"kind": "conflict", "message": "the session is closed"}})
            first, count, existing = session.submit(query["client_token"], body)
            if self.fault("after"):
                return self.hang_up()
            return self.say(201, {"first": first, "count": count, "existing": existing})
        if parts[1] == "close":
            session.end("succeeded")
        elif parts[1] == "cancel":
            session.end("cancelled")
        self.say(202, {})

    def do_GET(self):
        url = urlsplit(self.path)
        query = {k: v[0] for k, v in parse_qs(url.query).items()}
        parts = url.path.split("/")[5:]
        self.server.calls.append((self.path, 0))
        if not parts:
            return self.say(200, {"sessions": [{"id": id, "state": s.state} for id, s in self.server.sessions.items()], "next": None})
        session = self.server.sessions[parts[0]]
        if len(parts) == 1:
            return self.say(200, {"id": parts[0], "state": session.state})
        self.send_response(200)
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        at = int(query["after"])
        while True:
            with session.changed:
                if len(session.frames) <= at and not session.closed and int(query["wait"]):
                    session.changed.wait(0.2)
                frames = session.frames[at : at + 1]
                closed = session.closed
            if frames and self.fault("cut"):
                half = frames[0][: len(frames[0]) // 2]
                self.chunk(half)
                return self.hang_up()
            if frames:
                at += 1
                self.chunk(frames[0])
            elif closed:
                state = session.state.encode()
                self.chunk(struct.pack("<IBQ", 9 + len(state), wire.END, at) + state)
                return self.chunk(b"")
            elif not int(query["wait"]):
                return self.chunk(b"")
            else:
                self.chunk(struct.pack("<IBQ", 9, wire.NOTHING, at))

    def chunk(self, data):
        try:
            self.wfile.write(f"{len(data):x}\r\n".encode() + data + b"\r\n")
        except OSError:
            self.close_connection = True
            raise SystemExit from None


class FakeServer(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.lock = threading.Lock()
        self.sessions, self.tokens, self.calls, self.faults = {}, {}, [], {}
        self.url = f"http://127.0.0.1:{self.server_port}"
        threading.Thread(target=self.serve_forever, args=(0.01,), daemon=True).start()

    def handle_error(self, *_):
        pass

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.shutdown()
        self.server_close()
