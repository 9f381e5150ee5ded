"""Words of other search libraries, and abbreviations, with the words of W&B's sweep files that they stand for."""

from __future__ import annotations

import difflib
import re
from collections.abc import Collection, Mapping

from amc_sweeps.grammar.distributions import EXPONENT_OF_E

# W&B's words -> other words for each, without capitals, _, - and blanks.
_OTHER_WORDS: Mapping[str, str] = {
    # keys of a sweep
    "method": "search strategy algorithm optimizer",
    "metric": "objective",
    "parameters": "params hyperparameters searchspace space",
    "early_terminate": "earlystopping earlystop earlytermination pruner scheduler",
    "run_cap": "count maxruns maxtrials ntrials numtrials trials runlimit",
    "program": "script entrypoint main",
    # metric
    "goal": "mode direction",
    "maximize": "max maximum",
    "minimize": "min minimum",
    # early_terminate
    "min_iter": "graceperiod minepochs minresource minsteps",
    "max_iter": "maxt maxepochs maxresource maxsteps",
    "eta": "reductionfactor factor",
    "s": "brackets numbrackets bands",
    # a parameter
    "values": "choices options list grid",
    "value": "default",
    "distribution": "dist type",
    "min": "low lower minimum start",
    "max": "high upper maximum stop end",
    "mu": "mean loc",
    "sigma": "std stddev sd scale",
    "q": "step quantum",
    "probabilities": "weights probs prob p",
    # distributions
    "int_uniform": "int integer randint uniformint",
    "uniform": "float double real",
    "log_uniform_values": "log loguniform logfloat",
    "q_log_uniform_values": "qloguniform",
    "inv_log_uniform_values": "invloguniform reverseloguniform",
    "normal": "gaussian gauss randn",
    "q_normal": "qrandn",
    "categorical": "choice discrete category",
    "constant": "fixed const",
}
_WORDS_OF_WANDB: Mapping[str, list[str]] = {
    other: [word for word, others in _OTHER_WORDS.items() if other in others.split()]
    for other in " ".join(_OTHER_WORDS.values()).split()
}


def what_was_meant(given: str, allowed: Collection[str]) -> str:
    """Return a hint that names the allowed word that was meant, by its sense or its spelling; else an empty text.

    log_uniform and its like are never offered: they take exponents of e, which few people mean.
    """
    plain = re.sub(r"[_\-\s]", "", given.lower())
    by_sense = [word for word in _WORDS_OF_WANDB.get(plain, []) if word in allowed]
    for word in by_sense or difflib.get_close_matches(given, list(allowed), n=1):
        instead = EXPONENT_OF_E.get(word, word)
        of_exponents = [name for name, values in EXPONENT_OF_E.items() if values == instead]
        note = f" ({of_exponents[0]} takes exponents of e)" if of_exponents else ""
        return f"did you mean {instead}?{note}"
    return ""
