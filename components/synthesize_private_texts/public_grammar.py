"""The embedded teacher, which is no model: random texts of public word lists, and variations by other words."""

import random
import re
from functools import cache
from pathlib import Path

import yaml

_PROMPT = re.compile(
    r"<task>(?P<task>random|variation)</task>\n<language>(?P<language>\w+)</language>\n<topic>(?P<topic>.*?)</topic>\n"
    r"<text>\n(?P<text>.*)\n</text>\s*",
    re.DOTALL,
)


@cache
def words() -> dict:
    return yaml.safe_load(Path(__file__).with_name("public_words.yml").read_text(encoding="utf-8"))


def answer(body: dict) -> str:
    """A text for the body of a chat-completions request."""
    prompt = _PROMPT.fullmatch(body["messages"][-1]["content"])
    if not prompt or prompt["language"] not in words():
        raise ValueError("the prompt is not that of prompts.yml")
    chooser, known = random.Random(body.get("seed", 0)), words()[prompt["language"]]
    if prompt["task"] == "random":
        return random_text(prompt["topic"], known, chooser)
    return variation(prompt["text"], known, chooser)


def random_text(topic: str, known: dict, chooser: random.Random) -> str:
    things = known["topics"].get(topic, [topic])
    sentences = [chooser.choice(known[part]) for part in ("openings", "requests", "details", "closings")]
    text = known["between"].join(sentences)
    return re.sub(r"\{thing\}", lambda _: chooser.choice(things), text)


def variation(text: str, known: dict, chooser: random.Random) -> str:
    """Each phrase of the lists gives way to another of its kind, every second time."""
    kinds = [known["openings"], known["closings"], *known["topics"].values()]
    siblings = {phrase: [other for other in kind if other != phrase] for kind in kinds for phrase in kind}
    pattern = "|".join(map(re.escape, sorted(siblings, key=len, reverse=True)))

    def another(match: re.Match) -> str:
        others = siblings[match.group()]
        return chooser.choice(others) if others and chooser.random() < 0.5 else match.group()

    return re.sub(pattern, another, text)
