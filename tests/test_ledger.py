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


def test_reading_waits_for_somebody_who_adds_up_but_not_for_long():
    ledger = Ledger()
    ledger.count("a")
    assert ledger.totals() == {"a": 1}
    with ledger._folding:
        ledger.count("a")
        assert ledger.totals() == {"a": 1}
    assert ledger.totals() == {"a": 2}


def test_totals_never_go_back():
    ledger = Ledger()
    done = []

    def work():
        for _ in range(3000):
            ledger.count("a")
        done.append(True)

    tasks = [Task(work) for _ in range(3)]
    seen = 0
    while len(done) < 3:
        total = ledger.totals().get("a", 0)
        assert total >= seen
        seen = total
    for task in tasks:
        task.result()
    assert ledger.totals() == {"a": 9000}
