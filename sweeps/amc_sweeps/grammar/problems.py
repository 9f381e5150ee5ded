"""The problems of a sweep, collected while it is read: where, what was given, what is allowed, and what was meant."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from amc_sweeps.grammar.other_words import what_was_meant
from amc_sweeps.grammar.strict_yaml import number_in_text

MOST_HINTS = 100  # problems with a hint; finding a hint takes a millisecond


class Problems(list[str]):
    """One sentence for every problem."""

    def missing(self, path: str, allowed: str) -> None:
        """Add that a value is missing."""
        self.append(f"{path}: missing; allowed: {allowed}")

    def refuse(self, path: str, value: Any, allowed: str, words: Iterable[str] = ()) -> None:
        """Add that a value is not allowed; the hint names the one of ``words`` that is spelt most like it."""
        meant = self._meant(value, words)
        hint = number_in_text(value) or (f"; {meant}" if meant else "")
        text = repr(value)
        text = text if len(text) <= 80 else f"{text[:77]}..."
        self.append(f"{path}: {text} is not allowed; allowed: {allowed}{hint}")

    def _meant(self, value: Any, words: Iterable[str]) -> str:
        if len(self) >= MOST_HINTS or not isinstance(value, str | int | float) or len(str(value)) > 80:
            return ""
        return what_was_meant(str(value), tuple(words))

    def refuse_key(self, section: Mapping[str, Any], path: str, allowed: str, words: Iterable[str] = ()) -> None:
        """Add that a key of a section, the last word of ``path``, has a value that is not allowed, or is missing."""
        key = path.rpartition(".")[2]
        if key in section:
            self.refuse(path, section[key], allowed, words)
        else:
            self.missing(path, allowed)

    def refuse_unknown_keys(self, section: Mapping[str, Any], prefix: str, keys: Iterable[str], of: str = "") -> None:
        """Add every key of a section that is not one of ``keys``."""
        keys = tuple(keys)
        for key in section:
            if key not in keys:
                hint = self._meant(key, keys) or f"known: {', '.join(keys)}"
                self.append(f"{prefix}{str(key)[:80]}: no such key{f' of {of}' if of else ''}; {hint}")
