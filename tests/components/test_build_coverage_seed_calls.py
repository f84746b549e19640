"""A teacher that fails as endpoints do, and a kill half-way: the small version of tests/benchmarks/teacher_calls.py."""

import pytest

from tests.benchmarks.teacher_calls import measure


@pytest.mark.slow
def test_all_good_answers_are_kept_and_none_is_paid_twice(tmp_path):
    figures = measure(200, tmp_path, concurrency=8, retry_after_seconds=0.05, latency_seconds=0.01)
    assert figures["good"] == figures["chats"] == 198
    assert figures["missing"] == figures["asked_again_after_kept"] == 0
    assert figures["from_cache"] == figures["kept_at_kill"]
    assert 92 <= figures["kept_at_kill"] <= figures["answered_at_kill"] <= 120
    for part in ("before", "after"):
        assert {"200", "429"} <= figures[part].keys()
