"""The host's end of the connection to the agent in a machine. See guest/agent.py for messages."""

import json
import socket
import struct
import threading
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeoutError
from dataclasses import dataclass
from typing import Any

from tests.machine.harness.errors import MachineError

_HEADER = struct.Struct(">II")
_HELLO = 0


@dataclass(frozen=True, slots=True)
class Answer:
    """The agent's answer: the JSON object's fields, and the raw bytes."""

    fields: dict[str, Any]
    payload: bytes


class Channel:
    """Sends requests from any thread; one thread of its own hands out the answers."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._send_lock = threading.Lock()
        self._state_lock = threading.Lock()
        self._pending: dict[int, Future[Answer]] = {_HELLO: Future()}
        self._last_id = _HELLO
        self._closed = False
        self._hello = self._pending[_HELLO]
        self._reader = threading.Thread(target=self._read_answers, daemon=True)
        self._reader.start()

    def wait_ready(self, timeout_s: float) -> str:
        """Wait until the agent says hello; returns the machine's kernel release."""
        return str(self._result(self._hello, timeout_s, "boot").fields["hello"])

    def request(
        self, op: str, fields: dict[str, Any], payload: bytes = b"", *, timeout_s: float | None
    ) -> Answer:
        """Ask the agent for one operation.

        Raises MachineError if the agent refuses it, if the machine ends, or if no answer came
        within `timeout_s`; None waits as long as the machine runs.
        """
        future: Future[Answer] = Future()
        with self._state_lock:
            if self._closed:
                raise MachineError("the machine has ended")
            self._last_id += 1
            number = self._last_id
            self._pending[number] = future
        text = json.dumps({"id": number, "op": op, **fields}).encode()
        with self._send_lock:
            try:
                self._connection.sendall(_HEADER.pack(len(text), len(payload)) + text + payload)
            except OSError as error:
                raise MachineError(f"the machine has ended: {error}") from None
        answer = self._result(future, timeout_s, op)
        if "error" in answer.fields:
            raise MachineError(f"{op} {fields.get('path', '')}: {answer.fields['error']}")
        return answer

    def close(self) -> None:
        """Close the connection; requests that wait for an answer fail."""
        try:
            self._connection.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass
        self._reader.join()
        self._connection.close()

    def _result(self, future: Future[Answer], timeout_s: float | None, what: str) -> Answer:
        try:
            return future.result(timeout_s)
        except FutureTimeoutError:
            raise MachineError(f"{what}: no answer within {timeout_s:g} s") from None

    def _read_answers(self) -> None:
        try:
            while True:
                sizes = _HEADER.unpack(self._receive(_HEADER.size))
                fields = json.loads(self._receive(sizes[0]))
                answer = Answer(fields, self._receive(sizes[1]))
                with self._state_lock:
                    future = self._pending.pop(fields["id"], None)
                if future:
                    future.set_result(answer)
        except (OSError, EOFError):
            with self._state_lock:
                self._closed = True
                left = list(self._pending.values())
            for future in left:
                future.set_exception(MachineError("the machine has ended"))

    def _receive(self, size: int) -> bytes:
        data = bytearray(size)
        view = memoryview(data)
        while view:
            count = self._connection.recv_into(view)
            if count == 0:
                raise EOFError
            view = view[count:]
        return bytes(data)
