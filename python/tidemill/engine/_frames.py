"""Frames of the engine protocol, version 1. ``docs/reference/engine-protocol.md`` is the whole of it."""

from __future__ import annotations

import os
import select
import struct
from typing import List, Sequence, Tuple

#: Of this kit. Here, since a worker may bring the engine alone, without the client around it.
VERSION = "0.1.0"
PROTOCOL = 1
HEADER = struct.Struct("<IB")
START, OPEN, CLOSE, RUN, CANCEL, PING = 0x01, 0x02, 0x03, 0x04, 0x05, 0x06
HELLO, OPENED, REFUSED, RESULTS, PONG = 0x81, 0x82, 0x83, 0x84, 0x86
OK, ERROR, CANCELLED = 0, 1, 2
FRAME_BYTES = 64 << 20
FRAME_TASKS = 1 << 16
NAME_BYTES = 4096
TEXT_BYTES = 1 << 20
BLOCK = 1 << 18


class ProtocolError(Exception):
    """The host has said something that this kit does not understand."""


class Reader:
    """Reads a message's body from its beginning."""

    def __init__(self, body: bytes) -> None:
        self.body, self.at = body, 0

    def take(self, n: int) -> bytes:
        end = self.at + n
        if end > len(self.body):
            raise ProtocolError(f"{n} bytes are needed and {len(self.body) - self.at} are left")
        piece = self.body[self.at : end]
        self.at = end
        return piece

    def u8(self) -> int:
        return self.take(1)[0]

    def u16(self) -> int:
        return int.from_bytes(self.take(2), "little")

    def u32(self) -> int:
        return int.from_bytes(self.take(4), "little")

    def u64(self) -> int:
        return int.from_bytes(self.take(8), "little")

    def blob(self) -> bytes:
        return self.take(self.u32())

    def text(self) -> str:
        return self.blob().decode()

    def end(self) -> None:
        if self.at != len(self.body):
            raise ProtocolError(f"{len(self.body) - self.at} bytes too many")


def u32(n: int) -> bytes:
    return n.to_bytes(4, "little")


def blob(data: bytes) -> bytes:
    return len(data).to_bytes(4, "little") + data


def text(value: str, most: int) -> bytes:
    data = value.encode("utf-8", "replace")
    if len(data) > most:
        data = data[:most].decode("utf-8", "ignore").encode()
    return blob(data)


def libraries(found: Sequence[Tuple[str, str]]) -> bytes:
    found = found[:4096]
    return u32(len(found)) + b"".join(text(name, NAME_BYTES) + text(version, NAME_BYTES) for name, version in found)


def error(cls: str, message: str, traceback: str = "", value: bytes = b"") -> bytes:
    return text(cls, NAME_BYTES) + text(message, TEXT_BYTES) + text(traceback, TEXT_BYTES) + blob(value)


class Pipes:
    """The protocol's two pipes, moved away from standard input and output, which become empty and the log."""

    def __init__(self) -> None:
        self._input, self._output = os.dup(0), os.dup(1)
        null = os.open(os.devnull, os.O_RDONLY)
        os.dup2(null, 0)
        os.close(null)
        os.dup2(2, 1)
        self.frame_bytes = FRAME_BYTES
        self._buffer = bytearray()
        self._pid = os.getpid()
        self._poll = select.poll()
        self._poll.register(self._input, select.POLLIN)
        self.ended = False
        os.register_at_fork(after_in_child=self._forked)

    def _forked(self) -> None:
        # A forked child must neither take the engine's tasks nor answer for it.
        null = os.open(os.devnull, os.O_RDWR)
        os.dup2(null, self._input)
        os.dup2(null, self._output)
        os.close(null)

    def is_readable(self) -> bool:
        return not self.ended and bool(self._poll.poll(0))

    def read(self) -> List[Tuple[int, bytes]]:
        """Waits for bytes and returns the frames that are whole."""
        block = os.read(self._input, BLOCK)
        if not block:
            self.ended = True
            return []
        buffer, frames, at = self._buffer, [], 0
        buffer += block
        have = len(buffer)
        while have - at >= 5:
            length, kind = HEADER.unpack_from(buffer, at)
            if length > self.frame_bytes:
                raise ProtocolError(f"a frame of {length} bytes, at most {self.frame_bytes} are allowed")
            end = at + 5 + length
            if end > have:
                break
            with memoryview(buffer) as view:
                frames.append((kind, bytes(view[at + 5 : end])))
            at = end
        del buffer[:at]
        return frames

    def write(self, kind: int, *parts: bytes) -> None:
        """Sends a frame."""
        if os.getpid() != self._pid:
            # A forked child has returned from its task. It has nothing to say and nothing more to do.
            os._exit(0)
        data = b"".join((HEADER.pack(sum(map(len, parts)), kind), *parts))
        written = os.write(self._output, data)
        if written < len(data):
            view = memoryview(data)
            while written < len(data):
                written += os.write(self._output, view[written:])
