"""The toy world: sentences that mean one object, files as the data sets' own, and the toy CLIP that is shipped."""

import json
import pickle

import cv2
import numpy as np
import pytest
import torch
from pycocotools import mask as coco_mask

from clip import build_clip, encode_image, encode_text, tokenize
from clip.loading import TOY_FILE
from clip.toy_training import contrastive_loss
from dataset.toy.layouts import MARKER, write_refcocog, write_referit
from dataset.toy.photos import Photo, make_photo, make_photos
from dataset.toy.scenes import COLOURS, SHAPES, Scene, Thing, coverage, unit_contour
from dataset.toy.sentences import (
    Meaning,
    is_unambiguous,
    phrase,
    resolve,
    sentences,
    vocabulary,
)
from dataset.toy.views import ToyViews, View, collate, vocabulary_rows
from utils.errors import UserError

COUNTS = {"train": 6, "val": 2, "test": 3}


def thing(shape: str, colour: str, size: str, x: float, y: float) -> Thing:
    radius = {"small": 10.0, "large": 20.0}[size]
    return Thing(shape, colour, size, x, y, radius, unit_contour(shape) * radius + (x, y))


@pytest.fixture(scope="module")
def photos() -> list[Photo]:
    return list(make_photos(3, COUNTS))


@pytest.fixture
def scene() -> Scene:
    """A red star at the left, a blue star at the right, a small red square between and below them."""
    things = (
        thing("star", "red", "large", 30, 30),
        thing("star", "blue", "large", 170, 30),
        thing("square", "red", "small", 100, 60),
    )
    return Scene(200, 100, things)


def test_attributes_place_and_relation_resolve(scene):
    star, blue, square = scene.things
    assert resolve(scene, Meaning(shape="star")) == [star, blue]
    assert resolve(scene, Meaning(colour="red", shape="star")) == [star]
    assert resolve(scene, Meaning(shape="star", place="right")) == [blue]
    assert resolve(scene, Meaning(colour="red", place="bottom")) == [square]
    assert resolve(scene, Meaning(shape="square", relation="below", anchor=Meaning(colour="blue"))) == []  # far aside
    assert resolve(scene, Meaning(shape="star", relation="left", anchor=Meaning(colour="blue"))) == [star]


def test_only_just_further_left_is_ambiguous():
    left, near = thing("star", "red", "small", 40, 30), thing("star", "blue", "small", 55, 70)
    scene = Scene(200, 100, (left, near))
    assert not is_unambiguous(scene, Meaning(shape="star", place="left"), left)  # 15 of 200 pixels apart
    assert is_unambiguous(scene, Meaning(shape="star", place="top"), left)


def test_a_second_reading_or_an_unclear_anchor_is_ambiguous(scene):
    star, blue, square = scene.things
    beside = Meaning(shape="square", relation="below", anchor=Meaning(shape="star"))
    assert not is_unambiguous(scene, beside, square)  # which star?
    assert is_unambiguous(scene, Meaning(size="small"), square)
    assert not is_unambiguous(scene, Meaning(size="large"), blue)
    assert not is_unambiguous(scene, Meaning(shape="square"), star)


def test_every_sentence_means_its_object_alone_and_uses_known_words(photos):
    words, texts, kinds = set(vocabulary()), 0, set()
    for photo in photos:
        assert 2 <= len(photo.scene.things) <= 4
        for target, said in photo.spoken_of:
            assert 2 <= len(said) <= 4 and len({text for text, _ in said}) == len(said)
            for text, meaning in said:
                found = resolve(photo.scene, meaning)
                assert len(found) == 1 and found[0] is target, text
                assert set(text.split()) <= words
                kinds.add(meaning.kind)
                texts += 1
    assert texts > 40 and kinds == {"attribute", "place", "relation"}


def test_distractors_share_shape_or_colour_and_nothing_touches(photos):
    for photo in photos:
        first, *others = photo.scene.things
        assert all(other.shape == first.shape or other.colour == first.colour for other in others)
        assert sum(coverage(t, photo.scene) > 0 for t in photo.scene.things).max() == 1


def test_sentences_of_one_seed_are_the_same(scene):
    drawn = [sentences(np.random.default_rng(5), scene, scene.things[0]) for _ in range(2)]
    assert drawn[0] == drawn[1]
    assert phrase(np.random.default_rng(1), Meaning(shape="star")) in ("star", "the star")


def test_refcocog_files(tmp_path, photos):
    assert write_refcocog(tmp_path, iter(photos)) == (11, sum(len(photo.spoken_of) for photo in photos))
    instances = json.loads((tmp_path / "refer/refcocog/instances.json").read_text())
    refs = pickle.loads((tmp_path / "refer/refcocog/refs(umd).p").read_bytes())
    assert [c["name"] for c in instances["categories"]] == list(SHAPES) and len(COLOURS) >= 6
    images = {image["id"]: image for image in instances["images"]}
    for image in images.values():
        pixels = cv2.imread(str(tmp_path / "train2014" / image["file_name"]))
        assert pixels.shape == (image["height"], image["width"], 3)
    annotations = {annotation["id"]: annotation for annotation in instances["annotations"]}
    for ref in refs:
        annotation = annotations[ref["ann_id"]]
        assert annotation["image_id"] == ref["image_id"] and annotation["category_id"] == ref["category_id"]
        assert ref["sent_ids"] == [sentence["sent_id"] for sentence in ref["sentences"]]
        assert all(sentence["sent"].split() == sentence["tokens"] for sentence in ref["sentences"])
    of_split = {split: {ref["image_id"] for ref in refs if ref["split"] == split} for split in COUNTS}
    assert {split: len(ids) for split, ids in of_split.items()} == COUNTS
    assert len(set.union(*of_split.values())) == sum(COUNTS.values())  # no photo in two splits


def test_masks_cover_the_drawn_object(tmp_path, photos):
    write_refcocog(tmp_path, iter(photos))
    annotations = json.loads((tmp_path / "refer/refcocog/instances.json").read_text())["annotations"]
    assert {type(annotation["segmentation"]) for annotation in annotations} == {list, dict}
    things = [(target, photo.scene) for photo in photos for target in photo.scene.things]
    for annotation, (target, scene) in zip(annotations, things, strict=True):
        code = annotation["segmentation"]
        rle = code if isinstance(code, dict) else coco_mask.frPyObjects(code, scene.height, scene.width)[0]
        mask, drawn = coco_mask.decode(rle).astype(bool), coverage(target, scene) > 0.5
        assert (mask & drawn).sum() / (mask | drawn).sum() > 0.95
        x, y, width, height = annotation["bbox"]
        assert np.allclose(coco_mask.toBbox(rle), (x, y, width, height), atol=2.5)  # tips are thin


def test_referit_files(tmp_path, photos):
    write_referit(tmp_path, iter(photos))
    table = pickle.loads((tmp_path / "annotations/train.pickle").read_bytes())
    assert len(table) == COUNTS["train"]
    for image_id, entry in table.items():
        pixels = cv2.imread(str(tmp_path / "images" / f"{image_id}.jpg"))
        for annotation in entry["annotations"]:
            (mask,) = coco_mask.decode(annotation["segmentation"]).transpose(2, 0, 1)
            x1, y1, x2, y2 = annotation["bbox"][0]
            assert mask.shape == pixels.shape[:2] and 0 < mask.sum() <= (x2 - x1 + 2) * (y2 - y1 + 2)
            assert len(annotation["query"]) >= 2


def test_same_seed_same_bytes(tmp_path):
    for name in ("a", "b"):
        write_refcocog(tmp_path / name, make_photos(1, {"train": 2, "val": 1, "test": 1}))
    files = sorted(path.relative_to(tmp_path / "a") for path in (tmp_path / "a").rglob("*") if path.is_file())
    assert len(files) == 7
    assert all((tmp_path / "a" / file).read_bytes() == (tmp_path / "b" / file).read_bytes() for file in files)
    assert make_photo(2, 1, "train").jpeg != make_photo(1, 1, "train").jpeg


@pytest.mark.parametrize(
    ("write", "target"),
    [
        (write_refcocog, "refer/refcocog/instances.json"),
        (write_refcocog, "refer/refcocog/refs(umd).p"),
        (write_refcocog, "train2014/COCO_train2014_000000000009.jpg"),
        (write_referit, "annotations/train.pickle"),
        (write_referit, "annotations/test.pickle"),
        (write_referit, "images/38.jpg"),
    ],
)
def test_another_data_set_is_not_overwritten(write, target, tmp_path, photos):
    """Whichever of its files is there."""
    (tmp_path / target).parent.mkdir(parents=True)
    (tmp_path / target).write_text('{"info": {"description": "COCO 2014"}}')
    with pytest.raises(UserError, match="belongs to another data set and is not overwritten"):
        write(tmp_path, iter(photos))
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == [tmp_path / target]


@pytest.mark.parametrize("write", [write_refcocog, write_referit])
def test_a_toy_world_is_overwritten_finished_or_not(write, tmp_path, photos):
    with pytest.raises(ZeroDivisionError):
        write(tmp_path, (photos[0] if number else 1 / number for number in (1, 0)))
    for _ in range(2):
        assert write(tmp_path, iter(photos[:1]))[0] == 1


def test_a_toy_world_without_the_marker_is_one(tmp_path, photos):
    """Those of earlier versions have none."""
    write_refcocog(tmp_path, iter(photos[:1]))
    (tmp_path / "refer/refcocog" / MARKER).unlink()
    assert write_refcocog(tmp_path, iter(photos[:1]))[0] == 1


def test_views_are_reproducible_and_their_captions_true(photos):
    views = ToyViews(photos, 12, 64, (0.4, 0.3, 0.3), gain=6.0, seed=1)
    for index in range(12):
        view = views[index]
        assert view.image.shape == (3, 64, 64)
        assert view.image.isfinite().all()
        assert torch.equal(view.image, views[index].image)
        assert view.agrees_with(view.meaning)
    images, tokens, truth = collate([views[index] for index in range(12)])
    assert (images.shape[0], tokens.shape, truth.shape) == (12, (12, 16), (12, 12))
    assert truth.diagonal().all()
    assert tokens.max() < len(vocabulary_rows())


def test_truth_of_a_caption(scene):
    star = scene.things[0]
    whole, single = (View(None, "", None, shown) for shown in (scene, star))
    assert whole.agrees_with(Meaning(shape="square"))
    assert not single.agrees_with(Meaning(shape="square"))
    assert single.agrees_with(Meaning(colour="red", shape="star"))
    assert whole.agrees_with(Meaning(shape="star", place="left"))
    assert not single.agrees_with(Meaning(shape="star", place="left"))  # where it was is not seen


def test_contrastive_loss_by_hand():
    """All scores alike: each of two captions, or half of each where both are true, has probability one half."""
    scores = torch.zeros(2, 2)
    assert contrastive_loss(scores, torch.eye(2)).item() == pytest.approx(np.log(2))
    assert contrastive_loss(scores, torch.ones(2, 2)).item() == pytest.approx(np.log(2))
    sure = torch.tensor([[9.0, 0.0], [0.0, 9.0]])
    assert contrastive_loss(sure, torch.eye(2)).item() == pytest.approx(np.log1p(np.exp(-9)), abs=1e-6)


def test_shipped_clip_is_small_and_knows_every_word():
    assert TOY_FILE.stat().st_size <= 4 * 2**20
    stored = torch.load(TOY_FILE, weights_only=True)
    for name in ("toy-RN", "toy-ViT"):
        assert set(vocabulary_rows()) <= set(stored[name]["token_rows"].tolist())
        assert stored[name]["token_embedding.weight"].dtype == torch.float16
        assert not build_clip(name).training


def word_embeddings(model, words):
    with torch.no_grad():
        return torch.nn.functional.normalize(encode_text(model, tokenize([f"the {w}" for w in words])).pooled, dim=-1)


@pytest.mark.parametrize("words", [SHAPES, tuple(COLOURS)])
@pytest.mark.parametrize("name", ["toy-RN", "toy-ViT"])
def test_shipped_encoders_tell_words_apart(name, words):
    said = word_embeddings(build_clip(name), words)
    assert (said @ said.T - torch.eye(len(words))).max() < 0.95


def test_shipped_scorer_knows_the_shapes_of_unseen_scenes():
    """Of a photo faded but for one object the nearest shape word is the object's."""
    scorer = build_clip("toy-ViT")
    photos = [make_photo(77, index, "test") for index in range(40)]
    views = ToyViews(photos, 80, scorer.visual.image_size[0], (0.0, 1.0, 0.0), gain=1.0, seed=5)
    shown = [views[index] for index in range(80)]
    with torch.no_grad():
        seen = encode_image(scorer, torch.stack([view.image for view in shown]))
    nearest = (seen @ word_embeddings(scorer, SHAPES).T).argmax(dim=1).tolist()
    right = [SHAPES[place] == view.shown.shape for place, view in zip(nearest, shown, strict=True)]
    assert np.mean(right) > 0.5  # chance: 1 in 6
