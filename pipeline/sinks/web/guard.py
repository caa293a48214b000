"""Who may speak with the server: by token, from pages of its own, in requests of a sane size."""

from __future__ import annotations

import hashlib
import hmac
from urllib.parse import parse_qs, urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import cookie_parser
from starlette.responses import PlainTextResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from pipeline.sinks.web.address import Address
from pipeline.sinks.web.connection import MAX_HEADERS
from pipeline.sinks.web.refusals import Refusals

MAX_BODY = 64 * 1024
_COOKIE_S = 30 * 24 * 3600

# The page is all its own: nothing from elsewhere runs in it, frames it or may read from it.
_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; "
    "img-src 'self' blob:; connect-src 'self'; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Cache-Control": "no-store",
}


class Guard:
    """Lets requests through to `app`, or refuses them; sets the headers of every response."""

    def __init__(
        self, app: ASGIApp, address: Address, port: int, token: str | None, refuse: Refusals
    ) -> None:
        self._app = app
        self._token = token
        self._refuse = refuse
        # A name that others can point at 127.0.0.1 would let their pages read ours. With a token
        # it may be any name (a proxy's, say): nobody's cookie is sent to another name than its own.
        self._hosts = _local_hosts(address) if token is None else None
        # Browsers keep cookies by host and not by port.
        self._cookie = f"streamseg_{port}"
        # Whoever gets hold of the cookie has no token for the address bar or for Bearer.
        self._pass = hmac.digest(token.encode(), b"cookie", hashlib.sha256).hex() if token else ""
        self._set_cookie = (
            f"{self._cookie}={self._pass}; Path=/; Max-Age={_COOKIE_S}; HttpOnly; SameSite=Strict"
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        answer = self._judge(scope) or self._app

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in _HEADERS.items():
                    headers.setdefault(name, value)
                if "streamseg.welcome" in scope:
                    headers.append("set-cookie", self._set_cookie)
            await send(message)

        await answer(scope, receive, send_with_headers)

    def _judge(self, scope: Scope) -> Response | None:
        """What is answered at once; None lets the request through."""
        headers = Headers(scope=scope)
        if sum(len(name) + len(value) + 4 for name, value in headers.raw) > MAX_HEADERS:
            return self._no(scope, 431, "too large a request", f"at most {MAX_HEADERS} bytes")
        if self._hosts is not None and _host_name(headers.get("host", "")) not in self._hosts:
            return self._no(scope, 421, "wrong host name", "this server is not of that name")
        if headers.get("sec-fetch-site", "none") not in ("same-origin", "none"):
            # A link from elsewhere may open the page, and do nothing more.
            opens = scope["path"] == "/" and headers.get("sec-fetch-mode") == "navigate"
            if not opens or scope["method"] != "GET":
                return self._no(scope, 403, "another site's page", "not for other sites' pages")
        if self._token is not None:
            shown = self._shown(scope, headers)
            if shown is None:
                return self._no(
                    scope, 401, "wrong or no token",
                    "This page needs a token: open the address that streamseg printed.",
                )  # fmt: skip
            if shown == "address":
                scope["streamseg.welcome"] = True
        if scope["method"] not in ("GET", "HEAD"):
            origin = headers.get("origin")
            if origin is not None and urlsplit(origin).netloc != headers.get("host"):
                return self._no(scope, 403, "another site's page", "not for other sites' pages")
            length = headers.get("content-length", "0")
            if not length.isdecimal() or int(length[:9]) > MAX_BODY or len(length) > 9:
                return self._no(scope, 413, "too large a request", f"at most {MAX_BODY} bytes")
        return None

    def _shown(self, scope: Scope, headers: Headers) -> str | None:
        """Where the request shows the token; None if it does not."""
        kind, _, bearer = headers.get("authorization", "").partition(" ")
        if kind.lower() == "bearer" and _same(bearer.strip(), self._token):
            return "header"
        if _same(cookie_parser(headers.get("cookie", "")).get(self._cookie), self._pass):
            return "cookie"
        query = parse_qs(scope["query_string"].decode("latin-1"))
        if _same(query.get("token", [""])[0], self._token):
            return "address"
        return None

    def _no(self, scope: Scope, status: int, reason: str, text: str) -> Response:
        self._refuse(reason, client_of(scope))
        headers = {"connection": "close"}  # a body that nobody reads must not become a request
        if status == 401:
            headers["www-authenticate"] = "Bearer"
        return PlainTextResponse(f"{text}\n", status, headers)


def client_of(scope: Scope) -> str:
    """The address of who asks."""
    client = scope.get("client")
    return str(client[0]) if client else "somebody"


def _same(text: str | None, secret: str | None) -> bool:
    """Compared in a time that says nothing of how much of it is right."""
    return bool(secret) and hmac.compare_digest((text or "").encode(), (secret or "").encode())


def _host_name(host: str) -> str:
    try:
        return urlsplit(f"//{host}").hostname or ""
    except ValueError:
        return ""


def _local_hosts(address: Address) -> set[str]:
    return {"localhost", "127.0.0.1", "::1", address.host}
