"""Where trials' posts wait to be written, and are written in groups.

Every post is a transaction of its own; those that wait at the same time share one wait for the disk, and one thread
writes them all, so that forty need not take turns at the interpreter. They are in no hurry: whatever else wants to
write, an agent's heartbeat above all, goes first and waits for one post at most.
"""

from __future__ import annotations

import asyncio
import queue
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

from amc_server.store.storage import Storage
from amc_server.store.writer import Writer

MOST_POSTS = 16  # in a group
MOST_BYTES = 1024**2  # of a group; the last post of it may be of any size

Work = Callable[[Writer], dict[str, Any]]  # stores a post and returns the reply to it
Reply = dict[str, Any]


@dataclass
class _Letter:
    size: int
    read: Callable[[], Work]
    reply: Future[Reply] = field(default_factory=Future)


class PostBox:
    """Takes posts from any event loop and writes them in the order of their arrival."""

    def __init__(self, storage: Storage) -> None:
        self._storage = storage
        self._waiting: queue.SimpleQueue[_Letter] = queue.SimpleQueue()
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="posts")

    async def write(self, size: int, read: Callable[[], Work]) -> Reply:
        """Return the reply to a post once it is on disk.

        Args:
            size: of its body in bytes.
            read: checks the body, before the writer is taken, and returns what stores it.

        Raises:
            Refused: what either of the two refused.
        """
        letter = _Letter(size, read)
        self._waiting.put(letter)
        self._thread.submit(self._write_group)
        return await asyncio.wrap_future(letter.reply)

    def _write_group(self) -> None:
        written: list[tuple[_Letter, Reply]] = []
        for letter in self._take():
            try:
                work = letter.read()
                with self._storage.write_unsettled(in_a_hurry=False) as store:
                    reply = work(store)
            except BaseException as error:  # noqa: BLE001 - it belongs to whoever sent the post
                letter.reply.set_exception(error)
            else:
                written.append((letter, reply))
        if not written:
            return
        try:
            self._storage.settle()
        except BaseException as error:  # noqa: BLE001
            for letter, _ in written:
                letter.reply.set_exception(error)
            return
        for letter, reply in written:
            letter.reply.set_result(reply)

    def _take(self) -> Iterator[_Letter]:
        """Yield what waits, up to a group; a post whose sender has hung up is dropped."""
        count = size = 0
        while count < MOST_POSTS and size < MOST_BYTES:
            try:
                letter = self._waiting.get_nowait()
            except queue.Empty:
                return
            if letter.reply.set_running_or_notify_cancel():
                count, size = count + 1, size + letter.size
                yield letter
