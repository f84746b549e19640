"""The process of a local workspace: TLS on loopback, sign-in, and every call to the part that answers it.

Started by ``scripts/workspace.py up`` as ``python -m localml.workspace.service ROOT JOBS``.
"""

import asyncio
import contextlib
import dataclasses
import json
import os
import signal
import ssl
import sys
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

from aiohttp import web

from localml.errors import RunError
from localml.workspace import certificates, registries_api, resource_table, settings, tracking_server, workspace_api
from localml.workspace.arm import ArmError, Place, not_found
from localml.workspace.assets_api import KINDS, Assets
from localml.workspace.blobs import Blobs, azurite_command
from localml.workspace.blobs import end as end_azurite
from localml.workspace.endpoints_api import OnlineEndpoints
from localml.workspace.history_api import History
from localml.workspace.identity import Identity
from localml.workspace.insights_api import Insights
from localml.workspace.jobs import Jobs
from localml.workspace.resource_store import ResourceStore
from localml.workspace.studio import Studio

_MAX_BODY = 64 * 2**20
_WATCH_SECONDS = 1.0
_OPEN = ("/metadata/endpoints", "/identity/token", "/discovery")  # and logs, whose addresses are signed
_LOGS = "/logs/"


class Service:
    """Answers calls; ``unanswered`` keeps those of the client that nothing here answers yet."""

    def __init__(self, root: Path, known: settings.Settings, blobs: Blobs, at_once: int) -> None:
        self._settings, self._root = known, root
        self.store = ResourceStore(settings.database(root))
        self.studio = Studio(self.store, root, known.studio_url, known.secret)
        self.jobs = Jobs(self.store, root, self.studio, known.job_variables(root), at_once)
        self._identity = Identity(known.secret)
        self._assets = Assets(self.store, blobs)
        self._history = History(self.store, self.jobs, root, known.url, self.studio)
        self._unanswered = root / "workspace" / "unanswered.jsonl"
        endpoints = OnlineEndpoints(self.store, blobs, root, known.secret)
        self._insights = Insights(self.store, endpoints)
        self._resources = resource_table.handlers(self.store, blobs, known, endpoints)

    async def handle(self, request: web.Request) -> web.StreamResponse:
        is_open = request.path in _OPEN or request.path.startswith(_LOGS)
        try:
            if not is_open:
                self._identity.check(request.headers.get("Authorization"))
            body = b"" if is_open else await request.read()  # of a stranger nothing is read
            return await asyncio.to_thread(self._respond, request, body)
        except web.HTTPException:  # a body that is too large
            raise
        except ArmError as error:
            return web.json_response(error.body(), status=error.status)
        except Exception as error:  # a client is told, and the workspace lives on
            print(f"{request.method} {request.path}: {type(error).__name__}: {error}", flush=True)
            message = f"The local workspace failed: {type(error).__name__}: {error}"
            return web.json_response(ArmError(500, "InternalServerError", message).body(), status=500)

    def _respond(self, request: web.Request, raw: bytes) -> web.StreamResponse:
        path, method = request.path, request.method
        if path == "/metadata/endpoints":
            return web.json_response(workspace_api.cloud(self._settings))
        if path == "/identity/token":
            header, resource = request.headers.get("X-IDENTITY-HEADER"), request.query.get("resource", "")
            return web.json_response(self._identity.issue(header, resource))
        if path == "/discovery":
            return web.json_response(workspace_api.discovery(self._settings))
        if path.startswith(_LOGS):
            text = self._history.log(path.removeprefix(_LOGS), request.query.get("sig", ""))
            return web.Response(text=text, content_type="text/plain")
        try:
            body = json.loads(raw) if raw else None
        except ValueError as error:
            raise ArmError(400, "BadRequest", f"The body is not JSON: {error}") from None
        answer = registries_api.discovery(path, self._settings) or self._history.answer(method, path, body)
        answer = answer or workspace_api.listed(method, path, self._settings)
        status, query = 200, dict(request.query)
        if answer is None and (answered := self._insights.answer(method, path, query, body)):
            answer, status = answered
        if answer is None and (place := Place.of(path)):
            answer, status = self._resource(method, place, query, body)
        if answer is None:
            self._note_unanswered(method, path)
            called = path.rpartition("/providers/")[2]
            raise ArmError(
                501, "NotImplemented", f"The local workspace does not answer {method} {called}: only Azure does."
            )
        headers = {"Location": f"{self._settings.url}{path}"} if status == 202 else None
        return web.json_response(answer, status=status, headers=headers)

    def _resource(self, method: str, place: Place, query: dict[str, str], body: Any) -> tuple[Any, int]:
        """An answer and its status; None where nothing here answers."""
        if not place.in_registry and not place.tail and method != "GET":
            message = (
                "The local workspace is the only one here and stays; others are made on Azure (scripts/provision)."
            )
            raise ArmError(403, "AuthorizationFailed", message)
        if not place.in_registry and place.scope.lower() != workspace_api.SCOPE.lower():
            where = "" if place.workspace != settings.WORKSPACE else f" in {place.scope.partition('/providers/')[0]}"
            raise not_found(f"Workspace {place.workspace}{where}")
        handler = self._resources.get(place.tail[0] if place.tail else "")
        if handler and (answered := handler(method, place, query, body)):
            return answered
        if not place.tail:
            return workspace_api.workspace(place.scope, self._settings), 200
        if place.tail[0] == "jobs" and not place.in_registry:
            return self._job(method, place, query, body)
        return (self._assets.answer(method, place, query, body), 200) if place.tail[0] in KINDS else (None, 0)

    def _job(self, method: str, place: Place, query: dict[str, str], body: Any) -> tuple[Any, int]:
        if len(place.tail) == 1:
            found, more = self.jobs.page(query)
            following = {name: value for name, value in query.items() if name != "$skip"} | {"$skip": str(more)}
            link = f"{self._settings.url}{place.scope}/jobs?{urlencode(following)}"
            return {"value": found, **({"nextLink": link} if more else {})}, 200
        name = place.tail[1]
        if place.tail[2:] == ("cancel",):
            self.jobs.cancel(name)
            return {}, 200
        if method == "PUT":
            return self.jobs.submit(place, name, body), 201
        if method == "DELETE":
            self.jobs.delete(name)
            return {}, 200
        if self.store.get("jobs", name) is None and self.jobs.step(name):  # run history says more of a child job
            return {"id": f"{place.scope}/jobs/{name}", "name": name, "properties": None}, 200
        return self.jobs.get(name), 200

    def _note_unanswered(self, method: str, path: str) -> None:
        with self._unanswered.open("a", encoding="utf-8") as file:
            file.write(json.dumps({"method": method, "path": path}) + "\n")


async def serve(root: Path, at_once: int) -> None:
    """Until SIGTERM: Azurite, the jobs, and the API."""
    known = dataclasses.replace(settings.ensure(root), pid=os.getpid())
    certificate, key, bundle = certificates.ensure(settings.folder(root) / "tls")
    os.environ["REQUESTS_CA_BUNDLE"] = str(bundle)
    blobs = Blobs(known.blob_port, known.blob_key, settings.authority(root))
    folder, command = settings.folder(root) / "blobs", azurite_command(root)
    azurite = blobs.start(command, folder, certificate, key)
    runners = []
    try:
        service = Service(root, known, blobs, at_once)
        app = web.Application(client_max_size=_MAX_BODY)
        app.router.add_route("*", "/{path:.*}", service.handle)
        studio = web.Application()
        studio.router.add_get("/{path:.*}", service.studio.handle)
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(certificate, key)
        for served, port, tls in ((app, known.port, context), (studio, known.studio_port, None)):
            runners.append(web.AppRunner(served, access_log=None, shutdown_timeout=5.0))
            await runners[-1].setup()
            await web.TCPSite(runners[-1], "127.0.0.1", port, ssl_context=tls).start()
        service.jobs.start()
        settings.write(root, known)
        print(f"ready: {known.url}", flush=True)
        stopped = asyncio.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, stopped.set)
        with tracking_server.wanted(root):
            while not stopped.is_set():
                if azurite.poll() is not None:
                    print("Azurite has ended; it is started again", flush=True)
                    azurite = await asyncio.to_thread(blobs.start, command, folder, certificate, key)
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(stopped.wait(), _WATCH_SECONDS)
        service.jobs.stop()
        for runner in runners:
            await runner.cleanup()
    finally:
        end_azurite(folder)
        settings.write(root, dataclasses.replace(known, pid=0))


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        try:
            asyncio.run(serve(Path(sys.argv[1]).resolve(), int(sys.argv[2])))
        except (RunError, OSError) as error:
            sys.exit(f"error: {error}")
