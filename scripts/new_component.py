#!/usr/bin/env python
"""Make a component that works, with its test; then change what it does, from component.yml on."""

import argparse
import re
import sys
from pathlib import Path

import catalogue

ROOT = Path(__file__).resolve().parent.parent
TEMPLATE = Path(__file__).resolve().parent / "component_template"
RECORDS = ("documents", "chats", "personas", "eval_items", "predictions", "scores", "preferences")


class NotMadeError(Exception):
    """Why no component was made, and what to do."""


def make(name: str, stage: str, takes: str, gives: str, environment: str) -> list[Path]:
    """Write the component and its test, which comes last in what is returned."""
    if not re.fullmatch(r"[a-z]+(_[a-z]+)+", name):
        raise NotMadeError(f"{name}: a component is called verb_noun in small letters, for example select_chats")
    for port in (takes, gives):
        if not re.fullmatch(rf"([a-z]+_)*({'|'.join(RECORDS)})", port):
            raise NotMadeError(f"{port}: a port of records ends in one of: {', '.join(RECORDS)}")
    if takes == gives:
        raise NotMadeError(f"{takes}: input and output need two names, for example {takes} and selected_{takes}")
    known = sorted(path.parent.name for path in (ROOT / "environments").glob("*/conda.yml"))
    if environment not in known:
        raise NotMadeError(f"{environment}: no such environment; there are: {', '.join(known)}")
    folder = ROOT / "components" / name
    test = ROOT / "tests" / "components" / f"test_{name}.py"
    for path in (folder, test):
        if path.exists():
            raise NotMadeError(f"{path.relative_to(ROOT)} is there already; choose another name, or remove it")

    values = {"name": name, "stage": stage, "takes": takes, "gives": gives, "environment": environment}
    values["display_name"] = name.replace("_", " ").capitalize()
    files = {folder / "component.yml": "component.yml", folder / "main.py": "main.py", test: "test.py"}
    texts = {path: _filled(template, values) for path, template in files.items()}
    folder.mkdir()
    for path, text in texts.items():
        path.write_text(text, encoding="utf-8")
    return list(texts)


def _filled(file: str, values: dict[str, str]) -> str:
    import jinja2

    text = (TEMPLATE / f"{file}.j2").read_text(encoding="utf-8")
    settings = {"variable_start_string": "<<", "variable_end_string": ">>", "keep_trailing_newline": True}
    return jinja2.Template(text, undefined=jinja2.StrictUndefined, autoescape=False, **settings).render(values)


def main(argv: list[str] | None = None) -> int:
    """0 made, 2 refused."""
    parser = argparse.ArgumentParser(prog="new_component.py", description=__doc__, allow_abbrev=False)
    parser.add_argument("name", help="verb_noun, for example select_chats")
    parser.add_argument("--stage", choices=catalogue.STAGES, default="data", help="where it belongs (default data)")
    parser.add_argument("--takes", metavar="PORT", default="chats", help="port of the records it reads (default chats)")
    parser.add_argument("--gives", metavar="PORT", help="port of the records it writes (default selected_ before that)")
    parser.add_argument("--environment", metavar="NAME", help="folder in environments/ (default: that of the stage)")
    args = parser.parse_args(argv)
    gives = args.gives or f"selected_{args.takes}"
    try:
        made = make(args.name, args.stage, args.takes, gives, args.environment or args.stage)
    except NotMadeError as error:
        print(f"new_component.py: error: {error}", file=sys.stderr)
        return 2
    print("\n".join(f"written: {path.relative_to(ROOT)}" for path in made))
    catalogue.main([])
    test = made[-1].relative_to(ROOT)
    print(f"try it:  .venv/bin/python -m pytest {test} tests/components/test_contract.py -k {args.name}")
    print(f"and add its row to README.md:  | | [`{args.name}`](components/{args.name}) | {args.takes} -> {gives} |")
    return 0


if __name__ == "__main__":
    sys.exit(main())
