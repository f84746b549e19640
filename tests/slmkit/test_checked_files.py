"""What does not fit into a model is one line with file, line and key."""

import pydantic
import pytest

from slmkit import checked_files
from slmkit.errors import UserError


class Rule(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(extra="forbid")
    name: str
    least: float = 0


class Policy(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(extra="forbid")
    rules: list[Rule]
    first: Rule | None = None


@pytest.mark.parametrize(
    "text", ["rules:\n  - {name: a, least: 0.5}\n", '\ufeff{"rules": [{"name": "a", "least": 0.5}]}']
)
def test_yaml_and_json(tmp_path, text):
    (tmp_path / "f").write_text(text, encoding="utf-8")
    assert checked_files.load(tmp_path / "f", Policy) == Policy(rules=[Rule(name="a", least=0.5)])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("rules:\n  - name: a\n  - name: b\n    last: 1\n", ":4: unknown key 'rules.1.last'; known keys: name, least"),
        ("first:\n  nam: a\n", ":2: unknown key 'first.nam'; known keys: name, least"),
        ("rulez: []\n", ":1: unknown key 'rulez'; known keys: rules, first"),
        ("rules:\n  - name: a\n\n  - name: b\n    least: much\n", ":5: rules.1.least: Input should be a valid number"),
        ("rules:\n  - least: 1\n", ":2: rules.0.name: Field required"),
        ("- 1\n", ":1: the file: Input should be a valid dictionary"),
        ("", ":1: the file: Input should be a valid dictionary"),
        ("rules: [", ": cannot be read: while parsing"),
        ("rules: \x00", ": cannot be read: "),
        ("rules: []\nfirst: {name: a}\nrules: []\n", ": cannot be read: the key 'rules' stands twice"),
        ("first: {name: a,\n  name: b}\n", ": cannot be read: the key 'name' stands twice"),
        ("rules: " + "[" * 5000, ": cannot be read: "),
    ],
)
def test_what_does_not_fit(tmp_path, text, message):
    path = tmp_path / "policy.yml"
    path.write_text(text)
    with pytest.raises(UserError) as refused:
        checked_files.load(path, Policy, hint="a policy holds rules")
    assert str(refused.value).startswith(f"{path}{message}")
    assert "\n" not in str(refused.value)


def test_a_few_lines_do_not_come_to_gigabytes(tmp_path):
    bomb = ["a0: &a0 [x, x, x, x, x, x, x, x, x]"]
    bomb += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]" for i in range(1, 20)]
    (tmp_path / "f").write_text("\n".join([*bomb, "rules: *a19"]))
    with pytest.raises(UserError, match=r"write out \*a0"):
        checked_files.load(tmp_path / "f", Policy)


def test_an_absent_file_and_one_of_another_encoding(tmp_path):
    with pytest.raises(UserError, match="No such file"):
        checked_files.load(tmp_path / "absent", Policy)
    (tmp_path / "f").write_bytes("名前: あ".encode("cp932"))
    with pytest.raises(UserError, match="cannot be read"):
        checked_files.load(tmp_path / "f", Policy)
