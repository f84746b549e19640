"""What a killed step has done is taken over, unless it was done for something else; a cut line is dropped."""

import pytest

from slmkit.resume_log import ResumeLog

SO_FAR = "predictions.so_far.jsonl"


@pytest.fixture
def output(tmp_path):
    return tmp_path / "predictions"


def leave(output, *ids, depends_on="model 1"):
    """What a process leaves that ends without a word."""
    with ResumeLog(output, depends_on) as log:
        for id in ids:
            log.add(id, {"output": id.upper()})


def done(output, depends_on="model 1"):
    with ResumeLog(output, depends_on) as log:
        return log.done


def test_a_second_start_takes_over_what_was_done(output):
    leave(output, "a", "日本")
    leave(output, "c")
    assert done(output) == {"a": {"output": "A"}, "日本": {"output": "日本"}, "c": {"output": "C"}}


def test_nothing_is_taken_over_for_another_model(output):
    leave(output, "a")
    assert done(output, "model 2") == {}
    assert done(output) == {}, "the file is about model 2 now"


@pytest.mark.parametrize("num_bytes", [1, 5, 20])
def test_a_line_that_was_cut_off_is_done_again(output, num_bytes):
    leave(output, "a", "b")
    path = output.with_name(SO_FAR)
    path.write_bytes(path.read_bytes()[:-num_bytes])
    assert set(done(output)) == {"a"}
    leave(output, "b")
    assert set(done(output)) == {"a", "b"}


@pytest.mark.parametrize("content", [b"", b"\x00\xff\n", b"[]\n", b'{"depends_on": 1}\n{"id"\n'])
def test_a_damaged_file_counts_as_none(output, content):
    output.with_name(SO_FAR).write_bytes(content)
    assert done(output) == {}
    leave(output, "a")
    assert set(done(output)) == {"a"}


def test_half_an_emoji_ends_no_step(output):
    with ResumeLog(output, "m") as log:
        log.add("a", {"output": "\ud83d"})
    assert done(output, "m") == {"a": {"output": "\ud83d"}}


def test_it_is_forgotten_once_the_output_stands(output):
    with ResumeLog(output, "m") as log:
        log.add("a", {})
    log.forget()
    log.forget()
    assert not list(output.parent.iterdir())
