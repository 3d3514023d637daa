"""Encoders and tokens against the published implementation's (a_tokenizer, b_clip), and loading."""

import copy
from pathlib import Path

import pytest
import safetensors.torch
import torch
from torch import nn

from clip import build_clip, count_tokens, encode_text, image_pyramid, pyramid_channels, tokenize, without_padding
from tests.golden import difference, figures
from tests.reference.golden_weights import golden_input
from utils.errors import UserError

TEXT = figures("a_tokenizer")
CLIP = figures("b_clip")
PHRASES = bytes(TEXT["phrases_utf8"]).decode().split("\x1e")
IDS = torch.from_numpy(CLIP["ids"]).long()


def test_tokens_are_the_published_ones_but_a_long_sentence_keeps_its_end():
    assert (tokenize(PHRASES, 77).numpy() == TEXT["ids77"]).all()
    assert (tokenize([str(TEXT["too_long_phrase"])], 77).numpy() == TEXT["too_long_truncated77"]).all()
    assert [count_tokens(phrase) - 2 for phrase in PHRASES] == TEXT["ntok"].tolist()
    long, expected = TEXT["ntok"] > 18, TEXT["ids20"].copy()
    assert long.sum() == 3
    expected[long, 19] = 49407
    assert (tokenize(PHRASES, 20).numpy() == expected).all()


@pytest.mark.parametrize("tag, shape", [("320", (2, 3, 320, 320)), ("192x256", (1, 3, 192, 256))])
def test_image_pyramid(golden_rn50, tag, shape):
    with torch.no_grad():
        pyramid = image_pyramid(golden_rn50, golden_input(f"b.rn50.{tag}", shape))
    for level, features in enumerate(pyramid, start=1):
        assert difference(features, CLIP, f"{tag}.c{level}") < 3e-5
    assert pyramid_channels(golden_rn50) == tuple(features.shape[1] for features in pyramid)


def test_image_pyramid_in_training_mode_uses_and_updates_batch_statistics(golden_rn50):
    model = copy.deepcopy(golden_rn50).train()
    with torch.no_grad():
        pyramid = image_pyramid(model, golden_input("b.rn50.224", (2, 3, 224, 224)))
    for level, features in enumerate(pyramid, start=1):
        assert difference(features, CLIP, f"224train.c{level}") < 1e-3
    state, statistics = model.state_dict(), [key for key in CLIP if key.startswith("224train.visual")]
    assert len(statistics) == 6
    assert all(difference(state[key.removeprefix("224train.")], CLIP, key) < 1e-4 for key in statistics)


def test_text_features_and_image_embeddings(golden_rn50, golden_scorer):
    with torch.no_grad():
        image = golden_scorer.clip.encode_image(golden_input("b.vit.224", (3, 3, 224, 224)))
        assert difference(image, CLIP, "vit.image") < 3e-5
        for name, model in (("rn50", golden_rn50), ("vit", golden_scorer.clip)):
            text = encode_text(model, IDS)
            assert difference(text.tokens, CLIP, f"{name}.text_tokens") < 3e-5
            assert difference(text.pooled, CLIP, f"{name}.text_pooled") < 3e-5


def test_pooled_embeddings_do_not_depend_on_padding():
    model = build_clip("toy", pretrained=False).double()
    tokens = tokenize(["a red star", "the small blue cross on the left"], 77)
    cut = without_padding(tokens)
    assert cut.shape == (2, 9)
    assert torch.allclose(encode_text(model, cut).pooled, encode_text(model, tokens).pooled, rtol=0, atol=1e-12)


def test_names():
    with pytest.raises(UserError, match=r"no CLIP named 'clip-RN49'; known are RN50, .*, toy-RN, toy-RNS"):
        build_clip("clip-RN49")
    with pytest.raises(UserError, match="choose clip-RN50"):
        pyramid_channels(build_clip("ViT-B/32", pretrained=False))


def save_torchscript(state, file):
    """As OpenAI published its weights."""

    class Part(nn.Module):
        def forward(self) -> None:
            return None

    root = Part()
    for name, value in state.items():
        *path, last = name.split(".")
        part = root
        for step in path:
            part.add_module(step, getattr(part, step, Part()))
            part = getattr(part, step)
        part.register_buffer(last, value)
    torch.jit.save(torch.jit.script(root), file)


SAVES = {"RN50.pt": torch.save, "script.pt": save_torchscript, "RN50.safetensors": safetensors.torch.save_file}


@pytest.mark.filterwarnings("ignore:.torch.jit:FutureWarning")
@pytest.mark.parametrize(("file", "save"), SAVES.items(), ids=SAVES)
def test_weights_from_a_file_in_half_precision(tmp_path, golden_rn50, file, save, capsys):
    """OpenAI's weights are stored like this, with some constants; the model computes in float32."""
    state = {name: value.half() for name, value in golden_rn50.state_dict().items()}
    save(state | {"input_resolution": torch.tensor(224), "attn_mask": torch.zeros(77, 77)}, tmp_path / file)
    model = build_clip(f"clip-RN50={tmp_path / file}")
    assert not model.training and model.text_projection.dtype == torch.float32
    assert all(torch.equal(value, state[name].to(value.dtype)) for name, value in model.state_dict().items())
    assert capsys.readouterr().err == ""


def test_each_file_without_weights_has_its_own_message(tmp_path, monkeypatch):
    """Hostile ones: test_bad_input.py."""
    monkeypatch.chdir(tmp_path)
    hint = "give the weights of CLIP RN50"
    refused = {
        "absent.pt": (None, f"the checkpoint absent.pt does not exist; {hint}"),
        "text.pt": (b"not a state dict", "the checkpoint text.pt "),
        "list.pt": ([1], f"the checkpoint list.pt does not hold a dictionary; {hint}"),
        "epoch.pt": ({"epoch": 1}, f"epoch.pt does not hold a network; {hint}"),
        "part.pt": ({"visual.proj": torch.zeros(3)}, r"part.pt lacks [\w.]+; "),
        "other.pt": (
            build_clip("toy", pretrained=False).state_dict(),
            rf"other.pt has ln_final.bias of shape \(64,\) instead of \(512,\); {hint}",
        ),
    }
    for file, (content, message) in refused.items():
        if isinstance(content, bytes):
            Path(file).write_bytes(content)
        elif content is not None:
            torch.save(content, file)
        with pytest.raises(UserError, match=f"^[^\n]*{message}[^\n]*$"):
            build_clip(f"RN50={file}")
    torch.save({"toy-RN": {}}, "toy.pt")
    with pytest.raises(UserError, match="^toy.pt is not a toy CLIP "):
        build_clip("toy=toy.pt")


def test_without_a_network_one_line_names_the_way_out(tmp_path, monkeypatch, capfd):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(UserError, match="^cannot load the weights of CLIP RN50 .*: clip-RN50=/path/to/file$"):
        build_clip("RN50")
    assert capfd.readouterr() == ("", "")
