"""Sign the chats of each shard for prepare_dataset, as the entry script of an Azure ML parallel job."""

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path

_FOLDER = Path(__file__).resolve().parent
_output: Path


def init() -> None:
    """Called once in each worker process."""
    global _output
    sys.path[:0] = [str(_FOLDER), str(_FOLDER.parent / "_shared")]  # the snapshot is the folder above, see the spec
    parser = argparse.ArgumentParser()
    parser.add_argument("--signatures", type=Path, required=True)
    _output = parser.parse_known_args()[0].signatures  # Azure ML adds arguments of its own


def run(mini_batch: list[str]) -> list[str]:
    """Called with the paths of some shards; a line for each."""
    from stored_signatures import write_signatures

    from slmkit.records import content_id

    lines = []
    for shard in map(Path, mini_batch):
        path = _output / f"{shard.stem}-{content_id(str(shard))}.npy"
        lines.append(f"{shard.name}: {write_signatures(path, _blocks(shard))} chats signed")
    return lines


def _blocks(shard: Path) -> Iterator[list[str]]:
    """The texts of the well-formed chats; the others are refused by prepare_dataset."""
    from chat_selection import read_chats
    from chat_texts import asked_and_answered
    from minhash_signatures import BLOCK
    from near_duplicates import joined

    texts: list[str] = []
    size = 0
    for chat, _, _ in read_chats(shard, lambda _: None):
        texts.append(joined(*asked_and_answered(chat)))
        size += len(texts[-1])
        if size >= BLOCK:
            yield texts
            texts, size = [], 0
    if texts:
        yield texts
