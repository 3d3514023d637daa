"""The optimiser and the schedule that both stages share (paper section 4.1)."""

from collections.abc import Sequence

import torch
from torch import nn


def build_optimizer(
    network: nn.Module, lr: float, lr_multi: float, weight_decay: float, fast: Sequence[str] = ()
) -> torch.optim.AdamW:
    """AdamW with the backbone at `lr * lr_multi` and everything else at `lr`.

    Parameters without gradient are in no group. A parameter of the backbone whose name ends in one of `fast` is in the
    second group.
    """
    groups: tuple[list, list] = ([], [])
    for name, parameter in network.named_parameters():
        if parameter.requires_grad:
            slow = name.startswith("backbone.") and not name.endswith(tuple(fast))
            groups[0 if slow else 1].append(parameter)
    return torch.optim.AdamW(
        [{"params": groups[0], "lr": lr * lr_multi}, {"params": groups[1], "lr": lr}], weight_decay=weight_decay
    )


def polynomial_decay(optimizer: torch.optim.Optimizer, total_steps: int) -> torch.optim.lr_scheduler.LambdaLR:
    """Multiplies the rates by (1 - step / total_steps)^0.9, 0 beyond the end."""
    return torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: max(0.0, 1 - step / total_steps) ** 0.9)
