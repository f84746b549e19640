#!/usr/bin/env python
"""An Azure ML workspace on this machine: azure-ai-ml's own client submits to it, with no account and no network."""

import argparse
import fcntl
import os
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TextIO

import localml.needs_venv  # noqa: F401 (before what a Python may lack)

# isort: split
import psutil

from localml.endpoints import client as endpoint_host
from localml.errors import RunError
from localml.workspace import settings

SCRIPTS = Path(__file__).resolve().parent
START_SECONDS = 300  # the first time npm installs Azurite


def _arguments(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="workspace.py", description=__doc__, allow_abbrev=False)
    parser.add_argument("--root", type=Path, default=Path(".local"), help="where everything is kept (default .local)")
    commands = parser.add_subparsers(dest="command", required=True)
    up = commands.add_parser("up", help="start the workspace; what it held before is there again")
    up.add_argument("--jobs", type=int, default=2, metavar="N", help="how many run at once (default 2)")
    commands.add_parser("down", help="stop it; its jobs go on, and are found again by the next start")
    env = commands.add_parser("env", help="print the variables with which azure-ai-ml finds it, for eval")
    env.add_argument(
        "--format", choices=["shell", "dotenv"], default="shell", help="lines of `export` or of NAME=value"
    )
    env.add_argument("--trust-only-this", action="store_true", help="trust no other server; azure-ai-ml is faster then")
    args = parser.parse_args(argv)
    if args.command == "up" and args.jobs < 1:
        parser.error(f"--jobs {args.jobs}: at least 1")
    return args


def main(argv: list[str] | None = None) -> int:
    args = _arguments(argv)
    try:
        {"up": up, "down": down, "env": env}[args.command](args)
    except RunError as error:
        print(f"workspace.py: error: {error}", file=sys.stderr)
        return 1
    return 0


def up(args: argparse.Namespace) -> None:
    """Start the service and wait until it answers."""
    folder = settings.folder(args.root)
    if running(args.root):
        print(f"the workspace runs already: {settings.read(args.root).url}")
        return
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    log = folder / "service.log"
    ends = time.monotonic() + START_SECONDS
    with (folder / "service.lock").open("a") as lock:
        while not _is_ours(lock):  # another start, or one that is about to end
            if running(args.root):
                print(f"the workspace runs already: {settings.read(args.root).url}")
                return
            if time.monotonic() > ends:
                raise RunError(f"another service holds {folder} and does not answer (see {log})")
            time.sleep(0.1)
        with log.open("wb") as out:
            process = subprocess.Popen(
                [sys.executable, "-m", "localml.workspace.service", str(args.root.resolve()), str(args.jobs)],
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                env={**os.environ, "PYTHONPATH": str(SCRIPTS)},
                pass_fds=(lock.fileno(),),  # the service holds it until it ends, however it ends
            )
    while time.monotonic() < ends and process.poll() is None:
        if b"ready: " in log.read_bytes():
            print(f"workspace {settings.WORKSPACE}: {settings.read(args.root).url}")
            flags = "" if args.root == Path(".local") else f"--root {shlex.quote(str(args.root))} "
            python = shlex.quote(sys.executable)
            print(f'so that azure-ai-ml finds it: eval "$({python} scripts/workspace.py {flags}env)"')
            return
        time.sleep(0.1)
    process.kill()
    _end_azurite(args.root)
    lines = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
    why = lines[-1] if lines else "no word"
    if "already in use" in why:
        why += f"; end what listens there, or remove {folder / 'settings.json'}: the next start takes new addresses"
    raise RunError(f"the workspace did not start: {why} (see {log})")


def down(args: argparse.Namespace) -> None:
    if process := _service(args.root):
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(timeout=30)
        except psutil.TimeoutExpired:
            process.kill()
    _end_azurite(args.root)
    print("stopped" if process else "no workspace is running")
    if endpoint_host.is_hosted(args.root):
        print(f"its online endpoints serve on, and those of runs; {sys.executable} scripts/endpoint.py stop ends them")


def env(args: argparse.Namespace) -> None:
    known = settings.read(args.root)
    for name, value in known.variables(args.root, trust_only_this=args.trust_only_this).items():
        print(f"export {name}={shlex.quote(value)}" if args.format == "shell" else f"{name}={value}")


def running(root: Path) -> psutil.Process | None:
    """The service, if it runs; a number that went to another process since is not it."""
    if not settings.is_made(root):
        return None
    known = settings.read(root)
    try:
        process = psutil.Process(known.pid or -1)
        return process if _serves(root, process.cmdline()) else None
    except (psutil.Error, ValueError):
        return None


def _service(root: Path) -> psutil.Process | None:
    """As ``running``, whatever became of the settings: they may be damaged or gone, or not made yet."""
    processes = psutil.process_iter(["cmdline"])
    return next((each for each in processes if _serves(root, each.info["cmdline"] or [])), None)


def _serves(root: Path, command: list[str]) -> bool:
    return {"localml.workspace.service", str(root.resolve())} <= set(command)


def _end_azurite(root: Path) -> None:
    """That of a service that was killed."""
    from localml.workspace import blobs

    blobs.end(settings.folder(root) / "blobs")


def _is_ours(lock: TextIO) -> bool:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


if __name__ == "__main__":
    sys.exit(main())
