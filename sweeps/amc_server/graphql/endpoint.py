"""``POST /graphql``: executes a document in a snapshot or a transaction, and returns its result."""

from __future__ import annotations

import contextlib
import logging
import sqlite3
from collections.abc import Callable, Sequence
from typing import Any

from graphql import GraphQLError
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.types import Scope

from amc_server.clients import FirstWords, is_tested, range_hint, version_of
from amc_server.errors import Refused, shortened
from amc_server.graphql import execution
from amc_server.http.messages import Json, base_url_of, read_body, read_json_body
from amc_server.store.blobs import Blobs
from amc_server.store.reader import Reader
from amc_server.store.storage import Storage
from amc_server.store.writer import Writer
from amc_sweeps.number_formats import at_most

logger = logging.getLogger(__name__)

MAX_GRAPHQL_BYTES = 32 * 1024**2
MOST_MESSAGES = 10  # of a reply; each quotes the given value

QueryRoot = Callable[[Reader, str, bool], object]  # of a snapshot, the server's address, and if it is a next page
MutationRoot = Callable[[Writer, str, list[str]], object]  # and of a list for blobs that the mutation discards


class GraphqlEndpoint:
    """Answers ``POST /graphql``."""

    def __init__(self, storage: Storage, blobs: Blobs, query_root: QueryRoot, mutation_root: MutationRoot) -> None:
        self._storage = storage
        self._blobs = blobs
        self._query_root = query_root
        self._mutation_root = mutation_root
        self._untested: set[str] = set()  # versions of clients that the log has a warning of
        self._first_words = FirstWords()

    async def answer(self, request: Request) -> Response:
        body = await read_body(request, MAX_GRAPHQL_BYTES)
        user_agent = request.headers.get("user-agent")
        return await run_in_threadpool(self._answer, body, base_url_of(request), request.scope, user_agent)

    def _answer(self, body: bytes, base_url: str, scope: Scope, user_agent: str | None) -> Response:
        version = version_of(user_agent)
        self._warn_of_untested(version)
        content = read_json_body(body)
        text = content.get("query") if isinstance(content, dict) else None
        if not isinstance(text, str):
            raise Refused('the body must be a JSON object with "query"', status=400)
        variables, name = content.get("variables") or {}, content.get("operationName") or None
        if not isinstance(variables, dict) or not isinstance(name, str | None):
            raise Refused("variables must be a JSON object and operationName a text", status=400)
        try:
            document, operation = execution.prepare(text, name)
        except execution.UnknownError as error:
            label = (name or " ".join(text[:1000].split()))[:80]
            logger.warning("graphql not understood: operation %s: %s", label, str(error)[:500])
            response: Response = _errors([_not_served(at_most(error.messages, MOST_MESSAGES), version)])
            return self._text_first(body, response, user_agent) if text.lstrip().startswith("mutation") else response
        scope["amc_operation"] = operation.name.value if operation.name else "unnamed"

        def execute(root: object) -> Any:
            return execution.execute(document, name, variables, root)

        if not execution.is_mutation(operation):
            return self._query(execute, base_url, is_next_page=variables.get("cursor") is not None)
        if warning := self._first_words.for_trial(variables, version):
            return PlainTextResponse(warning, status_code=429)
        return self._text_first(body, self._mutate(execute, base_url), user_agent)

    def _text_first(self, body: bytes, response: Response, user_agent: str | None) -> Response:
        """Return the reply to a mutation. If it is refused, wandb-core gets the text first: it prints no error."""
        if user_agent != "wandb-core" or not isinstance(response, _Refusal) or response.status_code not in (200, 404):
            return response
        text = self._first_words.for_refusal(body, response.messages)
        if text is None:
            return response
        logger.warning("refused to a run: %s", text)  # clients before 0.28 print it only while the run begins
        return PlainTextResponse(text, status_code=429)

    def _warn_of_untested(self, version: str | None) -> None:
        """Log once that a client's version was not tested; most of it may work all the same."""
        if version is not None and not is_tested(version) and version not in self._untested:
            self._untested.add(version)
            logger.warning("a client's version was not tested: %s", range_hint(version))

    def _query(self, execute: Callable[[object], Any], base_url: str, *, is_next_page: bool) -> Response:
        with self._storage.read() as store:
            return _reply(execute(self._query_root(store, base_url, is_next_page)))

    def _mutate(self, execute: Callable[[object], Any], base_url: str) -> Response:
        response: Response
        discarded: list[str] = []
        with contextlib.suppress(_Undo):
            with self._storage.write() as store:
                result = execute(self._mutation_root(store, base_url, discarded))
                response = _reply(result)
                if result.errors:
                    raise _Undo
            for blob in discarded:
                # A damaged name names no bytes. Bytes that stay are found by amc-sweep clean; the change is made.
                with contextlib.suppress(Refused, OSError):
                    self._blobs.remove(blob)
        return response


class _Undo(Exception):  # noqa: N818
    """Undoes a transaction whose reply is an error."""


def _reply(result: Any) -> Response:
    """Return the reply to an executed document; a refusal may have a status of its own."""
    if not result.errors:
        return Json({"data": result.data})
    messages, status = [], 200
    for error in result.errors:
        cause = error.original_error
        if isinstance(cause, Refused):
            messages.append(cause.message)
            status = cause.status or status
        else:
            if isinstance(cause, sqlite3.Error):
                raise cause
            if cause is not None and not isinstance(cause, GraphQLError):  # a GraphQLError is about the variables
                logger.error("a resolver failed at %s", error.path, exc_info=cause)
            messages.append(error.message)
    return _errors(at_most(messages, MOST_MESSAGES), status)


def _not_served(messages: Sequence[str], version: str | None) -> str:
    """Return one message for a document that the schema does not cover: old clients print only the first."""
    reasons = "; ".join(messages)
    if version is None or is_tested(version):
        return f"this server does not serve that: {reasons} ({range_hint(version)})"
    return f"{range_hint(version)}. It does not serve that: {reasons}"


class _Refusal(Json):
    """A reply with errors only."""

    def __init__(self, messages: Sequence[str], status: int) -> None:
        self.messages = [shortened(message) for message in messages]
        super().__init__({"data": None, "errors": [{"message": text} for text in self.messages]}, status_code=status)


def _errors(messages: Sequence[str], status: int = 200) -> _Refusal:
    return _Refusal(messages, status)
