"""`streamseg run --web`: its words, its one-line errors, and a page that ends with the run."""

import http.client
import re
import signal
import socket
import subprocess
import sys
import time
from contextlib import closing
from urllib.parse import urlsplit

import pytest

from tests.tools.program import PROGRAM
from tools.web import fill_in_address

pytest.importorskip("uvicorn", reason="the extra web is not installed")

ALONE = "--web=127.0.0.1:8000"


@pytest.mark.parametrize(
    ("words", "filled"),
    [
        (["in.mp4", "--web"], ["in.mp4", ALONE]),
        (["--web", "in.mp4"], [ALONE, "in.mp4"]),
        (["--web", ":9000", "in.mp4"], ["--web", ":9000", "in.mp4"]),
        (["--web", "0.0.0.0:9000", "0"], ["--web", "0.0.0.0:9000", "0"]),
        (["--web", "[::1]:9000"], ["--web", "[::1]:9000"]),
        (["--web", "rtsp://camera:554/live"], [ALONE, "rtsp://camera:554/live"]),
        (["--web", "rtsp://camera:554"], [ALONE, "rtsp://camera:554"]),
        (["--web", "0"], [ALONE, "0"]),
        (["--web", "-o", "out.mp4", "in.mp4"], [ALONE, "-o", "out.mp4", "in.mp4"]),
        (["--web=:1", "in.mp4"], ["--web=:1", "in.mp4"]),
        (["--", "--web"], ["--", "--web"]),
        (["--web-token", "x", "in.mp4"], ["--web-token", "x", "in.mp4"]),
    ],
)
def test_the_address_may_be_left_out(words, filled):
    assert fill_in_address(words) == filled


@pytest.fixture
def refused(streamseg, clip, colours):
    """What a run says that must not begin: one line, and code 1 or 2."""

    def ask(*words, code, **env):
        done = streamseg("run", clip, "--model", colours, *words, **env)
        assert done.code == code, done
        assert not done.out
        return done.err

    return ask


def test_mistakes_show_before_the_run(refused):
    text = refused("--web=8000", code=2)
    assert "--web: should be HOST:PORT" in " ".join(text.split())
    assert "ask for the page with --web" in refused("--web-token", "x" * 20, code=2)
    with closing(socket.socket()) as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        text = refused("--web", f":{port}", code=1)
    line = f"error: --web 127.0.0.1:{port}: address already in use; "
    assert text.splitlines()[-1].startswith(line)
    text = refused("--web", "0.0.0.0:0", code=1, STREAMSEG_WEB_TOKEN="hush-hush")
    assert "too weak" in text
    assert "hush-hush" not in text
    text = refused("--web", "0.0.0.0:0", "--quiet", code=1)
    assert text == "error: --quiet would hide the page's token; give one in STREAMSEG_WEB_TOKEN\n"


def test_a_config_may_ask_for_the_page(refused, tmp_path):
    (tmp_path / "run.yaml").write_text("web: true\nweb_token: 'too-short'\n")
    text = refused("--config", tmp_path / "run.yaml", code=1)
    assert "too weak" in text
    assert "too-short" not in text


@pytest.mark.skipif(sys.platform == "win32", reason="signals are POSIX's")
def test_the_page_of_a_run(env, media, tmp_path):
    """It is there with the first frame, counts what the file got, and ends with Ctrl-C."""
    token = "from-the-environment"
    words = ["run", media / "long.mp4", "-o", "o.mp4", "--web", "0.0.0.0:0"]
    process = subprocess.Popen(
        [*PROGRAM, *map(str, words)],
        env={**env, "STREAMSEG_WEB_TOKEN": token},
        cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        url = None
        while url is None:
            line = process.stderr.readline()
            assert line, "it ended without telling the address"
            url = re.match(r"output  (http://\S+)", line)
        address = urlsplit(url[1])
        assert address.query == f"token={token}"
        deadline = time.monotonic() + 30
        while (health := ask(address.port, "/healthz", token))[0] != 200:
            assert time.monotonic() < deadline, health
            time.sleep(0.1)
        assert ask(address.port, "/healthz", "wrong" * 5)[0] == 401
        delivered = re.search(
            r"^streamseg_frames_delivered_total (\S+)$",
            ask(address.port, "/metrics", token)[1],
            re.MULTILINE,
        )
        assert float(delivered[1]) > 0
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=30)
    finally:
        process.kill()
        process.communicate()
    assert process.returncode == 130
    assert "wrote  o.mp4" in out
    assert "Traceback" not in err
    assert "wrong" not in err.replace("wrong or no token", "")


def ask(port, path, token):
    with closing(http.client.HTTPConnection("127.0.0.1", port, timeout=10)) as client:
        client.request("GET", path, headers={"authorization": f"Bearer {token}"})
        response = client.getresponse()
        return response.status, response.read().decode()
