"""prepare_dataset finds near duplicates in any language, and takes neither other facts nor other questions for one."""

import json
import random
import subprocess
import sys
from pathlib import Path

import pytest

from slmkit.errors import UserError
from tests.components.test_prepare_dataset import QUESTIONS, chat, chats_of_documents, prepare, read, side_of, write

__all__ = ["prepare"]  # a fixture

TEXTS = {
    "en": "The community center by the river was rebuilt after the flood and opens its doors to every neighbor who "
    "wants to read a newspaper, borrow garden tools, or sit down for a cup of tea with the volunteers at the desk.",
    "ja": "川沿いの公民館は洪水の後に建て直され、新聞を読みたい人や園芸道具を借りたい人、"
    "受付の係とお茶を飲みながら話したい人など、近くに住むすべての人を一年中いつでも温かく迎えています。",
    "ko": "강가의 주민센터는 홍수가 난 뒤에 새로 지어졌으며 신문을 읽거나 정원 도구를 빌리거나 "
    "안내 직원과 함께 차를 마시려는 모든 이웃을 일 년 내내 언제나 따뜻하게 맞이하고 있습니다.",
}
EDITS = {
    "en": [("flood", "storm"), ("garden", "kitchen")],
    "ja": [("洪水", "台風"), ("温かく", "親切に")],
    "ko": [("홍수가", "태풍이"), ("따뜻하게", "친절하게")],
}


@pytest.fixture
def near(load_main):
    load_main("prepare_dataset")
    import near_duplicates

    return near_duplicates


def edited(language: str) -> str:
    text = TEXTS[language]
    for old, new in EDITS[language]:
        assert old in text
        text = text.replace(old, new)
    return text


def shingles(text: str) -> set[str]:
    """The definition once more, without hashes: 4 characters, 2 from an East Asian one on, and the margins."""
    text = "\0\0\0" + text + "\0\0\0"
    return {text[i : i + (2 if text[i] >= "\u2e80" else 4)] for i in range(len(text) - 3)}


@pytest.mark.parametrize("language", TEXTS)
def test_jaccard_is_the_share_of_common_shingles(near, language):
    one, other = shingles(TEXTS[language]), shingles(edited(language))
    assert near.jaccard(TEXTS[language], edited(language)) == len(one & other) / len(one | other)
    assert near.jaccard(TEXTS[language], TEXTS[language]) == 1
    assert near.jaccard("", "") == 1 and near.jaccard("abcd", "wxyz") == 0


def test_signatures_agree_as_often_as_shingles_do(near):
    """The mean over 200 pairs of the share of equal bytes: its standard deviation is 0.04 / sqrt(200) = 0.003."""
    from minhash_signatures import sign

    rng = random.Random(0)
    words = ["".join(rng.choice("abcdefghij") for _ in range(5)) for _ in range(500)]
    errors = []
    for _ in range(200):
        one = rng.choices(words, k=40)
        other = one[:30] + rng.choices(words, k=10)
        first, second = sign([" ".join(one), " ".join(other)])
        a, b = shingles(" ".join(one)), shingles(" ".join(other))
        similarity = len(a & b) / len(a | b)
        errors.append((first == second).mean() - (similarity + (1 - similarity) / 256))
    assert abs(sum(errors) / len(errors)) < 0.01


def test_a_signature_does_not_depend_on_the_texts_beside_it(near):
    from minhash_signatures import sign

    texts = [*TEXTS.values(), "", "x", "日"]
    assert (sign(texts) == [sign([text])[0] for text in texts]).all()


@pytest.mark.parametrize("language", TEXTS)
def test_a_rewritten_question_or_answer_is_left_out_and_named(prepare, language):
    rows = chats_of_documents(language, range(30), 1)
    rows += [
        chat(TEXTS[language], "ok", id="asked", source_ids=["a"]),
        chat(edited(language), "OK.", id="asked again", source_ids=[f"{language}-1"]),
        chat("?", TEXTS[language], id="answered", source_ids=["b"]),
        chat("?", edited(language), id="answered again", source_ids=[f"{language}-2"]),
    ]
    for seed in range(5):
        result = prepare(rows, seed=seed)
        sides = side_of(result)
        assert {row["id"] for row in rows} - sides.keys() == {"asked again", "answered again"}
        assert sides["asked"] == sides[f"{language}-1-0"]  # the near duplicate links its document
        assert sides["answered"] == sides[f"{language}-2-0"]
    reasons = [row["reason"] for row in read(result["report"] / "quarantine.jsonl")]
    assert reasons == ["a near duplicate of 'asked'", "a near duplicate of 'answered'"]
    examples = json.loads((result["report"] / "report.json").read_text())["examples"]["near_duplicate"]
    assert edited(language) in examples[0]["chat"] and TEXTS[language].casefold() in examples[0]["repeats"]
    assert len(side_of(prepare(rows, near_duplicate_threshold=1))) == len(rows)


@pytest.mark.parametrize("language", TEXTS)
def test_questions_about_one_text_stay(prepare, language):
    """They share nearly all of their shingles, and often the answer."""
    asked = {
        "en": ["Is there tea for visitors?", "Was the center rebuilt?", "Can visitors read a newspaper there?"],
        "ja": ["お茶を飲めますか。", "建て直されましたか。", "新聞を読めますか。"],
        "ko": ["차를 마실 수 있나요?", "새로 지어졌나요?", "신문을 읽을 수 있나요?"],
    }[language]
    rows = chats_of_documents(language, range(30), 1)
    rows += [chat(f"{TEXTS[language]}\n\n{question}", "Yes", id=question, source_ids=["a"]) for question in asked]
    assert len(side_of(prepare(rows))) == len(rows)


def test_other_numbers_and_other_values_are_no_near_duplicates(near):
    text = TEXTS["en"].lower()
    assert near.alike((text, "yes"), (text.replace("river", "lake"), "yes"), 0.7)
    assert not near.alike((f"{text} it has 80 seats.", "yes"), (f"{text} it has 90 seats.", "yes"), 0.7)
    assert not near.alike((text, "$4"), (text, "€4"), 0.7)
    assert not near.alike((text, "on sundays"), (text, "on mondays"), 0.7)
    assert near.alike((text, "on sundays"), (text, "on sundays."), 0.7)
    assert not near.alike(("who runs the oak hall?", "yes"), ("who runs the elm hall?", "yes"), 0.7)
    assert near.alike((text, ""), (text.replace("river", "lake"), ""), 0.9)
    assert not near.alike((text, ""), (edited("en").lower(), ""), 0.95)


def test_a_chain_of_small_changes_does_not_swallow_its_far_end(near, tmp_path):
    rng = random.Random(3)
    words = ["".join(rng.choice("abcdefghijklmnop") for _ in range(6)) for _ in range(200)]
    text = rng.sample(words, 40)
    chain = []
    for start in range(0, 40, 4):
        chain.append(" ".join(text))
        text[start : start + 4] = rng.sample(words, 4)
    finder = near.NearDuplicates(tmp_path, 0.7)
    for link in chain:
        finder.add(link, "")
    (cluster,) = finder.clusters()
    assert list(cluster) == list(range(10))
    kept = [number for number, stays in cluster.items() if number == stays]
    assert 3 <= len(kept) < 10
    for number, stays in cluster.items():
        if number != stays:
            assert stays in kept and near.alike((chain[number], ""), (chain[stays], ""), 0.7)
    for number in kept:
        assert not any(near.alike((chain[number], ""), (chain[other], ""), 0.7) for other in kept if other != number)


def test_thousands_of_look_alikes_are_bounded_work_and_still_one_cluster(near, tmp_path, monkeypatch):
    calls = []
    alike = near.alike
    monkeypatch.setattr(near, "alike", lambda *args: calls.append(1) or alike(*args))
    rng = random.Random(4)
    words = ["".join(rng.choice("abcdefghijklmnop") for _ in range(6)) for _ in range(200)]
    base = rng.sample(words, 40)
    finder = near.NearDuplicates(tmp_path, 0.7)
    for _ in range(3000):
        text = base[:]
        text[rng.randrange(40)] = rng.choice(words)
        finder.add(" ".join(text), "")
    (cluster,) = finder.clusters()
    assert cluster == dict.fromkeys(range(3000), 0)
    assert len(calls) < 3 * 3000  # all pairs would be 4.5 million


@pytest.mark.slow
def test_100k_copies_of_one_chat(run_component, tmp_path):
    rows = chats_of_documents("en", range(30), 1)
    chats = write(tmp_path / "chats", [*rows, *[chat(TEXTS["en"], "ok")] * 100_000])
    outputs = {name: tmp_path / name for name in ("train_data", "validation_data", "test_data", "eval_items", "report")}
    done = run_component("prepare_dataset", chats=chats, **outputs)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("31 of 100,030 chats kept: ") and "duplicate 99,999" in done.stdout


# --- signatures made in parallel

SHARD_DRIVER = """
import importlib.util, sys
spec = importlib.util.spec_from_file_location("entry", sys.argv.pop(1))
entry = importlib.util.module_from_spec(spec)
spec.loader.exec_module(entry)
shard = sys.argv.pop(1)
entry.init()
print(entry.run([shard]))
"""


def shards_of(folder: Path, rows: list[dict]) -> Path:
    folder.mkdir()
    for number in range(4):
        write(folder / f"{number}.jsonl", rows[number::4])
    return folder


def rows_with_near_duplicates() -> list[dict]:
    rows = [row for language in QUESTIONS for row in chats_of_documents(language, range(40))]
    for language in TEXTS:
        rows += [chat(text, id=f"{language} {n}") for n, text in enumerate((TEXTS[language], edited(language)))]
    return rows


def test_four_shards_signed_in_parallel_give_the_same_as_one_run(run_component, root, tmp_path):
    """The entry script runs as Azure ML's runner does it: a process a shard, from a snapshot of the spec's code."""
    from azure.ai.ml import load_component

    spec = root / "components" / "prepare_dataset" / "signatures_parallel.yml"
    component = load_component(spec)
    assert component._validate().passed, component._validate().error_messages
    entry = (spec.parent / component.task.code / component.task.entry_script).resolve()
    shards = shards_of(tmp_path / "shards", rows_with_near_duplicates())
    signatures = tmp_path / "signatures"
    for shard in sorted(shards.iterdir()):
        flags = ["--signatures", signatures, "--mini_batch_size", "1"]  # Azure ML adds flags of its own
        command = [sys.executable, "-c", SHARD_DRIVER, entry, shard, *flags]
        done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, env={"PATH": ""})
        assert done.returncode == 0, done.stderr
        assert f"{shard.name}: 61 chats signed" in done.stdout or f"{shard.name}: 62 chats signed" in done.stdout
    assert len(list(signatures.iterdir())) == 4
    results = []
    for name, extra in (("alone", {}), ("merged", {"signatures": signatures})):
        outputs = {
            port: tmp_path / name / port for port in ("train_data", "validation_data", "test_data", "eval_items")
        }
        done = run_component("prepare_dataset", chats=shards, report=tmp_path / name / "report", **outputs, **extra)
        assert done.returncode == 0, done.stderr
        results.append([path.read_bytes() for path in outputs.values()])
        assert "near duplicate 3" in done.stdout
    assert results[0] == results[1]


def test_stored_signatures_are_used_and_what_they_lack_is_signed(near, load_main, tmp_path, monkeypatch):
    import stored_signatures
    from minhash_signatures import sign

    texts = [*TEXTS.values(), "a new text"]
    stored_signatures.write_signatures(tmp_path / "one.npy", [texts[:2]])
    stored_signatures.write_signatures(tmp_path / "two.npy", [texts[1:3]])
    signed = []
    monkeypatch.setattr(stored_signatures, "sign", lambda some: signed.extend(some) or sign(some))
    assert (stored_signatures.StoredSignatures(tmp_path)(texts) == sign(texts)).all()
    assert signed == ["a new text"]


@pytest.mark.parametrize("content", [b"", b"not numpy", None])
def test_signatures_that_are_none_are_one_clear_line(near, load_main, tmp_path, content):
    import numpy as np
    from stored_signatures import StoredSignatures

    if content is None:
        np.save(tmp_path / "x.npy", np.zeros(3))
    else:
        (tmp_path / "x.npy").write_bytes(content)
    with pytest.raises(UserError, match=r"x\.npy: (not a file of signatures|signatures of another scheme)"):
        StoredSignatures(tmp_path)
    (tmp_path / "x.npy").unlink()
    with pytest.raises(UserError, match=r"no \.npy file of signatures"):
        StoredSignatures(tmp_path)
