#!/usr/bin/env python
"""Register environments, components and pipeline components in a workspace or a registry: what is new, and only that.

A version that is registered never changes: where its content is another one here, nothing at all is registered, and
what has to get a new version is named with the files that changed. Run again after an interruption, it goes on.
"""

import argparse
import itertools
import sys
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path

import localml.needs_venv  # noqa: F401 (before what a Python may lack)

# isort: split
import workspace_client
from localml.errors import RunError
from registration import plan, sources
from registration.destination import Destination
from registration.sources import Source
from workspace_client import RefusedError, UnreachableError

ROOT = Path(__file__).resolve().parent.parent
AT_ONCE = 4  # registrations


def _arguments(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="register.py",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
        epilog="exit codes: 0 all is registered, 1 refused, 2 wrong flags, 3 no sign-in or no network",
    )
    workspace_client.add_flags(parser)
    parser.add_argument(
        "--registry-name", "--to-registry", metavar="NAME", help="a registry that workspaces share, not a workspace"
    )
    parser.add_argument(
        "--from-registry", metavar="NAME", help="promote: register only what is the same, version and hash, in that one"
    )
    parser.add_argument("--only", nargs="+", default=[], metavar="NAME", help="these, with all that they depend on")
    doing = parser.add_mutually_exclusive_group()
    doing.add_argument("--dry-run", action="store_true", help="print what would be done; exit 1 if it would be refused")
    doing.add_argument("--list", action="store_true", help="print what is registered there")
    args = parser.parse_args(argv)
    if args.from_registry and not args.registry_name:
        parser.error("--from-registry needs --to-registry, the registry that is promoted to")
    if args.from_registry and args.from_registry == args.registry_name:
        parser.error(f"--from-registry and --to-registry are both {args.registry_name}")
    return args


def main(argv: list[str] | None = None) -> int:
    args = _arguments(argv)
    try:
        return run(args)
    except (RunError, RefusedError, UnreachableError) as error:
        print(f"register.py: error: {error}", file=sys.stderr)
        return 3 if isinstance(error, UnreachableError) else 1
    except KeyboardInterrupt:
        print("register.py: interrupted; run it again to go on", file=sys.stderr)
        return 130
    except Exception as error:  # whatever it is: one line
        print(f"register.py: error: {type(error).__name__}: {' '.join(str(error).split())}", file=sys.stderr)
        return 1


def run(args: argparse.Namespace) -> int:
    def connect(registry: str | None) -> Destination:
        return Destination.connect(args, registry)

    destination = connect(args.registry_name)
    if args.list:
        print(catalogue(destination))
        return 0
    here = sources.chosen(sources.read(ROOT), args.only)
    origin = connect(args.from_registry) if args.from_registry else None
    steps = plan.make(here, destination.tags, (str(origin), origin.tags) if origin else None)
    if args.dry_run:
        print(plan.table(steps))
    if refused := [step for step in steps if step.action == "refuse"]:
        for step in refused:
            print(f"register.py: error: {step.source}: {step.why}", file=sys.stderr)
        return 1
    wanted = [step.source for step in steps if step.action == "register"]
    if not args.dry_run:
        _register(wanted, destination)
    said = "would be registered" if args.dry_run else "registered"
    print(f"{destination}: {len(wanted)} {said}, {len(steps) - len(wanted)} unchanged")
    return 0


def _register(wanted: list[Source], destination: Destination) -> None:
    """Side by side what does not depend on each other; pipelines one after the other, since one may hold another."""
    done, out = itertools.count(1), sys.stdout
    for kind, group in itertools.groupby(wanted, key=lambda source: source.kind):
        threads = ThreadPoolExecutor(1 if kind == "pipeline" else AT_ONCE)
        with workspace_client.silent():
            running = {threads.submit(destination.register, source): source for source in group}
            try:
                for ended in as_completed(running):
                    ended.result()
                    print(f"registered {next(done)}/{len(wanted)}: {kind} {running[ended]}", file=out, flush=True)
            finally:
                threads.shutdown(cancel_futures=True)


def catalogue(destination: Destination) -> str:
    """What is registered, as Studio shows it in its lists."""
    rows = [("KIND", "NAME", "VERSION", "STAGE", "CONTENT", "DISPLAY NAME")]
    for kind, asset in destination.newest():
        tags = asset.tags or {}
        content = tags.get(sources.CONTENT_TAG, "")[:12]
        title = getattr(asset, "display_name", None) or asset.description or ""
        rows.append((kind, asset.name, str(asset.version), tags.get("stage", ""), content, title))
    return plan.aligned(rows)


if __name__ == "__main__":
    sys.exit(main())
