"""What mattered between the runs, in words: effects, importance, confounding."""

from __future__ import annotations

from amc_analysis.effects.effects import Effect, MatchedPairs, ValueOutcome
from amc_analysis.effects.parameters import text_of
from amc_analysis.report.sections import Block, Report, Section, Table, table
from amc_analysis.runs.wording import Scale, scale_of

_TRENDS = {
    "rises": "rises with it",
    "falls": "falls as it grows",
    "peaks inside": "is best inside its range",
    "dips inside": "is worst inside its range",
}


def matters(report: Report) -> Section | None:
    """Say what the searched parameters did; None where none took two values."""
    effects, scale = report.conclusions.effects, scale_of(report.findings)
    if not effects:
        return None
    blocks: list[Block] = [_overall(effects)]
    for effect in effects:
        blocks += [_table(effect, scale), *(_pairs(pairs, effect, scale) for pairs in effect.pairs if pairs.n > 1)]
    blocks.append(_importance(report))
    blocks += [
        f"{pair.first} and {pair.second} moved together ({pair.measure} {pair.strength:.2f}, n = {pair.n}): their "
        "effects cannot be told apart here."
        for pair in report.conclusions.confounded
    ]
    return Section("matters", "What mattered", tuple(blocks))


def sentence(effect: Effect) -> str:
    """Say what the evidence carries about one parameter."""
    told = []
    if effect.called:
        way = "depends on it" if effect.trend is None else _TRENDS[effect.trend]
        share = "" if effect.explained is None else f", {effect.explained:.0%} of how runs stand"
        told.append(f"performance {way} (p {_p(effect.p_corrected)}{share})")
    if effect.failures_called:
        told.append(f"failing depends on it (p {_p(effect.failure_p_corrected)})")
    return "; ".join(told)


def _overall(effects: tuple[Effect, ...]) -> str:
    told = [f"{effect.parameter}: {sentence(effect)}" for effect in effects if effect.called or effect.failures_called]
    rest = [effect.parameter for effect in effects if not (effect.called or effect.failures_called)]
    lines = [f"{'; '.join(told)}." if told else "No parameter's effect can be told from chance."]
    if rest and told:
        lines.append(f"Not told from chance: {', '.join(rest)}.")
    lines.append(
        'p is of permutations, corrected for the number of looks. "Best of k" is expected of k runs, the same for '
        'every value; "beats" is the share of the other runs that a value\'s runs beat, each pair at equal epochs.'
    )
    return " ".join(lines)


def _table(effect: Effect, scale: Scale) -> Table:
    rows = [_row(value, scale) for value in effect.values]
    told = []
    if effect.equal_epochs is not None:
        told.append(f"{effect.parameter}: outcomes are the best of the first {effect.equal_epochs} epochs.")
        told += [f"Runs that did not get that far: {effect.left_out}."] if effect.left_out else []
    if effect.where is not None:
        told.append(f"{effect.parameter}: where {effect.where}; runs elsewhere: {effect.n_elsewhere}.")
    titles = (
        effect.parameter,
        "n",
        "best",
        "mean",
        "95% interval",
        f"best of {effect.k}",
        "beats",
        "failed",
        "95% interval",
    )
    return table(titles, rows, " ".join(told))


def _row(value: ValueOutcome, scale: Scale) -> list[str]:
    low, high = value.failure_interval
    return [
        value.label,
        str(value.n),
        scale.text(value.best),
        scale.text(value.mean),
        _interval(value, scale),
        scale.text(value.expected_best),
        "-" if value.standing is None else f"{value.standing:.0%}",
        f"{value.failures}/{value.ended}",
        "-" if not value.ended else f"{low:.0%}-{high:.0%}",
    ]


def _interval(value: ValueOutcome, scale: Scale) -> str:
    if value.interval is not None:
        return f"{scale.text(value.interval[0])}-{scale.text(value.interval[1])}"
    return "n < 8" if value.n else "-"


def _pairs(pairs: MatchedPairs, effect: Effect, scale: Scale) -> str:
    sign = "more" if pairs.difference > 0 else "less"
    told = (
        f"{effect.parameter} {text_of(pairs.second)} against {text_of(pairs.first)}, all else equal: "
        f"{scale.difference(pairs.difference)} {sign} over {pairs.n} pair{'' if pairs.n == 1 else 's'}, better in "
        f"{pairs.better}"
    )
    if pairs.interval is not None:
        low, high = (("-" if end < 0 else "+") + scale.difference(end) for end in pairs.interval)
        told += f" (95% interval {low} to {high})"
    return f"{told}."


def _importance(report: Report) -> Block:
    importance = report.conclusions.importance
    if importance.refused is not None or importance.r2 is None:
        return f"Importance is not shown. {importance.refused or ''}".rstrip()
    rows = [[share.parameter, f"{share.importance:.2f}"] for share in importance.shares]
    caption = (
        f"Importance: what a forest's out-of-bag R² of {importance.r2:.2f} (n = {importance.n}) loses when the "
        "parameter is shuffled; 0 or less: not needed."
    )
    return table(("parameter", "loss of R²"), rows, caption)


def _p(p: float | None) -> str:
    if p is None:
        return "unknown"
    return "< 0.001" if p < 0.001 else f"= {p:.2g}"
