"""The program with somebody who watches: what it says and how it ends when there is nobody."""

from __future__ import annotations

import socket

import pytest

from tests.tools.program import count_frames


def test_a_receiver_that_never_comes_is_an_error_and_files_are_whole(streamseg, colours, clip):
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    url = f"rtmp://127.0.0.1:{port}/live/hidden"
    done = streamseg("run", clip, "--model", colours, "-o", "out.mp4", "-o", url)
    assert done.code == 1
    shown = f"rtmp://127.0.0.1:{port}/live/***"
    assert f"warning: {shown}: Connection refused; it is tried again" in done.err
    assert done.err.splitlines()[-1].startswith(f"error: nothing was sent to {shown}: ")
    assert "hidden" not in done.err + done.out
    assert done.ledger()["delivered"] == 10
    assert "skipped 10 by rtmp" in done.out


@pytest.mark.parametrize("display", ["", ":4711"])
def test_without_a_display_the_network_is_not_even_loaded(streamseg, colours, clip, display):
    done = streamseg("run", clip, "--model", colours, "--show", DISPLAY=display, WAYLAND_DISPLAY="")
    assert done.code == 1
    assert len(done.err.splitlines()) == 1
    assert "display for --show" in done.err


def test_hls_from_the_program(streamseg, colours, clip, tmp_path):
    done = streamseg("run", clip, "--model", colours, "-o", "www/out.m3u8")
    assert done.code == 0, done.err
    assert count_frames(tmp_path / "www" / "out.m3u8") == 10
    assert "wrote  www/out.m3u8 (10 frames" in done.out
