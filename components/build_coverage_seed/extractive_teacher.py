"""The embedded teacher, which is no model: templated questions, answers copied from the text."""

import json
import re

from extractive_fields import FIELD_QUESTIONS, Pair, field_pairs, hashed, listed, tabled
from extractive_sentences import sentence_pairs, whole_sentences
from extractive_turns import conversation, summary

_PROMPT = re.compile(
    r"<title>(?P<title>.*?)</title>\n<text>\n(?P<text>.*)\n</text>\n<language>(?P<language>\w+)</language>\n"
    r"<num_pairs>(?P<num_pairs>\d+)</num_pairs>\n<question_types>(?P<question_types>.*?)</question_types>\s*"
    r"(?:<already_asked>\n(?P<asked>.*)\n</already_asked>\s*)?",
    re.DOTALL,
)


def answer(body: dict) -> str:
    """The pairs, as JSON, for the body of a chat-completions request."""
    prompt = _PROMPT.fullmatch(body["messages"][-1]["content"])
    if not prompt or prompt["language"] not in FIELD_QUESTIONS:
        raise ValueError("the prompt is not that of prompts.yml")
    types = prompt["question_types"].split(", ")
    arguments = prompt["title"], prompt["text"], prompt["language"], int(prompt["num_pairs"]), types
    asked = (prompt["asked"] or "").splitlines()
    return json.dumps({"pairs": pairs_from(*arguments, body.get("seed", 0), asked)}, ensure_ascii=False)


def pairs_from(
    title: str,
    text: str,
    language: str,
    num_pairs: int,
    question_types: list[str],
    seed: int,
    asked: list[str] | None = None,
) -> list[Pair]:
    """Pairs from the fields of a listing ("Key: value" lines), or from the tables and sentences of any other text."""
    lines = text.splitlines()
    fields = listed(title, lines)
    found = field_pairs(fields or tabled(lines), language, seed)
    sentences: list[str] = []
    if not fields:
        prose = "\n".join(line for line in lines if not line.startswith(("|", "#")))
        sentences = whole_sentences(prose, language)
        found += sentence_pairs(title, prose, language, seed)
    found += conversation(found, sentences, language, seed) + summary(title, sentences, language, seed)
    wanted = [
        (about, pair)
        for about, pair in found
        if pair["question_type"] in question_types and not _stands_in(asked or [], about, pair)
    ]
    ranked = sorted(wanted, key=lambda item: hashed(title, item[0], seed, "chosen"))
    chosen = {about for about, _ in ranked[:num_pairs]}
    return [pair for about, pair in wanted if about in chosen]


def _stands_in(asked: list[str], about: str, pair: Pair) -> bool:
    """Whether a line of what was asked before is about the same and has the same answer."""
    about, held = about.rpartition("\x1f")[2], " ".join(pair["answer"].split())
    return any(held in line and (about in line or "follow_ups" in pair or about == "summary") for line in asked)
