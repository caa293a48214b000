"""WebRTC viewers: a peer connection each, all fed by the one encoder."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Coroutine
from typing import Any

from aiortc import (
    MediaStreamTrack,
    RTCConfiguration,
    RTCPeerConnection,
    RTCRtpSender,
    RTCSessionDescription,
)
from aiortc.exceptions import OperationError

from pipeline.sinks.web.hub import Inbox, PacketFeed

# An offer whose browser does not come is forgotten after this, and so is a viewer that no longer
# reports what it receives, which all do every second or so. ICE alone would take half a minute.
_CONNECT_S = 15.0
_SILENT_S = 10.0
_LOOK_EVERY_S = 1.0


class OfferError(Exception):
    """An offer that cannot be answered; the message is for whoever made it."""


class _PacketTrack(MediaStreamTrack):
    """The encoder's packets, as aiortc fetches them: it sends packets as they are."""

    kind = "video"

    def __init__(self, feed: PacketFeed) -> None:
        super().__init__()
        self._feed = feed
        self._inbox: Inbox | None = None

    async def recv(self) -> Any:
        if self._inbox is None:
            # Not before: until the connection stands nothing is fetched, nor need be encoded.
            self._inbox = Inbox()
            self._feed.join(self._inbox)
        return await self._inbox.get()

    def stop(self) -> None:
        super().stop()
        if self._inbox is not None:
            self._feed.leave(self._inbox)


class Peers:
    """The WebRTC viewers; for the server's loop."""

    def __init__(self, feed: PacketFeed, limit: int) -> None:
        self._feed = feed
        self._limit = limit
        self._peers: set[RTCPeerConnection] = set()
        self._tasks: set[asyncio.Task[None]] = set()

    async def answer(self, sdp: str) -> str:
        """The SDP answer to a browser's offer to receive video; raises OfferError."""
        if len(self._peers) >= self._limit:
            raise OfferError(f"{self._limit} viewers watch by WebRTC already")
        # No servers: who cannot reach this machine directly gets MJPEG, and nobody else is told.
        peer = RTCPeerConnection(RTCConfiguration(iceServers=[]))
        self._peers.add(peer)
        try:
            answer = await self._negotiate(peer, sdp)
        except BaseException:
            await self._close(peer)
            raise
        self._begin(self._watch(peer))
        return answer

    async def _negotiate(self, peer: RTCPeerConnection, sdp: str) -> str:
        peer.on("connectionstatechange", lambda: self._changed(peer))
        video = peer.addTransceiver(_PacketTrack(self._feed), direction="sendonly")
        codecs = RTCRtpSender.getCapabilities("video").codecs
        video.setCodecPreferences([c for c in codecs if c.mimeType in ("video/H264", "video/rtx")])
        # What a browser asks for (PLI, FIR) ends here; aiortc would ask an encoder of its own.
        video.sender._send_keyframe = self._feed.want_key  # type: ignore[method-assign]
        try:
            await peer.setRemoteDescription(RTCSessionDescription(sdp, "offer"))
        except OperationError:
            raise OfferError("the offer has no H.264 video to receive") from None
        except Exception as error:  # its parser raises whatever a wrong text makes it stumble over
            raise OfferError("the offer is no SDP that can be read") from error
        if len(peer.getTransceivers()) != 1 or peer.sctp is not None or video.mid is None:
            raise OfferError("the offer must be to receive one video, and nothing else")
        await peer.setLocalDescription(await peer.createAnswer())
        return str(peer.localDescription.sdp)

    def _changed(self, peer: RTCPeerConnection) -> None:
        if peer.connectionState in ("failed", "closed"):
            # In a task of its own: who tells this is part of the connection.
            self._begin(self._close(peer))

    async def _watch(self, peer: RTCPeerConnection) -> None:
        """Parts from a viewer that never comes, or that has gone without a word."""
        begun = heard_at = time.monotonic()
        (sender,) = peer.getSenders()
        heard, sent = None, 0
        while peer in self._peers:
            await asyncio.sleep(_LOOK_EVERY_S)
            now = time.monotonic()
            if peer.connectionState != "connected":
                if now - begun > _CONNECT_S:
                    await self._close(peer)
                continue
            stats = {row.type: row for row in (await sender.getStats()).values()}
            report, packets = stats.get("remote-inbound-rtp"), stats["outbound-rtp"].packetsSent
            # Where nothing is sent, because the source stands still, there is nothing to report.
            if packets == sent or (report is not None and report.timestamp != heard):
                heard_at = now
            heard, sent = report.timestamp if report is not None else None, packets
            if now - heard_at > _SILENT_S:
                await self._close(peer)

    def _begin(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _close(self, peer: RTCPeerConnection) -> None:
        if peer in self._peers:
            self._peers.discard(peer)
            for sender in peer.getSenders():
                if sender.track is not None:
                    sender.track.stop()
            await peer.close()

    async def close(self) -> None:
        """Parts from all viewers."""
        await asyncio.gather(*(self._close(peer) for peer in list(self._peers)))
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
