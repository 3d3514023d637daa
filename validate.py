r"""Evaluate a checkpoint of either stage; select maps with PRMS and export them.

    python validate.py --dataset refcocog --splitBy umd --test_split val --output weights/ --resume \
        --pretrain stage1_refcocog_umd.pth --eval
"""

import argparse
import time

import torch

from dataset.artifacts import names_path, write_names
from dataset.datasets import DATA_SETS, load_splits
from dataset.samples import EvalPhotos, eval_loader
from model.build import Architecture, Network, absence_limit, build_network, build_scorer, load_network
from model.evaluation import evaluate, evaluate_masks
from model.report import draw_cases, read_comparison, report_split, write_report
from model.sheets import draw_maps
from utils.checkpoint import find_checkpoint
from utils.distributed import barrier, init_processes, is_main
from utils.errors import UserError, run_script
from utils.files import write_json
from utils.log import log, metrics_table
from utils.metrics import summarise
from utils.options import Parser, add_data_and_network_options, add_evaluation_options

UNTRAINED_SEED = 1234


def build_parser(docstring: str, test_split: str) -> Parser:
    """The flags of both validation scripts."""
    parser = Parser(docstring)
    add_data_and_network_options(parser, tuple(DATA_SETS), test_split)
    add_evaluation_options(parser)
    return parser


def check_flags(args: argparse.Namespace) -> None:
    """UserError for flags that do not go together."""
    if not args.test_split:
        raise UserError("--test_split none leaves nothing to evaluate; name a split")
    if args.compare and not args.report:
        raise UserError("--compare needs --report, the folder for the differences")
    if args.pseudo_path and (args.prms or args.report or args.cam_save_dir or args.absent_below is not None):
        raise UserError("--pseudo_path evaluates masks: leave out --prms, --report, --cam_save_dir and --absent_below")
    if args.cam_format == "native" and not args.cam_save_dir:
        raise UserError("--cam_format needs --cam_save_dir, the folder for the maps")
    if args.cam_save_dir and len(args.test_split) > 1:
        raise UserError("--cam_save_dir takes one split at a time, because refs are numbered anew in each")


def network_to_evaluate(args: argparse.Namespace) -> Network:
    """The network of `--pretrain`, or a new one with `--untrained`, in evaluation mode. UserError for wrong flags."""
    if args.untrained:
        torch.manual_seed(UNTRAINED_SEED)
        return build_network(1, Architecture.of_flags(args), pretrained=True).eval()
    file = find_checkpoint(args.output, args.pretrain)
    network = load_network(file, fallback=Architecture.of_flags(args))
    network.architecture.require_flags(args, file)
    if network.stage == 2 and (args.prms or args.cam_format == "native"):
        flag = "--prms" if args.prms else "--cam_format native"
        raise UserError(f"{flag} is about stage 1's response maps, and {file} is of stage 2; leave it out")
    return network


def validate(args: argparse.Namespace) -> None:
    """Print a table of metrics, a row per split, and write what the flags ask for."""
    check_flags(args)
    device = init_processes()
    splits = load_splits(args.dataset, args.data_root, args.split_by, args.test_split)
    others = read_comparison(args.compare, splits) if args.compare else {}
    network = scorer = None
    if not args.pseudo_path:
        network = network_to_evaluate(args).to(device)
        scorer = build_scorer(network, args.scorer).to(device) if args.prms else None
        limit = absence_limit(network, args.absent_below)
    rows, reports, pictures = {}, {}, {}
    for name, split in splits.items():
        split = split.present() if args.cam_save_dir else split  # maps are to train on
        began = time.monotonic()
        if network is None:
            outcomes = evaluate_masks(split, args.pseudo_path)
        else:
            annotated = all(reference.segmentation is not None for reference in split.references)
            photos = EvalPhotos(split, args.size, args.max_query_len, masks=annotated or not args.cam_save_dir)
            loader = eval_loader(photos, args.batch_size, args.num_workers)
            outcomes = evaluate(network, loader, device, scorer, args.cam_save_dir, args.cam_format, name, limit)
            if args.name_save_dir and is_main():
                photos = {reference.name: reference.photo for reference in split.references}
                write_names(names_path(args.name_save_dir, split.dataset, name), photos)
            if args.cam_save_dir and is_main():
                log(f"response maps: {args.cam_save_dir}, some of them in {draw_maps(split, args.cam_save_dir)}")
        log(f"{name}: {len(split.references)} refs, {len(outcomes)} sentences, {time.monotonic() - began:.1f} s")
        if outcomes:
            rows[name] = summarise(outcomes, of_masks=network is None)
        if outcomes and args.report:
            reports[name] = report_split(split, outcomes, others.get(name))
            pictures[name] = draw_cases(
                split, outcomes, reports[name], network, device, scorer, args.size, args.max_query_len
            )
    if rows:
        log(metrics_table(rows))
    if args.json and is_main():
        write_json(args.json, rows, indent=2)
    if reports:
        title = f"{'untrained' if args.untrained else find_checkpoint(args.output, args.pretrain)}"
        title += f"{', PRMS' if args.prms else ''} on {args.dataset}"
        write_report(args.report, title, args.compare, reports, pictures)
    barrier()


def main() -> None:
    validate(build_parser(__doc__, test_split="val").parse_args())


if __name__ == "__main__":
    run_script(main)
