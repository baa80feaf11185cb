"""A writer behind an address: any OpenAI-compatible server, several requests at a time."""

import asyncio
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from foci.errors import hint
from foci.study.prompts import Request
from foci.study.settings import Settings
from foci.study.store import LOOP, Reply
from foci.study.writers.loops import loops
from foci.study.writers.writer import Answered, Left, Writer

if TYPE_CHECKING:
    from openai import AsyncOpenAI

KEY = "OPENAI_API_KEY"
"""The variable that holds the key of a server."""
FIRST_WAIT, LONGEST_WAIT = 0.5, 60.0
"""Seconds before the first retry, which double from one to the next, and the longest wait that a server may ask for."""
LOOKED = 16
"""Pieces after which a reply is looked at again, whether it goes round in a loop."""
IN_A_ROW = 4
"""Requests per worker that fail one after the other, at least, until a server is given up."""


class GivenUp(ConnectionError):
    """The error of a server that answers nothing, or no longer."""


class _Failed(Exception):
    """One attempt that failed: why, after how many seconds to try again, and whether that makes sense."""

    def __init__(self, reason: str, *, again: bool = True, after: float | None = None) -> None:
        super().__init__(reason)
        self.again, self.after = again, after


@dataclass
class ServerWriter(Writer):
    """The model `model` of the server at `url`."""

    url: str
    model: str
    workers: int
    timeout: float
    retries: int
    refused: set[str] = field(default_factory=set)
    """Settings that the server does not take."""
    has_answered: bool = False

    @property
    def name(self) -> str:
        """The address and the model."""
        return f"{self.url} {self.model}"

    def ask(self, requests: Sequence[Request], answered: Answered, left: Left) -> None:
        """Asks `workers` requests at a time.

        A request that fails after all retries is left. Raises ValueError where the server refuses the key or the model,
        GivenUp where many requests fail one after the other.
        """
        asyncio.run(_Asking(self, answered, left).all(requests))

    def settings_of(self, request: Request) -> dict[str, Any]:
        """Returns the settings of a request: greedy, with a limit on the reply, and in pieces.

        What the server refuses is left out. Of a request whose reply comes in pieces, a server sees that nobody reads
        it any more, and ends it; others go on, beside the next attempt.
        """
        wanted = {
            "max_tokens": request.max_tokens,
            "temperature": 0,
            "stream_options": {"include_usage": True},
            "stream": True,
        }
        kept = {key: value for key, value in wanted.items() if key not in self.refused}
        return kept if "stream" in kept else {key: kept[key] for key in kept if key != "stream_options"}


class _Asking:
    """One call of `ask`: what is still to be asked, and what went wrong so far."""

    def __init__(self, writer: ServerWriter, answered: Answered, left: Left) -> None:
        self.writer, self.answered, self.left = writer, answered, left
        self.failed_in_a_row = 0

    async def all(self, requests: Sequence[Request]) -> None:
        waiting = list(reversed(requests))
        async with _client(self.writer.url, self.writer.timeout) as client:
            workers = [asyncio.ensure_future(self._work(client, waiting)) for _ in range(self.writer.workers)]
            try:
                await asyncio.gather(*workers)
            finally:
                for worker in workers:
                    worker.cancel()
                await asyncio.gather(*workers, return_exceptions=True)

    async def _work(self, client: "AsyncOpenAI", waiting: list[Request]) -> None:
        while waiting:
            request = waiting.pop()
            try:
                reply = await self._reply(client, request)
            except _Failed as error:
                self.left(request, str(error))
                self.failed_in_a_row += 1
                if self.failed_in_a_row >= IN_A_ROW * self.writer.workers:
                    self._give_up(error, waiting)
            else:
                self.failed_in_a_row, self.writer.has_answered = 0, True
                self.answered(request, reply)

    def _give_up(self, error: _Failed, waiting: list[Request]) -> None:
        """Leaves all that is still to be asked. Raises GivenUp where the server never answered anything."""
        times = f"{self.failed_in_a_row} times in a row"
        if not self.writer.has_answered:
            raise GivenUp(
                f"the writer {self.writer.url} failed {times}, last with: {error}; see to the server, then run the "
                "same command again"
            ) from None
        while waiting:
            self.left(waiting.pop(), f"not asked, as the server had failed {times}")

    async def _reply(self, client: "AsyncOpenAI", request: Request) -> Reply:
        """Returns the reply to a request, after as many attempts as it needs. Raises _Failed with the last reason."""
        attempt, refused = 0, len(self.writer.refused)
        while True:
            try:
                return await _attempt(client, self.writer, request)
            except _Failed as error:
                if len(self.writer.refused) > refused:  # asked again at once without the setting that is refused
                    refused = len(self.writer.refused)
                    continue
                wait = error.after if error.after is not None else min(LONGEST_WAIT, FIRST_WAIT * 2**attempt)
                if not error.again or attempt == self.writer.retries:
                    raise
                if wait > LONGEST_WAIT:
                    raise _Failed(f"{error}; the server asks to wait {wait:,.0f} s") from None
            attempt += 1
            await asyncio.sleep(wait)


async def _attempt(client: "AsyncOpenAI", writer: ServerWriter, request: Request) -> Reply:
    """Asks once. Raises _Failed, or ValueError where no request can succeed."""
    import openai  # noqa: PLC0415

    try:
        sent: Any = client.chat.completions.with_raw_response.create
        made = await asyncio.wait_for(
            sent(model=writer.model, messages=request.messages(), **writer.settings_of(request)), writer.timeout
        )
        return await _read(made.http_response, made.parse, writer.timeout)
    except openai.APIStatusError as error:
        raise _failure(error, writer, request) from None
    except (TimeoutError, openai.APITimeoutError):
        raise _Failed(f"no answer within {writer.timeout:g} s") from None
    except openai.APIConnectionError as error:
        raise _Failed(f"no connection ({_cause(error)})") from None
    except openai.APIError as error:
        raise _Failed(f"the server broke off ({' '.join(str(error.message).split())[:200]})") from None
    except (openai.OpenAIError, ValueError, TypeError, AttributeError, IndexError, KeyError) as error:
        raise _Failed(f"an answer that is no chat completion ({type(error).__name__})") from None


async def _read(response: Any, parse: Any, timeout: float) -> Reply:
    """Returns the reply of a response: a stream of pieces, or the whole at once where the server does not stream."""
    from openai.types.chat import ChatCompletion  # noqa: PLC0415

    broken = sys.modules[type(response).__module__.partition(".")[0]].HTTPError  # of the client's HTTP library
    try:
        if "event-stream" in response.headers.get("content-type", ""):
            return await _streamed(parse(), timeout)
        body = await asyncio.wait_for(response.aread(), timeout)
    except broken as error:
        raise _Failed(f"the answer broke off ({_cause(error)})") from None
    return _reply_of(ChatCompletion.model_validate_json(body))


async def _streamed(stream: Any, timeout: float) -> Reply:
    """Returns the reply of a stream; each piece may take `timeout` seconds.

    However it ends, the connection is closed, so that the server does not go on writing. A reply that loops is ended.
    Raises _Failed where the stream ends before the reply does.
    """
    text, finish, usage, pieces = "", "", None, 0
    try:
        chunks = aiter(stream)
        while (chunk := await asyncio.wait_for(anext(chunks, None), timeout)) is not None:
            usage = getattr(chunk, "usage", None) or usage
            for choice in chunk.choices[:1]:
                text += choice.delta.content or getattr(choice.delta, "refusal", None) or ""
                finish = choice.finish_reason or finish
                pieces += 1
            if pieces % LOOKED == 0 and not finish and loops(text):
                finish = LOOP
                break
    finally:
        await stream.close()
    if not finish:
        raise _Failed(f"the answer broke off after {len(text):,} characters")
    return _counted(text, usage, finish)


def _reply_of(made: Any) -> Reply:
    """Returns the reply of a chat completion. Raises as a wrong answer makes it."""
    choice = made.choices[0]
    text = choice.message.content or getattr(choice.message, "refusal", None) or ""
    if not isinstance(text, str):
        raise TypeError(type(text).__name__)
    return _counted(text, made.usage, str(choice.finish_reason or ""))


def _counted(text: str, usage: Any, finish: str) -> Reply:
    """Returns a reply with the tokens that the server counted; None where it did not."""
    counts = [getattr(usage, name, None) for name in ("prompt_tokens", "completion_tokens")]
    tokens = [count if isinstance(count, int) else None for count in counts]
    return Reply(text, tokens[0], tokens[1], finish)


def _failure(error: Any, writer: ServerWriter, request: Request) -> Exception:
    """Returns what an HTTP status means: another attempt, another request, or the end."""
    status, said = error.status_code, _said(error)
    if status in (401, 403):
        return ValueError(_key_words(writer.url, status, said))
    if status == 404:
        return ValueError(
            f"the writer {writer.url} has no chat completions for the model {writer.model!r} (HTTP 404: {said}); name "
            "its model with --model, and an address that ends where /chat/completions goes on, such as .../v1"
        )
    if status == 429 and "insufficient_quota" in said:
        return ValueError(f"the writer {writer.url} says that the money or quota of this key is spent: {said}")
    if status in (400, 422) and (named := [key for key in writer.settings_of(request) if key in said]):
        writer.refused.update(named)
        return _Failed(f"HTTP {status}: {said}")
    again = status in (408, 409, 425, 429) or status >= 500
    return _Failed(f"HTTP {status}: {said}", again=again, after=_retry_after(error))


def _key_words(url: str, status: int, said: str) -> str:
    if os.environ.get(KEY):
        return f"the writer {url} refuses the key in {KEY} (HTTP {status}: {said}); set another key"
    return f"the writer {url} needs a key (HTTP {status}: {said}), and {KEY} is not set; set it: export {KEY}=..."


def _retry_after(error: Any) -> float | None:
    """Returns the seconds that a server asks to wait; None where it does not say."""
    value = error.response.headers.get("retry-after", "")
    try:
        seconds = float(value)
    except ValueError:
        return None
    return max(0.0, seconds) if seconds < float("inf") else None


def _said(error: Any) -> str:
    """Returns what a server said of an error, on one line and not too long."""
    body = error.body
    inner = body.get("message") or body if isinstance(body, dict) else error.response.text
    code = f" ({body['code']})" if isinstance(body, dict) and body.get("code") else ""
    return " ".join(str(inner).split())[:200] + code or "no reason given"


def _cause(error: BaseException) -> str:
    """Returns the innermost reason of a failed connection."""
    while inner := error.__cause__ or error.__context__:
        error = inner
    return str(error) or type(error).__name__


def _client(url: str, timeout: float) -> "AsyncOpenAI":
    from openai import AsyncOpenAI  # noqa: PLC0415

    return AsyncOpenAI(base_url=url, api_key=os.environ.get(KEY) or "none", timeout=timeout, max_retries=0)


def server_of(settings: Settings) -> ServerWriter:
    """Returns the writer at an address, after a look at the models that it serves.

    Raises ConnectionError where no server answers, ValueError where it needs a key or where its model must be named.
    """
    url = settings.writer.rstrip("/")
    if find_spec("openai") is None:
        raise ImportError(
            f"the writer {url} is a server, and the package openai is not installed: pip install 'foci[study]'"
        )
    model = asyncio.run(_model(url, settings))
    return ServerWriter(url, model, settings.workers, settings.timeout, settings.retries)


async def _model(url: str, settings: Settings) -> str:
    """Returns the name of the server's model: the one that is named, or the only one that it serves."""
    import openai  # noqa: PLC0415

    async with _client(url, min(settings.timeout, 20.0)) as client:
        try:
            listed = await asyncio.wait_for(client.models.list(), min(settings.timeout, 20.0))
            names = [str(one.id) for one in listed.data]
        except openai.APIStatusError as error:
            if error.status_code in (401, 403):
                raise ValueError(_key_words(url, error.status_code, _said(error))) from None
            names = []
        except (TimeoutError, openai.APIConnectionError) as error:
            raise ConnectionError(
                f"no server answers at {url} ({_cause(error)}); start it, or check the address"
            ) from None
        except (openai.OpenAIError, ValueError, TypeError, AttributeError):
            names = []
    if settings.model is not None:
        return settings.model
    if len(names) == 1:
        return names[0]
    raise ValueError(
        f"the writer {url} serves {len(names) or 'no list of'} models; name one with --model"
        + (f" ({hint('', names[:12])})" if names else "")
    )
