// The live picture: by WebRTC, and by MJPEG where that fails or is asked for.

const FIRST_PICTURE_MS = 8000; // WebRTC that has shown nothing by then has failed
const STILL_MS = 10000;
const AWAY_MS = 5000; // a page that nobody looks at lets go of the picture

export class Picture {
  // `report(transport, text)` is told what is shown, or what is the matter.
  constructor(video, image, report) {
    this.video = video;
    this.image = image;
    this.report = report;
    this.wanted = null; // "webrtc" or "mjpeg"
    this.reason = ""; // why it is not WebRTC, if that was tried
    this.peer = null;
    this.attempt = 0; // what an earlier attempt still has to say is of no interest
    document.addEventListener("visibilitychange", () => this.seen(!document.hidden));
    video.addEventListener("playing", () => this.report("webrtc", ""));
    image.addEventListener("load", () => this.report("mjpeg", this.reason));
    image.addEventListener("error", () => {
      if (this.wanted === "mjpeg" && image.hasAttribute("src")) this.later(() => this.mjpeg(), 2000);
    });
    setInterval(() => this.watch(), 1000);
  }

  start(transport) {
    this.stop();
    this.reason = "";
    this.wanted = transport;
    if (document.hidden) return;
    if (transport === "webrtc") this.webrtc();
    else this.mjpeg();
  }

  stop() {
    this.attempt++;
    this.peer?.close();
    this.peer = null;
    this.video.srcObject = null;
    this.video.hidden = true;
    this.image.removeAttribute("src"); // ends the connection; an empty one would load this page
    this.image.hidden = true;
  }

  later(what, ms) {
    const attempt = this.attempt;
    setTimeout(() => attempt === this.attempt && what(), ms);
  }

  seen(visible) {
    clearTimeout(this.away);
    if (!visible) this.away = setTimeout(() => this.stop(), AWAY_MS);
    else if (this.wanted && this.video.hidden && this.image.hidden) this.start(this.wanted);
  }

  mjpeg() {
    this.image.hidden = false;
    // A new address each time: a browser takes the same one for the picture it has already.
    this.image.src = `/stream.mjpg?${Date.now()}`;
  }

  fall(reason) {
    this.start("mjpeg");
    this.reason = reason;
    this.report("mjpeg", reason);
  }

  async webrtc() {
    const attempt = this.attempt, mine = () => attempt === this.attempt;
    try {
      const peer = (this.peer = new RTCPeerConnection({ iceServers: [] }));
      this.decoded = 0;
      this.decodedAt = Date.now();
      this.decodeLimit = FIRST_PICTURE_MS;
      const { receiver } = peer.addTransceiver("video", { direction: "recvonly" });
      if ("jitterBufferTarget" in receiver) receiver.jitterBufferTarget = 0; // live, not smooth
      peer.ontrack = ({ track }) => {
        this.video.srcObject = new MediaStream([track]);
        this.video.hidden = false;
        this.video.play().catch(() => {});
      };
      peer.onconnectionstatechange = () => {
        if (mine() && peer.connectionState === "failed") this.fall("WebRTC: no way through");
      };
      await peer.setLocalDescription(await peer.createOffer());
      await gathered(peer);
      const response = await fetch("/api/offer", {
        method: "POST",
        headers: { "content-type": "application/json" },
        body: JSON.stringify({ sdp: peer.localDescription.sdp }),
      });
      if (!mine()) return;
      if (!response.ok) return this.fall(`WebRTC: ${(await response.text()).trim()}`);
      await peer.setRemoteDescription({ type: "answer", sdp: (await response.json()).sdp });
    } catch (error) {
      if (mine()) this.fall(`WebRTC: ${error.message}`);
    }
  }

  // Whether WebRTC still shows pictures, while the server has some (`flowing`).
  async watch() {
    const { peer } = this, attempt = this.attempt;
    if (!peer || document.hidden) return;
    let decoded = this.decoded;
    for (const row of (await peer.getStats()).values()) {
      if (row.type === "inbound-rtp") decoded = row.framesDecoded ?? decoded;
    }
    if (attempt !== this.attempt) return;
    const now = Date.now();
    if (decoded !== this.decoded || !this.flowing) {
      if (decoded) this.decodeLimit = STILL_MS;
      this.decoded = decoded;
      this.decodedAt = now;
    } else if (now - this.decodedAt > this.decodeLimit) {
      this.fall("WebRTC: no picture came");
    }
  }
}

// All candidates in one offer, so that one answer is enough; those of the host are soon there.
function gathered(peer) {
  return new Promise((done) => {
    if (peer.iceGatheringState === "complete") return done();
    peer.addEventListener("icegatheringstatechange", () => peer.iceGatheringState === "complete" && done());
    setTimeout(done, 1500);
  });
}
