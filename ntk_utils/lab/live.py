"""Pictures that follow a slider: the newest request is answered, and stale ones are given up."""

import threading
from collections.abc import Callable, Iterator
from typing import Any, SupportsFloat


class Newest:
    """Work on the newest request, in a thread of its own, so that asking never waits.

    A request that a newer one has made stale is given up between two of its results, and what it
    had found since is not shown.

        newest = Newest(frames, show, say)
        newest.ask(request)

    Args:
      work: yields the results of a request, each better than the one before.
      show: takes a result.
      say: takes "busy" when work begins, "ready" when it has ended, or the exception that ended it.
    """

    def __init__(
        self,
        work: Callable[[Any], Iterator],
        show: Callable[[Any], None],
        say: Callable[[str | Exception], None],
    ):
        self._work, self._show, self._say = work, show, say
        self._request = None  # the newest one, in a tuple, until it is taken
        self._changed = threading.Condition()
        self._is_idle = True
        threading.Thread(target=self._serve, daemon=True).start()

    def ask(self, request) -> None:
        """Ask for something else, in place of all that was asked for before.

        Args:
          request: what `work` takes.
        """
        with self._changed:
            self._request = (request,)
            self._is_idle = False
            self._changed.notify_all()

    def wait(self, timeout: SupportsFloat | None = None) -> bool:
        """Wait until nothing is left to do, and say whether that is so.

        Args:
          timeout: the longest time to wait, in seconds; by default any.
        """
        with self._changed:
            return self._changed.wait_for(lambda: self._is_idle, timeout)

    def _serve(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._request is not None)
                (request,), self._request = self._request, None
            outcome = self._answer(request)
            with self._changed:
                if self._request is None:
                    self._say(outcome)
                    self._is_idle = True
                    self._changed.notify_all()

    def _answer(self, request) -> str | Exception:
        self._say("busy")
        try:
            for result in self._work(request):
                if self._request is not None:
                    break
                self._show(result)
        except Exception as error:  # of any request: the next one may be good
            return error
        return "ready"
