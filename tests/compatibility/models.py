"""Models of other libraries, with inputs, and one plain `Sequential`."""

import os
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

os.environ.setdefault("HF_HUB_OFFLINE", "1")


class Logits(nn.Module):
    """Only the logits of a transformers classifier, as a function of token numbers."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, tokens: Tensor) -> Tensor:
        logits: Tensor = self.model(input_ids=tokens).logits
        return logits


class Case(NamedTuple):
    """A model with random weights, its inputs, and the number of its modules that `convert` changes."""

    make: Callable[[], nn.Module]
    inputs: Callable[[], Tensor]
    num_converted: int


def bert() -> nn.Module:
    """BERT for sequence classification: its pooler is a dense layer with tanh, its head a dense layer."""
    from transformers import BertConfig, BertForSequenceClassification

    sizes: dict[str, Any] = {"hidden_size": 16, "num_attention_heads": 2, "intermediate_size": 32, "vocab_size": 50}
    sizes |= {"num_hidden_layers": 2, "max_position_embeddings": 16, "num_labels": 1}
    config = BertConfig(**sizes)
    config._attn_implementation = "eager"
    return Logits(BertForSequenceClassification(config)).double().eval()


def sequential() -> nn.Module:
    return nn.Sequential(nn.Linear(5, 8), nn.ReLU(), nn.Linear(8, 4), nn.Tanh(), nn.Linear(4, 1), nn.Sigmoid()).double()


CASES = {
    "transformers BERT classifier": Case(bert, lambda: torch.randint(0, 50, (4, 7)), 15),
    "nn.Sequential": Case(sequential, lambda: torch.randn(4, 5, dtype=torch.double), 6),
}
