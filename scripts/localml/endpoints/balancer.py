"""Shares the requests of a deployment out over its instances; those that find no room wait in a short line."""

import asyncio
import collections
import contextlib
from collections.abc import Iterable
from typing import Protocol

from localml.endpoints.contract import ApiError

_MAX_WAITING = 256


class Place(Protocol):
    """What the balancer needs to know of an instance."""

    healthy: bool
    suspected: bool  # failed a connection a moment ago and is being looked at
    in_flight: int
    last_taken: int  # grows with every request, so that equally busy ones take turns


class Balancer:
    """Gives each request the least busy healthy instance; first come, first served."""

    def __init__(self, instances: Iterable[Place], limit: int, max_wait_seconds: float) -> None:
        self._instances = instances  # the deployment's own list: what is started and stopped shows here
        self._limit = limit
        self._max_wait = max_wait_seconds
        self._line: collections.deque[asyncio.Future] = collections.deque()
        self._num_taken = 0

    async def take(self) -> Place:
        """An instance with room for one more request; 503 where none is healthy, 429 where none gets free in time."""
        if not self._line and (instance := self._free()):
            return self._taken(instance)
        self._refuse_if_dead()
        if len(self._line) >= _MAX_WAITING:
            raise ApiError(429, "TooManyRequests", "too many requests wait for this deployment already")
        turn = asyncio.get_running_loop().create_future()
        self._line.append(turn)
        try:
            async with asyncio.timeout(self._max_wait):
                return await turn
        except BaseException as error:
            if turn.done() and not turn.cancelled() and not turn.exception():
                self.give_back(turn.result())  # it was given an instance in the very moment it stopped waiting
            if isinstance(error, TimeoutError):
                message = f"every instance was busy for {self._max_wait:g} s; raise instance_count or ask less often"
                raise ApiError(429, "TooManyRequests", message) from None
            raise
        finally:
            with contextlib.suppress(ValueError):
                self._line.remove(turn)

    def give_back(self, instance: Place) -> None:
        """A request has ended."""
        instance.in_flight -= 1
        self.dispatch()

    def dispatch(self) -> None:
        """Let those in line go on for whom there is room now, or tell them that no instance is left."""
        while self._line and (instance := self._free()):
            turn = self._line.popleft()
            if not turn.done():
                turn.set_result(self._taken(instance))
        if self._line:
            try:
                self._refuse_if_dead()
            except ApiError as error:
                for turn in self._line:
                    if not turn.done():
                        turn.set_exception(error)

    def _free(self) -> Place | None:
        free = [i for i in self._instances if i.healthy and i.in_flight < self._limit]
        return min(free, key=lambda instance: (instance.in_flight, instance.last_taken), default=None)

    def _taken(self, instance: Place) -> Place:
        self._num_taken += 1
        instance.in_flight += 1
        instance.last_taken = self._num_taken
        return instance

    def _refuse_if_dead(self) -> None:
        if not any(instance.healthy or instance.suspected for instance in self._instances):
            raise ApiError(503, "NoHealthyInstance", "the deployment has no healthy instance")
