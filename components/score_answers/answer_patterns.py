"""Regular expressions over answers: the one that finds the answer to score, and checks that an answer must pass."""

from pathlib import Path
from typing import Annotated, Any, Literal

import regex
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, field_validator

from slmkit import checked_files
from slmkit.errors import UserError

TIMEOUT_SECONDS = 2.0
MAX_CHECKS = 12  # each is a metric, and Azure ML keeps 50 of a run


def _compiles(pattern: str) -> str:
    try:
        regex.compile(pattern)
    except (regex.error, OverflowError) as error:
        raise ValueError(f"not a regular expression: {error}") from None
    return pattern


class PatternCheck(BaseModel):
    model_config = ConfigDict(extra="forbid")
    name: Annotated[str, Field(pattern=r"^[a-z0-9_]{1,40}$")]
    pattern: Annotated[str, AfterValidator(_compiles)]
    must: Literal["match", "not_match"]

    def holds(self, answer: str) -> bool:
        found = timed(f"pattern {self.name!r}", regex.compile(self.pattern).search, answer)
        return bool(found) == (self.must == "match")


class PatternChecks(BaseModel):
    model_config = ConfigDict(extra="forbid")
    patterns: Annotated[list[PatternCheck], Field(min_length=1, max_length=MAX_CHECKS)]

    @field_validator("patterns")
    @classmethod
    def _names(cls, patterns: list[PatternCheck]) -> list[PatternCheck]:
        names = [check.name for check in patterns]
        if repeated := sorted({name for name in names if names.count(name) > 1 or name == "all"}):
            raise ValueError(f"each check needs a name of its own, and none is called all: {repeated[0]!r}")
        return patterns


def read_checks(path: Path) -> list[PatternCheck]:
    return checked_files.load(
        path, PatternChecks, "patterns: a list of {name, pattern, must: match|not_match}"
    ).patterns


class AnswerPattern:
    """Finds the answer in an output, as the filters of lm-eval do: group 1 of the last match, or the whole of it."""

    def __init__(self, pattern: str) -> None:
        try:
            self._pattern = regex.compile(_compiles(pattern))
        except ValueError as error:
            raise UserError(f"answer_pattern {pattern!r}: {error}") from None
        self._group = min(1, self._pattern.groups)

    def find(self, output: str) -> str | None:
        found = timed("answer_pattern", lambda text, **limit: [*self._pattern.finditer(text, **limit)], output)
        return found[-1][self._group] if found else None


def timed(what: str, search: Any, text: str) -> Any:
    """An error and not a score, because a score must not depend on how fast the machine is."""
    try:
        return search(text, timeout=TIMEOUT_SECONDS)
    except TimeoutError:
        raise UserError(
            f"{what} took more than {TIMEOUT_SECONDS:g} s on an answer that begins {text[:60]!r}: write it without "
            "nested or overlapping repeats, such as (a+)+"
        ) from None
