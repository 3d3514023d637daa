"""Evaluation of a checkpoint on the splits of a data set, and export of its response maps (`validate*.py`)."""

import argparse
import sys
import time
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import nn

from dataset.artifacts import names_path, read_mask, write_map, write_names, write_scores
from dataset.doctor import examine, report
from dataset.loading import eval_loader, load_splits
from dataset.references import Split
from dataset.samples import EvalBatch, EvalPhotos, Target
from model.build import Architecture, build_network, build_scorer, load_network
from model.examples import draw_exported
from model.prms import Predict, with_prms
from model.report import MetricCard
from model.segmenter import CURE
from model.training import predictor
from utils.distributed import init_processes, is_main, wait_for_all
from utils.errors import UserError
from utils.evaluator import OnTarget, evaluate
from utils.files import write_json
from utils.log import figures_table, say
from utils.maps import Responses
from utils.metrics import Outcome, summarise

UNTRAINED_SEED = 1234


def validate(args: argparse.Namespace) -> None:
    """Print a table of figures, a row a split, and write what the flags of the evaluation group ask for.

    With `--check_data` examine the data instead, and leave with status 0 where nothing is wrong, else 1.
    """
    if args.check_data:
        everything = args.check_data == "full"
        found = examine(args.dataset, Path(args.data_root), args.split_by, everything, args.max_query_len)
        sys.exit(report(found, say))
    device = init_processes()
    if not args.test_split:
        raise UserError("--test_split none leaves nothing to evaluate; name a split")
    if args.compare and not args.report:
        raise UserError("--compare needs --report, the folder that the differences are written to")
    splits = load_splits(args.dataset, args.data_root, args.split_by, args.test_split)
    card = MetricCard(args.report, args.compare, splits, _title(args)) if args.report else None
    predict, threshold = _source(args, device)
    evaluation = (predict, threshold, args, device)
    on_target = partial(_write_map, args.cam_save_dir, args.cam_format) if args.cam_save_dir else None
    rows = {}
    for name, split in splits.items():
        began = time.monotonic()
        outcomes = _evaluate_split(split, *evaluation, on_target)
        if args.name_save_dir and is_main():
            photos = {reference.name: reference.photo for reference in split.references}
            write_names(names_path(args.name_save_dir, args.dataset, name), photos)
        if args.cam_save_dir and is_main():
            say(f"response maps: {args.cam_save_dir}, some of them in {draw_exported(split, args.cam_save_dir)}")
        if outcomes:
            rows[name] = summarise(outcomes)
        if outcomes and card:
            card.add(split, outcomes, threshold, lambda part, draw: _evaluate_split(part, *evaluation, draw))
        say(f"{name}: {len(split.references)} refs, {len(outcomes)} sentences, {time.monotonic() - began:.1f} s")
    if rows:
        say(figures_table(rows))
    if rows and card:
        say(card.write())
    if args.json and is_main():
        write_json(args.json, rows, indent=2)
    wait_for_all()


def _title(args: argparse.Namespace) -> str:
    """What is evaluated, for the head of a report."""
    source = args.pseudo_path or ("untrained" if args.untrained else _checkpoint_file(args))
    return f"{source}{', PRMS' if args.prms else ''} on {args.dataset}"


def _source(args: argparse.Namespace, device: torch.device) -> tuple[Predict, float]:
    """Where the maps come from, and the value above which they are foreground."""
    if args.pseudo_path:
        if args.cam_format == "native":
            raise UserError("--cam_format native keeps stage 1's scores, --pseudo_path has none; leave one of them out")
        args.batch_size = 1  # masks of photos of different sizes do not fit into one batch
        return partial(_stored_masks, args.pseudo_path), 0.0
    network, architecture = _untrained(args) if args.untrained else _checkpoint(args)
    if args.cam_format == "native" and network.stage != 1:
        raise UserError("--cam_format native keeps stage 1's scores, this checkpoint is of stage 2; leave it out")
    network.to(device)
    if not args.prms:
        return predictor(network), network.mask_threshold
    if network.stage != 1:
        raise UserError("--prms selects among stage 1's response maps, this checkpoint is of stage 2; leave it out")
    scorer = build_scorer(architecture.backbone).to(device)
    return with_prms(predictor(network), scorer), network.mask_threshold


def _stored_masks(folder: str, batch: EvalBatch) -> Responses:
    """The pseudo masks of one photo's refs at its size, one for each sentence."""
    masks = np.stack([read_mask(folder, target.reference.name) for target in batch.targets])
    maps = torch.from_numpy(masks).float()[batch.target.cpu(), None]
    return Responses(maps, maps)


def _untrained(args: argparse.Namespace) -> tuple[nn.Module, Architecture]:
    torch.manual_seed(UNTRAINED_SEED)
    architecture = Architecture(args.backbone or "clip-RN50", args.hidden_dim, args.attn_multi)
    return build_network(1, architecture, pretrained=True).eval(), architecture


def _checkpoint_file(args: argparse.Namespace) -> Path:
    """`--pretrain`, looked up in `--output` first."""
    inside = Path(args.output) / args.pretrain
    return Path(args.pretrain) if Path(args.pretrain).is_file() and not inside.is_file() else inside


def _checkpoint(args: argparse.Namespace) -> tuple[nn.Module, Architecture]:
    file = _checkpoint_file(args)
    described = Architecture(args.backbone or "clip-RN50", args.hidden_dim, args.attn_multi)
    network, architecture = load_network(file, CURE, described)
    if args.backbone not in (None, architecture.backbone):
        raise UserError(
            f"{file} was trained with --backbone {architecture.backbone}, not {args.backbone}; leave it out"
        )
    return network, architecture


def _evaluate_split(
    split: Split,
    predict: Predict,
    threshold: float,
    args: argparse.Namespace,
    device: torch.device,
    on_target: OnTarget | None,
) -> list[Outcome]:
    """A split without any mask can be exported all the same: then there are no outcomes."""
    annotated = any(reference.segmentation is not None for reference in split.references)
    masks = annotated or not args.cam_save_dir
    photos = EvalPhotos(split, args.size, args.max_query_len, masks, args.cache_images)
    loader = eval_loader(photos, args.batch_size, args.num_workers)
    return evaluate(predict, loader, threshold, device, split.name, on_target)


def _write_map(folder: str, cam_format: str, target: Target, maps: np.ndarray, responses: Responses) -> None:
    """Saves the map of a ref's first sentence; with PRMS all its sentences have the same."""
    name = target.reference.name
    if cam_format == "full":
        write_map(folder, name, maps[0].clip(0))
    else:
        write_scores(folder, name, responses.scores[0, 0].cpu().numpy(), responses.maps.shape[-2:], target.size)
