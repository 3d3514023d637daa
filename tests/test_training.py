"""The training loop on a network small enough to know what it must do."""

import os
import signal
from contextlib import suppress
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from utils.engine import Criterion, Training, fit
from utils.errors import InterruptionError, UserError
from utils.log import TrainingLog


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


class Samples:
    """Twelve samples, `size` at a time; `asked` hears of each batch before it is given."""

    def __init__(self, size, accumulate, asked=lambda number: None):
        self.size, self.accumulate, self.asked = size, accumulate, asked
        generator = torch.Generator().manual_seed(1)
        self.images = torch.randn(12, 5, dtype=torch.float64, generator=generator)

    def __len__(self):
        return 12 // self.size // self.accumulate

    def from_step(self, epoch, step):
        for number in range(step * self.accumulate, len(self) * self.accumulate):
            self.asked(number)
            images = self.images[number * self.size :][: self.size]
            ids = {"reference": torch.arange(number * self.size, (number + 1) * self.size)}
            yield {"image": images, "tokens": images[:, :1] * (epoch + 1), "ids": ids}

    def describe(self, references):
        return str(references)


def new_training():
    network = Network().double()
    optimizer = torch.optim.AdamW(network.parameters(), lr=0.1)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 0.9**step)
    return Training(network, Squares({"squares": 2.0}), optimizer, schedule)


def train(training, loader, folder, save=lambda: None):
    callbacks = SimpleNamespace(save_every=1e9, validate=dict, on_epoch=lambda: None, save=save)
    fit(training, loader, 2, TrainingLog(folder, None), callbacks)
    return torch.cat([parameter.detach().flatten() for parameter in training.network.parameters()])


def test_a_stop_during_validation_comes_after_its_epoch_and_nothing_is_lost(tmp_path):
    """The whole training is saved before validation, which can take long, and after it."""
    events = []
    training = new_training()

    def validate():
        events.append("validate")
        os.kill(os.getpid(), signal.SIGTERM)
        return {}

    def save():
        events.append((training.epoch, training.step))

    callbacks = SimpleNamespace(save_every=1e9, validate=validate, on_epoch=lambda: None, save=save)
    with pytest.raises(InterruptionError):
        fit(training, Samples(4, 1), 2, TrainingLog(tmp_path, None), callbacks)
    assert events == [(0, 3), "validate", (1, 0)]


@pytest.mark.parametrize("accumulate", [2, 3])
def test_accumulated_batches_step_along_the_mean_gradient(tmp_path, accumulate):
    whole, parts = new_training(), new_training()
    expected = train(whole, Samples(6, 1), tmp_path)
    found = train(parts, Samples(6 // accumulate, accumulate), tmp_path)
    assert torch.allclose(found, expected, rtol=0, atol=1e-12)
    assert parts.history[-1]["squares"] == pytest.approx(whole.history[-1]["squares"], rel=1e-12)
    assert parts.history[-1]["loss"] == pytest.approx(2 * parts.history[-1]["squares"], rel=1e-12)


def test_a_stop_between_two_accumulated_batches_loses_nothing(tmp_path):
    """The signal comes before the second batch of the second step: that step is finished, then kept."""
    expected = train(new_training(), Samples(2, 3), tmp_path)
    kept = {}
    stopped = new_training()

    def save():
        kept.update(training=stopped.state_dict(), network=stopped.network.state_dict())
        torch.save(kept, tmp_path / "kept.pth")

    loader = Samples(2, 3, lambda number: os.kill(os.getpid(), signal.SIGTERM) if number == 4 else None)
    with suppress(InterruptionError):
        train(stopped, loader, tmp_path, save)
    assert (stopped.epoch, stopped.step) == (0, 2)
    kept = torch.load(tmp_path / "kept.pth", weights_only=True)
    resumed = new_training()
    resumed.network.load_state_dict(kept["network"])
    resumed.load_state_dict(kept["training"])
    assert torch.equal(train(resumed, Samples(2, 3), tmp_path), expected)


def test_a_loss_that_is_not_finite_ends_the_training_with_its_refs(tmp_path):
    """The third of the batches has a hole; what was saved before stays."""
    saved = []
    loader = Samples(4, 1)
    loader.images[9, 2] = float("nan")
    training = new_training()
    with pytest.raises(UserError, match=r"the loss is not finite .* for the refs \[8, 9, 10, 11\]; lower --lr"):
        train(training, loader, tmp_path, lambda: saved.append(training.step))
    assert not saved
    assert not (tmp_path / "log.jsonl").exists()


def test_half_precision_scales_gradients_that_would_vanish(tmp_path):
    """Gradients near 1e-9 are 0 in float16 unless the loss is scaled."""

    def moved(amp, scaled=True):
        network = Network()
        loader = Samples(6, 1)
        loader.images = loader.images.float()
        before = torch.cat([parameter.detach().flatten().clone() for parameter in network.parameters()])
        optimizer = torch.optim.SGD(network.parameters(), lr=1e6)
        schedule = torch.optim.lr_scheduler.ConstantLR(optimizer, 1.0)
        training = Training(network, Squares({"squares": 1e-9}), optimizer, schedule, amp=amp)
        training.scaler._enabled = training.scaler.is_enabled() and scaled
        return train(training, loader, tmp_path) - before

    expected = moved(None)
    assert torch.allclose(moved(torch.float16), expected, rtol=0.02, atol=0.02 * float(expected.abs().max()))
    assert not moved(torch.float16, scaled=False)[: 5 * 4].any()
