"""From response maps to pseudo masks, in three passes.

    python run_sample_refer.py --cam_out_dir DIR/cam --ir_label_out_dir DIR/ir_label --ins_seg_out_dir DIR/ins_seg \\
        --train_list DIR/refcocog_train_names.json --work_space output_refer/refcocog_umd \\
        --cam_to_ir_label_pass True --train_irn_pass True --make_ins_seg_pass True

Runs from any folder, on every visible GPU (or under torchrun); without a GPU on the CPU.
"""

import argparse
import os
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from utils.start import run_script

import torch

from IRNet.cam_to_ir_label import cam_to_ir_label
from IRNet.data import Run, photos_of
from IRNet.make_ins_seg import MaskSettings, make_ins_seg, show_pseudo_masks
from IRNet.network import BACKBONES
from IRNet.train_irn import SMALLEST_CROP, Schedule, train_irn
from utils.distributed import barrier, init_processes, is_main, started_in_a_group
from utils.errors import UserError
from utils.files import lock_folder
from utils.options import Parser, fraction, non_negative_float, non_negative_int, on_off, positive_float, positive_int

PASSES = {  # and the folders that each of them needs
    "cam_to_ir_label": ("cam_out_dir", "ir_label_out_dir"),
    "train_irn": ("ir_label_out_dir",),
    "make_ins_seg": ("cam_out_dir", "ins_seg_out_dir"),
}


def build_parser() -> Parser:
    """The parser of all flags."""
    parser = Parser(
        "IRNet: from response maps to pseudo masks, in three passes.",
        "python run_sample_refer.py --train_list DIR/refcocog_train_names.json --cam_out_dir DIR/cam "
        "--ir_label_out_dir DIR/ir_label --ins_seg_out_dir DIR/ins_seg --cam_to_ir_label_pass True "
        "--train_irn_pass True --make_ins_seg_pass True",
    )
    passes = parser.add_argument_group("passes")
    switch = {"type": on_off, "default": False, "metavar": "{True,False}"}
    passes.add_argument("--cam_to_ir_label_pass", help="1: make IR labels with a dense CRF", **switch)
    passes.add_argument("--train_irn_pass", help="2: train IRNet on the IR labels", **switch)
    passes.add_argument("--make_ins_seg_pass", help="3: make pseudo masks", **switch)
    passes.add_argument(
        "--resume", action="store_true", help="keep what an interrupted run of the same command made; else start over"
    )
    workers = "loader processes, at most one per core; they also do passes 1 and 3, with a GPU as threads"
    passes.add_argument("--num_workers", type=non_negative_int, default=8, help=workers)
    passes.add_argument("--seed", type=non_negative_int, default=0, help="of the training")

    files = parser.add_argument_group("files")
    files.add_argument("--train_list", type=Path, required=True, help="list of names, as written by --name_save_dir")
    files.add_argument("--cam_out_dir", type=Path, help="response maps (in), as written by --cam_save_dir")
    files.add_argument("--ir_label_out_dir", type=Path, help="IR labels, of pass 1 (out) for pass 2 (in)")
    files.add_argument("--ins_seg_out_dir", type=Path, help="pseudo masks (out)")
    files.add_argument("--work_space", type=Path, default=Path("output_refer"), help="checkpoint and report (out)")
    files.add_argument("--irn_weights_name", default="res50_irn.pth", help="the checkpoint's name in --work_space")
    photos = Path(__file__).resolve().parent.parent / "data" / "train2014"
    files.add_argument("--image_root", "--voc12_root", type=Path, default=photos, help="folder of the photos")

    labels = parser.add_argument_group("IR labels")
    labels.add_argument("--conf_fg_thres", type=fraction, default=0.3, help="foreground: response above this")
    labels.add_argument("--conf_bg_thres", type=fraction, default=0.1, help="background: response not above this")
    labels.add_argument("--cam_eval_thres", type=float, default=0.15, help="no effect; published scripts pass it")

    training = parser.add_argument_group("training")
    training.add_argument("--backbone", choices=BACKBONES, default="resnet50", help="resnet-toy: toy world only")
    training.add_argument("--irn_crop_size", type=positive_int, default=512, help="pixels, a multiple of 4")
    # The published code's own default is 32, but the published command passes 96.
    training.add_argument("--irn_batch_size", type=positive_int, default=96, help="at most the number of labels")
    training.add_argument("--irn_num_epoches", type=positive_int, default=3, help="epochs")
    rate = "of the edge branch; the displacement branch's is ten times this"
    training.add_argument("--irn_learning_rate", type=positive_float, default=0.1, help=rate)
    training.add_argument("--irn_weight_decay", type=non_negative_float, default=1e-4, help="of the optimiser")

    masks = parser.add_argument_group("pseudo masks")
    masks.add_argument("--beta", type=positive_float, default=10, help="exponent of the walk's affinities")
    exponents = range(13)  # 2^12 steps are 16 times the published; many more would take minutes per ref
    words = "the walk takes 2 to this power steps"
    masks.add_argument("--exp_times", type=int, choices=exponents, metavar="0..12", default=8, help=words)
    masks.add_argument("--ins_seg_bg_thres", type=fraction, default=0.25, help="foreground: score above this")
    words = "keep all of a mask, as published, or only the connected part with the largest response"
    masks.add_argument("--part", choices=["all", "peak"], default="all", help=words)
    masks.add_argument("--save_instances", action="store_true", help="also write <name>.json: instances as COCO RLE")
    return parser


def check(args: argparse.Namespace) -> None:
    """Raises UserError for flags that do not go together."""
    passes = [name for name in PASSES if getattr(args, f"{name}_pass")]
    if not passes:
        raise UserError(f"there is nothing to do; give {', '.join(f'--{name}_pass True' for name in PASSES)}")
    for name in passes:
        for flag in PASSES[name]:
            if getattr(args, flag) is None:
                raise UserError(f"--{name}_pass needs --{flag}")
    if args.irn_crop_size % 4 or args.irn_crop_size < SMALLEST_CROP:
        raise UserError(f"--irn_crop_size {args.irn_crop_size} is not a multiple of 4 that is {SMALLEST_CROP} or more")
    if args.conf_bg_thres > args.conf_fg_thres:
        raise UserError("--conf_bg_thres is above --conf_fg_thres; no pixel would be unknown")


def run(args: argparse.Namespace) -> None:
    """Run the chosen passes as one process of one or more."""
    device = init_processes()
    photos = photos_of(args.train_list, args.image_root)
    map_dir, label_dir, mask_dir = args.cam_out_dir, args.ir_label_out_dir, args.ins_seg_out_dir
    checkpoint = args.work_space / args.irn_weights_name
    shared = Run(args.work_space, args.resume, device, args.num_workers)
    with lock_folder(args.work_space, main=is_main()):
        for name in PASSES:  # now: if this run is interrupted, --resume must not find the stamps of another run
            if is_main() and not args.resume and getattr(args, f"{name}_pass"):
                (args.work_space / f"{name}.json").unlink(missing_ok=True)
        if args.cam_to_ir_label_pass:
            cam_to_ir_label(photos, map_dir, label_dir, args.conf_fg_thres, args.conf_bg_thres, shared)
        if args.train_irn_pass:
            schedule = Schedule(
                backbone=args.backbone,
                epochs=args.irn_num_epoches,
                batch_size=args.irn_batch_size,
                crop_size=args.irn_crop_size,
                learning_rate=args.irn_learning_rate,
                weight_decay=args.irn_weight_decay,
                seed=args.seed,
            )
            train_irn(photos, label_dir, checkpoint, schedule, shared)
        if args.make_ins_seg_pass:
            settings = MaskSettings(args.beta, args.exp_times, args.ins_seg_bg_thres, args.save_instances, args.part)
            make_ins_seg(photos, map_dir, mask_dir, checkpoint, settings, shared)
            show_pseudo_masks(photos, map_dir, label_dir, mask_dir, args.work_space)
        barrier()


def start_a_process_per_gpu() -> None:
    """If there are several GPUs, replace this process by one per GPU under torchrun, unless it runs there already."""
    gpus = torch.cuda.device_count()
    if gpus > 1 and not started_in_a_group():
        torchrun = ["-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={gpus}"]
        os.execv(sys.executable, [sys.executable, *torchrun, *sys.argv])


def main() -> None:
    args = build_parser().parse_args()
    check(args)
    start_a_process_per_gpu()
    run(args)


if __name__ == "__main__":
    run_script(main, lasting=True)
