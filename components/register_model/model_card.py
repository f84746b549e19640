"""The model card: what a version is made of, how it was measured, why it was promoted or not, and its limits."""

import json
from pathlib import Path
from typing import Any

import jinja2

from slmkit import lineage
from slmkit.errors import UserError

WEIGHTS = ("*.safetensors", "*.bin", "*.onnx", "*.gguf")


def render(
    name: str, model: Path, manifest: dict[str, Any], decision: dict[str, Any], comparison: dict[str, Any] | None
) -> str:
    environment = jinja2.Environment(  # noqa: S701 (Markdown, not HTML)
        loader=jinja2.FileSystemLoader(Path(__file__).parent), trim_blocks=True, lstrip_blocks=True
    )
    environment.filters |= {"score": score, "points": points, "cell": cell}
    return environment.get_template("MODEL_CARD.md.j2").render(
        name=name,
        summary=summary(decision),
        architecture=architecture(model),
        manifest=manifest,
        training=lineage.read(model),
        made_by=made_by,
        decision=decision,
        comparison=comparison,
        shares=(comparison or {}).get("share_metrics", []),
    )


def summary(decision: dict[str, Any]) -> str:
    """The decision in a line, which is also the description in the registry."""
    superiority = decision["reasons"][0]["text"]
    said = f"{decision['candidate']}, judged {decision['verdict']} against {decision['baseline']}: {superiority}."
    return " ".join(said.split())  # names with line breaks would write the card


def architecture(model: Path) -> str:
    """One line about the model; a folder without configuration or weights is refused."""
    for file in ("config.json", "adapter_config.json"):
        if (model / file).is_file():
            try:
                config = json.loads((model / file).read_text(encoding="utf-8"))
            except ValueError as error:
                raise UserError(f"{model / file}: not JSON: {error}") from None
            break
    else:
        raise UserError(f"{model}: no config.json; a model folder in Hugging Face layout is needed")
    weights = [file for pattern in WEIGHTS for file in model.rglob(pattern)]
    if not weights:
        raise UserError(f"{model}: no weights ({', '.join(WEIGHTS)}); was the training step finished?")
    facts = ["model_type", "hidden_size", "num_hidden_layers", "vocab_size", "peft_type", "r", "lora_alpha"]
    said = [f"{fact} {config[fact]}" for fact in facts if fact in config]
    return ", ".join([*said, f"{sum(file.stat().st_size for file in weights) / 1e6:,.1f} MB of weights"])


def made_by(entry: dict[str, Any]) -> str:
    made = entry.get("lineage")
    if not made:
        return "not known"
    return cell(f"{made['component']} " + ", ".join(f"{name}={value}" for name, value in made["parameters"].items()))


def score(interval: dict[str, float | None], is_share: bool = True) -> str:
    show = "{:.1%}".format if is_share else "{:.3g}".format
    low, high = interval["low"], interval["high"]
    return show(interval["mean"]) + ("" if low is None else f" ({show(low)} to {show(high)})")


def points(interval: dict[str, float | None], is_share: bool = True) -> str:
    """A difference of shares in percentage points, of other numbers as it is."""
    low, high = interval["low"], interval["high"]
    show = (lambda share: f"{100 * share:+.1f}") if is_share else "{:+.3g}".format
    unit = " points" if is_share else ""
    return show(interval["difference"]) + unit + ("" if low is None else f" ({show(low)} to {show(high)})")


def cell(value: object) -> str:
    """A text that cannot break the Markdown table that it stands in."""
    return " ".join(str(value).split()).replace("|", "\\|")
