"""What a client may ask, in OpenAI's form of a chat completion, and how it is told what is wrong with its request."""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

# What would change the answer, and this endpoint cannot do: only the values that ask for nothing are taken.
HARMLESS: dict[str, tuple[Any, ...]] = {
    "audio": (),
    "frequency_penalty": (0,),
    "function_call": ("none", "auto"),
    "functions": ([],),
    "logit_bias": ({},),
    "logprobs": (False,),
    "modalities": (["text"],),
    "n": (1,),
    "presence_penalty": (0,),
    "response_format": ({"type": "text"},),
    "tool_choice": ("none", "auto"),
    "tools": ([],),
    "top_logprobs": (0,),
}


class RequestError(Exception):
    """The client's mistake: an HTTP status of 4xx with OpenAI's error object as body."""

    def __init__(self, message: str, *, param: str | None = None, code: str | None = None, status: int = 400) -> None:
        super().__init__(message)
        self.status = status
        kind = "rate_limit_error" if status == 429 else "invalid_request_error"
        self.body = {"error": {"message": message, "type": kind, "param": param, "code": code}}


class TextPart(BaseModel):
    type: Literal["text"]
    text: str


class Message(BaseModel):
    role: Literal["system", "developer", "user", "assistant"]
    content: list[TextPart]

    @field_validator("content", mode="before")
    @classmethod
    def one_part_or_several(cls, content: Any) -> Any:
        return [{"type": "text", "text": content}] if isinstance(content, str) else content

    def as_the_template_knows_it(self) -> dict[str, str]:
        text = "\n".join(part.text for part in self.content)
        return {"role": "system" if self.role == "developer" else self.role, "content": text}


class StreamOptions(BaseModel):
    include_usage: bool = False


class ChatRequest(BaseModel):
    """Temperature is 0 unless the client says otherwise: that is how the model was evaluated."""

    model_config = ConfigDict(strict=True, extra="allow", allow_inf_nan=False)

    messages: Annotated[list[Message], Field(min_length=1)]
    model: str | None = None
    max_tokens: Annotated[int | None, Field(ge=1)] = None
    max_completion_tokens: Annotated[int | None, Field(ge=1)] = None
    temperature: Annotated[float | None, Field(ge=0, le=2)] = None
    top_p: Annotated[float | None, Field(gt=0, le=1)] = None
    seed: Annotated[int | None, Field(ge=-(2**63), lt=2**63)] = None
    stop: Annotated[list[Annotated[str, Field(min_length=1)]] | None, Field(max_length=16)] = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None

    @field_validator("stop", mode="before")
    @classmethod
    def one_or_several(cls, stop: Any) -> Any:
        return [stop] if isinstance(stop, str) else stop


def parse(body: bytes) -> ChatRequest:
    """The request, or a ``RequestError`` that names what is wrong with it."""
    try:
        request = ChatRequest.model_validate_json(body)
    except ValidationError as error:
        # Without the input: whoever logs this error keeps nothing of the chat.
        found = error.errors(include_input=False, include_url=False, include_context=False)[0]
        param = "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in found["loc"]).lstrip(".")
        message = found["msg"].removeprefix("Value error, ")
        raise RequestError(f"{param}: {message}" if param else message, param=param or None) from None
    for name, value in (request.model_extra or {}).items():
        if name in HARMLESS and value is not None and value not in HARMLESS[name]:
            raise RequestError(
                f"{name}: this endpoint does not support it; remove it", param=name, code="unsupported_parameter"
            )
    return request
