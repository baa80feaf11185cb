"""Serves one page on this machine alone: both answers side by side, the nearest passage, and the run's report.

The page loads nothing from elsewhere. Requests whose Host is not this address, or that another site's page sends, are
refused, so no page in the browser can ask the model or read what was said.
"""

import asyncio
import errno
import json
import socket
import threading
from collections.abc import AsyncIterator, Callable, Generator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from importlib.resources import files
from pathlib import Path
from typing import Any

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from foci.chat.session import Session
from foci.system.harmless import visible
from foci.system.signals import Interrupted, leave

HOST = "127.0.0.1"
LONGEST = 100_000
"""Bytes of a question, at most."""
PAGE = {
    "/": ("page.html", "text/html"),
    "/page.css": ("page.css", "text/css"),
    "/page.js": ("page.js", "text/javascript"),
}
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; frame-src 'self'; img-src data:; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
REPORT_POLICY = (
    "sandbox allow-scripts; default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'unsafe-inline'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'self'"
)
"""The report has its own, stricter policy for scripts; in the sandbox it has no origin, so it may ask for nothing."""
HEADERS = {
    "Content-Security-Policy": POLICY, "X-Content-Type-Options": "nosniff", "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store", "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
}  # fmt: skip


class OwnPageOnly:
    """Refuses every request that does not come to this address, or that a page of another site sends."""

    def __init__(self, app: ASGIApp, port: int) -> None:
        self.app = app
        self.hosts = {f"{name}:{port}" for name in (HOST, "localhost")}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Passes a request on, or answers it with 403."""
        if scope["type"] != "http":
            return
        request = Request(scope)
        host, origin = request.headers.get("host", ""), request.headers.get("origin")
        site = request.headers.get("sec-fetch-site", "none")
        if host not in self.hosts:
            refused = f"this page is served on {HOST} alone"
        elif origin not in (None, f"http://{host}") or (
            request.method == "POST" and site not in ("none", "same-origin")
        ):
            refused = "another site's page may not ask"
        else:
            await self.app(scope, receive, send)
            return
        await PlainTextResponse(refused, 403, headers=HEADERS)(scope, receive, send)


class Page:
    """The routes of the page. `history` holds what was asked and said, so that it is there again after a reload.

    `thread` is the one that loaded the models; they answer in it too, because a second one would slow them down.
    """

    def __init__(self, session: Session, thread: ThreadPoolExecutor) -> None:
        self.session, self.thread = session, thread
        self.history: list[dict[str, Any]] = []
        self.stop = threading.Event()

    def app(self, port: int) -> ASGIApp:
        """Returns the application for that port."""
        routes = [
            *(Route(path, self.file) for path in PAGE),
            Route("/style.css", self.style),
            Route("/facts", self.facts),
            Route("/report", self.report),
            *(Route(f"/{name}", getattr(self, name), methods=["POST"]) for name in ("ask", "reset", "halt")),
        ]
        return OwnPageOnly(Starlette(routes=routes), port)

    async def file(self, request: Request) -> Response:
        """Returns a file of the page."""
        name, kind = PAGE[request.url.path]
        return Response((files("foci.chat") / name).read_text("utf-8"), media_type=kind, headers=HEADERS)

    async def style(self, _: Request) -> Response:
        """Returns the style sheet of the reports, for the same colours and letters."""
        return Response((files("foci.report") / "style.css").read_text("utf-8"), media_type="text/css", headers=HEADERS)

    async def facts(self, _: Request) -> Response:
        """Returns the run's name, its models, and what was said so far."""
        chosen = self.session.chosen
        facts = {
            "run": visible(chosen.run.name), "model": visible(Path(chosen.run.model.name).name),
            "arm": visible(chosen.arm), "remembers": self.session.template is not None,
            "report": self._report.is_file(), "history": self.history,
        }  # fmt: skip
        return JSONResponse(facts, headers=HEADERS)

    @property
    def _report(self) -> Path:
        return self.session.chosen.folder / "report.html"

    async def report(self, _: Request) -> Response:
        """Returns the run's report, in a sandbox."""
        if not self._report.is_file():
            return PlainTextResponse(
                "this run has no report.html; write it with: foci report RUN", 404, headers=HEADERS
            )
        headers = HEADERS | {"Content-Security-Policy": REPORT_POLICY}
        return Response(self._report.read_bytes(), media_type="text/html", headers=headers)

    async def reset(self, _: Request) -> Response:
        """Forgets what was said, unless a question is being answered."""
        if not self.session.lock.acquire(blocking=False):
            return _refused("a question is being answered; stop it first", 409)
        self.session.reset()
        self.history.clear()
        self.session.lock.release()
        return JSONResponse({}, headers=HEADERS)

    async def halt(self, _: Request) -> Response:
        """Stops the answers that are being written."""
        self.stop.set()
        return JSONResponse({}, headers=HEADERS)

    async def ask(self, request: Request) -> Response:
        """Answers a question, {"question": TEXT}, by a stream of server-sent events, each a JSON object."""
        question = await _question(request)
        if isinstance(question, Response):
            return question
        if not self.session.lock.acquire(blocking=False):
            return _refused("another question is being answered; wait for it, or stop it", 409)
        self.stop.clear()
        return StreamingResponse(self._events(question), media_type="text/event-stream", headers=HEADERS)

    async def _events(self, question: str) -> AsyncIterator[str]:
        said, wait = self._said(question), asyncio.get_running_loop().run_in_executor
        try:
            while (event := await wait(self.thread, next, said, None)) is not None:
                yield f"data: {json.dumps(event)}\n\n"
        finally:  # also where the browser has gone: after the piece that is being written
            ended = asyncio.wrap_future(self.thread.submit(self._ended, said))
            await asyncio.shield(ended)  # before the stream ends: what is asked next finds it free

    def _ended(self, said: Generator[dict[str, Any], None, None]) -> None:
        said.close()
        self.session.lock.release()

    def _said(self, question: str) -> Generator[dict[str, Any], None, None]:
        """Yields pieces of both answers, then the passage, and keeps them; of a question that cannot be asked, why."""
        kept: dict[str, Any] = {"question": visible(question), "answers": ["", ""]}
        self.history.append(kept)
        try:
            for piece in self.session.answer(question, self.stop):
                kept["answers"][piece.side] += piece.text
                yield asdict(piece)
            found = self.session.nearest(question)
            kept |= {"passage": found and asdict(found), "notice": self.session.notice}
            yield {"passage": kept["passage"], "notice": kept["notice"], "stopped": self.stop.is_set()}
        except ValueError as error:
            kept["error"] = visible(str(error))
            yield {"error": kept["error"]}


async def _question(request: Request) -> str | Response:
    """Returns the question of a request, or the answer to one that holds none."""
    if request.headers.get("content-type", "").partition(";")[0] != "application/json":
        return _refused("expected application/json", 415)
    body = bytearray()
    async for part in request.stream():
        body += part
        if len(body) > LONGEST:
            return _refused(f"a question has at most {LONGEST:,} bytes", 413)
    try:
        question = json.loads(body)["question"]
    except (ValueError, TypeError, KeyError, RecursionError):
        question = None
    if not isinstance(question, str) or not question.strip():
        return _refused('expected {"question": TEXT}', 422)
    return question.strip().encode("utf-8", "replace").decode("utf-8")


def _refused(reason: str, status: int) -> Response:
    return JSONResponse({"error": reason}, status, headers=HEADERS)


def listening(port: int) -> socket.socket:
    """Returns a socket of this machine alone, on a port that is free where `port` is 0.

    Raises ValueError for a port that is taken or not allowed.
    """
    try:
        return socket.create_server((HOST, port))
    except OSError as error:
        if error.errno not in (errno.EADDRINUSE, errno.EACCES):
            raise
        raise ValueError(
            f"--port {port} cannot be used ({error.strerror}); name another one, or leave it out for one that is free"
        ) from None


def _loaded(load: Callable[[], Session], thread: ThreadPoolExecutor) -> Session:
    """Loads both models in a thread; Ctrl-C does not wait until they are loaded, which nothing else can cut short."""
    try:
        return thread.submit(load).result()
    except Interrupted as stop:
        leave(stop)


def serve(load: Callable[[], Session], bound: socket.socket, tell: Callable[[str], None]) -> None:
    """Loads both models and serves the page until Ctrl-C."""
    port = bound.getsockname()[1]
    with ThreadPoolExecutor(1) as thread:
        page = Page(_loaded(load, thread), thread)
        tell(f"http://{HOST}:{port}/\nopen it in a browser on this machine; Ctrl-C ends")
        settings = uvicorn.Config(
            page.app(port), log_level="warning", access_log=False, lifespan="off", ws="none", http="h11",
            timeout_graceful_shutdown=2, server_header=False,
        )  # fmt: skip
        try:
            uvicorn.Server(settings).run(sockets=[bound])
        finally:
            page.stop.set()
