"""Measure what the toy networks know of scenes that they were not trained on.

    python -m toy.measure_clip

Of the scorer it measures the zero-shot accuracy: the sentence nearest to a view has to name the object's shape, its
colour, or both. It also says how far apart the cosines of true and false sentences are. Of the two backbones it
measures the accuracy of a linear probe, least squares on the mean of their last features.
"""

from utils.start import run_script

import argparse
from collections.abc import Callable

import cv2
import torch
import torch.nn.functional as F
from tqdm import tqdm

from clip import build_clip, image_pyramid, tokenize
from IRNet.network import build_network
from model.scorer import Scorer
from toy.make_clip import BACKBONE, GAIN, SCORER, WORLD
from toy.photos import Photo, make_photo
from toy.scenes import COLOURS, SHAPES
from toy.views import CAPTION_LENGTH, ToyViews, View, collate_classes
from utils.options import Parser, positive_int

CLOSE_UPS, FOCUSED = (1.0, 0.0, 0.0), (0.0, 1.0, 0.0)  # shares for `ToyViews`
SENTENCES = {  # for each class of shape, for each of colour, and for each pair of them
    "shape": [f"the {shape}" for shape in SHAPES],
    "colour": [f"the {colour} thing" for colour in COLOURS],
    "both": [f"the {colour} {shape}" for shape in SHAPES for colour in COLOURS],
}
BATCH = 100  # views
RIDGE = 1e-3  # of the probe, over the mean square of its features


def draw_views(photos: list[Photo], shares: tuple[float, float, float], size: int) -> list[View]:
    """As many views as photos."""
    views = ToyViews(photos, len(photos), size, shares, GAIN, seed=0)
    return [views[index] for index in range(len(photos))]


@torch.no_grad()
def embed(network: Callable[[torch.Tensor], torch.Tensor], views: list[View]) -> torch.Tensor:
    """The features (N, D) that a network makes of the images of N views."""
    return torch.cat([network(batch) for batch in torch.stack([view.image for view in views]).split(BATCH)])


def zero_shot(scorer: Scorer, views: list[View]) -> list[float]:
    """The part of the views, 0..1, whose nearest sentence is true: by shape, by colour, and by both."""
    images = embed(scorer.clip.encode_image, views)
    shape, colour = collate_classes(views)[1].T
    accuracies = []
    for sentences, true in zip(SENTENCES.values(), (shape, colour, shape * len(COLOURS) + colour), strict=True):
        nearest = (images @ scorer.embed_sentences(tokenize(sentences)).T).argmax(dim=1)
        accuracies.append((nearest == true).float().mean().item())
    return accuracies


def cosines(scorer: Scorer, views: list[View], photos: list[Photo]) -> tuple[float, float]:
    """Mean cosines of focused views with what is said of their object, and of the others in its photo.

    Those are the pairs that stage 1's foreground and negative losses compare.
    """
    described = {photo.scene: photo.described for photo in photos}
    images = F.normalize(embed(scorer.clip.encode_image, views), dim=-1)
    own, others = [], []
    for view, image in zip(views, images, strict=True):
        for thing, said in described[view.scene]:
            texts = scorer.embed_sentences(tokenize([text for text, _ in said], CAPTION_LENGTH))
            (own if thing is view.thing else others).append(texts @ image)
    return torch.cat(own).mean().item(), torch.cat(others).mean().item()


def probe(train: tuple[torch.Tensor, torch.Tensor], test: tuple[torch.Tensor, torch.Tensor]) -> list[float]:
    """The accuracies, 0..1, of least squares from features (N, D) to classes int64 (N, 2): shape, colour, both."""
    (features, classes), (unseen, wanted) = train, test
    counts = (len(SHAPES), len(COLOURS))
    targets = torch.cat([F.one_hot(classes[:, i], count) for i, count in enumerate(counts)], dim=1).double()
    mean = features.mean(dim=0)
    centred = (features - mean).double()
    ridge = RIDGE * centred.square().mean() * len(centred) * torch.eye(centred.shape[1], dtype=torch.float64)
    weights = torch.linalg.solve(centred.T @ centred + ridge, centred.T @ targets)  # (D, shapes and colours)
    logits = (unseen - mean).double() @ weights + targets.mean(dim=0)
    found = torch.stack([part.argmax(dim=1) for part in logits.split(counts, dim=1)], dim=1)
    right = found == wanted  # (N, 2)
    return [*right.double().mean(dim=0).tolist(), right.all(dim=1).double().mean().item()]


def parse_args() -> argparse.Namespace:
    parser = Parser(__doc__, "python -m toy.measure_clip", prog="toy.measure_clip")
    parser.add_argument("--scorer", default=SCORER, help="CLIP to measure: NAME or NAME=FILE")
    parser.add_argument("--scenes", type=positive_int, default=600, help="number of scenes, and of views of each kind")
    return parser.parse_args()


def main() -> None:
    args = parse_args()
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    scorer, backbone = Scorer(build_clip(args.scorer)), build_clip(BACKBONE)
    resnet = build_network("resnet-toy", pretrained=True).eval().backbone
    numbers = tqdm(range(args.scenes), "scenes", unit="photo", disable=None)
    photos = [make_photo(WORLD + 1, index, "test") for index in numbers]
    seen = [make_photo(WORLD, index, "train") for index in range(args.scenes)]

    focused = draw_views(photos, FOCUSED, scorer.resolution)
    rows = {
        f"{args.scorer}, close-ups": zero_shot(scorer, draw_views(photos, CLOSE_UPS, scorer.resolution)),
        f"{args.scorer}, focused views": zero_shot(scorer, focused),
    }
    train, test = draw_views(seen, CLOSE_UPS, 96), draw_views(photos, CLOSE_UPS, 96)
    last_features = {
        BACKBONE: lambda images: image_pyramid(backbone, images)[-1].mean(dim=(2, 3)),
        "resnet-toy": lambda images: resnet(images)[-1].mean(dim=(2, 3)),
    }
    for name, network in last_features.items():
        sets = [(embed(network, views), collate_classes(views)[1]) for views in (train, test)]
        rows[f"{name}, close-ups"] = probe(*sets)
    print(f"{'':<28}" + "".join(f"{attribute:>8}" for attribute in SENTENCES))
    for name, row in rows.items():
        print(f"{name:<28}" + "".join(f"{accuracy:8.3f}" for accuracy in row))
    own, others = cosines(scorer, focused, photos)
    print(f"cosines of focused views with sentences: own object {own:.3f}, others in the photo {others:.3f}")


if __name__ == "__main__":
    run_script(main)
