"""Coverage is the k-NN coverage of the source; what it lacks is asked about again, within the budget."""

import asyncio
import csv
import json
import sys

import numpy as np
import pytest

from slmkit import document_chunks, embedding_endpoint, records
from slmkit.errors import UserError
from tests.chat_endpoint import completion

DOCUMENT = {"source": "s", "sha256": "0" * 64, "media_type": "text/plain", "language": "en"}


@pytest.fixture
def module(load_main):
    """A module of the component by name."""
    load_main("build_coverage_seed")
    return lambda name: sys.modules[name]


@pytest.fixture
def chunks_of(module):
    def chunks(*texts, **fields):
        documents = [{"id": f"d{i}", "text": text, **fields} for i, text in enumerate(texts)]
        return [chunk for document in documents for chunk in document_chunks.chunks_of(document, 1200)]

    return chunks


def run(coverage, seeds):
    async def go():
        await coverage.prepare()
        await coverage.add([(coverage.chunks[0], seed) for seed in seeds])

    asyncio.run(go())
    return coverage.covered().tolist()


# --- the number


def test_against_the_formula_of_the_paper(module, chunks_of):
    """One passage a chunk, random vectors: sum_i 1[some |X_i - Y_j| <= distance to the k-th nearest X] / N."""
    rng = np.random.default_rng(0)
    real = [f"Real {i}." for i in range(40)]
    fake = [f"Fake {i}." for i in range(15)]
    vectors = {text: rng.normal(size=8) for text in real + fake}
    vectors = {text: vector / np.linalg.norm(vector) for text, vector in vectors.items()}

    async def embedding(texts):
        return np.array([vectors.get(text, -np.ones(8)) for text in texts])

    for k in (1, 3, 5):
        distance = [[np.linalg.norm(vectors[a] - vectors[b]) for b in real] for a in real]
        radius = [sorted(row)[k] for row in distance]  # the first is its own
        expected = [any(np.linalg.norm(vectors[x] - vectors[y]) <= radius[i] for y in fake) for i, x in enumerate(real)]
        coverage = module("source_coverage").SourceCoverage(chunks_of(*real), k, lambda texts: padded(embedding, texts))
        assert run(coverage, fake) == expected
        assert coverage.share() == np.mean(expected)
        assert 0 < np.mean(expected) < 1


async def padded(embedding, texts):
    """Unrelated sentences stand in a direction of their own."""
    rows = await embedding(texts)
    own = np.array([[float(not text.startswith(("Real", "Fake")))] for text in texts])
    return np.hstack([rows * (1 - own), own])


def test_no_ball_is_wider_than_chance(module, chunks_of):
    """A chunk that is like no other does not count as covered by what is like nothing either."""
    chunks = chunks_of(
        "Zebras graze at dusk.", "The tram fare rose to three dollars.", "Boil the rice for ten minutes."
    )
    coverage = module("source_coverage").SourceCoverage(chunks, 2)
    assert run(coverage, ["Why do violins need rosin? It makes the bow grip."]) == [False] * 3
    assert run(coverage, ["When do zebras graze? At dusk."]) == [True, False, False]


def test_copies_do_not_shrink_the_balls(module, chunks_of):
    texts = ["The pool opens at seven in summer."] * 3 + [f"Room {i} costs {i}5 dollars an hour." for i in range(5)]
    coverage = module("source_coverage").SourceCoverage(chunks_of(*texts), 1)
    assert run(coverage, ["When does the pool open in summer? At seven."])[:3] == [True] * 3


def test_one_chunk_has_no_neighbours(module, chunks_of):
    coverage = module("source_coverage").SourceCoverage(chunks_of("The pool opens at seven in summer."), 2)
    assert run(coverage, []) == [False]
    assert run(coverage, ["When does the pool open in summer? At seven."]) == [True]


def test_passages_are_of_one_width(module):
    passages_of = module("source_coverage").passages_of
    assert passages_of("Short one. Another. " + "x" * 110 + ".") == ["Short one. Another.", "x" * 110 + "."]
    assert [len(passage) for passage in passages_of("y" * 250)] == [100, 150]
    assert [len(passage) for passage in passages_of("図" * 100)] == [40, 60]  # 2.5 times as wide
    assert passages_of("") == [""]


def test_it_rises_with_what_is_asked_and_is_nothing_for_another_corpus(module, root):
    """Rows of the sample documents; each asked row gives questions about four of its fields."""
    chunks, seeds = [], []
    for language in ("en", "ko"):
        path = root / f"pipelines/samples/documents/community-centers-{language}.csv"
        for i, row in enumerate(csv.DictReader(path.read_text("utf-8-sig").splitlines())):
            text = "\n".join(f"{key}: {value}" for key, value in row.items() if value)
            title = next(iter(row.values()))
            document = {"id": f"{language}{i}", "text": text, "title": title, "media_type": "text/csv"}
            (chunk,) = document_chunks.chunks_of(document, 1200)
            pairs = module("extractive_teacher").pairs_from(title, text, language, 4, ["short", "long"], 0)
            chunks.append(chunk)
            seeds.append([f"{pair['question']} {pair['answer']}" for pair in pairs])
    shares = []
    for part in (10, 4, 2, 1):
        coverage = module("source_coverage").SourceCoverage(chunks, 2)
        run(coverage, [seed for about in seeds[::part] for seed in about])
        shares.append(coverage.share())
    assert shares == sorted(shares)
    assert shares[0] < 0.35 < shares[2] < 0.8
    assert shares[3] > 0.9
    assert coverage.by_chance < 0.05
    unrelated = module("source_coverage").SourceCoverage(chunks, 2)
    run(unrelated, ["How is a kernel compiled? With make.", "分散システムとは何ですか？ 計算機の集まりです。"] * 20)
    assert unrelated.share() < 0.05


# --- the component


@pytest.fixture
def build(run_component, tmp_path):
    """Run the component on texts; gives the process, the chats and the report."""

    def run(*texts, **flags):
        documents, chats, report = tmp_path / "documents", tmp_path / "chats", tmp_path / "report"
        with records.write_records(documents) as write:
            for i, text in enumerate(texts):
                write(text if isinstance(text, dict) else {"id": f"d{i}", "text": text, **DOCUMENT})
        flags = {"auth": "none", "question_types": "short,conversation"} | flags
        done = run_component("build_coverage_seed", documents=documents, chats=chats, report=report, **flags)
        made = json.loads((report / "report.json").read_text("utf-8")) if (report / "report.json").exists() else None
        return done, list(records.read_records(chats)) if chats.exists() else None, made

    return run


def says(*pairs):
    return completion(json.dumps({"pairs": pairs}), tokens=(100, 50))


def turn(question, answer):
    return {"question": question, "answer": answer}


def short(question, answer):
    return turn(question, answer) | {"question_type": "short"}


def say_the_number(number, body):
    return says(short("What is the number?", body["messages"][1]["content"].partition("No. ")[2][:3]))


GOODS = {"Aldo": "bread", "Bono": "lamps", "Cleo": "kites", "Dora": "wool"}
SHOPS = [f"Shop {name} sells {goods}." for name, goods in GOODS.items()]


def test_the_second_pass_asks_about_what_is_not_covered(build, serve, tmp_path):
    def reply(number, body):
        text = body["messages"][1]["content"]
        if "Bono" in text:
            return says(short("What does Bono sell?", "lamps")) if "<already_asked>" in text else says()
        if "Cleo" in text:  # the same pair again, and one in another language
            return says(short("What is sold?", "kites"))
        name = "Aldo" if "Aldo" in text else "Dora"
        return says(short(f"What does Shop {name} sell?", GOODS[name]))

    endpoint = serve(reply)
    done, chats, report = build(*SHOPS, teacher=endpoint.url, min_pairs_per_topic=2)
    assert done.returncode == 0, done.stderr
    assert [chat["messages"][1]["content"] for chat in chats] == ["bread", "lamps", "kites", "wool"]
    again = [body for body in endpoint.bodies if "<already_asked>" in body["messages"][1]["content"]]
    assert {body["seed"] for body in again} == {43}
    assert all("already_asked" in body["messages"][0]["content"] for body in again)
    asked = [body["messages"][1]["content"] for body in again]
    assert any("Bono" in text for text in asked)
    assert not any("Aldo" in text or "Dora" in text for text in asked)
    assert report["coverage"]["coverage_first_pass"] < report["coverage"]["coverage"]
    uncovered = list(records.read_records(tmp_path / "report" / "uncovered_chunks.jsonl"))
    assert len(uncovered) == 4 * (1 - report["coverage"]["coverage"])
    assert report["yield"]["num_topics_below_minimum"] == 4  # each topic has one chat


def test_too_few_pairs_are_asked_for_once_more(build, serve):
    def reply(number, body):
        again = "<already_asked>" in body["messages"][1]["content"]
        return says(short("How many rooms are there?", "twelve") if again else short("Where is Villa Rosa?", "Lugano"))

    endpoint = serve(reply)
    text = "Villa Rosa in Lugano has twelve rooms."
    done, chats, report = build(text, teacher=endpoint.url, min_pairs_per_chunk=3)
    assert done.returncode == 0, done.stderr
    assert "Where is Villa Rosa? Lugano" in endpoint.bodies[1]["messages"][1]["content"]
    assert (len(endpoint.bodies), len(chats)) == (2, 2)
    assert report["yield"]["num_chunks_below_minimum"] == 1


def test_conversations_and_summaries(build, serve):
    text = "Villa Rosa in Lugano has twelve rooms. Breakfast is served from seven. Dogs are welcome. Checkout is at 11."
    turns = [turn("And when is checkout?", "At 11."), turn("Are dogs welcome?", "Yes.")]
    good = turn("When is breakfast at Villa Rosa?", "From seven.") | {
        "question_type": "conversation",
        "follow_ups": turns,
    }
    summary = {"question_type": "summary", "follow_ups": turns}  # which are left out
    parking = turn("And parking?", "Free in the garage.")
    endpoint = serve(
        says(
            good,
            good | {"follow_ups": []},
            good | {"follow_ups": [*turns, *turns]},
            good | {"question": "Breakfast?", "follow_ups": [parking]},
            summary
            | turn("Sum it up.", "Villa Rosa has twelve rooms, serves breakfast from seven, and dogs are welcome."),
            summary | turn("Summarize Villa Rosa.", "Villa Rosa in Lugano has 14 rooms. Dogs are welcome."),
            summary | turn("Summarize it.", "In Lugano, Villa Rosa by Hilton has twelve rooms."),
        )
    )
    flags = {"question_types": "conversation,summary", "num_pairs_per_chunk": 9, "num_passes": 1}
    done, chats, report = build(text, teacher=endpoint.url, **flags)
    assert done.returncode == 0, done.stderr
    assert [message["role"] for message in chats[0]["messages"]] == ["user", "assistant"] * 3
    assert [message["content"] for message in chats[0]["messages"]] == [
        f"{text}\n\nWhen is breakfast at Villa Rosa?", "From seven.",
        "And when is checkout?", "At 11.", "Are dogs welcome?", "Yes.",
    ]  # fmt: skip
    assert [chat["tags"]["question_type"] for chat in chats] == ["conversation", "summary"]
    assert len(chats[1]["messages"]) == 2
    counts = report["counts"]
    assert (counts["pairs_no_conversation"], counts["pairs_ungrounded"]) == (2, 3)  # parking, 14 rooms, Hilton


def test_a_budget_is_kept_and_spread(build, serve):
    endpoint = serve(say_the_number)
    texts = [f"The box is No. {100 + i} of many." for i in range(60)]
    done, chats, report = build(*texts, teacher=endpoint.url, max_total_tokens=3000, concurrency=2)
    assert done.returncode == 0, done.stderr
    assert "stopped by budget after" in done.stdout
    assert report["budget"]["total_tokens"] <= 3000
    num_asked = report["counts"]["chunks_asked"]
    assert 17 <= num_asked == len(endpoint.bodies) <= 20  # 150 tokens each
    assert report["counts"]["chunks_not_asked"] == 60 - num_asked
    asked = sorted(int(chat["source_ids"][0][1:]) for chat in chats)
    assert max(b - a for a, b in zip([-1, *asked], [*asked, 60], strict=True)) <= 6  # a third of 60: every third or so
    done, chats, _ = build(*texts, teacher=endpoint.url, num_passes=1)  # without a limit it goes on
    assert (len(chats), len(endpoint.bodies)) == (60, 60)


def test_a_budget_in_money(build, serve):
    endpoint = serve(say_the_number)
    texts = [f"The box is No. {100 + i} of many." for i in range(40)]
    prices = {"prompt_price": 10, "completion_price": 40}  # 100 * 10/1e6 + 50 * 40/1e6 = 0.003 an answer
    done, _, report = build(*texts, teacher=endpoint.url, max_cost=0.03, concurrency=1, **prices)
    assert done.returncode == 0, done.stderr
    assert len(endpoint.bodies) == 10
    assert report["budget"]["cost"] == pytest.approx(0.03)


def test_what_was_paid_before_a_kill_counts(module):
    from slmkit.answers import Answer, Usage

    client = type("Client", (), {"usage": Usage((1.0, 2.0))})
    budget = module("teacher_passes").Budget(client, 400, None)
    for _ in range(2):
        assert budget.start([{"content": "short"}])
        budget.end(Answer("", 100, 50, "stop", cached=True))
    assert budget.spent() == (200, 100)
    assert budget.summary()["cost"] == pytest.approx(0.0004)  # 200 * 1/1e6 + 100 * 2/1e6
    assert not budget.start([{"content": "short"}])  # 300 + 150 > 400


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        ({"max_total_tokens": 0}, "below the minimum 1"),
        ({"prompt_price": -1, "completion_price": 1}, "below the minimum 0"),
        ({"prompt_price": 1}, "prompt_price and completion_price go together"),
        ({"max_cost": 1}, "max_cost needs prompt_price and completion_price"),
        ({"embedding_endpoint": "http://h/v1"}, "embedding_endpoint and embedding_model go together"),
        ({"num_passes": 0}, "below the minimum 1"),
        ({"teacher": "http://127.0.0.1:9/v1", "max_total_tokens": 1}, "budget is less than one question takes"),
    ],
)
def test_bad_parameters(build, flags, expected):
    done, chats, _ = build(*SHOPS, **flags)
    assert done.returncode != 0
    assert expected in done.stderr
    assert "Traceback" not in done.stderr
    assert chats is None


def test_a_second_document_of_the_same_id_is_refused(build, tmp_path):
    twin = {"id": "d0", "text": "Name: Shop B\nSeats: 20\nFee: $3", **DOCUMENT}
    done, chats, report = build("Name: Shop A\nSeats: 10\nFee: $2", twin, max_error_fraction=0.5)
    assert done.returncode == 0, done.stderr
    assert report["counts"]["documents_refused"] == 1
    (refused,) = records.read_records(tmp_path / "report" / "quarantine.jsonl")
    assert (refused["reason"], refused["line"]) == ("a second document d0", 2)
    assert {chat["source_ids"][0] for chat in chats} == {"d0"}


def test_a_teacher_in_another_language_gives_nothing(build, serve):
    endpoint = serve(says(short("Aldoは何を売っていますか？", "パンと牛乳です。")))
    done, chats, report = build(*SHOPS, teacher=endpoint.url)
    assert (done.returncode, chats) == (1, None)
    assert "no chat came out of 4 documents" in done.stderr
    assert report["counts"]["pairs_wrong_language"] == report["counts"]["pairs"] == 8  # both passes
    assert report["coverage"]["coverage"] == 0


def test_topics_are_the_headings_of_a_document(chunks_of):
    text = "Intro. " * 150 + "\n\n" + "\n\n".join(f"## Part {i}\n\n" + "Words here. " * 60 for i in range(2))
    found = chunks_of(text, title="Guide")
    assert [chunk.topic for chunk in found] == ["Guide", "Guide > Part 0", "Guide > Part 1"]


# --- an endpoint that embeds


def embed_by(module, endpoint, texts, **settings):
    embedding = embedding_endpoint.EmbeddingEndpoint(endpoint.url, "e", backoff_seconds=0.01, **settings)
    return asyncio.run(embedding(texts))


def vectors(body):
    rows = [{"index": i, "embedding": [len(text), 3.0]} for i, text in enumerate(body["input"])]
    return {"data": rows[::-1]}  # the order is told by the index


def test_embeddings_come_in_batches_and_in_order(module, serve):
    endpoint = serve(lambda n, body: vectors(body) if n else (429, {}, {"Retry-After": "0.1"}))
    rows = embed_by(module, endpoint, ["x" * (4 + i % 2 * 2) for i in range(300)])
    assert rows[:2] == pytest.approx(np.array([[0.8, 0.6], [6 / 45**0.5, 3 / 45**0.5]]))
    assert rows.shape == (300, 2)
    assert set(endpoint.paths) == {"/v1/embeddings"}
    assert sorted(len(body["input"]) for body in endpoint.bodies)[-3:] == [128, 128, 128]  # one of them twice
    assert len(endpoint.bodies) == 4


@pytest.mark.parametrize(
    ("reply", "expected", "num_requests"),
    [
        ((401, {}), "HTTP 401", 1),
        ((500, {}), "HTTP 500", 3),
        ((429, {}, {"Retry-After": "86400"}), "HTTP 429", 1),
        ({"data": []}, "0 embeddings of 1 texts", 1),
        ("not JSON", "0 embeddings of 1 texts", 1),
        ({"data": [{"index": 0, "embedding": ["a"]}]}, "not vectors of numbers", 1),
    ],
)
def test_an_endpoint_that_does_not_embed(module, serve, reply, expected, num_requests):
    endpoint = serve((200, reply) if isinstance(reply, str) else reply)
    with pytest.raises(UserError, match=expected):
        embed_by(module, endpoint, ["a"], max_retries=2)
    assert len(endpoint.bodies) == num_requests


def test_the_component_measures_by_an_endpoint(build, serve):
    def embedded(number, body):
        rows = [[*(float(name in text) for name in GOODS), 0.2] for text in body["input"]]
        return {"data": [{"index": i, "embedding": row} for i, row in enumerate(rows)]}

    teacher = serve(lambda n, body: says(short("What does Aldo sell?", "bread")))
    endpoint = serve(embedded)
    flags = {"embedding_endpoint": endpoint.url, "embedding_model": "e", "num_passes": 1, "max_error_fraction": 1}
    done, _, report = build(*SHOPS, teacher=teacher.url, **flags)
    assert done.returncode == 0, done.stderr
    assert {body["model"] for body in endpoint.bodies} == {"e"}
    assert report["coverage"]["coverage"] == 0.25
