"""Published checkpoints load tensor by tensor; damaged, hostile and foreign ones are refused by name."""

import pickle
from argparse import Namespace

import pytest
import torch

from model import load_model
from model.build import Architecture, load_network, network_content
from model.checkpoint_names import our_name
from tests.golden import published_names
from utils.checkpoint import load_checkpoint, save_checkpoint
from utils.errors import UserError

HINT = "train it"


@pytest.mark.parametrize("stage", [1, 2])
def test_published_checkpoints_load_with_nothing_missing_and_nothing_left_over(tmp_path, stage):
    state = {  # each tensor is one number on disk
        name: torch.zeros((), dtype=getattr(torch, dtype)).expand(shape)
        for name, (dtype, shape) in published_names(stage).items()
    }
    file = tmp_path / "published.pth"
    torch.save({"model": state, "optimizer": {"state": {}}, "lr_scheduler": {}, "epoch": 14}, file)
    network = load_network(file, HINT)
    assert network.stage == stage
    assert network.architecture == Architecture()
    assert {our_name(name) for name in published_names(stage)} == set(network.state_dict())
    assert all(not tensor.any() for tensor in network.state_dict().values())
    assert not network.training


def test_flags_that_name_the_same_network_agree_with_a_checkpoint_and_others_are_refused():
    said = Namespace(backbone=None, hidden_dim=None, attn_multi=None)
    found = Architecture("toy", hidden_dim=32)
    found.require_flags(said, "x.pth")
    for name in ("toy-RN", "clip-toy", "toy=weights.pt"):
        found.require_flags(Namespace(**vars(said) | {"backbone": name}), "x.pth")
    for flag, value in {"backbone": "RN50", "hidden_dim": 64, "attn_multi": 0.0}.items():
        with pytest.raises(UserError, match=rf"x.pth was trained with --{flag} \S+, not {value}; leave this flag out"):
            found.require_flags(Namespace(**vars(said) | {flag: value}), "x.pth")


def test_ours_says_what_it_was_built_from(tmp_path, toy_stage1):
    described = {"hidden_dim": 32, "prompt_weight": 0.2, "input_size": 96, "query_length": 30}
    toy_stage1.architecture = Architecture("toy-RN=/somewhere/toy.pt", **described)
    save_checkpoint(tmp_path / "ours.pth", network_content(toy_stage1))
    network = load_network(tmp_path / "ours.pth", HINT)
    assert network.architecture == Architecture("toy-RN", **described)
    segmenter = load_model(tmp_path / "ours.pth")
    assert (segmenter.size, segmenter.query_length) == (96, 30)
    assert load_model(tmp_path / "ours.pth", size=64).size == 64
    state = toy_stage1.state_dict()
    assert all(torch.equal(tensor, state[name]) for name, tensor in network.state_dict().items())


def test_a_save_that_fails_leaves_what_was_there(tmp_path):
    file = tmp_path / "ckpt.pth"
    save_checkpoint(file, {"epoch": 1})
    with pytest.raises((pickle.PicklingError, AttributeError)):
        save_checkpoint(file, {"epoch": lambda: 2})
    assert load_checkpoint(file, HINT) == {"epoch": 1}
    assert [path.name for path in tmp_path.iterdir()] == ["ckpt.pth"]


def test_a_folder_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").write_text("not a folder")
    with pytest.raises(UserError, match=r"cannot write .*file/ckpt\.pth: (File exists|Not a directory)"):
        save_checkpoint(tmp_path / "file" / "ckpt.pth", {})
