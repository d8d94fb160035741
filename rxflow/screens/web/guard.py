"""Access control of the web server: checks the host, the token and the origin of each request."""

from __future__ import annotations

import hmac
from http.cookies import CookieError, SimpleCookie
from ipaddress import ip_address
from typing import Any, Final
from urllib.parse import SplitResult, parse_qsl, quote, urlencode, urlsplit

from rxflow._lazy import extra

with extra("web"):
    from starlette.datastructures import Headers, MutableHeaders
    from starlette.responses import JSONResponse, RedirectResponse, Response

COOKIE: Final = "rxflow_token"
MIN_TOKEN_CHARACTERS: Final = 16
LOOPBACK: Final = frozenset({"localhost", "127.0.0.1", "::1"})
HEADERS: Final = {
    "content-security-policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self' data:; "
        "base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
    ),
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
    "cache-control": "no-store",
}


class Guard:
    """ASGI middleware that checks the host, the token and the origin of each request.

    - If the server has no token, a request must come from this machine, and must name this machine as its host.
      Otherwise a page of another site could reach the server through a host name that resolves to this machine (DNS
      rebinding).
    - If the server has a token, each request must contain the token, in a header or in the cookie that ``/?token=…``
      sets. Only OPTIONS requests from allowed origins need no token.
    - A request whose ``Origin`` header names another origin is refused, unless that origin is allowed. Browsers omit
      this header from simple GET requests, but a page of another origin cannot read the responses.
    """

    def __init__(self, app: Any, *, token: str | None, allowed_origins: tuple[str, ...]) -> None:
        self._app = app
        self._token = token
        self._origins = frozenset(each.rstrip("/") for each in allowed_origins)

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        origin = headers.get("origin")
        answer = self._refuse(scope, headers, origin) or self._check_token(scope, headers, origin)
        is_foreign = origin is not None and origin in self._origins

        async def send_guarded(message: Any) -> None:
            if message["type"] == "http.response.start":
                sent = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    sent.setdefault(name, value)
                if is_foreign:
                    sent["access-control-allow-origin"] = origin or ""
                    sent["access-control-allow-headers"] = "authorization, content-type, last-event-id"
                    sent["vary"] = "origin"
            await send(message)

        await (answer or self._app)(scope, receive, send_guarded)

    def _refuse(self, scope: Any, headers: Headers, origin: str | None) -> Response | None:
        host = headers.get("host", "")
        client, _ = scope.get("client") or ("", 0)  # scope["client"] is None for a Unix socket
        if self._token is None and _is_elsewhere(client):
            return _answer(403, f"{client} is not this machine; a server for others needs a token")
        if self._token is None and _split(f"//{host}").hostname not in LOOPBACK:
            return _answer(403, f"the host {host!r} is not this machine; a server for others needs a token")
        if origin is None or origin in self._origins or _split(origin).netloc == host:
            return None
        return _answer(403, f"the origin {origin!r} is not allowed here; see allowed_origins")

    def _check_token(self, scope: Any, headers: Headers, origin: str | None) -> Response | None:
        if scope["method"] == "OPTIONS" and origin in self._origins:
            return Response(status_code=204, headers={"access-control-allow-methods": "GET, POST"})
        if self._token is None:
            return None
        given = parse_qsl(scope["query_string"].decode("latin-1"))
        if self._is_token(dict(given).get("token")) and scope["method"] == "GET":
            # Redirect to an address without the token, so that the token is neither bookmarked nor kept in the history.
            rest = urlencode([(name, value) for name, value in given if name != "token"])
            # The address is relative, because a proxy may add a prefix that the server does not know.
            page = "./" + quote(scope["path"].rpartition("/")[2])
            answer = RedirectResponse(page + (f"?{rest}" if rest else ""), status_code=303)
            secure = scope.get("scheme") == "https"
            answer.set_cookie(COOKIE, self._token, httponly=True, samesite="strict", secure=secure)
            return answer
        scheme, _, bearer = headers.get("authorization", "").partition(" ")
        if scheme.lower() == "bearer" and self._is_token(bearer):
            return None
        if self._is_token(_read_cookie(headers)):
            return None
        return _answer(401, "this server needs its token: open /?token=…, or send Authorization: Bearer …")

    def _is_token(self, given: str | None) -> bool:
        expected = self._token or ""
        return given is not None and hmac.compare_digest(given.encode(), expected.encode())


def check_token(token: str | None) -> None:
    """Raise ValueError if the token is too short, or has a character that is not printable ASCII."""
    if token is not None and len(token) < MIN_TOKEN_CHARACTERS:
        raise ValueError(
            f"the token has {len(token)} characters; it needs at least {MIN_TOKEN_CHARACTERS}, "
            "as secrets.token_urlsafe() gives"
        )
    if token is not None and not (token.isascii() and token.isprintable()):
        raise ValueError(
            "the token has characters that a header cannot carry; use letters, digits and punctuation of ASCII"
        )


def _is_elsewhere(client: str) -> bool:
    """Return whether ``client`` is an address of another machine. If ``client`` is not an IP address, return False."""
    try:
        address = ip_address(client)
    except ValueError:
        return False
    return not (getattr(address, "ipv4_mapped", None) or address).is_loopback


def _split(address: str) -> SplitResult:
    """Return the parts of an address. An invalid address has empty parts, so it does not count as this machine."""
    try:
        return urlsplit(address)
    except ValueError:
        return urlsplit("")


def _read_cookie(headers: Headers) -> str | None:
    try:
        morsel = SimpleCookie(headers.get("cookie", "")).get(COOKIE)
    except CookieError:
        return None
    return None if morsel is None else morsel.value


def _answer(status: int, error: str) -> Response:
    return JSONResponse({"error": error}, status_code=status)
