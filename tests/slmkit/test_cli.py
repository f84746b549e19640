"""The command line of a made-up component with a port of every kind, in this process and as one of its own."""

import os
import re
import subprocess
import sys
import textwrap
from dataclasses import asdict, dataclass
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from slmkit import cli

SPEC = """
name: bake_bread
description: Bakes at 100 % heat.
inputs:
  flour: {type: uri_folder, description: "At least 50% rye, %(prog)s or not."}
  starter: {type: uri_file, optional: true, description: Yesterday's.}
  learning_rate: {type: number, default: 0.5, min: 0, max: 1, description: How fast.}
  offset: {type: number, default: 0.0, description: Any number.}
  num_loaves: {type: integer, default: 2, min: 1, max: 9007199254740993, description: Of them.}
  glaze: {type: boolean, default: false, description: Shiny.}
  shape: {type: string, default: 100%, enum: [100%, round, long], description: Form.}
  note: {type: string, optional: true, description: Said to the baker.}
outputs:
  bread: {type: uri_file, description: Warm.}
"""


@dataclass(frozen=True)
class Args:
    flour: Path
    bread: Path
    starter: Path | None = None
    learning_rate: float = 0.5
    offset: float = 0.0
    num_loaves: int = 2
    glaze: bool = False
    shape: str = "100%"
    note: str | None = None


@pytest.fixture(scope="module")
def spec(tmp_path_factory):
    path = tmp_path_factory.mktemp("component") / "component.yml"
    path.write_text(SPEC)
    return path


@pytest.fixture(autouse=True)
def same_excepthook(monkeypatch):
    monkeypatch.setattr(sys, "excepthook", sys.excepthook)


@pytest.fixture
def parse(spec):
    return lambda *argv: cli.parse(Args, spec, ["--flour", str(spec.parent), "--bread", "out", *argv])


@pytest.fixture
def refusal(parse, capsys):
    """The one line with which the command line is refused."""

    def refuse(*argv):
        with pytest.raises(SystemExit) as stop:
            parse(*argv)
        assert stop.value.code == 2
        captured = capsys.readouterr()
        assert captured.out == ""
        (line,) = captured.err.splitlines()
        return line.removeprefix("bake_bread: error: ")

    return refuse


def test_what_is_not_given_is_the_default(parse, spec):
    assert parse() == Args(flour=spec.parent, bread=Path("out"))


def test_every_kind(parse, spec):
    given = ["--starter", str(spec), "--learning_rate", "1e-5", "--num_loaves", "3", "--glaze", "True"]
    found = parse(*given, "--shape", "long", "--note", "dark crust")
    expected = {"flour": spec.parent, "bread": Path("out"), "starter": spec, "learning_rate": 0.00001, "offset": 0.0}
    assert asdict(found) == expected | {"num_loaves": 3, "glaze": True, "shape": "long", "note": "dark crust"}


@pytest.mark.parametrize(("text", "value"), [("true", True), ("True", True), ("FALSE", False), ("false", False)])
def test_booleans(parse, text, value):
    assert parse("--glaze", text).glaze is value


@pytest.mark.parametrize(
    ("text", "value"),
    [("7", 7), ("2.0", 2), ("1e3", 1000), ("9007199254740993", 2**53 + 1)],  # which is no float
)
def test_whole_numbers(parse, text, value):
    found = parse("--num_loaves", text).num_loaves
    assert (found, type(found)) == (value, int)


@pytest.mark.parametrize("text", ["-1", "-1e-5", "-.5", "-0.25", "1", "+2"])
def test_numbers_may_be_negative(parse, text):
    assert parse("--offset", text).offset == parse(f"--offset={text}").offset == float(text)


@pytest.mark.parametrize("text", ["-", "-v", "-- no salt", "--no salt", "a=b", "=", "", " ", "한국어 빵", "100%"])
def test_text_may_be_anything_but_a_flag(parse, text):
    assert parse("--note", text, "--glaze", "true") == parse("--glaze=true", f"--note={text}")
    assert parse("--note", text).note == text


@given(number=st.floats(allow_nan=False, allow_infinity=False))
def test_any_number_comes_back(spec, number):
    argv = ["--flour", str(spec.parent), "--bread", "out", "--offset", repr(number)]
    assert cli.parse(Args, spec, argv).offset == number


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--learning_rate", "-1"], "argument --learning_rate: -1 is below the minimum 0"),
        (["--learning_rate=-1e-9"], "argument --learning_rate: -1e-9 is below the minimum 0"),
        (["--learning_rate", "1.5"], "argument --learning_rate: 1.5 is above the maximum 1"),
        (["--learning_rate", "inf"], "argument --learning_rate: 'inf' is not a finite number"),
        (["--learning_rate", "-inf"], "argument --learning_rate: '-inf' is not a finite number"),
        (["--learning_rate", "nan"], "argument --learning_rate: 'nan' is not a finite number"),
        (["--learning_rate", "1e999"], "argument --learning_rate: '1e999' is not a finite number"),
        (["--learning_rate", "fast"], "argument --learning_rate: 'fast' is not a finite number"),
        (["--learning_rate", "1,5"], "argument --learning_rate: '1,5' is not a finite number"),
        (["--learning_rate", ""], "argument --learning_rate: '' is not a finite number"),
        (["--num_loaves", "0"], "argument --num_loaves: 0 is below the minimum 1"),
        (["--num_loaves", "2.5"], "argument --num_loaves: '2.5' is not a whole number"),
        (["--num_loaves", "1e-5"], "argument --num_loaves: '1e-5' is not a whole number"),
        (["--num_loaves", "inf"], "argument --num_loaves: 'inf' is not a whole number"),
        (["--num_loaves", "nan"], "argument --num_loaves: 'nan' is not a whole number"),
        (["--num_loaves", "None"], "argument --num_loaves: 'None' is not a whole number"),
        (["--glaze", "yes"], "argument --glaze: 'yes' is not true or false"),
        (["--glaze", "1"], "argument --glaze: '1' is not true or false"),
        (["--glaze"], "argument --glaze: expected one argument"),
        (["--glaze", "--num_loaves", "2"], "argument --glaze: expected one argument"),
        (["--shape", "flat"], "argument --shape: 'flat' is not one of 100%, round, long"),
        (["--shape", "ROUND"], "argument --shape: 'ROUND' is not one of 100%, round, long"),
        (["--starter", ""], "argument --starter: '' is not a path"),
        (["--starter", "not/there"], "argument --starter: no file or folder at 'not/there'; check the path given"),
        (["--starter", "x" * 300], f"argument --starter: '{'x' * 300}' cannot be opened: File name too long"),
        (["--num_loafs", "2"], "unknown argument --num_loafs; did you mean --num_loaves?"),
        (["--num", "2"], "unknown argument --num"),  # no abbreviations
        (["--xyz=2"], "unknown argument --xyz=2"),
        (["loose"], "unknown argument loose"),
        (["-x"], "unknown argument -x"),
        (["--glaze", "true", "false"], "unknown argument false"),
        (["--glaze", "true", "--glaze", "true"], "argument --glaze: given twice"),
        (["--glaze=true", "--glaze", "true"], "argument --glaze: given twice"),
    ],
)
def test_refused(refusal, argv, message):
    assert refusal(*argv) == message


def test_unknown_flags_are_told_before_missing_ones(spec, capsys):
    for argv, message in [
        (["--flower", "x", "--bread", "b"], "unknown argument --flower; did you mean --flour?"),
        (["--bread", "b"], "the following arguments are required: --flour"),
        ([], "the following arguments are required: --flour, --bread"),
    ]:
        with pytest.raises(SystemExit):
            cli.parse(Args, spec, argv)
        assert capsys.readouterr().err == f"bake_bread: error: {message}\n"


@pytest.mark.parametrize("flag", ["--help", "-h"])
def test_help_says_what_the_spec_says(parse, capsys, flag):
    with pytest.raises(SystemExit) as stop:
        parse(flag)
    assert stop.value.code == 0
    text = " ".join(capsys.readouterr().out.split())
    assert "Bakes at 100 % heat." in text
    assert "--flour URI_FOLDER At least 50% rye, %(prog)s or not. " in text
    assert "--learning_rate NUMBER How fast. (min 0; max 1; default 0.5)" in text
    assert "--shape STRING Form. (one of 100%, round, long; default 100%)" in text
    assert "--note STRING Said to the baker." in text


MAIN = """
import sys
from dataclasses import dataclass
from pathlib import Path
from slmkit import cli
from slmkit.errors import UserError

@dataclass(frozen=True)
class Args:
    flour: Path
    bread: Path
    note: str | None = None

def run(args):
    if args.note == "user":
        raise UserError("no yeast:\\n  buy some")
    if args.note == "full":
        raise OSError(28, "No space left on device", "/bread")
    if args.note == "key":
        raise KeyError("yeast")
    if args.note == "interrupt":
        raise KeyboardInterrupt
    print("baked")

run(cli.parse(Args, Path(__file__).with_name("component.yml")))
"""


@pytest.fixture(scope="module")
def bake(spec, root):
    (spec.parent / "main.py").write_text(textwrap.dedent(MAIN))
    env = {**os.environ, "PYTHONPATH": str(root / "components" / "_shared"), "SLMKIT_DEBUG": ""}
    command = [sys.executable, str(spec.parent / "main.py"), "--flour", str(spec.parent), "--bread", "out"]

    def run(*argv, **variables):
        return subprocess.run([*command, *argv], capture_output=True, text=True, env={**env, **variables})

    return run


@pytest.mark.parametrize(
    ("note", "line"),
    [
        ("user", "bake_bread: error: no yeast: buy some\n"),
        ("full", "bake_bread: error: No space left on device: /bread (--debug shows the traceback)\n"),
        ("key", "bake_bread: error: KeyError: 'yeast' (--debug shows the traceback)\n"),
    ],
)
def test_an_error_is_one_line(bake, note, line):
    done = bake("--note", note)
    assert (done.returncode, done.stdout, done.stderr) == (1, "", line)


@pytest.mark.parametrize(("argv", "variables"), [(["--debug"], {}), ([], {"SLMKIT_DEBUG": "1"})])
def test_debug_shows_the_traceback(bake, argv, variables):
    done = bake("--note", "user", *argv, **variables)
    assert done.returncode == 1
    assert re.match(r"Traceback .*in run\n.*UserError: no yeast", done.stderr, re.DOTALL)
    assert done.stderr.endswith("bake_bread: error: no yeast: buy some\n")


def test_an_interruption_is_no_traceback(bake):
    done = bake("--note", "interrupt")
    assert done.returncode != 0
    assert done.stderr.startswith("bake_bread: error: interrupted")
    assert "Traceback" not in done.stderr


def test_no_error(bake):
    done = bake()
    assert (done.returncode, done.stdout, done.stderr) == (0, "baked\n", "")
