"""Summaries and conversations in which every answer is copied from the text."""

from collections import Counter

from extractive_fields import Found, Pair, hashed, with_particle

MIN_SENTENCES_TO_SUMMARIZE = 3
MAX_TURNS = 3

SUMMARY_QUESTIONS = {
    "en": ["Summarize the text.", "Please sum up the text in a few sentences."],
    "ja": ["本文を要約してください。", "本文の内容を短くまとめてください。"],
    "ko": ["본문을 요약해 주세요.", "본문의 내용을 간단히 정리해 주세요."],
}
TITLED_SUMMARY_QUESTIONS = {
    "en": ['Summarize what "{title}" says here.', 'Please sum up this part of "{title}".'],
    "ja": ["「{title}」のこの部分を要約してください。", "「{title}」のこの部分を短くまとめてください。"],
    "ko": ['"{title}"의 이 부분을 요약해 주세요.', '"{title}"의 이 부분을 간단히 정리해 주세요.'],
}
NEXT_FIELD_QUESTIONS = {
    "en": ["And the {key}?", "What about its {key}?"],
    "ja": ["では、{key}は？", "{key}についてはどうですか？"],
    "ko": ["그럼 {key}{은/는}요?", "{key}{은/는} 어떤가요?"],
}
NEXT_SENTENCE_QUESTIONS = {
    "en": ["What does it say right after that?", "And what comes next?"],
    "ja": ["その次には何と書かれていますか？", "それに続けて何と述べていますか？"],
    "ko": ["그다음에는 무엇이라고 하나요?", "이어서 무엇이라고 말하나요?"],
}


def summary(title: str, sentences: list[str], language: str, seed: int) -> Found:
    """The first sentence and the one that shares most of its characters' pairs with the others, as they stand."""
    if len(sentences) < MIN_SENTENCES_TO_SUMMARIZE:
        return []
    pairs = [{sentence[i : i + 2] for i in range(len(sentence) - 1)} for sentence in sentences]
    held = Counter(pair for found in pairs for pair in found)
    central = max(range(1, len(sentences)), key=lambda i: sum(held[pair] - 1 for pair in pairs[i]) / len(pairs[i]))
    wordings = (TITLED_SUMMARY_QUESTIONS if title else SUMMARY_QUESTIONS)[language]
    question = wordings[hashed(title, sentences[0], seed, "wording") % len(wordings)].format(title=title)
    joined = ("" if language == "ja" else " ").join((sentences[0], sentences[central]))
    return [("summary", {"question": question, "answer": joined, "question_type": "summary"})]


def conversation(found: Found, sentences: list[str], language: str, seed: int) -> Found:
    """One conversation about two or three fields of one thing, or about sentences that follow each other."""
    listed: dict[str, Found] = {}
    for about, pair in found:
        title, is_field, key = about.rpartition("\x1f")
        if is_field:
            listed.setdefault(title, []).append((key, pair))
    for title, fields in listed.items():
        if len(fields) > 1:
            first = hashed(title, seed, "conversation") % (len(fields) - 1)
            (_, opening), *others = fields[first : first + MAX_TURNS]
            turns = [(_worded(NEXT_FIELD_QUESTIONS, language, seed, key), pair["answer"]) for key, pair in others]
            return _linked(opening, turns)
    for _, pair in found:
        following = _after(pair["answer"], sentences)[: MAX_TURNS - 1]
        if following:
            turns = [(_worded(NEXT_SENTENCE_QUESTIONS, language, seed + i, ""), s) for i, s in enumerate(following)]
            return _linked(pair, turns)
    return []


def _after(sentence: str, sentences: list[str]) -> list[str]:
    return sentences[sentences.index(sentence) + 1 :] if sentence in sentences else []


def _worded(questions: dict[str, list[str]], language: str, seed: int, key: str) -> str:
    wordings = questions[language]
    return with_particle(wordings[(hashed(key, "follow-up") + seed) % len(wordings)], key).format(key=key)


def _linked(opening: Pair, turns: list[tuple[str, str]]) -> Found:
    follow_ups = [{"question": question, "answer": answer} for question, answer in turns]
    return [("conversation", {**opening, "question_type": "conversation", "follow_ups": follow_ups})]
