"""Measure what the toy networks know of scenes that they were not trained on.

    python -m toy.measure_clip

Of the scorer it measures the zero-shot accuracy: the sentence nearest to a view has to name the object's shape, its
colour, or both. It also says how far apart the cosines of true and false sentences are. Of the two backbones it
measures the accuracy of a linear probe, least squares on the mean of their last features.
"""

import argparse
from itertools import product

import cv2
import open_clip
import torch
import torch.nn.functional as F
from tqdm import tqdm

from clip import build_clip, encode_image, encode_text, image_pyramid, tokenize
from IRNet.network import build_network
from toy.make_clip import BACKBONE, GAIN, SCORER, WORLD
from toy.photos import Photo, make_photo
from toy.scenes import COLOURS, SHAPES
from toy.views import CAPTION_LENGTH, ToyViews, View, collate_classes
from utils.errors import UserError, run_script
from utils.options import Parser, positive_int

KINDS = {"close-ups": (1.0, 0.0, 0.0), "focused views": (0.0, 1.0, 0.0)}  # shares for `ToyViews`
SENTENCES = {  # sentence -> the shape and the colour that it names
    "shape": {f"the {shape}": (shape, None) for shape in SHAPES},
    "colour": {f"the {colour} thing": (None, colour) for colour in COLOURS},
    "both": {f"the {colour} {shape}": (shape, colour) for shape, colour in product(SHAPES, COLOURS)},
}
BATCH = 100  # views
RIDGE = 1e-3  # of the probe, over the mean square of its features


@torch.no_grad()
def embed(model: open_clip.CLIP, views: list[View]) -> torch.Tensor:
    """Unit embeddings (N, D) of N views."""
    batches = torch.stack([view.image for view in views]).split(BATCH)
    images = torch.cat([encode_image(model, batch) for batch in batches])
    if not images.any():
        raise UserError("this CLIP is stored without its attention pool and embeds no images; measure the scorer")
    return F.normalize(images, dim=-1)


@torch.no_grad()
def accuracies(model: open_clip.CLIP, views: list[View]) -> dict[str, float]:
    """The part of the views, 0..1, whose nearest sentence is true: by shape, by colour, and by both."""
    images = embed(model, views)
    result = {}
    for attribute, named in SENTENCES.items():
        texts = F.normalize(encode_text(model, tokenize(list(named))).pooled, dim=-1)  # (M, D)
        nearest = (images @ texts.T).argmax(dim=1).tolist()
        pairs = zip((list(named.values())[index] for index in nearest), (view.thing for view in views), strict=True)
        true = [shape in (None, thing.shape) and colour in (None, thing.colour) for (shape, colour), thing in pairs]
        result[attribute] = sum(true) / len(true)
    return result


@torch.no_grad()
def cosines(model: open_clip.CLIP, views: list[View], photos: list[Photo]) -> tuple[float, float]:
    """Mean cosines of focused views with what is said of their object, and of the others in its photo.

    Those are the pairs that stage 1's foreground and negative losses compare.
    """
    described = {photo.scene: photo.described for photo in photos}
    pairs = [
        (row, text, thing is view.thing)
        for row, view in enumerate(views)
        for thing, texts in described[view.scene]
        for text, _ in texts
    ]
    rows, sentences, own = zip(*pairs, strict=True)
    texts = F.normalize(encode_text(model, tokenize(sentences, CAPTION_LENGTH)).pooled, dim=-1)
    scores, own = (embed(model, views)[list(rows)] * texts).sum(dim=-1), torch.tensor(own)
    return scores[own].mean().item(), scores[~own].mean().item()


def probe(train: tuple[torch.Tensor, torch.Tensor], test: tuple[torch.Tensor, torch.Tensor]) -> dict[str, float]:
    """The accuracies, 0..1, of least squares from features (N, D) to classes int64 (N, 2): shape, colour, both."""
    (features, classes), (unseen, wanted) = train, test
    mean, width = features.mean(dim=0), features.shape[1]
    centred, counts = (features - mean).double(), (len(SHAPES), len(COLOURS))
    ridge = RIDGE * centred.square().mean() * len(centred) * torch.eye(width, dtype=torch.float64)
    right = []
    for column, count in enumerate(counts):
        targets = F.one_hot(classes[:, column], count).double()
        weights = torch.linalg.solve(centred.T @ centred + ridge, centred.T @ (targets - targets.mean(dim=0)))
        logits = (unseen - mean).double() @ weights + targets.mean(dim=0)
        right.append(logits.argmax(dim=1) == wanted[:, column])
    return dict(zip(SENTENCES, (float(hits.float().mean()) for hits in (*right, right[0] & right[1])), strict=True))


@torch.no_grad()
def probe_backbones(train: list[View], test: list[View]) -> dict[str, dict[str, float]]:
    """The probe's accuracies for stage 1's backbone and for IRNet's, on close-ups."""
    clip, resnet = build_clip(BACKBONE), build_network("resnet-toy", pretrained=True).backbone.eval()
    last_features = {BACKBONE: lambda images: image_pyramid(clip, images)[-1], "resnet-toy": lambda x: resnet(x)[-1]}
    rows = {}
    for name, features_of in last_features.items():
        sets = []
        for views in (train, test):
            images, classes = collate_classes(views)
            sets.append((torch.cat([features_of(part).mean(dim=(2, 3)) for part in images.split(BATCH)]), classes))
        rows[f"{name}, close-ups"] = probe(*sets)
    return rows


def draw_views(photos: list[Photo], shares: tuple[float, float, float], size: int) -> list[View]:
    """As many views as photos."""
    views = ToyViews(photos, len(photos), size, shares, GAIN, seed=0)
    return [views[index] for index in range(len(photos))]


def parse_args() -> argparse.Namespace:
    parser = Parser(__doc__.splitlines()[0], "python -m toy.measure_clip", prog="toy.measure_clip")
    parser.add_argument("--scorer", default=SCORER, help="CLIP to measure: NAME or NAME=FILE")
    parser.add_argument("--scenes", type=positive_int, default=600, help="number of scenes, and of views of each kind")
    return parser.parse_args()


def main() -> None:
    args = parse_args()
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    model = build_clip(args.scorer)
    numbers = tqdm(range(args.scenes), "scenes", unit="photo", disable=None)
    photos = [make_photo(WORLD + 1, index, "test") for index in numbers]
    seen = [make_photo(WORLD, index, "train") for index in range(args.scenes)]
    size = model.visual.image_size
    size = size if isinstance(size, int) else size[0]
    views = {kind: draw_views(photos, shares, size) for kind, shares in KINDS.items()}
    rows = {f"{args.scorer}, {kind}": accuracies(model, of_kind) for kind, of_kind in views.items()}
    rows |= probe_backbones(*(draw_views(scenes, KINDS["close-ups"], 96) for scenes in (seen, photos)))
    print(f"{'':<28}" + "".join(f"{attribute:>8}" for attribute in SENTENCES))
    for name, row in rows.items():
        print(f"{name:<28}" + "".join(f"{accuracy:8.3f}" for accuracy in row.values()))
    own, others = cosines(model, views["focused views"], photos)
    print(
        f"cosines of focused views with sentences: about their object {own:.3f}, about others in the photo {others:.3f}"
    )


if __name__ == "__main__":
    run_script(main)
