"""Where a prompt asks, found so that an edit can leave the document, data and code around it alone."""

import re
from dataclasses import dataclass

from slmkit import textstats

MAX_QUESTION_CHARS = 1000
_DATA = re.compile(r"\s*(?:[\[{]|```|<[a-z!?/])", re.IGNORECASE)
_NO_QUESTION = re.compile(r".{0,20}[:：]\s*|\s*(?:[A-Za-z]|\d{1,2}|[①-⑳])[.)．）]\s.*")  # Answer:, 答え：, B. Paris
# What follows is no question to answer but a text to work on: in other words, it has another answer.
_WORKS_ON_TEXT = re.compile(
    r"^\W*(?:(?:please|can|could|you|must|now|then) )*"
    r"(?:translate|paraphrase|rephrase|rewrite|summari[sz]e|classify|proofread|transcribe|correct (?:the|this|my))\b"
    r"|(?:訳|要約|分類|言い換え|書き換え|校正|添削)(?:し(?:て|なさい)|てください|せよ)|(?:번역|요약|분류|교정)(?:해|하[세시십])",
    re.IGNORECASE | re.MULTILINE,
)
_ASKS = re.compile(
    r"[?？]\s*\Z|\A(?:please\s+)?(?:tell|give|show|name|list|state|explain|describe|find|let me know|i (?:need|want))\b"
    r"|(?:ください|下さい|教えて|知りたいです|(?:です|ます|でしょう|ません)か)[。．.!！]?\s*\Z"
    r"|(?:주세요|주십시오|하세요|하시오|하십시오|[려해]줘|니까|나요|가요|까요|궁금합니다|궁금해요|싶습니다)[.。!！]?\s*\Z",
    re.IGNORECASE,
)


@dataclass(frozen=True)
class Prompt:
    """The turn of a user, cut into what stands before the question, the question, and what stands after it."""

    before: str
    question: str
    after: str

    def with_question(self, question: str) -> str:
        return self.before + question + self.after


def find(text: str, instructions: str = "") -> Prompt | None:
    """In the last line, or else the first, that is no choice and no cue for the answer, the sentence that asks.

    None where neither asks, or where the text is data, code, or to be worked on (translated, say).
    """
    if _DATA.match(text) or _WORKS_ON_TEXT.search(instructions):
        return None
    lines = [line for line in re.finditer(r"[^\n]+", text) if line[0].strip() and not _NO_QUESTION.fullmatch(line[0])]
    for line in (lines[-1:] + lines[:1]) if lines else []:
        sentences = textstats.sentences(line[0])
        for sentence in (sentences[-1], sentences[0]):
            is_question = len(sentence) <= MAX_QUESTION_CHARS and _ASKS.search(sentence) and not _DATA.match(sentence)
            if is_question and text.count(sentence) == 1:
                start = text.index(sentence)
                found = Prompt(text[:start], sentence, text[start + len(sentence) :])
                return None if _is_worked_on(found) else found
    return None


def _is_worked_on(prompt: Prompt) -> bool:
    told = _WORKS_ON_TEXT.search(prompt.question)
    holds_text = told and re.search(r"[:：]\s*\S", prompt.question[told.end() :])
    return bool(holds_text or _WORKS_ON_TEXT.search(f"{prompt.before}\n{prompt.after}"))
