"""The segmentation network, its loss and its optimiser steps against the published figures (c, e)."""

import copy

import numpy as np
import pytest
import torch

from clip import build_clip
from model.attention import BilateralPrompt, PixelAttention
from model.losses import Stage2Criterion, segmentation_loss
from model.stage2 import SENTENCES_AT_A_TIME, SegmentationNetwork, Stage2Output
from tests.golden import difference, figures, gradient_difference, load_by_published_names, norms_by_our_names
from tests.reference.golden_weights import golden_input
from utils.engine import build_optimizer

ATTENTION64 = figures("f64/c_attn")
FIGURES = figures("e_stage2")
FIGURES64 = figures("f64/e_stage2")


@pytest.mark.parametrize("tag, channels, words", [("pixel", 32, 24), ("pixel20", 16, 48)])
def test_pixel_attention_in_float64(tag, channels, words):
    attention = PixelAttention(channels, words)
    load_by_published_names(attention, "attention2.", "attention.2.").double()
    visual, tokens = (torch.from_numpy(ATTENTION64[f"{tag}.in{i}"]).double().requires_grad_() for i in range(2))
    out = attention(visual, tokens)
    (out * golden_input(f"c.{tag}.grad0", out.shape).double()).sum().backward()
    assert difference(out, ATTENTION64, f"{tag}.out0") < 1e-9
    assert difference(visual.grad, ATTENTION64, f"{tag}.in0_grad") < 1e-7
    assert difference(tokens.grad, ATTENTION64, f"{tag}.in1_grad") < 1e-7


@pytest.fixture(scope="module")
def images():
    return golden_input("e.img", (4, 3, 320, 320))


@pytest.fixture(scope="module")
def tokens():
    return torch.from_numpy(FIGURES["word_ids"]).long()


def test_gradients_of_a_single_image():
    """On CPUs PyTorch's instance norm returns wrong ones at batch 1 when what follows hands back a transposed one."""
    generator = torch.Generator().manual_seed(0)
    visual = torch.randn(1, 4, 3, 5, dtype=torch.float64, generator=generator).requires_grad_()
    words = torch.randn(1, 6, 7, dtype=torch.float64, generator=generator)
    torch.manual_seed(0)
    attention, prompt = PixelAttention(4, 6).double(), BilateralPrompt(4).double()
    sentences = torch.randn(1, 3, 4, dtype=torch.float64, generator=generator)
    assert torch.autograd.gradcheck(lambda x: attention(x, words), visual)
    assert torch.autograd.gradcheck(lambda x: prompt(x, sentences), visual)


def test_evaluation_in_float32(golden_stage2, images, tokens):
    wide = golden_input("e.img_nonsquare", (2, 3, 256, 320))
    with torch.no_grad():
        together = golden_stage2(images[:3], tokens[:3]).logits[0]
        shared = golden_stage2.respond(images[:2], tokens[[1, 0]], torch.tensor([1, 0])).maps
        nonsquare = golden_stage2(wide, tokens[:2]).logits[0]
    assert difference(together, FIGURES64, "eval.out") < 5e-5
    assert difference(shared[1:], FIGURES64, "eval.single0") < 5e-5
    assert (shared[0] - together[1]).abs().max() < 5e-5 * together[1].abs().max()
    assert difference(nonsquare, FIGURES64, "eval.nonsquare") < 5e-5


def test_more_sentences_than_are_decoded_at_a_time():
    """Nothing depends on the parts that the sentences of a batch are decoded in."""
    torch.manual_seed(0)
    network = SegmentationNetwork(build_clip("toy", pretrained=False)).double().eval()
    images, tokens = torch.randn(3, 3, 64, 64).double(), torch.randint(1, 500, (2 * SENTENCES_AT_A_TIME + 3, 6))
    photo = torch.randint(0, 3, (len(tokens),))
    with torch.no_grad():
        together = network.respond(images, tokens, photo).maps
        alone = torch.cat(
            [network.respond(images, tokens[i : i + 1], photo[i : i + 1]).maps for i in range(len(tokens))]
        )
    assert torch.allclose(together, alone, rtol=0, atol=1e-9)


def pseudo_masks():
    coarse = (golden_input("e.pseudo", (4, 1, 10, 10)) > 0).float()
    return coarse.repeat_interleave(32, dim=2).repeat_interleave(32, dim=3)


@pytest.fixture(scope="module")
def exact(golden_stage2, images, tokens):
    """The first training step in float64: output, losses and gradients."""
    network = copy.deepcopy(golden_stage2).double().train()
    output = network(images.double(), tokens)
    losses = Stage2Criterion()(output, {"mask": pseudo_masks().double()})
    sum(losses.values()).backward()
    return output, losses, {n: p.grad for n, p in network.named_parameters() if p.grad is not None}


def test_training_in_float64(exact):
    output, losses, gradients = exact
    for level, logits in enumerate(output.logits, start=1):
        assert difference(logits, FIGURES64, f"train.out{level}") < 1e-9
    values = [loss.item() for loss in losses.values()]
    assert values == pytest.approx(FIGURES64["train.criterion"].tolist(), rel=1e-9)
    published = norms_by_our_names(FIGURES64, 0)
    assert set(published) - set(gradients) == {name for name, norm in published.items() if norm == -1}
    compared = {name for name in gradients if published[name] >= 1e-6}  # the others are noise around 0
    assert len(compared) == 400
    for name in compared:
        assert float(gradients[name].norm()) == pytest.approx(published[name], rel=1e-6), name


@pytest.mark.parametrize("published", FIGURES["watch"].tolist())
def test_gradients_entry_by_entry(exact, published):
    assert gradient_difference(exact[2], FIGURES64, published) < 1e-6


def test_losses_before_and_after_a_step_in_float32(golden_stage2, images, tokens):
    network = copy.deepcopy(golden_stage2).train()
    criterion = Stage2Criterion()
    optimizer = build_optimizer(network, 5e-5, 0.1, 0.01, fast=("positional_embedding",))

    def loss():
        return sum(criterion(network(images, tokens), {"mask": pseudo_masks()}).values())

    before = loss()
    assert before.item() == pytest.approx(FIGURES64["steps.loss"][0], rel=1e-5)
    before.backward()
    optimizer.step()
    with torch.no_grad():
        assert loss().item() == pytest.approx(FIGURES64["steps.loss"][1], rel=7e-4)


def test_slopes_learn_at_the_backbones_rate_where_that_is_asked_for(golden_stage2):
    slopes = {id(module.weight) for module in golden_stage2.modules() if isinstance(module, torch.nn.PReLU)}
    assert len(slopes) == 12
    for asked, place in ((True, 0), (False, 1)):
        groups = build_optimizer(golden_stage2, 5e-5, 0.1, 0.01, slow_slopes=asked).param_groups
        assert [len(slopes & {id(p) for p in group["params"]}) for group in groups] == [
            12 * (place == n) for n in (0, 1)
        ]


def test_positions_of_the_backbone_learn_at_the_full_rate(golden_stage2):
    optimizer = build_optimizer(golden_stage2, 5e-5, 0.1, 0.01, fast=("positional_embedding",))
    names = {id(p): n for n, p in golden_stage2.named_parameters()}
    fast = {names[id(p)] for p in optimizer.param_groups[1]["params"]}
    # The attention pool's own positional embedding is in the published group too; it never gets a gradient.
    assert {n for n in fast if n.startswith("backbone.")} == {"backbone.positional_embedding"}
    assert set(FIGURES["group1_backbone_names"].tolist()) - fast == {"backbone.visual.attnpool.positional_embedding"}
    assert [group["lr"] for group in optimizer.param_groups] == pytest.approx(FIGURES["lr_used"][0].tolist())


def test_segmentation_loss_by_hand():
    """Logit 0 costs ln 2 whatever the mask; a logit of 2 on foreground costs ln(1 + e^-2)."""
    logits, mask = torch.tensor([[[[0.0, 2.0]]]]), torch.tensor([[[[0.0, 1.0]]]])
    assert float(segmentation_loss(logits, mask)) == pytest.approx((np.log(2) + np.log1p(np.exp(-2))) / 2, abs=1e-6)


class Teachable(torch.nn.Module):
    """Logits that are a parameter."""

    def __init__(self):
        super().__init__()
        self.logit = torch.nn.Parameter(torch.zeros(1, 1, 2, 2))

    def forward(self, images, tokens):
        return Stage2Output((self.logit,) * 4)


def test_mean_teacher_by_hand():
    student = Teachable()
    criterion = Stage2Criterion(student, decay=0.9)
    with torch.no_grad():
        student.logit.fill_(1.0)
    batch = {"image": None, "tokens": None, "mask": torch.ones(1, 1, 2, 2)}
    losses = criterion(student(None, None), batch)
    assert losses["consistency"].item() == pytest.approx(4 * (1 / (1 + np.exp(-1)) - 0.5) ** 2, abs=1e-6)
    criterion.after_step()
    assert torch.allclose(criterion.teacher.logit, torch.full((1, 1, 2, 2), 0.1))
