"""All endpoints of one root: created, changed, routed, deleted, and brought back when the host starts again."""

import asyncio
import contextlib
import json
import logging
import shutil
from pathlib import Path

import aiohttp

from localml.endpoints.autoscale import Autoscale
from localml.endpoints.contract import ApiError, AutoscaleBody, DeploymentBody, EndpointBody, TrafficBody, read
from localml.endpoints.deployment import Deployment, code_sha256, copy_code
from localml.endpoints.process_book import ProcessBook, write_whole
from localml.endpoints.request_log import FOLDER, RequestLog
from localml.endpoints.splitter import SCORING_PATHS, Splitter

# Idle connections are closed before the servers close them, or a request could meet one that is just being closed.
_KEEP_ALIVE_SECONDS = 1.0
_logger = logging.getLogger(__name__)


class Endpoint:
    """What ``PUT /onlineEndpoints/NAME`` makes."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.port: int | None = None
        self.tags: dict[str, str] = {}
        self.traffic: dict[str, int] = {}
        self.mirror_traffic: dict[str, int] = {}
        self.deployments: dict[str, Deployment] = {}
        self.splitter = Splitter(self.deployments)
        self.error: dict[str, str] | None = None  # why its port is not served

    def describe(self) -> dict:
        """What the control API says of it."""
        return {
            "name": self.name,
            "scoring_uri": f"http://127.0.0.1:{self.port}{SCORING_PATHS[0]}",
            "port": self.port,
            "traffic": self.traffic,
            "mirror_traffic": self.mirror_traffic,
            "deployments": list(self.deployments),
            "tags": self.tags,
            "error": self.error,
        }

    async def listen(self, port: int | None) -> None:
        """Serve on ``port``, or where it did before, or on a free one."""
        if self.splitter.port is None or port not in (None, self.splitter.port):
            await self.splitter.listen(port or self.port)
            self.port, self.error = self.splitter.port, None


class Registry:
    """The endpoints, and their state in ``endpoints.json``; one change at a time."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.data_collector = folder, folder.parent / FOLDER
        self.endpoints: dict[str, Endpoint] = {}
        self.book = ProcessBook(folder / "processes.json")
        self._state = folder / "endpoints.json"
        self._lock = asyncio.Lock()
        connector = aiohttp.TCPConnector(limit=0, keepalive_timeout=_KEEP_ALIVE_SECONDS)
        limits = aiohttp.ClientTimeout(total=None)
        self._session = aiohttp.ClientSession(
            connector=connector,
            timeout=limits,
            auto_decompress=False,
            skip_auto_headers=["Accept", "Accept-Encoding", "Content-Type", "User-Agent"],  # the client's, or none
        )

    def endpoint(self, name: str) -> Endpoint:
        """404 where there is none."""
        if name not in self.endpoints:
            raise ApiError(404, "NotFound", f"there is no endpoint {name!r}")
        return self.endpoints[name]

    def deployment(self, name: str, deployment: str) -> Deployment:
        """404 where there is none."""
        found = self.endpoint(name).deployments.get(deployment)
        if found is None:
            raise ApiError(404, "NotFound", f"endpoint {name!r} has no deployment {deployment!r}")
        return found

    async def put_endpoint(self, name: str, body: EndpointBody) -> Endpoint:
        """Create it, or give it another port or other tags."""
        async with self._lock:
            endpoint = self.endpoints.get(name) or Endpoint(name)
            await endpoint.listen(body.port)
            endpoint.tags = body.tags
            self.endpoints[name] = endpoint
            self._save()
            return endpoint

    async def delete_endpoint(self, name: str) -> None:
        """Stop all of it and forget it."""
        async with self._lock:
            endpoint = self.endpoint(name)
            await endpoint.splitter.close()
            await asyncio.gather(*(deployment.stop() for deployment in endpoint.deployments.values()))
            del self.endpoints[name]
            self._save()
            shutil.rmtree(self.folder / name, ignore_errors=True)

    async def put_deployment(self, name: str, deployment: str, body: DeploymentBody) -> Deployment:
        """Create it, scale it, or leave it as it is; other content only where it has no traffic."""
        if not body.model.exists():
            raise ApiError(400, "BadRequest", f"model: no such folder: {body.model}")
        body = body.model_copy(update={"model": body.model.resolve()})
        async with self._lock:
            endpoint = self.endpoint(name)
            folder = self.folder / name / deployment
            known = endpoint.deployments.get(deployment)
            if known and await asyncio.to_thread(_same_content, known, body):
                if known.body.instance_count != body.instance_count or known.provisioning_state == "Failed":
                    known.body = body
                    await known.scale(body.instance_count)
                    self._save()
                return known
            if known:
                _refuse_with_traffic(endpoint, deployment, "other content for it")
            partial = folder.with_name(f".{deployment}")  # which no deployment can be called
            shutil.rmtree(partial, ignore_errors=True)
            partial.mkdir(parents=True)
            if body.server.kind == "inference_server":
                await asyncio.to_thread(copy_code, body.server, partial / "code")
            if known:  # once nothing is wrong with what replaces it
                await known.stop()
            shutil.rmtree(folder, ignore_errors=True)
            partial.rename(folder)
            made = self._make_deployment(name, deployment, body)
            endpoint.deployments[deployment] = made
            await made.scale(body.instance_count)
            self._save()
            return made

    async def delete_deployment(self, name: str, deployment: str) -> None:
        """Stop it and forget it, if it has no traffic."""
        async with self._lock:
            found, endpoint = self.deployment(name, deployment), self.endpoint(name)
            _refuse_with_traffic(endpoint, deployment, "its deletion")
            del endpoint.deployments[deployment]
            await found.stop()
            endpoint.traffic.pop(deployment, None)
            endpoint.mirror_traffic.pop(deployment, None)
            self._save()
            shutil.rmtree(self.folder / name / deployment, ignore_errors=True)

    async def put_traffic(self, name: str, body: TrafficBody) -> Endpoint:
        """All percentages at once."""
        endpoint = self.endpoint(name)  # no lock: the way back to blue waits for nothing
        for deployment in {*body.traffic, *body.mirror_traffic}:
            self.deployment(name, deployment)
        endpoint.traffic, endpoint.mirror_traffic = dict(body.traffic), dict(body.mirror_traffic)
        endpoint.splitter.route(body.traffic, body.mirror_traffic)
        self._save()
        return endpoint

    async def put_autoscale(self, name: str, deployment: str, body: AutoscaleBody) -> Autoscale:
        """Scale it by these rules from now on."""
        async with self._lock:
            found = self.deployment(name, deployment)
            if found.autoscale is None or found.autoscale.body != body:
                await self._set_autoscale(found, body)
                self._save()
            return found.autoscale

    async def load(self) -> None:
        """Bring back what was there when the last host ended."""
        try:
            state = json.loads(self._state.read_text(encoding="utf-8"))
        except FileNotFoundError:
            return
        for name, content in state["endpoints"].items():
            endpoint = self.endpoints[name] = Endpoint(name)
            endpoint.port, endpoint.tags = content["port"], content["tags"]
            for deployment, kept in content["deployments"].items():
                body = read(kept["body"], DeploymentBody)
                made = self._make_deployment(name, deployment, body)
                endpoint.deployments[deployment] = made
                await made.scale(kept["instance_count"])
                if kept["autoscale"]:
                    await self._set_autoscale(made, read(kept["autoscale"], AutoscaleBody))
            endpoint.traffic, endpoint.mirror_traffic = content["traffic"], content["mirror_traffic"]
            endpoint.splitter.route(endpoint.traffic, endpoint.mirror_traffic)
            try:
                await endpoint.listen(endpoint.port)
            except ApiError as error:
                endpoint.error = error.body()["error"]

    async def close(self) -> None:
        """Stop serving and end every server."""
        for endpoint in self.endpoints.values():
            await endpoint.splitter.close()
        stops = [d.stop() for endpoint in self.endpoints.values() for d in endpoint.deployments.values()]
        await asyncio.gather(*stops)
        await self._session.close()

    async def _set_autoscale(self, deployment: Deployment, body: AutoscaleBody) -> None:
        async def scale(count: int) -> None:
            async with self._lock:
                await deployment.scale(count)
                self._save()

        if deployment.autoscale:
            await deployment.autoscale.stop()
        deployment.autoscale = Autoscale(body, deployment, scale)

    def _make_deployment(self, endpoint: str, name: str, body: DeploymentBody) -> Deployment:
        folder = self.folder / endpoint / name
        folder.mkdir(parents=True, exist_ok=True)
        settings = body.data_collector
        request_log = RequestLog(self.data_collector, endpoint, name, settings) if settings else None
        return Deployment(name, body, folder, self._session, self.book, request_log)

    def _save(self) -> None:
        endpoints = {
            endpoint.name: {
                "port": endpoint.port,
                "tags": endpoint.tags,
                "traffic": endpoint.traffic,
                "mirror_traffic": endpoint.mirror_traffic,
                "deployments": {
                    d.name: {
                        "body": d.body.model_dump(mode="json"),
                        "instance_count": len(d.instances),
                        "autoscale": d.autoscale and d.autoscale.body.model_dump(mode="json"),
                    }
                    for d in endpoint.deployments.values()
                },
            }
            for endpoint in self.endpoints.values()
        }
        try:
            write_whole(self._state, {"endpoints": endpoints})
        except OSError as error:  # a full disk neither undoes nor ends what is going on; the next change writes it all
            _logger.warning("%s cannot be written: %s", self._state, error)


def _same_content(known: Deployment, body: DeploymentBody) -> bool:
    if known.body.model_copy(update={"instance_count": body.instance_count}) != body:
        return False
    if body.server.kind != "inference_server":
        return True
    with contextlib.suppress(OSError):
        return code_sha256(body.server.code) == code_sha256(known.folder / "code")
    return False


def _refuse_with_traffic(endpoint: Endpoint, deployment: str, what: str) -> None:
    if endpoint.traffic.get(deployment) or endpoint.mirror_traffic.get(deployment):
        message = f"{what} is refused while {deployment!r} has traffic; set its traffic to 0 first"
        raise ApiError(409, "TrafficNotZero", message)
