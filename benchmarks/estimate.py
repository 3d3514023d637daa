"""How long each step of the pipeline takes on this machine for a data set, and what it needs on disk.

    python -m benchmarks.estimate [--refs N --photos N --sentences N] [--epochs N] [--devices N] [--json FILE]

Throughput is measured with random weights, on photos of 480 x 640 with two refs of two sentences each, as RefCOCOg's
are in the mean. Several devices are assumed to share the work evenly.
"""

import argparse
import sys
import tempfile
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, field, fields, replace
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import nn

from benchmarks.irnet import crf_inputs, mask_inputs
from benchmarks.timing import Setting, full_size, machine, median_seconds
from benchmarks.tris import (
    LOADED,
    eval_batch,
    our_evaluation,
    our_loading,
    our_prms,
    our_stage1,
    our_stage2,
    random_network,
    random_scorer,
    smooth,
    written_split,
)
from dataset.artifacts import write_label, write_mask, write_scores
from IRNet.crf import DenseCRF
from IRNet.data import TrainingItem, TrainingSet
from IRNet.instances import cluster, find_centroids, strongest
from IRNet.make_ins_seg import PhotoStructure, pseudo_scores
from IRNet.network import STRIDE, build_network
from IRNet.processes import threads
from IRNet.train_irn import Schedule, Trainer
from utils.distributed import usable_cores
from utils.errors import run_script
from utils.files import write_json
from utils.options import Parser, default_workers, positive_int

REFS, SENTENCES = 2, 4  # of the photo that is measured


def _count(number: int, help_text: str) -> int:
    return field(default=number, metadata={"help": help_text})


@dataclass(frozen=True)
class Counts:
    """How much there is to do. The defaults are RefCOCOg's (umd) and the published epochs."""

    refs: int = _count(42_226, "of the training split")
    photos: int = _count(21_899, "of the training split")
    sentences: int = _count(80_512, "of the training split")
    val_photos: int = _count(1_300, "of the split that is validated after every epoch")
    val_sentences: int = _count(4_896, "of that split")
    epochs: int = _count(15, "of each stage")
    irn_epochs: int = _count(3, "of IRNet")


class Resources(NamedTuple):
    """What the work is shared by, evenly. Beside a GPU loading takes no time of its own, unless it is the slower."""

    gpu: bool
    devices: int  # GPUs, or machines without one
    loaders: int  # processes that read photos
    workers: int  # that make labels and masks

    def share(self, computing: float, loading: float) -> float:
        """Seconds of a step from those of one device and one loader."""
        computing, loading = computing / self.devices, loading / self.loaders
        return max(computing, loading) if self.gpu else computing + loading


def available(device: torch.device, devices: int) -> Resources:
    """What this machine has, with so many devices like its own."""
    cores = usable_cores()
    if device.type == "cuda":
        return Resources(True, devices, min(devices * default_workers(), cores), devices)
    return Resources(False, devices, devices * cores, devices * cores)


def measure(setting: Setting) -> dict[str, float]:
    """Seconds per training sample, sentence or ref of every kind of work."""
    batch = eval_batch(setting, (SENTENCES // REFS,) * REFS)
    stage1, stage2 = (random_network(setting, stage).eval().to(setting.device) for stage in (1, 2))
    kinds = {
        "loading": lambda: median_seconds(our_loading(setting)) / LOADED,
        "stage1": lambda: median_seconds(our_stage1(setting)) / setting.batch_size,
        "stage2": lambda: median_seconds(our_stage2(setting)) / setting.batch_size,
        "evaluation1": lambda: median_seconds(our_evaluation(setting, stage1, batch)) / SENTENCES,
        "evaluation2": lambda: median_seconds(our_evaluation(setting, stage2, batch)) / SENTENCES,
        "prms": lambda: median_seconds(our_prms(setting, stage1, random_scorer(setting), batch)) / SENTENCES,
        "label": lambda: median_seconds(_labels(setting)) / REFS,
        "irn_loading": lambda: median_seconds(_irn_loading(setting)) / LOADED,
        "irn_step": lambda: median_seconds(_irn_step(setting)) / setting.irn_batch_size,
        "mask": lambda: median_seconds(_masks(setting)) / REFS,
    }
    seconds = {}
    for number, (name, measured) in enumerate(kinds.items(), start=1):
        print(f"measuring {name} ({number} of {len(kinds)})", file=sys.stderr)
        with threads(1 if name in ("label", "mask") else torch.get_num_threads()):  # IRNet's workers have one each
            seconds[name] = measured()
    return seconds


def _labels(setting: Setting) -> Callable[[], Any]:
    """The IR labels of a photo's refs."""
    photo, labels = (tensor.to(setting.device) for tensor in crf_inputs(*setting.photo_size))

    def make() -> None:
        crf = DenseCRF(photo)
        for _ in range(REFS):
            crf(labels)

    return make


def _irn_loading(setting: Setting) -> Callable[[], Any]:
    references = written_split(setting).references
    for reference in references:
        write_label(setting.folder, reference.name, np.zeros(setting.photo_size))
    items = [TrainingItem(reference.name, setting.folder / reference.photo) for reference in references]
    samples = TrainingSet(items, setting.folder, setting.crop_size, seed=0, epoch=0)
    return lambda: [samples[i] for i in range(len(samples))]


def _irn_step(setting: Setting) -> Callable[[], Any]:
    count, side = setting.irn_batch_size, setting.crop_size
    schedule = Schedule(batch_size=count, crop_size=side)
    trainer = Trainer(build_network(setting.irn_backbone).to(setting.device), schedule, items=1_000 * count)
    photos, label = smooth(count, 3, side, side), smooth(count, side // STRIDE, side // STRIDE) > 0
    return partial(trainer.step, photos.to(setting.device), label.byte().to(setting.device))


def _masks(setting: Setting) -> Callable[[], Any]:
    """The pseudo masks of a photo's refs; the network's own output on random weights would have no instances."""
    network = build_network(setting.irn_backbone).to(setting.device).eval()
    photo = smooth(3, *setting.photo_size).to(setting.device)
    response, edge, displacement = (tensor.to(setting.device) for tensor in mask_inputs(*setting.photo_size))

    def make() -> None:
        network.detect(photo)
        instances = torch.from_numpy(cluster(displacement, find_centroids(displacement))).to(setting.device)
        structure = PhotoStructure(edge, instances, setting.photo_size)
        for _ in range(REFS):
            strongest(pseudo_scores(response, structure, beta=10, exp_times=8), threshold=0.25)

    return make


def durations(seconds: dict[str, float], counts: Counts, resources: Resources) -> dict[str, float]:
    """Seconds of every step of the pipeline, from those of `measure`."""
    loading = seconds["loading"]

    def training(stage: int) -> float:
        epoch = resources.share(counts.refs * seconds[f"stage{stage}"], counts.refs * loading)
        validation = resources.share(counts.val_sentences * seconds[f"evaluation{stage}"], counts.val_photos * loading)
        return counts.epochs * (epoch + validation)

    irn_samples = (counts.irn_epochs + 1) * counts.refs  # once more for the mean displacement, a little faster
    alone = resources._replace(devices=1)  # IRNet is trained on one device
    return {
        "train_stage1": training(1),
        "export_maps": resources.share(counts.sentences * seconds["prms"], counts.photos * loading),
        "cam_to_ir_label": counts.refs * seconds["label"] / resources.workers,
        "train_irn": alone.share(irn_samples * seconds["irn_step"], irn_samples * seconds["irn_loading"]),
        "make_ins_seg": counts.refs * seconds["mask"] / resources.workers,
        "train_stage2": training(2),
    }


def disk(setting: Setting, counts: Counts) -> dict[str, int]:
    """Bytes that every step leaves, from a map, a label and a mask written to the setting's folder."""
    side, label = setting.input_size, crf_inputs(*setting.photo_size)[1][..., 0].numpy()
    scores = np.zeros((side // 32, side // 32), np.float32)
    written = {
        "map": partial(write_scores, scores=scores, input_size=(side, side), photo_size=setting.photo_size),
        "label": partial(write_label, label=label),
        "mask": partial(write_mask, mask=label),
    }
    sizes = {}
    for kind, write in written.items():
        folder = setting.folder / kind
        write(folder, kind)
        sizes[kind] = counts.refs * sum(file.stat().st_size for file in folder.iterdir())
    return {
        "train_stage1": _checkpoints(random_network(setting, 1)),
        "export_maps": sizes["map"],
        "cam_to_ir_label": sizes["label"],
        "train_irn": _bytes(build_network(setting.irn_backbone).state_dict().values()),
        "make_ins_seg": sizes["mask"],
        "train_stage2": _checkpoints(random_network(setting, 2)),
    }


def _checkpoints(network: nn.Module) -> int:
    """The last checkpoint with AdamW's two moments, and the two best networks."""
    trained = [parameter for parameter in network.parameters() if parameter.requires_grad]
    return 3 * _bytes(network.state_dict().values()) + 2 * _bytes(trained)


def _bytes(tensors: Iterable[torch.Tensor]) -> int:
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)


def estimate(setting: Setting, counts: Counts, resources: Resources) -> dict[str, dict[str, float]]:
    """A row for each step, `seconds` and `disk_bytes`, and their `total`."""
    seconds, sizes = durations(measure(setting), counts, resources), disk(setting, counts)
    rows = {step: {"seconds": seconds[step], "disk_bytes": sizes[step]} for step in seconds}
    total = {column: sum(row[column] for row in rows.values()) for column in ("seconds", "disk_bytes")}
    return rows | {"total": total}


def parse_args() -> argparse.Namespace:
    parser = Parser(
        "How long each step of the pipeline takes here for a data set, and what it needs on disk.",
        "python -m benchmarks.estimate --refs 10000 --photos 5000 --sentences 20000",
        prog="benchmarks.estimate",
    )
    for count in fields(Counts):
        help_text = count.metadata["help"]
        parser.add_argument(f"--{count.name}", type=positive_int, default=count.default, metavar="N", help=help_text)
    parser.add_argument(
        "--batch_size", type=positive_int, metavar="N", help="of a training step (default: 48; without a GPU 8)"
    )
    parser.add_argument("--devices", type=positive_int, default=1, metavar="N", help="GPUs (or machines) like this one")
    parser.add_argument("--json", metavar="FILE", help="write the table there as well")
    return parser.parse_args()


def main() -> None:
    args = parse_args()
    counts = Counts(**{count.name: getattr(args, count.name) for count in fields(Counts)})
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    with tempfile.TemporaryDirectory() as folder:
        setting = full_size(folder, device)
        setting = replace(setting, batch_size=args.batch_size or setting.batch_size)
        table = estimate(setting, counts, available(device, args.devices))
    print(f"{machine()}; devices: {args.devices}, batch: {setting.batch_size}")
    print(", ".join(f"{name} {number:,}" for name, number in asdict(counts).items()))
    print(f"{'step':16s}{'hours':>10s}{'GB on disk':>12s}")
    for step, row in table.items():
        print(f"{step:16s}{row['seconds'] / 3600:10.2f}{row['disk_bytes'] / 1e9:12.3f}")
    if args.json:
        write_json(args.json, table, indent=1)


if __name__ == "__main__":
    run_script(main)
