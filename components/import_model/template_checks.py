"""Whether a tokenizer and its chat template are good for fine-tuning on chats in English, Japanese and Korean."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

from slmkit.errors import UserError

if TYPE_CHECKING:
    from transformers import GenerationConfig, PreTrainedTokenizerBase

# System, user and assistant say something different each, so that each can be found in what the template makes of it.
TEXTS = {
    "en": ("Answer in one sentence.", "When does the shop open?", "It opens at 9:30 a.m."),
    "ja": ("一文で答えてください。", "お店は何時に開きますか？", "午前９時半に開きます。髙島屋の隣です。"),
    "ko": ("한 문장으로 답하세요.", "가게는 몇 시에 여나요?", "오전 9시 30분에 엽니다. 뷁 씨에게 물어보세요."),
}
ROLES = ("system", "user", "assistant")


class Finding(NamedTuple):
    """What was looked at; whether it is as it should be; what was found."""

    check: str
    passed: bool
    text: str


def check(
    tokenizer: "PreTrainedTokenizerBase", generation_config: "GenerationConfig", source: str
) -> tuple[list[Finding], dict[str, str]]:
    """The findings, and tags for the run; raises ``UserError`` where no chat could be trained on."""
    if not tokenizer.chat_template:
        raise UserError(
            f"{source}: the tokenizer has no chat template; choose the instruction-tuned variant, or put a "
            "chat_template.jinja beside the tokenizer"
        )
    rendered: dict[str, str] = {}
    refusals: dict[str, str] = {}
    for language, texts in TEXTS.items():
        try:
            rendered[language] = _render(tokenizer, texts)
        except Exception as error:  # whatever a template raises
            refusals[language] = " ".join(str(error).split())[:200]
            rendered[language] = _render_without_system(tokenizer, texts, source)
        for role, text in list(zip(ROLES, texts, strict=True))[1:]:
            if text not in rendered[language]:
                raise UserError(f"{source}: the chat template loses what the {role} says ({text!r}); use another one")
    dropped = [language for language, texts in TEXTS.items() if texts[0] not in rendered[language]]
    role = "refused" if refusals else "dropped" if dropped else "kept"
    findings = [
        _system_role(role, refusals),
        _stop_token(tokenizer, generation_config, rendered["en"]),
        _generation_prompt(tokenizer, rendered["en"], with_system=not refusals),
        *(_round_trip(tokenizer, language, source) for language in TEXTS),
    ]
    return findings, {"system_role": role}


def _messages(texts: Sequence[str]) -> list[dict[str, str]]:
    """The turns that the texts are, the last of them the assistant's."""
    return [{"role": role, "content": text} for role, text in zip(ROLES[-len(texts) :], texts, strict=True)]


def _render(tokenizer: "PreTrainedTokenizerBase", texts: Sequence[str]) -> str:
    return tokenizer.apply_chat_template(_messages(texts), tokenize=False)


def _render_without_system(tokenizer: "PreTrainedTokenizerBase", texts: Sequence[str], source: str) -> str:
    try:
        return _render(tokenizer, texts[1:])
    except Exception as error:
        line = " ".join(str(error).split())[:200]
        raise UserError(f"{source}: the chat template cannot render a question and an answer ({line})") from None


def _system_role(role: str, refusals: dict[str, str]) -> Finding:
    if role == "kept":
        return Finding("system role", True, "the template renders system, user and assistant turns")
    why = f" ({next(iter(refusals.values()))})" if refusals else ""
    return Finding(
        "system role",
        False,
        f"system turns are {role} by the template{why}; fine-tuning on chats with system prompts will be refused, so "
        "put these into the first user turn",
    )


def _stop_token(tokenizer: "PreTrainedTokenizerBase", generation_config: "GenerationConfig", rendered: str) -> Finding:
    """Generation ends at the token that the template puts behind an answer."""
    behind = rendered[rendered.rindex(TEXTS["en"][-1]) + len(TEXTS["en"][-1]) :]
    ids = tokenizer(behind, add_special_tokens=False)["input_ids"]
    stop = next((token for token in ids if token in tokenizer.added_tokens_decoder), None)
    if stop is None:
        text = "the template ends an answer with no special token, so that a tuned model would not learn to stop"
        return Finding("stop token", False, text)
    known = as_list(generation_config.eos_token_id) or [tokenizer.eos_token_id]
    name = f"{tokenizer.convert_ids_to_tokens(stop)} ({stop})"
    if stop in known:
        return Finding("stop token", True, f"answers end with {name}, at which generation stops")
    text = f"answers end with {name}, and generation stops only at {known}; add it to generation_config.json"
    return Finding("stop token", False, text)


def _generation_prompt(tokenizer: "PreTrainedTokenizerBase", rendered: str, *, with_system: bool) -> Finding:
    """What the model is asked to continue is what stood before the answer in training."""
    asked = _messages(TEXTS["en"] if with_system else TEXTS["en"][1:])[:-1]
    prompt = tokenizer.apply_chat_template(asked, tokenize=False, add_generation_prompt=True)
    if rendered.startswith(prompt):
        return Finding("generation prompt", True, "a prompt is the beginning of the chat that is trained on")
    text = f"a prompt ends with {prompt[-30:]!r}, and in training something else stands before the answer"
    return Finding("generation prompt", False, text)


def _round_trip(tokenizer: "PreTrainedTokenizerBase", language: str, source: str) -> Finding:
    """Text comes back from its tokens; what is not in the vocabulary must fall back to bytes."""
    text = "\n".join(TEXTS[language])
    try:
        ids = tokenizer(text, add_special_tokens=False)["input_ids"]
        decoded = tokenizer.decode(ids, clean_up_tokenization_spaces=False)
    except Exception as error:  # Rust raises nothing narrower
        raise UserError(f"{source}: the tokenizer cannot encode the text {text!r} ({error})") from None
    name = f"text in {language}"
    if num_unknown := ids.count(tokenizer.unk_token_id):
        share = f"{num_unknown} of {len(ids)} tokens ({num_unknown / len(ids):.0%})"
        return Finding(name, False, f"{share} are unknown to the tokenizer; the model cannot read or write them")
    if decoded.strip() != text:
        return Finding(name, False, f"does not come back from its tokens: {text!r} becomes {decoded!r}")
    return Finding(name, True, f"{len(ids)} tokens for {len(text)} characters, which come back unchanged")


def as_list(ids: int | Sequence[int] | None) -> list[int]:
    return [] if ids is None else [ids] if isinstance(ids, int) else list(ids)
