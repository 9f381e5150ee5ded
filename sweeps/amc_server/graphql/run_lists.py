"""Pages of runs: the order is computed once for all pages, so that reading every page takes time linear in the runs."""

from __future__ import annotations

import hashlib
import threading
from array import array
from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence

MOST_LISTS = 64  # a list of 50,000 runs takes 0.4 MB


class RunLists:
    """The keys of the runs that the last queries found, in order.

    A client that asks for a next page gets it from the list of its first page. So a run that is added meanwhile moves
    no other run to another page.
    """

    def __init__(self) -> None:
        self._lists: OrderedDict[bytes, Sequence[int]] = OrderedDict()
        self._lock = threading.Lock()

    def find(
        self, query: tuple[object, ...], search: Callable[[], Iterable[int]], *, is_next_page: bool
    ) -> Sequence[int]:
        """Return the list of a query; the first page searches, and so does a next page whose list was dropped."""
        key = hashlib.sha256(repr(query).encode("utf-8", "backslashreplace")).digest()  # filters can be long
        with self._lock:
            cached = self._lists.get(key) if is_next_page else None
        keys = array("q", search()) if cached is None else cached
        with self._lock:
            self._lists[key] = keys
            self._lists.move_to_end(key)
            while len(self._lists) > MOST_LISTS:
                self._lists.popitem(last=False)
        return keys
