"""Checks and executes the client's GraphQL documents against ``schema.graphql``.

A field that the schema lacks gets an error that names it. Fields resolve to the attribute or method of the same name in
snake case. A document's cost is checked before it is validated, and an answer's size while it is built: otherwise a
small document could cost very much.
"""

from __future__ import annotations

import re
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from importlib.resources import files
from typing import Any

from graphql import (
    DocumentNode,
    ExecutionResult,
    FieldNode,
    FragmentDefinitionNode,
    FragmentSpreadNode,
    GraphQLResolveInfo,
    GraphQLSyntaxError,
    OperationDefinitionNode,
    OperationType,
    SelectionSetNode,
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

from amc_server.errors import Refused

# Of a document. The client's largest has 2,200 characters, 250 tokens, 7 levels and one list of pages ("edges").
MAX_CHARACTERS = 100_000  # comments too
MAX_TOKENS = 2_000
MAX_LEVELS = 20
MAX_FIELDS = 2_000  # with every fragment written out
MAX_LISTS = 20
MAX_LISTS_NESTED = 2  # each level multiplies the answer by the number of runs
MAX_CACHED = 8_000  # characters of a document in the cache

MAX_VALUES = 200_000  # of an answer
MAX_QUERY_S = 20.0  # a mutation is not ended: it changes little, and it is sent again

SCHEMA = build_schema(files("amc_server.graphql").joinpath("schema.graphql").read_text())

# The client declares one variable as String in one document and as ID in another, and sends unused variables.
RULES = tuple(
    rule
    for rule in specified_rules
    if rule not in (VariablesInAllowedPositionRule, NoUnusedVariablesRule, NoUnusedFragmentsRule)
)


@lru_cache(maxsize=4096)
def snake_case(name: str) -> str:
    """Return camelCase as snake_case: ``runID`` -> ``run_id``."""
    return re.sub(r"(?<=[a-z0-9])([A-Z])", r"_\1", name).lower()


def _checked(text: str) -> tuple[DocumentNode, tuple[str, ...]]:
    if len(text) > MAX_CHARACTERS:
        raise UnknownError([f"the document has {len(text):,} characters, at most {MAX_CHARACTERS:,} are read"])
    return _cached_check(text) if len(text) <= MAX_CACHED else _check(text)


def _check(text: str) -> tuple[DocumentNode, tuple[str, ...]]:
    document = parse(text, max_tokens=MAX_TOKENS, no_location=True)
    problems = _excesses(document) or tuple(error.message for error in validate(SCHEMA, document, RULES))
    return document, problems


_cached_check = lru_cache(maxsize=128)(_check)  # the client sends the same few documents again and again


@dataclass
class _Cost:
    """The size of a selection, with its fragments written out."""

    levels: int = 0
    fields: int = 0
    lists: int = 0
    nested: int = 0  # lists inside each other
    top: int = 0  # fields of the first level

    def add(self, other: _Cost) -> None:
        self.levels = max(self.levels, other.levels)
        self.fields += other.fields
        self.lists += other.lists
        self.nested = max(self.nested, other.nested)
        self.top += other.top


def _excesses(document: DocumentNode) -> tuple[str, ...]:
    """Return the limits that a document exceeds, a sentence for each."""
    fragments = {node.name.value: node for node in document.definitions if isinstance(node, FragmentDefinitionNode)}
    costs: dict[str, _Cost] = {}

    def fragment(name: str) -> _Cost:
        if name not in costs and name in fragments:
            costs[name] = _Cost()  # for a fragment that is inside itself, which the rules of GraphQL refuse
            costs[name] = cost(fragments[name].selection_set)
        return costs.get(name, _Cost())

    def cost(selections: SelectionSetNode | None) -> _Cost:
        total = _Cost()
        for node in selections.selections if selections else ():
            if isinstance(node, FragmentSpreadNode):
                total.add(fragment(node.name.value))
                continue
            inner = cost(getattr(node, "selection_set", None))
            if isinstance(node, FieldNode):
                is_list = node.name.value == "edges"
                inner = _Cost(inner.levels + 1, inner.fields + 1, inner.lists + is_list, inner.nested + is_list, 1)
            total.add(inner)
        return total

    operations = [node for node in document.definitions if isinstance(node, OperationDefinitionNode)]
    total = _Cost()
    for operation in operations:
        total.add(cost(operation.selection_set))
    for name in fragments:
        fragment(name)
        total.levels = max(total.levels, costs[name].levels)
    problems = []
    for number, most, noun in (
        (total.levels, MAX_LEVELS, "levels"),
        (total.fields, MAX_FIELDS, "fields with its fragments written out"),
        (total.lists, MAX_LISTS, "lists of pages (edges)"),
        (total.nested, MAX_LISTS_NESTED, "lists of pages (edges) inside each other"),
    ):
        if number > most:
            problems.append(f"the document has more than {most:,} {noun}: ask for less at a time")
    if any(is_mutation(node) and cost(node.selection_set).top > 1 for node in operations):
        problems.append("the document has several mutations: send one at a time")
    return tuple(problems)


def prepare(text: str, operation_name: str | None) -> tuple[DocumentNode, OperationDefinitionNode]:
    """Return the parsed document and the operation to run.

    Raises:
        UnknownError: the text is not GraphQL, has several operations, or asks for something that the schema lacks, or
            for too much.
    """
    try:
        document, errors = _checked(text)
    except (GraphQLSyntaxError, RecursionError) as error:
        raise UnknownError([f"not a GraphQL document: {getattr(error, 'message', 'nested too deeply')}"]) from error
    if errors:
        raise UnknownError(list(errors))
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
    """Run a prepared document; its fields are resolved on ``root`` and on the nodes that ``root`` returns.

    Raises:
        Refused: the answer would be too large, or takes too long (400, which the client does not send again).
    """
    try:
        return execute_sync(
            SCHEMA,
            document,
            root_value=root,
            variable_values=dict(variables),
            operation_name=operation_name,
            field_resolver=_resolve,
            context_value=_Answer(),
        )
    except _TooMuch as error:
        raise Refused(str(error), status=400) from error


class _TooMuch(BaseException):
    """Ends the execution of a document: an Exception would become the error of one field, and the rest would go on."""


@dataclass
class _Answer:
    """Counts the values of an answer, and the time that it takes."""

    values: int = 0
    begun: float = field(default_factory=time.monotonic)

    def add(self, values: int, *, is_query: bool) -> None:
        """Count values.

        Raises:
            _TooMuch: the answer is too large, or takes too long.
        """
        self.values += values
        if self.values > MAX_VALUES:
            raise _TooMuch(
                f"the answer would hold more than {MAX_VALUES:,} values: ask for fewer fields, or for smaller pages "
                "(first)"
            )
        if is_query and time.monotonic() - self.begun > MAX_QUERY_S:
            raise _TooMuch(f"the query takes more than {MAX_QUERY_S:.0f} s: ask for less at a time")


def _resolve(source: Any, info: GraphQLResolveInfo[Any], **arguments: Any) -> Any:
    name = snake_case(info.field_name)
    value = source[name] if isinstance(source, Mapping) else getattr(source, name)
    if callable(value):
        value = value(**{snake_case(key): argument for key, argument in arguments.items()})
    size = 1 + len(value) if isinstance(value, list) else 1
    info.context.add(size, is_query=info.operation.operation is OperationType.QUERY)
    return value
