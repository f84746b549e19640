#!/usr/bin/env python
"""Refuse Azure ML files that azure-ai-ml lets through and the service, or an attacker, would not.

Each finding is one line, `file:line: rule: what is wrong; what to do`, and the exit code is then 1.
"""

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path

import localml.needs_venv  # noqa: F401 (before what a Python may lack)

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "components" / "_shared"))

from lint_rules import azure_loader, pipeline_jobs  # noqa: E402 (the shared code of the components has to be found first)
from lint_rules.documents import Document, Finding, UnreadableError, read  # noqa: E402
from lint_rules.rules import RULES  # noqa: E402

NOT_OF_A_RULE = {
    "unreadable": "YAML with a key that stands twice, an alias, or a syntax that azure-ai-ml would not take",
    "azure-ai-ml": "what azure-ai-ml's own loader refuses",
    "pipeline-job": "what a dry run of scripts/run.py refuses; of a job that is named, not of those in a folder",
    "unknown-kind": "a file that is named and is of no kind that is checked",
}
FOLDERS = ("components", "pipelines", "environments", "scripts")


def check(path: Path, ask_azure: bool = True, named: bool = False) -> list[Finding]:
    """What is wrong with one file; azure-ai-ml is asked about a file in which no rule found anything. What takes long
    for all jobs is done for a file that is named, and such a file is of a kind that is checked."""
    try:
        document = read(path)
    except UnreadableError as error:
        return [Finding(path, error.line, "unreadable", str(error))]
    found = {(document.line_of(where), rule.name, said) for rule in RULES for where, said in rule.findings(document)}
    if not found and ask_azure:
        found = {(document.line_of(where), "azure-ai-ml", said) for where, said in azure_loader.refusals(document)}
    if not found and named:
        if document.kind is None:
            found = {(1, "unknown-kind", _no_kind(document))}
        elif document.kind == "job" and ask_azure:
            found = {(1, "pipeline-job", said) for said in pipeline_jobs.refusals(document)}
    return [Finding(path, *finding) for finding in sorted(found)]


def _no_kind(document: Document) -> str:
    if "pipeline" in document.content:
        return "a preset, which scripts/compile.py checks; name its job in pipelines/jobs"
    return "no kind that is checked; is $schema or type: missing or misspelt?"


def yaml_files(paths: list[Path]) -> Iterator[Path]:
    """The files named, and those below the folders named but for hidden ones."""
    for path in paths:
        if not path.is_dir():
            yield path
            continue
        for file in sorted([*path.rglob("*.yml"), *path.rglob("*.yaml")]):
            if not any(part.startswith(".") for part in file.relative_to(path).parts) and file.is_file():
                yield file


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="lint.py", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("paths", nargs="*", type=Path, help="files and folders (default: this repository's)")
    parser.add_argument("--list", action="store_true", help="show the rules and check nothing")
    parser.add_argument("--skip-azure-ai-ml", action="store_true", help="our rules alone, without its own loader")
    args = parser.parse_args(argv)
    if args.list:
        for name, summary in sorted([*((rule.name, rule.summary) for rule in RULES), *NOT_OF_A_RULE.items()]):
            print(f"{name:<24}{summary}")
        return 0
    if missing := [str(path) for path in args.paths if not path.exists()]:
        parser.error(f"no such file or folder: {', '.join(missing)}")
    files = list(yaml_files(args.paths or [ROOT / folder for folder in FOLDERS]))
    asks = not args.skip_azure_ai_ml
    findings = [finding for file in files for finding in check(file, asks, named=file in args.paths)]
    print(*findings, sep="\n", end="\n" * bool(findings))
    if findings:
        print(f"findings: {len(findings)}, files: {len(files)}; --list tells of the rules", file=sys.stderr)
    return 1 if findings else 0


if __name__ == "__main__":
    sys.exit(main())
