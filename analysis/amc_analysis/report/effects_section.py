"""The section "What mattered": effects of the searched parameters, importance, confounded pairs."""

from __future__ import annotations

from collections import Counter

from amc_analysis.report.blocks import Block, Section, Table
from amc_analysis.report.wording import p_text
from amc_analysis.results.analysed_sweep import AnalysedSweep
from amc_analysis.results.effects import Effect, Importance, MatchedPairs, ValueOutcome
from amc_sweeps.grammar.configurations import value_key
from amc_sweeps.number_formats import counted, listed, percent
from amc_sweeps.runs.metric_scale import MetricScale, interval_text

FEW_RUNS = 8  # in a smaller sweep, each parameter has a line instead of a table
UNCLEAR_NAMED = 8  # parameters without a clear effect

_TEST = "permutation test, corrected for multiple comparisons"
_COLUMNS = (
    "In the tables, best of k is the expected best of k runs, so that groups of unequal size compare fairly; beats is "
    "the share of the other runs beaten, at equal epochs."
)
_TRENDS = {
    "rises": "higher values do better",
    "falls": "lower values do better",
    "peaks inside": "middle values do best",
    "dips inside": "middle values do worst",
}


def effects_section(analysed: AnalysedSweep) -> Section | None:
    """Return the section on the searched parameters; None where no parameter took two values."""
    effects, scale = analysed.effects, analysed.scale
    if not effects:
        return None
    blocks: list[Block]
    if len(analysed.ranked) < FEW_RUNS:
        lines = (_line(effect, scale) for effect in effects)
        blocks = [overview_text(effects), *(line for line in lines if line is not None)]
    else:
        usual = Counter(map(_outcomes, effects)).most_common(1)[0][0]
        blocks = [f"{overview_text(effects)} {_COLUMNS} {usual}"]
        for effect in effects:
            blocks.append(_table(effect, scale, usual))
            blocks += [_pairs(pairs, effect, scale) for pairs in effect.pairs if pairs.n > 1]
        blocks.append(_importance(analysed.importance))
    blocks += [
        f"{pair.first} and {pair.second} moved together ({pair.measure} {pair.strength:.2f}, n = {pair.n}): their "
        "effects cannot be separated."
        for pair in analysed.confounded
    ]
    return Section("matters", "What mattered", tuple(blocks))


def effect_text(effect: Effect) -> str:
    """Return the clear effects of one parameter in words; empty without any."""
    clauses = []
    if effect.is_clear:
        trend = "performance depends on it" if effect.trend is None else _TRENDS[effect.trend]
        share = "" if effect.explained is None else f"; explains {percent(effect.explained)} of the ranking"
        clauses.append(f"{trend} (p {p_text(effect.p_corrected)}{share})")
    if effect.is_clear_for_failures:
        clauses.append(f"failures depend on it (p {p_text(effect.failure_p_corrected)})")
    return "; ".join(clauses)


def overview_text(effects: tuple[Effect, ...]) -> str:
    """Name the parameters with a clear effect, and those without."""
    clear = {effect.parameter: text for effect in effects if (text := effect_text(effect))}
    if not clear:
        return f"No parameter has a clear effect ({_TEST})."
    unclear = [effect.parameter for effect in effects if effect.parameter not in clear]
    rest = f" No clear effect: {listed(unclear, UNCLEAR_NAMED)}." if unclear else ""
    return f"{'; '.join(f'{name}: {text}' for name, text in clear.items())}. p is from a {_TEST}.{rest}"


def _outcomes(effect: Effect) -> str:
    """Say what the figures of a parameter's table are of."""
    text = "Outcomes are the best of all epochs."
    if effect.equal_epochs is not None:
        text = f"Outcomes are the best of the first {counted(effect.equal_epochs, 'epoch')}."
    if effect.left_out:
        text += f" Left out of n and mean: {counted(effect.left_out, 'run')} that failed or ended too early."
    return text


def _table(effect: Effect, scale: MetricScale, usual: str) -> Table:
    """Return the values of a parameter; ``usual`` is what most tables are of, which is said once above them."""
    captions = [] if _outcomes(effect) == usual else [_outcomes(effect)]
    if effect.where is not None:
        captions.append(f"{effect.parameter} exists only where {effect.where}. Runs without it: {effect.n_elsewhere}.")
    titles = (
        *(effect.parameter, "n", "best", "mean", "95% interval", f"best of {effect.k}"),
        *("beats", "failed", "95% interval"),
    )
    return Table(titles, [_row(value, scale) for value in effect.values], " ".join(captions))


def _line(effect: Effect, scale: MetricScale) -> str | None:
    """Return the best of each value of a parameter in a few words; None where no run has a value of the metric."""
    words = [
        f"{scale.text(value.best)} with {value.label}{f' (best of {value.runs} runs)' if value.runs > 1 else ''}"
        for value in effect.values
        if value.best is not None
    ]
    return f"{effect.parameter}: {', '.join(words)}." if words else None


def _row(value: ValueOutcome, scale: MetricScale) -> list[str]:
    mean_interval = "n < 8" if value.n else "-"
    if value.interval is not None:
        mean_interval = f"{scale.text(value.interval[0])} to {scale.text(value.interval[1])}"
    return [
        value.label,
        str(value.n),
        scale.text(value.best),
        scale.text(value.mean),
        mean_interval,
        scale.text(value.expected_best),
        "-" if value.rank_score is None else percent(value.rank_score),
        f"{value.failures}/{value.ended}",
        interval_text(value.failure_interval) if value.ended else "-",
    ]


def _pairs(pairs: MatchedPairs, effect: Effect, scale: MetricScale) -> str:
    direction = "more" if pairs.difference > 0 else "less"
    labels = {value_key(value.value): value.label for value in effect.values}
    first, second = labels[value_key(pairs.first)], labels[value_key(pairs.second)]
    text = (
        f"{effect.parameter} {second} against {first}, all else equal: "
        f"{scale.difference(pairs.difference)} {direction} over {counted(pairs.n, 'pair')}, better in {pairs.better}"
    )
    if pairs.interval is not None:
        low, high = map(scale.signed, pairs.interval)
        text += f" (95% interval {low} to {high})"
    return f"{text}."


def _importance(importance: Importance | None) -> Block:
    if importance is None or importance.refused is not None or importance.r2 is None:
        reason = "It was not computed." if importance is None else importance.refused or ""
        return f"No importance is shown. {reason}".rstrip()
    rows = [[share.parameter, f"{share.importance:.2f}"] for share in importance.shares]
    caption = (
        f"Importance: how much a random forest's out-of-bag R² of {importance.r2:.2f} (n = {importance.n}) falls when "
        "the parameter is shuffled. 0 or less: the forest does not need it."
    )
    return Table(("parameter", "loss of R²"), rows, caption)
