"""Whether the columns of Y are the classes that their names say, from the signals' traits.

In names: B frames, T = 1024 samples, C = I and Q.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

import numpy as np
import numpy.typing as npt

from amc_core.audit.check import Check
from amc_core.audit.signal_statistics import TRAITS, band_ripple_db, traits
from amc_core.modulations import CLASSES
from amc_core.synthesis.constellations import LINEAR
from amc_core.verdicts import Verdict

# The order in the published archive's classes.txt, which is wrong: see amc_core.modulations.
PUBLISHED_ORDER: tuple[str, ...] = (
    *("32PSK", "16APSK", "32QAM", "FM", "GMSK", "32APSK", "OQPSK", "8ASK", "BPSK", "8PSK", "AM-SSB-SC", "4ASK"),
    *("16PSK", "64APSK", "128QAM", "128APSK", "AM-DSB-SC", "AM-SSB-WC", "64QAM", "QPSK", "256QAM", "AM-DSB-WC"),
    *("OOK", "16QAM"),
)

_AGREEMENT = 0.9  # least share of traits that agree with the labels: another modulator may differ in some
_CHANNEL_RIPPLE_DB = 2.1  # of the power within the band; up to 1.9 where no channel is as long as a part of a symbol
_LOST = 0.75  # a trait is blurred where fewer frames show it than this share of those that should, or likewise more

Frames = npt.NDArray[np.float32]


def channel(by_column: Mapping[int, Frames], names: Sequence[str]) -> Check:
    """Look for a channel that makes the power within the band uneven, in the frames of linear modulations."""
    ripples = [
        float(np.median(band_ripple_db(frames_BTC)))
        for column, frames_BTC in by_column.items()
        if names[column] in LINEAR
    ]
    if not ripples:
        return Check("channel", Verdict.SKIP, "no class with a linear modulation")
    ripple_db = float(np.median(ripples))
    text = f"the power within the band varies by {ripple_db:.1f} dB"
    if ripple_db <= _CHANNEL_RIPPLE_DB:
        text += ", as it does without a channel as long as a symbol"
        return Check("channel", Verdict.PASS, text, {"ripple_db": ripple_db})
    text += (
        f", more than {_CHANNEL_RIPPLE_DB} dB: a channel about as long as a symbol, or longer, which blurs the symbols "
        "in every representation"
    )
    return Check("channel", Verdict.WARN, text, {"ripple_db": ripple_db})


def label_order(by_column: Mapping[int, Frames], names: Sequence[str], *, through_channel: bool) -> Check:
    """Compare the traits of every column's frames with those of its class, and with those of RadioML's wrong order.

    One contradicted trait may be another modulator's choice. Two columns that show each other's traits were exchanged,
    which always fails.

    Args:
        by_column: frames of every column.
        names: the class of every column.
        through_channel: the signals went through a channel. It takes traits away or adds them, but labels do not:
            exchanged or shuffled labels leave as many frames with a trait as there were. So a trait that many frames
            have lost, or many have got, is not used.
    """
    shares = {column: traits(frames_BTC) for column, frames_BTC in by_column.items()}
    n_frames = {column: len(frames_BTC) for column, frames_BTC in by_column.items()}
    blurred = _blurred_traits(shares, n_frames, names) if through_channel else set()
    shown = {
        column: {trait: share > 0.5 for trait, share in measured.items() if trait not in blurred}
        for column, measured in shares.items()
    }
    orders = [names, PUBLISHED_ORDER] if tuple(names) == CLASSES else [names]
    agreements = [_agreement(shown, order) for order in orders]
    contradictions = {column: _contradictions(names[column], measured) for column, measured in shown.items()}
    suspects = [column for column in contradictions if contradictions[column]]
    contradicted = [f"column {column}, {names[column]}, {', '.join(contradictions[column])}" for column in suspects]
    exchanged = [
        f"column {column}, {names[column]}, looks like {names[other]}"
        for column in suspects
        for other in suspects
        if not _contradictions(names[other], shown[column])
    ]
    measured = {
        "corrected": agreements[0],
        "published": agreements[-1] if len(orders) > 1 else None,
        "contradicted": contradicted,
        "exchanged": exchanged,
        "blurred_by_channel": sorted(blurred),
    }
    details = exchanged or contradicted
    verdict, text = _verdict(agreements, known=_count_checks(shown, names) > 0, exchanged=bool(exchanged))
    if verdict is not Verdict.FAIL:
        details = contradicted
    more = [f"not used, because a channel blurs it: {', '.join(sorted(blurred))}"] if blurred else []
    return Check("label order", verdict, "; ".join([text, *_first(details), *more]), measured)


def follows_published(order: Check) -> bool:
    """Whether the columns have the wrong order of classes.txt."""
    share, published = order.measured["corrected"], order.measured["published"]
    return order.verdict is Verdict.FAIL and published is not None and published >= _AGREEMENT and published > share


def _verdict(agreements: Sequence[float], *, known: bool, exchanged: bool) -> tuple[Verdict, str]:
    share = agreements[0]
    if not known:
        return Verdict.SKIP, "no signal check fits these classes"
    if len(agreements) == 1:
        agreement = f"({share:.0%} of the signal checks agree)"
        if share >= _AGREEMENT and not exchanged:
            return Verdict.PASS, f"the signals fit the names of Y's columns {agreement}"
        return Verdict.FAIL, f"the signals do not fit the names of Y's columns {agreement}"
    published = agreements[1]
    agreement = f"({share:.0%} of the signal checks agree; {published:.0%} for the order in classes.txt)"
    if share == published >= _AGREEMENT and not exchanged:
        text = f"these classes fit the corrected order as well as the one in classes.txt {agreement}"
        return Verdict.SKIP, text
    if share >= _AGREEMENT and share > published and not exchanged:
        return Verdict.PASS, f"Y's columns follow the corrected class order {agreement}"
    if published >= _AGREEMENT and published > share:
        return Verdict.FAIL, f"Y's columns follow classes.txt, whose order is wrong: permute them {agreement}"
    return Verdict.FAIL, f"Y's columns follow neither the corrected class order nor classes.txt {agreement}"


def _blurred_traits(
    shares: Mapping[int, Mapping[str, float]], n_frames: Mapping[int, int], names: Sequence[str]
) -> set[str]:
    """Return the traits that clearly fewer or more frames show than any labels of these frames could explain."""
    blurred = set()
    for trait in TRAITS:
        opinion = {column: _class_traits(names[column]).get(trait) for column in shares}
        with_it = sum(n_frames[column] for column in shares if opinion[column])
        unknown = sum(n_frames[column] for column in shares if opinion[column] is None)
        shown = sum(shares[column][trait] * n_frames[column] for column in shares if opinion[column] is not None)
        if shown < _LOST * with_it or _LOST * shown > with_it + unknown:
            blurred.add(trait)
    return blurred


def _agreement(shown: Mapping[int, Mapping[str, bool]], order: Sequence[str]) -> float:
    """Return the share of traits that agree with an order of the classes."""
    n_wrong = sum(len(_contradictions(order[column], measured)) for column, measured in shown.items())
    return 1 - n_wrong / max(_count_checks(shown, order), 1)


def _count_checks(shown: Mapping[int, Mapping[str, bool]], order: Sequence[str]) -> int:
    return sum(len(_class_traits(order[column]).keys() & measured.keys()) for column, measured in shown.items())


def _contradictions(name: str, shown: Mapping[str, bool]) -> list[str]:
    expected = _class_traits(name)
    wrong = [trait for trait in expected if trait in shown and shown[trait] != expected[trait]]
    return [f"{'shows' if shown[trait] else 'lacks'} {trait}" for trait in wrong]


def _class_traits(name: str) -> dict[str, bool]:
    """Return which traits a class has and which it lacks, without those that depend on the modulator."""
    return {trait: name in members for trait, (members, others) in TRAITS.items() if name in members | others}


def _first(details: Collection[str]) -> list[str]:
    return [*list(details)[:4], *(["..."] if len(details) > 4 else [])]
