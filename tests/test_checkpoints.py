"""Published checkpoints load tensor by tensor; damaged, hostile and foreign ones are refused by name."""

import pickle
import zipfile
from argparse import Namespace
from datetime import timedelta
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch
from torch import nn

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


EXTRAS = {
    "args": Namespace(lr=5e-5, output=Path("weights"), nested=Namespace(seed=1)),
    "best_mIoU": np.float64(41.5),
    "best": {"epoch": np.int64(3), "better": np.bool_(True), "curve": np.arange(3.0)},
    "random": np.random.default_rng(0).bit_generator.state,
    "time": timedelta(hours=3),
}


@pytest.mark.parametrize("options", [{}, {"_use_new_zipfile_serialization": False}], ids=["zip", "before torch 1.6"])
@pytest.mark.parametrize("key", ["model", "state_dict", None])
def test_what_other_trainings_store_beside_a_network_is_left_out(key, options, tmp_path, toy_stage1, capsys):
    state, file = toy_stage1.state_dict(), tmp_path / "theirs.pth"
    more = {"merge.0.conv.weight": torch.zeros(1), "focal.weight": torch.ones(2)}  # stage 2's, and nobody's
    stored = {f"module.{name}": value for name, value in (state | more).items()}
    torch.save(EXTRAS | ({key: stored} if key else stored), file, **options)
    network = load_network(file, HINT, Architecture("toy", hidden_dim=32))
    assert all(torch.equal(tensor, state[name]) for name, tensor in network.state_dict().items())
    warning, left = capsys.readouterr().err, len(more if key else EXTRAS | more)
    assert warning.startswith(f"warning: {file} has {left} parameters that this network does not have: ")
    assert warning.count("\n") == 1


@pytest.mark.parametrize("value", [print, nn.Linear(1, 1), torch.optim.SGD], ids=["function", "module", "class"])
def test_other_objects_beside_a_network_are_refused(value, tmp_path, toy_stage1):
    torch.save({"model": toy_stage1.state_dict(), "args": Namespace(value=value)}, tmp_path / "theirs.pth")
    with pytest.raises(UserError, match=r"theirs.pth tries to import [\w.]+; use a trusted file"):
        load_network(tmp_path / "theirs.pth", HINT, Architecture("toy", hidden_dim=32))


@pytest.mark.filterwarnings("ignore:.torch.jit:FutureWarning")
def test_files_of_safetensors_and_of_torchscript_are_read_and_no_code_of_theirs(tmp_path):
    network = nn.Sequential(nn.Conv2d(1, 2, 1), nn.Sequential(nn.BatchNorm2d(2), nn.ReLU())).half()
    torch.jit.save(torch.jit.script(network), tmp_path / "whole.pt")
    with zipfile.ZipFile(tmp_path / "whole.pt") as whole, zipfile.ZipFile(tmp_path / "script.pt", "w") as archive:
        for name in whole.namelist():
            archive.writestr(name, b"no code" if "/code/" in name else whole.read(name))
    with pytest.raises(RuntimeError):
        torch.jit.load(tmp_path / "script.pt")
    safetensors.torch.save_file(network.state_dict(), tmp_path / "plain.safetensors")
    for name in ("script.pt", "plain.safetensors"):
        loaded = load_checkpoint(tmp_path / name, HINT)
        assert loaded.keys() == network.state_dict().keys()
        assert all(torch.equal(loaded[name], value) for name, value in network.state_dict().items())


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
