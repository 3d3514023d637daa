"""Train stage 1, the response network, from photos and sentences alone.

python train_stage1.py --dataset refcocog --splitBy umd --output ./weights/refcocog_umd
torchrun --nproc_per_node=4 train_stage1.py ...
"""

from utils.start import run_script

import argparse

from dataset.datasets import DATA_SETS, load_splits
from dataset.samples import TrainSamples, smallest_batch, train_loader
from model.build import build_scorer
from model.evaluation import suggest_absent_below
from model.losses import Stage1Criterion
from model.scorer import SentenceTable
from model.training import initial_network, run_epochs, true_sentences, validate, validation_loaders
from utils.checkpoint import restore
from utils.distributed import data_parallel, init_processes, is_main
from utils.engine import Precision, Training, build_optimizer, polynomial_decay, steps_per_epoch
from utils.files import lock_folder
from utils.log import log
from utils.options import (
    Parser,
    add_data_and_network_options,
    add_scorer_option,
    add_training_options,
    non_negative_float,
    non_negative_int,
)


def parse_args() -> argparse.Namespace:
    parser = Parser(__doc__)
    add_data_and_network_options(parser, tuple(DATA_SETS), test_split="val")
    add_training_options(parser, output="./weights/stage1")
    group = parser.add_argument_group("losses; a weight of 0 switches one off")
    group.add_argument("--w1", type=non_negative_float, default=1.0, help="weight of the foreground loss")
    group.add_argument("--w4", type=non_negative_float, default=5.0, help="weight of the classification loss")
    group.add_argument("--w5", type=non_negative_float, default=2.0, help="weight of the negative loss")
    group.add_argument("--negative_samples", type=non_negative_int, default=3, help="negative sentences per ref")
    add_scorer_option(group)
    args = parser.parse_args()
    if not (args.w1 or args.w4 or (args.w5 and args.negative_samples)):
        parser.error("every loss is switched off; give --w1, --w4 or --w5 (with --negative_samples) a weight above 0")
    return args


def main() -> None:
    args = parse_args()
    device = init_processes()
    splits = load_splits(args.dataset, args.data_root, args.split_by, ["train", *args.test_split])
    samples = TrainSamples(splits["train"], args.size, args.max_query_len, args.seed, negatives=args.negative_samples)
    loader = train_loader(samples, args.batch_size, args.seed, args.num_workers)
    validation, known = validation_loaders(splits, args), true_sentences(splits["train"], args)
    if args.w4 and (smallest := smallest_batch(loader)) < 16:
        log(
            f"warning: the smallest batch of an epoch has {smallest} refs, in which the classification loss can tell a "
            f"photo's sentence from only {smallest - 1} others (published: 33); choose another --batch_size"
        )
    with lock_folder(args.output, is_main()):
        network, last = initial_network(1, args, device)
        precision = Precision(args.amp, device)
        scorer = build_scorer(network, args.scorer, precision.dtype).to(device)
        sentences = SentenceTable(scorer, samples.sentences, args.max_query_len)
        criterion = Stage1Criterion(sentences, foreground=args.w1, classification=args.w4, negative=args.w5)
        optimizer = build_optimizer(network, args.lr, args.lr_multi, args.weight_decay)
        schedule = polynomial_decay(optimizer, args.epochs * steps_per_epoch(loader, args.accumulate))
        parallel = data_parallel(network, device, args.compile)
        training = Training(network, parallel, criterion, optimizer, schedule, precision, args.accumulate)
        if last:
            restore(training, last, args.output)

        def measure() -> dict[str, float]:
            limit = suggest_absent_below(network, known, device)  # for evaluation
            return validate(network, validation, device) | {"absent_below": limit}

        run_epochs(args, training, loader, splits, measure)


if __name__ == "__main__":
    run_script(main, lasting=True)
