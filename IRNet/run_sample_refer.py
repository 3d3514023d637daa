"""From response maps to pseudo masks, in three passes; each can be interrupted and run again.

    python run_sample_refer.py --cam_out_dir DIR/cam --ir_label_out_dir DIR/ir_label --ins_seg_out_dir DIR/ins_seg \\
        --train_list DIR/refcocog_train_names.json --work_space output_refer/refcocog_umd \\
        --cam_to_ir_label_pass True --train_irn_pass True --make_ins_seg_pass True

Runs from any folder. One process per visible GPU, or under torchrun; without a GPU on the CPU.
"""

import argparse
import os
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import torch

from dataset.artifacts import label_path
from IRNet.backbone import BACKBONES
from IRNet.cam_to_ir_label import LabelMaker
from IRNet.checkpoint import load_network
from IRNet.data import TrainingItem
from IRNet.make_ins_seg import MaskMaker
from IRNet.passes import PhotoRefs, photos_of, run_pass
from IRNet.processes import start_processes
from IRNet.report import draw_contact_sheet, write_report
from IRNet.train_irn import SMALLEST_CROP, Schedule, train
from utils.distributed import init_processes, is_main, wait_for_all
from utils.errors import UserError, run_script
from utils.files import owned_by_this_run
from utils.log import say
from utils.options import (
    Parser,
    fraction,
    non_negative_float,
    non_negative_int,
    on_off,
    positive_float,
    positive_int,
)

ROOT = Path(__file__).resolve().parent.parent
MAX_EXPONENT = 12  # 4096 steps, 16 times the published; the series of many more takes minutes, or all memory
PASSES = ("cam_to_ir_label_pass", "train_irn_pass", "make_ins_seg_pass")


def walk_exponent(text: str) -> int:
    """A type for argparse: an exponent that the walk can be taken with."""
    value = non_negative_int(text)
    if value > MAX_EXPONENT:
        raise argparse.ArgumentTypeError(f"'{text}' is not a whole number from 0 to {MAX_EXPONENT}")
    return value


def build_parser() -> Parser:
    """The parser of all flags, in four groups."""
    parser = Parser(
        "IRNet: from response maps to pseudo masks, in three passes.",
        "python run_sample_refer.py --train_list DIR/refcocog_train_names.json --cam_out_dir DIR/cam "
        "--ir_label_out_dir DIR/ir_label --ins_seg_out_dir DIR/ins_seg --cam_to_ir_label_pass True "
        "--train_irn_pass True --make_ins_seg_pass True",
    )
    _add_files(parser)
    _add_passes(parser)
    _add_training(parser)
    _add_masks(parser)
    return parser


def _add_files(parser: Parser) -> None:
    files = parser.add_argument_group("files")
    files.add_argument("--train_list", type=Path, required=True, help="list of names, as written by --name_save_dir")
    files.add_argument("--cam_out_dir", type=Path, help="response maps (in), as written by --cam_save_dir")
    files.add_argument("--ir_label_out_dir", type=Path, help="IR labels, of pass 1 (out) for pass 2 (in)")
    files.add_argument("--ins_seg_out_dir", type=Path, help="pseudo masks (out)")
    files.add_argument("--work_space", type=Path, default=Path("output_refer"), help="checkpoint and report (out)")
    files.add_argument("--irn_weights_name", default="res50_irn.pth", help="the checkpoint's name in --work_space")
    files.add_argument(
        "--image_root", "--voc12_root", type=Path, default=ROOT / "data" / "train2014", help="folder of the photos"
    )


def _add_passes(parser: Parser) -> None:
    passes = parser.add_argument_group("passes")
    help_texts = ("make IR labels with a dense CRF", "train IRNet on the IR labels", "make pseudo masks")
    for name, help_text in zip(PASSES, help_texts, strict=True):
        passes.add_argument(f"--{name}", type=on_off, default=False, metavar="{True,False}", help=help_text)
    passes.add_argument(
        "--num_workers",
        type=non_negative_int,
        default=8,
        help="processes, at most one a core: loading; without GPU all",
    )
    passes.add_argument("--seed", type=non_negative_int, default=0, help="of the training")


def _add_training(parser: Parser) -> None:
    labels = parser.add_argument_group("IR labels")
    labels.add_argument(
        "--conf_fg_thres", type=fraction, default=0.3, help="foreground where the response exceeds this"
    )
    labels.add_argument("--conf_bg_thres", type=fraction, default=0.1, help="background where it does not exceed this")
    labels.add_argument("--cam_eval_thres", type=float, default=0.15, help="without effect; published scripts pass it")
    training = parser.add_argument_group("training")
    training.add_argument(
        "--backbone", choices=BACKBONES, default="resnet50", help="frozen; resnet-toy: toy world only"
    )
    training.add_argument("--irn_crop_size", type=positive_int, default=512, help="pixels, a multiple of 4")
    training.add_argument("--irn_batch_size", type=positive_int, default=32, help="at most the number of labels")
    training.add_argument("--irn_num_epoches", type=positive_int, default=3, help="epochs")
    training.add_argument(
        "--irn_learning_rate", type=positive_float, default=0.1, help="ten times this for displacements"
    )
    training.add_argument("--irn_weight_decay", type=non_negative_float, default=1e-4, help="of the optimiser")


def _add_masks(parser: Parser) -> None:
    masks = parser.add_argument_group("pseudo masks")
    masks.add_argument("--beta", type=positive_float, default=10, help="exponent of the walk's affinities")
    masks.add_argument("--exp_times", type=walk_exponent, default=8, help="the walk takes 2 to this power steps")
    masks.add_argument(
        "--ins_seg_bg_thres", type=fraction, default=0.25, help="foreground where the score exceeds this"
    )
    masks.add_argument("--save_instances", action="store_true", help="also write <name>.json: instances as COCO RLE")


def check(args: argparse.Namespace) -> None:
    """Raises UserError for flags that do not go together."""
    needed = {
        "cam_to_ir_label_pass": ("cam_out_dir", "ir_label_out_dir"),
        "train_irn_pass": ("ir_label_out_dir",),
        "make_ins_seg_pass": ("cam_out_dir", "ins_seg_out_dir"),
    }
    wanted = [name for name in PASSES if getattr(args, name)]
    if not wanted:
        raise UserError(f"there is nothing to do; give --{PASSES[0]} True, --{PASSES[1]} True or --{PASSES[2]} True")
    for name in wanted:
        for flag in needed[name]:
            if getattr(args, flag) is None:
                raise UserError(f"--{name} needs --{flag}")
    if args.irn_crop_size % 4 or args.irn_crop_size < SMALLEST_CROP:
        raise UserError(f"--irn_crop_size {args.irn_crop_size} is not a multiple of 4 from {SMALLEST_CROP} on")
    if args.conf_bg_thres > args.conf_fg_thres:
        raise UserError("--conf_bg_thres is above --conf_fg_thres; no pixel would be unknown")


def run(args: argparse.Namespace) -> None:
    """Every wanted pass, on every process of the group."""
    device = init_processes()
    photos = photos_of(args.train_list, args.image_root)
    with owned_by_this_run(args.work_space, main=is_main()):
        run_passes(args, photos, device)


def run_passes(args: argparse.Namespace, photos: list[PhotoRefs], device: torch.device) -> None:
    """The wanted passes in their order, while nobody else has the work space."""
    if args.cam_to_ir_label_pass:
        labels = LabelMaker(args.cam_out_dir, args.ir_label_out_dir, args.conf_fg_thres, args.conf_bg_thres)
        run_pass("cam_to_ir_label", labels, photos, device, args.num_workers)
    if args.train_irn_pass:
        if is_main():
            run_training(args, photos, device)
        wait_for_all()
    if args.make_ins_seg_pass:
        run_masks(args, photos, device)
    wait_for_all()


def run_training(args: argparse.Namespace, photos: list[PhotoRefs], device: torch.device) -> None:
    """Pass 2 with the labels that are there; a finished checkpoint is kept."""
    checkpoint = args.work_space / args.irn_weights_name
    if checkpoint.is_file():
        say(f"train_irn: {checkpoint} is there and is kept; remove it to train again")
        return
    names = [(name, photo.path) for photo in photos for name in photo.names]
    items = [TrainingItem(name, path) for name, path in names if label_path(args.ir_label_out_dir, name).is_file()]
    if not items:
        raise UserError(
            f"{args.ir_label_out_dir} holds no IR label of {args.train_list}; run --cam_to_ir_label_pass True"
        )
    if len(items) < len(names):
        say(f"train_irn: {len(names) - len(items)} refs have no IR label and are left out")
    schedule = Schedule(
        epochs=args.irn_num_epoches,
        batch_size=min(args.irn_batch_size, len(items)),
        crop_size=args.irn_crop_size,
        learning_rate=args.irn_learning_rate,
        weight_decay=args.irn_weight_decay,
        seed=args.seed,
        workers=args.num_workers,
    )
    train(args.backbone, items, args.ir_label_out_dir, checkpoint, schedule, device)


def run_masks(args: argparse.Namespace, photos: list[PhotoRefs], device: torch.device) -> None:
    """Pass 3, then the report and the contact sheet of what it made."""
    checkpoint = args.work_space / args.irn_weights_name
    load_network(checkpoint)  # here a bad one ends the run; later it would refuse every ref
    masks = MaskMaker(
        map_dir=args.cam_out_dir,
        mask_dir=args.ins_seg_out_dir,
        checkpoint=checkpoint,
        beta=args.beta,
        exp_times=args.exp_times,
        threshold=args.ins_seg_bg_thres,
        save_instances=args.save_instances,
    )
    run_pass("make_ins_seg", masks, photos, device, args.num_workers)
    if is_main():
        write_report(args.work_space / "pseudo_masks.json", photos, args.ins_seg_out_dir)
        sheet = args.work_space / "pseudo_masks.png"
        draw_contact_sheet(sheet, photos, args.cam_out_dir, args.ir_label_out_dir, args.ins_seg_out_dir)
        say(f"make_ins_seg: {args.work_space}/pseudo_masks.json and .png show what came out")


def main() -> None:
    args = build_parser().parse_args()
    check(args)
    gpus = torch.cuda.device_count()
    if gpus > 1 and "RANK" not in os.environ:
        start_processes(gpus, run, args)
    else:
        run(args)


if __name__ == "__main__":
    run_script(main)
