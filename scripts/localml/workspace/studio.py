"""The pages behind a job's Studio link: its steps as they run, their logs, and the reports that it has written.

Nobody signs in: each address holds a signature for its job, as that of a blob does on Azure. What a job has written is
shown without its scripts, since nobody here knows who wrote it.
"""

import asyncio
import datetime
import hashlib
import hmac
import json
import mimetypes
from collections.abc import Iterable
from html import escape
from pathlib import Path
from urllib.parse import quote

from aiohttp import web

from localml.workspace.arm import ArmError, not_found
from localml.workspace.job_logs import execution_log, step_log
from localml.workspace.jobs import ENDED
from localml.workspace.resource_store import ResourceStore
from localml.workspace.workspace_api import SCOPE

_POLICY = "sandbox allow-popups; default-src 'none'; style-src 'unsafe-inline'; img-src 'self' data:"
_TEXTS = (".md", ".txt", ".json", ".jsonl", ".csv", ".yml", ".yaml", ".log", "")
_MAX_FILES = 20  # of an output, in the list
_STYLE = """
body{font:15px/1.5 system-ui,sans-serif;margin:2rem auto;max-width:60rem;padding:0 1rem;color:#1b1b1f}
h1{font-size:1.5rem;margin-bottom:0}h2{font-size:1.1rem;margin-top:2rem}
table{border-collapse:collapse;width:100%}td,th{text-align:left;padding:.35rem .6rem;border-bottom:1px solid #ddd}
td.n{text-align:right;font-variant-numeric:tabular-nums}
.s{border-radius:1rem;padding:.1rem .6rem;font-size:.85em;background:#e5f1fb;color:#0b4a7d}
.Completed{background:#dff6dd;color:#0b5a08}.Failed{background:#fde7e9;color:#8e0f1b}
.Canceled,.CancelRequested{background:#fff4ce;color:#614c00}
pre{background:#f5f5f5;padding:1rem;overflow:auto;border-radius:.3rem}a{color:#0b5cad}
@media(prefers-color-scheme:dark){body{background:#1b1b1f;color:#e8e8ec}pre{background:#2a2a30}a{color:#7ab8f5}
td,th{border-color:#444}}
"""


class Studio:
    def __init__(self, store: ResourceStore, root: Path, url: str, secret: str) -> None:
        self._store, self._root, self._url, self._secret = store, root, url, secret

    def address(self, job: str) -> str:
        """The link of a job; the client adds ``&tid=`` to it, as to Azure's."""
        return f"{self._url}/{self.signature(job)}/runs/{job}?wsid={SCOPE}"

    def signature(self, run: str) -> str:
        return hmac.new(self._secret.encode(), f"run {run}".encode(), hashlib.sha256).hexdigest()

    def check(self, run: str, signature: str) -> None:
        if not hmac.compare_digest(signature.encode(), self.signature(run).encode()):
            raise ArmError(403, "AuthenticationFailed", "The signature of this address is not right.")

    async def handle(self, request: web.Request) -> web.StreamResponse:
        headers = {"Content-Security-Policy": _POLICY, "X-Content-Type-Options": "nosniff", "Cache-Control": "no-store"}
        headers["Referrer-Policy"] = "no-referrer"
        try:
            content, kind = await asyncio.to_thread(self.page, request.path)
        except ArmError as error:
            return web.Response(text=f"{error.message}\n", status=error.status, headers=headers)
        return web.Response(body=content, headers=headers | {"Content-Type": kind})

    def page(self, path: str) -> tuple[bytes, str]:
        """What ``/SIGNATURE/runs/JOB[/logs[/STEP]|/outputs/PORT/...]`` shows, and its type."""
        signature, runs, name, what, *rest = (*path.strip("/").split("/"), "", "", "", "")
        if runs != "runs":
            raise not_found("This page")
        self.check(name, signature)
        if (job := self._store.get("jobs", name)) is None:
            raise not_found(f"Job {name}")
        rest = [part for part in rest if part]
        if not what:
            return _html(name, self._job(job), refresh=job["properties"]["status"] not in ENDED)
        if what == "logs":
            text = step_log(self._root, name, rest[0]) if rest else execution_log(self._root, name)
            return text.encode(), "text/plain; charset=utf-8"
        if what == "outputs" and rest:
            return self._file(name, rest[0], rest[1:])
        raise not_found("This page")

    def _job(self, job: dict) -> str:
        name, properties = job["name"], job["properties"]
        known = self._store.get("runs", name)["properties"]
        here = f"/{self.signature(name)}/runs/{quote(name)}"
        parts = [
            f"<h1>{escape(properties.get('displayName') or name)}</h1>",
            f"<p>{_badge(properties['status'])} {escape(name)} · {_seconds(known)}"
            f' · <a href="{here}/logs">execution log</a></p>',
            f"<p>{escape(properties.get('description') or '')}</p>",
        ]
        if error := known.get("error"):
            parts.append(f"<pre>{escape(error['message'])}</pre>")
        steps = [step for _, step in reversed(self._store.versions("steps", name))]
        rows = (
            f'<tr><td><a href="{here}/logs/{quote(step["name"])}">{escape(step["name"])}</a></td>'
            f"<td>{_badge('Reused' if step['reused'] else step['status'])}</td>"
            f'<td class="n">{_seconds({"started": step["started"], "ended": _end_of(step)})}</td></tr>'
            for step in steps
        )
        parts.append(f"<h2>Steps</h2><table><tr><th>Step</th><th>State</th><th>Time</th></tr>{''.join(rows)}</table>")
        if outputs := "".join(self._output(here, port, path) for port, path in self._outputs(name).items()):
            parts.append(f"<h2>Outputs</h2><table>{outputs}</table>")
        return "".join(parts)

    def _output(self, here: str, port: str, path: Path) -> str:
        links = (f'<a href="{here}/outputs/{quote(port)}/{quote(file)}">{escape(file)}</a>' for file in _files_of(path))
        return f"<tr><td>{escape(port)}</td><td>{' · '.join(links)}</td></tr>"

    def _outputs(self, name: str) -> dict[str, Path]:
        """The outputs of a job that has ended, as the local runner has noted them."""
        folder = self._root / "jobs" / name
        try:
            outputs = json.loads((folder / "job.json").read_text(encoding="utf-8"))["outputs"]
        except (OSError, ValueError, KeyError):
            return {}
        return {port: (folder / path).resolve() for port, path in outputs.items()}

    def _file(self, name: str, port: str, parts: list[str]) -> tuple[bytes, str]:
        top = self._outputs(name).get(port)
        if top is None:
            raise not_found(f"Output {port}")
        file = top if top.is_file() else top.joinpath(*parts).resolve()
        if not file.is_relative_to(top) or not file.is_file():
            raise not_found(f"{'/'.join(parts)} of output {port}")
        if file.suffix in (".html", ".svg", ".png"):
            return file.read_bytes(), mimetypes.types_map[file.suffix]
        return file.read_bytes(), "text/plain; charset=utf-8" if file.suffix in _TEXTS else "application/octet-stream"


def _files_of(path: Path) -> Iterable[str]:
    """What a person wants to open first: pages, then texts, of a folder's top."""
    if path.is_file():
        return [path.name]
    files = [file.name for file in path.iterdir() if file.is_file()] if path.is_dir() else []
    return sorted(files, key=lambda file: (not file.endswith(".html"), not file.endswith(".md"), file))[:_MAX_FILES]


def _html(title: str, body: str, *, refresh: bool) -> tuple[bytes, str]:
    again = '<meta http-equiv="refresh" content="3">' if refresh else ""
    text = (
        f'<!doctype html><html lang="en"><meta charset="utf-8">{again}'
        f'<meta name="viewport" content="width=device-width"><title>{escape(title)}</title>'
        f"<style>{_STYLE}</style><body>{body}</body></html>"
    )
    return text.encode(), "text/html; charset=utf-8"


def _badge(status: str) -> str:
    return f'<span class="s {escape(status)}">{escape(status)}</span>'


def _end_of(step: dict) -> str | None:
    return step["at"] if step["status"] in ENDED else None


def _seconds(known: dict) -> str:
    if not known.get("started"):
        return "not started"
    end = known.get("ended") or datetime.datetime.now(datetime.UTC).isoformat()
    took = datetime.datetime.fromisoformat(end) - datetime.datetime.fromisoformat(known["started"])
    return f"{took.total_seconds():.1f} s"
