"""The real page in headless Chromium: seen, clicked, on a phone, with and without WebRTC."""

import re
import time
from contextlib import closing

import cv2
import numpy as np
import pytest

from pipeline.sources.synthetic import read_number
from pipeline.stages import Look
from tests.pipeline.sinks.web import browser as driving
from tests.pipeline.sinks.web.browser import opened, photograph, pixels, wait_for_picture
from tests.pipeline.sinks.web.served import TOKEN, serving, wait_for

pytest.importorskip("playwright", reason="playwright is not installed")
pytest.importorskip("aiortc", reason="the extra web is not installed")
pytestmark = pytest.mark.skipif(driving.find_chromium() is None, reason="there is no Chromium here")

START = Look(overlay=0.5)


@pytest.fixture(scope="module")
def browser():
    with driving.chromium() as running:
        yield running


@pytest.fixture(scope="module")
def running():
    with pytest.MonkeyPatch.context() as patch, serving(size=(360, 640), look=START) as served:
        patch.setattr("pipeline.sinks.web.rtc._SILENT_S", 5.0)  # whoever has gone is soon missed
        yield served


@pytest.fixture
def served(running):
    running.controls.change(overlay=0.5, classes=None, legend=False, contours=False)
    return running


def is_painted(page):
    """Painted whole, a column below the number has one colour; the source's own is a gradient."""
    return pixels(page)[8:, ::4].std(axis=0).max() < 10


def test_the_live_picture_comes_by_webrtc(browser, served):
    served.controls.change(overlay=0.0)
    with opened(browser, served.url) as page:
        wait_for_picture(page, "webrtc")
        numbers = []
        for _ in range(6):
            delivered = served.pipeline.delivered
            numbers.append(read_number(pixels(page)))
            assert delivered - numbers[-1] < 15, "a second behind"
            page.wait_for_timeout(200)
        assert numbers == sorted(numbers)
        assert len(set(numbers)) > 3
        assert served.metric('streamseg_web_viewers{transport="webrtc"}') >= 1
        assert page.inner_text("#source") == "640 × 360"


def test_figures_and_charts(browser, served):
    with opened(browser, served.url) as page:
        page.wait_for_selector("#status[data-state=live]")
        page.wait_for_function("() => Number(document.getElementById('fps').textContent) > 5")
        for name in ("p50", "p99", "all-p50", "all-p90", "all-p99", "all-p99-9"):
            assert re.fullmatch(r"\d+", page.inner_text(f"#{name}")), name
        assert re.fullmatch(r"none in the whole run|\d+ stale", page.inner_text("#causes"))
        drawn = page.evaluate("""() => [...document.querySelectorAll("canvas")].map((canvas) => {
            const { width, height } = canvas;
            const { data } = canvas.getContext("2d").getImageData(0, 0, width, height);
            return new Set(new Uint32Array(data.buffer)).size;
        })""")
        assert len(drawn) == 3
        assert all(colors > 5 for colors in drawn), drawn


def test_switch_and_slider_take_effect_at_once(browser, served):
    with opened(browser, served.url) as page:
        wait_for_picture(page, "webrtc")
        page.get_by_role("switch", name="class3", exact=True).click()
        wait_for(lambda: served.controls.look.classes == (1, 2, *range(4, 21)), 3)
        page.get_by_role("button", name="None").click()
        wait_for(lambda: served.controls.look.classes == (), 3)
        page.get_by_role("button", name="All").click()
        wait_for(lambda: served.controls.look.classes == tuple(range(21)), 3)
        page.locator("#overlay").focus()
        assert not is_painted(page)
        begun = time.monotonic()
        page.keyboard.press("End")
        wait_for(lambda: is_painted(page), 5)
        assert served.controls.look.overlay == 1.0
        assert time.monotonic() - begun < 3
        page.keyboard.press("Home")
        wait_for(lambda: not is_painted(page), 5)
        page.get_by_role("switch", name="Contours").click()
        page.get_by_role("switch", name="Names in the picture").click()
        wait_for(lambda: served.controls.look.contours and served.controls.look.legend, 3)
        # They stand as they were put, when the server's own view has come back.
        page.wait_for_timeout(1600)
        assert page.locator("#contours").is_checked()
        assert page.locator("#overlay").input_value() == "0"


def test_what_another_changes_is_shown(browser, served):
    with opened(browser, served.url) as page:
        page.wait_for_selector("#classes li")
        assert served.status("/api/look", "POST", {"overlay": 0.2, "classes": [5]}) == 200
        page.wait_for_function("() => document.getElementById('overlay').value === '20'")
        checked = page.locator("#classes input:checked")
        assert checked.count() == 1
        assert checked.get_attribute("aria-label") == "class5"


def test_snapshot(browser, served):
    served.controls.change(overlay=0.0)
    with opened(browser, served.url, accept_downloads=True) as page:
        with page.expect_download() as download:
            page.get_by_role("link", name="Snapshot").click()
        name = download.value.suggested_filename
        picture = cv2.imread(str(download.value.path()))
    assert picture.shape == (360, 640, 3)
    assert name == f"streamseg-{read_number(picture):06d}.png"


def test_without_webrtc_mjpeg_is_shown(browser, served):
    """As in a browser that has none; and back by a click where there is one."""
    with opened(browser, "about:blank") as page:
        page.add_init_script("delete window.RTCPeerConnection")
        page.goto(served.url)
        wait_for_picture(page, "mjpeg")
        first = pixels(page)
        page.wait_for_timeout(500)
        assert (pixels(page) != first).any()
        assert served.metric('streamseg_web_viewers{transport="mjpeg"}') == 1


def test_either_by_a_click(browser, served):
    with opened(browser, served.url) as page:
        wait_for_picture(page, "webrtc")
        page.get_by_role("button", name="MJPEG").click()
        wait_for_picture(page, "mjpeg")
        wait_for(lambda: served.metric('streamseg_web_viewers{transport="webrtc"}') == 0)
        page.get_by_role("button", name="WebRTC").click()
        wait_for_picture(page, "webrtc")
        wait_for(lambda: served.metric('streamseg_web_viewers{transport="mjpeg"}') == 0)


def test_on_a_phone(browser, served):
    with opened(browser, served.url, **driving.AS_PHONE) as page:
        wait_for_picture(page, "webrtc")
        assert page.evaluate("document.documentElement.scrollWidth") <= driving.PHONE["width"]
        touched = page.locator("button:visible, a.button:visible, label.row:visible, #overlay")
        sizes = [touched.nth(i).bounding_box() for i in range(touched.count())]
        assert len(sizes) > 25
        assert all(box["height"] >= 44 and box["width"] >= 44 for box in sizes), sizes
        last = page.get_by_role("switch", name="class20", exact=True)
        last.scroll_into_view_if_needed()
        last.tap()
        wait_for(lambda: served.controls.look.classes == tuple(range(1, 20)), 3)
        # The picture has stayed in sight.
        assert page.locator("#picture").bounding_box()["y"] >= -1


def test_beyond_localhost_the_address_has_the_token(browser):
    with serving("0.0.0.0:0", token=TOKEN, size=(360, 640)) as served:
        assert served.web.url.endswith(f"/?token={TOKEN}")
        context = browser.new_context()
        page = context.new_page()
        assert page.goto(served.url).status == 401
        page.goto(f"{served.url}/?token={TOKEN}")
        page.wait_for_selector("#status[data-state=live]")
        wait_for_picture(page, "webrtc")
        assert TOKEN not in page.url
        (cookie,) = context.cookies()
        assert cookie["httpOnly"]
        assert cookie["sameSite"] == "Strict"
        assert page.evaluate("document.cookie") == ""
        page.reload()
        page.wait_for_selector("#status[data-state=live]")
        context.close()
        assert not [line for line in served.said if TOKEN in line]


def test_the_end_is_shown_and_the_next_run_too(browser):
    with serving(size=(360, 640)) as served:
        port = served.port
        context = browser.new_context()
        page = context.new_page()
        page.goto(served.url)
        wait_for_picture(page, "webrtc")
        served.stop()
        page.wait_for_selector("#status[data-state=ended]")
        assert page.inner_text("#message") == "The run has ended"
    with serving(f":{port}", size=(180, 320)):
        page.wait_for_selector("#status[data-state=live]", timeout=20_000)
        wait_for_picture(page, "webrtc")
        assert page.inner_text("#source") == "320 × 180"
        context.close()


def test_pictures_of_the_page(browser, served, tmp_path):
    for name in driving.LOOKS:
        photograph(browser, served.url, tmp_path / name, seconds=0.2)
        picture = cv2.imread(str(tmp_path / name))
        assert picture.shape[1] in (1280, 780)
        assert len(np.unique(picture.astype(int) @ (1, 256, 65536))) > 500


@pytest.mark.slow
def test_where_no_way_leads_through_mjpeg_takes_over(browser, served):
    """A network that lets no UDP through: WebRTC is tried, fails, and says so."""
    no_udp = "--webrtc-ip-handling-policy=disable_non_proxied_udp"
    with closing(driving.launch(browser.browser_type, no_udp)) as cut_off:
        with opened(cut_off, served.url) as page:
            wait_for_picture(page, "mjpeg")
            assert page.inner_text("#source").startswith("640 × 360 · WebRTC: no ")
