"""The response network, its losses and three optimiser steps against the published figures (c, d)."""

import copy

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from model.attention import BilateralPrompt
from model.build import Architecture, build_network
from model.checkpoint_names import our_name
from model.losses import Stage1Criterion, classification_loss, classification_scores, foreground_loss, negative_loss
from model.scorer import FrozenLinear, Scorer, SentenceTable
from tests.golden import (
    difference,
    figures,
    gradient_difference,
    load_by_published_names,
    load_golden,
    norms_by_our_names,
)
from tests.reference.golden_weights import golden_input
from utils.engine import Precision, build_optimizer, polynomial_decay

ATTENTION64 = figures("f64/c_attn")
FORWARD = figures("d_stage1_forward")
FORWARD64 = figures("f64/d_stage1_forward")
STEP = figures("d_stage1_step")
STEP64 = figures("f64/d_stage1_step")


@pytest.mark.parametrize("tag", ["bilateral", "bilateral_1text"])
def test_bilateral_prompt_in_float64(tag):
    prompt = load_by_published_names(BilateralPrompt(32), "attn_fusion.", "prompt.").double()
    visual, sentences = (torch.from_numpy(ATTENTION64[f"{tag}.in{i}"]).double().requires_grad_() for i in range(2))
    outputs = prompt(visual, sentences.transpose(1, 2))
    weights = [golden_input(f"c.{tag}.grad{i}", ATTENTION64[f"{tag}.out{i}"].shape).double() for i in range(2)]
    sum((out * weight).sum() for out, weight in zip(outputs, weights, strict=True)).backward()
    for i, x in enumerate((visual, sentences)):
        assert difference(outputs[i], ATTENTION64, f"{tag}.out{i}") < 1e-9
        assert difference(x.grad, ATTENTION64, f"{tag}.in{i}_grad") < 1e-7
    names = [our_name(f"attn_fusion.{n}").removeprefix("prompt.") for n in ATTENTION64[f"{tag}.param_grad_names"]]
    norms = dict(zip(names, ATTENTION64[f"{tag}.param_grad_norms"].tolist(), strict=True))
    for name, parameter in prompt.named_parameters():
        assert float(parameter.grad.norm()) == pytest.approx(norms[name], rel=1e-6, abs=1e-6)


def test_one_sentence_turns_the_visual_prompt_into_a_bias():
    prompt = load_by_published_names(BilateralPrompt(32), "attn_fusion.", "prompt.").double()
    visual, sentence = torch.randn(2, 32, 5, 5).double(), torch.randn(2, 1, 32).double()
    expected = prompt.single_sentence_visual_prompt().expand(2, 32, 5, 5)
    assert torch.allclose(prompt.visual_prompt(visual, sentence), expected, atol=1e-9)


@pytest.fixture(scope="module")
def images():
    return golden_input("d.img", (4, 3, 320, 320))


@pytest.fixture(scope="module")
def tokens():
    return torch.from_numpy(FORWARD["word_ids"]).long()


def evaluation_figures(network, images, tokens):
    """What d_stage1_forward holds of evaluation, by its keys."""
    images, wide = (
        x.to(network.logit_scale.dtype) for x in (images, golden_input("d.img_nonsquare", (2, 3, 256, 320)))
    )
    parts = {
        "vis_project": network.visual_projection,
        "lan_project": network.sentence_projection,
        "attn": network.prompt,
    }
    seen = {name: [] for name in parts}
    hooks = [
        part.register_forward_hook(lambda _, __, out, name=name: seen[name].append(out)) for name, part in parts.items()
    ]
    with torch.no_grad():
        response = network.eval()(images[:3], tokens[:3]).response.relu()
        # Two images and three sentences at once give what the published code gives for each pair by itself.
        singles = network.respond(images[[0, 2]], tokens[[0, 2, 0]], torch.tensor([0, 1, 1])).maps
        nonsquare = network(wide, tokens[:2]).response.relu()
    for hook in hooks:
        hook.remove()
    return {
        "eval.out": response,
        "eval.vis_project": seen["vis_project"][0],
        "eval.lan_project": seen["lan_project"][0],
        "eval.attn_vis": seen["attn"][0][0],
        "eval.attn_lan": seen["attn"][0][1],
        "eval.single0": singles[0:1],
        "eval.single2": singles[1:2],
        "eval.nonsquare": nonsquare,
    }


def forward_figures(network, images, tokens):
    """Everything that d_stage1_forward holds."""
    found = evaluation_figures(network, images, tokens)
    with torch.no_grad():
        output = copy.deepcopy(network).train()(images[:3].to(network.logit_scale.dtype), tokens[:3])
    return found | {
        "train.relu": output.response.relu(),
        "train.sigmoid": output.response.sigmoid(),
        "train.cls_out": classification_scores(output.scores),
    }


def test_forward_in_float64(golden_stage1, images, tokens):
    for key, value in forward_figures(copy.deepcopy(golden_stage1).double(), images, tokens).items():
        assert difference(value, FORWARD64, key) < 1e-9, key


# Ten times what was seen. Batch statistics and a norm over a nearly constant map (attn_vis) lose the most digits.
FLOAT32_TOLERANCE = {"eval.single": 2e-5, "eval.vis": 2e-5, "eval.lan": 2e-5, "eval.attn_lan": 2e-5, "train": 6e-3}


def test_forward_in_float32_and_in_the_memory_layout_that_is_trained(images, tokens):
    network = load_golden(build_network(1, Architecture("RN50"), pretrained=False), stage=1)
    for key, value in forward_figures(network, images, tokens).items():
        tolerance = next((t for start, t in FLOAT32_TOLERANCE.items() if key.startswith(start)), 1e-3)
        assert difference(value, FORWARD64, key) < tolerance, key


def step_batch(images, tokens):
    negatives = torch.arange(4, 16).reshape(4, 3)
    return {"image": images, "tokens": tokens, "ids": {"sentence": torch.arange(4), "negatives": negatives}}


def step_criterion(scorer):
    return Stage1Criterion(SentenceTable(scorer, [*STEP["texts"].tolist(), *STEP["neg_texts"].flatten().tolist()], 20))


PARTS = {"foreground": "steps.l1", "classification": "steps.l4", "negative": "steps.l5"}


def step_losses(network, criterion, images, tokens):
    """The losses of a training step by name, with their weighted sum as `loss`, before the backward pass."""
    losses = criterion(network(images, tokens), step_batch(images, tokens))
    return losses | {"loss": sum(criterion.weights[name] * value for name, value in losses.items())}


def compared_norms(norms, step):
    """The norms of gradients beside the published ones, by name.

    In exact arithmetic some have no gradient (biases before a normalisation): what is computed there is noise, by which
    AdamW moves them all the same.
    """
    published, first = norms_by_our_names(STEP64, step), norms_by_our_names(STEP64, 0)
    # The published code computes the gradient of logit_scale, and no optimiser uses it.
    assert set(published) - set(norms) == {n for n, norm in published.items() if norm == -1} | {"logit_scale"}
    compared = {name: (norm, published[name]) for name, norm in norms.items() if not 0 <= first[name] < 1e-6}
    assert len(compared) == 338
    return compared


def gradients_of(network):
    return {name: p.grad for name, p in network.named_parameters() if p.grad is not None}


@pytest.fixture(scope="module")
def exact(golden_stage1, golden_scorer, images, tokens):
    """The losses of the first step in float64, and its gradients by name."""
    network = copy.deepcopy(golden_stage1).double().train()
    losses = step_losses(network, step_criterion(golden_scorer.double()), images.double(), tokens)
    losses["loss"].backward()
    golden_scorer.float()
    return losses, gradients_of(network)


def test_losses_and_gradient_norms_in_float64(exact):
    losses, gradients = exact
    for name, key in (PARTS | {"loss": "steps.loss"}).items():
        assert losses[name].item() == pytest.approx(STEP64[key][0], rel=1e-6), name
    for name, (norm, published) in compared_norms({n: float(g.norm()) for n, g in gradients.items()}, 0).items():
        assert norm == pytest.approx(published, rel=1e-5), name


@pytest.mark.parametrize("published", STEP["watch"].tolist())
def test_gradients_entry_by_entry(exact, published):
    assert gradient_difference(exact[1], STEP64, published) < 1e-6


def test_four_steps_in_float32(golden_scorer, images, tokens):
    """Losses, norms of gradients and rates of each, and where they end; tolerances are some times what was seen."""
    network = load_golden(build_network(1, Architecture("RN50"), pretrained=False), stage=1).train()
    before, criterion = copy.deepcopy(network.state_dict()), step_criterion(golden_scorer)
    optimizer = build_optimizer(network, lr=5e-5, lr_multi=0.1, weight_decay=0.01)
    schedule = polynomial_decay(optimizer, total_steps=60)
    for step in range(4):
        losses = step_losses(network, criterion, images, tokens)
        for name, key in (PARTS | {"loss": "steps.loss"}).items():
            assert losses[name].item() == pytest.approx(STEP64[key][step], rel=3e-3 if step else 5e-4), name
        rates = [group["lr"] for group in optimizer.param_groups]
        assert rates == pytest.approx(STEP["lr_used"][step].tolist())
        optimizer.zero_grad()
        losses["loss"].backward()
        norms = compared_norms({name: float(gradient.norm()) for name, gradient in gradients_of(network).items()}, step)
        off = [abs(norm / published - 1) for norm, published in norms.values()]
        assert np.median(off) < (0.015 if step else 3e-4) and max(off) < (0.3 if step else 0.05)
        optimizer.step()
        schedule.step()
    state = network.state_dict()
    moved = {name: float((p.detach() - before[name]).norm()) for name, p in network.named_parameters()}
    assert moved["logit_scale"] == 0
    off = []
    for name, single, double in zip(STEP["param_names"], STEP["delta_norms"], STEP64["delta_norms"], strict=True):
        if abs(single - double) <= 0.01 * double:  # where rounding decides, even the two published runs disagree
            off.append(abs(moved[our_name(name)] / double - 1) if double else moved[our_name(name)])
    assert len(off) > 300 and np.median(off) < 2e-3 and max(off) < 0.1
    for name, stats in zip(STEP64["buffer_names"].tolist(), STEP64["buffer_stats_after"], strict=True):
        values = state[name].double().numpy()
        found = [values.mean(), np.abs(values).max(), np.linalg.norm(values)]
        assert found == pytest.approx([stats[0], stats[2], stats[3]], rel=0.02), name


def test_bf16_moves_maps_and_losses_by_a_few_percent(golden_scorer, images, tokens):
    """Seen on a CPU: 1.5 % of the largest response, 3 % of a loss; with the prompt in bf16, 50 % of a response."""
    network = load_golden(build_network(1, Architecture("RN50"), pretrained=False), stage=1)
    criterion = step_criterion(Scorer(golden_scorer.clip, torch.bfloat16))
    with torch.no_grad():
        with Precision("bf16", images.device).autocast():
            found = evaluation_figures(network, images, tokens)
            output = network.train()(images, tokens)
        losses = criterion(output, step_batch(images, tokens))
    for key in ("eval.out", "eval.single0", "eval.single2", "eval.nonsquare"):
        assert difference(found[key], FORWARD64, key) < 0.15, key
    for name, key in PARTS.items():
        assert float(losses[name]) == pytest.approx(STEP64[key][0], rel=0.2), name


def test_classification_scores_worked_out_by_hand():
    """One image, one sentence, two pixels scored 1 and 1: softmax with the background of 1 is a half everywhere."""
    scores = torch.ones(1, 1, 1, 2)
    expected = 1 + 1 + (1 - 0.5) ** 3 * np.log(0.01 + 0.5)
    assert float(classification_scores(scores)) == pytest.approx(expected, abs=1e-6)
    assert float(classification_loss(scores)) == pytest.approx(np.log1p(np.exp(-expected)), abs=1e-6)


def test_calibration_losses_worked_out_by_hand():
    foreground = F.normalize(torch.tensor([[3.0, 4.0]]), dim=-1)
    assert float(foreground_loss(foreground, torch.tensor([[1.0, 0.0]]))) == pytest.approx(-np.log(0.6), abs=1e-6)
    assert float(foreground_loss(foreground, torch.tensor([[-1.0, 0.0]]))) == pytest.approx(-np.log(1e-4), abs=1e-5)
    negatives = torch.tensor([[[0.0, 1.0], [1.0, 0.0]]])
    expected = -(np.log(1 - 0.8) + np.log(1 - 0.6)) / 2
    assert float(negative_loss(foreground, negatives)) == pytest.approx(expected, abs=1e-6)


def test_the_scorer_collects_no_gradient(golden_scorer):
    mask = torch.full((1, 1, 224, 224), 0.5, requires_grad=True)
    golden_scorer.embed_images(torch.randn(1, 3, 224, 224), mask).sum().backward()
    assert mask.grad.abs().sum() > 0
    assert all(parameter.grad is None for parameter in golden_scorer.parameters())


def test_the_scorers_frozen_layers_compute_what_linear_layers_do(golden_scorer):
    images, masks = golden_input("scorer", (2, 3, 224, 224)), torch.full((2, 1, 224, 224), 0.5)
    assert sum(isinstance(module, FrozenLinear) for module in golden_scorer.clip.visual.modules()) == 2 * 12
    with torch.no_grad():
        frozen = golden_scorer.embed_images(images, masks)
    plain = golden_scorer.embed_images(images, masks.requires_grad_())  # with gradients they are linear layers
    assert float((frozen - plain.detach()).abs().max()) < 1e-5


def test_a_weight_of_zero_switches_a_loss_off():
    criterion = Stage1Criterion(SentenceTable(None, [], 20), foreground=0, negative=0)
    output = type("Output", (), {"scores": torch.randn(2, 2, 3, 3), "response": None})
    assert set(criterion(output, {})) == {"classification"}
