"""Pages of runs: the order is found once for all pages, so that reading every page takes time linear in the runs."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence

MOST_LISTS = 16  # a list of 50,000 runs takes 2 MB

Key = tuple[object, ...]


class RunLists:
    """The keys of the runs of the last queries, in order.

    A client that asks for a next page gets it from the list of its first page. So a run that is added meanwhile moves
    no other run to another page.
    """

    def __init__(self) -> None:
        self._lists: OrderedDict[Key, Sequence[int]] = OrderedDict()
        self._lock = threading.Lock()

    def find(self, key: Key, search: Callable[[], Sequence[int]], *, is_next_page: bool) -> Sequence[int]:
        """Return the list of a query; the first page searches, and so does a next page whose list was dropped."""
        with self._lock:
            kept = self._lists.get(key) if is_next_page else None
            if kept is not None:
                self._lists.move_to_end(key)
                return kept
        found = search()
        with self._lock:
            self._lists[key] = found
            self._lists.move_to_end(key)
            while len(self._lists) > MOST_LISTS:
                self._lists.popitem(last=False)
        return found
