"""The server over HTTP: finding it, connections that are kept, and calls that are made again when that is safe."""

from __future__ import annotations

import http.client
import json
import os
import random
import socket
import ssl
import threading
import time
from pathlib import Path
from typing import Any, Callable, Dict, List, Mapping, Optional, Tuple, TypeVar
from urllib.parse import urlencode, urlsplit

from .errors import ApiError, TidemillError

#: Answers after which the same call may succeed: the server restarts, a proxy has lost it, or it is overloaded.
AGAIN = frozenset((429, 502, 503, 504))
#: What a connection raises when it breaks, or when nobody listens.
BROKEN = (OSError, http.client.HTTPException)
JSON = "application/json"
#: Connections that are kept for the next call.
IDLE = 8
_T = TypeVar("_T")


class Server:
    """A server and the token to ask it with.

    Without arguments it is found as the command line finds it: ``TIDEMILL_URL`` with ``TIDEMILL_TOKEN`` (and ``TIDEMILL_CA``, a file of
    certificates to trust), else the one of the data folder on this machine (``TIDEMILL_DATA``, else the user's own).

    ``patience`` is for how many seconds a call is tried again while the server is away.
    """

    def __init__(
        self,
        url: Optional[str] = None,
        token: Optional[str] = None,
        *,
        ca: Optional[str] = None,
        data: Optional[str] = None,
        patience: float = 300.0,
    ) -> None:
        self.patience = patience
        self._given = (url, token, ca, data)
        self._lock = threading.Lock()
        self._idle: List[Tuple[str, http.client.HTTPConnection]] = []
        self._tls: Optional[ssl.SSLContext] = None
        self._find()

    def _find(self) -> None:
        url, token, ca, data = self._given
        environ = os.environ
        folder: Optional[Path] = None
        if url is None and data is None and environ.get("TIDEMILL_URL"):
            url = environ["TIDEMILL_URL"]
        if url is None:
            folder = Path(data) if data is not None else _default_data()
            url = _server_file(folder)
        if token is None:
            token = environ.get("TIDEMILL_TOKEN") or (None if folder is None else _token(folder / "admin-token")) or ""
        ca = ca or environ.get("TIDEMILL_CA") or None
        if ca is None and folder is not None and (folder / "tls/cert.pem").is_file():
            ca = str(folder / "tls/cert.pem")
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise TidemillError(f"{url!r} is no URL of a server; write it as http://HOST:PORT or https://HOST:PORT")
        if parts.scheme == "https":
            self._tls = ssl.create_default_context(cafile=ca)
        self.url, self._token, self._folder = url, token, folder
        self._host, self._port = parts.hostname, parts.port or (443 if parts.scheme == "https" else 80)
        self._prefix = parts.path.rstrip("/")
        self._secure = parts.scheme == "https"

    def __repr__(self) -> str:
        return f"Server({self.url!r})"

    def find_again(self) -> None:
        """A server on this machine may have come back at another port: its file says."""
        if self._folder is not None:
            try:
                with self._lock:
                    self._find()
            except (TidemillError, OSError):
                pass

    def connect(self, timeout: Optional[float] = None) -> http.client.HTTPConnection:
        """A connection of the caller's own."""
        if self._secure:
            return http.client.HTTPSConnection(self._host, self._port, timeout=timeout, context=self._tls)
        return http.client.HTTPConnection(self._host, self._port, timeout=timeout)

    def headers(self, content_type: Optional[str] = None) -> Dict[str, str]:
        """What every request carries."""
        out = {"Accept": "*/*"}
        if self._token:
            out["Authorization"] = f"Bearer {self._token}"
        if content_type:
            out["Content-Type"] = content_type
        return out

    def path(self, path: str, query: Optional[Mapping[str, Any]] = None) -> str:
        """The path of a call, with its query."""
        given = {k: v for k, v in (query or {}).items() if v is not None}
        return f"{self._prefix}/api/v1{path}" + (f"?{urlencode(given)}" if given else "")

    def call(
        self,
        method: str,
        path: str,
        query: Optional[Mapping[str, Any]] = None,
        body: Optional[bytes] = None,
        content_type: str = "application/octet-stream",
        give_up: Optional[Callable[[], bool]] = None,
    ) -> Any:
        """One call, answered by JSON. Only for calls that may be made twice: it is made again when the connection breaks.

        Raises :class:`ApiError`.
        """
        return self.patiently(lambda: self._once(method, self.path(path, query), body, content_type), give_up)

    def call_json(self, method: str, path: str, value: Any, query: Optional[Mapping[str, Any]] = None) -> Any:
        """The same with a body of JSON."""
        return self.call(method, path, query, json.dumps(value).encode(), JSON)

    def patiently(self, what: Callable[[], _T], give_up: Optional[Callable[[], bool]] = None) -> _T:
        """Does it again while the server is away, at most for ``patience`` seconds."""
        begun, pause = time.monotonic(), 0.05
        while True:
            error: Exception
            try:
                return what()
            except ApiError as e:
                if e.status not in AGAIN:
                    raise
                error = e
            except BROKEN as e:
                if isinstance(e, ssl.SSLCertVerificationError):
                    raise ApiError(0, "denied", f"{self.url} shows a certificate that is not trusted here: {e}", "name its CA by TIDEMILL_CA") from e
                error = ApiError(0, "unavailable", f"no answer from {self.url}: {e or type(e).__name__}")
                error.__cause__ = e
                self.find_again()
            if time.monotonic() - begun > self.patience or (give_up is not None and give_up()):
                raise error
            time.sleep(pause * random.uniform(0.5, 1.0))
            pause = min(pause * 2, 2.0)

    def _once(self, method: str, path: str, body: Optional[bytes], content_type: str) -> Any:
        with self._lock:
            while self._idle and self._idle[-1][0] != self.url:
                self._idle.pop()[1].close()
            kept = self._idle.pop()[1] if self._idle else None
            url, connection = self.url, kept or self.connect(timeout=max(60.0, self.patience))
        headers = self.headers(content_type if body is not None else None)
        try:
            connection.request(method, path, body, headers)
            response = connection.getresponse()
            data = response.read()
        except BaseException as e:
            connection.close()
            if kept is not None and isinstance(e, (http.client.RemoteDisconnected, BrokenPipeError, ConnectionResetError)):
                # The server has let go of a connection that was idle: that is no failure yet.
                return self._once(method, path, body, content_type)
            raise
        with self._lock:
            if not response.will_close and len(self._idle) < IDLE:
                self._idle.append((url, connection))
                connection = None  # type: ignore[assignment]
        if connection is not None:
            connection.close()
        return answer(response.status, data)

    def close(self) -> None:
        """Lets go of connections that are idle. The next call makes a new one."""
        with self._lock:
            idle, self._idle = self._idle, []
        for _, connection in idle:
            connection.close()


def answer(status: int, data: bytes) -> Any:
    """The JSON of an answer, or the error that it is."""
    if status < 300:
        return json.loads(data) if data else {}
    kind, message, hint = "", data[:500].decode("utf-8", "replace") or http.client.responses.get(status, ""), ""
    try:
        said = json.loads(data)["error"]
        kind, message, hint = said.get("kind", ""), said.get("message", message), said.get("hint") or ""
    except (ValueError, KeyError, TypeError, AttributeError):
        pass
    raise ApiError(status, kind, message, hint)


def hang_up(connection: http.client.HTTPConnection) -> None:
    """Ends a connection that another thread reads from."""
    sock = connection.sock
    if sock is not None:
        try:
            sock.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass


def _default_data() -> Path:
    environ = os.environ
    if environ.get("TIDEMILL_DATA"):
        return Path(environ["TIDEMILL_DATA"])
    for name, below in (("XDG_DATA_HOME", "tidemill"), ("HOME", ".local/share/tidemill")):
        base = Path(environ.get(name) or ".")
        if base.is_absolute():
            return base / below
    return Path("tidemill-data")


def _server_file(folder: Path) -> str:
    file = folder / "server.json"
    try:
        return str(json.loads(file.read_text())["url"])
    except FileNotFoundError:
        raise TidemillError(
            f"no server has been started with the data folder {folder}; start one with `tidemill serve --data {folder}`, "
            "or set TIDEMILL_URL and TIDEMILL_TOKEN to reach one elsewhere"
        ) from None
    except (ValueError, KeyError, TypeError) as e:
        raise TidemillError(f"{file} is not what a server writes: {e}") from e


def _token(file: Path) -> str:
    try:
        return file.read_text().strip()
    except OSError as e:
        raise TidemillError(
            f"the token in {file} cannot be read: {e.strerror}; only the user who runs the server may, so ask for a token of your own "
            "and set TIDEMILL_TOKEN"
        ) from e
