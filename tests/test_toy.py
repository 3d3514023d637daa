"""The toy world: sentences that mean one object, files like the data sets' own, and the networks that are shipped."""

import json
import pickle
from dataclasses import replace

import numpy as np
import pytest
import torch
from pycocotools import mask as coco_mask

from clip import build_clip, encode_text, tokenize
from clip.loading import TOY_WEIGHTS
from dataset.datasets import load_splits
from IRNet.network import TOY_WEIGHTS as TOY_RESNET
from IRNet.network import build_network
from model.scorer import Scorer
from toy import make_clip
from toy.layouts import write_refcocog, write_referit
from toy.make_clip import contrastive_loss, save_networks
from toy.measure_clip import FOCUSED, cosines, draw_views, probe, zero_shot
from toy.photos import Photo, make_photo, make_photos
from toy.scenes import SHAPES, Scene, Thing, coverage, unit_contour
from toy.sentences import Meaning, absent_meanings, is_unambiguous, resolve, vocabulary
from toy.views import ToyViews, View, collate, vocabulary_rows
from utils.errors import UserError


def thing(shape: str, colour: str, size: str, x: float, y: float) -> Thing:
    radius = {"small": 10.0, "large": 20.0}[size]
    return Thing(shape, colour, size, x, y, radius, unit_contour(shape) * radius + (x, y))


@pytest.fixture(scope="module")
def photos() -> list[Photo]:
    return list(make_photos(3, {"train": 6, "val": 2, "test": 3}))


@pytest.fixture
def scene() -> Scene:
    """A red star at the left, a blue star at the right, a small red square between and below them."""
    red_star, blue_star = thing("star", "red", "large", 30, 30), thing("star", "blue", "large", 170, 30)
    return Scene(200, 100, (red_star, blue_star, thing("square", "red", "small", 100, 60)))


def test_attributes_place_and_relation_resolve(scene):
    star, blue, square = scene.things
    meant = {
        Meaning(shape="star"): [star, blue],
        Meaning(colour="red", shape="star"): [star],
        Meaning(shape="star", place="right"): [blue],
        Meaning(colour="red", place="bottom"): [square],
        Meaning(shape="star", relation="left", anchor=Meaning(colour="blue")): [star],
        Meaning(shape="square", relation="below", anchor=Meaning(colour="blue")): [],  # it lies too far aside
    }
    for meaning, things in meant.items():
        assert resolve(scene, meaning) == things


def test_ambiguous_sentences(scene):
    star, blue, square = scene.things
    assert is_unambiguous(scene, Meaning(size="small"), square)
    assert not is_unambiguous(scene, Meaning(size="large"), blue)
    assert not is_unambiguous(scene, Meaning(relation="below", anchor=Meaning(shape="star")), square)  # which star?
    near = thing("star", "blue", "small", 45, 90)  # 15 of 200 pixels further right than the first star
    close = Scene(200, 100, (star, near))
    assert not is_unambiguous(close, Meaning(shape="star", place="left"), star)
    assert is_unambiguous(close, Meaning(shape="star", place="top"), star)


def test_objects_are_alike_but_apart_and_each_sentence_means_one_of_them(photos):
    words, kinds = set(vocabulary()), set()
    for photo in photos:
        first, *others = photo.scene.things
        assert 1 <= len(others) <= 3
        assert all(other.shape == first.shape or other.colour == first.colour for other in others)
        assert sum(coverage(t, photo.scene) > 0 for t in photo.scene.things).max() == 1
        for target, said in photo.described:
            assert 2 <= len(said) <= 4 and len({text for text, _ in said}) == len(said)
            for text, meaning in said:
                assert resolve(photo.scene, meaning) == [target] and set(text.split()) <= words, text
                kinds.add(meaning.kind)
    assert kinds == {"attribute", "place", "relation"}


def test_the_world_of_a_seed_never_changes():
    """A changed world would make its shipped CLIP and every published table of the toy world stale."""
    photo = make_photo(0, 1, "train")
    assert (photo.scene.width, photo.scene.height) == (384, 293)
    kinds = [(t.shape, t.colour, t.size, round(t.x), round(t.y)) for t in photo.scene.things]
    squares = [("black", "large", 78, 93), ("red", "small", 324, 73), ("white", "small", 233, 143)]
    assert kinds == [("square", *rest) for rest in squares]
    texts = [text for text, _ in photo.described[1][1]]
    red = ["the little red thing at the top", "the small red square", "the little red object right of a black square"]
    assert texts == [*red, "the little red square"]
    assert photo.jpeg == make_photo(0, 1, "train").jpeg != make_photo(1, 1, "train").jpeg


def check_mask(rle, box, target: Thing, scene: Scene) -> None:
    """A run-length code and a box x, y, width, height are those of the object that was drawn."""
    mask, drawn = coco_mask.decode(rle).astype(bool), coverage(target, scene) > 0.5
    assert (mask & drawn).sum() / (mask | drawn).sum() > 0.95
    assert np.allclose(coco_mask.toBbox(rle), box, atol=2.5)  # the tips of stars are thin


def test_refcocog_files(tmp_path, photos):
    assert write_refcocog(tmp_path, iter(photos)) == (11, sum(len(photo.described) for photo in photos))
    annotations = json.loads((tmp_path / "refer/refcocog/instances.json").read_text())["annotations"]
    assert {type(annotation["segmentation"]) for annotation in annotations} == {list, dict}
    things = [(target, photo.scene) for photo in photos for target in photo.scene.things]
    for annotation, (target, scene) in zip(annotations, things, strict=True):
        code = annotation["segmentation"]
        rle = code if isinstance(code, dict) else coco_mask.frPyObjects(code, scene.height, scene.width)[0]
        check_mask(rle, annotation["bbox"], target, scene)
    for ref in pickle.loads((tmp_path / "refer/refcocog/refs(umd).p").read_bytes()):
        annotation = annotations[ref["ann_id"] - 1]
        assert all(annotation[key] == ref[key] for key in ("image_id", "category_id"))
        assert SHAPES[ref["category_id"] - 1] == things[ref["ann_id"] - 1][0].shape
        assert ref["sent_ids"] == [sentence["sent_id"] for sentence in ref["sentences"]]
        assert all(sentence["sent"].split() == sentence["tokens"] for sentence in ref["sentences"])


def test_grefcoco_files(tmp_path, photos):
    """Beside RefCOCOg's refs those of pairs, and of what nothing there can be taken for: its words say why."""
    _, count = write_refcocog(tmp_path, iter(photos), general=True)
    splits = load_splits("grefcoco", tmp_path, "unc", ["train", "val", "testA", "testB"])
    refs = json.loads((tmp_path / "refer/grefcoco/grefs(unc).json").read_text())
    assert sum(len(split.references) for split in splits.values()) == count == len(refs)
    scenes = {photo.image_id: photo.scene for photo in photos}
    singles = [[s["sent"] for s in ref["sentences"]] for ref in refs if len(ref["ann_id"]) == 1 and "absent" not in ref]
    assert singles == [[text for text, _ in said] for photo in photos for _, said in photo.described]
    absent = [r for split in splits.values() for r in split.references if r.absent]
    assert {ref["ref_id"] for ref in refs if "absent" in ref} == {r.ref_id for r in absent}
    assert any(" and " in ref["sentences"][0]["sent"] and len(ref["ann_id"]) == 2 for ref in refs)
    kinds = set()
    for scene in scenes.values():
        for meaning in absent_meanings(scene):
            kinds.add(meaning.kind)
            assert resolve(scene, meaning, strict=False) == []
            attributes = replace(meaning, place=None, relation=None, anchor=None)
            assert bool(resolve(scene, attributes)) == (meaning.kind != "attribute")
    assert kinds == {"attribute", "place", "relation"}


def test_referit_files(tmp_path, photos):
    write_referit(tmp_path, iter(photos))
    for split in ("train", "test"):
        table = pickle.loads((tmp_path / f"annotations/{split}.pickle").read_bytes())
        drawn = {str(photo.image_id): photo for photo in photos if photo.split == split}
        assert table.keys() == drawn.keys()
        for image_id, photo in drawn.items():
            for annotation, (target, said) in zip(table[image_id]["annotations"], photo.described, strict=True):
                x1, y1, x2, y2 = annotation["bbox"][0]
                check_mask(annotation["segmentation"][0], (x1, y1, x2 - x1, y2 - y1), target, photo.scene)
                assert annotation["query"] == [text for text, _ in said]


@pytest.mark.parametrize(
    ("write", "target"),
    [
        (write_refcocog, "refer/refcocog/refs(umd).p"),
        (write_refcocog, "train2014/COCO_train2014_000000000009.jpg"),
        (write_referit, "annotations/test.pickle"),
    ],
)
def test_only_a_toy_world_is_overwritten(write, target, tmp_path, photos):
    (tmp_path / target).parent.mkdir(parents=True)
    (tmp_path / target).write_text("of another data set")
    with pytest.raises(UserError, match="belongs to another data set and is not overwritten"):
        write(tmp_path, iter(photos))
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == [tmp_path / target]
    (tmp_path / target).unlink()
    with pytest.raises(ZeroDivisionError):  # interrupted after the first photo
        write(tmp_path, (photos[0] if number else 1 / number for number in (1, 0)))
    for _ in range(2):
        assert write(tmp_path, iter(photos[:1]))[0] == 1


def test_views_are_reproducible_and_their_captions_true(photos):
    dataset = ToyViews(photos, 12, 64, (0.4, 0.3, 0.3), gain=6.0, seed=1)
    views = [dataset[index] for index in range(12)]
    images, tokens, truth = collate(views)
    assert images.shape == (12, 3, 64, 64) and images.isfinite().all() and torch.equal(images[11], dataset[11].image)
    assert truth.diagonal().all() and not truth.all()
    assert torch.equal(torch.tensor(vocabulary_rows())[tokens], tokenize([view.text for view in views], 16))


def test_truth_of_a_caption(scene):
    star, blue, _ = scene.things
    meanings = (  # a close-up shows no place
        Meaning("large", "red", "star"),
        Meaning(shape="square"),
        Meaning(place="left"),
        Meaning(shape="star", relation="left", anchor=Meaning(colour="blue", shape="star")),
    )
    whole, close_up = View(None, "", None, scene, None), View(None, "", None, None, star)
    focused, on_the_other = View(None, "", None, scene, star), View(None, "", None, scene, blue)
    truths = {whole: (1, 1, 1, 1), close_up: (1, 0, 0, 0), focused: (1, 0, 1, 1), on_the_other: (0, 0, 0, 0)}
    for view, truth in truths.items():
        assert tuple(map(view.agrees_with, meanings)) == truth
    assert on_the_other.agrees_with(Meaning(shape="star", place="right"))


def test_focused_views_are_captioned_by_what_is_said_of_their_object(photos):
    dataset = ToyViews(photos, 60, 32, FOCUSED, gain=1.0, seed=2)
    views = [dataset[index] for index in range(60)]
    said = {text for photo in photos for _, texts in photo.described for text, _ in texts}
    assert sum(view.text in said for view in views) >= 24  # 60 % of them, and some by chance
    assert {view.meaning.kind for view in views} == {"attribute", "place", "relation"}
    assert all(view.thing in view.scene.things for view in views)


def test_contrastive_loss_by_hand():
    """Where all scores are equal, each of two captions, or half of both if both are true, has probability one half."""
    scores = torch.zeros(2, 2, dtype=torch.float64)
    assert contrastive_loss(scores, torch.eye(2)).item() == pytest.approx(np.log(2))
    assert contrastive_loss(scores, torch.ones(2, 2)).item() == pytest.approx(np.log(2))
    certain = 9 * torch.eye(2, dtype=torch.float64)
    assert contrastive_loss(certain, torch.eye(2)).item() == pytest.approx(np.log1p(np.exp(-9)))


def test_trained_networks_are_stored_and_loaded(photos, tmp_path, monkeypatch):
    torch.manual_seed(0)
    for name in ("BACKBONE_PHASES", "SCORER_PHASES"):
        phases = [phase._replace(batch=4, steps=1) for phase in getattr(make_clip, name)]
        monkeypatch.setattr(make_clip, name, phases)
    monkeypatch.setattr(make_clip, "RESNET_PHASE", make_clip.RESNET_PHASE._replace(batch=4, steps=1))
    models, classifier = make_clip.train_networks(photos, share=1, seed=0)
    save_networks(tmp_path, models, classifier)
    texts = ["the red star", "small thing on the left"]
    tokens = torch.searchsorted(torch.tensor(vocabulary_rows()), tokenize(texts, 16))
    for name, model in models.items():
        model.load_state_dict({key: value.half() for key, value in model.state_dict().items()})  # as they are stored
        loaded = build_clip(f"{name}={tmp_path / 'clip.pt'}").double()
        expected, pooled = encode_text(model.double(), tokens).pooled, encode_text(loaded, tokenize(texts, 16)).pooled
        assert torch.allclose(pooled, expected, rtol=0, atol=1e-12)
        visual = {key: value for key, value in model.visual.state_dict().items() if not key.startswith("attnpool")}
        assert all(torch.equal(value, loaded.visual.state_dict()[key]) for key, value in visual.items())
    monkeypatch.setattr("IRNet.network.TOY_WEIGHTS", tmp_path / "resnet.pt")
    loaded = build_network("resnet-toy", pretrained=True).backbone.state_dict()
    stored = {key: value.half().to(value.dtype) for key, value in classifier.backbone.state_dict().items()}
    assert all(torch.equal(value, loaded[key]) for key, value in stored.items())
    (tmp_path / "resnet.pt").unlink()
    with pytest.raises(UserError, match="resnet.pt does not exist; make it with: bash scripts/make_toy_clip.sh"):
        build_network("resnet-toy", pretrained=True)


def test_probe_by_hand():
    """Features that are the classes themselves are told apart without an error, features that say nothing are not."""
    classes = torch.tensor([(shape, colour) for shape in range(6) for colour in range(8)])
    features = torch.cat([torch.eye(6)[classes[:, 0]], torch.eye(8)[classes[:, 1]]], dim=1)
    assert probe((features, classes), (features, classes)) == [1, 1, 1]
    only_shape = features * torch.tensor([1.0] * 6 + [0.0] * 8)
    assert probe((only_shape, classes), (only_shape, classes)) == [1, 1 / 8, 1 / 8]


def test_the_shipped_networks_are_small_and_the_scorer_knows_objects_of_unseen_scenes():
    assert TOY_WEIGHTS.stat().st_size + TOY_RESNET.stat().st_size <= 12_000_000
    scorer = Scorer(build_clip("toy-RNS"))
    photos = [make_photo(77, index, "test") for index in range(80)]
    views = draw_views(photos, FOCUSED, scorer.resolution)
    shape, colour, both = zero_shot(scorer, views)
    assert shape > 0.9 and colour > 0.9 and both > 0.85  # chance: 1/6, 1/8, 1/48
    own, others = cosines(scorer, views, photos)
    assert own > others + 0.1
    with pytest.raises(UserError, match="without its attention pool"):
        Scorer(build_clip("toy-RN"))
