"""The data plane of one endpoint: takes a request, picks its deployment, streams the answer through, mirrors a copy."""

import asyncio
import contextlib
import ipaddress
import time
from collections.abc import AsyncIterator, Mapping
from urllib.parse import urlsplit

import aiohttp
from aiohttp import hdrs, web
from multidict import CIMultiDictProxy

from localml.endpoints import chat_form
from localml.endpoints.contract import ApiError
from localml.endpoints.deployment import Deployment, is_short
from localml.endpoints.request_log import Exchange
from localml.endpoints.traffic import Mirror, Shares

DEPLOYMENT_HEADER = "azureml-model-deployment"
MAX_BODY_BYTES = 16 * 2**20
SCORING_PATHS = ("/v1/chat/completions", "/score")
_MAX_MIRRORED_IN_FLIGHT = 16
_CLIENT_WENT_AWAY = 499
_BODY_SECONDS = 60.0  # in which a client must have sent its request
_IDLE_SECONDS = 75.0  # that a connection may wait for its next request
# What belongs to one connection, what aiohttp writes itself, and the credentials of a client.
_NOT_PASSED_ON = {
    *("connection", "keep-alive", "proxy-authenticate", "proxy-authorization", "proxy-connection", "te", "trailer"),
    *("transfer-encoding", "upgrade", "host", "content-length", "expect", "authorization", "cookie", DEPLOYMENT_HEADER),
}


class Splitter:
    """Serves one endpoint on a port of loopback."""

    def __init__(self, deployments: Mapping[str, Deployment]) -> None:
        self._deployments = deployments  # the endpoint's own: what is created and deleted shows here
        self._mirrors: set[asyncio.Task] = set()
        self._runner: web.AppRunner | None = None
        self.port: int | None = None
        self.route({}, {})

    def route(self, traffic: dict[str, int], mirror_traffic: dict[str, int]) -> None:
        """Share the requests out like this from now on; those under way end where they are."""
        self._shares, self._mirror = Shares(traffic), Mirror(mirror_traffic)

    async def listen(self, port: int | None) -> None:
        """Serve on this port, or on a free one; 409 where somebody else has it."""
        app = web.Application(middlewares=[refuse_strangers], client_max_size=MAX_BODY_BYTES)
        app.router.add_get("/", self._health)
        for path in SCORING_PATHS:
            app.router.add_post(path, self._score)
        runner = web.AppRunner(
            app,
            access_log=None,
            handler_cancellation=True,
            shutdown_timeout=1.0,
            keepalive_timeout=_IDLE_SECONDS,
            auto_decompress=False,  # a body goes on as it came; unpacked, a small one can be huge
        )
        await runner.setup()
        try:
            await web.TCPSite(runner, "127.0.0.1", port or 0).start()
        except OSError as error:
            await runner.cleanup()
            raise ApiError(409, "PortInUse", f"port {port} cannot be had: {error.strerror}") from None
        await self.close()
        self._runner, self.port = runner, runner.addresses[0][1]

    async def close(self) -> None:
        """Stop serving."""
        for task in self._mirrors:
            task.cancel()
        if self._runner:
            await self._runner.cleanup()
            self._runner = self.port = None

    async def _health(self, request: web.Request) -> web.Response:
        healthy = {
            name: sum(instance.healthy for instance in deployment.instances)
            for name, deployment in self._deployments.items()
        }
        status = 200 if any(healthy.values()) else 503
        return web.json_response(
            {"status": "Healthy" if status == 200 else "Unhealthy", "instances": healthy}, status=status
        )

    async def _score(self, request: web.Request) -> web.StreamResponse:
        body = await _body_of(request)
        headers = dict(_passed_on(request.headers))
        asked = request.headers.get(DEPLOYMENT_HEADER)
        name = asked or self._shares.next()
        deployment = self._deployments.get(name) if name else None
        if deployment is None:
            raise (
                ApiError(404, "DeploymentNotFound", f"the endpoint has no deployment {asked!r}")
                if asked
                else ApiError(503, "NoTraffic", "no deployment of the endpoint gets traffic yet")
            )
        if not asked and (copy := self._deployments.get(self._mirror.next() or "")):
            self._send_copy(copy, body, headers)
        logged = _logged(deployment, request, body)
        started, status = time.perf_counter(), _CLIENT_WENT_AWAY
        try:
            response, status = await _relay(request, deployment, body, headers, logged)
            return response
        finally:
            deployment.metrics.record(time.perf_counter() - started, status)
            if logged:
                logged.end(status)

    def _send_copy(self, deployment: Deployment, body: bytes, headers: dict[str, str]) -> None:
        if len(self._mirrors) < _MAX_MIRRORED_IN_FLIGHT:
            task = asyncio.create_task(_throw_away(deployment, body, headers))
            self._mirrors.add(task)
            task.add_done_callback(self._mirrors.discard)


async def _body_of(request: web.Request) -> bytes:
    try:
        async with asyncio.timeout(_BODY_SECONDS):
            return await request.read()
    except TimeoutError:
        raise ApiError(408, "RequestTimeout", f"the request was not sent within {_BODY_SECONDS:g} s") from None


def _passed_on(headers: CIMultiDictProxy[str]) -> list[tuple[str, str]]:
    """All headers but those above, and those that the sender says are for its own connection."""
    own = {name.strip().lower() for value in headers.getall(hdrs.CONNECTION, ()) for name in value.split(",")}
    return [(name, value) for name, value in headers.items() if name.lower() not in _NOT_PASSED_ON | own]


def _logged(deployment: Deployment, request: web.Request, body: bytes) -> Exchange | None:
    """The request as the data collector is to have it, where the deployment has one."""
    log, request_id = deployment.request_log, request.headers.get("x-request-id")
    return log and log.begin(request.path, request.content_type, request_id, body)


async def _relay(
    request: web.Request, deployment: Deployment, body: bytes, headers: dict[str, str], logged: Exchange | None
) -> tuple[web.StreamResponse, int]:
    """The deployment's answer, sent or ready to be sent, and the status to count it by."""
    response: web.StreamResponse | None = None
    name = {DEPLOYMENT_HEADER: deployment.name}
    try:
        async with _answer(deployment, body, headers) as answer:
            passed = [*_passed_on(answer.headers), *name.items()]
            keep = logged.response.add if logged else _forget
            if is_short(answer):
                content = await answer.read()
                keep(content, answer.content_type)
                return web.Response(status=answer.status, headers=passed, body=content), answer.status
            response = web.StreamResponse(status=answer.status, headers=passed)
            await response.prepare(request)
            end = b""
            async for part in answer.content.iter_any():
                end = (end + part)[-len(chat_form.END_OF_STREAM) :]
                keep(part, answer.content_type)
                await response.write(part)
            is_stream = answer.content_type == "text/event-stream"
            if deployment.server.is_chat and is_stream and end != chat_form.END_OF_STREAM:
                keep(chat_form.END_OF_STREAM, answer.content_type)
                await response.write(chat_form.END_OF_STREAM)
            await response.write_eof()
            return response, answer.status
    except (chat_form.ChatFormError, ApiError, TimeoutError, aiohttp.ClientError) as error:
        if response is None:
            status, content = _refusal(error, deployment)
            refusal = web.json_response(content, status=status, headers=name)
            if logged:
                logged.response.add(refusal.body)
            return refusal, status
        if request.transport is None or request.transport.is_closing():
            return response, _CLIENT_WENT_AWAY
        request.transport.abort()  # so that the client sees that its answer is not whole
        return response, 502


@contextlib.asynccontextmanager
async def _answer(
    deployment: Deployment, body: bytes, headers: dict[str, str]
) -> AsyncIterator[aiohttp.ClientResponse]:
    if deployment.server.is_chat:
        body = chat_form.checked(body, str(deployment.body.model))
    async with asyncio.timeout(deployment.timeout_seconds), deployment.ask(body, headers) as answer:
        yield answer


def _forget(part: bytes, content_type: str) -> None:
    """What is done with an answer that is not logged."""


def _refusal(error: Exception, deployment: Deployment) -> tuple[int, dict]:
    """What a client is told where no server's answer can be had."""
    if isinstance(error, chat_form.ChatFormError):
        return 400, error.body
    if isinstance(error, TimeoutError):
        message = f"the deployment did not answer within {deployment.timeout_seconds:g} s"
        error = ApiError(504, "RequestTimeout", message)
    elif not isinstance(error, ApiError):
        error = ApiError(502, "ConnectionLost", f"the server went away ({type(error).__name__})")
    return error.status, error.body()


async def _throw_away(deployment: Deployment, body: bytes, headers: dict[str, str]) -> None:
    """Send a mirrored request, read its answer and count it; nobody waits for it."""
    started, status = time.perf_counter(), _CLIENT_WENT_AWAY
    try:
        async with _answer(deployment, body, headers) as answer:
            async for _ in answer.content.iter_any():
                pass
            status = answer.status
    except (chat_form.ChatFormError, ApiError, TimeoutError, aiohttp.ClientError) as error:
        status, _ = _refusal(error, deployment)
    finally:
        deployment.mirrored.record(time.perf_counter() - started, status)


@web.middleware
async def refuse_strangers(request: web.Request, handler) -> web.StreamResponse:
    """Refuse what a web page in a browser may send here (another origin, or a name that was rebound to loopback)."""
    origin = request.headers.get(hdrs.ORIGIN)
    if not _is_loopback(f"//{request.headers.get(hdrs.HOST, '')}") or (origin is not None and not _is_loopback(origin)):
        return web.json_response(
            ApiError(403, "Forbidden", "only asked by name 127.0.0.1 or localhost").body(), status=403
        )
    try:
        return await handler(request)
    except ApiError as error:
        return web.json_response(error.body(), status=error.status)
    except web.HTTPException as error:
        code = "".join(word.capitalize() for word in error.reason.split())
        refusal = ApiError(error.status, code, f"{error.reason}: {request.path}")
        return web.json_response(refusal.body(), status=error.status)
    except OSError as error:  # such as a full disk
        refusal = ApiError(500, "HostFailed", f"the host of the endpoints failed: {error}")
        return web.json_response(refusal.body(), status=refusal.status)


def _is_loopback(url: str) -> bool:
    try:
        host = urlsplit(url).hostname or ""
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
