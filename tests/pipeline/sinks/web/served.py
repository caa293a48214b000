"""A pipeline that runs beside the test, with its page; and plain sockets to speak with that."""

from __future__ import annotations

import http.client
import json
import re
import socket
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

import pytest

from engines.fake_engine import FakeEngine, fake_card
from pipeline.api import stages_for
from pipeline.runner import Pipeline
from pipeline.sinks.web import open_web
from pipeline.sources import SyntheticSource
from pipeline.stages import Controls, Look

pytest.importorskip("uvicorn", reason="the extra web is not installed")

TOKEN = "a-token-for-tests-only"


@dataclass
class Served:
    """A run with a page, until its block ends."""

    web: Any
    pipeline: Pipeline
    controls: Controls
    said: list[str]
    stop: Callable[[], None]
    errors: list[BaseException] = field(default_factory=list)

    @property
    def port(self) -> int:
        return urlsplit(self.web.url).port or 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def ask(
        self, path: str, method: str = "GET", body: Any = None, **headers: str
    ) -> tuple[int, dict[str, str], bytes]:
        """Status, headers by lower-case name, and body of a request of its own connection."""
        with closing(http.client.HTTPConnection("127.0.0.1", self.port, timeout=10)) as client:
            sent = {name.replace("_", "-"): value for name, value in headers.items()}
            if body is not None and not isinstance(body, (bytes, str)):
                body = json.dumps(body)
            if method == "POST":
                sent.setdefault("content-type", "application/json")
            client.request(method, path, body, sent)
            response = client.getresponse()
            got = {name.lower(): value for name, value in response.getheaders()}
            return response.status, got, response.read()

    def status(self, path: str, method: str = "GET", body: Any = None, **headers: str) -> int:
        return self.ask(path, method, body, **headers)[0]

    def connect(self, receive_buffer: int | None = None) -> socket.socket:
        """A bare connection; a small buffer makes its reader slow at once."""
        client = socket.socket()
        if receive_buffer is not None:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        client.settimeout(10)
        client.connect(("127.0.0.1", self.port))
        return client

    def send(self, data: bytes) -> bytes:
        """What comes back for these bytes, up to the end."""
        with closing(self.connect()) as client:
            client.sendall(data)
            got = b""
            try:
                while chunk := client.recv(65536):
                    got += chunk
            except ConnectionResetError:
                pass
            return got

    def metric(self, name: str, token: str | None = None) -> float:
        headers = {"authorization": f"Bearer {token}"} if token else {}
        text = self.ask("/metrics", **headers)[2].decode()
        found = re.search(rf"^{re.escape(name)} (\S+)$", text, re.MULTILINE)
        return float(found[1]) if found else 0.0


@contextmanager
def serving(
    address: str = "127.0.0.1:0",
    *,
    token: str | None = None,
    count: int = 100_000,
    fps: int = 15,
    size: tuple[int, int] = (180, 320),
    classes: int = 21,
    look: Look | None = None,
    sinks: Sequence[Any] = (),
) -> Iterator[Served]:
    """A live synthetic source under the fake engine; its first frame has been delivered."""
    said: list[str] = []
    engine = FakeEngine(fake_card(classes=classes), parallel=1)
    controls = Controls(look)
    web = open_web(address, engine.card, controls, token=token, say=said.append)
    with engine, closing(web):
        source = SyntheticSource(*size, count=count, fps=fps, paced=True)
        pipeline = Pipeline(source, stages_for(engine, controls), [web, *sinks])
        web.pipeline = pipeline
        errors: list[BaseException] = []

        def run() -> None:
            try:
                pipeline.run()
            except BaseException as error:
                errors.append(error)

        thread = threading.Thread(target=run, name="test-run")

        def stop() -> None:
            pipeline.stop()
            thread.join(20)

        thread.start()
        try:
            wait_for(lambda: pipeline.delivered > 0 or errors)
            served = Served(web, pipeline, controls, said, stop, errors)
            # Its thread is there from now on: it is this run's, and no test's that leaves it.
            bearer = {"authorization": f"Bearer {token}"}
            wait_for(lambda: served.status("/snapshot.png", **bearer) == 200)
            yield served
        finally:
            stop()
        assert not errors, errors
        assert not thread.is_alive()


def wait_for(condition: Callable[[], Any], timeout_s: float = 15.0) -> Any:
    """The condition's first true value."""
    deadline = time.monotonic() + timeout_s
    while not (value := condition()):
        assert time.monotonic() < deadline, "it did not come true in time"
        time.sleep(0.02)
    return value


def jpegs(client: socket.socket, path: str = "/stream.mjpg", **headers: str) -> Iterator[bytes]:
    """The pictures of the MJPEG stream."""
    lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    client.sendall(f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\n{lines}\r\n".encode())
    data = b""
    while chunk := client.recv(65536):
        data += chunk
        while (start := data.find(b"\xff\xd8")) >= 0:
            if (end := data.find(b"\r\n--frame", start)) < 0:
                break
            yield data[start:end]
            data = data[end + 9 :]
