"""WebRTC viewers as aiortc plays them: one encoder, key pictures on request, vanished peers."""

import asyncio
import json
from contextlib import asynccontextmanager

import pytest

pytest.importorskip("aiortc", reason="the extra web is not installed")

from aioice.ice import get_host_addresses
from aiortc import RTCConfiguration, RTCPeerConnection, RTCRtpReceiver, RTCSessionDescription

from pipeline.sinks.web import h264
from pipeline.sources.synthetic import read_number
from pipeline.stages import Look
from tests.pipeline.sinks.web.served import serving, wait_for

pytestmark = pytest.mark.skipif(
    not get_host_addresses(use_ipv4=True, use_ipv6=False),
    reason="WebRTC needs an address that is not the loopback's",
)


@pytest.fixture(scope="module")
def page():
    with serving(look=Look(overlay=0.0), size=(360, 640)) as served:
        yield served


def rtc_viewers(page):
    return page.metric('streamseg_web_viewers{transport="webrtc"}')


@asynccontextmanager
async def viewer(page):
    """A peer that receives the video, with its track."""
    peer = RTCPeerConnection(RTCConfiguration(iceServers=[]))
    peer.addTransceiver("video", direction="recvonly")
    tracks = []
    peer.on("track", tracks.append)
    await peer.setLocalDescription(await peer.createOffer())
    offer = {"sdp": peer.localDescription.sdp}
    status, _, body = await asyncio.to_thread(page.ask, "/api/offer", "POST", offer)
    assert status == 200, body
    await peer.setRemoteDescription(RTCSessionDescription(json.loads(body)["sdp"], "answer"))
    try:
        yield peer, tracks[0]
    finally:
        await peer.close()


async def number(track):
    frame = await asyncio.wait_for(track.recv(), 15)
    return read_number(frame.to_ndarray(format="rgb24"))


def test_viewers_see_the_live_picture_from_one_encoder(page, monkeypatch):
    opened = []
    real = h264._open
    monkeypatch.setattr(h264, "_open", lambda h, w: opened.append((h, w)) or real(h, w))

    async def watch():
        async with viewer(page) as (_, one), viewer(page) as (_, two):
            numbers = [[await number(one), await number(two)] for _ in range(12)]
            assert await asyncio.to_thread(rtc_viewers, page) == 2
            return numbers, page.pipeline.delivered

    numbers, delivered = asyncio.run(watch())
    for seen in zip(*numbers, strict=True):
        assert list(seen) == sorted(seen)
        assert delivered - 15 < seen[-1] <= delivered
    assert opened == [(360, 640)]
    wait_for(lambda: rtc_viewers(page) == 0)


def test_a_request_for_a_key_picture_reaches_the_encoder(page, monkeypatch):
    """PLI on the wire, as a browser sends it when it has lost a packet."""
    keys = []
    real = h264.SharedEncoder.encode

    def encode(self, picture, key_wanted):
        packets = real(self, picture, key_wanted)
        keys.extend(p.is_keyframe for p in packets)
        return packets

    monkeypatch.setattr(h264.SharedEncoder, "encode", encode)

    async def watch():
        async with viewer(page) as (peer, track):
            for _ in range(12):  # past the first key picture, and the half second after it
                await number(track)
            keys.clear()
            for _ in range(4):
                await number(track)
            assert not any(keys)
            receiver = peer.getReceivers()[0]
            assert isinstance(receiver, RTCRtpReceiver)
            (ssrc,) = {s.source for s in receiver.getSynchronizationSources()}
            await receiver._send_rtcp_pli(ssrc)
            for _ in range(8):
                await number(track)

    asyncio.run(watch())
    assert sum(keys) == 1


def test_the_encoder_rests_when_the_last_viewer_has_gone(page, monkeypatch):
    async def watch():
        async with viewer(page) as (_, track):
            await number(track)

    asyncio.run(watch())
    wait_for(lambda: rtc_viewers(page) == 0)
    calls = []
    monkeypatch.setattr(h264.SharedEncoder, "encode", lambda *_: calls.append(1) or [])
    before = page.pipeline.delivered
    wait_for(lambda: page.pipeline.delivered > before + 5)
    assert not calls


def test_an_offer_without_h264_is_refused(page):
    async def ask():
        peer = RTCPeerConnection(RTCConfiguration(iceServers=[]))
        transceiver = peer.addTransceiver("video", direction="recvonly")
        codecs = RTCRtpReceiver.getCapabilities("video").codecs
        transceiver.setCodecPreferences([c for c in codecs if c.mimeType == "video/VP8"])
        await peer.setLocalDescription(await peer.createOffer())
        offer = {"sdp": peer.localDescription.sdp}
        answer = await asyncio.to_thread(page.ask, "/api/offer", "POST", offer)
        await peer.close()
        return answer

    status, _, text = asyncio.run(ask())
    assert (status, text) == (422, b"the offer has no H.264 video to receive\n")


def test_an_offer_that_nobody_takes_up_is_forgotten(page, monkeypatch):
    monkeypatch.setattr("pipeline.sinks.web.rtc._CONNECT_S", 0.5)

    async def ask():
        peer = RTCPeerConnection(RTCConfiguration(iceServers=[]))
        peer.addTransceiver("video", direction="recvonly")
        await peer.setLocalDescription(await peer.createOffer())
        sdp = peer.localDescription.sdp
        await peer.close()
        for _ in range(20):
            status, _, _ = await asyncio.to_thread(page.ask, "/api/offer", "POST", {"sdp": sdp})
            if status != 200:
                return status
        return 200

    assert asyncio.run(ask()) == 422  # 16 wait for their browsers
    wait_for(lambda: asyncio.run(ask()) == 422)
