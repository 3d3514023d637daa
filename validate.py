r"""Evaluate a checkpoint of either stage; select maps with PRMS and export them.

    python validate.py --dataset refcocog --splitBy umd --test_split val --output weights/ --resume \
        --pretrain stage1_refcocog_umd.pth --eval
"""

from utils.start import run_script

import argparse
import time
from functools import partial

import torch

from dataset.artifacts import names_path, write_names
from dataset.datasets import DATA_SETS, load_splits
from dataset.references import Split
from dataset.samples import EvalPhotos, eval_loader, with_pseudo_masks
from model.build import Architecture, Network, absence_limit, build_network, build_scorer, load_network
from model.evaluation import evaluate, evaluate_masks
from model.prms import Combine, mean_maps, select_maps
from model.refine import Cutter, Sam
from model.report import draw_cases, read_comparison, report_split, write_page, write_report
from model.sheets import draw_maps
from utils.checkpoint import find_checkpoint
from utils.distributed import barrier, init_processes, is_main
from utils.errors import UserError
from utils.files import write_json
from utils.log import log, metrics_table
from utils.metrics import Outcome, summarise
from utils.options import Parser, add_data_and_network_options, add_evaluation_options
from utils.pictures import optional

UNTRAINED_SEED = 1234
CUT = "+sam"  # behind the name of a split, for its masks cut by SAM


def build_parser(docstring: str, test_split: str) -> Parser:
    """The flags of both validation scripts."""
    parser = Parser(docstring)
    add_data_and_network_options(parser, tuple(DATA_SETS), test_split)
    parser.set_defaults(size=None, max_query_len=None)
    add_evaluation_options(parser)
    return parser


def check_flags(args: argparse.Namespace) -> None:
    """UserError for flags that do not go together."""
    if not args.test_split:
        raise UserError("--test_split none leaves nothing to evaluate; name a split")
    if args.compare and not args.report:
        raise UserError("--compare needs --report, the folder for the differences")
    of_scores = args.prms or args.mean_map or args.absent_below is not None
    if args.pseudo_path and (of_scores or args.sam or args.report or args.cam_save_dir):
        words = "leave out --prms, --mean_map, --absent_below, --sam, --report and --cam_save_dir"
        raise UserError(f"--pseudo_path evaluates masks: {words}")
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
    of_stage1 = {"--prms": args.prms, "--mean_map": args.mean_map, "--cam_format native": args.cam_format == "native"}
    if network.stage == 2 and any(of_stage1.values()):
        flag = next(flag for flag, given in of_stage1.items() if given)
        raise UserError(f"{flag} is about stage 1's response maps, and {file} is of stage 2; leave it out")
    return network


def validate(args: argparse.Namespace) -> None:
    """Print a table of metrics, a row per split, and write what the flags ask for: first results, then pictures."""
    check_flags(args)
    device = init_processes()
    splits = load_splits(args.dataset, args.data_root, args.split_by, args.test_split)
    if args.cam_save_dir or args.name_save_dir:  # to train on, where absent refs have no part
        splits = {name: split.present() for name, split in splits.items()}
    others = read_comparison(args.compare, splits) if args.compare else {}
    network = combine = None
    if args.pseudo_path:
        splits = {name: with_pseudo_masks(split, args.pseudo_path, args.skip_missing) for name, split in splits.items()}
    else:
        network = network_to_evaluate(args).to(device)
        args.size = args.size or network.architecture.input_size
        args.max_query_len = args.max_query_len or network.architecture.query_length
        combine = mean_maps if args.mean_map else None
        if args.prms:
            combine = partial(select_maps, build_scorer(network, args.scorer).to(device))
    cutters = {"": None} | ({CUT: Sam(args.sam, device)} if args.sam else {})
    parts = {f"{name}{word}": (split, cutter) for name, split in splits.items() for word, cutter in cutters.items()}
    outcomes: dict[str, list[Outcome]] = {}
    rows = {}
    try:
        for row, part in parts.items():
            outcomes[row] = outcomes_of(row, *part, args, network, device, combine)
            if outcomes[row]:
                rows[row] = summarise(outcomes[row], of_masks=network is None)
    finally:  # what stops a later split costs no table of the earlier ones
        if rows:
            log(metrics_table(rows))
    for name in splits if args.sam else ():
        pairs = zip(outcomes[name], outcomes[f"{name}{CUT}"], strict=True)
        kept = f"{sum(uncut == cut for uncut, cut in pairs)} of {len(outcomes[name])} masks stayed as they were"
        log(f"{name}{CUT}: {kept}: no cut agreed better with the map")
    if args.json and is_main():
        write_json(args.json, rows, indent=2)
    if args.cam_save_dir and is_main():
        (split,) = splits.values()
        with optional(f"the picture of {args.cam_save_dir}"):
            log(f"response maps: {args.cam_save_dir}, some of them in {draw_maps(split, args.cam_save_dir)}")
    if args.report and rows:
        title = f"{'untrained' if args.untrained else find_checkpoint(args.output, args.pretrain)}"
        title += f"{', PRMS' if args.prms else ', mean maps' if args.mean_map else ''} on {args.dataset}"
        reports, pictures, sizes = {}, {}, (args.size, args.max_query_len)
        for row in rows:
            split, _ = parts[row]
            reports[row] = report_split(split, outcomes[row], others.get(split.name))
        report = write_report(args.report, title, args.compare, reports)
        for row in rows:
            split, cutter = parts[row]
            pictures[row] = draw_cases(split, outcomes[row], reports[row], network, device, combine, *sizes, cutter)
        write_page(args.report, report, pictures)
    barrier()


def outcomes_of(
    row: str,
    split: Split,
    cutter: Cutter | None,
    args: argparse.Namespace,
    network: Network | None,
    device: torch.device,
    combine: Combine | None,
) -> list[Outcome]:
    """The outcome of every sentence of a split, whose response maps are exported where the flags ask for it.

    row: what it is called in the table. The maps are those of the uncut masks, and written with them.
    """
    began = time.monotonic()
    if network is None:
        outcomes = evaluate_masks(split, args.pseudo_path)
    else:
        annotated = all(reference.segmentation is not None for reference in split.references)
        photos = EvalPhotos(split, args.size, args.max_query_len, masks=annotated or not args.cam_save_dir)
        loader = eval_loader(photos, args.batch_size, args.num_workers)
        limit = absence_limit(network, args.absent_below)
        map_dir = None if cutter else args.cam_save_dir
        outcomes = evaluate(network, loader, device, combine, map_dir, args.cam_format, row, limit, cutter)
        if args.name_save_dir and is_main():
            photos = {reference.name: reference.photo for reference in split.references}
            write_names(names_path(args.name_save_dir, split.dataset, split.name), photos)
    seconds = time.monotonic() - began
    log(f"{row}: {len(split.references)} refs, {len(outcomes)} sentences, {seconds:.1f} s")
    return outcomes


def main() -> None:
    validate(build_parser(__doc__, test_split="val").parse_args())


if __name__ == "__main__":
    run_script(main)
