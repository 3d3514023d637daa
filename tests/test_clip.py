"""Encoders and tokens against the published implementation's (a_tokenizer, b_clip), and loading."""

import copy

import numpy as np
import pytest
import torch

from clip import build_clip, encode_image, encode_text, image_pyramid, pyramid_channels, tokenize, without_padding
from clip.tokens import count_tokens
from tests.golden import difference, figures
from tests.reference.golden_weights import golden_input
from utils.errors import UserError

TEXT = figures("a_tokenizer")
CLIP = figures("b_clip")
PHRASES = bytes(TEXT["phrases_utf8"]).decode().split("\x1e")


def test_tokens_of_whole_sentences_are_the_published_ones():
    assert (tokenize(PHRASES, 77).numpy() == TEXT["ids77"]).all()


def test_a_long_sentence_is_cut_with_its_end_kept():
    tokens, published = tokenize(PHRASES, 20).numpy(), TEXT["ids20"]
    long = TEXT["ntok"] > 18
    assert long.sum() == 3
    assert (tokens[~long] == published[~long]).all()
    assert (tokens[long, :19] == published[long, :19]).all()
    assert (tokens[long, 19] == 49407).all()


def test_over_77_tokens_are_cut_not_refused():
    assert (tokenize([str(TEXT["too_long_phrase"])], 77).numpy() == TEXT["too_long_truncated77"]).all()


def test_count_of_tokens_includes_start_and_end():
    assert [count_tokens(phrase) - 2 for phrase in PHRASES] == TEXT["ntok"].tolist()


@pytest.mark.parametrize("tag, shape", [("320", (2, 3, 320, 320)), ("192x256", (1, 3, 192, 256))])
def test_image_pyramid(golden_rn50, tag, shape):
    with torch.no_grad():
        pyramid = image_pyramid(golden_rn50, golden_input(f"b.rn50.{tag}", shape))
    for level, features in enumerate(pyramid, start=1):
        assert difference(features, CLIP, f"{tag}.c{level}") < 1e-5
    assert pyramid_channels(golden_rn50) == tuple(features.shape[1] for features in pyramid)


def test_image_pyramid_in_training_mode_uses_and_updates_batch_statistics(golden_rn50):
    model = copy.deepcopy(golden_rn50).train()
    with torch.no_grad():
        pyramid = image_pyramid(model, golden_input("b.rn50.224", (2, 3, 224, 224)))
    for level, features in enumerate(pyramid, start=1):
        assert difference(features, CLIP, f"224train.c{level}") < 3e-4
    state = model.state_dict()
    for key in (key for key in CLIP if key.startswith("224train.visual")):
        assert difference(state[key.removeprefix("224train.")], CLIP, key) < 3e-4


def test_text_features_of_the_backbone(golden_rn50):
    with torch.no_grad():
        text = encode_text(golden_rn50, torch.from_numpy(CLIP["ids"]).long())
    assert difference(text.tokens, CLIP, "rn50.text_tokens") < 1e-5
    assert difference(text.pooled, CLIP, "rn50.text_pooled") < 1e-5


def test_scorer_embeds_images_and_texts(golden_scorer):
    with torch.no_grad():
        image = encode_image(golden_scorer.clip, golden_input("b.vit.224", (3, 3, 224, 224)))
        text = encode_text(golden_scorer.clip, torch.from_numpy(CLIP["ids"]).long())
    assert difference(image, CLIP, "vit.image") < 1e-5
    assert difference(text.tokens, CLIP, "vit.text_tokens") < 1e-5
    assert difference(text.pooled, CLIP, "vit.text_pooled") < 1e-5


def test_a_shorter_text_gives_the_same_embedding():
    """Causal attention: what stands behind <end> does not matter to it."""
    model = build_clip("toy-RN", pretrained=False).double()
    with torch.no_grad():
        short, long = (encode_text(model, tokenize(["a red star"], length)).pooled for length in (6, 77))
    assert np.allclose(short, long, rtol=0, atol=1e-12)


def test_a_vision_transformer_is_no_backbone(golden_scorer):
    with pytest.raises(UserError, match="choose clip-RN50"):
        pyramid_channels(golden_scorer.clip)


def test_an_unknown_name_is_refused_with_the_known_ones():
    with pytest.raises(UserError, match=r"no CLIP named 'clip-RN49'; known are RN50, .*toy-RN"):
        build_clip("clip-RN49")


@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
def test_weights_from_a_file(tmp_path, golden_rn50, suffix):
    from safetensors.torch import save_file

    file = tmp_path / f"RN50{suffix}"
    (save_file if suffix == ".safetensors" else torch.save)(golden_rn50.state_dict(), file)
    loaded = build_clip(f"clip-RN50={file}")
    assert all(torch.equal(value, loaded.state_dict()[name]) for name, value in golden_rn50.state_dict().items())


def test_a_file_that_is_no_weights_is_refused(tmp_path):
    file = tmp_path / "weights.pt"
    file.write_bytes(b"not a state dict")
    with pytest.raises(UserError, match=r"weights\.pt does not hold weights of RN50"):
        build_clip(f"RN50={file}")
    with pytest.raises(UserError, match="are not there"):
        build_clip(f"RN50={tmp_path / 'nothing.pt'}")


def test_pooled_embeddings_do_not_need_the_padding():
    model = build_clip("toy", pretrained=False).double()
    tokens = tokenize(["a red star", "the small blue cross on the left"], 20)
    cut = without_padding(tokens)
    assert cut.shape == (2, 9)
    assert torch.allclose(encode_text(model, cut).pooled, encode_text(model, tokens).pooled, rtol=0, atol=1e-12)
