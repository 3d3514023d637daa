"""Published checkpoints load tensor by tensor; damaged, hostile and foreign ones are refused by name."""

import pickle
from argparse import Namespace

import pytest
import torch

from model import load_model
from model.build import Architecture, load_network, network_content
from model.checkpoint_names import our_name
from model.training_folder import TrainingFolder
from tests.golden import published_names
from utils.checkpoint import load_checkpoint, save_checkpoint
from utils.errors import UserError

CURE = "train it"


def published_file(folder, stage):
    """A checkpoint with the published names and shapes. The tensors are one number each on disk."""
    state = {
        name: torch.zeros((), dtype=getattr(torch, dtype)).expand(shape)
        for name, (dtype, shape) in published_names(stage).items()
    }
    file = folder / f"stage{stage}.pth"
    torch.save({"model": state, "optimizer": {"state": {}}, "lr_scheduler": {}, "epoch": 14}, file)
    return file


@pytest.mark.parametrize("stage", [1, 2])
def test_published_checkpoints_load_with_nothing_missing_and_nothing_left_over(tmp_path, stage):
    network = load_network(published_file(tmp_path, stage), CURE)
    assert network.stage == stage
    assert network.architecture == Architecture()
    assert {our_name(name) for name in published_names(stage)} == set(network.state_dict())
    assert all(not tensor.any() for tensor in network.state_dict().values())
    assert not network.training


def test_the_other_stage_is_refused(tmp_path):
    with pytest.raises(UserError, match="is a checkpoint of stage 2, stage 1 was asked for"):
        load_network(published_file(tmp_path, 2), CURE, stage=1)


def test_flags_that_name_the_same_network_agree_with_a_checkpoint_and_others_are_refused():
    said = Namespace(backbone=None, hidden_dim=None, attn_multi=None)
    found = Architecture("toy", hidden_dim=32)
    found.require_flags(said, "x.pth")
    for name in ("toy-RN", "clip-toy", "toy=weights.pt"):
        found.require_flags(Namespace(**vars(said) | {"backbone": name}), "x.pth")
    for flag, value in {"backbone": "RN50", "hidden_dim": 64, "attn_multi": 0.0}.items():
        with pytest.raises(UserError, match=rf"x.pth was trained with --{flag} \S+, not {value}; leave it out"):
            found.require_flags(Namespace(**vars(said) | {flag: value}), "x.pth")


def test_the_best_epoch_when_a_resumption_validates_on_another_split(tmp_path):
    folder = TrainingFolder(tmp_path, {})
    history = [{"epoch": 1, "val/mIoU": 50.0, "val/Hit": 50.0}, {"epoch": 2, "test/mIoU": 3.0, "test/Hit": 4.0}]
    folder.save_best({}, history, "test")
    assert load_checkpoint(tmp_path / "ckpt.pth", CURE)["epoch"] == 2


def test_ours_says_what_it_was_built_from(tmp_path, toy_stage1):
    described = {"hidden_dim": 32, "prompt_weight": 0.2, "input_size": 96, "query_length": 30}
    toy_stage1.architecture = Architecture("toy-RN=/somewhere/toy.pt", **described)
    save_checkpoint(tmp_path / "ours.pth", network_content(toy_stage1))
    network = load_network(tmp_path / "ours.pth", CURE)
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
    assert load_checkpoint(file, CURE) == {"epoch": 1}
    assert [path.name for path in tmp_path.iterdir()] == ["ckpt.pth"]


def test_a_folder_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").write_text("not a folder")
    with pytest.raises(UserError, match=r"cannot write .*file/ckpt\.pth: (File exists|Not a directory)"):
        save_checkpoint(tmp_path / "file" / "ckpt.pth", {})
