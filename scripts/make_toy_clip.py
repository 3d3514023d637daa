"""Train the toy world's CLIP, backbone and scorer, and write them into one small file.

    bash scripts/make_toy_clip.sh --output clip/toy_clip.pt

The same flags give the same file on one machine. Nothing here sees a mask or a box, nor a scene of any toy world that
`python -m dataset.toy` draws with another seed.
"""

import argparse
import math
import sys
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import NamedTuple

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import cv2
import open_clip
import torch
from torch.utils.data import DataLoader
from tqdm import tqdm

from clip.loading import TOY_FILE, build_toy_for_training, save_toy_weights
from clip.toy_training import train_contrastive
from dataset.toy.photos import Photo, make_photo
from dataset.toy.views import ToyViews, collate, vocabulary_rows
from utils.errors import run_script
from utils.options import Parser, non_negative_int, positive_int

WORLD = 900_001  # the seed of the scenes; no toy world should have it


class Phase(NamedTuple):
    """One stretch of training: image size, steps, batch, learning rate, shares of close-ups, focused, whole photos."""

    size: int
    steps: int
    batch: int
    lr: float
    shares: tuple[float, float, float]


# Shapes are learnt from close-ups, where they cost little; then everything else from photos of the size of stage 1.
BACKBONE = (Phase(96, 450, 64, 2e-3, (1.0, 0.0, 0.0)), Phase(320, 600, 32, 1e-3, (0.0, 0.25, 0.75)))
SCORER = (Phase(96, 500, 64, 1.5e-3, (1.0, 0.0, 0.0)), Phase(96, 700, 64, 1.2e-3, (0.2, 0.8, 0.0)))
GAIN = 6.0  # PRMS multiplies photos with unnormalised response maps
SCORER_TEMPERATURE = 1 / 20


def train_models(photos: list[Photo], rows: list[int], share: float, seed: int) -> dict[str, open_clip.CLIP]:
    """Backbone and scorer, with `share` of the usual steps; each on a core of its own once the words are learnt."""
    backbone, scorer = (build_toy_for_training(name, rows) for name in ("toy-RN", "toy-ViT"))
    backbone.visual.to(memory_format=torch.channels_last)
    close_ups, scenes = BACKBONE
    _without_positions(backbone, close_ups.size)
    _train(backbone, photos, close_ups, 1.0, share, seed, "backbone, close-ups")
    _take_words(scorer, backbone)
    with ProcessPoolExecutor(1, get_context("fork")) as other_core:
        trained = other_core.submit(_train_scorer, scorer, photos, share, seed)
        _without_positions(backbone, scenes.size)
        _train(backbone, photos, scenes, 1.0, share, seed + 1, "backbone, scenes")
        scorer.load_state_dict(trained.result())
    return {"toy-RN": backbone, "toy-ViT": scorer}


def _train_scorer(scorer: open_clip.CLIP, photos: list[Photo], share: float, seed: int) -> dict[str, torch.Tensor]:
    for number, phase in enumerate(SCORER):
        _train(scorer, photos, phase, GAIN, share, seed + 10 + number, f"scorer, phase {number + 1}")
    return scorer.state_dict()


def _take_words(scorer: open_clip.CLIP, backbone: open_clip.CLIP) -> None:
    """The scorer's words are those of the backbone; its image tower alone is trained."""
    words = {key: value for key, value in backbone.state_dict().items() if not key.startswith("visual.")}
    scorer.load_state_dict(words, strict=False)
    scorer.requires_grad_(False)
    scorer.visual.requires_grad_(True)
    scorer.logit_scale.fill_(-math.log(SCORER_TEMPERATURE))


def _train(
    model: open_clip.CLIP, photos: list[Photo], phase: Phase, gain: float, share: float, seed: int, name: str
) -> None:
    count = max(1, int(share * phase.steps)) * phase.batch
    views = ToyViews(photos, count, phase.size, phase.shares, gain, seed)
    loader = DataLoader(views, phase.batch, num_workers=1, collate_fn=collate, drop_last=True)
    train_contrastive(model, loader, phase.lr, name)


def _without_positions(model: open_clip.CLIP, size: int) -> None:
    """Where things are must show in c4, which is all that stage 1 takes of the backbone, not in its attention pool."""
    pool = model.visual.attnpool
    cells, width = (size // 32) ** 2 + 1, pool.positional_embedding.shape[1]
    pool.positional_embedding = torch.nn.Parameter(torch.zeros(cells, width), requires_grad=False)


def parse_args() -> argparse.Namespace:
    parser = Parser(__doc__.splitlines()[0], "bash scripts/make_toy_clip.sh")
    parser.add_argument("--output", type=Path, default=TOY_FILE, help="file to write")
    parser.add_argument("--seed", type=non_negative_int, default=0, help="of the weights and of the views")
    parser.add_argument("--photos", type=positive_int, default=3000, help="scenes to train on")
    parser.add_argument("--percent", type=positive_int, default=100, help="of the usual steps; 1 for a quick trial")
    return parser.parse_args()


def main() -> None:
    args = parse_args()
    torch.set_num_threads(1)  # two processes share two cores
    cv2.setNumThreads(1)  # the drawing is beside the training, not instead of it
    torch.manual_seed(args.seed)
    numbers = tqdm(range(args.photos), desc="scenes", unit="photo", disable=None)
    photos = [make_photo(WORLD, index, "train") for index in numbers]
    rows = vocabulary_rows()
    save_toy_weights(train_models(photos, rows, args.percent / 100, args.seed), rows, args.output)
    print(f"{args.output}: {args.output.stat().st_size / 2**20:.1f} MB")


if __name__ == "__main__":
    run_script(main)
