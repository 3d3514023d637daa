"""Evaluation of a checkpoint on the splits of a data set, and export of its response maps (`validate*.py`)."""

import argparse
import sys
import time
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from dataset.doctor import examine, report
from dataset.loading import eval_loader, load_splits
from dataset.references import Split
from dataset.samples import EvalPhotos
from model.build import Architecture, Network, build_network, build_scorer, load_network
from model.export import MapExport
from model.predict import Predict, predict_stored, predict_with
from model.prms import with_prms
from model.report import MetricCard
from utils.checkpoint import find_checkpoint
from utils.distributed import init_processes, is_main, wait_for_all
from utils.errors import UserError
from utils.evaluator import OnTarget, evaluate
from utils.files import write_json
from utils.log import figures_table, say
from utils.metrics import Outcome, summarise

UNTRAINED_SEED = 1234


def validate(args: argparse.Namespace) -> None:
    """Print a table of figures, a row a split, and write what the flags ask for; with `--check_data` see there."""
    if args.check_data:
        check_data(args)
    _require_flags_that_go_together(args)
    device = init_processes()
    splits = load_splits(args.dataset, args.data_root, args.split_by, args.test_split)
    card = MetricCard(args.report, args.compare, splits, _title(args)) if args.report else None
    export = MapExport(args.cam_save_dir, args.name_save_dir, args.cam_format)
    evaluation = _evaluation(args, device)
    rows = {}
    for name, split in splits.items():
        began = time.monotonic()
        outcomes = evaluation(split, export.on_target)
        export.finish(split)
        if outcomes:
            rows[name] = summarise(outcomes)
        if outcomes and card:
            card.add(split, outcomes, evaluation.threshold, replace(evaluation, cache_images=None))
        say(f"{name}: {len(split.references)} refs, {len(outcomes)} sentences, {time.monotonic() - began:.1f} s")
    _tell(rows, card, args.json)
    wait_for_all()


def check_data(args: argparse.Namespace) -> None:
    """Examine the data instead, and leave with status 0 where nothing is wrong, else 1."""
    everything = args.check_data == "full"
    found = examine(args.dataset, Path(args.data_root), args.split_by, everything, args.max_query_len)
    sys.exit(report(found, say))


def _require_flags_that_go_together(args: argparse.Namespace) -> None:
    if not args.test_split:
        raise UserError("--test_split none leaves nothing to evaluate; name a split")
    if args.compare and not args.report:
        raise UserError("--compare needs --report, the folder that the differences are written to")
    if args.pseudo_path and args.cam_format == "native":
        raise UserError("--cam_format native keeps stage 1's scores, --pseudo_path has none; leave one of them out")
    if args.pseudo_path and args.prms:
        raise UserError("--prms selects among response maps, --pseudo_path has one mask a ref; leave one of them out")
    if args.cam_format == "native" and not args.cam_save_dir:
        raise UserError("--cam_format needs --cam_save_dir, the folder that the maps are written to")


@dataclass(frozen=True)
class Evaluation:
    """What the evaluations of all splits have in common. Called with a split and what to do with each ref's maps."""

    predict: Predict
    threshold: float  # a pixel is foreground where the normalised map exceeds it
    device: torch.device
    size: int  # pixels
    query_length: int  # tokens
    batch_size: int
    workers: int
    cache_images: str | None
    needs_masks: bool  # else a split in which masks are missing is gone through all the same, without outcomes

    def __call__(self, split: Split, on_target: OnTarget | None) -> list[Outcome]:
        masks = self.needs_masks or all(reference.segmentation is not None for reference in split.references)
        photos = EvalPhotos(split, self.size, self.query_length, masks, self.cache_images)
        loader = eval_loader(photos, self.batch_size, self.workers)
        return evaluate(self.predict, loader, self.threshold, self.device, split.name, on_target)


def _evaluation(args: argparse.Namespace, device: torch.device) -> Evaluation:
    predict, threshold = _source(args, device)
    return Evaluation(
        predict,
        threshold,
        device,
        args.size,
        args.max_query_len,
        batch_size=1 if args.pseudo_path else args.batch_size,  # stored masks do not stack
        workers=args.num_workers,
        cache_images=args.cache_images,
        needs_masks=not args.cam_save_dir,
    )


def _source(args: argparse.Namespace, device: torch.device) -> tuple[Predict, float]:
    """Where the maps come from, and the value above which they are foreground."""
    if args.pseudo_path:
        return predict_stored(args.pseudo_path), 0.0
    network = _untrained(args) if args.untrained else _checkpoint(args)
    if network.stage == 2 and args.cam_format == "native":
        raise UserError("--cam_format native keeps stage 1's scores, this checkpoint is of stage 2; leave it out")
    if network.stage == 2 and args.prms:
        raise UserError("--prms selects among stage 1's response maps, this checkpoint is of stage 2; leave it out")
    predict = predict_with(network.to(device))
    if args.prms:
        predict = with_prms(predict, build_scorer(network, args.scorer).to(device))
    return predict, network.mask_threshold


def _untrained(args: argparse.Namespace) -> Network:
    torch.manual_seed(UNTRAINED_SEED)
    return build_network(1, Architecture.of_flags(args), pretrained=True).eval()


def _checkpoint(args: argparse.Namespace) -> Network:
    file = find_checkpoint(args.output, args.pretrain)
    network = load_network(file, fallback=Architecture.of_flags(args))
    network.architecture.require_flags(args, file)
    return network


def _title(args: argparse.Namespace) -> str:
    """What is evaluated, for the head of a report."""
    checkpoint = "untrained" if args.untrained else find_checkpoint(args.output, args.pretrain)
    return f"{args.pseudo_path or checkpoint}{', PRMS' if args.prms else ''} on {args.dataset}"


def _tell(rows: dict[str, dict[str, float]], card: MetricCard | None, json: str | None) -> None:
    """Print the figures, and write them where that was asked for."""
    if rows:
        say(figures_table(rows))
    if rows and card:
        say(card.write())
    if json and is_main():
        write_json(json, rows, indent=2)
