"""The JSON Schema (draft 2020-12) of ``amc-analyze --json``, read off the dataclasses that the document comes from.

A field's description is the comment behind it in the source, so that the two cannot part.
"""

from __future__ import annotations

import dataclasses
import inspect
import io
import tokenize
import types
import typing
from collections.abc import Mapping
from enum import StrEnum
from typing import Any, Literal, Union

from amc_analysis.effects.effects import Effect
from amc_analysis.next_sweep.narrowing import ValueEvidence
from amc_analysis.report.comparison import COMPARISON_VERSION, Side
from amc_analysis.report.conclusions import Conclusions
from amc_analysis.report.tables import RUN_FIELDS, SCHEMA_VERSION
from amc_sweeps.runs.causes import Cause

Schema = dict[str, Any]

_DRAFT = "https://json-schema.org/draft/2020-12/schema"

_TEXTS = ("run_id", "name", "state", "confidence", "because")
_NUMBERS = ("peak", "peak_epoch", "smoothed_peak", "last", "noise_sd", "test")
_WHOLE = ("rank", "epochs_planned", "exit_code")


def json_schemas() -> Schema:
    """Return what --json-schema prints: one schema for the document of one sweep and for that of several."""
    return {
        "$schema": _DRAFT,
        "title": f"amc-analyze, version {SCHEMA_VERSION}; of several sweeps amc-analyze-comparison, version "
        f"{COMPARISON_VERSION}",
        "oneOf": [{"$ref": "#/$defs/amc-analyze"}, {"$ref": "#/$defs/amc-analyze-comparison"}],
        "$defs": {
            "amc-analyze": {key: value for key, value in json_schema().items() if key != "$schema"},
            "amc-analyze-comparison": _comparison(),
        },
    }


def _comparison() -> Schema:
    return {
        "title": f"amc-analyze-comparison, version {COMPARISON_VERSION}",
        **_object(
            {
                "schema": {"const": "amc-analyze-comparison"},
                "version": {"const": COMPARISON_VERSION},
                "caveats": {"type": "array", "items": {"type": "string"}, "description": "what not to compare on"},
                "sides": _array(_of(Side)),
                "sweeps": {**_array({"$ref": "#/$defs/amc-analyze"}), "description": "the analysis of every one"},
            }
        ),
    }


def json_schema() -> Schema:
    """Return the schema of the document of one sweep."""
    concluded = typing.get_type_hints(Conclusions)
    effect = {**_of_dataclass(Effect)}
    effect["properties"] = effect["properties"] | {"called": _flag("p_corrected < 0.05"), "failures_called": _flag("")}
    effect["required"] = list(effect["properties"])
    return {
        "$schema": _DRAFT,
        "title": f"amc-analyze, version {SCHEMA_VERSION}",
        "description": "Rates and accuracies are fractions; null is unknown, absent or not finite.",
        **_object(
            {
                "schema": {"const": "amc-analyze"},
                "version": {"const": SCHEMA_VERSION},
                "read_at": {"type": "string", "description": "when the server was asked, ISO 8601"},
                "sweep": _object({name: _or_null("string") for name in _SWEEP}),
                "metric": _object(
                    {
                        "name": {"type": "string"},
                        "goal": {"enum": ["minimize", "maximize"]},
                        "percentage": _flag("the values are fractions that people read as percentages"),
                    }
                ),
                "summary": _object(
                    {
                        "runs": {"type": "integer"},
                        "best": _or_null("string", "run id of the best peak"),
                        "best_whole": _or_null("string", "run id of the best one that ended as it was meant to"),
                        "hidden_gems": {"type": "array", "items": {"type": "string"}},
                        "early_stops": _object({"runs": {"type": "integer"}, "epochs_saved": _or_null("integer")}),
                    }
                ),
                "causes": _counts("how many runs ended in each way"),
                "failure_rate": _object(
                    {
                        "failures": {"type": "integer"},
                        "ended": {"type": "integer"},
                        "rate": _or_null("number"),
                        "interval": {**_array({"type": "number"}), "description": "Wilson, 95 %"},
                        "censored": _counts("cut short from outside: in `ended`, never in `failures`"),
                        "unknown": {"type": "integer", "description": "ended nobody knows how"},
                        "naive": _object({"not_finished": {"type": "integer"}, "rate": _or_null("number")}),
                    }
                ),
                "hosts": _array(_place()),
                "agents": _array(_place()),
                "runs": _array(_run()),
                "effects": _array(effect),
                "importance": _of(concluded["importance"]),
                "confounded": _of(concluded["confounded"]),
                "dynamics": _of(concluded["dynamics"]),
                "integrity": _of(concluded["firings"]),
                "next_sweep": {"anyOf": [_next_sweep(), {"type": "null"}], "description": "with --next"},
            }
        ),
    }


_SWEEP = ("id", "entity", "project", "name", "state", "url", "method")


def _place() -> Schema:
    whole = {"type": "integer"}
    interval = {**_array({"type": "number"}), "description": "of the failure rate: Wilson, 95 %"}
    causes = _counts("of the failures")
    return _object(
        {"name": {"type": "string"}, "failures": whole, "ended": whole, "interval": interval, "causes": causes}
    )


def _run() -> Schema:
    kinds: dict[str, Schema] = {name: {"type": "string"} for name in _TEXTS}
    kinds |= {name: _or_null("number") for name in _NUMBERS} | {name: _or_null("integer") for name in _WHOLE}
    kinds |= {"cause": {"enum": [str(cause) for cause in Cause]}, "hidden_gem": {"type": "boolean"}}
    kinds |= {"epochs": {"type": "integer"}, "not_finite": _array({"type": "string"})}
    kinds |= {"stop_recorded": {"type": ["boolean", "null"]}}
    described = {
        name: {**kinds.get(name, _or_null("string")), "description": told} for name, told in RUN_FIELDS.items()
    }
    return _object({**described, "config": {"type": "object", "description": "the run's configuration"}})


def _next_sweep() -> Schema:
    evidence = _of_dataclass(ValueEvidence)
    return _object(
        {
            "yaml": {"type": "string", "description": "the sweep file"},
            "configurations": _or_null("integer", "null: infinitely many"),
            "run_cap": {"type": "integer"},
            "epochs": _or_null("integer", "about"),
            "epochs_at_most": _or_null("integer", "if no run is cut short"),
            "shrinks": {"type": "number", "description": "how many times smaller the space becomes"},
            "parameters": _array(
                _object(
                    {
                        "parameter": {"type": "string"},
                        "section": {"type": "object", "description": "what the file says of it"},
                        "share": {"type": "number", "description": "of its values or of its range that is kept"},
                        "kept": _array(evidence),
                        "dropped": _array(evidence),
                        "never_ran": {"type": "array", "description": "kept all the same, as exploration"},
                    }
                )
            ),
        }
    )


# --- from types to schemas -----------------------------------------------------------------------------------------


def _of(kind: Any) -> Schema:
    """Return the schema of an annotated type."""
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin is Literal:
        return {"enum": list(arguments)}
    if origin in {Union, types.UnionType}:
        return {"anyOf": [_of(one) for one in arguments]}
    if origin is tuple:
        return _array(_of(arguments[0])) if arguments[-1] is Ellipsis else {"type": "array", "minItems": len(arguments)}
    if origin is not None and issubclass(origin, Mapping):
        return {"type": "object", "additionalProperties": _of(arguments[1])}
    if dataclasses.is_dataclass(kind):
        return _of_dataclass(kind)
    if isinstance(kind, type) and issubclass(kind, StrEnum):
        return {"enum": [str(member) for member in kind]}
    plain = {int: "integer", float: "number", str: "string", bool: "boolean", types.NoneType: "null"}
    return {"type": plain[kind]} if kind in plain else {}


def _of_dataclass(kind: Any) -> Schema:
    hints, comments = typing.get_type_hints(kind), _comments(kind)
    properties = {}
    for field in dataclasses.fields(kind):
        told = comments.get(field.name)
        # A float that is not finite is written as null.
        schema = {"type": ["number", "null"]} if hints[field.name] is float else _of(hints[field.name])
        properties[field.name] = {**schema, "description": told} if told else schema
    return {**_object(properties), "description": inspect.getdoc(kind) or ""}


def _comments(kind: type) -> dict[str, str]:
    """Return field -> the comment behind it, continued on lines that hold nothing but a comment."""
    found: dict[str, str] = {}
    current, fresh = None, True
    for token in tokenize.generate_tokens(io.StringIO(inspect.getsource(kind)).readline):
        if token.type == tokenize.NAME and fresh and token.line.lstrip().startswith(f"{token.string}:"):
            current = token.string
        if token.type == tokenize.COMMENT and current is not None:
            text = token.string.lstrip("# ").strip()
            found[current] = f"{found[current]} {text}" if current in found else text
        fresh = token.type in {tokenize.NEWLINE, tokenize.NL, tokenize.INDENT, tokenize.DEDENT, tokenize.COMMENT}
    return found


def _object(properties: Schema) -> Schema:
    return {
        "type": "object",
        "properties": properties,
        "required": list(properties),
        "additionalProperties": False,
    }


def _array(items: Schema) -> Schema:
    return {"type": "array", "items": items}


def _or_null(kind: str, description: str = "") -> Schema:
    return {"type": [kind, "null"], **({"description": description} if description else {})}


def _flag(description: str) -> Schema:
    return {"type": "boolean", **({"description": description} if description else {})}


def _counts(description: str) -> Schema:
    return {"type": "object", "additionalProperties": {"type": "integer"}, "description": description}
