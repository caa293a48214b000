"""WebRTC viewers: a peer connection each, all fed by the one encoder."""

from __future__ import annotations

import asyncio
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

# An offer whose browser never comes; ICE itself gives up a viewer that has vanished after 30 s.
_CONNECT_S = 15.0


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
        self._closing: set[asyncio.Task[None]] = set()

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
        asyncio.get_running_loop().call_later(_CONNECT_S, self._check, peer)
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
            self._part(peer)

    def _check(self, peer: RTCPeerConnection) -> None:
        if peer in self._peers and peer.connectionState != "connected":
            self._part(peer)

    def _part(self, peer: RTCPeerConnection) -> None:
        """Closes a connection, in a task of its own: who tells may be part of it."""
        task = asyncio.ensure_future(self._close(peer))
        self._closing.add(task)
        task.add_done_callback(self._closing.discard)

    async def _close(self, peer: RTCPeerConnection) -> None:
        if peer in self._peers:
            self._peers.discard(peer)
            for sender in peer.getSenders():
                if sender.track is not None:
                    sender.track.stop()
            await peer.close()

    async def close(self) -> None:
        """Parts from all viewers."""
        await asyncio.gather(*(self._close(peer) for peer in list(self._peers)), *self._closing)
