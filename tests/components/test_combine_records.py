"""Files one after the other; what stands twice, or has no name, is refused with its place."""

import json

import pytest

from slmkit import records
from slmkit.errors import UserError


@pytest.fixture
def combine(load_main, tmp_path):
    main = load_main("combine_records")

    def run(*files: list[dict]) -> list[dict]:
        ports = {}
        for i, rows in enumerate(files, start=1):
            ports[f"records_{i}"] = tmp_path / f"file{i}"
            ports[f"records_{i}"].write_text("".join(json.dumps(row) + "\n" for row in rows))
        main.run(main.Args(combined_records=tmp_path / "combined", **ports))
        return list(records.read_records(tmp_path / "combined"))

    return run


def row(id: str, candidate: str | None = None) -> dict:
    return {"id": id} | ({"candidate": candidate} if candidate else {})


def test_the_order_is_that_of_the_inputs(combine):
    rows = [row("b"), row("a")], [], [row("c")]
    assert combine(*rows) == [row("b"), row("a"), row("c")]


def test_a_score_keeps_the_model_that_was_asked(combine):
    scored = row("a", "tuned") | {"exact_match": 1.0, "model_sha256": "a" * 64}
    assert combine([scored], [row("a", "base")]) == [scored, row("a", "base")]


def test_candidates_answer_the_same_items(combine):
    assert len(combine([row("a", "base")], [row("a", "tuned")])) == 2


def test_a_gap_between_the_inputs_is_no_end(load_main, tmp_path):
    main = load_main("combine_records")
    for name in ("x", "y"):
        (tmp_path / name).write_text(json.dumps({"id": name}))
    args = main.Args(records_1=tmp_path / "x", records_8=tmp_path / "y", combined_records=tmp_path / "combined")
    assert main.run(args) == {"combine/num_records": 2, "combine/num_files": 2}


def test_the_same_record_twice_is_refused_with_both_places(combine, tmp_path):
    with pytest.raises(UserError, match=r"records_2, file2:1: a of base stands already in records_1, file1:2"):
        combine([row("b", "base"), row("a", "base")], [row("a", "base")])
    assert not (tmp_path / "combined").exists()


@pytest.mark.parametrize("bad", [{}, {"id": 7}, {"id": ""}, {"id": "a", "candidate": ["b"]}])
def test_a_record_needs_an_id(combine, bad):
    with pytest.raises(UserError, match="records_1, file1:1: a record needs an 'id'"):
        combine([bad])


def test_as_a_process(run_component, tmp_path):
    (tmp_path / "x").write_text('{"id": "ä", "text": "日本語"}\n', encoding="utf-8")
    done = run_component("combine_records", records_1=tmp_path / "x", combined_records=tmp_path / "out")
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "out").read_text(encoding="utf-8") == '{"id": "ä", "text": "日本語"}\n'
    assert (tmp_path / "out.lineage.json").is_file()
