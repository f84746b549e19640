"""The embedded teacher, which is no model: it adds wordings of its own to copied questions, fields and sentences."""

import itertools
import json
import random
import re
from pathlib import Path

import yaml
from chat_checks import is_grounded

from slmkit import textstats

PHRASES = yaml.safe_load(Path(__file__).with_name("rule_phrases.yml").read_text(encoding="utf-8"))
_FIELD = re.compile(r"[ \t]*(?:[-*•][ \t]+)?([^:：\n|<>{}\"]{1,40}?)[ \t]*(?::(?=[ \t])|：)[ \t　]*(\S.*?)[ \t]*")
_STOPS = tuple(".。!！?？")
_NAME = re.compile(r".*(?:name|title|名|名称|名前|이름|명|제목)", re.IGNORECASE)


def answer(body: dict) -> str:
    """What is asked for, as JSON, for the body of a chat-completions request."""
    asked = json.loads(body["messages"][-1]["content"])
    choice = random.Random(json.dumps([asked, body.get("seed", 0)], sort_keys=True))
    if "chat" in asked and "mode" not in asked:
        return json.dumps(verdict(asked), ensure_ascii=False)
    makers = {"evolve": evolved, "persona": conversation, "taxonomy": homework}
    found = makers[asked["mode"]](asked, choice)
    return json.dumps({"exchanges": [{"question": q, "answer": a} for q, a in found]}, ensure_ascii=False)


def evolved(asked: dict, choice: random.Random) -> list[tuple[str, str]]:
    """The mutated question and its answer, or nothing where the operation needs more than is there."""
    language, question, known = asked["language"], asked["question"], asked["answer"]
    context = asked.get("context", "")
    fields = fields_of(context)
    lines = [f"{key}: {value}" for key, value in fields] or sentences_of(context)
    others = [line for line in lines if known not in line and line not in known]
    shown = asked.get("context_is_shown", False)

    def say(phrase: dict, **values: object) -> str:
        return phrase[language].format(**values)

    match asked["operation"]:
        case "add_constraint":
            number = len(textstats.sentences(known)) if known.endswith(_STOPS) else 0
            kind = "value" if number == 0 else "one" if number == 1 else "several"
            return [(joined(question, say(PHRASES["constraint"][kind], n=number)), known)]
        case "concretize":
            return [(joined(choice.choice(PHRASES["situations"][language]), question), known)]
        case "deepen" if fields and others:
            key, value = choice.choice([row for row in fields if known not in row[1]] or fields)
            return [(joined(question, say(PHRASES["also"], key=key)), f"{known}\n{key}: {value}")]
        case "deepen" if others and shown:
            return [(joined(question, say(PHRASES["and_then"])), joined(known, choice.choice(others)))]
        case "increase_reasoning" if shown:
            line = next((line for line in lines if known in line and known != line), None)
            if line:
                quoted = say(PHRASES["evidence"]["give"], line=line)
                return [(joined(question, say(PHRASES["evidence"]["ask"])), f"{known}\n{quoted}")]
        case "complicate_input" if len(others) >= 2:
            line = next((line for line in lines if known in line), None)
            if line:
                chosen = sorted([line, *choice.sample(others, 2)], key=lines.index)
                extract = json.dumps(dict(split(row) for row in chosen) if fields else chosen, ensure_ascii=False)
                return [(f"{question}\n{say(PHRASES['input'], extract=extract)}", known)]
        case "breadth" if len(others) >= 3 and shown:
            chosen = sorted(choice.sample(others, 3), key=others.index)
            return [(say(PHRASES["three"]), "\n".join(f"- {line}" for line in chosen))]
    return []


def conversation(asked: dict, choice: random.Random) -> list[tuple[str, str]]:
    """Questions on fields or sentences, in the tone of the persona; nothing where there is no text to copy from."""
    language, context = asked["language"], asked.get("context", "")
    fields, number = fields_of(context), asked["num_turns"]
    title = asked.get("title") or next((value for key, value in fields if _NAME.fullmatch(key)), "")
    title = title or PHRASES["this_text"][language]
    facts = [row for row in fields if row[1] != title]
    if facts:
        chosen = choice.sample(facts, min(number, len(facts)))
        turns = [(PHRASES["field"][language].format(key=key, title=title), value) for key, value in chosen]
    else:
        wordings = itertools.chain(
            [PHRASES["fact"][language].format(title=title)], itertools.repeat(PHRASES["more"][language])
        )
        turns = list(zip(wordings, sentences_of(context)[:number], strict=False))
    if turns:
        opening = PHRASES["openings"].get(asked["persona"]["behavior"].get("tone"), {}).get(language, "")
        if occupation := asked["persona"]["characteristics"].get("occupation"):
            opening = joined(opening, PHRASES["occupation"][language].format(occupation=occupation))
        turns[0] = (joined(opening, turns[0][0]), turns[0][1])
    return turns


def homework(asked: dict, choice: random.Random) -> list[tuple[str, str]]:
    """Each concept in each wording, then pairs of concepts; those asked before are left out."""
    language = asked["language"]
    described = [(row["concept"], row["description"]) for row in asked["key_concepts"] if row["description"]]
    singles = [
        (wording[language].format(concept=concept), description)
        for wording in PHRASES["concept"]
        for concept, description in described
    ]
    pairs = [
        (PHRASES["concepts"][language].format(a=a, b=b), f"{about_a}\n{about_b}")
        for (a, about_a), (b, about_b) in itertools.combinations(described, 2)
    ]
    choice.shuffle(pairs)
    first, again = singles[: len(described)], singles[len(described) :]
    left = [row for row in [*first, *pairs, *again] if row[0] not in asked["asked_before"]]
    return left[: asked["num_questions"]]


def verdict(asked: dict) -> dict:
    """5 where every answer is found in the context and the persona's tone is heard, else 2."""
    language, context, persona = asked["language"], asked.get("context"), asked.get("persona")
    grounded = not context or all(is_grounded(turn["answer"], context + turn["question"]) for turn in asked["chat"])
    opening = PHRASES["openings"].get(persona["behavior"].get("tone"), {}).get(language, "") if persona else ""
    good = grounded and opening in asked["chat"][0]["question"]
    return {"score": 5 if good else 2, "reason": PHRASES["verdict"][language].format(outcome="+" if good else "-")}


def fields_of(text: str) -> list[tuple[str, str]]:
    """The "Key: value" lines of a text that mostly consists of them."""
    lines = [line for line in text.splitlines() if line.strip()]
    fields = {match[1]: match[2] for line in lines if (match := _FIELD.fullmatch(line))}
    return list(fields.items()) if len(fields) >= 2 and 2 * len(fields) >= len(lines) else []


def sentences_of(text: str) -> list[str]:
    """The sentences of a text that are no headings, questions or rows of a table."""
    found = textstats.sentences(text)
    return [row for row in found if len(row) >= 10 and row.endswith(tuple(".。!！")) and not row.startswith(("|", "#"))]


def split(line: str) -> tuple[str, str]:
    key, _, value = line.partition(": ")
    return key, value


def joined(before: str, after: str) -> str:
    """With a space between, but not after Japanese punctuation."""
    return before + after if before.endswith(tuple("。！？")) or not before else f"{before} {after}"
