"""Train stage 1, the response network, from photos and sentences alone.

python train_stage1.py --dataset refcocog --splitBy umd --output ./weights/refcocog_umd
torchrun --nproc_per_node=4 train_stage1.py ...
"""

import argparse

from dataset.loading import DATASETS, TrainLoader, load_splits
from dataset.samples import NegativeSentences, TrainSamples, all_sentences
from model.build import Network, build_scorer
from model.losses import Stage1Criterion
from model.scorer import SentenceTable
from model.training import train
from utils.distributed import init_processes
from utils.engine import amp_dtype
from utils.errors import run_script
from utils.log import say
from utils.options import (
    Parser,
    add_data_options,
    add_network_options,
    add_scorer_option,
    add_training_options,
    non_negative_float,
    non_negative_int,
)

FEWEST_SENTENCES = 16  # in a batch: with so few the toy world was trained; published figures had 48, fewer are untried


def parse_args() -> argparse.Namespace:
    parser = Parser(
        "Train stage 1, the response network, from photos and sentences alone.",
        "python train_stage1.py --dataset refcocog --splitBy umd --test_split val --output ./weights/refcocog_umd",
    )
    add_data_options(parser, DATASETS, test_split=["val"])
    add_network_options(parser)
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
    if args.w4 and args.batch_size < FEWEST_SENTENCES:
        say(
            f"warning: the classification loss tells a photo's sentence from only {args.batch_size - 1} others of its "
            "batch (published: 47); neither --accumulate nor more processes add any, a larger --batch_size does"
        )
    negatives = NegativeSentences(splits["train"], args.negative_samples)
    samples = TrainSamples(splits["train"], args.size, args.max_query_len, args.seed, negatives, args.cache_images)
    loader = TrainLoader(samples, args.batch_size, args.seed, args.num_workers, args.accumulate)
    amp, texts = amp_dtype(args.amp, device), all_sentences(splits["train"].references)

    def criterion(network: Network) -> Stage1Criterion:
        scorer = build_scorer(network, args.scorer, amp).to(device)
        sentences = SentenceTable(scorer, texts, args.max_query_len)
        return Stage1Criterion(sentences, foreground=args.w1, classification=args.w4, negative=args.w5)

    validation = [splits[name] for name in args.test_split]
    train(1, args, criterion, loader, validation, device, amp, schedule_interval="step")


if __name__ == "__main__":
    run_script(main)
