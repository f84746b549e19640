"""import_model looks at the tokenizer and the chat template with the eyes of somebody who will train on chats."""

import pytest

BODY = (
    "{% for m in messages %}{{ '<|im_start|>' + m.role + '\n' + m.content + '<|im_end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
REFUSES = "{% if messages[0].role == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}" + BODY
DROPS = BODY.replace("for m in messages", "for m in messages if m.role != 'system'")
NO_STOP = BODY.replace("<|im_end|>", "")
OTHER_PROMPT = BODY.replace("{{ '<|im_start|>assistant\n' }}", "{{ '<|im_start|>bot\n' }}")


@pytest.fixture(scope="module")
def template_checks(load_main):
    load_main("import_model")
    import template_checks

    return template_checks


@pytest.fixture
def tokenizer(small_model):
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(small_model)


def look_at(template_checks, tokenizer, eos="<|im_end|>"):
    """What needs a look, by name, and the tags."""
    from transformers import GenerationConfig

    ids = tokenizer.convert_tokens_to_ids(eos)
    findings, tags = template_checks.check(tokenizer, GenerationConfig(eos_token_id=ids), "the model")
    assert [finding.check for finding in findings] == [
        *("system role", "stop token", "generation prompt", "text in en", "text in ja", "text in ko")
    ]
    return {finding.check: finding.text for finding in findings if not finding.passed}, tags


@pytest.mark.parametrize("template", [None, BODY])
def test_nothing_to_say_of_a_good_tokenizer(template_checks, tokenizer, template):
    tokenizer.chat_template = template or tokenizer.chat_template
    assert look_at(template_checks, tokenizer) == ({}, {"system_role": "kept"})


@pytest.mark.parametrize(
    ("template", "role", "expected"),
    [
        (REFUSES, "refused", "system turns are refused by the template (System role not supported); fine-tuning on"),
        (DROPS, "dropped", "system turns are dropped by the template; fine-tuning on"),
    ],
)
def test_template_without_system_role(template_checks, tokenizer, template, role, expected):
    tokenizer.chat_template = template
    found, tags = look_at(template_checks, tokenizer)
    assert tags == {"system_role": role}
    assert list(found) == ["system role"]
    assert found["system role"].startswith(expected)


def test_generation_that_would_not_stop(template_checks, tokenizer):
    stop, eos = (tokenizer.convert_tokens_to_ids(token) for token in ("<|im_end|>", "<|endoftext|>"))
    found, _ = look_at(template_checks, tokenizer, eos="<|endoftext|>")
    assert found == {
        "stop token": f"answers end with <|im_end|> ({stop}), and generation stops only at [{eos}]; add it to "
        "generation_config.json"
    }
    found, _ = look_at(template_checks, tokenizer, eos=["<|endoftext|>", "<|im_end|>"])
    assert found == {}


def test_answer_without_a_stop_token(template_checks, tokenizer):
    tokenizer.chat_template = NO_STOP
    found, _ = look_at(template_checks, tokenizer)
    assert "would not learn to stop" in found.pop("stop token")
    assert found == {}


def test_prompt_that_is_not_how_training_goes_on(template_checks, tokenizer):
    tokenizer.chat_template = OTHER_PROMPT
    found, _ = look_at(template_checks, tokenizer)
    assert "in training something else stands before the answer" in found["generation prompt"]


def test_unknown_tokens_are_reported_with_their_share(template_checks, tokenizer):
    """A vocabulary of a few English words without bytes: every word of Japanese, a line, or Korean is unknown."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    words = dict.fromkeys(word for text in template_checks.TEXTS["en"] for word in text.split())
    vocabulary = {word: i for i, word in enumerate(("<unk>", *words))}
    made = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    made.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    poor = PreTrainedTokenizerFast(tokenizer_object=made, unk_token="<unk>", eos_token="<|im_end|>")
    poor.add_special_tokens({"additional_special_tokens": ["<|im_start|>"]})
    poor.chat_template = BODY
    found, _ = look_at(template_checks, poor)
    num_korean_words = len(" ".join(template_checks.TEXTS["ko"]).split())
    assert found["text in ja"].startswith("3 of 3 tokens (100%) are unknown")
    assert found["text in ko"].startswith(f"{num_korean_words} of {num_korean_words} tokens (100%) are unknown")
    assert "unknown" not in found.get("text in en", "")


def test_text_that_does_not_come_back_is_reported(template_checks, tokenizer):
    """Compatibility normalization makes other characters of some, such as digits of full width."""
    from tokenizers import normalizers

    tokenizer.backend_tokenizer.normalizer = normalizers.NFKC()
    found, _ = look_at(template_checks, tokenizer)
    assert list(found) == ["text in ja"]
    assert "午前９時半" in found["text in ja"]
    assert "午前9時半" in found["text in ja"]


def test_what_needs_a_look_is_printed_tagged_and_in_the_report(load_main, small_model, tmp_path, monkeypatch, capsys):
    import shutil

    main = load_main("import_model")
    folder = shutil.copytree(small_model, tmp_path / "given")
    (folder / "chat_template.jinja").write_text(REFUSES)
    tags = {}
    monkeypatch.setattr(main.tracking, "set_tags", tags.update)
    main.run(main.Args(base_model=tmp_path / "out", report=tmp_path / "report", model_folder=folder))
    assert tags == {"system_role": "refused"}
    assert "\nsystem role: system turns are refused by the template" in capsys.readouterr().out
    assert 'class="warn">look at it' in (tmp_path / "report/report.html").read_text("utf-8")
