"""A stand-in for another W&B server than ours: the embedded server without its extras.

What the schema marks with ``@embedded`` does not exist here: a document that asks for it is refused as W&B refuses it,
and introspection does not show it. /healthz and everything outside the protocol is not found. The key looks like any
W&B key. Tests cannot reach the real cloud. ``LimitingProxy`` in front of it limits requests as the cloud does.
"""

from __future__ import annotations

import base64
import http.client
import json
import re
import threading
import urllib.parse
from functools import cache, lru_cache
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.resources import files
from types import TracebackType
from typing import Any, Self

from embedded_server import EmbeddedServer
from graphql import (
    REMOVE,
    DirectiveDefinitionNode,
    GraphQLError,
    GraphQLSchema,
    Node,
    OperationDefinitionNode,
    Visitor,
    build_ast_schema,
    graphql_sync,
    parse,
    validate,
    visit,
)
from graphql.execution.values import get_variable_values

from amc_server.graphql.execution import RULES

KEY = "0123456789abcdef" * 2 + "01234567"  # 40 hex digits
PROTOCOL = ("/graphql", "/files/", "/storage/", "/artifactsV2/")
OWN = "embedded"  # the directive of what only our server has


class _WithoutOwn(Visitor):
    def enter(self, node: Node, *_: Any) -> Any:
        marks = {directive.name.value for directive in getattr(node, "directives", None) or ()}
        is_mark = isinstance(node, DirectiveDefinitionNode) and node.name.value == OWN
        return REMOVE if OWN in marks or is_mark else None


@cache
def plain_schema() -> GraphQLSchema:
    """Return the schema without what only our server has."""
    text = files("amc_server.graphql").joinpath("schema.graphql").read_text()
    return build_ast_schema(visit(parse(text), _WithoutOwn()))


def _in_words_of_wandb(error: GraphQLError) -> str:
    return error.message.replace("'", '"')


@lru_cache(maxsize=256)
def _problems_of_document(text: str) -> tuple[str, ...]:
    try:
        return tuple(_in_words_of_wandb(error) for error in validate(plain_schema(), parse(text), RULES))
    except GraphQLError as error:
        return (_in_words_of_wandb(error),)


def problems(text: str, variables: dict[str, Any]) -> tuple[str, ...]:
    """Return why W&B's own servers would refuse a document or its variables."""
    if found := _problems_of_document(text):
        return found
    operation = next(node for node in parse(text).definitions if isinstance(node, OperationDefinitionNode))
    values = get_variable_values(plain_schema(), operation.variable_definitions or (), variables)
    return tuple(map(_in_words_of_wandb, values)) if isinstance(values, list) else ()


class PlainWandb:
    """A proxy in front of an embedded server; ``refused`` lists the paths and fields that W&B does not know."""

    def __init__(self, server: EmbeddedServer) -> None:
        self._behind = urllib.parse.urlsplit(server.base_url)
        self._authorization = "Basic " + base64.b64encode(f"api:{server.key}".encode()).decode()
        self.refused: list[str] = []
        plain = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                plain._answer(self)

            do_POST = do_PUT = do_HEAD = do_GET  # noqa: N815 - names that http.server looks for

            def log_message(self, *_: object) -> None:
                pass

        self._listener = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._listener.daemon_threads = True
        self._thread = threading.Thread(target=self._listener.serve_forever, daemon=True)

    @property
    def base_url(self) -> str:
        """The address."""
        return f"http://127.0.0.1:{self._listener.server_port}"

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._listener.shutdown()
        self._listener.server_close()
        self._thread.join()

    def _answer(self, request: BaseHTTPRequestHandler) -> None:
        body = request.rfile.read(int(request.headers.get("Content-Length") or 0))
        if not request.path.startswith(PROTOCOL):
            self.refused.append(request.path)
            _reply(request, 404, b"404 page not found")
        elif request.path == "/graphql" and (answer := self._own_answer(json.loads(body))) is not None:
            _reply(request, *answer)
        else:
            _reply(request, *self._ask(request, body))

    def _own_answer(self, content: dict[str, Any]) -> tuple[int, bytes] | None:
        """Refuse a document that asks for more than W&B has, and answer what asks for the schema."""
        text, variables = content["query"], content.get("variables") or {}
        if messages := problems(text, variables):
            self.refused += [name for message in messages for name in re.findall(r'"(\w+)"', message)[:1]]
            answer = {"errors": [{"message": message} for message in messages], "data": None}
            return 400, json.dumps(answer).encode()
        if "__schema" in text or "__type(" in text:
            return 200, json.dumps(
                {"data": graphql_sync(plain_schema(), text, variable_values=variables).data}
            ).encode()
        return None

    def _ask(self, request: BaseHTTPRequestHandler, body: bytes) -> tuple[int, bytes]:
        # Keep the host header, so that addresses from the server lead here.
        headers = {name: value for name, value in request.headers.items() if name.lower() != "connection"}
        expected = "Basic " + base64.b64encode(f"api:{KEY}".encode()).decode()
        if headers.get("Authorization") == expected:
            headers["Authorization"] = self._authorization
        connection = http.client.HTTPConnection(self._behind.hostname or "", self._behind.port, timeout=60)
        try:
            connection.request(request.command, request.path, body or None, headers)
            response = connection.getresponse()
            return response.status, response.read()
        finally:
            connection.close()


def _reply(request: BaseHTTPRequestHandler, status: int, body: bytes) -> None:
    request.send_response(status)
    request.send_header("Content-Type", "application/json")
    request.send_header("Content-Length", str(len(body)))
    request.end_headers()
    if request.command != "HEAD":
        request.wfile.write(body)
