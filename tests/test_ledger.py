"""Counts that many threads add to."""

from __future__ import annotations

from peers import Task

from syncws.ledger import FOLD_AT, Ledger


def test_what_was_added_is_counted():
    ledger = Ledger()
    ledger.count("a")
    ledger.add({"a": 2, ("b", 1): 3})
    assert ledger.totals() == {"a": 3, ("b", 1): 3}


def test_nothing_is_lost_or_doubled_among_threads():
    ledger = Ledger()

    def work():
        for _ in range(2000):
            ledger.count("a")
            ledger.add({"b": 2})

    tasks = [Task(work) for _ in range(4)]
    while any(task.is_alive() for task in tasks):
        ledger.totals()
    for task in tasks:
        task.result()
    assert ledger.totals() == {"a": 8000, "b": 16000}


def test_entries_do_not_pile_up():
    ledger = Ledger()
    for _ in range(1000):
        ledger.count("a")
    assert len(ledger._entries) <= FOLD_AT + 1


def test_totals_are_right_while_somebody_adds_up():
    ledger = Ledger()
    ledger.count("a")
    with ledger._folding:
        ledger.count("a")
        assert ledger.totals() == {"a": 2}
    assert ledger.totals() == {"a": 2}
