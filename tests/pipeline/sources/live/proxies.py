"""What lies between a camera and us: a slow line, and one that loses and reorders packets."""

from __future__ import annotations

import random
import re
import selectors
import socket
import threading
import time
from contextlib import suppress

from tests.pipeline.sources.live.peers import free_port


class SlowLine:
    """A TCP proxy on loopback that passes on so many bytes a second from the server, or all."""

    def __init__(self, port: int, bytes_per_s: float | None = None) -> None:
        self.bytes_per_s = bytes_per_s
        """May be changed at any time; None does not slow down."""
        self.passed = 0
        self._target = port
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self._sockets: list[socket.socket] = []
        self._threads: list[threading.Thread] = []
        self._closed = False
        self._spawn(self._accept)

    def __enter__(self) -> SlowLine:
        return self

    def __exit__(self, *error: object) -> None:
        self._closed = True
        self.cut()
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for thread in self._threads:
            thread.join()
        for each in self._sockets:
            each.close()

    def cut(self) -> None:
        """Breaks every connection."""
        for each in self._sockets:
            with suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)

    def _spawn(self, target: object, *args: object) -> None:
        thread = threading.Thread(target=target, args=args, daemon=True)  # type: ignore[arg-type]
        thread.start()
        self._threads.append(thread)

    def _accept(self) -> None:
        while not self._closed:
            try:
                client, _ = self._listener.accept()
            except OSError:
                continue
            self._sockets.append(client)
            try:
                server = socket.create_connection(("127.0.0.1", self._target), timeout=5)
            except OSError:
                client.close()
                continue
            server.settimeout(None)
            for each in (client, server):
                each.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._sockets.append(server)
            self._spawn(self._pass_on, client, server, False)
            self._spawn(self._pass_on, server, client, True)

    def _pass_on(self, source: socket.socket, target: socket.socket, slow: bool) -> None:
        free_at = time.monotonic()
        with suppress(OSError):
            while data := source.recv(1500 if self.bytes_per_s else 65536):
                if slow and (rate := self.bytes_per_s) is not None:
                    now = time.monotonic()
                    free_at = max(free_at, now) + len(data) / rate
                    while time.monotonic() < free_at and self.bytes_per_s is not None:
                        time.sleep(min(0.01, max(0.0, free_at - time.monotonic())))
                target.sendall(data)
                self.passed += len(data) * slow
        for each in (source, target):
            with suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)


class LossyLine:
    """An RTSP proxy for media over UDP: it puts itself into the SETUP, and then drops packets and
    holds some back behind later ones, by chance but the same every time.
    """

    def __init__(self, port: int, loss: float = 0.0, disorder: float = 0.0) -> None:
        self.loss, self.disorder = loss, disorder
        self.lost = self.reordered = self.passed = 0
        self._random = random.Random(7)
        self._media = [self._udp() for _ in range(2)]
        self._theirs: list[int] = []
        self._held: bytes | None = None
        self._control = SlowLine(port)
        self._control._pass_on = self._pass_on_control  # type: ignore[method-assign]
        self.port = self._control.port
        self._closed = False
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    @staticmethod
    def _udp() -> socket.socket:
        udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        udp.bind(("127.0.0.1", free_port(socket.SOCK_DGRAM)))
        return udp

    def __enter__(self) -> LossyLine:
        return self

    def __exit__(self, *error: object) -> None:
        self._closed = True
        self._control.__exit__(*error)
        self._thread.join()
        for each in self._media:
            each.close()

    def _pass_on_control(self, source: socket.socket, target: socket.socket, slow: bool) -> None:
        """Requests and answers, with our ports in the place of the client's, and back again."""
        ours = "-".join(str(udp.getsockname()[1]) for udp in self._media)
        with suppress(OSError):
            while data := source.recv(65536):
                text = data.decode("latin-1")
                if not slow and (found := re.search(r"client_port=(\d+)-(\d+)", text)):
                    self._theirs = [int(found[1]), int(found[2])]
                    text = text.replace(found[0], f"client_port={ours}")
                elif slow and self._theirs:
                    theirs = "-".join(map(str, self._theirs))
                    text = text.replace(f"client_port={ours}", f"client_port={theirs}")
                target.sendall(text.encode("latin-1"))
        for each in (source, target):
            with suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)

    def _run(self) -> None:
        with selectors.DefaultSelector() as selector:
            for i, udp in enumerate(self._media):
                selector.register(udp, selectors.EVENT_READ, i)
            while not self._closed:
                for key, _ in selector.select(0.05):
                    data = self._media[key.data].recv(65536)
                    if len(self._theirs) == 2:
                        self._forward(key.data, data)

    def _forward(self, i: int, data: bytes) -> None:
        target = ("127.0.0.1", self._theirs[i])
        if i == 0 and self._random.random() < self.loss:
            self.lost += 1
            return
        if i == 0 and self._held is None and self._random.random() < self.disorder:
            self._held = data
            self.reordered += 1
            return
        self._media[i].sendto(data, target)
        self.passed += 1
        if i == 0 and self._held is not None:
            self._media[0].sendto(self._held, target)
            self._held = None
