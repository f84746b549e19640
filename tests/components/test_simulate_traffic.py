"""simulate_traffic: what is asked, in which order, style and rate, and the period that it writes."""

import datetime
import json

import pytest

from slmkit.errors import UserError
from tests.chat_endpoint import completion, dripping

PROMPT = "Name: Foundry Commons\nHost: Ines\n\nWho is the host?"


@pytest.fixture
def given(tmp_path, serve):
    """Items q0..q4 and an endpoint that answers as told; gives the endpoint and the flags for them."""

    def give(reply, prompts=tuple(f"question {i}" for i in range(5))):
        chats = [{"id": f"q{i}", "messages": [{"role": "user", "content": text}]} for i, text in enumerate(prompts)]
        (tmp_path / "items").write_text("".join(json.dumps(chat) + "\n" for chat in chats), encoding="utf-8")
        served = serve(reply)
        endpoint = {"scoring_uri": f"{served.url}/chat/completions", "model": "m", "auth": "none"}
        (tmp_path / "endpoint").write_text(json.dumps(endpoint), encoding="utf-8")
        paths = {"endpoint": tmp_path / "endpoint", "eval_items": tmp_path / "items", "period": tmp_path / "period"}
        return served, paths

    return give


def asked(served) -> list[str]:
    return [body["messages"][-1]["content"] for body in served.bodies]


def test_each_question_comes_once_before_any_comes_again_within_the_period(given, run_component, tmp_path):
    served, paths = given(completion())
    before = datetime.datetime.now(datetime.UTC)
    done = run_component("simulate_traffic", **paths, num_requests=12, concurrency=1, seed=3, after=paths["endpoint"])
    assert done.returncode == 0, done.stderr
    assert "12 requests" in done.stdout
    order = asked(served)
    assert len(order) == 12
    assert len(set(order[:5])) == len(set(order[5:10])) == 5
    assert order[:5] != sorted(order[:5])
    assert {(body["model"], body["max_tokens"], body["temperature"]) for body in served.bodies} == {("m", 64, 0)}
    period = json.loads(paths["period"].read_text())
    assert (period["num_requests"], period["num_failed"], period["outcomes"]) == (12, 0, {"200": 12})
    start, end = (datetime.datetime.fromisoformat(period[name]) for name in ("start", "end"))
    assert before - datetime.timedelta(milliseconds=1) <= start < end <= datetime.datetime.now(datetime.UTC)
    assert json.loads((tmp_path / "period.lineage.json").read_text())["parameters"]["seed"] == 3


def test_failures_are_counted_not_asked_again_and_too_many_are_an_error(given, load_main):
    main = load_main("simulate_traffic")
    served, paths = given(lambda number, body: (503, {}) if number % 4 == 0 else completion())
    main.run(main.Args(**paths, num_requests=8, max_error_fraction=0.25))
    assert len(served.bodies) == 8
    assert json.loads(paths["period"].read_text())["outcomes"] == {"200": 6, "503": 2}
    with pytest.raises(UserError, match=r"2 of 8 requests failed, mostly with 503, .* max_error_fraction=0\.24"):
        main.run(main.Args(**paths, num_requests=8, max_error_fraction=0.24))


def test_an_answer_that_drips_in_for_ever_is_a_failure(given, load_main):
    main = load_main("simulate_traffic")
    _, paths = given(completion())
    with dripping() as url:
        paths["endpoint"].write_text(json.dumps({"scoring_uri": f" {url} ", "model": "m", "auth": "none"}))
        main.run(main.Args(**paths, num_requests=2, timeout_seconds=0.3, max_error_fraction=1.0))
    assert json.loads(paths["period"].read_text())["outcomes"] == {"TimeoutError": 2}


def test_nobody_there_is_an_error(given, load_main):
    main = load_main("simulate_traffic")
    served, paths = given(completion())
    served.close()
    with pytest.raises(UserError, match="2 of 2 requests failed, mostly with ConnectError"):
        main.run(main.Args(**paths, num_requests=2))
    assert json.loads(paths["period"].read_text())["num_failed"] == 2


def test_concurrency_is_a_limit_and_the_rate_is_kept(given, load_main):
    main = load_main("simulate_traffic")
    served, paths = given(completion())
    schedule = list(main.schedule(["a", "b"], main.Args(**paths, num_requests=2000, requests_per_second=50.0, seed=1)))
    assert schedule[0][0] == 0
    assert schedule[-1][0] == pytest.approx(1999 / 50, rel=0.1)  # the mean of that many has a deviation of 2.2 %
    args = main.Args(**paths, num_requests=9, concurrency=3, requests_per_second=20.0, seed=2)
    main.run(args)
    arrivals = [at for at, _ in main.schedule(main.read_chats(args.eval_items, "plain"), args)]
    assert served.times[-1] - served.times[0] >= arrivals[-1] - 0.05
    assert served.most_running <= 3


@pytest.mark.parametrize(
    ("style", "text", "expected"),
    [
        ("plain", PROMPT, PROMPT),
        ("one_line", PROMPT, "Name: Foundry Commons Host: Ines Who is the host?"),
        ("question_first", PROMPT, "Who is the host?\n\nName: Foundry Commons\nHost: Ines"),
        ("question_first", "Who is the host?", "Who is the host?"),
        ("casual", PROMPT, "hey, quick one: Who is the host? thanks!\n\nName: Foundry Commons\nHost: Ines"),
        (
            "casual",
            "入口: 3番\n\n入口はどこですか？",
            "ねえ、ちょっと教えて。 入口はどこですか？ よろしく！\n\n入口: 3番",
        ),
        ("casual", "지기가 누구입니까?", "저기요, 하나만 물어볼게요. 지기가 누구입니까? 고마워요!"),
    ],
)
def test_styles(load_main, style, text, expected):
    load_main("simulate_traffic")
    import prompt_style

    system = {"role": "system", "content": "Be brief.\n\nAlways."}
    chat = [system, {"role": "user", "content": text}, {"role": "assistant", "content": "Well:\n\n"}]
    assert prompt_style.reworded(chat, style) == [system, {"role": "user", "content": expected}, chat[-1]]


def test_bad_items_are_named_by_line(given, load_main):
    main = load_main("simulate_traffic")
    _, paths = given(completion(), prompts=("fine", " "))
    with pytest.raises(UserError, match="items:2: message 1"):
        main.run(main.Args(**paths))
    paths["eval_items"].write_text("")
    with pytest.raises(UserError, match="nothing to ask"):
        main.run(main.Args(**paths))
