"""What each benchmark calls its columns: a row becomes a question with choices or references, or is refused."""

import ast
import math
import re
import unicodedata
from collections.abc import Callable, Mapping
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any, NamedTuple

from benchmark_files import Row

from slmkit import textstats

if TYPE_CHECKING:
    from column_mapping import Columns

NO_GOLD = "no gold answer"
LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
_HALF = re.compile(r"[\ud800-\udfff]")
_PLAIN_NUMBER = re.compile(r"-?\d+(\.\d+)?")
# Which Korean subject an id of CLIcK names; its data set on the hub has no other column for it.
_CLICK_SUBJECTS = {
    "economy": "economy",
    "geography": "geography",
    "khb": "history",
    "history": "history",
    "law": "law",
    "psat": "law",
    "politics": "politics",
    "popular": "popular culture",
    "society": "society",
    "tradition": "tradition",
}


class RowError(ValueError):
    """Why a row makes no item."""


class Question(NamedTuple):
    """A row as one question: of ``choices`` one is ``gold``, or ``references`` are the right answers."""

    text: str
    benchmark: str
    language: str
    choices: tuple[str, ...] = ()
    gold: int | None = None
    references: tuple[str, ...] = ()
    worked_answer: str | None = None  # what a few-shot turn shows where it says more than the reference
    context: str = ""
    subject: str | None = None
    source_id: str | None = None
    slices: Mapping[str, str] = {}
    lists_choices: bool = False  # the text does, by letter, and ends where the answer begins

    @property
    def answer(self) -> str:
        return self.references[0] if self.gold is None else self.choices[self.gold]


def value_of(row: Row, *names: str) -> Any:
    """The first of the columns that the row has."""
    for name in names:
        if name in row.values:
            return row.values[name]
    raise RowError(f"no column {' or '.join(map(repr, names))} (there are {', '.join(map(str, row.values))[:200]})")


def text_of(value: Any, what: str) -> str:
    """A text or number as a text, which may be blank; nothing else is one."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise RowError(f"{what} is {type(value).__name__} and not a text")
    text = str(value).strip()
    if not text.isascii() and _HALF.search(text):
        raise RowError(f"{what} holds half a character (a lone surrogate)")
    return text


def listed_choices(value: Any) -> tuple[str, ...]:
    """A list, or a text that is one in Python's or JSON's spelling."""
    if isinstance(value, str):
        try:
            value = ast.literal_eval(value)
        except (ValueError, TypeError, SyntaxError, MemoryError, RecursionError):
            raise RowError(f"the choices {value[:80]!r} are not a list") from None
    if not isinstance(value, list | tuple):
        raise RowError(f"the choices are {type(value).__name__} and not a list")
    return tuple(text_of(choice, "a choice") for choice in value)


def lettered_columns(row: Row) -> tuple[str, ...]:
    return tuple(text_of(value_of(row, letter), letter) for letter in "ABCD")


def place_of(value: Any, kind: str, choices: tuple[str, ...]) -> int:
    """Where the right choice stands, from 0; ``kind`` is letter, number (from 1), index (from 0) or text."""
    said = text_of(value, "the gold answer")
    if not said or (said == "-1" and kind != "text"):
        raise RowError(NO_GOLD)
    if kind == "text":
        place = choices.index(said) if said in choices else -1
    elif kind == "letter":
        letter = unicodedata.normalize("NFKC", said).strip("()").upper()  # Ａ and （Ａ） too
        place = LETTERS.find(letter) if len(letter) == 1 else -1
    else:
        whole = re.fullmatch(r"(\d{1,9})(\.0+)?", unicodedata.normalize("NFKC", said))  # ３ and ③ too
        place = int(whole[1]) - (kind == "number") if whole else -1
    if not 0 <= place < len(choices):
        raise RowError(f"the gold answer {said[:80]!r} (read as {kind}) is not among the {len(choices)} choices")
    return place


def subject_of(row: Row, *columns: str) -> str:
    """A column of the row, or the configuration or file that it stands in, without the name of the split."""
    for column in columns:
        if found := text_of(row.values.get(column), column):
            return found.strip().lower().replace("-", "_").replace(" ", "_")
    name = re.sub(r"\[.*\]$", "", row.source)
    stem = PurePosixPath(name).name.split(".")[0]
    stem = re.sub(r"[-_](test|dev|val|validation|train)$", "", stem, flags=re.IGNORECASE)
    return stem.lower().replace("-", "_").replace(" ", "_")


def kmmlu(row: Row) -> Question:
    choices = lettered_columns(row)
    return Question(
        text=text_of(value_of(row, "question"), "question"),
        benchmark="kmmlu",
        language="ko",
        choices=choices,
        gold=place_of(value_of(row, "answer"), "number", choices),
        subject=subject_of(row, "Category", "category"),
    )


def kmmlu_hard(row: Row) -> Question:
    return kmmlu(row)._replace(benchmark="kmmlu_hard")


def click(row: Row) -> Question:
    choices = listed_choices(value_of(row, "choices"))
    source_id = text_of(value_of(row, "id"), "id")
    return Question(
        text=text_of(value_of(row, "question"), "question"),
        benchmark="click",
        language="ko",
        choices=choices,
        gold=place_of(value_of(row, "answer"), "text", choices),
        context=text_of(row.values.get("paragraph"), "paragraph"),
        subject=next((found for key, found in _CLICK_SUBJECTS.items() if key in source_id.casefold()), "language"),
        source_id=source_id,
    )


def hae_rae(row: Row) -> Question:
    """The query holds the choices by letter already; questions of version 1.1 without options are open."""
    question = Question(
        text=text_of(value_of(row, "query"), "query"),
        benchmark="hae_rae",
        language="ko",
        subject=subject_of(row, "category"),
    )
    options, answer = value_of(row, "options"), value_of(row, "answer")
    if text_of(options if not isinstance(options, list) else "list", "options").casefold() in ("", "nan"):
        return question._replace(references=_reference(answer))
    choices = listed_choices(options)
    listed = all(choice in question.text for choice in choices)
    return question._replace(choices=choices, gold=place_of(answer, "letter", choices), lists_choices=listed)


def jcommonsenseqa(row: Row) -> Question:
    choices = tuple(text_of(value_of(row, f"choice{place}"), f"choice{place}") for place in range(5))
    return Question(
        text=text_of(value_of(row, "question"), "question"),
        benchmark="jcommonsenseqa",
        language="ja",
        choices=choices,
        gold=place_of(row.values.get("label"), "index", choices),
        source_id=text_of(value_of(row, "q_id"), "q_id"),
    )


def mmlu(row: Row) -> Question:
    """Columns A to D and a letter, as in the published CSV, or a list and an index, as on the hub."""
    listed = "choices" in row.values
    choices = listed_choices(row.values["choices"]) if listed else lettered_columns(row)
    answer = value_of(row, "answer")
    is_letter = isinstance(answer, str) and not answer.strip().lstrip("-").isdigit()
    return Question(
        text=text_of(value_of(row, "question"), "question"),
        benchmark="mmlu",
        language="en",
        choices=choices,
        gold=place_of(answer, "letter" if is_letter else "index", choices),
        subject=subject_of(row, "subject"),
    )


def jmmlu(row: Row) -> Question:
    return mmlu(row)._replace(benchmark="jmmlu", language="ja")


def gsm8k(row: Row) -> Question:
    worked = text_of(value_of(row, "answer"), "answer")
    if not worked:
        raise RowError(NO_GOLD)
    number = worked.rpartition("####")[2].strip().replace(",", "")
    if "####" not in worked or not _PLAIN_NUMBER.fullmatch(number):
        raise RowError(f"the answer does not end with '#### number' but with {worked[-40:]!r}")
    return Question(
        text=text_of(value_of(row, "question"), "question"),
        benchmark="gsm8k",
        language="en",
        references=(number,),
        worked_answer=worked,
    )


def _reference(value: Any) -> tuple[str, ...]:
    said = listed_choices(value) if isinstance(value, list) else (text_of(value, "the reference"),)
    if not any(said):
        raise RowError(NO_GOLD)
    return tuple(filter(None, said))


def mapped(columns: "Columns") -> Callable[[Row], Question]:
    """The reader of a file whose columns the caller names; ``columns`` is what they are called."""

    def read(row: Row) -> Question:
        text = text_of(value_of(row, columns.question), columns.question)
        context = text_of(value_of(row, columns.context), columns.context) if columns.context else ""
        question = Question(
            text=text,
            benchmark=columns.benchmark,
            language=columns.language or textstats.language(f"{context} {text}"),
            context=context,
            subject=text_of(value_of(row, columns.subject), columns.subject) if columns.subject else None,
            source_id=text_of(value_of(row, columns.id), columns.id) if columns.id else None,
            slices={name: text_of(value_of(row, name), name) for name in columns.slices},
        )
        if columns.references:
            return question._replace(references=_reference(value_of(row, columns.references)))
        if isinstance(columns.choices, str):
            choices = listed_choices(value_of(row, columns.choices))
        else:  # a question may have fewer choices than the table has columns
            choices = tuple(text_of(value_of(row, name), name) for name in columns.choices)
            while choices and not choices[-1]:
                choices = choices[:-1]
        return question._replace(choices=choices, gold=place_of(value_of(row, columns.gold), columns.gold_is, choices))

    return read


# By benchmark the reader of a row, and the columns of a CSV file that has no header.
_NO_HEADER = ("question", "A", "B", "C", "D", "answer")
FORMATS: dict[str, tuple[Callable[[Row], Question], tuple[str, ...] | None]] = {
    "kmmlu": (kmmlu, None),
    "kmmlu_hard": (kmmlu_hard, None),
    "click": (click, None),
    "hae_rae": (hae_rae, None),
    "jcommonsenseqa": (jcommonsenseqa, None),
    "jmmlu": (jmmlu, _NO_HEADER),
    "mmlu": (mmlu, _NO_HEADER),
    "gsm8k": (gsm8k, None),
}


def check(question: Question) -> Question:
    """The question, or ``RowError`` with what is wrong with it."""
    if not question.text:
        raise RowError("the question is blank")
    if question.gold is None:
        return question
    if not 2 <= len(question.choices) <= len(LETTERS):
        raise RowError(f"{len(question.choices)} choices; there must be 2 to {len(LETTERS)}")
    if blank := [LETTERS[place] for place, choice in enumerate(question.choices) if not choice]:
        raise RowError(f"choice {' and '.join(blank)} is blank")
    first: dict[str, int] = {}
    for place, choice in enumerate(question.choices):
        if (earlier := first.setdefault(choice, place)) != place:
            raise RowError(f"choices {LETTERS[earlier]} and {LETTERS[place]} are the same: {choice[:80]!r}")
    return question
