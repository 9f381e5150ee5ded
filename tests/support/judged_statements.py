"""How often statements about simulated sweeps get the right verdict."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
from calibration import NOISE_SD, Rate
from simulated_sweeps import Setting, random_setting, simulate, simulated_sweep

from amc_analysis.results.analysed_sweep import AnalysedSweep
from amc_analysis.statements.statement import StatementError, read_statement
from amc_analysis.statements.verdict import Answer, judge

BEATS = {
    "curriculum=true beats curriculum=false": lambda config: config["curriculum"],
    "dropout=0.2 beats dropout=0.5": lambda config: config["dropout"] < 0.35,
    "max_lr=1e-5..1e-4 beats max_lr=1e-3..1e-2": lambda config: config["max_lr"] < 3e-4,
}
FAILS = "failure of curriculum=true above curriculum=false"
BEST = "best is run0003"


def answer(text: str, analysed: AnalysedSweep) -> Answer:
    """Return the verdict on one statement."""
    (verdict,) = judge([read_statement(text, analysed.ranked, analysed.parameters)], analysed)
    return verdict.answer


def null_rates(count: int) -> dict[str, Rate]:
    """Return how often statements are supported in sweeps where they are false: nothing has an effect."""
    rates = {text: Rate() for text in (*BEATS, FAILS, BEST, "best is the one with the best peak")}
    for index in range(count):
        rng = np.random.default_rng([11, index])
        analysed = simulated_sweep(simulate(random_setting(rng), rng))
        for text, rate in rates.items():
            stated = f"best is {analysed.ranked[0].run.run_id}" if "peak" in text else text
            try:
                rate.count(answer(stated, analysed) is Answer.SUPPORTED)
            except StatementError:  # a small sweep may lack one of the values
                continue
    return rates


def planted_rates(count: int, n: int = 30) -> dict[str, tuple[Rate, Rate]]:
    """Return how often a planted difference of 2 noise sd is supported, and its reverse contradicted."""
    rates = {}
    for text, wins in BEATS.items():
        supported, contradicted = rates[text] = (Rate(), Rate())
        first, second = text.split(" beats ")

        def shift(config: Mapping[str, Any], wins: Any = wins) -> float:
            return 2 * NOISE_SD if wins(config) else 0.0

        for index in range(count):
            setting = replace(Setting(n, crash=0.15, shift=shift, balanced=True), hyperband=index % 2 == 0)
            analysed = simulated_sweep(simulate(setting, np.random.default_rng([12, index])))
            try:
                supported.count(answer(text, analysed) is Answer.SUPPORTED)
                contradicted.count(answer(f"{second} beats {first}", analysed) is Answer.CONTRADICTED)
            except StatementError:
                continue
    return rates
