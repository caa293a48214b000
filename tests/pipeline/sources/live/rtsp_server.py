"""A camera on RTSP: GStreamer's server in a process of its own, run by the system's Python.

    /usr/bin/python3 rtsp_server.py '{"port": 8554, "files": ["a.units"], "fps": 30, "epoch": 0}'

It sends coded pictures from a file of access units (tests/live/peers.py writes them), round and
round; which one is due is a matter of the monotonic clock alone, so that a server that was killed,
stopped or started anew goes on where a camera would be. `switch N` on stdin changes to file N at
its next keyframe; "ready" on stdout says that it listens.
"""

import json
import struct
import sys
import threading
import time

import gi

gi.require_version("Gst", "1.0")
gi.require_version("GstRtsp", "1.0")
gi.require_version("GstRtspServer", "1.0")
from gi.repository import GLib, Gst, GstRtsp, GstRtspServer  # noqa: E402

PIPELINE = (
    "( appsrc name=source is-live=true format=time do-timestamp=true "
    "caps=video/x-h264,stream-format=byte-stream,alignment=au "
    "! h264parse ! rtph264pay name=pay0 pt=96 config-interval=-1 )"
)


def read_units(path):
    """[(is a keyframe, bytes)]."""
    units = []
    with open(path, "rb") as file:
        while header := file.read(5):
            key, size = struct.unpack(">?I", header)
            units.append((key, file.read(size)))
    return units


class Camera:
    """Pushes what is due into the server's source, in a thread of its own."""

    def __init__(self, order):
        self.clips = [read_units(path) for path in order["files"]]
        self.fps, self.epoch = order["fps"], order["epoch"]
        self.chosen = 0

    def feed(self, source):
        threading.Thread(target=self._push, args=(source,), daemon=True).start()

    def _push(self, source):
        units = self.clips[self.chosen]
        number, waits_for_key = int((time.monotonic() - self.epoch) * self.fps) + 1, True
        while True:
            due = self.epoch + number / self.fps
            behind = time.monotonic() - due
            if behind > 1.0:  # stopped for a while: a camera does not send what is past
                number, waits_for_key = number + int(behind * self.fps), True
                continue
            if behind < 0:
                time.sleep(-behind)
            wanted = self.clips[self.chosen]
            if wanted is not units and wanted[number % len(wanted)][0]:
                units = wanted
            key, data = units[number % len(units)]
            number += 1
            if waits_for_key and not key:
                continue
            waits_for_key = False
            if source.emit("push-buffer", Gst.Buffer.new_wrapped(data)) != Gst.FlowReturn.OK:
                return


class Factory(GstRtspServer.RTSPMediaFactory):
    def __init__(self, camera):
        super().__init__()
        self.camera = camera
        self.set_shared(True)

    def do_create_element(self, url):
        return Gst.parse_launch(PIPELINE)

    def do_configure(self, media):
        GstRtspServer.RTSPMediaFactory.do_configure(self, media)
        self.camera.feed(media.get_element().get_by_name("source"))


def protect(server, factory, user, password):
    """Only `user` may look (basic and digest authentication)."""
    token = GstRtspServer.RTSPToken()
    token.set_string("media.factory.role", "viewer")
    auth = GstRtspServer.RTSPAuth()
    auth.add_basic(GstRtspServer.RTSPAuth.make_basic(user, password), token)
    server.set_auth(auth)
    permissions = GstRtspServer.RTSPPermissions()
    for right in ("access", "construct"):
        permissions.add_permission_for_role("viewer", f"media.factory.{right}", True)
    factory.set_permissions(permissions)


def main():
    order = json.loads(sys.argv[1])
    Gst.init(None)
    camera = Camera(order)
    server = GstRtspServer.RTSPServer()
    server.set_address("127.0.0.1")
    server.set_service(str(order["port"]))
    factory = Factory(camera)
    if order.get("udp_only"):
        factory.set_protocols(GstRtsp.RTSPLowerTrans.UDP)
    if order.get("user"):
        protect(server, factory, order["user"], order["password"])
    server.get_mount_points().add_factory("/camera", factory)
    loop = GLib.MainLoop()
    if not server.attach(None):
        sys.exit("the port is taken")
    print("ready", flush=True)

    def listen():
        for line in sys.stdin:
            camera.chosen = int(line.split()[1])
        loop.quit()  # the test has ended, however it did

    threading.Thread(target=listen, daemon=True).start()
    loop.run()


main()
