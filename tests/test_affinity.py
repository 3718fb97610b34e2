"""Where the threads of connections run, and on what stack."""

from __future__ import annotations

import os
import threading

import pytest
from links import PATIENCE

from syncws import connect, serve
from syncws.threads import make_thread_options

needs_affinity = pytest.mark.skipif(
    not hasattr(os, "sched_setaffinity"), reason="threads can't choose cores on this platform"
)


def ask(**options):
    """The cores of a handler's thread, and whether those of this thread are what they were."""
    before = os.sched_getaffinity(0)

    def answer(connection):
        connection.send(" ".join(map(str, sorted(os.sched_getaffinity(0)))))

    with serve(answer, "localhost", 0, **options) as server:
        server.start()
        with connect(f"ws://localhost:{server.server_address[1]}") as connection:
            cores = {int(core) for core in connection.recv(PATIENCE).split()}
    assert os.sched_getaffinity(0) == before
    return cores


@needs_affinity
def test_handlers_run_where_the_system_likes_by_default():
    assert ask() == os.sched_getaffinity(0)


@needs_affinity
def test_handlers_run_on_the_given_cores():
    core = max(os.sched_getaffinity(0))
    assert ask(affinity=[core]) == {core}


@needs_affinity
def test_all_handlers_share_a_core_with_auto():
    cores = ask(affinity="auto")
    assert len(cores) == 1
    assert cores <= os.sched_getaffinity(0)
    assert ask(affinity="auto") == cores


@needs_affinity
@pytest.mark.parametrize("cores", [[], [10**6], [-1]])
def test_cores_that_the_process_cannot_use_are_refused(cores):
    with pytest.raises(ValueError, match=r"^affinity must be among the cores \["):
        make_thread_options(cores, None)


def test_affinity_is_no_other_word():
    with pytest.raises(ValueError, match=r'^affinity must be "auto", cores or None, not \'all\'$'):
        make_thread_options("all", None)


def test_core_that_was_taken_away_since_does_no_harm():
    options = make_thread_options(None, None)._replace(cores=frozenset({10**4}))
    options.pin()


def test_threads_have_the_stack_that_was_asked_for_and_others_theirs():
    sizes = []

    class Recorded(threading.Thread):
        def start(self):
            sizes.append(threading.stack_size())
            super().start()

    thread = Recorded(target=list)
    make_thread_options(None, 256 * 1024).start(thread)
    thread.join()
    assert sizes == [256 * 1024]
    assert threading.stack_size() == 0


def test_server_works_with_a_small_stack():
    with serve(lambda connection: connection.send("hello"), "localhost", 0, stack_size=2**18) as s:
        s.start()
        with connect(f"ws://localhost:{s.server_address[1]}") as connection:
            assert connection.recv(PATIENCE) == "hello"


def test_stack_that_is_too_small_is_refused():
    with pytest.raises(ValueError, match="size not valid"):
        serve(lambda connection: None, "localhost", 0, stack_size=1)
