"""Counts of what happened, kept by many threads without a lock that any of them waits for."""

from __future__ import annotations

import collections
import threading
from collections.abc import Hashable, Mapping
from typing import Any

from .locks import Hold

__all__ = ["Ledger"]

# Entries that wait before they are added up.
FOLD_AT = 64

# How long a reader waits for somebody who adds up.
PATIENCE = 0.1  # seconds


class Ledger:
    """
    Totals by name, exact however many threads add to them.

    An addition is one append to a deque. Whoever comes by adds up what is there, unless
    somebody is at it, so that a signal handler, or the thread under it, waits for nothing.

    Thread safety: any thread, and signal handlers.
    """

    def __init__(self) -> None:
        self._entries: collections.deque[Mapping[Any, int]] = collections.deque()
        # Held while entries are added up; waited for by readers alone, and not for long.
        self._folding = threading.Lock()
        self._totals: collections.defaultdict[Any, int] = collections.defaultdict(int)

    def add(self, amounts: Mapping[Any, int]) -> None:
        """Add to several totals."""
        self._entries.append(amounts)
        if len(self._entries) > FOLD_AT:
            self._fold()

    def count(self, name: Hashable) -> None:
        """Add one to a total."""
        self.add({name: 1})

    def totals(self) -> dict[Any, int]:
        """
        All totals; names that were never added to are missing.

        In a signal handler that interrupted somebody adding up, those of a moment ago.
        """
        self._fold(PATIENCE)
        return dict(self._totals)

    def _fold(self, timeout: float = 0) -> None:
        hold = Hold(self._folding)
        try:
            if hold.take(timeout):
                entries, totals = self._entries, self._totals
                for _ in range(len(entries)):
                    # Added before it is removed: an exception in between counts it twice
                    # rather than never.
                    for name, amount in entries[0].items():
                        totals[name] += amount
                    entries.popleft()
        finally:
            if hold.taken:
                self._folding.release()
