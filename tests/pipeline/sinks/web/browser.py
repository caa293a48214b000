"""Chromium on the real page: opened without a screen, clicked and photographed.

    python -m tests.pipeline.sinks.web.browser CLIP docs/images

makes the pictures of the documentation anew.
"""

from __future__ import annotations

import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

DESKTOP = {"width": 1280, "height": 800}
PHONE = {"width": 390, "height": 844}
# What a browser calls a phone: touched, and three pixels a point.
AS_PHONE = {"viewport": PHONE, "has_touch": True, "is_mobile": True, "device_scale_factor": 2}


def find_chromium() -> str | None:
    """The browser of this machine; a package index has none."""
    names = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
    return next((path for name in names if (path := shutil.which(name))), None)


@contextmanager
def chromium() -> Iterator[Any]:
    """A browser without a screen, for `opened`."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = launch(playwright.chromium)
        try:
            yield browser
        finally:
            browser.close()


def launch(browser_type: Any, *options: str) -> Any:
    """A browser of this machine; without its sandbox, which needs what a container lacks."""
    return browser_type.launch(executable_path=find_chromium(), args=["--no-sandbox", *options])


@contextmanager
def opened(browser: Any, url: str, **options: Any) -> Iterator[Any]:
    """The page at `url`; whatever its scripts complain of is an error here."""
    options.setdefault("viewport", DESKTOP)
    context = browser.new_context(**options)
    page = context.new_page()
    complaints: list[str] = []
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on("console", lambda m: complaints.append(m.text) if m.type == "error" else None)
    page.goto(url)
    try:
        yield page
    finally:
        context.close()
    assert not complaints, complaints


def wait_for_picture(page: Any, transport: str, timeout_ms: int = 30_000) -> None:
    """Until the page shows live pictures by `transport`, webrtc or mjpeg."""
    page.wait_for_selector(f"#by-{transport}[aria-pressed=true]", timeout=timeout_ms)
    page.wait_for_function(
        """() => document.getElementById("message").hidden
           && (document.getElementById("video").currentTime > 0.3
               || document.getElementById("mjpeg").naturalWidth > 0)""",
        timeout=timeout_ms,
    )


def pixels(page: Any, width: int = 64, height: int = 36) -> Any:
    """What the page shows of the live picture, uint8 (height, width, 3) RGB, scaled."""
    import numpy as np

    data = page.evaluate(
        """([width, height]) => {
            const video = document.getElementById("video");
            const shown = video.hidden ? document.getElementById("mjpeg") : video;
            const canvas = document.createElement("canvas");
            [canvas.width, canvas.height] = [width, height];
            const context = canvas.getContext("2d");
            context.drawImage(shown, 0, 0, width, height);
            return Array.from(context.getImageData(0, 0, width, height).data);
        }""",
        [width, height],
    )
    return np.array(data, np.uint8).reshape(height, width, 4)[..., :3]


LOOKS: dict[str, dict[str, Any]] = {
    "web.jpg": {"viewport": DESKTOP, "color_scheme": "light"},
    "web-phone.jpg": {**AS_PHONE, "color_scheme": "dark"},
}


def photograph(browser: Any, url: str, target: Path, *, seconds: float) -> None:
    """Writes the page as JPEG, in the look of the file's name, after so many seconds of picture."""
    with opened(browser, url, **LOOKS[target.name]) as page:
        wait_for_picture(page, "webrtc")
        page.wait_for_timeout(1000 * seconds)
        target.write_bytes(page.screenshot(type="jpeg", quality=88))


def main() -> None:
    """Makes the pictures of the documentation from a clip, a run each."""
    clip, folder = sys.argv[1:]
    with chromium() as browser:
        for name in LOOKS:
            command = [sys.executable, "-m", "tools.cli", "run", clip, "--web=:0", "--contours"]
            with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as run:
                assert run.stderr is not None
                url = next(
                    f[1] for line in run.stderr if (f := re.match(r"output  (http.*)", line))
                )
                photograph(browser, url, Path(folder) / name, seconds=6.0)
                run.send_signal(signal.SIGINT)


if __name__ == "__main__":
    main()
