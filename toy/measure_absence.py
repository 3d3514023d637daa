"""Measure whether a network knows what is not there, on the toy world in gRefCOCO's layout.

    python -m toy --output data/toy_absent --layout grefcoco --seed 2026
    python -m toy.measure_absence --pretrain output/toy/stage1/ckpt.pth

Of the sentences that name nothing there, by what is wrong with them: the ROC area, which is the probability that a
true sentence has a larger score, and the share whose score is below the limit that the checkpoint suggests (N_acc). Of
the true ones the share whose score is not (T_acc).
"""

from utils.start import run_script

from pathlib import Path

import numpy as np
import torch

from dataset.datasets import load_splits
from dataset.samples import EvalPhotos, eval_loader
from model.build import absence_limit, load_network
from model.evaluation import evaluate
from utils.files import read_json
from utils.options import Parser


def main() -> None:
    parser = Parser(__doc__, "python -m toy.measure_absence --pretrain output/toy/stage1/ckpt.pth")
    parser.add_argument("--pretrain", type=Path, required=True, metavar="FILE", help="a checkpoint of stage 1")
    parser.add_argument("--data", type=Path, default=Path("data/toy_absent"), metavar="FOLDER", help="the toy world")
    args = parser.parse_args()
    network, split = load_network(args.pretrain), load_splits("grefcoco", args.data, "unc", ["test"])["test"]
    trained = network.architecture
    photos = EvalPhotos(split, trained.input_size, trained.query_length)
    outcomes = evaluate(network, eval_loader(photos, 1, 0), torch.device("cpu"))
    refs = read_json(args.data / "refer/grefcoco/grefs(unc).json", "draw the toy world first")
    kinds = {ref["ref_id"]: ref.get("absent", "pair" if len(ref["ann_id"]) > 1 else "true") for ref in refs}
    scores: dict[str, list[float]] = {}
    for outcome in outcomes:
        scores.setdefault(kinds[split.references[outcome.reference].ref_id], []).append(outcome.peak)
    limit, true = absence_limit(network, "suggested"), np.array(scores["true"])
    print(f"limit {limit}, stored by training")
    for kind, values in scores.items():
        found = np.array(values)
        if kind in ("true", "pair"):
            print(f"{kind}: {len(found)} sentences, T_acc {(found >= limit).mean():.1%}")
        else:
            area = (true[:, None] > found).mean() + (true[:, None] == found).mean() / 2
            print(f"absent by {kind}: {len(found)} sentences, ROC area {area:.3f}, N_acc {(found < limit).mean():.1%}")


if __name__ == "__main__":
    run_script(main)
