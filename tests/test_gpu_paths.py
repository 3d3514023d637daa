"""What a GPU would do, checked without one: no tensor on the wrong device, few waits for it, and few launches.

Fake tensors have a shape, a type and a device but no values: mixed devices raise, and so does reading a value, which
waits for the GPU. Launches are counted as operations other than views, on small tensors of a CPU.
"""

from collections import Counter
from types import SimpleNamespace

import pytest
import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode

from clip import build_clip
from IRNet import losses, network
from IRNet.affinity import search_offsets
from IRNet.crf import DenseCRF
from IRNet.instances import ASKED_EVERY, find_centroids
from IRNet.random_walk import random_walk
from model.build import Architecture, build_network
from model.losses import Stage1Criterion, Stage2Criterion
from model.prms import select, similarities
from model.scorer import Scorer
from utils.engine import Precision

pytestmark = pytest.mark.filterwarnings("ignore:Accessing the data pointer of FakeTensor")
CUDA = torch.device("cuda")
MODE = FakeTensorMode(allow_non_fake_inputs=True)
WAITS = {"_local_scalar_dense", "nonzero", "_unique2", "masked_select"}


class Launches(TorchDispatchMode):
    """Counts operations by name, without those that only look at a tensor in another way or allocate one."""

    def __init__(self):
        super().__init__()
        self.count: Counter = Counter()

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        if not function.is_view and "empty" not in (name := function.overloadpacket.__name__):
            self.count[name] += 1
        return result

    def waits(self):
        return sum(self.count[name] for name in WAITS)


@pytest.fixture
def fake_cuda(monkeypatch):
    monkeypatch.setattr("torch.cuda.amp.common.amp_definitely_not_available", lambda: False)
    monkeypatch.setattr("torch.amp.grad_scaler.amp_definitely_not_available", lambda: False, raising=False)
    monkeypatch.setattr("torch.cuda.is_bf16_supported", lambda *_, **__: True)
    for module in ("model.stage1", "model.stage2", "model.prms"):  # it looks for the longest sentence of a CPU's batch
        monkeypatch.setattr(f"{module}.without_padding", lambda tokens: tokens, raising=False)
    return MODE


@pytest.fixture(scope="module")
def networks():
    """The networks of both stages and a scorer, with fake tensors."""
    nets = [build_network(stage, Architecture(), pretrained=False) for stage in (1, 2)]
    nets.append(Scorer(build_clip("ViT-B/32", pretrained=False)))
    with MODE:
        return [on_cuda(net) for net in nets]


def on_cuda(module):
    """The module with fake CUDA tensors in place of its parameters and buffers."""
    for part in module.modules():
        for store in (part._parameters, part._buffers):
            for name, value in store.items():
                if value is not None:
                    tensor = torch.empty_strided(value.shape, value.stride(), dtype=value.dtype, device=CUDA)
                    store[name] = nn.Parameter(tensor, value.requires_grad) if value.requires_grad else tensor
    return module


@pytest.mark.parametrize("amp", ["off", "bf16", "fp16"])
@pytest.mark.parametrize("stage", [1, 2])
def test_forward_and_losses_of_a_training_step(fake_cuda, networks, stage, amp):
    precision = Precision(amp, torch.device("cpu"))
    precision.device = CUDA  # made for a CPU, because a gradient scaler looks for a GPU
    net, scorer = networks[stage - 1].train(), networks[2]
    scorer.amp = precision.dtype
    with fake_cuda, precision.autocast():
        batch = small_batch(320, CUDA)
        output = net(batch["image"], batch["tokens"])
        losses = criterion(stage, scorer, net)(output, batch)
    assert all(loss.device.type == "cuda" and loss.dtype == torch.float32 for loss in losses.values())
    assert len(losses) == (3 if stage == 1 else 5)


def small_batch(size, device):
    ids = {"sentence": torch.zeros(2).long(), "negatives": torch.zeros(2, 3).long()}
    tensors = {"image": torch.rand(2, 3, size, size), "tokens": torch.ones(2, 20).long()}
    tensors["mask"] = torch.ones(2, 1, size, size)
    return {name: tensor.to(device) for name, tensor in tensors.items()} | {"ids": ids}


def criterion(stage, scorer, teacher):
    if stage == 2:
        return Stage2Criterion(teacher)
    return Stage1Criterion(Sentences(scorer, torch.rand(9, 512, device=scorer.clip.text_projection.device)))


class Sentences:
    """A table of sentences that are all known, as after the first steps."""

    def __init__(self, scorer, table):
        self.scorer, self.table = scorer, table

    def __call__(self, ids):
        return self.table[ids.to(self.table.device)]


@pytest.mark.parametrize("stage", [1, 2])
def test_evaluation_and_prms(fake_cuda, networks, stage):
    net, scorer = networks[stage - 1].eval(), networks[2]
    with fake_cuda, torch.no_grad():
        images, tokens = torch.rand(2, 3, 320, 320, device=CUDA), torch.ones(5, 20, device=CUDA).long()
        target = torch.zeros(5, device=CUDA).long()
        maps = net.respond(images, tokens, target).maps
        batch = SimpleNamespace(images=images, photo=target, tokens=tokens, target=target)
        chosen = select(similarities(scorer, batch, maps), target)
    assert maps.device.type == chosen.device.type == "cuda"


def test_irnet(fake_cuda, monkeypatch):
    """Fake tensors cannot be sparse, so the walk's matrix is a dense one here."""
    monkeypatch.setattr("IRNet.random_walk.csr", lambda starts, columns, values, size: values.new_empty(size))
    net, offsets = network.build_network("resnet50").train(), search_offsets(losses.RADIUS)
    with fake_cuda:
        output = on_cuda(net)(torch.rand(2, 3, 128, 128, device=CUDA))
        pairs = losses.sort_pairs(torch.zeros(2, 32, 32, dtype=torch.uint8, device=CUDA), losses.RADIUS, offsets)
        lost = losses.pair_losses(*output, losses.RADIUS, offsets)
        edge, displacement = net.eval().detect(torch.rand(3, 96, 128, device=CUDA))
        walked = random_walk(torch.rand(3, *edge.shape, device=CUDA), edge)
    assert {tensor.device.type for tensor in [*output, *pairs, *lost, edge, displacement, walked]} == {"cuda"}


def test_launches():
    """At most so many, whatever the sizes; and what a GPU is waited for."""
    torch.manual_seed(0)
    edge, label = torch.rand(24, 32) / 2, torch.randint(0, 2, (1, 24, 32), dtype=torch.uint8)
    logits, field = torch.randn(1, 1, 24, 32, requires_grad=True), torch.randn(1, 2, 24, 32, requires_grad=True)
    photo = torch.randint(0, 256, (48, 64, 3), dtype=torch.uint8)
    crf = DenseCRF(photo)
    net = network.build_network("resnet-toy").eval()
    for work, launches, waits in (
        (lambda: random_walk(torch.rand(3, 24, 32), edge), 350, 0),
        (lambda: find_centroids(3 * field[0].detach()), 1700, 300 // ASKED_EVERY),
        (lambda: losses.affinity_displacement_losses(logits, field, label)["total"].backward(), 4000, 3),
        (lambda: DenseCRF(photo), 350, 8),
        (lambda: crf(torch.zeros(48, 64, 2, dtype=torch.bool)), 550, 0),
        (lambda: net.detect(torch.rand(3, 48, 64)), 120, 0),
    ):
        with Launches() as counted:
            work()
        assert sum(counted.count.values()) <= launches and counted.waits() <= waits, counted.count


@pytest.mark.parametrize(("stage", "launches"), [(1, 3200), (2, 2800)])
def test_launches_of_a_training_step(stage, launches):
    """Without the optimiser, which is one launch on a GPU."""
    net = build_network(stage, Architecture(hidden_dim=32, input_size=64), pretrained=False).train()
    losses_of = criterion(stage, Scorer(build_clip("ViT-B/32", pretrained=False)), None)
    batch = small_batch(64, torch.device("cpu"))
    with Launches() as counted:
        output = net(batch["image"], batch["tokens"])
        sum(losses_of(output, batch).values()).backward()
    assert sum(counted.count.values()) <= launches and not counted.waits(), counted.count
