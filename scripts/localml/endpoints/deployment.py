"""A deployment: its instances, how far it is provisioned, and its requests' way to one of them."""

import asyncio
import contextlib
import hashlib
import shutil
from collections.abc import AsyncIterator
from pathlib import Path
from typing import TYPE_CHECKING

import aiohttp

from localml.endpoints.balancer import Balancer
from localml.endpoints.contract import ApiError, DeploymentBody, InferenceServer
from localml.endpoints.instance import Instance
from localml.endpoints.process_book import ProcessBook
from localml.endpoints.request_log import RequestLog
from localml.endpoints.request_metrics import RequestMetrics
from localml.endpoints.servers import environment_of, server_of

if TYPE_CHECKING:
    from localml.endpoints.autoscale import Autoscale

_DRAIN_SECONDS = 10.0
_MAX_CODE_BYTES = 100 * 2**20
_MAX_WHOLE_ANSWER = 2**20
_MAX_REFUSED_CONNECTIONS = 3


class Deployment:
    """What ``PUT .../deployments/NAME`` makes."""

    def __init__(
        self,
        name: str,
        body: DeploymentBody,
        folder: Path,
        session: aiohttp.ClientSession,
        book: ProcessBook,
        request_log: RequestLog | None,
    ) -> None:
        self.name, self.body, self.folder, self.request_log = name, body, folder, request_log
        self.server = server_of(body, folder / "code")
        self.instances: list[Instance] = []
        self._leaving: set[Instance] = set()
        self.metrics, self.mirrored = RequestMetrics(), RequestMetrics()
        self.provisioning_state = "Creating"
        self.autoscale: Autoscale | None = None
        self._session, self._book = session, book
        settings = body.request_settings
        self.timeout_seconds = settings.request_timeout_ms / 1000
        self._balancer = Balancer(
            self.instances, settings.max_concurrent_requests_per_instance, settings.max_queue_wait_ms / 1000
        )

    @property
    def error(self) -> dict[str, str] | None:
        """Why it has failed."""
        reasons = [instance.error for instance in self.instances if instance.error]
        return {"code": "DeploymentFailed", "message": reasons[0]} if reasons else None

    def describe(self) -> dict:
        """What the control API says of it."""
        return {
            "name": self.name,
            "provisioning_state": self.provisioning_state,
            "error": self.error,
            "instance_count": len(self.instances),
            "instances": [instance.describe() for instance in self.instances],
            "model": str(self.body.model),
            "tags": self.body.tags,
        }

    async def scale(self, count: int) -> None:
        """Start or stop instances until there are ``count``; those given up are started again."""
        if self.instances:
            self.provisioning_state = "Updating"  # autoscale, too, waits until the new ones serve
        kept = [instance for instance in self.instances if not instance.error][:count]
        self._leaving |= set(self.instances) - set(kept)
        self.instances[:] = kept
        numbers = iter(sorted(set(range(count)) - {instance.number for instance in self.instances}))
        while len(self.instances) < count:
            self.instances.append(self._new_instance(next(numbers), count))
        self._changed()
        await self._leave()

    async def stop(self) -> None:
        """End all instances, the requests under way first."""
        if self.autoscale:
            await self.autoscale.stop()
        self._leaving |= set(self.instances)
        self.instances.clear()
        self._balancer.dispatch()
        await self._leave()
        if self.request_log:
            await self.request_log.close()

    @contextlib.asynccontextmanager
    async def ask(self, body: bytes, headers: dict[str, str]) -> AsyncIterator[aiohttp.ClientResponse]:
        """Send a request to an instance and give its answer, from another one where the first went away with nothing.

        A request that has been sent is sent once more at most: it may be what killed the first.
        """
        num_lost = num_refused = 0
        while True:
            instance = await self._balancer.take()
            try:
                answer = await self._send(instance, body, headers)
            except aiohttp.ClientError as error:
                instance.suspect()
                refused = isinstance(error, aiohttp.ClientConnectorError)
                num_lost, num_refused = num_lost + (not refused), num_refused + refused
                if num_lost > 1 or num_refused > _MAX_REFUSED_CONNECTIONS:
                    raise ApiError(502, "ConnectionLost", f"the server went away ({type(error).__name__})") from None
            else:
                async with answer:
                    yield answer
                return
            finally:
                self._balancer.give_back(instance)

    async def _send(self, instance: Instance, body: bytes, headers: dict[str, str]) -> aiohttp.ClientResponse:
        url = instance.url(self.server.scoring_path)
        answer = await self._session.post(url, data=body, headers=headers, allow_redirects=False)
        if is_short(answer):
            try:
                await answer.read()
            except BaseException:
                answer.close()
                raise
        return answer

    def _new_instance(self, number: int, count: int) -> Instance:
        variables = environment_of(self.body, self.server, count)
        return Instance(
            number, self.body, self.server, variables, self.folder, self._session, self._book, self._changed
        )

    async def _leave(self) -> None:
        """End the instances that get no more requests, once those under way have ended."""

        async def end(instance: Instance) -> None:
            await instance.drain(min(_DRAIN_SECONDS, self.timeout_seconds))
            await instance.stop()
            self._leaving.discard(instance)

        await asyncio.gather(*(end(instance) for instance in list(self._leaving)))

    def _changed(self) -> None:
        self._balancer.dispatch()
        if self.error:
            self.provisioning_state = "Failed"
        elif self.provisioning_state != "Succeeded" and all(instance.has_served for instance in self.instances):
            self.provisioning_state = "Succeeded"


def is_short(answer: aiohttp.ClientResponse) -> bool:
    """Whether an answer is read to its end before any of it is passed on, so that it can still come from elsewhere."""
    return answer.content_length is not None and answer.content_length <= _MAX_WHOLE_ANSWER


def copy_code(server: InferenceServer, target: Path) -> None:
    """The deployment's own copy of its code, as Azure ML uploads it."""
    source = server.code
    if not source.is_dir():
        raise ApiError(400, "BadRequest", f"server.code: no such folder: {source}")
    size = sum(file.stat().st_size for file in source.rglob("*") if file.is_file())
    if size > _MAX_CODE_BYTES:
        raise ApiError(400, "BadRequest", f"server.code: {source} holds more than {_MAX_CODE_BYTES >> 20} MiB")
    if not (source / server.scoring_script).is_file():
        raise ApiError(400, "BadRequest", f"server.scoring_script: no {server.scoring_script} in {source}")
    shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__", ".git"))


def code_sha256(folder: Path) -> str:
    """The names and contents of the files of a code folder."""
    digest = hashlib.sha256()
    for file in sorted(p for p in folder.rglob("*") if p.is_file() and "__pycache__" not in p.parts):
        content = hashlib.sha256(file.read_bytes()).hexdigest()
        digest.update(f"{file.relative_to(folder).as_posix()}\0{content}\n".encode())
    return digest.hexdigest()
