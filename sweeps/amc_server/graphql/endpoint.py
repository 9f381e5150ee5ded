"""The GraphQL door: a document comes in, is executed in a snapshot or a transaction, and its result goes out."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable
from typing import Any

from graphql import GraphQLError
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Scope

from amc_server.auth import Gate
from amc_server.clients import WANDB_RANGE, is_tested, range_hint, version_of
from amc_server.errors import Refused
from amc_server.graphql import execution
from amc_server.graphql.context import Context
from amc_server.graphql.mutations import MutationRoot
from amc_server.graphql.query_nodes import NODES, QueryRoot
from amc_server.http.messages import Json, base_url_of, read_body, read_json
from amc_server.scheduling.coordinator import Coordinator
from amc_server.store.blobs import Blobs
from amc_server.store.storage import Storage

logger = logging.getLogger(__name__)

MAX_GRAPHQL_BYTES = 32 * 1024**2


class GraphqlDoor:
    """Answers ``POST /graphql``."""

    def __init__(self, storage: Storage, coordinator: Coordinator, gate: Gate, blobs: Blobs) -> None:
        self._storage = storage
        self._coordinator = coordinator
        self._gate = gate
        self._blobs = blobs
        self._untested: set[str] = set()  # versions of clients that the log has been told of

    async def answer(self, request: Request) -> Response:
        body = await read_body(request, MAX_GRAPHQL_BYTES)
        user_agent = request.headers.get("user-agent")
        return await run_in_threadpool(self._answer, body, base_url_of(request), request.scope, user_agent)

    def _answer(self, body: bytes, base_url: str, scope: Scope, user_agent: str | None) -> Response:
        self._note_version(user_agent)
        content = read_json(body)
        text = content.get("query") if isinstance(content, dict) else None
        if not isinstance(text, str):
            raise Refused('the body is a JSON object with "query"', status=400)
        variables, name = content.get("variables") or {}, content.get("operationName") or None
        if not isinstance(variables, dict) or not isinstance(name, str | None):
            raise Refused("variables is a JSON object and operationName a text", status=400)
        try:
            document, operation = execution.prepare(text, name)
        except execution.UnknownError as error:
            logger.warning("graphql not understood: operation %s: %s", name or operation_in(text), error)
            return graphql_errors([*error.messages, range_hint(user_agent)])
        scope["amc_operation"] = operation.name.value if operation.name else "unnamed"
        run = self._mutate if execution.is_mutation(operation) else self._query
        return run(lambda root: execution.execute(document, name, variables, root), base_url)

    def _note_version(self, user_agent: str | None) -> None:
        """Say once in the log that a client is outside of what was tested; most of it may work all the same."""
        version = version_of(user_agent)
        if version is not None and not is_tested(version) and version not in self._untested:
            self._untested.add(version)
            logger.warning("a client says it is wandb %s; this server is tested with %s", version, WANDB_RANGE)

    def _query(self, execute: Callable[[object], Any], base_url: str) -> Response:
        with self._storage.read() as store:
            result = execute(QueryRoot(Context(store, self._coordinator, self._gate, self._blobs, base_url, NODES)))
            return graphql_response(result)

    def _mutate(self, execute: Callable[[object], Any], base_url: str) -> Response:
        response: Response
        discarded: list[str] = []
        with contextlib.suppress(_Undo):
            with self._storage.write() as store:
                context = Context(store, self._coordinator, self._gate, self._blobs, base_url, NODES, discarded)
                result = execute(MutationRoot(context))
                response = graphql_response(result)
                if result.errors:
                    raise _Undo
            for blob in discarded:
                self._blobs.remove(blob)
        return response


class _Undo(Exception):  # noqa: N818
    """Undoes a transaction whose reply is an error."""


def graphql_response(result: Any) -> Response:
    """Return the reply to an executed document; a refusal may bring its own status."""
    if not result.errors:
        return Json({"data": result.data})
    messages, status = [], 200
    for error in result.errors:
        cause = error.original_error
        if isinstance(cause, Refused):
            messages.append(cause.message)
            status = cause.status or status
        else:
            if cause is not None and not isinstance(cause, GraphQLError):  # its own are about the variables
                logger.error("a resolver failed at %s", error.path, exc_info=cause)
            messages.append(error.message)
    return graphql_errors(messages, status)


def graphql_errors(messages: list[str], status: int = 200) -> Response:
    """Return a GraphQL reply that holds nothing but errors."""
    return Json({"data": None, "errors": [{"message": message} for message in messages]}, status_code=status)


def operation_in(text: str) -> str:
    """Return the first words of a document that could not be understood."""
    return " ".join(text.split())[:80]
