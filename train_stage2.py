r"""Train stage 2, the segmentation network, on the pseudo masks that IRNet made.

    python train_stage2.py --dataset refcocog --splitBy umd --pseudo_path output/refcocog_umd/ins_seg \
        --output ./weights/stage2/pseudo_refcocog_umd
    torchrun --nproc_per_node=4 train_stage2.py ...
"""

from utils.start import run_script

import argparse

from dataset.datasets import DATA_SETS, load_splits
from dataset.samples import TrainSamples, train_loader, with_pseudo_masks
from model.losses import Stage2Criterion
from model.training import initial_network, run_epochs, validate, validation_loaders
from utils.checkpoint import restore
from utils.distributed import data_parallel, init_processes, is_main
from utils.engine import Precision, Training, build_optimizer, polynomial_decay, steps_per_epoch
from utils.files import lock_folder
from utils.options import Parser, add_data_and_network_options, add_training_options


def parse_args() -> argparse.Namespace:
    parser = Parser(__doc__)
    add_data_and_network_options(parser, tuple(DATA_SETS), test_split="val")
    add_training_options(parser, output="./weights/stage2")
    group = parser.add_argument_group("pseudo masks")
    group.add_argument("--pseudo_path", required=True, metavar="FOLDER", help="the folder that IRNet wrote them to")
    group.add_argument("--skip_missing", action="store_true", help="train without the refs that have none")
    words = "let the rate fall to 0, as in stage 1; the published stage 2's hardly falls"
    group.add_argument("--decay_each_step", action="store_true", help=words)
    words = "let the slopes of PReLUs learn at the backbone's rate, so that a high --lr does not turn them negative"
    group.add_argument("--slow_slopes", action="store_true", help=words)
    group.add_argument("--model_ema", action="store_true", help="add consistency with an exponential moving average")
    return parser.parse_args()


def main() -> None:
    args = parse_args()
    device = init_processes()
    splits = load_splits(args.dataset, args.data_root, args.split_by, ["train", *args.test_split])
    annotated = with_pseudo_masks(splits["train"], args.pseudo_path, args.skip_missing)
    samples = TrainSamples(annotated, args.size, args.max_query_len, args.seed, pseudo_masks=args.pseudo_path)
    loader = train_loader(samples, args.batch_size, args.seed, args.num_workers)
    validation = validation_loaders(splits, args)
    with lock_folder(args.output, is_main()):
        network, last = initial_network(2, args, device)
        precision = Precision(args.amp, device)
        criterion = Stage2Criterion(network if args.model_ema else None)
        # Kept: the published fast group holds the text's positional embedding, too.
        settings = args.lr, args.lr_multi, args.weight_decay
        optimizer = build_optimizer(network, *settings, fast=("positional_embedding",), slow_slopes=args.slow_slopes)
        steps = steps_per_epoch(loader, args.accumulate)
        # Kept: the published factor counts epochs where its end counts steps, so the rate hardly decays.
        schedule = polynomial_decay(optimizer, args.epochs * steps, hold=1 if args.decay_each_step else steps)
        parallel = data_parallel(network, device, args.compile)
        training = Training(network, parallel, criterion, optimizer, schedule, precision, args.accumulate)
        if last:
            restore(training, last, args.output)
        run_epochs(args, training, loader, splits, lambda: validate(network, validation, device))


if __name__ == "__main__":
    run_script(main, lasting=True)
