"""Promises 1, 5, 7 and 8 in random interleavings; tests/stress/ plays many more of them."""

from __future__ import annotations

from interleaving import Arena, play_all

SEEDS = range(150)


def test_random_interleavings_neither_hang_nor_lose_nor_tear_anything(
    server_context, client_context, tmp_path
):
    with Arena(server_context, client_context, tmp_path) as arena:
        result = play_all(arena, SEEDS, workers=16)
    assert not result.failures, result.report()
    assert result.played == len(SEEDS)
