"""Checks and executes the client's GraphQL documents against ``schema.graphql``.

A field that the schema lacks gets an error that names it. Fields resolve to the attribute or method of the same name in
snake case.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import lru_cache
from importlib.resources import files
from typing import Any

from graphql import (
    DocumentNode,
    ExecutionResult,
    GraphQLError,
    GraphQLResolveInfo,
    GraphQLSyntaxError,
    OperationDefinitionNode,
    OperationType,
    build_schema,
    execute_sync,
    get_operation_ast,
    parse,
    validate,
)
from graphql.validation import (
    NoUnusedFragmentsRule,
    NoUnusedVariablesRule,
    VariablesInAllowedPositionRule,
    specified_rules,
)

MAX_TOKENS = 10_000  # of a document; the client's largest has about 500

SCHEMA = build_schema(files("amc_server.graphql").joinpath("schema.graphql").read_text())

# The client declares one variable as String in one document and as ID in another, and sends unused variables.
_RULES = tuple(
    rule
    for rule in specified_rules
    if rule not in (VariablesInAllowedPositionRule, NoUnusedVariablesRule, NoUnusedFragmentsRule)
)


def snake_case(name: str) -> str:
    """Return camelCase as snake_case: ``runID`` -> ``run_id``."""
    return re.sub(r"(?<=[a-z0-9])([A-Z])", r"_\1", name).lower()


@lru_cache(maxsize=512)  # the client sends the same few documents again and again
def _checked(text: str) -> tuple[DocumentNode, tuple[GraphQLError, ...]]:
    document = parse(text, max_tokens=MAX_TOKENS)
    return document, tuple(validate(SCHEMA, document, _RULES))


def prepare(text: str, operation_name: str | None) -> tuple[DocumentNode, OperationDefinitionNode]:
    """Return the parsed document and the operation to run.

    Raises:
        UnknownError: the text is not GraphQL, has several operations, or asks for something that the schema lacks.
    """
    try:
        document, errors = _checked(text)
    except (GraphQLSyntaxError, RecursionError) as error:
        raise UnknownError([f"not a GraphQL document: {getattr(error, 'message', 'nested too deeply')}"]) from error
    if errors:
        raise UnknownError([error.message for error in errors])
    operation = get_operation_ast(document, operation_name)
    if operation is None:
        raise UnknownError([f"the document has no operation {operation_name or 'to run'}"])
    return document, operation


class UnknownError(Exception):
    """A document that this server cannot execute."""

    def __init__(self, messages: list[str]) -> None:
        super().__init__("; ".join(messages))
        self.messages = messages


def is_mutation(operation: OperationDefinitionNode) -> bool:
    """Return whether the operation is a mutation."""
    return operation.operation is OperationType.MUTATION


def execute(
    document: DocumentNode, operation_name: str | None, variables: Mapping[str, Any], root: object
) -> ExecutionResult:
    """Run a prepared document; its fields are resolved on ``root`` and on the nodes that ``root`` returns."""
    return execute_sync(
        SCHEMA,
        document,
        root_value=root,
        variable_values=dict(variables),
        operation_name=operation_name,
        field_resolver=_resolve,
    )


def _resolve(source: Any, info: GraphQLResolveInfo[Any], **arguments: Any) -> Any:
    name = snake_case(info.field_name)
    value = source[name] if isinstance(source, Mapping) else getattr(source, name)
    return value(**{snake_case(key): argument for key, argument in arguments.items()}) if callable(value) else value
