"""The process that hosts the endpoints of one root: control API, traffic, servers; ends all of them with itself."""

import argparse
import asyncio
import fcntl
import hmac
import json
import logging
import os
import resource
import secrets
import signal
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import IO

import psutil
from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError

from localml.endpoints import contract
from localml.endpoints.contract import ApiError
from localml.endpoints.process_book import write_whole
from localml.endpoints.registry import Registry
from localml.endpoints.splitter import refuse_strangers
from localml.errors import RunError

_MAX_LOG_LINES = 5000
_MAX_OPEN_FILES = 2**16
_LOCK_SECONDS = 15.0  # for the host before this one to end its servers
_ENDPOINT = r"/onlineEndpoints/{endpoint:[^/]+}"
_DEPLOYMENT = _ENDPOINT + r"/deployments/{deployment:[^/]+}"


class ControlApi:
    """The routes that make, change and watch endpoints."""

    def __init__(self, registry: Registry, token: str, stop: Callable[[], None]) -> None:
        self._registry, self._stop = registry, stop
        self._expected = f"Bearer {token}".encode()
        self.app = web.Application(middlewares=[refuse_strangers, self._authenticate])
        self.app.add_routes(
            [
                web.get("/onlineEndpoints", self._list),
                web.get(_ENDPOINT, self._get_endpoint),
                web.put(_ENDPOINT, self._put_endpoint),
                web.delete(_ENDPOINT, self._delete_endpoint),
                web.put(f"{_ENDPOINT}/traffic", self._put_traffic),
                web.get(f"{_ENDPOINT}/metrics", self._get_metrics),
                web.get(_DEPLOYMENT, self._get_deployment),
                web.put(_DEPLOYMENT, self._put_deployment),
                web.delete(_DEPLOYMENT, self._delete_deployment),
                web.get(f"{_DEPLOYMENT}/logs", self._get_logs),
                web.get(f"{_DEPLOYMENT}/autoscale", self._get_autoscale),
                web.put(f"{_DEPLOYMENT}/autoscale", self._put_autoscale),
                web.post("/stop", self._post_stop),
            ]
        )

    @web.middleware
    async def _authenticate(self, request: web.Request, handler: Callable[..., Awaitable]) -> web.StreamResponse:
        given = request.headers.get("Authorization", "").encode("utf-8", "surrogateescape")
        if not hmac.compare_digest(given, self._expected):
            raise ApiError(401, "Unauthorized", "the control API needs the token of host.json")
        return await handler(request)

    async def _list(self, request: web.Request) -> web.Response:
        return web.json_response({"value": [endpoint.describe() for endpoint in self._registry.endpoints.values()]})

    async def _get_endpoint(self, request: web.Request) -> web.Response:
        return web.json_response(self._registry.endpoint(request.match_info["endpoint"]).describe())

    async def _put_endpoint(self, request: web.Request) -> web.Response:
        body = await _read(request, contract.EndpointBody)
        return web.json_response((await self._registry.put_endpoint(_name(request, "endpoint"), body)).describe())

    async def _delete_endpoint(self, request: web.Request) -> web.Response:
        await self._registry.delete_endpoint(request.match_info["endpoint"])
        return web.json_response({})

    async def _put_traffic(self, request: web.Request) -> web.Response:
        body = await _read(request, contract.TrafficBody)
        return web.json_response((await self._registry.put_traffic(request.match_info["endpoint"], body)).describe())

    async def _get_metrics(self, request: web.Request) -> web.Response:
        seconds = _number(request, "seconds", 30)
        deployments = self._registry.endpoint(request.match_info["endpoint"]).deployments.values()
        found = {d.name: {**d.metrics.summary(seconds), "mirrored": d.mirrored.summary(seconds)} for d in deployments}
        return web.json_response({"deployments": found})

    async def _get_deployment(self, request: web.Request) -> web.Response:
        return web.json_response(self._deployment(request).describe())

    async def _put_deployment(self, request: web.Request) -> web.Response:
        body = await _read(request, contract.DeploymentBody)
        names = request.match_info["endpoint"], _name(request, "deployment")
        return web.json_response((await self._registry.put_deployment(*names, body)).describe(), status=202)

    async def _delete_deployment(self, request: web.Request) -> web.Response:
        await self._registry.delete_deployment(request.match_info["endpoint"], request.match_info["deployment"])
        return web.json_response({})

    async def _get_logs(self, request: web.Request) -> web.Response:
        lines = int(min(_number(request, "lines", 100), _MAX_LOG_LINES))
        found = [instance.last_lines(lines) for instance in self._deployment(request).instances]
        if len(found) > 1:
            found = [[f"[{number}] {line}" for line in log] for number, log in enumerate(found)]
        return web.json_response({"lines": [line for log in found for line in log]})

    async def _get_autoscale(self, request: web.Request) -> web.Response:
        autoscale = self._deployment(request).autoscale
        if autoscale is None:
            raise ApiError(404, "NotFound", f"{request.match_info['deployment']!r} has no autoscale rules")
        return web.json_response(autoscale.describe())

    async def _put_autoscale(self, request: web.Request) -> web.Response:
        body = await _read(request, contract.AutoscaleBody)
        names = request.match_info["endpoint"], request.match_info["deployment"]
        return web.json_response((await self._registry.put_autoscale(*names, body)).describe())

    async def _post_stop(self, request: web.Request) -> web.Response:
        self._stop()
        return web.json_response({})

    def _deployment(self, request: web.Request):
        return self._registry.deployment(request.match_info["endpoint"], request.match_info["deployment"])


async def _read(request: web.Request, kind: type):
    try:
        content = json.loads(await request.read() or b"{}")
    except (ValueError, RecursionError):
        raise ApiError(400, "BadRequest", "the body is not JSON in UTF-8") from None
    return contract.read(content, kind)


def _name(request: web.Request, part: str) -> str:
    return contract.read({"name": request.match_info[part]}, contract.Named).name


def _number(request: web.Request, name: str, default: float) -> float:
    try:
        value = float(request.query.get(name, default))
    except ValueError:
        value = 0
    if not 0 < value < float("inf"):
        raise ApiError(400, "BadRequest", f"{name}: must be a number above 0")
    return value


async def serve(folder: Path) -> None:
    """Host the endpoints of a folder until told to stop."""
    stopping = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopping.set)
    registry = Registry(folder)
    registry.book.end_leftovers()
    try:
        await registry.load()
    except (ValueError, KeyError, TypeError, AttributeError, ApiError) as error:
        await registry.close()
        raise RunError(f"{folder / 'endpoints.json'} cannot be read ({error!r}); move it away to start anew") from error
    token = secrets.token_urlsafe(32)
    runner = web.AppRunner(ControlApi(registry, token, stopping.set).app, access_log=None, shutdown_timeout=1.0)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    started = psutil.Process().create_time()
    said = {"url": url, "token": token, "pid": os.getpid(), "create_time": started}
    write_whole(folder / "host.json", said | {"data_collector": str(registry.data_collector)})
    try:
        await stopping.wait()
    finally:
        (folder / "host.json").unlink(missing_ok=True)
        await runner.cleanup()
        await registry.close()


def _allow_many_connections() -> None:
    """Two files for each request under way: with the usual 1024 a few hundred clients would leave none for probes."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = _MAX_OPEN_FILES if hard == resource.RLIM_INFINITY else min(hard, _MAX_OPEN_FILES)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, most), hard))


def _is_about_this_host(record: logging.LogRecord) -> bool:
    """Not about a request that is no HTTP: its sender is told, and could fill the log."""
    return not (record.exc_info and isinstance(record.exc_info[1], HttpProcessingError))


def _is_ours(lock: IO) -> bool:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("root", type=Path, help="where runs are kept; the endpoints are in its folder endpoints")
    folder = parser.parse_args().root.resolve() / "endpoints"
    folder.mkdir(parents=True, exist_ok=True)
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(name)s %(levelname)s %(message)s")
    logging.getLogger("aiohttp.server").addFilter(_is_about_this_host)
    _allow_many_connections()
    with (folder / "host.lock").open("a") as lock:
        deadline = time.monotonic() + _LOCK_SECONDS
        while not _is_ours(lock):
            if time.monotonic() > deadline:
                print(f"{folder}: another process hosts these endpoints and does not answer", file=sys.stderr)
                return 1
            time.sleep(0.05)
        try:
            asyncio.run(serve(folder))
        except RunError as error:
            print(error, file=sys.stderr)
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
