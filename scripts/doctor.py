#!/usr/bin/env python3
"""Say what is missing on this machine, and with --azure for Azure ML, one line each with what to do about it."""

# Read by whatever Python there is, before anything is installed: the standard library and the syntax of 3.8 alone.
from __future__ import annotations

import argparse
import importlib.metadata
import importlib.util
import locale
import os
import platform
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parent.parent
SETUP = "./scripts/setup.sh"
GIB = 2**30
NODE_MIN = 18
SYSTEMS = {("Linux", "x86_64", "glibc"), ("Linux", "aarch64", "glibc"), ("Darwin", "arm64", "")}
DISK_GIB = {"before": 10, "after": 2}  # the installation of the packages


class Finding(NamedTuple):
    """What was found: `ok`, a `note` about what only some of the work needs, or `missing`."""

    state: str
    what: str
    remedy: str = ""

    def __str__(self) -> str:
        line = f"  {self.state:<9}{self.what}" + (f" -> {self.remedy}" if self.remedy else "")
        return "".join(letter if letter.isprintable() else " " for letter in line)


def this_machine(root: Path) -> Iterator[Finding]:
    """What working here takes, in the order in which one would put things right."""
    site, where = site_packages()
    yield from system()
    if platform.system() == "Windows":
        return
    yield from python()
    yield from packages(site, where)
    yield from torch(site)
    yield from disk(root, site)
    yield from memory()
    yield from text()
    yield from state(root)
    yield from ports(root)
    yield from proxy()
    yield from node()
    yield from git()


def system() -> Iterator[Finding]:
    kind, machine, (libc, version) = platform.system(), platform.machine(), platform.libc_ver()
    here = f"{kind} {machine}" + (f", {libc} {version}" if libc else "")
    if (kind, machine, libc) in SYSTEMS:
        yield Finding("ok", here)
    else:
        yield Finding(
            "missing", f"{here}: not supported", "Linux with glibc, a Mac with Apple silicon, or WSL on Windows"
        )


def python() -> Iterator[Finding]:
    version = "Python " + platform.python_version()
    if not (3, 11) <= sys.version_info[:2] <= (3, 13):
        yield Finding("missing", f"{version}; 3.11 to 3.13 is needed", f"install one, then PYTHON=its/path {SETUP}")
    elif not (ROOT / ".venv").is_dir() and importlib.util.find_spec("ensurepip") is None:
        yield Finding("missing", f"{version} cannot make virtual environments", "apt install python3-venv, or the like")
    else:
        yield Finding("ok", version)


def site_packages() -> tuple[Path | None, str]:
    """Where the packages are: in the virtual environment that runs this, or in .venv."""
    inside = sys.prefix != sys.base_prefix
    folder = Path(sys.prefix) if inside else ROOT / ".venv"
    found = sorted(folder.glob("lib/python3.*/site-packages"))
    return (found[0] if found else None), str(folder if inside else ".venv")


def packages(site: Path | None, where: str) -> Iterator[Finding]:
    if site is None:
        yield Finding("missing", "the packages: there is no .venv", SETUP)
        return
    lock = (ROOT / "scripts" / "requirements.txt").read_text(encoding="utf-8")
    wanted = dict(re.findall(r"^([A-Za-z0-9._-]+)(?:\[.*\])?==(\S+)$", lock, re.MULTILINE))
    there = {
        _plain(found.metadata["Name"] or ""): found.version
        for found in importlib.metadata.distributions(path=[str(site)])
    }
    wrong = []
    for name, version in wanted.items():
        found = there.get(_plain(name))
        if found is None:
            wrong.append(f"{name} is absent")
        elif found.partition("+")[0] != version.partition("+")[0]:
            wrong.append(f"{name} is {found}, not {version}")
    if wrong:
        more = f" and {len(wrong) - 3} more" if len(wrong) > 3 else ""
        yield Finding(
            "missing", f"{len(wrong)} of {len(wanted)} packages in {where}: {', '.join(wrong[:3])}{more}", SETUP
        )
    else:
        yield Finding("ok", f"{len(wanted)} packages in {where}, each as pinned")


def _plain(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def torch(site: Path | None) -> Iterator[Finding]:
    file = site / "torch" / "version.py" if site else None
    if not (file and file.is_file()):
        return  # said among the packages
    cuda = re.search(r"^cuda\b.*= '(.+)'", file.read_text(encoding="utf-8"), re.MULTILINE)
    has_gpu = shutil.which("nvidia-smi") is not None
    if has_gpu and not cuda:
        yield Finding(
            "note",
            "torch is built for CPUs, and there is an NVIDIA GPU",
            "install the CUDA build of the same version to use it",
        )
    else:
        yield Finding(
            "ok", f"torch for {f'CUDA {cuda[1]}' if cuda else 'CPUs'}{'' if has_gpu else '; no GPU, none is needed'}"
        )


def disk(root: Path, site: Path | None) -> Iterator[Finding]:
    needed, folder = (DISK_GIB["after"], root) if site else (DISK_GIB["before"], ROOT)
    free = shutil.disk_usage(_existing(folder)).free / GIB
    if free < needed:
        what = f"disk: {free:.1f} GiB free of the {needed} GiB that are needed"
        yield Finding("missing", what, "make room, or give --root on a larger disk" if site else "make room")
    else:
        yield Finding("ok", f"disk: {free:.1f} GiB free")


def memory() -> Iterator[Finding]:
    limits = [os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")]
    for file in ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"):
        if Path(file).is_file() and (limit := Path(file).read_text().strip()).isdigit():
            limits.append(int(limit))
    size = min(limits) / GIB
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    if size < 4:
        yield Finding("note", f"memory: {size:.1f} GiB; training may be killed", "4 GiB or more")
    else:
        yield Finding("ok", f"memory: {size:.0f} GiB, {cores} cores")


def text() -> Iterator[Finding]:
    encoding = locale.getpreferredencoding(False)
    if encoding.lower().replace("-", "") != "utf8":
        yield Finding("note", f"text is {encoding} here, which holds no Japanese or Korean", "export PYTHONUTF8=1")


def state(root: Path) -> Iterator[Finding]:
    """Whether what runs keep can be written and locked, and whether the databases of earlier ones are whole."""
    import fcntl  # which Windows does not have

    if root.exists() and not root.is_dir():
        yield Finding("missing", f"{root} is no folder", "give another --root")
        return
    try:
        with tempfile.TemporaryFile(dir=str(_existing(root))) as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        damaged = [file for file in (root / "mlflow.db", root / "workspace" / "workspace.db") if _is_damaged(file)]
    except OSError as error:
        what = f"{root} cannot be read, written and locked: {error.strerror}"
        yield Finding("missing", what, "give --root on a local disk of yours")
        return
    for file in damaged:
        yield Finding("missing", f"{file} is no database", "move it away; what it knew of runs and models is lost")
    if damaged:
        return
    yield Finding("ok", f"{root} " + ("holds earlier runs" if root.is_dir() else "will be made by the first run"))


def _is_damaged(database: Path) -> bool:
    if not database.is_file() or database.stat().st_size == 0:
        return False
    with database.open("rb") as file:
        return file.read(16) != b"SQLite format 3\0"


def ports(root: Path) -> Iterator[Finding]:
    """Loopback itself, and the ports that presets name; an endpoint of ours may well be on them."""
    if not _is_free(0):
        yield Finding("missing", "no port of 127.0.0.1 can be opened", "allow loopback in the sandbox or container")
        return
    presets = "".join(
        file.read_text(encoding="utf-8") for file in sorted((ROOT / "pipelines" / "presets").glob("*.yml"))
    )
    named = sorted(set(map(int, re.findall(r"^  local_port: (\d+)", presets, re.MULTILINE))))
    if taken := [str(port) for port in named if not _is_free(port)]:
        remedy = f"scripts/endpoint.py --root {root} list; or --set inputs.local_port=NUMBER"
        yield Finding("note", f"taken: port {', '.join(taken)} of 127.0.0.1, where presets put an endpoint", remedy)
    else:
        yield Finding("ok", f"ports {', '.join(map(str, named))} of 127.0.0.1 are free")


def _is_free(port: int) -> bool:
    try:
        socket.create_server(("127.0.0.1", port)).close()
    except OSError:
        return False
    return True


def proxy() -> Iterator[Finding]:
    if urllib.request.getproxies_environment() and not urllib.request.proxy_bypass_environment("127.0.0.1"):
        what = "a proxy is set for requests to this machine, too"
        yield Finding("missing", what, "export NO_PROXY=127.0.0.1,localhost no_proxy=127.0.0.1,localhost")


def node() -> Iterator[Finding]:
    """What Azurite, the storage of a workspace on this machine, runs on."""
    remedy = f"install Node.js {NODE_MIN} or later for scripts/workspace.py; nothing else needs it"
    if absent := [name for name in ("node", "npm") if shutil.which(name) is None]:
        yield Finding("note", f"{' and '.join(absent)}: not found", remedy)
        return
    version = (output(["node", "--version"], 5) or "").strip()
    number = re.fullmatch(r"v(\d+)\.[\d.]+", version)
    if number and int(number[1]) >= NODE_MIN:
        yield Finding("ok", f"Node.js {version[1:]} and npm")
    else:
        yield Finding("note", f"Node.js {version[1:20] or 'does not start'}", remedy)


def git() -> Iterator[Finding]:
    if shutil.which("git") is None:
        yield Finding("note", "git: not found", "install it before you change anything")


def output(command: list[str], seconds: float) -> str | None:
    """What a command prints, or nothing where it fails or takes too long."""
    try:
        done = subprocess.run(command, capture_output=True, timeout=seconds, stdin=subprocess.DEVNULL)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.decode("utf-8", "replace") if done.returncode == 0 else None


def _existing(path: Path) -> Path:
    """The folder itself, or the nearest one above it that is there."""
    return next(folder for folder in (path.absolute(), *path.absolute().parents) if folder.is_dir())


def main(argv: list[str] | None = None) -> int:
    """0 nothing is missing, 1 something is."""
    parser = argparse.ArgumentParser(prog="doctor.py", description=__doc__, allow_abbrev=False)
    parser.add_argument("--azure", action="store_true", help="look at sign-in, workspace and computes, too")
    parser.add_argument("--root", type=Path, default=Path(".local"), help="where runs are kept (default .local)")
    args = parser.parse_args(argv)
    parts = {"this machine": this_machine(args.root)}
    if args.azure:
        import doctor_azure

        parts["Azure ML"] = doctor_azure.findings()
    num_missing = 0
    for title, findings in parts.items():
        print(f"{title}:")
        for finding in findings:
            num_missing += finding.state == "missing"
            print(finding, flush=True)
    print(f"{num_missing} missing" if num_missing else "nothing is missing")
    return 1 if num_missing else 0


if __name__ == "__main__":
    sys.modules["doctor"] = sys.modules["__main__"]  # so that doctor_azure does not read it a second time
    sys.exit(main())
