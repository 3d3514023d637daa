"""Flags, each declared once. A script combines the groups it needs and adds only its own.

The published spellings work (`--splitBy`, `--batch_size`, `--dataset_root`). Flags that people's scripts still pass but
that no longer make a difference are accepted, and their help says so.
"""

import argparse
import math
import sys
import textwrap
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import NoReturn

from utils.distributed import usable_cores, world_size

DEFAULT_SAM = "facebook/sam2.1-hiera-tiny"  # 38.9 million parameters, 156 MB, Apache-2.0


class Parser(argparse.ArgumentParser):
    """An argument parser that shows defaults and answers a mistake with one line and exit status 2.

    The description is a script's docstring: a paragraph, and then, without an `example`, its examples. `python -OO` has
    no docstrings.
    """

    def __init__(self, docstring: str | None, example: str = "", **options: object):
        description, _, examples = (docstring or "").partition("\n\n")
        example = textwrap.indent(textwrap.dedent(example or examples), "  ")
        epilog = f"example:\n{example}" if example else None
        formatter = partial(_HelpFormatter, max_help_position=32, width=110)
        super().__init__(
            description=description, epilog=epilog, formatter_class=formatter, allow_abbrev=False, **options
        )

    def error(self, message: str) -> NoReturn:
        print(f"{self.prog}: {message}; --help lists the flags", file=sys.stderr)
        sys.exit(2)


class _HelpFormatter(argparse.RawDescriptionHelpFormatter):
    """Defaults behind the help text of every flag that has one, the example's lines kept."""

    def _get_help_string(self, action: argparse.Action) -> str:
        if action.default in (None, False, argparse.SUPPRESS):
            return action.help
        default = ",".join(action.default) if isinstance(action.default, list) else action.default
        return f"{action.help} (default: {str(default).replace('%', '%%')})"


# What a resumed training must share with the one it continues; other flags may change in between.
TRAINING_SETTINGS = ("dataset", "split_by", "size", "max_query_len", "batch_size", "accumulate", "epochs", "seed")
TRAINING_SETTINGS += ("compile", "amp", "lr", "lr_multi", "weight_decay", "w1", "w4", "w5", "negative_samples")
TRAINING_SETTINGS += ("scorer", "model_ema", "decay_each_step", "slow_slopes")


def training_settings(args: argparse.Namespace) -> dict[str, object]:
    """The settings that must not change when a training is resumed, by name."""
    settings = {name: getattr(args, name) for name in TRAINING_SETTINGS if hasattr(args, name)}
    return settings | {"processes": world_size()}


def _number(kind: type, accept: Callable[[float], bool], wanted: str) -> Callable[[str], float]:
    def parse(text: str):
        with suppress(ValueError):
            value = kind(text)
            if accept(value):
                return value
        raise argparse.ArgumentTypeError(f"'{text}' is not {wanted}")

    return parse


positive_int = _number(int, lambda v: v > 0, "a whole number above 0")
non_negative_int = _number(int, lambda v: v >= 0, "a whole number of 0 or more")
positive_float = _number(float, lambda v: 0 < v < float("inf"), "a number above 0")
non_negative_float = _number(float, lambda v: 0 <= v < float("inf"), "a number of 0 or more")
SMALLEST_SIZE = 64  # pixels: in smaller photos stride 32 leaves one cell, which instance norms cannot take
SHORTEST_QUERY, LONGEST_QUERY = 3, 77  # tokens: <start>, one, <end>; CLIP's positions
input_size = _number(int, lambda v: v >= SMALLEST_SIZE, f"a whole number of {SMALLEST_SIZE} or more")
query_length = _number(
    int, lambda v: SHORTEST_QUERY <= v <= LONGEST_QUERY, f"a whole number from {SHORTEST_QUERY} to {LONGEST_QUERY}"
)
seed_number = _number(int, lambda v: 0 <= v < 2**32, "a whole number from 0 to 4294967295")
port_number = _number(int, lambda v: 0 <= v < 65536, "a port from 0 to 65535")
fraction = _number(float, lambda v: 0 <= v <= 1, "a number from 0 to 1")


def absence_limit(text: str) -> float | str:
    """A finite number, or the word `suggested`."""
    return text if text == "suggested" else _number(float, math.isfinite, "a number or the word suggested")(text)


def on_off(text: str) -> bool:
    """`True` or `False`, as the published scripts write a switch."""
    if text.lower() not in ("true", "false"):
        raise argparse.ArgumentTypeError(f"'{text}' is neither True nor False")
    return text.lower() == "true"


def comma_list(text: str) -> list[str]:
    """`val,testA,testB` as a list; `none` is the empty one."""
    if text == "none":
        return []
    names = [name.strip() for name in text.split(",") if name.strip()]
    if not names:
        raise argparse.ArgumentTypeError(f"'{text}' names nothing; write for example val,testA")
    return names


def add_data_set_options(parser: argparse.ArgumentParser, datasets: tuple[str, ...]) -> argparse._ArgumentGroup:
    """Which data; the group of these flags."""
    group = parser.add_argument_group("data")
    add, known = group.add_argument, ", ".join(datasets)
    add("--dataset", choices=datasets, default="refcoco", metavar="NAME", help=f"one of {known}")
    add("--splitBy", dest="split_by", default="unc", help="whose split: unc, or umd or google for refcocog")
    words, root = (
        "the folder of photos and annotations (see data/README.md)",
        {"dest": "data_root", "default": "./data"},
    )
    add("--refer_data_root", "--data_root", "--dataset_root", metavar="FOLDER", help=words, **root)
    return group


def add_data_and_network_options(parser: argparse.ArgumentParser, datasets: tuple[str, ...], test_split: str) -> None:
    """Which data, in what form they reach the network, and what the network is built from."""
    group = add_data_set_options(parser, datasets)
    add, words = group.add_argument, "splits to evaluate, such as val,testA; or none"
    add("--test_split", type=comma_list, default=[test_split], metavar="NAMES", help=words)
    words = "photos are resized to SIZE x SIZE pixels; an evaluation's default: as trained"
    add("--size", type=input_size, default=320, help=words)
    words = "tokens kept of a sentence, 3 to 77; an evaluation's default: as trained"
    add("--max_query_len", type=query_length, default=20, help=words)
    add_workers_option(group)
    add("--bert_tokenizer", choices=["clip"], default="clip", help="accepted; CLIP's is the only one")
    add = parser.add_argument_group("network").add_argument
    words = "clip-RN50, clip-RN101, ..., toy; =FILE reads CLIP's weights from that file"
    add("--backbone", metavar="NAME[=FILE]", help=f"{words} (default: as trained, else clip-RN50)")
    words = "channels of stage 1's projections (default: as trained, else 1024)"
    add("--hidden_dim", type=positive_int, help=words)
    words = "weight of the bilateral prompt (default: as trained, else 0.1)"
    add("--attn_multi", type=non_negative_float, help=words)


def add_workers_option(group: argparse._ActionsContainer) -> None:
    """How many processes read photos."""
    most = min(8, usable_cores())  # one per core of this process's share; eight feed a GPU
    group.add_argument("--num_workers", type=non_negative_int, default=most, help="processes that read photos")


def add_training_options(parser: argparse.ArgumentParser, output: str) -> None:
    """How a network is trained, and where the training is kept."""
    add = parser.add_argument_group("training").add_argument
    add("--batch_size", type=positive_int, default=48, help="refs per batch and process")
    words = "batches per optimiser step, one at a time"
    add("--accumulate", type=positive_int, default=1, metavar="K", help=words)
    add("--epoch", type=positive_int, default=15, dest="epochs", metavar="N", help="epochs to train")
    add("--lr", type=positive_float, default=5e-5, help="learning rate of the new layers")
    add("--lr_multi", type=non_negative_float, default=0.1, help="times --lr: the backbone's rate")
    add("--weight_decay", type=non_negative_float, default=0.01, help="of AdamW")
    words = "precision of the networks' products; bf16 is the fast one on recent GPUs"
    add("--amp", choices=["off", "bf16", "fp16"], default="off", help=words)
    add("--compile", action="store_true", help="compile the network; on a CPU this needs a C++ compiler")
    add("--seed", type=seed_number, default=1234, help="the same seed repeats a run")
    add("--output", default=output, metavar="FOLDER", help="folder for checkpoints and log.jsonl")
    add("--board_folder", metavar="FOLDER", help="folder for TensorBoard events (default: none)")
    add("--resume", action="store_true", help="continue from the last checkpoint in --output")
    words = "start from the network of this checkpoint"
    add("--pretrain", "--pretrained_checkpoint", metavar="FILE", help=words)


def add_scorer_option(group: argparse._ArgumentGroup) -> None:
    """The frozen CLIP that stage 1's losses and PRMS use."""
    words = "the frozen CLIP that scores masked images (default: ViT-B/32; for toy its own)"
    group.add_argument("--scorer", metavar="NAME[=FILE]", help=words)


def add_absence_option(group: argparse._ActionsContainer) -> None:
    """Which masks are made empty because nothing in the photo fits their sentence."""
    words = "empty the masks of sentences whose largest score is below X, as of things that are not there; suggested: "
    words += (
        "the X in the checkpoint, at which 95 %% of the sentences stage 1 was trained on keep theirs (default: off)"
    )
    group.add_argument("--absent_below", type=absence_limit, metavar="X", help=words)


def add_sam_option(group: argparse._ActionsContainer) -> None:
    """Whether SAM cuts the masks."""
    words = "cut masks with SAM 2, which has been trained with masks; a name on Hugging Face's hub, or a folder"
    words += f" (default: no; without NAME {DEFAULT_SAM})"
    group.add_argument("--sam", nargs="?", const=DEFAULT_SAM, metavar="NAME", help=words)


def add_evaluation_options(parser: argparse.ArgumentParser) -> None:
    """Which checkpoint is evaluated, and what is written."""
    group = parser.add_argument_group("evaluation")
    add = group.add_argument
    add("--output", default="./weights", metavar="FOLDER", help="where --pretrain is looked up")
    add("--pretrain", default="ckpt.pth", metavar="FILE", help="the checkpoint to evaluate")
    add("--batch_size", type=positive_int, default=1, help="photos at a time; the metrics do not depend on it")
    other = group.add_mutually_exclusive_group()
    other.add_argument("--untrained", action="store_true", help="evaluate stage 1 before any training")
    other.add_argument("--pseudo_path", metavar="FOLDER", help="evaluate these pseudo masks instead of a network")
    add("--skip_missing", action="store_true", help="with --pseudo_path: leave out the refs that have none")
    one_map = group.add_mutually_exclusive_group()
    one_map.add_argument("--prms", action="store_true", help="PRMS: give all sentences of a ref the map that fits best")
    words = "give them the mean of their maps instead, which needs no scorer and is not the paper's"
    one_map.add_argument("--mean_map", action="store_true", help=words)
    add_scorer_option(group)
    add_absence_option(group)
    add_sam_option(group)
    add("--json", metavar="FILE", help="also write the metrics to this file, by split")
    words = "write report.json and report.html there: intervals, slices, pictures"
    add("--report", metavar="FOLDER", help=words)
    add("--compare", metavar="FILE", help="another report.json, to compare with in --report")
    add("--resume", action="store_true", help="accepted; evaluation always reads --pretrain")
    add("--eval", action="store_true", help="accepted; this script always evaluates")
    add = parser.add_argument_group("export").add_argument
    add("--cam_save_dir", metavar="FOLDER", help="write each ref's response map there, <name>.npy")
    words = "maps at the photo's annotated size, or the scores that they are computed from, hundreds of times smaller"
    add("--cam_format", choices=["full", "native"], default="full", help=words)
    add("--name_save_dir", metavar="FOLDER", help="write the list of these maps' names there")
    add("--save_cam", action="store_true", help="accepted; --cam_save_dir alone decides")
