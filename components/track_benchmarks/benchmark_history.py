"""What a history of benchmarks and a comparison hold, checked as they are read."""

import math
from pathlib import Path
from typing import Annotated, Any

import pydantic

from slmkit import records
from slmkit.errors import UserError

Number = Annotated[float, pydantic.Field(allow_inf_nan=False)]
MAX_NAME = 500  # characters
Text = Annotated[str, pydantic.Field(min_length=1, max_length=MAX_NAME)]


class Mean(pydantic.BaseModel):
    mean: Number
    low: Number | None
    high: Number | None


class Difference(pydantic.BaseModel):
    difference: Number
    p_holm: Annotated[float, pydantic.Field(ge=0, le=1)]


class Benchmark(pydantic.BaseModel):
    benchmark: Text
    metric: Text
    num_items: int
    means: dict[str, Mean]
    differences: dict[str, Difference]


class Pair(pydantic.BaseModel):
    baseline: str


class Comparison(pydantic.BaseModel):
    """What is read of the output of compare_candidates."""

    confidence_level: Annotated[float, pydantic.Field(gt=0, lt=1)]
    eval_items_sha256: str
    comparisons: Annotated[list[Pair], pydantic.Field(min_length=1)]
    benchmarks: Annotated[list[Benchmark], pydantic.Field(min_length=1)]

    @property
    def baseline(self) -> str:
        return self.comparisons[0].baseline


class Row(Mean):
    """A candidate's result on a benchmark in a cycle."""

    model_config = pydantic.ConfigDict(extra="forbid")

    cycle: Text
    time: Text
    candidate: Text
    benchmark: Text
    metric: Text
    num_items: int
    eval_items_sha256: Text

    @property
    def key(self) -> tuple[str, str, str]:
        return self.cycle, self.candidate, self.benchmark


def read(path: Path) -> list[Row]:
    """The rows of a history in their order, each cycle, candidate and benchmark once."""
    rows: dict[tuple, Row] = {}
    for record, source, line in records.read_located(path):
        try:
            row = Row.model_validate(record)
        except pydantic.ValidationError as error:
            found = error.errors(include_url=False)[0]
            where = ".".join(map(str, found["loc"]))
            raise UserError(f"{source}:{line}: not a row of a history: {where}: {found['msg']}") from None
        if row.key in rows:
            raise UserError(f"{source}:{line}: {', '.join(row.key)} stands twice; a history holds each result once")
        rows[row.key] = row
    return list(rows.values())


def rows_of(comparison: Comparison, cycle: str, time: str) -> list[Row]:
    return [
        Row(
            cycle=cycle,
            time=time,
            candidate=name,
            benchmark=part.benchmark,
            metric=part.metric,
            num_items=part.num_items,
            eval_items_sha256=comparison.eval_items_sha256,
            **mean.model_dump(),
        )
        for part in comparison.benchmarks
        for name, mean in part.means.items()
    ]


def added(earlier: list[Row], new: list[Row]) -> list[Row]:
    """The history with this cycle; one that it holds with the same values stays as it is, with others is refused."""
    cycle = new[0].cycle
    before = {row.key: values(row) for row in earlier if row.cycle == cycle}
    if not before:
        return earlier + new
    now = {row.key: values(row) for row in new}
    if before != now:
        differing = sorted(key for key in before.keys() | now.keys() if before.get(key) != now.get(key))
        raise UserError(
            f"cycle {cycle!r} is in the history with other values ({len(differing)} of them, first for "
            f"{differing[0][1]} on {differing[0][2]}); give this cycle a name of its own"
        )
    return earlier


def values(row: Row) -> dict[str, Any]:
    return row.model_dump(exclude={"time"})


def comparable(one: Row, other: Row) -> bool:
    """Whether two results are of the same questions in the same metric."""
    return all(getattr(one, name) == getattr(other, name) for name in ("eval_items_sha256", "num_items", "metric"))


def is_share(rows: list[Row]) -> bool:
    """Whether results are written in percent."""
    ends = [end for row in rows for end in (row.mean, row.low, row.high) if end is not None]
    return all(0 <= end <= 1 and math.isfinite(end) for end in ends)
