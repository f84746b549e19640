"""chat_tokenization: which tokens are labels under the chat template of each family, what is left out or refused."""

import copy
import itertools
import json
import re
import unicodedata
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import pytest

from slmkit.errors import UserError

LANGUAGES = {
    "en": ("Answer briefly.", "What is the phone?", "It is 12 34.", "And the hours?", "9 to 17, no break."),
    "ja": ("簡潔に答えてください。", "電話番号は？", "１２－３４です。", "営業時間は？", "９時から１７時までです。"),
    "ko": ("짧게 답하세요.", "전화번호는?", "12-34입니다.", "영업시간은?", "9시부터 17시까지예요."),
    # As trimmed templates see it: what surrounds a text in white space is not part of the expected one.
    "space": (" Answer\nbriefly. ", " What? ", " It is  12.\n ", "  And\n\nnow?", " No. "),
}
SHAPES = {"one turn": "ua", "two turns": "uaua", "open end": "uau"}


@dataclass(frozen=True)
class Family:
    """How a family words a chat, written by hand; what the model has to say itself stands between ⟦ and ⟧."""

    template: str
    user: str
    assistant: str
    system: str | None = None  # None: the template takes no system turn
    no_system: str = ""
    user_after_system: str | None = None
    opening: str = ""
    closing: str = ""  # after an assistant's turn it is to be learnt
    trims: str = ""  # the roles whose text loses its surrounding white space
    eos: str = "<|im_end|>"

    def text(self, said: tuple[str, ...], shape: str) -> str:
        """The chat as it ought to read, with the marks."""
        system, *turns = said
        with_system = shape.startswith("s")
        words = self.opening + (self.wording("s", self.system, system) if with_system else self.no_system)
        for number, (role, content) in enumerate(zip(shape.removeprefix("s"), turns, strict=False)):
            form = self.assistant if role == "a" else self.user
            if with_system and number == 0 and self.user_after_system is not None:
                form = self.user_after_system
            words += self.wording(role, form, content)
        if self.closing:
            words += f"⟦{self.closing}⟧" if shape.endswith("a") else self.closing
        return words.replace("⟧⟦", "")

    def wording(self, role: str, form: str, content: str) -> str:
        return form.format(content.strip() if role in self.trims else content)


def llama(template: str, system_opening: str) -> Family:
    header = "<|start_header_id|>{}<|end_header_id|>\n\n"
    return Family(
        template,
        user=header.format("user") + "{}<|eot_id|>",
        assistant=header.format("assistant") + "⟦{}<|eot_id|>⟧",
        system=header.format("system") + system_opening + "{}<|eot_id|>",
        no_system=f"{header.format('system')}{system_opening}<|eot_id|>" if system_opening else "",
        opening="<s>",
        trims="sua",
        eos="<|eot_id|>",
    )


def chatml(template: str, no_system: str = "", thinking: str = "", after_stop: str = "⟦\n⟧") -> Family:
    return Family(
        template,
        user="<|im_start|>user\n{}<|im_end|>\n",
        assistant="<|im_start|>assistant\n⟦" + thinking + "{}<|im_end|>⟧" + after_stop,
        system="<|im_start|>system\n{}<|im_end|>\n",
        no_system=no_system,
    )


def gemma(template: str, **system: str) -> Family:
    return Family(
        template,
        user="<start_of_turn>user\n{}<end_of_turn>\n",
        assistant="<start_of_turn>model\n⟦{}<end_of_turn>\n⟧",
        opening="<s>",
        trims="ua",
        eos="</s>",
        **system,
    )


def phi3(template: str) -> Family:
    return Family(
        template,
        user="<|user|>\n{}<|end|>\n",
        assistant="<|assistant|>\n⟦{}<|end|>\n⟧",
        system="<|system|>\n{}<|end|>\n",
        closing="<|endoftext|>",
        eos="<|endoftext|>",
    )


ALTERNATE = "{{ raise_exception('Conversation roles must alternate user/assistant/user/assistant/...') }}"
MISTRAL_2 = (
    "{{ bos_token }}{% for message in messages %}{% if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}"
    + ALTERNATE
    + "{% endif %}{% if message['role'] == 'user' %}{{ '[INST] ' + message['content'] + ' [/INST]' }}"
    "{% elif message['role'] == 'assistant' %}{{ message['content'] + eos_token}}"
    "{% else %}{{ raise_exception('Only user and assistant roles are supported!') }}{% endif %}{% endfor %}"
)
# It shows the system text to the last user turn, and only where the chat ends with that.
MISTRAL_3 = (
    "{%- if messages[0]['role'] == 'system' %}{%- set system_message = messages[0]['content'] %}"
    "{%- set loop_messages = messages[1:] %}{%- else %}{%- set loop_messages = messages %}{%- endif %}"
    "{{- bos_token }}{%- for message in loop_messages %}"
    "{%- if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}" + ALTERNATE + "{%- endif %}"
    "{%- if message['role'] == 'user' %}{%- if loop.last and system_message is defined %}"
    "{{- '[INST] ' + system_message + '\n\n' + message['content'] + '[/INST]' }}"
    "{%- else %}{{- '[INST] ' + message['content'] + '[/INST]' }}{%- endif %}"
    "{%- elif message['role'] == 'assistant' %}{{- ' ' + message['content']|trim + eos_token}}{%- endif %}{%- endfor %}"
)
MISTRAL_SMALL = (  # tekken
    "{{- bos_token }}{%- if messages[0]['role'] == 'system' %}{%- set system_message = messages[0]['content'] %}"
    "{%- set loop_messages = messages[1:] %}{%- else %}{%- set system_message = 'You are Mistral Small 3.' %}"
    "{%- set loop_messages = messages %}{%- endif %}{{- '[SYSTEM_PROMPT]' + system_message + '[/SYSTEM_PROMPT]' }}"
    "{%- for message in loop_messages %}{%- if message['role'] == 'user' %}"
    "{{- '[INST]' + message['content'] + '[/INST]' }}"
    "{%- elif message['role'] == 'assistant' %}{{- message['content'] + eos_token }}"
    "{%- else %}{{- raise_exception('Only user and assistant roles are supported!') }}{%- endif %}{%- endfor %}"
)
PHI_4 = (
    "{% for message in messages %}{% if (message['role'] == 'system') %}"
    "{{'<|im_start|>system<|im_sep|>' + message['content'] + '<|im_end|>'}}{% elif (message['role'] == 'user') %}"
    "{{'<|im_start|>user<|im_sep|>' + message['content'] + '<|im_end|>'}}{% elif (message['role'] == 'assistant') %}"
    "{{'<|im_start|>assistant<|im_sep|>' + message['content'] + '<|im_end|>'}}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant<|im_sep|>' }}{% endif %}"
)
PHI_4_FIRST = (  # the user's turn opens the assistant's
    "{% for message in messages %}{% if (message['role'] == 'system') %}"
    "{{'<|im_start|>system<|im_sep|>' + message['content'] + '<|im_end|>'}}{% elif (message['role'] == 'user') %}"
    "{{'<|im_start|>user<|im_sep|>' + message['content'] + '<|im_end|><|im_start|>assistant<|im_sep|>'}}"
    "{% elif (message['role'] == 'assistant') %}{{message['content'] + '<|im_end|>'}}{% endif %}{% endfor %}"
)
PHI_4_MINI = (
    "{% for message in messages %}{{ '<|' + message['role'] + '|>' + message['content'] + '<|end|>' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>' }}{% else %}{{ eos_token }}{% endif %}"
)
CHATML = (
    "{% for message in messages %}"
    "{{'<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n'}}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
QWEN_SYSTEM = "<|im_start|>system\nYou are Qwen, created by Alibaba Cloud. You are a helpful assistant.<|im_end|>\n"
TODAY = datetime.now().strftime("%d %b %Y")

FAMILIES = {
    "llama 3": llama("trl:llama3", ""),
    "llama 3.1": llama("trl:llama3_1", "Cutting Knowledge Date: December 2023\nToday Date: 26 Jul 2024\n\n"),
    "llama 3.2": llama("trl:llama3_2", f"Cutting Knowledge Date: December 2023\nToday Date: {TODAY}\n\n"),
    "mistral 7b v0.2": Family(MISTRAL_2, user="[INST] {} [/INST]", assistant="⟦{}</s>⟧", opening="<s>", eos="</s>"),
    "mistral 7b v0.3": Family(
        MISTRAL_3, user="[INST] {}[/INST]", assistant="⟦ {}</s>⟧", opening="<s>", trims="a", eos="</s>"
    ),
    "mistral small 3": Family(
        MISTRAL_SMALL,
        user="[INST]{}[/INST]",
        assistant="⟦{}</s>⟧",
        system="[SYSTEM_PROMPT]{}[/SYSTEM_PROMPT]",
        no_system="[SYSTEM_PROMPT]You are Mistral Small 3.[/SYSTEM_PROMPT]",
        opening="<s>",
        eos="</s>",
    ),
    "qwen 2.5": chatml("trl:qwen2_5", no_system=QWEN_SYSTEM),
    "qwen 3": chatml("trl:qwen3", thinking="<think>\n\n</think>\n\n"),
    "qwen 3 2507": chatml("trl:qwen3_instruct_2507"),
    "gemma 2": gemma("trl:gemma"),
    "gemma 3": gemma("trl:gemma3", system="<start_of_turn>user\n{}\n\n", user_after_system="{}<end_of_turn>\n"),
    "phi 3": phi3("trl:phi3"),
    "phi 3.5": phi3("trl:phi3_5"),
    "phi 4 mini": Family(
        PHI_4_MINI,
        user="<|user|>{}<|end|>",
        assistant="<|assistant|>⟦{}<|end|>⟧",
        system="<|system|>{}<|end|>",
        closing="<|endoftext|>",
        eos="<|endoftext|>",
    ),
    "phi 4": Family(
        PHI_4,
        user="<|im_start|>user<|im_sep|>{}<|im_end|>",
        assistant="<|im_start|>assistant<|im_sep|>⟦{}<|im_end|>⟧",
        system="<|im_start|>system<|im_sep|>{}<|im_end|>",
    ),
    "phi 4 at first": Family(
        PHI_4_FIRST,
        user="<|im_start|>user<|im_sep|>{}<|im_end|><|im_start|>assistant<|im_sep|>",
        assistant="⟦{}<|im_end|>⟧",
        system="<|im_start|>system<|im_sep|>{}<|im_end|>",
    ),
    "chatml": chatml(CHATML),
    "tiny": chatml("tiny", after_stop="\n"),
}
SPECIAL = sorted({
    token
    for family in FAMILIES.values()
    for text in (family.system or "", family.user, family.assistant, family.eos, family.opening, family.closing)
    for token in re.findall(r"<\|?\w+\|?>|</s>|\[/?[A-Z_]+\]", text)
    if token != "<think>"
})  # fmt: skip


@pytest.fixture(scope="module")
def tokenization(load_main):
    load_main("finetune_model")
    import chat_tokenization

    return chat_tokenization


@pytest.fixture(scope="module")
def bytes_tokenizer(load_main):
    """Tokens of a few characters, several to a rare character, and every family's special tokens."""
    load_main("import_model")
    import tiny_model

    tokenizer = tiny_model.make_tokenizer()
    tokenizer.add_special_tokens({"bos_token": "<s>", "extra_special_tokens": SPECIAL})
    tokenizer.add_tokens(["<think>", "</think>"])
    return tokenizer


def with_template(tokenizer, family: Family):
    if family.template.startswith("trl:"):
        import trl

        file = Path(trl.__file__).parent / "chat_templates" / f"{family.template[4:]}.jinja"
        tokenizer.chat_template = file.read_text(encoding="utf-8")
    elif family.template == "tiny":
        import tiny_model

        tokenizer.chat_template = tiny_model.CHAT_TEMPLATE
    else:
        tokenizer.chat_template = family.template
    tokenizer.eos_token = family.eos
    return tokenizer


def messages_of(said: tuple[str, ...], shape: str) -> list[dict[str, str]]:
    roles = {"s": "system", "u": "user", "a": "assistant"}
    contents = said if shape.startswith("s") else said[1:]
    return [{"role": roles[role], "content": content} for role, content in zip(shape, contents, strict=False)]


def write(folder: Path, *chats: list[dict[str, str]]) -> Path:
    path = folder / "chats"
    path.write_text("".join(json.dumps({"messages": messages}) + "\n" for messages in chats), encoding="utf-8")
    return path


def runs(tokenizer, row) -> list[tuple[bool, str]]:
    """The text of each stretch of tokens that are labels, and that are none."""
    assert all(label in (-100, token) for token, label in zip(row["input_ids"], row["labels"], strict=True))
    grouped = itertools.groupby(zip(row["input_ids"], row["labels"], strict=True), key=lambda pair: pair[1] != -100)
    return [(labels, tokenizer.decode([token for token, _ in pairs])) for labels, pairs in grouped]


def marked(text: str) -> list[tuple[bool, str]]:
    return [(part.startswith("⟦"), part.strip("⟦⟧")) for part in re.split("(⟦.*?⟧)", text, flags=re.DOTALL) if part]


@pytest.mark.parametrize("language", LANGUAGES)
@pytest.mark.parametrize("name", FAMILIES)
def test_labels_are_what_the_assistant_says_and_its_stop(tokenization, bytes_tokenizer, tmp_path, name, language):
    family, said = FAMILIES[name], LANGUAGES[language]
    tokenizer = with_template(bytes_tokenizer, family)
    shapes = [*SHAPES.values(), *("s" + shape for shape in SHAPES.values() if family.system)]
    path = write(tmp_path, *(messages_of(said, shape) for shape in shapes))
    chats = tokenization.tokenize_chats(path, tokenizer, 1000, assistant_only_loss=True)
    assert not chats.left_out
    for shape, row in zip(shapes, chats.rows, strict=True):
        assert runs(tokenizer, row) == marked(family.text(said, shape)), shape


def test_without_assistant_only_loss_every_token_is_a_label(tokenization, bytes_tokenizer, tmp_path):
    tokenizer = with_template(bytes_tokenizer, FAMILIES["qwen 3 2507"])
    path = write(tmp_path, messages_of(LANGUAGES["en"], "suaua"))
    (row,) = tokenization.tokenize_chats(path, tokenizer, 1000, assistant_only_loss=False).rows
    text = FAMILIES["qwen 3 2507"].text(LANGUAGES["en"], "suaua")
    assert runs(tokenizer, row) == [(True, re.sub("[⟦⟧]", "", text))]


def test_reasoning_of_an_earlier_turn_is_learnt_too(tokenization, bytes_tokenizer, tmp_path):
    """Qwen3's own template shows the reasoning of the last turn alone, and puts an empty one where there is none."""
    tokenizer = with_template(bytes_tokenizer, FAMILIES["qwen 3"])
    said = ("", "2+2?", "<think>\nEasy.\n</think>\n\n4", "3+3?", "6")
    (row,) = tokenization.tokenize_chats(write(tmp_path, messages_of(said, "uaua")), tokenizer, 1000, True).rows
    assert [text for labels, text in runs(tokenizer, row) if labels] == [
        "<think>\nEasy.\n</think>\n\n4<|im_end|>\n",
        "<think>\n\n</think>\n\n6<|im_end|>\n",
    ]


@pytest.mark.parametrize("name", ["llama 3", "qwen 3", "gemma 3", "phi 3.5"])
def test_the_labels_are_those_of_transformers(tokenization, bytes_tokenizer, tmp_path, name):
    """Transformers' own assistant mask, under the training template that TRL keeps."""
    from trl.chat_template_utils import get_training_chat_template

    tokenizer = with_template(bytes_tokenizer, FAMILIES[name])
    messages = messages_of(LANGUAGES["ko"], "suaua")
    (row,) = tokenization.tokenize_chats(write(tmp_path, messages), tokenizer, 1000, True).rows
    theirs = tokenizer.apply_chat_template(
        messages,
        chat_template=get_training_chat_template(tokenizer),
        return_dict=True,
        return_assistant_tokens_mask=True,
    )
    assert row["input_ids"] == theirs["input_ids"]
    assert [int(label != -100) for label in row["labels"]] == theirs["assistant_masks"]


def sentencepiece_like(byte_fallback_only: str):
    """As Mistral and Gemma before tekken: a space is ▁ at the start of a word, an unknown character is its bytes."""
    from tokenizers import Tokenizer, decoders, models, normalizers
    from transformers import PreTrainedTokenizerFast

    pieces = ["<unk>", *(f"<0x{byte:02X}>" for byte in range(256)), "▁", *"0123456789[]/INSTabc?.\n"]
    merges = [("▁", "1"), ("▁1", "2")]
    pieces += ["".join(pair) for pair in merges]
    assert not set(byte_fallback_only) & set(pieces)
    model = models.BPE(
        {p: i for i, p in enumerate(pieces)}, merges, unk_token="<unk>", fuse_unk=True, byte_fallback=True
    )
    tokenizer = Tokenizer(model)
    tokenizer.normalizer = normalizers.Replace(" ", "▁")
    tokenizer.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()])
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>", unk_token="<unk>")


def test_tokens_of_a_sentencepiece_tokenizer(tokenization, tmp_path):
    """The space before an answer belongs to its first token, and each byte of a rare character is a label."""
    tokenizer = sentencepiece_like(byte_fallback_only="店")
    tokenizer.chat_template = MISTRAL_3
    path = write(tmp_path, messages_of(("", "a?", "12店", "b?", "c"), "uaua"))
    (row,) = tokenization.tokenize_chats(path, tokenizer, 1000, True).rows
    labels = [tokenizer.convert_ids_to_tokens(label) for label in row["labels"] if label != -100]
    assert labels == ["▁12", "<0xE5>", "<0xBA>", "<0x97>", "</s>", "▁", "c", "</s>"]


def test_a_leading_space_outside_of_the_bounds_of_its_token(tokenization, tmp_path):
    """GPT-2's and Llama 3's tokenizers trim the bounds, where Transformers' own mask loses the whole answer."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    merged = ["Ġ1", "Ġ12"]
    vocabulary = {token: i for i, token in enumerate([*alphabet, *merged])}
    backend = Tokenizer(models.BPE(vocabulary, [("Ġ", "1"), ("Ġ1", "2")]))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.post_processor = processors.ByteLevel(trim_offsets=True)
    backend.decoder = decoders.ByteLevel()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, eos_token="</s>", extra_special_tokens=["<a>"])
    tokenizer.chat_template = (
        "{% for m in messages %}{% if m.role == 'assistant' %}"
        "<a>{% generation %}{{ ' ' + m.content + eos_token + ' ' }}"
        "{% endgeneration %}{% else %}{{ m.content }}{% endif %}{% endfor %}"
    )
    path = write(tmp_path, messages_of(("", "ab", "12", "cd", "12店"), "uaua"))
    (row,) = tokenization.tokenize_chats(path, tokenizer, 1000, True).rows
    assert runs(tokenizer, row) == [(False, "ab<a>"), (True, " 12</s> "), (False, "cd<a>"), (True, " 12店</s> ")]


def test_a_special_token_that_swallows_the_newline(tokenization, tmp_path):
    """Phi-3's <|end|> and <|assistant|> take the white space after them; its stop is two tokens."""
    from tokenizers import AddedToken, Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    backend = Tokenizer(models.WordLevel({"a": 0, "12": 1, "no": 2, "?": 3}, unk_token="?"))
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    backend.add_special_tokens([AddedToken(name, rstrip=True) for name in ("<|user|>", "<|assistant|>", "<|end|>")])
    tokenizer = with_template(
        PreTrainedTokenizerFast(tokenizer_object=backend, eos_token="<|endoftext|>"), FAMILIES["phi 3"]
    )
    (row,) = tokenization.tokenize_chats(
        write(tmp_path, messages_of(("", "a", "12 no"), "ua")), tokenizer, 99, True
    ).rows
    assert tokenizer.convert_ids_to_tokens(row["input_ids"]) == [
        *("<|user|>", "a", "<|end|>", "<|assistant|>"),
        *("12", "no", "<|end|>", "<|endoftext|>"),
    ]
    assert row["labels"] == [-100] * 4 + row["input_ids"][4:]


def test_text_that_the_tokenizer_normalizes(tokenization, bytes_tokenizer, tmp_path):
    """Qwen's tokenizers compose Korean (NFC), so that the characters of the text are more than those of the tokens."""
    from tokenizers import normalizers

    tokenizer = with_template(copy.deepcopy(bytes_tokenizer), FAMILIES["chatml"])
    tokenizer.backend_tokenizer.normalizer = normalizers.NFC()
    said = tuple(unicodedata.normalize("NFD", text) for text in LANGUAGES["ko"])
    assert said != LANGUAGES["ko"]
    (row,) = tokenization.tokenize_chats(write(tmp_path, messages_of(said, "suaua")), tokenizer, 1000, True).rows
    assert runs(tokenizer, row) == marked(FAMILIES["chatml"].text(LANGUAGES["ko"], "suaua"))


MARKED = (
    "{%% for m in messages %%}<|im_start|>{{ m.role }}\n{%% if m.role == 'assistant' %%}%s{%% else %%}"
    "{{ m.content + '<|im_end|>' }}{%% endif %%}\n{%% endfor %%}"
    "{%% if add_generation_prompt %%}<|im_start|>assistant\n{%% endif %%}"
)


@pytest.mark.parametrize(
    "turn",
    [
        "{% generation %}{{ m.content }}<|im_end|>{% endgeneration %}",
        "{% generation %}{{ m.content }}{% endgeneration %}<|im_end|>",  # would never learn to stop
    ],
)
def test_markers_of_the_template_itself(tokenization, bytes_tokenizer, tmp_path, turn):
    tokenizer = bytes_tokenizer
    tokenizer.chat_template = MARKED % turn
    (row,) = tokenization.tokenize_chats(
        write(tmp_path, messages_of(LANGUAGES["en"], "uaua")), tokenizer, 99, True
    ).rows
    learnt = [text.rstrip("\n") for labels, text in runs(tokenizer, row) if labels]
    assert learnt == ["It is 12 34.<|im_end|>", "9 to 17, no break.<|im_end|>"]


@pytest.mark.parametrize(
    "template",
    [
        "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}",  # no prompt for the assistant
        "{{ messages | length }}{% for m in messages %}{{ m.content }}{% endfor %}",  # the start changes
    ],
)
def test_a_template_that_hides_the_assistant_is_refused(tokenization, bytes_tokenizer, tmp_path, template):
    bytes_tokenizer.chat_template = template
    path = write(tmp_path, messages_of(LANGUAGES["en"], "ua"))
    with pytest.raises(UserError, match=r"^chats:1: the chat template .*assistant_only_loss=false$"):
        tokenization.tokenize_chats(path, bytes_tokenizer, 1000, True)


def test_a_chat_that_begins_with_the_assistant(tokenization, bytes_tokenizer, tmp_path):
    """Markers show where it speaks; a prompt before the first turn there is none."""
    path = write(tmp_path, messages_of(("", "Hello.", "Hi?", "Yes."), "aua"))
    tokenizer = with_template(bytes_tokenizer, FAMILIES["tiny"])
    (row,) = tokenization.tokenize_chats(path, tokenizer, 1000, True).rows
    assert [text for labels, text in runs(tokenizer, row) if labels] == ["Hello.<|im_end|>", "Yes.<|im_end|>"]
    tokenizer = with_template(bytes_tokenizer, FAMILIES["chatml"])
    with pytest.raises(UserError, match=r"^chats:1: .* does not show where the assistant's turn stands \(message 1\)"):
        tokenization.tokenize_chats(path, tokenizer, 1000, True)


WITHOUT_SYSTEM = (
    "{% for m in messages %}{% if m.role != 'system' %}<|{{ m.role }}|>{{ m.content }}<|end|>{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
REFUSED = [
    # Family or template, the shape of the second chat, the reason.
    (
        "gemma 2",
        "sua",
        "takes no system turn (System role not supported); put the system text into the first user turn",
    ),
    (
        "gemma 2",
        "uua",
        "refuses the chat (Conversation roles must alternate user/assistant/user/assistant/...); change",
    ),
    ("gemma 2", "suua", "refuses the chat (System role not supported); change its turns or remove the line"),
    ("gemma 3", "au", "refuses the chat (Conversation roles must alternate user/assistant/user/assistant/...); change"),
    ("mistral 7b v0.2", "sua", "takes no system turn (Conversation roles must alternate"),
    ("mistral 7b v0.3", "sua", "drops the system turn; put the system text into the first user turn"),
    (WITHOUT_SYSTEM, "sua", "drops the system turn; put the system text into the first user turn"),
    ("{{ messages[0].content + 1 }}", "ua", "refuses the chat (can only concatenate str"),
    ("{{ messages[0].what.ever }}", "ua", "refuses the chat ('dict object' has no attribute 'what'"),
    ("{% for m in messages %}", "ua", "refuses the chat (Unexpected end of template"),
]


@pytest.mark.parametrize("assistant_only_loss", [True, False])
@pytest.mark.parametrize(("name", "shape", "reason"), REFUSED, ids=[f"{n[:20]} {s}" for n, s, _ in REFUSED])
def test_a_chat_that_the_template_refuses(
    tokenization, bytes_tokenizer, tmp_path, name, shape, reason, assistant_only_loss
):
    tokenizer = with_template(bytes_tokenizer, FAMILIES.get(name) or Family(name, "", ""))
    first = [messages_of(LANGUAGES["en"], "ua")] if name in FAMILIES else []
    contents = [f"{role} {number}." for number, role in enumerate(shape)]
    path = write(tmp_path, *first, messages_of(tuple(contents) if shape[0] == "s" else ("", *contents), shape))
    with pytest.raises(UserError) as error:
        tokenization.tokenize_chats(path, tokenizer, 1000, assistant_only_loss)
    assert str(error.value).startswith(f"chats:{len(first) + 1}: the chat template of base_model {reason}")


def test_what_is_no_chat_stops_with_file_and_line(tokenization, bytes_tokenizer, tmp_path):
    tokenizer = with_template(bytes_tokenizer, FAMILIES["tiny"])
    path = write(tmp_path, messages_of(LANGUAGES["en"], "ua"), [{"role": "bot", "content": "a"}])
    with pytest.raises(UserError, match=r"^chats:2: message 1 has the unknown role 'bot'"):
        tokenization.tokenize_chats(path, tokenizer, 1000, True)


@pytest.fixture
def three_lengths(tokenization, bytes_tokenizer, tmp_path):
    """A tokenizer, chats of which each is ten tokens longer than the one before, and one that nobody answers."""
    tokenizer = with_template(bytes_tokenizer, FAMILIES["tiny"])
    chats = [messages_of(("", "?" * number, "!" * number), "ua") for number in (4, 9, 14)]
    path = write(tmp_path, *chats, messages_of(("", "?"), "u"))
    lengths = [len(row["input_ids"]) for row in tokenization.tokenize_chats(path, tokenizer, 1000, True).rows]
    assert [length - lengths[0] for length in lengths] == [0, 10, 20]
    return tokenizer, path, lengths


def test_longer_chats_are_left_out_and_counted(tokenization, three_lengths):
    tokenizer, path, lengths = three_lengths
    chats = tokenization.tokenize_chats(path, tokenizer, lengths[1], True)
    assert [len(row["input_ids"]) for row in chats.rows] == lengths[:2]
    assert chats.left_out == {"longer than max_length": 1, "without an assistant turn": 1}
    assert (chats.num_chats, chats.truncated, chats.longest) == (4, 0, lengths[2])


def test_longer_chats_are_cut_and_counted(tokenization, three_lengths):
    tokenizer, path, lengths = three_lengths
    whole = tokenization.tokenize_chats(path, tokenizer, 1000, True).rows
    chats = tokenization.tokenize_chats(path, tokenizer, lengths[1], True, truncation_mode="keep_start")
    assert chats.rows == [{name: row[name][: lengths[1]] for name in row} for row in whole]
    assert chats.left_out == {"without an assistant turn": 1}
    assert (chats.num_chats, chats.truncated, chats.longest) == (4, 1, lengths[2])
    # The answer of the longest chat begins where the cut is.
    first_label = next(i for i, label in enumerate(whole[2]["labels"]) if label != -100)
    chats = tokenization.tokenize_chats(path, tokenizer, first_label, True, truncation_mode="keep_start")
    assert chats.left_out == {"without an assistant turn": 1, "without a label": 1}
    assert (len(chats.rows), chats.truncated) == (2, 1)


def test_chats_come_in_order_whatever_is_tokenized_at_once(tokenization, bytes_tokenizer, tmp_path, monkeypatch):
    tokenizer = with_template(bytes_tokenizer, FAMILIES["chatml"])
    path = write(tmp_path, *(messages_of(("", f"{i}?", f"{i}!"), "ua") for i in range(7)))
    rows = tokenization.tokenize_chats(path, tokenizer, 1000, True).rows
    assert [tokenizer.decode([t for t in row["labels"] if t != -100]) for row in rows] == [
        f"{i}!<|im_end|>\n" for i in range(7)
    ]
    monkeypatch.setattr(tokenization, "NUM_CHATS_AT_ONCE", 3)
    assert tokenization.tokenize_chats(path, tokenizer, 1000, True).rows == rows


def test_tokens_that_the_model_does_not_know(tokenization, bytes_tokenizer, tmp_path):
    tokenizer = with_template(bytes_tokenizer, FAMILIES["chatml"])
    path = write(tmp_path, messages_of(LANGUAGES["en"], "ua"))
    highest = max(tokenizer.convert_tokens_to_ids([tokenizer.pad_token, "<|im_start|>", "<|im_end|>"]))
    assert tokenization.tokenize_chats(path, tokenizer, 1000, True, vocab_size=highest + 1).num_chats == 1
    with pytest.raises(UserError, match=f"token {highest}, but base_model knows {highest} tokens"):
        tokenization.tokenize_chats(path, tokenizer, 1000, True, vocab_size=highest)
    padded = copy.deepcopy(tokenizer)
    padded.pad_token = "</think>"  # no chat holds it, but a padded batch does
    with pytest.raises(UserError, match=f"token {padded.pad_token_id}, but base_model knows"):
        tokenization.tokenize_chats(path, padded, 1000, True, vocab_size=highest + 1)


def test_a_tokenizer_without_bounds(tokenization, tmp_path):
    class Slow:
        is_fast = False

    with pytest.raises(UserError, match=r"tokenizer\.json or set assistant_only_loss=false"):
        tokenization.tokenize_chats(tmp_path, Slow(), 1000, True)
