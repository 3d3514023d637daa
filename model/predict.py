"""`predict`: a batch of photos and sentences in, responses out. Evaluator, PRMS and pictures know a network only so."""

from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import nn

from dataset.artifacts import read_mask
from dataset.samples import EvalBatch
from utils.maps import Responses

Predict = Callable[[EvalBatch], Responses]


def predict_with(network: nn.Module) -> Predict:
    """What a network of either stage responds."""

    def predict(batch: EvalBatch) -> Responses:
        return network.respond(batch.images, batch.tokens, batch.photo)

    return predict


def predict_stored(folder: str | Path) -> Predict:
    """The pseudo masks in `folder`, for batches of one photo: masks of photos of different sizes do not stack."""
    return partial(_stored_masks, folder)


def _stored_masks(folder: str | Path, batch: EvalBatch) -> Responses:
    masks = np.stack([read_mask(folder, target.reference.name, target.size) for target in batch.targets])
    maps = torch.from_numpy(masks).float()[batch.target.cpu(), None]  # (N, 1, H, W), one for each sentence
    return Responses(maps, maps)
