"""quantize_model: the step as a whole, what it refuses, and what it leaves behind when it fails."""

import contextlib
import json
import os
import re
import shutil
import sys
from pathlib import Path

import pytest

from slmkit import lineage
from slmkit.errors import UserError

ROOT = Path(__file__).resolve().parents[2]
SERVING = ROOT / "components" / "deploy_endpoint" / "serving"
REGISTRATION = ROOT / "components" / "register_model"
QUESTIONS = {"en": "When does the center open?", "ja": "センターは何時に開きますか。", "ko": "센터는 몇 시에 엽니까?"}


@pytest.fixture(scope="module")
def main(load_main):
    sys.path += [str(folder) for folder in (SERVING, REGISTRATION) if str(folder) not in sys.path]
    return load_main("quantize_model")


def write_items(path: Path, references: list[str], **more: object) -> Path:
    """A question for each reference, in turns in English, Japanese and Korean."""
    with path.open("w", encoding="utf-8") as file:
        for i, reference in enumerate(references):
            language = list(QUESTIONS)[i % 3]
            message = {"role": "user", "content": f"{i}. {QUESTIONS[language]}"}
            item = {"id": f"q{i}", "messages": [message], "references": [reference], "slices": {"language": language}}
            file.write(json.dumps(item | more, ensure_ascii=False) + "\n")
    return path


@pytest.fixture(scope="module")
def step(run_component, small_model, tmp_path_factory):
    """The step as a process, once, and what it gave."""
    folder = tmp_path_factory.mktemp("step")
    source = shutil.copytree(small_model, folder / "model")
    (source / "LICENSE.txt").write_text("Free to use.\n")
    before = {file.name: file.read_bytes() for file in source.iterdir()}
    done = run_component(
        "quantize_model",
        env={"PYTHONPATH": os.pathsep.join([str(ROOT / "components" / "_shared"), str(SERVING)])},
        model=source,
        eval_items=write_items(folder / "items.jsonl", ["9:00", "九時", "아홉 시", "10:00", "十時", "열 시"]),
        quantized_model=folder / "quantized",
        report=folder / "report",
        max_quality_drop=1,
        max_new_tokens=8,
        num_threads=1,
    )
    assert done.returncode == 0, done.stderr
    assert {file.name: file.read_bytes() for file in source.iterdir()} == before, "the original was changed"
    return folder, done


def test_the_folder_is_whole(step):
    folder, _ = step
    for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja", "generation_config.json"):
        assert (folder / "quantized" / name).read_bytes() == (folder / "model" / name).read_bytes(), name
    assert (folder / "quantized" / "LICENSE.txt").read_text() == "Free to use.\n"
    assert not list((folder / "quantized").glob("*.safetensors"))
    found = lineage.read(folder / "quantized")
    assert found["component"] == "quantize_model"
    assert found["inputs"]["model"]["sha256"] == lineage.sha256(folder / "model")


def test_the_model_does_not_depend_on_the_repository_around_the_builder(step):
    import onnx
    import onnxruntime_genai

    folder, _ = step
    model = onnx.load(folder / "quantized" / "model.onnx", load_external_data=False)
    assert model.producer_version == f"{onnxruntime_genai.__version__}+{onnxruntime_genai.__commit__[:7]}"


def test_the_report_says_what_the_files_are(step):
    folder, _ = step
    report = json.loads((folder / "report" / "quantization.json").read_text())
    quantized = folder / "quantized"
    after = (quantized / "model.onnx").stat().st_size + (quantized / "model.onnx.data").stat().st_size
    before = (folder / "model" / "model.safetensors").stat().st_size
    assert (report["size_bytes"]["before"], report["size_bytes"]["after"]) == (before, after)
    assert report["size_bytes"]["ratio"] == pytest.approx(after / before)
    assert report["model_sha256"] == lineage.sha256(quantized)
    assert report["source_model_sha256"] == lineage.sha256(folder / "model")
    assert (report["method"], report["passed"], report["max_quality_drop"]) == ("onnx-int4", True, 1)
    assert report["metric"]["num_items"] == 6
    assert set(report["slices"]) == {"en", "ja", "ko"}
    assert report["tokens_per_second"]["num_threads"] == 1
    assert report["tokens_per_second"]["prefill"]["before"] > 0
    page = (folder / "report" / "report.html").read_text(encoding="utf-8")
    assert "passed" in page
    assert "MiB" in page


def test_the_quantizers_chatter_stays_in_its_log(step):
    folder, done = step
    assert "MatMul" in (folder / "report" / "quantizer.log").read_text()
    said = done.stdout + done.stderr
    assert "MatMul" not in said
    assert "Saving" not in said
    assert len(done.stdout.splitlines()) <= 7, done.stdout


@pytest.fixture
def run(main, small_model, tmp_path):
    """Run the step in this process, over what is given."""

    def call(**given: object):
        (tmp_path / "items.jsonl").exists() or write_items(tmp_path / "items.jsonl", ["9:00"])
        settings = {"max_new_tokens": 8, "num_threads": 1}
        paths = {name: tmp_path / name for name in ("quantized_model", "report")}
        paths |= {"model": small_model, "eval_items": tmp_path / "items.jsonl"}
        return main.run(main.Args(**(paths | settings | given)))

    return call


@pytest.mark.parametrize(
    ("verdict", "of_this_model", "message", "code"),
    [("reject", True, "verdict on tuned is reject", 3), ("promote", False, "not the model that was evaluated", 4)],
)
def test_only_the_model_that_was_promoted(verdict, of_this_model, message, code, run, small_model, tmp_path):
    decided = {
        "verdict": verdict,
        "candidate": "tuned",
        "baseline": "base",
        "model_sha256": lineage.sha256(small_model) if of_this_model else "1" * 64,
        "comparison_sha256": "0" * 64,
        "reasons": [{"rule": "superiority", "outcome": "pass", "text": "t"}],
    }
    (tmp_path / "decision").write_text(json.dumps(decided), encoding="utf-8")
    write_items(tmp_path / "items.jsonl", ["9:00"])
    with pytest.raises(UserError, match=message) as caught:
        run(decision=tmp_path / "decision")
    assert caught.value.exit_code == code
    assert not (tmp_path / "report").exists()


def test_a_drop_that_is_too_large_leaves_the_report_and_no_model(main, run, small_model, tmp_path):
    """Against what the original itself answers, any changed answer is a loss."""
    import engines

    items = write_items(tmp_path / "items.jsonl", ["?"] * 8)
    engine = engines.load(small_model, 1)
    answers = []
    for line in items.read_text(encoding="utf-8").splitlines():
        decoder = engine.decoder()
        text = "".join(map(decoder.put, engine.stream(engine.encode_chat(json.loads(line)["messages"]), 16)))
        answers.append(text + decoder.end())
    write_items(items, answers)
    with pytest.raises(UserError, match="max_quality_drop=0: the original stays") as caught:
        run(metric="exact_match", max_quality_drop=0.0, max_new_tokens=16, group_size=128)
    assert caught.value.exit_code == main.TOO_LARGE_A_DROP
    report = json.loads((tmp_path / "report" / "quantization.json").read_text())
    assert report["passed"] is False
    assert report["metric"]["before"] == 1
    assert report["metric"]["low"] < report["metric"]["difference"] < 0
    assert list((tmp_path / "quantized_model").iterdir()) == []


def quality(main, before: list[float], after: list[float], **given: object):
    """What was found of two models by made-up figures."""
    import quantized_quality
    from paired_difference import paired_difference

    chat = [{"role": "user", "content": "?"}]
    items = [quantized_quality.Item(str(i), chat, ["a"], "ja", str(i)) for i in range(len(before))]
    answers = [[f"answer {score}" for score in scores] for scores in (before, after)]
    sides = [
        quantized_quality.Side("a" * 64, 5_951_616, 6_448_549, 1.06391, answers[0], before, 18221.48, 366.4297),
        quantized_quality.Side("b" * 64, 1_494_000, 1_992_392, 1.06784, answers[1], after, 23135.92, 3834.598),
    ]
    args = main.Args(model=Path("m"), eval_items=Path("e"), quantized_model=Path("q"), report=Path("r"), **given)
    difference = paired_difference(before, after, range(len(before)))
    slices = {"ja": (sum(before) / len(before), sum(after) / len(after), difference)}
    return quantized_quality.Quality(args, items, *sides, difference, slices)


def test_questions_that_could_not_show_a_loss_do_not_pass(main):
    """One right answer of a hundred, or none, can be lost within two points: that would let anything pass."""
    few = [1.0] + [0.0] * 99
    assert not quality(main, few, few).passed
    assert not quality(main, few, [0.0] * 100).passed
    assert "of the original is 0.0100, so it could not fall by more than" in quality(main, few, few).why_not
    assert not quality(main, [0.0] * 100, [0.0] * 100, max_quality_drop=0.0).passed
    assert quality(main, [0.0] * 100, [0.0] * 100, max_quality_drop=1.0).passed  # whoever takes any loss
    assert quality(main, few, few, max_quality_drop=0.009).passed
    assert quality(main, [1.0] * 100, [1.0] * 98 + [0.0] * 2).passed
    assert "falls by 0.0300" in quality(main, [1.0] * 100, [1.0] * 97 + [0.0] * 3).why_not


def test_the_page_shows_digits_that_mean_something(main):
    import quantization_report

    shown = quantization_report.page(quality(main, [1.0] * 7 + [0.0], [1.0] * 7 + [0.0], metric="exact_match"))
    rows = [re.sub(r"<[^>]+>", "|", row) for row in shown.split("<tr>")]
    found = {cells[1]: cells[3::2] for cells in (row.split("|") for row in rows) if len(cells) > 3}
    for name, *cells in (
        ("weights (MiB)", "5.68", "1.42", "0.251"),
        ("tokens a second, writing", "366", "3,830", "10.5"),
        ("tokens a second, reading the prompt", "18,200", "23,100", "1.27"),
        ("perplexity of the references", "1.064", "1.068", "1.004"),
        ("exact_match (%)", "87.5", "87.5", "1"),
        ("ja", "8", "87.5", "87.5", "0"),
        ("language", "questions", "exact_match before (%)", "after (%)", "change (points)", "95 % interval"),
    ):
        assert found[name][: len(cells)] == cells


def test_speeds_are_those_of_the_median_question_by_turns(main, monkeypatch):
    """A clock that each token moves on: the slow one takes 2 s for a prompt, then half a second each."""
    import quantized_quality

    now, asked = [0.0], []

    class Engine:
        def __init__(self, name: str, seconds: float) -> None:
            self.name, self.seconds = name, seconds

        def stream(self, prompt: list[int], max_new_tokens: int):
            asked.append((self.name, prompt[0]))
            for place in range(prompt[-1]):
                now[0] += self.seconds * (0.5 if place else 2)
                yield place

        def decoder(self):
            return self

        put, end = staticmethod(str), staticmethod(str)

    monkeypatch.setattr(quantized_quality.time, "perf_counter", lambda: now[0])
    prompts = [[0, 0, 0, 3], [], [2, 1], [3, 0, 0, 0, 0, 5]]  # the last number is how many tokens are answered
    slow, fast = quantized_quality._answers([Engine("slow", 1), Engine("fast", 0.1)], prompts, 8)
    assert [answer and answer.text for answer in slow] == ["012", None, "0", "01234"]
    assert quantized_quality._speeds(slow) == (2, 2)  # 4, 2 and 6 tokens in 2 seconds; a token in half of one
    assert quantized_quality._speeds(fast) == (pytest.approx(20), pytest.approx(20))
    assert asked[2:] == [("fast", 0), ("slow", 0), ("fast", 2), ("slow", 2), ("slow", 3), ("fast", 3)]


def test_a_full_disk_leaves_nothing(run, tmp_path):
    resource = pytest.importorskip("resource")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, limits[1]))
    try:
        with pytest.raises(Exception, match=r"(?i)large|space|write"):
            run()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert list((tmp_path / "quantized_model").iterdir()) == []
    assert not (tmp_path / "report").exists()


def drop(*names: str):
    return lambda folder: [(folder / name).unlink() for name in names]


def configure(**settings: object):
    def change(folder: Path) -> None:
        config = json.loads((folder / "config.json").read_text())
        (folder / "config.json").write_text(json.dumps(config | settings))

    return change


def cut(folder: Path) -> None:
    os.truncate(folder / "model.safetensors", 100_000)


def poison(folder: Path) -> None:
    from safetensors.torch import load_file, save_file

    weights = load_file(folder / "model.safetensors")
    weights["model.norm.weight"][3] = float("nan")
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})


def as_adapter(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder / "adapter_model.safetensors")
    (folder / "adapter_config.json").write_text("{}")


def as_pickle(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")


def with_code_in_the_tokenizer(folder: Path) -> None:
    config = json.loads((folder / "tokenizer_config.json").read_text())
    config["auto_map"] = {"AutoTokenizer": ["mine.Tokenizer", None]}
    (folder / "tokenizer_config.json").write_text(json.dumps(config))


def index(weight_map: object):
    def change(folder: Path) -> None:
        (folder / "model.safetensors").rename(folder / "elsewhere.safetensors")
        (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))

    return change


def test_weights_that_are_not_loaded_do_not_count(main, small_model, tmp_path):
    """Some models have the same weights twice, as another library reads them."""
    import source_model

    source = shutil.copytree(small_model, tmp_path / "source")
    expected = (source / "model.safetensors").stat().st_size
    shutil.copyfile(source / "model.safetensors", source / "consolidated.safetensors")
    assert source_model.weight_bytes(source) == expected
    (source / "model.safetensors").rename(source / "model-00001-of-00001.safetensors")
    (source / "model.safetensors.index.json").write_text('{"weight_map": {"a": "model-00001-of-00001.safetensors"}}')
    assert source_model.weight_bytes(source) == expected


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (drop("tokenizer.json"), "no tokenizer"),
        (drop("chat_template.jinja"), "no chat template"),
        (drop("config.json"), "no config.json"),
        (drop("model.safetensors"), "no weights in safetensors"),
        (lambda folder: (folder / "config.json").write_text("{"), "not JSON"),
        (lambda folder: (folder / "config.json").write_text("[]"), "a list, not an object"),
        (lambda folder: (folder / "genai_config.json").write_text("{}"), "an ONNX model already"),
        (configure(quantization_config={"quant_method": "gptq"}), r"quantized already \(gptq\)"),
        (configure(architectures=["FalconForCausalLM"]), "FalconForCausalLM has no ONNX build"),
        (as_adapter, "merge it into its base model"),
        (lambda folder: (folder / "adapter_config.json").write_text("{}"), "merge it into its base model"),
        (configure(quantization_config="int4"), r"quantized already \(config.json\)"),
        (configure(quantization_config={"load_in_4bit": True}), r"quantized already \(config.json\)"),
        (configure(architectures=3), "an unnamed architecture has no ONNX build"),
        (configure(architectures=[None]), "an unnamed architecture has no ONNX build"),
        (configure(auto_map={"AutoModelForCausalLM": "mine.Model"}), r"config.json names Python code to run"),
        (with_code_in_the_tokenizer, r"tokenizer_config.json names Python code to run"),
        (as_pickle, "no weights in safetensors"),
        (index({"a": "model-00002-of-00002.safetensors"}), "model-00002-of-00002.safetensors is missing"),
        (index({"a": "../source/elsewhere.safetensors"}), "elsewhere.safetensors is missing"),
        (index(["a"]), "no weight_map of file names"),
        (index({"a": 3}), "no weight_map of file names"),
        (cut, "damaged or cut short"),
        (poison, "model.norm.weight holds NaN"),
    ],
)
def test_a_model_that_cannot_be_quantized(run, small_model, tmp_path, change, said):
    source = shutil.copytree(small_model, tmp_path / "source")
    change(source)
    with pytest.raises(UserError, match=said):
        run(model=source)
    assert not (tmp_path / "quantized_model").exists()


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        ("", "no eval items"),
        ('{"id": "a", "messages": [{"role": "user", "content": "?"}]}', ":1: eval item 'a' needs 'references'"),
        ('{"id": "a", "messages": [], "references": ["b"]}', ":1: eval item 'a': a chat needs"),
        ('{"messages": [{"role": "user", "content": "?"}], "references": ["b"]}', ":1: 'id' is missing"),
        (
            '{"id": "a", "messages": [{"role": "assistant", "content": "?"}], "references": ["b"]}',
            "ends with the assistant",
        ),
    ],
)
def test_items_that_cannot_be_asked(run, tmp_path, lines, said):
    (tmp_path / "items.jsonl").write_text(lines)
    with pytest.raises(UserError, match=said):
        run()


def test_a_group_size_that_the_cpu_has_no_code_for(run):
    with pytest.raises(UserError, match="group_size 48 is not one of 32, 64, 128"):
        run(group_size=48)


def test_questions_that_are_all_too_long(run):
    with pytest.raises(UserError, match="no item can be asked: with max_new_tokens=2048"):
        run(max_new_tokens=2048)


def test_output_below_python_is_captured_too(main, tmp_path, capfd):
    import quantizer_log

    with contextlib.suppress(ValueError), quantizer_log.captured(tmp_path / "log"):
        os.write(1, b"from C\n")
        raise ValueError
    os.write(1, b"after\n")
    assert (tmp_path / "log").read_text() == "from C\n"
    assert capfd.readouterr().out == "after\n"
