"""How often each chat of an origin stands in the training data."""

import math
from collections.abc import Collection, Mapping

import yaml

from slmkit.errors import UserError
from slmkit.records import content_id

_MOST = 100


class Mixture:
    """Copies by origin: 2 is each chat twice, 0.5 every second one, 0 none; 1 where nothing is said.

    The copies of a chat depend on its id and the seed alone, so they stay as they are when other chats come.
    """

    def __init__(self, weights: Mapping[str, float], seed: int):
        self.weights, self._seed = weights, seed

    def num_copies(self, chat_id: str, origin: str) -> int:
        whole = math.floor(weight := self.weights.get(origin, 1))
        if weight == whole:
            return whole
        return whole + (int(content_id("mixture", str(self._seed), chat_id), 16) / 2**64 < weight - whole)

    def check(self, origins: Collection[str]) -> None:
        """Stop for a weight that nothing has, and for weights that leave no chat."""
        unknown = sorted(self.weights.keys() - set(origins))
        if unknown:
            raise UserError(
                f"mixture_weights: no chat has the origin {unknown[0]!r}; the origins are {', '.join(sorted(origins))}"
            )
        if origins and not any(self.weights.get(origin, 1) for origin in origins):
            raise UserError("mixture_weights: every origin has the weight 0, which leaves nothing to train on")


def read_weights(text: str | None) -> dict[str, float]:
    """The weights of `mixture_weights`, a mapping written in YAML or JSON."""
    if text is None:
        return {}
    try:
        weights = yaml.safe_load(text)
    except yaml.YAMLError:
        weights = None
    if not isinstance(weights, dict) or not weights:
        raise UserError(
            f"mixture_weights: {text!r} maps no origins to weights, as {{coverage_seed: 1, evolve: 0.5}} does"
        )
    for origin, weight in weights.items():
        if not isinstance(weight, int | float) or isinstance(weight, bool) or not 0 <= weight <= _MOST:
            raise UserError(f"mixture_weights: {weight!r} for {origin!r} is not a number from 0 to {_MOST}")
    return {str(origin): weight for origin, weight in weights.items()}
