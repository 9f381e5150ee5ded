"""Generated inputs for every reader of the server, from empty to a megabyte: the same ones for the same seed."""

from __future__ import annotations

import json
import math
import random
import urllib.parse
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

MOST_BYTES = 1_000_000
TAGS = ["int", "float", "bool", "timestamp", "binary", "set", "omap", "python/object"]
RUNS = 40  # that exist, r0, r1, ...
HEAD = "format: amc-sweep-export\nversion: 2\nproject: imported\n"
WORDS = [
    "",
    "a",
    "null",
    "true",
    "~",
    "-1",
    "1e999",
    "NaN",
    ".inf",
    "0x1F",
    "1:30:59",
    "2025-13-45",
    "\u2028",
    "é",
    "💥",
]
CONTROLS = ["\0", "\r", "\x1b[2J", "\x1b]0;t\x07", "\x7f", "\x9b31m", "\u202e", "\u2028", "\ud800", "\udfff"]
FIELDS = [
    *("exit_code", "stop_band", "stop_value", "state", "sweep", "created_at", "config", "summary", "tags", "history"),
    "x",
]
NUMBERS = [0, -1, 1, 2**31, 2**53, 2**63, 2**64, 10**30, 10**400, 0.1, -0.0, 1e308, 5e-324, 1e-10]


@dataclass(frozen=True)
class Input:
    """One request."""

    reader: str
    method: str
    path: str
    body: bytes = b""
    headers: dict[str, str] = field(default_factory=dict)


def inputs(seed: int, count: int) -> Iterator[Input]:
    """Yield requests, every reader in turn."""
    rng = random.Random(seed)
    for number in range(count):
        yield MAKERS[number % len(MAKERS)](rng)


def _size(rng: random.Random) -> int:
    """Return a number of bytes; every order of magnitude is as likely as any other."""
    return int(MOST_BYTES ** rng.random())


def _repeated(text: str, size: int) -> str:
    return text * max(1, size // max(1, len(text)))


def _noise(rng: random.Random, size: int) -> str:
    alphabet = rng.choice(
        ['{}[],:"', "abc ", "{[-?:&*!|>'\"%@`#,]}\n ", "0123456789.eE+-_xob:", "".join(WORDS), "\0\x1b\ud800a"]
    )
    return "".join(rng.choices(alphabet, k=min(size, 20_000)))


def _value(rng: random.Random, levels: int = 4) -> object:
    """Return a small value of JSON."""
    kind = rng.randrange(8 if levels else 5)
    if kind < 2:
        return rng.choice(NUMBERS)
    if kind < 5:
        return rng.choice([*WORDS, None, True, False, "\ud800"])
    if kind == 5:
        return [_value(rng, levels - 1) for _ in range(rng.randrange(5))]
    return {rng.choice(WORDS) + str(rng.randrange(9)): _value(rng, levels - 1) for _ in range(rng.randrange(5))}


def json_text(rng: random.Random, size: int) -> str:
    """Return JSON, or what looks like it: deep, wide, long, of huge numbers, cut off, or noise."""
    depth = min(size // 2, 100_000)
    shapes: list[Callable[[], str]] = [
        lambda: "[" * depth,
        lambda: "[" * depth + "]" * depth,
        lambda: '{"a":' * (size // 6) + "1" + "}" * (size // 6),
        lambda: "[" + _repeated("1,", size) + "1]",
        lambda: "[" + _repeated('"",', size) + '""]',
        lambda: "[" + _repeated("{},", size) + "{}]",
        lambda: json.dumps({f"k{number}": number for number in range(size // 12)}),
        lambda: json.dumps("x" * size),
        lambda: json.dumps("\ud800" * (size // 6)),
        lambda: rng.choice(["", "-", "0.", "1e"]) + "9" * size,
        lambda: "[" + _repeated("9" * rng.choice([20, 400, 4200, 4400]) + ",", size) + "1]",
        lambda: json.dumps([_value(rng) for _ in range(min(size // 40, 3000))]),
        lambda: json.dumps(_value(rng))[: rng.randrange(1, 200)],
        lambda: json.dumps({"a" * size: 1}),
        lambda: _noise(rng, size),
    ]
    return rng.choice(shapes)()


def yaml_text(rng: random.Random, size: int) -> str:
    """Return YAML, or what looks like it: aliases that grow, merges, tags, numbers of every base, keys, JSON."""
    width = rng.randrange(2, 12)
    levels = min(rng.randrange(2, 120), max(2, size // (4 * width)))
    chain = "a0: &a0 [" + "x" * rng.choice([1, 1, min(size, 10_000)]) + "]\n"
    shapes: list[Callable[[], str]] = [
        lambda: json_text(rng, size),
        lambda: chain + "".join(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * width)}]\n" for n in range(1, levels)),
        lambda: (
            "m0: &m0 {a: 1}\n"
            + "".join(f"m{n}: &m{n} {{<<: [{', '.join([f'*m{n - 1}'] * width)}]}}\n" for n in range(1, levels))
        ),
        lambda: "a: &a " + "x" * (size // 2) + "\nb: [" + _repeated("*a, ", size // 2) + "]",
        lambda: _repeated(
            rng.choice(["- ", "? ", "{a: ", "[", "&a ", "!!str ", "- - ", "a: ", "--- \n", "%TAG "]), size
        ),
        lambda: (
            "a: " + rng.choice(["0x", "0b1", "0o7", "+", "1:", "1_"]) + _repeated(rng.choice(["f", "1", "59:"]), size)
        ),
        lambda: "{" + ", ".join(f"{(2**61 - 1) * n}: x" for n in range(min(size // 25, 40_000))) + "}",
        lambda: "\n".join(f"{n}: {rng.choice(WORDS)}" for n in range(size // 8)),
        lambda: "\n".join(f"k: {n}" for n in range(size // 8)),
        lambda: f"a: !!{rng.choice(TAGS)} {_noise(rng, 40)}",
        lambda: "a: |\n" + _repeated("  line\n", size),
        lambda: 'a: "' + _repeated("\\x41\\u263a", size) + '"',
        lambda: _noise(rng, size),
    ]
    return rng.choice(shapes)()


def _spec(rng: random.Random) -> dict[str, object]:
    names = [
        "uniform",
        "int_uniform",
        "q_uniform",
        "log_uniform_values",
        "normal",
        "q_log_normal",
        "beta",
        "constant",
        "x",
    ]
    spec: dict[str, object] = {}
    if rng.random() < 0.7:
        spec["distribution"] = rng.choice(names)
    for key in rng.sample(
        ["min", "max", "q", "mu", "sigma", "a", "b", "value", "values", "probabilities"], rng.randrange(1, 5)
    ):
        spec[key] = (
            [rng.choice(NUMBERS) for _ in range(3)] if key in ("values", "probabilities") else rng.choice(NUMBERS)
        )
    return spec


def _good_spec(rng: random.Random, size: int) -> dict[str, object]:
    return rng.choice(
        [
            {"min": 0.0, "max": rng.random() + 1e-9},
            {"min": -(2**40), "max": rng.choice([0, 2**40, 2**62])},
            {"values": list(range(1 + min(size // 8, 20_000)))},
            {"distribution": "q_uniform", "min": 0.0001, "max": 0.1, "q": rng.choice([0.01, 1e-10, 1e-17])},
            {"distribution": "log_uniform_values", "min": 1e-300, "max": 1e300},
            {"value": _value(rng)},
        ]
    )


def sweep_text(rng: random.Random, size: int) -> str:
    """Return the YAML of a sweep: valid, odd, too wide, or none at all."""
    if rng.random() < 0.3:
        return yaml_text(rng, size)
    is_good = rng.random() < 0.7
    number = rng.choice([1, 3, 1 + min(size // 60, 3000)])
    names = [f"p{index}" + ("n" * min(size // 8, 9000) if rng.random() < 0.1 else "") for index in range(number)]
    values = size // number
    config: dict[str, object] = {
        "method": rng.choice(["grid", "random", "bayes"]),
        "metric": {"name": "acc", "goal": "maximize"},
        "parameters": {name: _good_spec(rng, values) if is_good else _spec(rng) for name in names},
    }
    if not is_good:
        config["metric"] = {"name": rng.choice(["acc", "a." * (size // 2), ""]), "goal": rng.choice(["maximize", "up"])}
    if rng.random() < 0.3:
        keys = {key: rng.choice([1, 27, *NUMBERS]) for key in ("max_iter", "s", "eta")}
        config["early_terminate"] = {"type": "hyperband", **keys}
    if rng.random() < 0.5:
        config["run_cap"] = rng.choice([1, 1000, 2**62, 10**30, -1])
    if rng.random() < 0.1:
        config |= {f"k{index}": 1 for index in range(min(size // 12, 20_000))}
    return json.dumps(config)  # JSON is YAML


def export_text(rng: random.Random, size: int) -> str:
    """Return an export file: valid, with odd fields, or none at all."""
    if rng.random() < 0.4:
        return rng.choice(["", HEAD + "extra: "]) + yaml_text(rng, size)
    runs = []
    for number in range(rng.choice([1, 2, 1 + min(size // 60, 500)])):
        run = {"id": f"i{rng.randrange(10**9)}-{number}", "state": rng.choice(["finished", "failed", "running", "x"])}
        run |= {name: _value(rng, 3) for name in rng.sample(FIELDS, rng.randrange(3))}
        if rng.random() < 0.5:
            run["history"] = "\n".join(
                json.dumps({"_step": row, "acc": rng.random()}) for row in range(min(size // 40, 200))
            )
        runs.append(run)
    if rng.random() < 0.3:
        runs[0]["history"] = json_text(rng, size)
    sweeps = [{"id": f"s{rng.randrange(10**9)}", "config": _value(rng)}] if rng.random() < 0.3 else []
    return HEAD + f"sweeps: {json.dumps(sweeps)}\nruns: {json.dumps(runs)}\n"


def _graphql(reader: str, query: str, **variables: object) -> Input:
    return Input(reader, "POST", "/graphql", json.dumps({"query": query, "variables": variables}).encode())


def _import(rng: random.Random) -> Input:
    return Input("import", "POST", "/import", export_text(rng, _size(rng)).encode("utf-8", "surrogatepass"))


def _create(rng: random.Random) -> Input:
    query = """mutation U($config: String) { upsertSweep(input: {config: $config, projectName: "swept"}) {
        sweep { name runCountExpected } } }"""
    return _graphql("create", query, config=sweep_text(rng, _size(rng)))


def _document(rng: random.Random) -> Input:
    size = _size(rng)
    five = rng.randrange(1, 8)
    shapes: list[Callable[[], str]] = [
        lambda: "{ viewer { id } } #" + _repeated("comment ", size),
        lambda: '{ project(name: "p") { ' + "runs { edges { node { project { " * five + "id" + "} } } }" * five + "} }",
        lambda: "{ " + _repeated("viewer { id } ", size) + "}",
        lambda: (
            "{ " + " ".join(f'a{n}: project(name: "p") {{ runs {{ totalCount }} }}' for n in range(size // 50)) + "}"
        ),
        lambda: _repeated("{ project ", size),
        lambda: (
            "{ ...f9 } fragment f0 on Query { viewer { id } } "
            + " ".join(f"fragment f{n} on Query {{ {f'...f{n - 1} ' * five} }}" for n in range(1, 10))
        ),
        lambda: "{ project(name: " + _repeated("[", size) + ") { id } }",
        lambda: '{ project(name: "' + "x" * size + '") { id } }',
        lambda: '{ entity(name: """' + _repeated("block ", size) + '""") { id } }',
        lambda: "{ __schema { types { " + "ofType { " * five + "name" + " }" * five + " } } }",
        lambda: _noise(rng, size),
        lambda: "query Q(" + _repeated("$a: Int ", size) + ") { viewer { id } }",
    ]
    if rng.random() < 0.4:
        body = b'{"query": "{ viewer { id } }", "variables": ' + json_text(rng, size).encode("utf-8", "replace") + b"}"
        return Input("GraphQL", "POST", "/graphql", body)
    if rng.random() < 0.4:
        query = """mutation B($name: String, $config: JSONString, $summary: JSONString) { upsertBucket(input: {
            name: $name, modelName: "p", config: $config, summaryMetrics: $summary}) { bucket { id } } }"""
        name = f"r{rng.randrange(RUNS)}"
        return _graphql("GraphQL", query, name=name, config=json_text(rng, size), summary=json_text(rng, size))
    return _graphql("GraphQL", rng.choice(shapes)())


def _post(rng: random.Random) -> Input:
    size, name = _size(rng), f"r{rng.randrange(RUNS)}"
    path = f"/files/local/p/{name}/file_stream"
    if rng.random() < 0.3:
        return Input("file_stream", "POST", path, json_text(rng, size).encode("utf-8", "surrogatepass"))
    file = rng.choice(
        ["wandb-history.jsonl", "wandb-summary.json", "wandb-events.jsonl", "output.log", "x" * (size // 2)]
    )
    rows: list[object] = rng.choice(
        [
            [json_text(rng, size)],
            [json.dumps({"_step": row, "acc": rng.random()}) for row in range(min(size // 40, 2000))],
            ["{}"] * min(size // 5, 50_000),
            [""] * min(size // 3, 100_000),
            [json.dumps(_value(rng)) for _ in range(min(size // 60, 500))],
            [_value(rng)],
        ]
    )
    chunk = {"offset": rng.choice([0, 0, 5, *NUMBERS]), "content": rows}
    content = {"files": {file: rng.choice([chunk, chunk, _value(rng)])}, "exitcode": rng.choice([0, 0, *NUMBERS])}
    return Input("file_stream", "POST", path, json.dumps(content).encode())


def _filters(rng: random.Random) -> Input:
    size = _size(rng)
    pattern = "".join(
        rng.choices(
            ["a", "b", "a*", "(a+)+", "(?:a|a)", "a?", "|", "(", ")", "[", "]", "{2,}", "\\", "$", "(?="],
            k=min(size, 400),
        )
    )
    shapes: list[Callable[[], str]] = [
        lambda: json_text(rng, size),
        lambda: json.dumps({"displayName": {"$regex": rng.choice([pattern, "a?" * 26 + "b", "x" * size])}}),
        lambda: json.dumps({"name": {rng.choice(["$in", "$nin"]): [f"r{n}" for n in range(size // 8)]}}),
        lambda: json.dumps({"config." + "a." * (size // 2): 1}),
        lambda: json.dumps({rng.choice(["$and", "$or", "$nor"]): [{"name": "r1"}] * (size // 15)}),
        lambda: '{"$not": ' * (size // 10) + "{}" + "}" * (size // 10),
        lambda: json.dumps({rng.choice(["created_at", "state", "tags", "summary_metrics.acc", "$x"]): _value(rng)}),
    ]
    order = rng.choice(
        [None, "-summary_metrics.acc", ",".join(["name"] * (size // 5)), "summary_metrics." + "a." * (size // 2)]
    )
    query = """query R($f: JSONString, $o: String, $s: [JSONString!]!, $p: String) { project(name: "p") {
        runs(filters: $f, order: $o, first: 20) { edges { node { id files(pattern: $p) { edges { node { id } } } } } }
        run(name: "r1") { sampledHistory(specs: $s) } } }"""
    specs = rng.choice([["{}"], [json_text(rng, size)], [json.dumps({"keys": ["acc"] * (size // 8)})]])
    return _graphql("filters", query, f=rng.choice(shapes)(), o=order, s=specs, p="%" * min(size, 3000))


def _page(rng: random.Random) -> Input:
    size = min(_size(rng), 60_000)  # a longer address ends the connection
    text = rng.choice(
        [*WORDS, "x" * size, "../" * (size // 3), "%2e%2e/" * (size // 7), "💥" * (size // 20), "\0", "["]
    )
    path = rng.choice(
        [
            "/local/p/runs/r1",
            "/local/p",
            "/local/swept",
            "/local/imported",
            "/",
            f"/local/p/runs/r{rng.randrange(RUNS)}",
        ]
    )
    headers: dict[str, str] = {}
    if rng.random() < 0.5:
        path += "/" + urllib.parse.quote(text.encode("utf-8", "surrogatepass"), safe="")[:60_000]
    if rng.random() < 0.2:
        headers = {"Origin": rng.choice(["http://[", "null", "http://" + "x" * min(size, 30_000), "http://[::1"])}
    if rng.random() < 0.2:
        path += f"?key={'k' * min(size, 30_000)}"
    if rng.random() < 0.2:
        headers["Cookie"] = "amc_session=" + "x." * min(size // 2, 10_000)
    return Input("pages", "GET", path, b"", headers)


def _token(rng: random.Random) -> Input:
    token = rng.choice(["x", ".", "..", "a.b.c", "x" * min(_size(rng), 60_000), "W10.Zm9v.AAAA"])
    if rng.random() < 0.5:
        return Input("files", "PUT", f"/storage/{token}", b"x" * _size(rng))
    return Input("bulk", "POST", "/bulk", json_text(rng, _size(rng)).encode("utf-8", "surrogatepass"))


def _texts(rng: random.Random) -> Input:
    """Return a request with texts that no terminal may get, and JSON that only some readers take."""

    def text() -> str:
        return "".join(rng.choices([*WORDS, *CONTROLS], k=rng.randrange(1, 8)))

    def loose() -> str:
        value = {text(): rng.choice([math.nan, math.inf, text(), {text(): [-math.inf, text()]}]) for _ in range(3)}
        return json.dumps(value) if rng.random() < 0.8 else '{"a": 1e999, "b": [' + "9" * 400 + "]}"

    name = f"r{rng.randrange(RUNS)}"
    if rng.random() < 0.3:
        files = {f"wandb-{kind}": {"offset": 0, "content": [loose()]} for kind in ("history.jsonl", "summary.json")}
        return Input("texts", "POST", f"/files/local/p/{name}/file_stream", json.dumps({"files": files}).encode())
    if rng.random() < 0.3:
        query = """mutation A($name: String!, $text: String, $json: JSONString) { createArtifact(input: {
            projectName: "p", runName: $name, artifactTypeName: "t", artifactCollectionName: "c", digest: $name,
            entityName: "local", description: $text, metadata: $json}) { artifact { id metadata } } }"""
        return _graphql("texts", query, name=name, text=text(), json=rng.choice([loose(), text()]))
    if rng.random() < 0.3:
        query = """mutation U($config: String, $text: String) { upsertSweep(input: {config: $config,
            projectName: "swept", displayName: $text, controller: $text}) { sweep { name } } }"""
        config = {"method": "grid", "parameters": {text(): {"values": [text(), 1]}}, "name": text()}
        return _graphql("texts", query, config=json.dumps(config), text=text())
    query = """mutation B($name: String, $text: String, $tags: [String!], $json: JSONString) { upsertBucket(input: {
        name: $name, modelName: "p", displayName: $text, notes: $text, groupName: $text, host: $text, tags: $tags,
        config: $json, summaryMetrics: $json}) { bucket { id } } }"""
    return _graphql("texts", query, name=name, text=text(), tags=[text()], json=loose())


def _reads(rng: random.Random) -> Input:
    """Return a query for what is stored; its answer has to be strict JSON without control characters."""
    query = """query R($name: String!) { project(name: "p") { run(name: $name) { displayName notes group host tags
        config summaryMetrics historyTail history(samples: 20) events(samples: 20)
        outputArtifacts { edges { node { description metadata } } } } } }"""
    return _graphql("reads", query, name=f"r{rng.randrange(RUNS)}")


MAKERS: list[Callable[[random.Random], Input]] = [
    *(_import, _create, _document, _post, _filters, _page, _token),
    *(_texts, _reads),
]
