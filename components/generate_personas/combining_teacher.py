"""The embedded teacher, which is no model: it combines word lists with a title, a word or a topic of the material."""

import json
import random
import re
from collections import Counter
from pathlib import Path

import yaml
from persona_record import EXPERIENCES, TONES

WORDS = yaml.safe_load(Path(__file__).with_name("persona_words.yml").read_text(encoding="utf-8"))
# Runs of kanji or katakana, of hangul before a particle, of words in English.
_TERMS = {
    "en": re.compile(r"\b[A-Za-z][a-z]{4,}(?: [a-z]{5,})?"),
    "ja": re.compile(r"[一-鿿々]{2,8}|[ァ-ヺー]{3,12}"),
    "ko": re.compile(r"[가-힣]{2,6}?(?=(?:에서|에게|은|는|이|가|을|를|의|과|와)(?![가-힣]))"),
}


def answer(body: dict) -> str:
    """The personas, as JSON, for the body of a chat-completions request."""
    asked = json.loads(body["messages"][-1]["content"])
    choice = random.Random(json.dumps([asked, body.get("seed", 0)], sort_keys=True))
    return json.dumps({"personas": [persona(asked, choice) for _ in range(asked["num_personas"])]}, ensure_ascii=False)


def persona(asked: dict, choice: random.Random) -> dict:
    language, origin, material = asked["language"], asked["origin"], asked["material"]
    occupation = choice.choice(WORDS["occupations"])
    group = occupation["group"]
    situation = choice.choice([row for row in WORDS["situations"] if group not in row.get("not_for", ())])
    relation, wordings = choice.choice(list(WORDS["sentences"][origin].items()))
    about = topic(material, language, choice)
    role = choice.choice(material.get("roles") or [WORDS["role"][language]])
    other = material.get("characteristics", {}).get("occupation", "")
    sentence = wordings[language].format(
        occupation=occupation[language],
        situation=situation[language],
        topic=about,
        role=role,
        a_role=f"{article(role)} {role}",
        other=other,
        a_other=f"{article(other)} {other}",
        a=article(occupation["en"]).capitalize(),
    )

    def some(kind: str, number: int) -> list[str]:
        return [row[language].format(topic=about) for row in choice.sample(WORDS[kind], number)]

    return {
        "persona": sentence,
        "relation": relation,
        "characteristics": {
            "age_band": choice.choice(occupation["ages"]),
            "occupation": occupation[language],
            "occupation_group": group,
            "region": choice.choice(WORDS["regions"][language]),
            "experience": choice.choice(EXPERIENCES),
        },
        "behavior": {
            "tone": choice.choice(TONES),
            "goals": material["behavior"]["goals"][:1] if origin == "persona" else some("goals", 2),
            "habits": some("habits", 2),
            "constraints": some("constraints", 1),
        },
    }


def topic(material: dict, language: str, choice: random.Random) -> str:
    """A topic of a scenario, the title of a text, or its most frequent term."""
    if topics := material.get("topics") or [material[name] for name in ("title", "name") if material.get(name)]:
        return choice.choice(topics)
    terms = Counter(_TERMS[language].findall(material.get("text", material.get("persona", ""))))
    most = sorted(terms, key=lambda term: (-terms[term], -len(term), term))
    return most[0] if most else {"en": "this subject", "ja": "この話題", "ko": "이 주제"}[language]


def article(noun: str) -> str:
    return "an" if re.match(r"(?:[aeio]|un[^i])", noun, re.IGNORECASE) else "a"
