#!/usr/bin/env python
"""Print what scripts/requirements.txt is made from: the pins of the environments and the tools to work with."""

from pathlib import Path

import yaml

ROOT = Path(__file__).resolve().parent.parent
# Gigabytes of language models that only one choice of one input needs; an older Transformers than all others have.
LEFT_OUT = {"privacy", "gptq"}
GPU_ONLY = ("bitsandbytes", "liger-kernel")  # of no use on a laptop; hundreds of megabytes, seconds at each import
TOOLS = ("aiohttp", "check-jsonschema", "hypothesis", "psutil", "pytest", "pytest-xdist", "rich", "ruff", "zizmor")
SERVER = ("openai",)  # what `transformers serve` reads requests with: the endpoint to try things with
WORKSPACE = ("azure-storage-blob", "certifi", "cryptography", "pyjwt")  # what scripts/localml/workspace is made of


def main() -> None:
    """One requirement a line; an environment's pin wins over a tool without one."""
    pins: set[str] = {*TOOLS, *SERVER, *WORKSPACE}
    for conda_file in sorted((ROOT / "environments").glob("*/conda.yml")):
        if conda_file.parent.name in LEFT_OUT:
            continue
        for entry in yaml.safe_load(conda_file.read_text(encoding="utf-8"))["dependencies"]:
            pins.update(entry["pip"] if isinstance(entry, dict) else ())
    print("\n".join(sorted(pin for pin in pins if not pin.startswith(GPU_ONLY))))


if __name__ == "__main__":
    main()
