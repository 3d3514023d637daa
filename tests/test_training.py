"""The training loop on a network small enough to know what it must do."""

from argparse import Namespace
from dataclasses import replace

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader

from clip import build_clip
from dataset.datasets import load_splits
from model.build import Architecture, build_network
from model.scorer import Scorer
from model.training import finish_epoch, validation_loaders
from utils.checkpoint import load_checkpoint, require_settings, restore, save_training
from utils.distributed import data_parallel
from utils.engine import Criterion, Precision, Training, polynomial_decay, steps_per_epoch, train_one_epoch
from utils.errors import ResumeError, UserError
from utils.log import TrainingLog
from utils.options import Parser, add_training_options

CPU = torch.device("cpu")


class Network(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.layers = nn.Sequential(nn.Linear(5, 4), nn.Tanh(), nn.Linear(4, 1))

    def forward(self, images, tokens):
        return self.layers(images)


class Squares(Criterion):
    def __call__(self, output, batch):
        return {"squares": (output - batch["tokens"]).square().mean()}


def samples(dtype=torch.float64):
    images = torch.randn(12, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(1)).to(dtype)
    return [{"image": image, "tokens": image[:1], "ref_id": str(i)} for i, image in enumerate(images)]


def train(data, batch_size, accumulate=1, epochs=2, lr=0.1, weight=2.0, amp="off", network=None):
    network = network or Network().to(data[0]["image"].dtype)
    optimizer = torch.optim.SGD(network.parameters(), lr=lr)
    constant, criterion = torch.optim.lr_scheduler.ConstantLR(optimizer, 1), Squares({"squares": weight})
    training = Training(network, network, criterion, optimizer, constant, Precision(amp, CPU), accumulate)
    for _ in range(epochs):
        losses = train_one_epoch(training, DataLoader(data, batch_size), TrainingLog("nowhere", None, {}))
    return torch.cat([parameter.detach().flatten() for parameter in network.parameters()]), losses


@pytest.mark.parametrize("accumulate", [2, 3])
def test_accumulated_batches_step_along_the_mean_gradient(accumulate):
    expected, whole = train(samples(), 6)
    found, parts = train(samples(), 6 // accumulate, accumulate)
    assert torch.allclose(found, expected, rtol=0, atol=1e-12)
    assert parts == pytest.approx(whole, rel=1e-12)
    assert parts["loss"] == pytest.approx(2 * parts["squares"], rel=1e-12)
    assert parts["lr/0"] == 0.1


def test_the_last_step_takes_the_batches_that_are_left():
    """12 samples in batches of 5 are batches of 5, 5 and 2; two at a time, steps of 10 samples and of 2."""
    loader = DataLoader(samples(), 5)
    assert (steps_per_epoch(loader, 1), steps_per_epoch(loader, 2)) == (3, 2)
    network = Network().double()
    train(samples(), 5, accumulate=2, epochs=1, network=network)
    by_hand = Network().double()
    for batches in ((slice(0, 5), slice(5, 10)), (slice(10, 12),)):
        images = torch.stack([sample["image"] for sample in samples()])
        loss = sum(2 * (by_hand(images[b], None) - images[b, :1]).square().mean() for b in batches) / len(batches)
        by_hand.zero_grad()
        loss.backward()
        with torch.no_grad():
            for parameter in by_hand.parameters():
                parameter -= 0.1 * parameter.grad
    for found, expected in zip(network.parameters(), by_hand.parameters(), strict=True):
        assert torch.allclose(found, expected, rtol=0, atol=1e-12)


def test_a_loss_that_is_not_finite_names_the_refs_of_its_batch():
    data = samples()
    data[9]["image"][2] = float("nan")
    with pytest.raises(UserError, match=r"the loss is not finite .* for the refs 8, 9, 10, 11; lower --lr"):
        train(data, 4)


def test_a_compiled_network_trains_as_the_plain_one():
    """Compiled in place: its parameters keep their names, so that its checkpoints are the same."""
    network = Network().double()
    names = list(network.state_dict())
    found, _ = train(samples(), 6, network=data_parallel(network, CPU, compiled=True))
    assert torch.allclose(found, train(samples(), 6)[0], rtol=0, atol=1e-9)
    assert list(network.state_dict()) == names


def test_half_precision_scales_gradients_that_would_vanish():
    """Gradients near 1e-9 are 0 in float16 unless the loss is scaled."""
    start = torch.cat([parameter.detach().flatten() for parameter in Network().parameters()])
    moved = {amp: train(samples(torch.float32), 6, lr=1e6, weight=1e-9, amp=amp)[0] - start for amp in ("off", "fp16")}
    scale = float(moved["off"].abs().max())
    assert torch.allclose(moved["fp16"], moved["off"], rtol=0.05, atol=0.05 * scale)


def test_half_precision_is_asked_for_and_leaves_scores_and_embeddings_in_float32(toy_stage1):
    parser = Parser("Train.", "train")
    add_training_options(parser, output="x")
    assert parser.parse_args([]).amp == "off"
    images, tokens = torch.randn(2, 3, 64, 64), torch.tensor([[49406, 1929, 49407], [49406, 2368, 49407]])
    with Precision("bf16", CPU).autocast():
        assert toy_stage1(images, tokens).scores.dtype == torch.float32
    scorer = Scorer(build_clip("toy-RNS", pretrained=False), torch.bfloat16)
    size = scorer.resolution
    embeddings = scorer.embed_images(torch.randn(2, 3, size, size), torch.ones(2, 1, size, size))
    assert embeddings.dtype == torch.float32
    assert torch.allclose(embeddings.norm(dim=-1), torch.ones(2), atol=1e-5)  # bf16 would be off by up to 4e-3


def test_validation_takes_few_photos_whatever_the_training_batch(world):
    splits = load_splits("refcocog", world, "umd", ["val"])
    flags = {"size": 64, "max_query_len": 20, "num_workers": 0, "test_split": ["val"]}
    sizes = [validation_loaders(splits, Namespace(batch_size=b, **flags))["val"].batch_size for b in (4, 48)]
    assert sizes == [4, 8]


def test_an_epoch_is_kept_and_an_empty_split_named_whatever_happens_to_the_picture(world, tmp_path, capsys):
    """The photos are gone."""
    network = build_network(1, Architecture("toy", 8), pretrained=False)
    split = replace(load_splits("refcocog", world, "umd", ["val"])["val"], image_root=tmp_path / "gone")
    args = Namespace(output=tmp_path, test_split=["val"], epochs=1, size=64, max_query_len=20)
    line = {"epoch": 1, "loss": 0.5, "val/mIoU": 0.0, "val/Hit": 0.0, "val/empty": 95.0, "seconds": 1}
    finish_epoch(args, started(network, [line]), {"val": split}, TrainingLog(tmp_path, None, {}))
    assert {file.name for file in tmp_path.iterdir()} == {"ckpt.pth", "ckpt_hit.pth", "ckpt_last.pth", "log.jsonl"}
    printed = capsys.readouterr()
    assert "warning: 95 % of the masks predicted on val are empty; look at" in printed.out
    assert f"warning: {tmp_path}/examples.png cannot be drawn: the photo {tmp_path}/gone" in printed.err


@pytest.mark.parametrize(("hold", "counts"), [(1, [0, 1, 2, 3, 4, 4]), (2, [0, 0, 1, 1, 2, 2])])
def test_the_rate_falls_after_each_step_or_after_some(hold, counts):
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
    schedule, rates = polynomial_decay(optimizer, total_steps=4, hold=hold), []
    for _ in counts:
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    assert rates == pytest.approx([(1 - count / 4) ** 0.9 for count in counts])


def started(network, history=()):
    """A training of a network whose finished epochs have the lines `history`."""
    optimizer = torch.optim.AdamW(network.parameters())
    schedule = polynomial_decay(optimizer, total_steps=10)
    return Training(network, network, Squares({}), optimizer, schedule, Precision("off", CPU), history=list(history))


@pytest.fixture
def saved(tmp_path):
    """A training of one epoch of one step, and the content of its last checkpoint."""
    training = started(nn.Linear(2, 1), [{"epoch": 1, "loss": 0.5}])
    training.network(torch.ones(1, 2)).sum().backward()
    training.optimizer.step()
    training.schedule.step()
    save_training(tmp_path, {}, training, {"lr": 1.0}, None)
    return training, load_checkpoint(tmp_path / "ckpt_last.pth", "")


def test_a_training_is_restored_exactly(saved):
    training, last = saved
    other = started(nn.Linear(2, 1))
    restore(other, last, "x")
    assert other.history == [{"epoch": 1, "loss": 0.5}] and other.step == 1
    found, expected = (each.optimizer.state_dict() for each in (other, training))
    assert torch.equal(found["state"][0]["exp_avg"], expected["state"][0]["exp_avg"])
    assert found["param_groups"] == expected["param_groups"]


NO_NUMBERS = [10**5000, 10**400, "1", torch.zeros(2), float("nan"), None]


@pytest.mark.parametrize("value", NO_NUMBERS, ids=["5000 digits", "400 digits", "text", "tensor", "nan", "none"])
def test_a_hostile_last_checkpoint_is_refused(value, saved):
    training, last = saved
    with pytest.raises(UserError, match="x was begun with other settings: lr was .* and is 1.0; use the same flags"):
        require_settings({"settings": {"lr": value}}, {"lr": 1.0}, "x")
    history = [value, [value], [{"val/mIoU": value}], [{"epoch": 1}, value]]
    for changed in (
        {"training": value},
        {"training": {"optimizer": value}},
        *({"history": lines} for lines in history),
    ):
        with pytest.raises(ResumeError, match=r"x/ckpt_last.pth is damaged \(.*\); train without --resume"):
            restore(training, last | changed, "x")


def test_the_best_epoch_when_a_resumed_training_is_validated_on_another_split(tmp_path):
    history = [{"epoch": 1, "val/mIoU": 50.0, "val/Hit": 50.0}, {"epoch": 2, "test/mIoU": 3.0, "test/Hit": 4.0}]
    training = started(nn.Linear(2, 1), history)
    save_training(tmp_path, {}, training, {}, "test")
    assert load_checkpoint(tmp_path / "ckpt.pth", "")["epoch"] == 2
    training.history.append({"epoch": 3, "test/mIoU": 2.0, "test/Hit": 5.0})
    save_training(tmp_path, {}, training, {}, "test")
    assert [load_checkpoint(tmp_path / name, "")["epoch"] for name in ("ckpt.pth", "ckpt_hit.pth")] == [2, 3]
