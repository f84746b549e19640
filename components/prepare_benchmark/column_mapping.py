"""Which columns are the question, the choices and the right answer, as a person names them."""

from typing import Annotated, Literal

import pydantic
import yaml

from slmkit.errors import UserError

Name = Annotated[str, pydantic.StringConstraints(min_length=1)]
EXAMPLE = "{question: q, choices: [a, b, c], gold: answer, gold_is: letter}"


class Columns(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(extra="forbid", frozen=True, coerce_numbers_to_str=True)

    question: Name
    choices: Name | Annotated[list[Name], pydantic.Field(min_length=2)] | None = None
    gold: Name | None = None
    gold_is: Literal["index", "number", "letter", "text"] | None = None
    references: Name | None = None
    context: Name | None = None
    subject: Name | None = None
    id: Name | None = None
    slices: list[Name] = []
    benchmark: Annotated[str, pydantic.StringConstraints(pattern=r"^\w[\w.-]*$")] = "custom"
    language: Annotated[str, pydantic.StringConstraints(pattern=r"^[a-z]{2,3}$")] | None = None

    @pydantic.model_validator(mode="after")
    def _one_kind(self) -> "Columns":
        if bool(self.choices) == bool(self.references):
            raise ValueError("name either the choices or, for open questions, the references")
        if self.choices and not (self.gold and self.gold_is):
            raise ValueError(
                "choices need gold (a column) and gold_is: index (from 0), number (from 1), letter or text"
            )
        if taken := {"benchmark", "language", "subject", "contaminated"} & set(self.slices):
            raise ValueError(f"slices may not be called {', '.join(sorted(taken))}")
        return self


def parse(text: str) -> Columns:
    try:
        return Columns.model_validate(yaml.safe_load(text))
    except yaml.YAMLError as error:
        raise UserError(f"columns: not YAML: {' '.join(str(error).split())}; for example {EXAMPLE}") from None
    except pydantic.ValidationError as error:
        first = error.errors(include_url=False)[0]
        key = ".".join(map(str, first["loc"])) or "columns"
        if first["type"] == "extra_forbidden":
            raise UserError(f"columns: unknown key {key!r}; known: {', '.join(Columns.model_fields)}") from None
        said = first["msg"].removeprefix("Value error, ")
        raise UserError(f"columns: {key}: {said}; for example {EXAMPLE}") from None
