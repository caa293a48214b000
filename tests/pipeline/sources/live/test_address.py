"""What is a live source; and that nothing secret is ever shown."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.errors import SourceError
from pipeline.sources.live.address import parse_address, redact

SCHEMES = ["rtsp", "rtsps", "rtmp", "rtmps", "http", "https", "udp", "srt"]
word = st.text(
    st.characters(min_codepoint=33, max_codepoint=126, exclude_characters="/?#@"), min_size=1
)


@pytest.mark.parametrize(
    ("text", "kind", "shown"),
    [
        ("0", "camera", "camera 0"),
        ("/dev/video3", "camera", "/dev/video3"),
        ("rtsp://cam:554/a", "rtsp", "rtsp://cam:554/a"),
        ("RTSP://cam/a", "rtsp", "rtsp://cam/a"),
        ("rtsp://u:p@cam/a", "rtsp", "rtsp://***@cam/a"),
        ("rtsp://u:p@ss@cam/a", "rtsp", "rtsp://***@cam/a"),
        ("rtsp://u:p/ss@cam/a", "rtsp", "rtsp://***@cam/a"),
        ("rtsp://u@cam/a", "rtsp", "rtsp://***@cam/a"),
        ("rtsp://[::1]:554/a", "rtsp", "rtsp://[::1]:554/a"),
        ("https://h/a@2x.m3u8?x=1", "http", "https://h/a@2x.m3u8?x=1"),
        ("http://h/a?token=abc&x=1&PassWord=z", "http", "http://h/a?token=***&x=1&PassWord=***"),
        ("udp://@239.0.0.1:1234", "udp", "udp://@239.0.0.1:1234"),
        ("srt://h:1?passphrase=abcdefghij", "srt", "srt://h:1?passphrase=***"),
    ],
)
def test_kinds_and_what_is_shown(text, kind, shown):
    address = parse_address(text)
    assert (address.kind, address.shown) == (kind, shown)
    assert text.split("://")[-1] in address.url or kind == "camera"


@pytest.mark.parametrize("text", ["clip.mp4", "folder/", "C:\\a.mp4", "*.png", "12345", "a:b"])
def test_files_are_no_live_sources(text):
    assert parse_address(text) is None


@given(st.sampled_from(SCHEMES), word, word)
def test_neither_user_nor_password_is_ever_shown(scheme, user, password):
    user, password = f"uuu{user}uuu", f"ppp{password}ppp"
    address = parse_address(f"{scheme}://{user}:{password}@host/path")
    for text in (address.shown, repr(address), str(address)):
        assert user not in text
        assert password not in text
    assert address.url.endswith(f"{user}:{password}@host/path")
    said = redact(f"open {scheme}://{user}:{password}@host/path failed")
    assert password not in said
    assert said.startswith("open ")


def test_other_schemes_are_refused_without_their_secrets():
    with pytest.raises(SourceError) as caught:
        parse_address("sftp://me:secret@host/a.mp4")
    assert "secret" not in str(caught.value)
