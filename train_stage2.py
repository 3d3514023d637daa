"""Train stage 2, the segmentation network, on the pseudo masks that IRNet made.

    python train_stage2.py --dataset refcocog --splitBy umd --pseudo_path output/refcocog_umd/ins_seg \
        --output ./weights/stage2/pseudo_refcocog_umd
    torchrun --nproc_per_node=4 train_stage2.py ...
"""

import argparse

from dataset.loading import DATASETS, TrainLoader, load_splits
from dataset.pseudo_masks import PseudoMasks, with_masks
from dataset.samples import TrainSamples
from model.losses import Stage2Criterion
from model.training import train
from utils.distributed import init_processes
from utils.engine import amp_dtype
from utils.errors import run_script
from utils.log import say
from utils.options import Parser, add_data_options, add_network_options, add_training_options


def parse_args() -> argparse.Namespace:
    parser = Parser(
        "Train stage 2, the segmentation network, on pseudo masks.",
        "python train_stage2.py --dataset refcocog --splitBy umd --pseudo_path output/refcocog_umd/ins_seg "
        "--output ./weights/stage2/pseudo_refcocog_umd",
    )
    add_data_options(parser, DATASETS, test_split=["val"])
    add_network_options(parser)
    add_training_options(parser, output="./weights/stage2")
    group = parser.add_argument_group("pseudo masks")
    group.add_argument("--pseudo_path", required=True, metavar="FOLDER", help="where IRNet wrote them")
    group.add_argument("--skip_missing", action="store_true", help="train without the refs that have none")
    group.add_argument("--model_ema", action="store_true", help="add consistency with an exponential moving average")
    return parser.parse_args()


def main() -> None:
    args = parse_args()
    device = init_processes()
    splits = load_splits(args.dataset, args.data_root, args.split_by, ["train", *args.test_split])
    annotated = with_masks(splits["train"], args.pseudo_path, args.skip_missing)
    say(f"pseudo masks: {len(annotated.references)} of {len(splits['train'].references)} refs, in {args.pseudo_path}")
    masks = PseudoMasks(args.pseudo_path, args.size)
    samples = TrainSamples(annotated, args.size, args.max_query_len, args.seed, masks, args.cache_images)
    loader = TrainLoader(samples, args.batch_size, args.seed, args.num_workers, args.accumulate)
    validation = [splits[name] for name in args.test_split]
    train(
        2,
        args,
        lambda network: Stage2Criterion(network if args.model_ema else None),
        loader,
        validation,
        device,
        amp_dtype(args.amp, device),
        schedule_interval="epoch",  # kept: so the rate hardly decays, its factor counts steps
        fast=("positional_embedding",),  # kept: the published fast group has it
    )


if __name__ == "__main__":
    run_script(main)
