"""From the response maps of a ref's sentences to one for the ref.

Positive response map selection (PRMS, section 3.4) takes the one that fits all sentences best. Their mean is not the
paper's; what it is worth on the toy world stands in toy/README.md.
"""

from collections.abc import Callable

import torch

from clip import without_padding
from dataset.samples import EvalBatch
from model.scorer import Scorer
from utils.maps import Responses, full_maps

Combine = Callable[[EvalBatch, Responses], Responses]  # gives all sentences of a ref the same response


def mean_maps(batch: EvalBatch, responses: Responses) -> Responses:
    """The mean of stage 1's scores over a ref's sentences in the place of each."""
    same = (batch.target[:, None] == batch.target[None]).to(responses.scores.dtype)  # (N, N)
    scores = torch.einsum("nm,mchw->nchw", same / same.sum(dim=1, keepdim=True), responses.scores)
    return Responses(scores, full_maps(scores, responses.maps.shape[-2:]))


def select_maps(scorer: Scorer, batch: EvalBatch, responses: Responses) -> Responses:
    """The responses with the map that PRMS selects for a ref in the place of all its maps."""
    chosen = select(similarities(scorer, batch, responses.maps), batch.target)
    return Responses(*(tensor[chosen] for tensor in responses))


def similarities(scorer: Scorer, batch: EvalBatch, maps: torch.Tensor) -> torch.Tensor:
    """Cosines (N, N): the image masked with map j of (N, 1, S, S) against sentence k. Each is encoded once."""
    images = scorer.resize(batch.images)[batch.photo]
    sentences = scorer.embed_sentences(without_padding(batch.tokens))
    return scorer.embed_images(images, scorer.resize(maps)) @ sentences.T


def select(similarity: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """For each sentence the index (N,) of its ref's map with the highest summed similarity to the ref's sentences.

    similarity (N, N) of maps and sentences, target (N,) the ref of each; the first map wins a tie.
    """
    same = target[:, None] == target[None]
    totals = torch.where(same, similarity.double(), 0).sum(dim=1)  # (N,) over the sentences of the map's own ref
    candidates = torch.where(same, totals[None], -torch.inf)  # (N, N) the maps that each sentence may get
    best = candidates == candidates.amax(dim=1, keepdim=True)
    return best.int().argmax(dim=1)
