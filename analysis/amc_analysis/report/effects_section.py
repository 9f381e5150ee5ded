"""The section "What mattered": effects of the searched parameters, importance, confounded pairs."""

from __future__ import annotations

from amc_analysis.report.blocks import Block, Section, Table
from amc_analysis.report.wording import p_text
from amc_analysis.results.analysed_sweep import AnalysedSweep
from amc_analysis.results.effects import Effect, Importance, MatchedPairs, ValueOutcome
from amc_sweeps.grammar.configurations import value_key
from amc_sweeps.number_formats import counted, listed, percent
from amc_sweeps.runs.metric_scale import MetricScale, interval_text

FEW_RUNS = 8  # in a smaller sweep, a parameter with one run a value has a line instead of a table
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
    blocks: list[Block] = [f"{overview_text(effects)} {_COLUMNS}"]
    few = len(analysed.ranked) < FEW_RUNS
    for effect in effects:
        if few and all(value.runs == 1 for value in effect.values):
            blocks.append(_line(effect, scale))
            continue
        blocks += [_table(effect, scale), *(_pairs(pairs, effect, scale) for pairs in effect.pairs if pairs.n > 1)]
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


def _table(effect: Effect, scale: MetricScale) -> Table:
    captions = []
    if effect.equal_epochs is not None:
        captions.append(
            f"{effect.parameter}: outcomes are the best of the first {counted(effect.equal_epochs, 'epoch')}."
        )
    if effect.left_out:
        captions.append(f"Left out of n and mean: {counted(effect.left_out, 'run')} that failed or ended too early.")
    if effect.where is not None:
        captions.append(f"{effect.parameter} exists only where {effect.where}. Runs without it: {effect.n_elsewhere}.")
    titles = (
        *(effect.parameter, "n", "best", "mean", "95% interval", f"best of {effect.k}"),
        *("beats", "failed", "95% interval"),
    )
    return Table(titles, [_row(value, scale) for value in effect.values], " ".join(captions))


def _line(effect: Effect, scale: MetricScale) -> str:
    """Return the values of a parameter that had one run each: a table would have no more figures."""
    values = ", ".join(f"{value.label}: {scale.text(value.best)}" for value in effect.values)
    return f"{effect.parameter}, 1 run a value: {values}."


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
