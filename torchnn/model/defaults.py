"""The default settings of training, with the reason for each number.

`torchnn fit` and `torchnn.sklearn.TorchnnClassifier` both take them from here, so that they train the same model. They
were chosen on twelve public sets of 208 to 327,346 rows, one rule for all; `experiments/quality` shows what they reach
and what else was tried.
"""

import math
from typing import Any

import lightning.pytorch as pl

# One layer lost .006 of AUROC on Phoneme and .037 on Sonar; 64 and 64 lost .003 on Phoneme and .001 on Pima.
HIDDEN_SIZES = (128, 128)
LR = 0.02  # .01 lost .003 on Phoneme and .001 on Pima; .03 gained nothing there
MAX_EPOCHS = 200
PATIENCE = 30
# Halving the rate when the loss stops falling lets a network settle without knowing its number of epochs beforehand; a
# run ends when two halvings in a row brought nothing. Half the patience saved a third of the time and lost .004 on
# Phoneme.
PLATEAU = {"factor": 0.5, "patience": 10}
# Not strict: max_steps may end a run before its first validation.
EARLY_STOPPING: dict[str, Any] = {"monitor": "val_loss", "patience": PATIENCE, "strict": False}
BEST_CHECKPOINT: dict[str, Any] = {"monitor": "val_loss"}
TRAINER: dict[str, Any] = {"max_epochs": MAX_EPOCHS, "num_sanity_val_steps": 0, "deterministic": "warn"}
DECAY_PER_EPOCH = 2.0
DECAY_OF_UNKNOWN_EPOCHS = 0.01  # torch's own for AdamW


def decay_for(optimizer: str, steps_per_epoch: float | None) -> float:
    """The weight decay that "auto" stands for: 2 / (steps per epoch) for AdamW, 0 for any other optimiser.

    AdamW averages its weights over about 1/(lr · decay) steps. The same average in epochs suits small and large data
    (Wang and Aitchison 2024, "How to set AdamW's weight decay as you scale model and dataset size"); here it is
    1/(2 lr), 25 epochs at the default rate. Other optimisers add the decay to the gradient, where it has a different
    meaning for each of them.

    Args:
        optimizer: name of a class in torch.optim.
        steps_per_epoch: optimiser steps per epoch; None or infinite if unknown.

    >>> decay_for("AdamW", 100), decay_for("AdamW", None), decay_for("SGD", 100)
    (0.02, 0.01, 0.0)
    """
    if optimizer != "AdamW":
        return 0.0
    if steps_per_epoch is None or math.isinf(steps_per_epoch):
        return DECAY_OF_UNKNOWN_EPOCHS
    return DECAY_PER_EPOCH / max(1.0, steps_per_epoch)


def steps_per_epoch(trainer: pl.Trainer | None) -> float | None:
    """Optimiser steps per epoch of a trainer that is about to fit; infinite for a loader without a length."""
    if trainer is None:
        return None
    data: Any = getattr(trainer, "datamodule", None)
    loader: Any = None if data is None else data.train_dataloader()
    limit = trainer.limit_train_batches
    if hasattr(loader, "__len__"):
        # Lightning's own estimate would set up the loaders, and a resumed run would start its epoch again.
        length = len(loader)
        batches: float = min(length, limit) if isinstance(limit, int) else int(length * limit)
    else:
        _ = trainer.estimated_stepping_batches
        batches = trainer.num_training_batches
    return math.inf if math.isinf(batches) else math.ceil(batches / trainer.accumulate_grad_batches)
