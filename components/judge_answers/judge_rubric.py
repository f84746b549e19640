"""A rubric, and what a judge is asked by it: instructions of ours, and fenced texts of others."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import pydantic
import yaml

from slmkit import checked_files, records, textstats

SUPPLIED = Path(__file__).with_name("rubrics")
WORDING = yaml.safe_load(Path(__file__).with_name("judge_prompts.yml").read_text(encoding="utf-8"))
NOT_METRICS = ("id", "candidate", "failed", "error")

Text = Annotated[str, pydantic.StringConstraints(strip_whitespace=True, min_length=1)]
Language = Literal["en", "ja", "ko"]


class Strict(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(extra="forbid", frozen=True)


class Instructions(Strict):
    criterion: Text
    anchors: dict[int, Text]

    @pydantic.field_validator("anchors")
    @classmethod
    def _one_a_score(cls, anchors: dict[int, str]) -> dict[int, str]:
        if sorted(anchors) != [1, 2, 3, 4, 5]:
            raise ValueError("an anchor for each score from 1 to 5 is needed")
        return anchors


class Rubric(Strict):
    name: Annotated[str, pydantic.StringConstraints(pattern=r"^[a-z][a-z0-9_]*$")]
    show_references: bool = False
    languages: Annotated[dict[Language, Instructions], pydantic.Field(min_length=1)]

    @pydantic.field_validator("name")
    @classmethod
    def _a_metric(cls, name: str) -> str:
        if name in NOT_METRICS:
            raise ValueError("is a field of every score; choose another name")
        return name

    def language_of(self, item: Mapping[str, Any]) -> str:
        """That of the item where the rubric speaks it, else the rubric's first."""
        stated = str((item.get("slices") or {}).get("language") or "").partition("-")[0].lower()
        for language in (stated, textstats.language(item["messages"][-1]["content"])):
            if language in self.languages:
                return language
        return next(iter(self.languages))

    def ask(self, item: Mapping[str, Any], answers: list[str]) -> list[dict[str, str]]:
        """The messages that ask to grade an answer, or to compare two."""
        language = self.language_of(item)
        wording, instructions = WORDING[language], self.languages[language]
        texts = {"QUESTION": conversation(item["messages"])}
        if self.show_references:
            texts["REFERENCE"] = "\n".join(item["references"])
        texts |= zip(["ANSWER"] if len(answers) == 1 else ["ANSWER_A", "ANSWER_B"], answers, strict=True)
        # No text can hold the mark that is made from it, so none can end its own fence.
        mark = records.content_id(*texts.values())

        data = wording["data"].format(open=f"<<<... {mark}", close=f"... {mark}>>>")
        if len(answers) == 1:
            anchors = [f"{score}: {text}" for score, text in sorted(instructions.anchors.items())]
            parts = [wording["score"], instructions.criterion, "\n".join([wording["scale"], *anchors]), data]
            form = wording["score_form"]
        else:
            parts = [wording["preference"], instructions.criterion, data, wording["order"]]
            form = wording["preference_form"]
        fenced = [f"{wording[name]}:\n<<<{name} {mark}\n{text}\n{name} {mark}>>>" for name, text in texts.items()]
        return [
            {"role": "system", "content": "\n\n".join([*parts, form])},
            {"role": "user", "content": "\n\n".join([*fenced, form])},
        ]


def conversation(messages: list[dict[str, str]]) -> str:
    """The question as it was asked: with its context, and with what stood before it."""
    if len(messages) == 1:
        return messages[0]["content"]
    return "\n\n".join(f"[{message['role']}]\n{message['content']}" for message in messages)


def load(path: Path | None, name: str) -> Rubric:
    return checked_files.load(path or SUPPLIED / f"{name}.yml", Rubric)
