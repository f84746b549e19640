"""The entry of gptq.yml: the work of main.py by GPTQ, which needs calibration chats and an environment of its own."""

from dataclasses import dataclass
from pathlib import Path

import main

from slmkit import cli

SPEC = Path(__file__).with_name("gptq.yml")


@dataclass(frozen=True, kw_only=True)
class GptqArgs(main.Args):
    calibration_chats: Path
    method: str = "gptq-w4a16"
    group_size: int = 128
    num_calibration_chats: int = 256
    max_length: int = 1024
    seed: int = 42


if __name__ == "__main__":
    main.run(cli.parse(GptqArgs, SPEC), SPEC)
