"""The server by real sockets: what it serves, what it refuses, and what its viewers cost."""

import dataclasses
import json
import re
import socket
import threading
import time
from contextlib import ExitStack, closing

import cv2
import numpy as np
import pytest

from pipeline.sinks.web.app import MAX_VIEWERS
from pipeline.sources.synthetic import read_number
from pipeline.stages import Look
from tests.pipeline.sinks.web.served import TOKEN, jpegs, serving, wait_for

LIVE = Look(overlay=0.0)  # so that the numbers in the pictures can be read


def decode(data):
    return cv2.cvtColor(
        cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR), cv2.COLOR_BGR2RGB
    )


@pytest.fixture(scope="module")
def running():
    with serving(look=LIVE) as served:
        yield served


@pytest.fixture
def page(running):
    """On localhost, without a token; shared, so every test begins with the same look."""
    running.controls.change(**dataclasses.asdict(LIVE))
    running.said.clear()
    return running


@pytest.fixture(scope="module")
def guarded():
    """On every address of the machine, so with a token."""
    with serving("0.0.0.0:0", token=TOKEN) as served:
        yield served


def test_the_page_and_its_parts(page):
    for path, kind in [
        ("/", "text/html"), ("/app.js", "text/javascript"), ("/charts.js", "text/javascript"),
        ("/picture.js", "text/javascript"), ("/style.css", "text/css"),
        ("/icon.svg", "image/svg+xml"),
    ]:  # fmt: skip
        status, headers, body = page.ask(path)
        assert status == 200
        assert headers["content-type"].startswith(kind)
        assert len(body) > 200
        assert "default-src 'none'" in headers["content-security-policy"]
        assert "unsafe" not in headers["content-security-policy"]
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["referrer-policy"] == "no-referrer"
    assert "server" not in headers


def test_the_page_needs_nothing_from_elsewhere(page):
    for path in ("/", "/app.js", "/charts.js", "/picture.js", "/style.css"):
        addresses = re.findall(rb"(?:https?:)?//[a-z][\w.]+", page.ask(path)[2])
        assert not addresses, (path, addresses)


def test_mjpeg_shows_the_newest_pictures(page):
    with closing(page.connect()) as client:
        stream = jpegs(client)
        numbers = [read_number(decode(next(stream))) for _ in range(10)]
    assert numbers == sorted(numbers)
    assert numbers[-1] - numbers[0] >= 9
    assert numbers[-1] >= page.pipeline.delivered - 10


def test_all_mjpeg_viewers_share_one_picture(page):
    with ExitStack() as stack:
        streams = [jpegs(stack.enter_context(closing(page.connect()))) for _ in range(3)]
        for stream in streams:
            next(stream)
        first, second, third = ({next(stream) for _ in range(8)} for stream in streams)
    assert first & second & third  # byte for byte


def test_nothing_is_encoded_while_nobody_watches(page, monkeypatch):
    wait_for(lambda: page.metric('streamseg_web_viewers{transport="mjpeg"}') == 0)
    calls = []
    monkeypatch.setattr("pipeline.sinks.web.sink.fit_for_web", lambda p: calls.append(p) or p)
    before = page.pipeline.delivered
    wait_for(lambda: page.pipeline.delivered > before + 5)
    assert not calls
    with closing(page.connect()) as client:
        next(jpegs(client))
    assert calls


def test_snapshot_is_the_whole_picture(page):
    status, headers, body = page.ask("/snapshot.png")
    assert status == 200
    picture = decode(body)
    assert picture.shape == (180, 320, 3)
    index = int(re.search(r'filename="streamseg-(\d{6})\.png"', headers["content-disposition"])[1])
    assert read_number(picture) == index
    # Not a bit is lost: the source's gradient, one colour a row.
    assert (picture[30:, :, 1] == (np.arange(180) * 256 // 180)[30:, None]).all()


def test_look_is_worn_by_the_next_frames(page):
    """Painted whole, a column below the number is of one colour; the source's own is a gradient."""

    def is_painted(data):
        return decode(data)[40:, ::8].std(axis=0).max() < 6

    with closing(page.connect()) as client:
        stream = jpegs(client)
        assert not is_painted(next(stream))
        look = {"overlay": 1.0, "classes": list(range(21))}
        status, _, body = page.ask("/api/look", "POST", look)
        assert (status, json.loads(body)["classes"]) == (200, look["classes"])
        # Those that were painted before it and those on their way: well under a second of them.
        assert any(is_painted(next(stream)) for _ in range(12))
        assert page.status("/api/look", "POST", {"classes": [1]}) == 200
        assert not all(is_painted(next(stream)) for _ in range(12))
    assert page.controls.look == Look(overlay=1.0, classes=(1,))


def test_look_leaves_what_it_does_not_name(page):
    page.controls.change(overlay=0.25, legend=True)
    assert page.status("/api/look", "POST", {"contours": True}) == 200
    look = page.controls.look
    assert (look.overlay, look.legend, look.contours) == (0.25, True, True)
    assert page.status("/api/look", "POST", {"classes": []}) == 200
    assert page.controls.look.classes == ()


@pytest.mark.parametrize(
    ("body", "says"),
    [
        ({"overlay": 1.5}, "less than or equal to 1"),
        ({"overlay": "0.5"}, "valid number"),
        ('{"overlay": NaN}', "overlay|JSON"),
        ({"classes": [21]}, r"21 is not in 0\.\.20"),
        ({"classes": [-1]}, "-1 is not"),
        ({"classes": [True]}, "valid integer"),
        ({"classes": list(range(300))}, "at most 256"),
        ({"classes": None}, "valid array"),
        ({"legend": 1}, "boolean"),
        ({"colour": "red"}, "colour"),
        ([], "object"),
        ("{", "JSON"),
        ("[" * 5000, "JSON"),
        (b"\xff\xfe", "JSON"),
        ("", "JSON"),
    ],
)
def test_what_is_no_look_changes_nothing(page, body, says):
    before = page.controls.look
    status, _, text = page.ask("/api/look", "POST", body)
    assert status == 422
    assert re.search(says, text.decode()), text
    assert text.count(b"\n") == 1
    assert page.controls.look is before


def test_events(page):
    with closing(page.connect()) as client:
        client.sendall(b"GET /api/events HTTP/1.1\r\nHost: localhost\r\n\r\n")
        data = b""
        while data.count(b"event: tick") < 3:
            data += client.recv(65536)
    events = re.findall(r"event: (\w+)\ndata: (.*)\n\n", data.decode())
    assert events[0][0] == "run"
    run = json.loads(events[0][1])
    assert [c["name"] for c in run["classes"][:2]] == ["background", "class1"]
    assert run["classes"][1]["color"] == "#800000"
    tick = json.loads(events[-1][1])
    assert 5 < tick["now"]["fps"] < 25
    assert 0 < tick["now"]["p50"] <= tick["now"]["p99"]
    every = tick["latency_ms"]
    assert 0 < every["p50"] <= every["p90"] <= every["p99"] <= every["p99.9"]
    assert tick["delivered"] > 0
    assert sum(tick["shares"].values()) == pytest.approx(1, abs=0.01)
    assert tick["look"]["classes"] == list(range(1, 21))
    assert tick["frame"]["width"] == 320


def test_metrics_are_prometheus_own(page):
    from prometheus_client.parser import text_string_to_metric_families

    status, headers, body = page.ask("/metrics")
    assert status == 200
    assert headers["content-type"].startswith("text/plain")
    found = {f.name: f for f in text_string_to_metric_families(body.decode())}
    delivered = found["streamseg_frames_delivered"].samples[0].value
    assert 0 < delivered <= page.pipeline.delivered
    latency = {
        s.name + s.labels.get("le", ""): s.value for s in found["streamseg_latency_seconds"].samples
    }
    assert (
        latency["streamseg_latency_seconds_bucket+Inf"]
        == latency["streamseg_latency_seconds_count"]
    )
    quantiles = {
        s.labels["quantile"]: s.value for s in found["streamseg_latency_quantile_seconds"].samples
    }
    assert list(quantiles) == ["0.5", "0.9", "0.99", "0.999"]
    assert 0 < quantiles["0.5"] <= quantiles["0.999"] < 10
    assert found["streamseg_frames_dropped"].samples[0].labels == {"cause": "stale"}


def test_healthz(page):
    wait_for(lambda: page.status("/healthz") == 200)
    assert page.ask("/healthz")[2] == b"ok\n"


def test_without_a_token_nothing_is_shown(guarded):
    paths = [
        "/",
        "/app.js",
        "/api/events",
        "/stream.mjpg",
        "/snapshot.png",
        "/metrics",
        "/healthz",
        "/x",
    ]
    wrong = [
        {}, {"authorization": "Bearer wrong"}, {"authorization": f"Basic {TOKEN}"},
        {"authorization": f"Bearer {TOKEN}x"}, {"cookie": f"streamseg_{guarded.port}={TOKEN}"},
        {"cookie": f"streamseg_{guarded.port}="}, {"authorization": "Bearer "},
    ]  # fmt: skip
    for path in paths:
        for headers in wrong:
            status, got, body = guarded.ask(path, **headers)
            assert status == 401, (path, headers)
            assert got["www-authenticate"] == "Bearer"
            assert TOKEN.encode() not in body
            assert "set-cookie" not in got
    assert guarded.status("/?token=") == 401
    assert guarded.status(f"/?token={TOKEN[:-1]}") == 401
    assert guarded.status("/api/look", "POST", {"overlay": 1}) == 401
    assert guarded.controls.look.overlay == 0.5


def test_with_the_token(guarded):
    status, headers, _ = guarded.ask(f"/?token={TOKEN}")
    assert status == 200
    cookie = headers["set-cookie"]
    assert "HttpOnly" in cookie
    assert "SameSite=Strict" in cookie
    assert TOKEN not in cookie
    for path in ("/", "/app.js", "/snapshot.png", "/metrics"):
        assert guarded.status(path, cookie=cookie.partition(";")[0]) == 200
        assert guarded.status(path, authorization=f"Bearer {TOKEN}") == 200
    change = {"overlay": 0.5}
    assert guarded.status("/api/look", "POST", change, authorization=f"bearer {TOKEN}") == 200


def test_on_localhost_a_token_that_is_given_is_demanded_too():
    """And then a proxy may have any name; without one no name but localhost's is answered."""
    with serving(token=TOKEN) as served:
        bearer = {"authorization": f"Bearer {TOKEN}", "host": "cameras.example"}
        assert served.status("/") == 401
        assert served.status("/", host="cameras.example") == 401
        assert served.status("/", **bearer) == 200
        change = {"overlay": 0.1}
        near, far = "https://cameras.example", "https://evil.example"
        assert served.status("/api/look", "POST", change, **bearer, origin=far) == 403
        assert served.status("/api/look", "POST", change, **bearer, origin=near) == 200


def test_refusals_are_told_without_what_was_sent(guarded):
    almost = TOKEN[:-1]
    secrets = [almost, "hunter2hunter2hunter2", "private-path"]
    guarded.ask(
        f"/private-path/{almost}?token={almost}", authorization="Bearer hunter2hunter2hunter2"
    )
    guarded.ask(f"/private-path/{almost}", authorization=f"Bearer {TOKEN}")
    wait_for(lambda: any("no such page" in line for line in guarded.said))
    text = "\n".join(guarded.said)
    assert "web: refused 127.0.0.1: wrong or no token" in text
    assert not [s for s in [*secrets, TOKEN] if s in text]
    # A knock a line would fill the screen: a line for each reason now and then, and a count.
    for _ in range(50):
        guarded.ask("/")
    assert len([line for line in guarded.said if "token" in line]) < 5
    assert guarded.metric('streamseg_web_refused_total{reason="wrong or no token"}', TOKEN) > 50


def test_path_tricks_lead_nowhere(page):
    for path in [
        "/../../etc/passwd", "/..%2f..%2fetc/passwd", "/%2e%2e/%2e%2e/etc/passwd", "//etc/passwd",
        "/page/index.html", "/app.js/", "/app.js/../../__init__.py", "/static/..\\..\\x",
        "/index.html%00", "/style.css%2f..%2f..%2fsink.py", "/.git/config", "/" + "a" * 9000,
        "/api", "/api/look/",
    ]:  # fmt: skip
        data = page.send(
            f"GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode()
        )
        assert data.startswith(b"HTTP/1.1 404 "), (path, data[:100])
        assert b"root:" not in data
    for path in ("/app.js", "/stream.mjpg"):
        assert page.status(path, "DELETE") == 405
    assert page.status("/api/look") == 405
    assert page.ask("/stream.mjpg", "HEAD")[2] == b""


def test_other_sites_and_other_names_are_refused(page):
    look = {"overlay": 0.9}
    assert page.status("/", host="evil.example") == 421
    assert page.status("/api/look", "POST", look, host=f"evil.example:{page.port}") == 421
    assert page.status("/", host="localhost.evil.example") == 421
    own = f"http://127.0.0.1:{page.port}"
    for origin in (
        "http://evil.example",
        "null",
        f"http://127.0.0.1:{page.port + 1}",
        "http://localhost",
    ):
        assert page.status("/api/look", "POST", look, origin=origin) == 403, origin
    assert page.status("/api/look", "POST", look, sec_fetch_site="cross-site") == 403
    assert page.status("/stream.mjpg", sec_fetch_site="cross-site", sec_fetch_mode="no-cors") == 403
    assert page.status("/api/look", "POST", look, content_type="text/plain") == 415
    assert (
        page.status("/api/look", "POST", look, content_type="application/x-www-form-urlencoded")
        == 415
    )
    assert page.controls.look.overlay == 0.0
    # A link from elsewhere may open the page; its own script may do what it does.
    assert page.status("/", sec_fetch_site="cross-site", sec_fetch_mode="navigate") == 200
    assert page.status("/api/look", "POST", look, origin=own, sec_fetch_site="same-origin") == 200
    assert page.status("/", host=f"localhost:{page.port}") == 200
    assert page.status("/", host=f"[::1]:{page.port}") == 200


def test_too_much_is_refused(page):
    assert page.status("/api/look", "POST", b" " * 65537) == 413
    chunk = b"8000\r\n" + b" " * 0x8000 + b"\r\n"
    head = b"POST /api/look HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    assert (
        page.send(head + b"Transfer-Encoding: chunked\r\n\r\n" + chunk * 3)[:13] == b"HTTP/1.1 413 "
    )
    assert (
        page.send(head + b"Content-Length: 99999999999999999999\r\n\r\n")[:13] == b"HTTP/1.1 413 "
    )
    for header in (b"X: " + b"y" * 20000, b"X: y\r\n" * 5000):
        many = b"GET / HTTP/1.1\r\nHost: localhost\r\n" + header + b"\r\n\r\n"
        assert page.send(many)[:12] in (b"HTTP/1.1 431", b"HTTP/1.1 400")
    assert page.send(b"GET /" + b"x" * 400_000)[:13] == b"HTTP/1.1 400 "


@pytest.mark.parametrize(
    "data",
    [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",  # TLS on a plain port
        b"GET / HTTP/1.1\r\n\r\n",  # no host
        b"GET  /  HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: localhost\r\nContent-Length: x\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost : localhost\r\n\r\n",
        b"GET /\xff HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"\r\n\r\nnonsense\r\n\r\n",
    ],
)  # fmt: skip
def test_what_is_no_request_is_refused(page, data, capfd):
    answer = page.send(data)
    assert answer[:13] == b"HTTP/1.1 400 ", answer[:200]
    assert page.status("/") == 200
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize(
    "sdp",
    ["", "x", "v=0", "v=0\r\no=- 1 1 IN IP4 127.0.0.1\r\ns=-\r\nt=0 0\r\n",
     "m=video 9 X Y\r\n" * 100,
     "v=0\r\no=- 1 1 IN IP4 127.0.0.1\r\ns=-\r\nt=0 0\r\nm=video 9 UDP/TLS/RTP/SAVPF 96\r\n"
     "c=IN IP4 0.0.0.0\r\na=mid:0\r\na=recvonly\r\na=rtpmap:96 VP9/90000\r\n"],
    ids=["empty", "text", "cut", "no-media", "many", "no-transport"],
)  # fmt: skip
def test_what_is_no_offer_is_refused(page, sdp, capfd):
    status, _, text = page.ask("/api/offer", "POST", {"sdp": sdp})
    assert status == 422
    assert text.count(b"\n") == 1
    assert page.ask("/api/offer", "POST", {"sdp": "x" * 70000})[0] == 413
    assert capfd.readouterr().err == ""


def test_only_so_many_viewers(page):
    with ExitStack() as stack:
        for _ in range(MAX_VIEWERS):
            client = stack.enter_context(closing(page.connect()))
            next(jpegs(client))
        assert page.status("/stream.mjpg") == 503
        assert page.status("/") == 200
    wait_for(lambda: page.metric('streamseg_web_viewers{transport="mjpeg"}') == 0)
    with closing(page.connect()) as client:
        assert next(jpegs(client))


def test_requests_that_never_end_are_cut_off(page, monkeypatch):
    monkeypatch.setattr("pipeline.sinks.web.connection._HEADERS_S", 0.3)
    monkeypatch.setattr("pipeline.sinks.web.app._BODY_S", 0.3)

    def drip(client):
        for byte in b"GET / HTTP/1.1\r\nHost: localhost\r\nX: " + b"y" * 1000:
            client.send(bytes([byte]))
            time.sleep(0.02)

    def is_ended(client):
        try:
            return client.recv(1) == b""
        except ConnectionResetError:
            return True

    with closing(page.connect()) as slow, closing(page.connect()) as silent:
        begun = time.monotonic()
        with pytest.raises(ConnectionError):
            drip(slow)
        assert is_ended(silent)
        assert time.monotonic() - begun < 5
    head = b"POST /api/look HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    assert b" 408 " in page.send(head + b"Content-Length: 10\r\n\r\n{")[:20]
    assert any("a request without end" in line for line in page.said)


def test_a_reader_of_a_byte_a_second_is_let_go(page, monkeypatch):
    """It gets what fits into the buffers; nothing more is kept for it, and its place is free."""
    monkeypatch.setattr("pipeline.sinks.web.connection._STALL_S", 1.0)
    with closing(page.connect(receive_buffer=4096)) as slow, closing(page.connect()) as quick:
        slow.sendall(b"GET /stream.mjpg HTTP/1.1\r\nHost: localhost\r\n\r\n")
        stream = jpegs(quick)
        assert slow.recv(1) == b"H"
        first = read_number(decode(next(stream)))
        deadline = time.monotonic() + 40
        last = first
        while page.metric('streamseg_web_viewers{transport="mjpeg"}') > 1:
            assert time.monotonic() < deadline
            last = read_number(decode(next(stream)))
        assert last > first
        assert any("takes nothing" in line for line in page.said)


def test_a_viewer_that_vanishes_leaves_no_trace(page):
    for how in ("close", "reset"):
        client = page.connect()
        next(jpegs(client))
        if how == "reset":
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        client.close()
        wait_for(lambda: page.metric('streamseg_web_viewers{transport="mjpeg"}') == 0)
    assert not page.errors


def test_at_the_end_viewers_are_told_and_nothing_is_left():
    before = set(threading.enumerate())
    with serving(look=LIVE) as served:
        (page,) = {t for t in threading.enumerate() if t.name == "page"} - before
        with closing(served.connect()) as events, closing(served.connect(4096)) as stuck:
            events.sendall(b"GET /api/events HTTP/1.1\r\nHost: localhost\r\n\r\n")
            stuck.sendall(b"GET /stream.mjpg HTTP/1.1\r\nHost: localhost\r\n\r\n")
            data = b""
            while b"event: tick" not in data:
                data += events.recv(65536)
            begun = time.monotonic()
            served.stop()
            took = time.monotonic() - begun
            while chunk := events.recv(65536):
                data += chunk
        assert data.rstrip(b"\r\n0").endswith(b"event: ended\ndata: {}")
        assert took < 5, took
        assert served.web.pipeline is None
    assert not page.is_alive()
    assert not served.said
