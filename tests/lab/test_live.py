import queue
import threading

import pytest

from ntk_utils.lab.live import Newest


@pytest.fixture
def shown():
    return []


@pytest.fixture
def said():
    return []


def test_every_result_of_a_request_is_shown_between_busy_and_ready(shown, said):
    newest = Newest(lambda n: iter(range(n)), shown.append, said.append)
    newest.ask(3)
    assert newest.wait(10)
    assert shown == [0, 1, 2]
    assert said == ["busy", "ready"]


def test_asking_does_not_wait_and_only_the_newest_of_many_requests_is_worked_on(shown, said):
    begun, gate = queue.Queue(), threading.Event()

    def work(request):
        begun.put(request)
        gate.wait(10)
        yield request

    newest = Newest(work, shown.append, said.append)
    newest.ask(0)
    assert begun.get(timeout=10) == 0
    for request in range(1, 100):  # while the first one is being worked on
        newest.ask(request)
    assert not newest.wait(0)
    gate.set()
    assert newest.wait(10)
    assert begun.get(timeout=10) == 99
    assert begun.empty()
    assert shown == [99]
    assert said == ["busy", "busy", "ready"]


def test_a_stale_request_is_given_up_between_two_results(shown, said):
    first, gate = threading.Event(), threading.Event()
    yielded = []

    def work(request):
        for i in range(5):
            yielded.append((request, i))
            yield request, i
            if request == "old" and i == 0:
                first.set()
                gate.wait(10)

    newest = Newest(work, shown.append, said.append)
    newest.ask("old")
    assert first.wait(10)
    newest.ask("new")
    gate.set()
    assert newest.wait(10)
    assert yielded == [("old", 0), ("old", 1), *(("new", i) for i in range(5))]
    assert shown == [("old", 0), *(("new", i) for i in range(5))]


def test_an_error_is_said_and_the_next_request_is_answered(shown, said):
    newest = Newest(lambda n: iter([1 / n]), shown.append, said.append)
    newest.ask(0)
    assert newest.wait(10)
    newest.ask(2)
    assert newest.wait(10)
    assert shown == [0.5]
    assert [type(word) for word in said] == [str, ZeroDivisionError, str, str]


def test_the_error_of_a_stale_request_is_not_said(said):
    begun, gate = threading.Event(), threading.Event()

    def work(request):
        if request == "bad":
            begun.set()
            gate.wait(10)
            raise ValueError(request)
        yield request

    newest = Newest(work, lambda _: None, said.append)
    newest.ask("bad")
    assert begun.wait(10)
    newest.ask("good")
    gate.set()
    assert newest.wait(10)
    assert said == ["busy", "busy", "ready"]


def test_a_picture_that_cannot_be_shown_is_said(said):
    def show(_):
        raise RuntimeError("the page was closed")

    newest = Newest(lambda n: iter([n]), show, said.append)
    newest.ask(1)
    assert newest.wait(10)
    assert str(said[-1]) == "the page was closed"
