"""Where the page listens, who needs a token there, and what is said when it cannot."""

import re
import socket
from contextlib import closing

import pytest

from engines.fake_engine import fake_card
from pipeline.errors import SinkError
from pipeline.sinks.web import open_web
from pipeline.sinks.web.address import Address, choose_token, listen, page_url, parse_address
from pipeline.stages import Controls
from tests.pipeline.sinks.web.served import TOKEN, serving


@pytest.mark.parametrize(
    ("text", "host", "port", "local"),
    [
        (":8000", "127.0.0.1", 8000, True),
        ("localhost:1", "localhost", 1, True),
        ("127.0.0.2:0", "127.0.0.2", 0, True),
        ("[::1]:8000", "::1", 8000, True),
        ("0.0.0.0:8000", "0.0.0.0", 8000, False),
        ("[::]:8000", "::", 8000, False),
        ("my-machine.lan:65535", "my-machine.lan", 65535, False),
    ],
)
def test_addresses(text, host, port, local):
    address = parse_address(text)
    assert (address.host, address.port, address.is_local) == (host, port, local)


@pytest.mark.parametrize(
    "text",
    ["", "8000", "localhost", "localhost:", ":65536", "a b:1", "http://x:1", "::1:8000", ":8k"],
)
def test_what_is_no_address(text):
    with pytest.raises(ValueError, match=r"should be HOST:PORT"):
        parse_address(text)


def test_a_token_is_made_up_only_where_others_can_come():
    assert choose_token(Address("127.0.0.1", 1), None) is None
    made = {choose_token(Address("0.0.0.0", 1), None) for _ in range(10)}
    assert len(made) == 10
    assert all(len(token) >= 32 for token in made)
    for host in ("127.0.0.1", "0.0.0.0"):
        assert choose_token(Address(host, 1), TOKEN) == TOKEN


@pytest.mark.parametrize(
    "weak", ["short", "x" * 15, "with spaces in its middle", "nicht-überall-möglich"]
)
def test_a_weak_token_is_refused_and_not_repeated(weak):
    with pytest.raises(SinkError, match="too weak") as caught:
        choose_token(Address("0.0.0.0", 1), weak)
    assert weak not in str(caught.value)


def test_a_port_in_use_is_one_clear_line():
    with closing(listen(Address("127.0.0.1", 0))) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(SinkError) as caught:
            open_web(f"127.0.0.1:{port}", fake_card(), Controls())
    line = "address already in use; another port may be free (:0 finds one)"
    assert str(caught.value) == f"--web 127.0.0.1:{port}: {line}"


def test_a_host_that_is_not_ours():
    with pytest.raises(SinkError, match=r"192\.0\.2\.77"):
        open_web("192.0.2.77:0", fake_card(), Controls())
    with pytest.raises(SinkError, match="knows no host of that name"):
        open_web("no-such-host.invalid:0", fake_card(), Controls())


def test_the_port_is_free_again_at_once():
    with serving() as served:
        port = served.port
        assert served.status("/") == 200
    with serving(f":{port}") as served:
        assert served.port == port
        assert served.status("/") == 200


def test_a_sink_that_never_ran_gives_its_port_back():
    web = open_web(":0", fake_card(), Controls())
    port = int(re.search(r":(\d+)/", web.url)[1])
    web.close()
    with closing(listen(Address("127.0.0.1", port))):
        pass


def test_url():
    assert page_url(Address("127.0.0.1", 0), 81, None) == "http://127.0.0.1:81/"
    assert page_url(Address("::1", 0), 81, None) == "http://[::1]:81/"
    everywhere = page_url(Address("0.0.0.0", 0), 81, TOKEN)
    host = re.fullmatch(rf"http://(\S+):81/\?token={TOKEN}", everywhere)[1]
    socket.inet_aton(host)


def test_a_missing_library_is_named(monkeypatch):
    real = __import__("importlib.util").util.find_spec
    monkeypatch.setattr(
        "pipeline.sinks.web.find_spec", lambda name: None if name == "starlette" else real(name)
    )
    with pytest.raises(SinkError, match=r"needs starlette; pip install 'streamseg\[web\]'"):
        open_web(":0", fake_card(), Controls())
