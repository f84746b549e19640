"""The catalogue of components is what scripts/catalogue.py writes, and keeps what people add to it."""

import pytest
import yaml

import catalogue

SPEC = {
    "name": "weigh_answers",
    "description": "Weighs a | b,\n one by one. More that the catalogue leaves out.",
    "tags": {"stage": "evaluate", "resumable": "true", "side_effect": "sends a letter"},
    "is_deterministic": False,
    "inputs": {
        "predictions": {"type": "uri_file"},
        "policy": {"type": "uri_file", "optional": True},
        "candidate": {"type": "string"},
        "limit": {"type": "integer", "optional": True},
        "seed": {"type": "integer", "default": 0},
    },
    "outputs": {"scores": {"type": "uri_file"}, "report": {"type": "uri_folder"}},
    "environment": "file:../../environments/evaluate/environment.yml",
}
ROW = (
    r"| evaluate | [`weigh_answers`](weigh_answers) | Weighs a \| b, one by one "
    "| `predictions`, (`policy`), `candidate` | `scores`, `report` | evaluate "
    "| runs every time, goes on, side effect: sends a letter |"
)


@pytest.fixture
def components(tmp_path, monkeypatch):
    """Two components of which the first by name is of the later stage."""
    other = {**SPEC, "name": "zip_files", "tags": {"stage": "data"}, "is_deterministic": True}
    for spec in (SPEC, other):
        (tmp_path / spec["name"]).mkdir()
        (tmp_path / spec["name"] / "component.yml").write_text(yaml.safe_dump(spec, sort_keys=False))
    monkeypatch.setattr(catalogue, "COMPONENTS", tmp_path)
    return tmp_path


def rows(text: str) -> list[str]:
    written = text.partition(catalogue.HAND_WRITTEN)[0]
    return [line for line in written.splitlines() if line.startswith("| ")][2:]


def test_the_catalogue_is_not_stale(capsys):
    assert catalogue.main(["--check"]) == 0, capsys.readouterr().err


def test_every_component_has_a_row(root):
    text = (root / "components" / "README.md").read_text(encoding="utf-8")
    folders = {path.parent.name for path in (root / "components").glob("*/component.yml")}
    assert {row.split("](")[1].split(")")[0] for row in rows(text)} == folders


def test_a_row_by_hand_and_the_order_of_stages(components):
    assert catalogue.main([]) == 0
    first, second = rows((components / "README.md").read_text(encoding="utf-8"))
    assert first.startswith("| data | [`zip_files`](zip_files) |")
    assert first.endswith("| reused |")
    assert second == ROW


def test_a_stale_catalogue_is_named_and_left_alone(components, capsys):
    catalogue.main([])
    (components / "zip_files" / "component.yml").unlink()
    before = (components / "README.md").read_text(encoding="utf-8")
    assert catalogue.main(["--check"]) == 1
    assert "README.md" in capsys.readouterr().err
    assert (components / "README.md").read_text(encoding="utf-8") == before


def test_what_is_written_by_hand_is_kept(components):
    catalogue.main([])
    path = components / "README.md"
    path.write_text(path.read_text(encoding="utf-8") + "\n## Measured\n\n| a | b |\n", encoding="utf-8")
    assert catalogue.main(["--check"]) == 0
    (components / "zip_files" / "component.yml").unlink()
    assert catalogue.main([]) == 0
    text = path.read_text(encoding="utf-8")
    assert text.endswith("\n## Measured\n\n| a | b |\n")
    assert "zip_files" not in text
