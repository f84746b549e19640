"""The last layer of a model, computed only at the tokens whose states are asked for."""

import contextlib
from collections.abc import Iterator
from typing import Any

import torch

_TREAT_EACH_TOKEN_ALONE = ("mlp", "q_proj", "o_proj")  # keys and values are needed of all tokens


class LastLayer:
    """``with LastLayer(decoder).only_at(places, num_tokens): decoder(...)``; what is left out is zero, never read."""

    def __init__(self, decoder: torch.nn.Module) -> None:
        layers = next(module for module in decoder.modules() if isinstance(module, torch.nn.ModuleList))
        named = layers[-1].named_modules()
        self._modules = [module for name, module in named if name.rpartition(".")[2] in _TREAT_EACH_TOKEN_ALONE]

    @contextlib.contextmanager
    def only_at(self, places: torch.Tensor, num_tokens: int) -> Iterator[None]:
        def gather(module: torch.nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...]:
            return args[0][:, places], *args[1:]

        def scatter(module: torch.nn.Module, args: tuple[Any, ...], output: torch.Tensor) -> torch.Tensor:
            return output.new_zeros(1, num_tokens, output.shape[-1]).index_copy_(1, places, output)

        with contextlib.ExitStack() as hooks:
            for module in self._modules:
                hooks.callback(module.register_forward_pre_hook(gather).remove)
                hooks.callback(module.register_forward_hook(scatter).remove)
            yield
