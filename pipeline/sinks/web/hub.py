"""From the sink's thread to the viewers on the server's loop: the newest picture, and packets.

The sink's thread never waits here. What a viewer has not fetched in time is overwritten or skipped.
"""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import AsyncGenerator
from typing import Any

# Encoded pictures that may wait for one WebRTC viewer; only a loop that is late lets them wait.
_BACKLOG = 15


class Newest:
    """The newest item of a kind, as bytes; for the server's loop, but for `offer`."""

    def __init__(self) -> None:
        self.viewers = 0
        self._item = b""
        self._number = 0
        self._closed = False
        self._news = asyncio.Event()
        self._offered: bytes | None = None
        self._lock = threading.Lock()

    def publish(self, item: bytes) -> None:
        """Hands it to all who watch."""
        self._item = item
        self._number += 1
        self._tell()

    def close(self) -> None:
        """There will be no more; who has not seen the last one still gets it."""
        self._closed = True
        self._tell()

    def _tell(self) -> None:
        self._news.set()
        self._news = asyncio.Event()

    def offer(self, loop: asyncio.AbstractEventLoop, item: bytes) -> None:
        """`publish` from another thread; a loop that is late gets only the newest."""
        with self._lock:
            waiting, self._offered = self._offered is not None, item
        if not waiting:
            loop.call_soon_threadsafe(self._take)

    def _take(self) -> None:
        with self._lock:
            item, self._offered = self._offered, None
        if item is not None:
            self.publish(item)

    async def watch(self) -> AsyncGenerator[bytes, None]:
        """The newest, whenever there is a newer one than the last; until `close`."""
        # What was made for the last viewer, perhaps an hour ago, is no news for the next.
        number = self._number if not self.viewers else 0
        self.viewers += 1
        try:
            while True:
                while number == self._number or not self._number:
                    if self._closed:
                        return
                    await self._news.wait()
                number = self._number
                yield self._item
        finally:
            self.viewers -= 1


class Inbox:
    """The packets that wait for one viewer. It begins with a key picture, and so it goes on after
    it has fallen behind.
    """

    def __init__(self) -> None:
        self._packets: deque[Any] = deque()
        self._news = asyncio.Event()
        self._needs_key = True

    def put(self, packet: Any) -> bool:
        """Takes a packet in; False if the viewer needs a key picture now."""
        if packet.is_keyframe:
            self._needs_key = False
            self._packets.clear()
        if self._needs_key:
            return False
        if len(self._packets) >= _BACKLOG:
            self._packets.clear()
            self._needs_key = True
            return False
        self._packets.append(packet)
        self._news.set()
        return True

    async def get(self) -> Any:
        while not self._packets:
            self._news.clear()
            await self._news.wait()
        return self._packets.popleft()


class PacketFeed:
    """Encoded packets to every viewer, and their wishes for a key picture back to the encoder."""

    def __init__(self) -> None:
        self._inboxes: set[Inbox] = set()
        self._offered: deque[Any] = deque()
        self._key_wanted = threading.Event()

    @property
    def viewers(self) -> int:
        return len(self._inboxes)

    def join(self, inbox: Inbox) -> None:
        """From now on `inbox` gets packets; the next is a key picture."""
        self._inboxes.add(inbox)
        self.want_key()

    def leave(self, inbox: Inbox) -> None:
        self._inboxes.discard(inbox)

    def want_key(self) -> None:
        """A viewer has lost the thread; any thread may say so."""
        self._key_wanted.set()

    @property
    def key_wanted(self) -> bool:
        return self._key_wanted.is_set()

    def key_given(self) -> None:
        self._key_wanted.clear()

    def offer(self, loop: asyncio.AbstractEventLoop, packets: list[Any]) -> None:
        """Hands packets to the viewers, from another thread than the loop's."""
        if len(self._offered) > _BACKLOG:  # the loop is late for all of them
            self._offered.clear()
            self.want_key()
        self._offered.extend(packets)
        loop.call_soon_threadsafe(self._take)

    def _take(self) -> None:
        while self._offered:
            try:
                packet = self._offered.popleft()
            except IndexError:  # the other thread has just cleared it
                return
            for inbox in self._inboxes:
                if not inbox.put(packet):
                    self.want_key()
