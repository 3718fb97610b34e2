"""Threads that live the life of one connection after the other."""

from __future__ import annotations

import collections
import contextvars
import os
import sys
import threading
import weakref

import pytest
from conftest import wait_until
from links import PATIENCE

from syncws import connect, serve
from syncws.threads import MAX_SPARE, Crew, ThreadOptions

variable = contextvars.ContextVar("variable", default="not set")


@pytest.fixture
def make_crew():
    """A crew, by default one whose threads wait for the next job as long as the test takes."""
    crews = []

    def make(*, linger=PATIENCE, **options):
        crews.append(Crew(ThreadOptions(**options), linger=linger))
        return crews[-1]

    yield make
    for crew in crews:
        crew.close()


def begin(crew, job):
    """Have a crew do a job; returns the thread."""
    thread = crew.take([])
    thread.give(collections.deque([job]))
    return thread


def do(crew, job):
    """Have a crew do a job; returns the thread, which has ended or waits for another one."""
    thread = begin(crew, job)
    assert wait_until(lambda: thread in crew.spare or not thread.is_alive())
    return thread


def test_a_thread_does_the_next_job(make_crew):
    crew, idents = make_crew(), []
    first = do(crew, lambda: idents.append(threading.get_ident()))
    second = do(crew, lambda: idents.append(threading.get_ident()))
    assert second is first
    assert idents == [first.ident, first.ident]


def test_a_thread_that_is_busy_gets_no_second_job(make_crew):
    crew, goes_on = make_crew(), threading.Event()
    thread = begin(crew, goes_on.wait)
    assert crew.take([]) is not thread
    goes_on.set()
    assert wait_until(lambda: thread in crew.spare)


def test_a_thread_ends_when_no_job_comes(make_crew):
    crew = make_crew(linger=0.001)
    thread = begin(crew, int)
    thread.join(PATIENCE)
    assert not thread.is_alive()
    assert not crew.spare


def test_without_reuse_a_thread_ends_with_its_job(make_crew):
    thread = do(make_crew(reuse=False), int)
    thread.join(PATIENCE)
    assert not thread.is_alive()


def test_threads_that_wait_end_with_the_crew(make_crew):
    crew = make_crew()
    thread = do(crew, int)
    crew.close()
    thread.join(PATIENCE)
    assert not thread.is_alive()


def test_a_thread_that_is_busy_at_the_end_of_the_crew_does_not_wait(make_crew):
    crew, goes_on = make_crew(), threading.Event()
    thread = begin(crew, goes_on.wait)
    crew.close()
    goes_on.set()
    thread.join(PATIENCE)
    assert not thread.is_alive()


def test_only_so_many_threads_wait(make_crew):
    crew = make_crew()
    events = [threading.Event() for _ in range(MAX_SPARE + 5)]
    threads = [begin(crew, event.wait) for event in events]
    for thread, event in zip(threads, events):
        event.set()
        assert wait_until(lambda t=thread: t in crew.spare or not t.is_alive())
    assert len(crew.spare) == MAX_SPARE


def test_each_job_is_done_once_whenever_threads_give_up_waiting(make_crew):
    crew, done = make_crew(linger=0.0001), []
    for number in range(500):
        begin(crew, lambda n=number: done.append(n))
    assert wait_until(lambda: len(done) == 500)
    assert sorted(done) == list(range(500))


def test_a_job_finds_context_variables_as_in_a_thread_of_its_own(make_crew):
    crew, found = make_crew(), []

    def job():
        found.append(variable.get())
        variable.set("set by a job")

    assert do(crew, job) is do(crew, job)
    assert found == ["not set", "not set"]


def test_a_job_finds_the_name_of_the_thread_as_in_a_thread_of_its_own(make_crew):
    crew, found = make_crew(), []

    def job():
        found.append(threading.current_thread().name)
        threading.current_thread().name = "named by a job"

    assert do(crew, job) is do(crew, job)
    assert found == ["syncws-connection", "syncws-connection"]


def test_a_thread_that_waits_keeps_nothing_of_its_last_job(make_crew):
    class Connection:
        def use(self):
            pass

    connection = Connection()
    reference = weakref.ref(connection)
    do(make_crew(), connection.use)
    del connection
    assert reference() is None


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_job_that_exits_ends_its_thread_alone(make_crew):
    crew = make_crew()
    thread = do(crew, sys.exit)
    thread.join(PATIENCE)
    assert do(crew, int) is not thread


def test_a_job_whose_thread_cannot_be_started_can_be_taken_back(make_crew):
    thread, job = make_crew(stack_size=2**46).take([]), collections.deque([int])
    with pytest.raises((RuntimeError, MemoryError)):
        thread.give(job)
    assert job.popleft() is int


@pytest.mark.parametrize("woken", [False, True])
def test_a_thread_whose_job_was_taken_back_ends(woken, make_crew):
    crew, waiting = make_crew(), []
    first = do(crew, int)
    assert crew.take(waiting) is first
    assert waiting == [first]
    if woken:
        first.give(collections.deque())
    first.dismiss()
    first.join(PATIENCE)
    assert not first.is_alive()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork() here")
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_a_forked_child_has_none_of_the_threads(make_crew):
    crew = make_crew()
    thread = do(crew, int)
    pid = os.fork()
    if pid == 0:
        os._exit(crew.take([]) is thread)
    assert os.waitpid(pid, 0)[1] == 0
    assert crew.take([]) is thread
    thread.dismiss()


@pytest.mark.parametrize("daemon", [True, False])
def test_a_fresh_thread_is_a_daemon_if_asked_for(daemon, make_crew):
    assert make_crew().take([], daemon).daemon is daemon


@pytest.mark.parametrize("reuse_threads", [True, False])
def test_connections_one_after_the_other_are_served(reuse_threads):
    threads = []

    def handler(connection):
        threads.append(threading.current_thread())
        connection.send("hello")

    with serve(handler, "localhost", 0, reuse_threads=reuse_threads).start() as server:
        for _ in range(20):
            with connect(f"ws://localhost:{server.server_address[1]}") as connection:
                assert connection.recv(PATIENCE) == "hello"
    assert len(threads) == 20
    assert reuse_threads or len(set(threads)) == 20
