"""The explorer on this machine: a page and one address that answers its requests, for whoever has the link.

The server listens on the loopback address alone. Its link holds a token that is good once: it is turned into a cookie,
without which nothing is served. A request must name this server as its host, and one that asks something must come from
its own page (`Origin`), so that other pages which the browser has open can neither read nor ask (DNS rebinding, cross-
site requests). The policy of the page lets it load from here alone. A request is bounded in size, and is data: ids,
numbers and a few words (`session.Explorer.answer`).
"""

import json
import secrets
import socket
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path

import uvicorn
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.middleware.base import BaseHTTPMiddleware
from starlette.requests import Request
from starlette.responses import PlainTextResponse, RedirectResponse, Response
from starlette.routing import Route

from cotinterp.explore.session import Explorer
from cotinterp.training.loop import torch_threads

WEB = Path(__file__).parent / "web"
LOOPBACK = "127.0.0.1"
LARGEST_REQUEST = 65_536
"""Bytes of a request's body."""
FILES = {
    "/": ("index.html", "text/html; charset=utf-8"),
    "/page.js": ("page.js", "text/javascript; charset=utf-8"),
    "/explore.js": ("explore.js", "text/javascript; charset=utf-8"),
    "/explore.css": ("explore.css", "text/css; charset=utf-8"),
}
HEADERS = {
    "Content-Security-Policy": "default-src 'self'; img-src 'self' data:; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'; object-src 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cache-Control": "no-store",
}
NO_ENTRY = "this link has been used, or is not the one that was printed: start `cotinterp explore` again for a new one"


def explorer_app(explorer: Explorer, *, port: int, token: str) -> Starlette:
    """The application of one session on `port`; `token` opens it once."""
    hosts = {f"{LOOPBACK}:{port}", f"localhost:{port}"}
    cookie, key = f"cotinterp-explorer-{port}", secrets.token_urlsafe(32)
    unused = [token]

    async def file(request: Request) -> Response:
        given = request.query_params.get("token")
        if request.url.path == "/" and given is not None:
            if not unused or not secrets.compare_digest(given.encode(), unused[0].encode()):
                return PlainTextResponse(NO_ENTRY, 403)
            unused.clear()
            entered = RedirectResponse("/", 303)
            entered.set_cookie(cookie, key, httponly=True, samesite="strict", path="/")
            return entered
        if not _holds(request, cookie, key):
            return PlainTextResponse(NO_ENTRY, 403)
        name, kind = FILES[request.url.path]
        return Response((WEB / name).read_bytes(), media_type=kind)

    async def api(request: Request) -> Response:
        if not _holds(request, cookie, key):
            return PlainTextResponse(NO_ENTRY, 403)
        if request.headers.get("origin") not in {f"http://{host}" for host in hosts}:
            return PlainTextResponse("requests are taken from the explorer's own page alone", 403)
        if request.headers.get("content-type", "").partition(";")[0].strip() != "application/json":
            return PlainTextResponse("a request is JSON", 415)
        body = await _bounded(request)
        if body is None:
            return PlainTextResponse(f"a request has at most {LARGEST_REQUEST} bytes", 413)
        try:
            asked = json.loads(body)
        except (ValueError, RecursionError):
            return PlainTextResponse("this request is no JSON", 400)
        if not isinstance(asked, dict):
            return PlainTextResponse("a request is a JSON object", 400)
        answer = await run_in_threadpool(explorer.answer, asked)
        return Response(json.dumps(answer, allow_nan=False), media_type="application/json")

    async def guarded(request: Request, follow: Callable[[Request], Awaitable[Response]]) -> Response:
        if request.headers.get("host") in hosts:
            response = await follow(request)
        else:
            response = PlainTextResponse("this server answers to its own address alone", 421)
        response.headers.update(HEADERS)
        return response

    app = Starlette(routes=[*(Route(path, file) for path in FILES), Route("/api", api, methods=["POST"])])
    app.add_middleware(BaseHTTPMiddleware, dispatch=guarded)
    return app


def _holds(request: Request, cookie: str, key: str) -> bool:
    return secrets.compare_digest(request.cookies.get(cookie, "").encode(), key.encode())


async def _bounded(request: Request) -> bytes | None:
    """The body, or None where it is larger than it may be; no more than that is read."""
    body = b""
    async for part in request.stream():
        body += part
        if len(body) > LARGEST_REQUEST:
            return None
    return body


@dataclass(frozen=True)
class Service:
    """A server that is ready to run, and the link that opens it."""

    server: uvicorn.Server
    listening: socket.socket
    link: str

    def run(self) -> None:
        """Until Ctrl-C, or until `stop` from another thread. On one CPU thread: the browser needs the others."""
        with self.listening, torch_threads(1):
            self.server.run(sockets=[self.listening])

    def stop(self) -> None:
        """Ends `run` soon."""
        self.server.should_exit = True


def service(explorer: Explorer, *, port: int) -> Service:
    """A server of `explorer` on the loopback address. Port 0 takes any that is free.

    Raises:
        OSError: The port is taken.
    """
    listening = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listening.bind((LOOPBACK, port))
    except OSError as error:
        listening.close()
        raise OSError(
            f"port {port} of {LOOPBACK} cannot be had ({error.strerror}); --port 0 takes any that is free"
        ) from error
    own, token = listening.getsockname()[1], secrets.token_urlsafe(32)
    app = explorer_app(explorer, port=own, token=token)
    config = uvicorn.Config(app, log_level="warning", access_log=False, server_header=False)
    return Service(uvicorn.Server(config), listening, f"http://{LOOPBACK}:{own}/?token={token}")
