"""The verdicts on statements, in words, as JSON and as an exit code."""

from __future__ import annotations

import json
from collections.abc import Sequence

from amc_analysis.results.analysed_sweep import AnalysedSweep
from amc_analysis.statements.verdict import Answer, Verdict

VERDICTS_VERSION = 1
SUPPORTED, CONTRADICTED, NOT_ENOUGH = 0, 3, 4  # exit codes; 1 and 2 are errors


def verdicts_text(verdicts: Sequence[Verdict]) -> str:
    """Write every statement with its answer and its evidence."""
    return "\n\n".join(
        "\n".join([f"{verdict.answer}: {verdict.statement}", *(f"  {sentence}" for sentence in verdict.sentences)])
        for verdict in verdicts
    )


def verdicts_json(analysed: AnalysedSweep, verdicts: Sequence[Verdict]) -> str:
    """Return the verdicts as a JSON document."""
    document = {
        "schema": "amc-analyze-verdicts",
        "version": VERDICTS_VERSION,
        "read_at": analysed.record.read_at.isoformat(),
        "sweep": analysed.record.sweep_id,
        "metric": {"name": analysed.metric.name, "goal": analysed.metric.goal},
        "answer": _whole(verdicts),
        "verdicts": [
            {
                "statement": verdict.statement,
                "answer": verdict.answer,
                "sentences": list(verdict.sentences),
                "evidence": dict(verdict.evidence),
            }
            for verdict in verdicts
        ],
    }
    return json.dumps(document, indent=2, allow_nan=False, ensure_ascii=False)


def exit_code(verdicts: Sequence[Verdict]) -> int:
    """Return 0 if all statements are supported, 3 if one is contradicted, else 4."""
    codes = {Answer.SUPPORTED: SUPPORTED, Answer.CONTRADICTED: CONTRADICTED, Answer.NOT_ENOUGH: NOT_ENOUGH}
    return codes[_whole(verdicts)]


def _whole(verdicts: Sequence[Verdict]) -> Answer:
    answers = {verdict.answer for verdict in verdicts}
    worst = (Answer.CONTRADICTED, Answer.NOT_ENOUGH, Answer.SUPPORTED)
    return next(answer for answer in worst if answer in answers)
