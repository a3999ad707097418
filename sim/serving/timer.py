"""A wake-up that can be scheduled again and again."""

from __future__ import annotations

from collections.abc import Callable

from simpy import Environment
from simpy.events import Event


class Timer(Event):
    """An event that has succeeded whenever its time comes: the cheapest wake-up SimPy allows.

    The same object may be scheduled several times. Its callback has to set `callbacks` back to `wake`, and to tell for
    itself which of the wake-ups it awaits.
    """

    _ok = True
    _value = None

    def __init__(self, env: Environment, callback: Callable[[Timer], None]) -> None:
        self.env = env
        self.wake = [callback]
        self.callbacks = self.wake
