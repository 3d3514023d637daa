"""Loaders against the published figures (h) and real files, samples, and what is refused."""

import json
import pickle
import pickletools
import shutil

import numpy as np
import pytest
import torch
from PIL import Image

from clip import tokenize
from dataset.artifacts import write_mask
from dataset.loading import EpochBatches, TrainLoader, load_splits
from dataset.masks import rasterise
from dataset.photos import read_photo, resized, to_input
from dataset.pseudo_masks import PseudoMasks, with_masks
from dataset.samples import EvalPhotos, NegativeSentences, TrainSamples, all_sentences
from model.segmenter import as_image
from tests.golden import REFERENCE, difference, figures
from utils.errors import UserError

FIGURES = figures("h_dataset")
SPLITS = load_splits("refcocog", REFERENCE / "refer_fixture", "umd", ["train", "val", "test"])
OVERLAPPING = ("train", 2)  # two polygons of one annotation: the published code drops what they share


@pytest.mark.parametrize("name", SPLITS)
def test_refs_in_the_order_of_the_file(name):
    references = SPLITS[name].references
    assert [r.ref_id for r in references] == FIGURES[f"{name}.ref_ids"].tolist()
    assert [r.image_id for r in references] == FIGURES[f"{name}.img_ids"].tolist()
    assert ["\n".join(r.sentences) for r in references] == FIGURES[f"{name}.sentences"].tolist()
    assert [r.index for r in references] == list(range(len(references)))


def test_refs_know_their_category():
    refs = pickle.loads((REFERENCE / "refer_fixture/refer/refcocog/refs(umd).p").read_bytes())
    categories = {ref["ref_id"]: ref["category_id"] for ref in refs}
    assert len(set(categories.values())) > 1
    assert all(r.category == categories[r.ref_id] for split in SPLITS.values() for r in split.references)


@pytest.mark.parametrize("name", SPLITS)
def test_images_masks_and_boxes(name):
    split = SPLITS[name]
    for reference in split.references:
        key = f"{name}.eval.{reference.index}"
        image = to_input(resized(read_photo(split.photo_path(reference)), 320))
        assert difference(image, FIGURES, f"{key}.img") < 1e-6
        assert reference.box == tuple(FIGURES[f"{key}.boxes"].tolist())
        mask = rasterise(reference.segmentation, reference.height, reference.width)
        assert [1, *mask.shape] == FIGURES[f"{key}.mask_shape"].tolist()
        published = np.unpackbits(FIGURES[f"{key}.mask_packed"])[: mask.size].reshape(mask.shape).astype(bool)
        if (name, reference.index) == OVERLAPPING:
            assert (mask & ~published).sum() == 2554
            assert not (published & ~mask).any()
        else:
            assert (mask == published).all()


@pytest.mark.parametrize("name", SPLITS)
def test_each_photo_once_with_all_its_refs_and_sentences(name):
    photos = EvalPhotos(SPLITS[name], 320, 20)
    seen = {}
    for batch in photos:
        assert batch.images.shape == (1, 3, 320, 320)
        for place, target in enumerate(batch.targets):
            seen[target.reference.index] = batch.tokens[batch.target == place]
    assert sorted(seen) == list(range(len(SPLITS[name].references)))
    for index, tokens in seen.items():
        published = torch.from_numpy(FIGURES[f"{name}.eval.{index}.word_ids"][0].T).long()
        long = published.amax(dim=1) == 49406  # these lost their <end>
        assert torch.equal(tokens[~long], published[~long])


def test_candidates_for_negatives_are_the_other_refs_of_the_photo():
    negatives = NegativeSentences(SPLITS["train"], 3)
    for reference in SPLITS["train"].references:
        found = [candidate.index for candidate in negatives.candidates(reference)]
        assert found == FIGURES[f"train.neg_index.{reference.index}"].tolist()


def test_negatives_come_from_the_photo_s_other_refs_else_have_another_text():
    split = SPLITS["val"]
    negatives = NegativeSentences(split, 50)
    sentences = all_sentences(split.references)
    for reference in split.references:
        drawn = negatives({"ids": {}}, reference, 0, np.random.default_rng(0))["ids"]["negatives"]
        others = negatives.candidates(reference) or [r for r in split.references if r is not reference]
        allowed = {text for r in others for text in r.sentences}
        if not negatives.candidates(reference):
            allowed |= set(reference.sentences[1:])
        assert {sentences[number] for number in drawn.tolist()} <= allowed
        assert drawn.shape == (50,)


def samples(split="train", seed=1):
    extras = NegativeSentences(SPLITS[split], 3)
    return TrainSamples(SPLITS[split], 32, 20, seed, extras)


def batches(workers, epoch, first=0):
    loader = TrainLoader(samples(), batch_size=3, seed=5, workers=workers)
    return [batch["ids"] | {"tokens": batch["tokens"]} for batch in loader.from_step(epoch, first)]


def same(ours, others):
    assert len(ours) == len(others)
    return all(torch.equal(a[key], b[key]) for a, b in zip(ours, others, strict=True) for key in a)


def test_samples_do_not_depend_on_workers_and_repeat():
    assert same(batches(0, epoch=0), batches(2, epoch=0))


def test_epochs_differ_and_can_be_entered_anywhere():
    assert not same(batches(0, epoch=0), batches(0, epoch=1))
    assert same(batches(0, epoch=1)[1:], batches(0, epoch=1, first=1))


def test_a_visit_draws_one_sentence_of_the_ref():
    train = samples()
    for epoch in range(5):
        train.set_epoch(epoch)
        for index, reference in enumerate(SPLITS["train"].references):
            sample = train[index]
            assert sample["tokens"].tolist() in tokenize(reference.sentences).tolist()
            drawn = all_sentences(SPLITS["train"].references)[sample["ids"]["sentence"]]
            assert torch.equal(tokenize([drawn])[0], sample["tokens"])
    assert train[0].keys() == {"image", "tokens", "ids"}
    assert train[0]["ids"].keys() == {"reference", "sentence", "negatives"}


def test_seeds_draw_differently():
    one, other = ([sample["ids"]["negatives"].tolist() for sample in samples(seed=seed)] for seed in (1, 2))
    assert one != other
    assert list(EpochBatches(21, 3, seed=1)) != list(EpochBatches(21, 3, seed=2))


def test_processes_take_parts_of_the_batch_that_one_process_would(monkeypatch):
    monkeypatch.setattr("dataset.loading.world_size", lambda: 3)
    parts = []
    for number in range(3):
        monkeypatch.setattr("dataset.loading.rank", lambda number=number: number)
        parts.append(list(EpochBatches(21, 2, seed=0)))
    monkeypatch.undo()
    assert [sum(batches, []) for batches in zip(*parts, strict=True)] == list(EpochBatches(21, 6, seed=0))


def test_the_last_partial_batch_is_dropped_and_a_small_split_refused():
    assert [len(batch) for batch in EpochBatches(7, 3, seed=0)] == [3, 3]
    with pytest.raises(UserError, match=r"7 refs, fewer than a batch \(8\); lower --batch_size"):
        EpochBatches(7, 8, seed=0)
    with pytest.raises(UserError, match=r"7 refs, fewer than a batch \(4 x 2 accumulated\); lower --batch_size"):
        EpochBatches(7, 4, seed=0, accumulate=2)


def test_accumulated_batches_are_the_same_batches_in_whole_steps():
    plain, accumulated = EpochBatches(21, 3, seed=0), EpochBatches(21, 3, seed=0, accumulate=2)
    assert (plain.steps, len(plain), accumulated.steps, len(accumulated)) == (7, 7, 3, 6)
    assert list(accumulated) == list(plain)[:6]
    accumulated.start_at(0, 2)
    assert list(accumulated) == list(plain)[4:6]
    assert len(accumulated) == 2


def test_pseudo_masks_as_published(tmp_path):
    split = SPLITS["train"]
    for reference in split.references:
        stored = np.load(REFERENCE / "refer_fixture" / "ins_seg" / f"{reference.name}.npy", allow_pickle=True).item()
        write_mask(tmp_path, reference.name, stored["mask"].sum(0) > 0)
        resized = PseudoMasks(tmp_path, 320)({}, reference, 0, None)["mask"]
        values = FIGURES[f"train.pseudo.{reference.index}.slice"]
        assert (resized[:, ::8, ::8].numpy() == (values > 0)).all()  # overlapping instances: union instead of 2
        if FIGURES[f"train.pseudo.{reference.index}.values"].max() == 1:
            assert resized.sum() == FIGURES[f"train.pseudo.{reference.index}.sum"]


def test_refs_without_pseudo_mask_are_counted_or_skipped(tmp_path):
    split = SPLITS["train"]
    for reference in split.references[2:]:
        write_mask(tmp_path, reference.name, np.ones((reference.height, reference.width), bool))
    with pytest.raises(UserError, match=r"2 of 7 refs have no pseudo mask .*\(0_9, 1_9\)"):
        with_masks(split, tmp_path, skip_missing=False)
    kept = with_masks(split, tmp_path, skip_missing=True)
    assert [r.name for r in kept.references] == [r.name for r in split.references[2:]]
    training = TrainSamples(kept, 32, 20, 0, PseudoMasks(tmp_path, 32))
    assert training[0]["mask"].mean() == 1
    assert training[4]["ids"]["sentence"] < sum(len(r.sentences) for r in kept.references)


def test_referit():
    train, test = (
        load_splits("referit", REFERENCE / "referit_fixture", "", [name])[name].references for name in ("train", "test")
    )
    assert len(train) == FIGURES["referit.train.len"]
    for index, reference in enumerate(train):
        assert (tokenize(reference.sentences)[0].numpy() == FIGURES[f"referit.train.{index}.word_ids"]).all()
    assert list(dict.fromkeys(r.image_id for r in test)) == FIGURES["referit.test.files"].tolist()
    for reference in test:
        image = FIGURES["referit.test.files"].tolist().index(reference.image_id)
        key = f"referit.test.{image}.{str(reference.ref_id).split('_')[1]}"
        assert reference.sentences == (str(FIGURES[f"{key}.sentence"]),)
        assert reference.box == pytest.approx(FIGURES[f"{key}.bbox"][0].tolist())
        mask = rasterise(reference.segmentation, reference.height, reference.width)
        total, largest = FIGURES[f"{key}.mask_sum_max"]
        assert mask.sum() == total if largest == 1 else mask.sum() < total


def test_referit_evaluates_large_refs_only(tmp_path):
    folder = copied_fixture(tmp_path, "referit_fixture")
    content = {"1": {"annotations": [referit_annotation([0, 0, 10, 4]), referit_annotation([0, 0, 10, 6])]}}
    for name in ("train", "test"):
        (folder / "annotations" / f"{name}.pickle").write_bytes(pickle.dumps(content, protocol=2))
    splits = {name: load_splits("referit", folder, "", [name])[name] for name in ("train", "test")}
    assert len(splits["train"].references) == 2
    assert [r.box[3] for r in splits["test"].references] == [6]  # 60 of 1000 pixels, the other 40


def test_an_image_of_referit_that_cannot_be_used_is_told_and_left_out(tmp_path):
    (tmp_path / "annotations").mkdir()
    good = {"annotations": [referit_annotation([0, 0, 10, 6])]}
    content = {"1": good, "2": {"annotations": [{}]}, "3": {"annotations": [referit_annotation([0, 0, 10, 7])]}}
    content["4"] = {"annotations": [referit_annotation([0, 0, 10, 8]) | {"query": ""}]}
    (tmp_path / "annotations" / "test.pickle").write_bytes(pickle.dumps(content, protocol=2))
    told = []
    split = load_splits("referit", tmp_path, "", ["test"], told.append)["test"]
    assert [(r.index, r.image_id) for r in split.references] == [(0, "1"), (1, "3")]
    assert ["image '2' is damaged" in str(told[0]), "image '4' has an empty sentence" in str(told[1])] == [True, True]
    assert len(told) == 2


def referit_annotation(box):
    return {"query": ["a", "b"], "bbox": [box], "segmentation": [{"size": [20, 50], "counts": "0"}]}


def write_jsonl(folder, *entries):
    lines = [entry if isinstance(entry, str) else json.dumps(entry) for entry in entries]
    (folder / "train.jsonl").write_text("\n".join(lines) + "\n")
    Image.new("RGB", (8, 6)).save(folder / "a.jpg")
    return lambda: load_splits("jsonl", folder, "", ["train"])["train"]


def test_your_own_data(tmp_path):
    (tmp_path / "masks").mkdir()
    Image.fromarray(np.pad(np.full((2, 3), 255, np.uint8), ((1, 3), (4, 1)))).save(tmp_path / "masks" / "m.png")
    load = write_jsonl(
        tmp_path,
        {"image": "a.jpg", "sentences": ["one", "two"]},
        {"image": "a.jpg", "sentences": ["three"], "mask": "masks/m.png"},
        {"image": "a.jpg", "sentences": ["four"], "mask": [[0, 0, 4, 0, 4, 3, 0, 3]], "bbox": [0, 0, 4, 3]},
    )
    split = load()
    assert [r.name for r in split.references] == ["0_0", "1_0", "2_0"]
    assert split.references[1].box == (4, 1, 7, 3)
    assert split.references[2].box == (0, 0, 4, 3)
    assert rasterise(split.references[2].segmentation, 6, 8).sum() == 12
    with pytest.raises(UserError, match=r"has no mask for ref 0_0: it can be trained on and exported, not evaluated"):
        EvalPhotos(split, 32, 20)
    assert len(EvalPhotos(split, 32, 20, masks=False)[0].targets) == 3


def test_the_foreground_of_a_picture_is_not_0(tmp_path):
    file = tmp_path / "m.png"

    def read(image):
        image.save(file)
        return rasterise(str(file), 1, 3).tolist()

    indices = Image.fromarray(np.array([[0, 1, 2]], np.uint8), mode="P")
    indices.putpalette([255, 255, 255, 0, 0, 0, 0, 0, 1])  # white, black, nearly black
    assert read(indices) == [[False, True, True]]
    assert read(Image.fromarray(np.array([[[0, 0, 0], [0, 0, 1], [255, 0, 0]]], np.uint8))) == [[False, True, True]]
    assert read(Image.fromarray(np.array([[0, 1, 256]], np.uint16))) == [[False, True, True]]
    assert read(Image.fromarray(np.array([[0, 1, 255]], np.uint8))) == [[False, True, True]]
    assert read(Image.fromarray(np.array([[False, True, True]]))) == [[False, True, True]]
    assert read(Image.fromarray(np.array([[[0, 255], [1, 255], [9, 0]]], np.uint8))) == [[False, True, True]]


def test_blank_lines_are_left_out_and_counted(tmp_path):
    line = {"image": "a.jpg", "sentences": ["x"]}
    assert [r.index for r in write_jsonl(tmp_path, line, "", "  ", line)().references] == [0, 1]
    with pytest.raises(UserError, match=r"train\.jsonl:3 is no JSON"):
        write_jsonl(tmp_path, line, "", "{")()


def test_run_lengths_of_the_right_size_are_taken():
    from pycocotools import mask as coco

    mask = np.random.default_rng(0).random((37, 53)) > 0.5
    runs = coco.encode(np.asfortranarray(mask.astype(np.uint8)))
    assert (rasterise(runs, 37, 53) == mask).all()
    assert (rasterise([{"size": runs["size"], "counts": runs["counts"].decode()}], 37, 53) == mask).all()
    assert rasterise({"size": [2, 2], "counts": [1, 2, 1]}, 2, 2).tolist() == [[False, True], [True, False]]


def test_runs_of_zero_pixels_are_runs():
    """pycocotools' union of such parts writes past its memory, or leaves pixels as they were in memory."""
    nothing, all_but_two = {"size": [6, 8], "counts": [48]}, {"size": [6, 8], "counts": [2, 0, 0, 46]}
    assert rasterise([all_but_two, all_but_two], 6, 8).sum() == 46
    assert rasterise([{"size": [6, 8], "counts": [0] * 100_001 + [48]}, nothing], 6, 8).all()


def test_parts_of_both_kinds_are_united():
    runs = {"size": [2, 3], "counts": [4, 2]}  # the last column
    assert rasterise([runs, [0, 0, 1, 0, 1, 2, 0, 2]], 2, 3).tolist() == [[True, False, True]] * 2


def copied_fixture(tmp_path, name="refer_fixture"):
    return shutil.copytree(REFERENCE / name, tmp_path / name)


def changed(tmp_path, change_refs=None, change_instances=None):
    """The fixture with its refs or its instances changed by a function."""
    root = copied_fixture(tmp_path)
    folder = root / "refer" / "refcocog"
    if change_refs:
        refs = pickle.loads((folder / "refs(umd).p").read_bytes())
        change_refs(refs)
        (folder / "refs(umd).p").write_bytes(pickle.dumps(refs, protocol=2))
    if change_instances:
        content = json.loads((folder / "instances.json").read_text())
        change_instances(content)
        (folder / "instances.json").write_text(json.dumps(content))
    return root


def test_absent_files_and_splits_are_named(tmp_path):
    root = copied_fixture(tmp_path)
    with pytest.raises(UserError, match=r"has no split 'testC'; it has test, train, val"):
        load_splits("refcocog", root, "umd", ["testC"])
    with pytest.raises(UserError, match=r"refs\(google\)\.p is not there"):
        load_splits("refcocog", root, "google", ["val"])
    with pytest.raises(UserError, match=r"refcoco is not split by 'umd'; use --splitBy unc"):
        load_splits("refcoco", root, "umd", ["val"])
    with pytest.raises(UserError, match="the data folder .* is not there"):
        load_splits("refcoco", root / "nowhere", "unc", ["val"])
    (root / "refer" / "refcocog" / "instances.json").write_text("{")
    with pytest.raises(UserError, match="no COCO annotation file"):
        load_splits("refcocog", root, "umd", ["val"])


def test_splits_are_matched_as_published(tmp_path):
    def mark(refs):
        for ref, split in zip(refs, ["testA", "testB", "testA", "val"], strict=False):
            ref["split"] = split

    splits = load_splits("refcocog", changed(tmp_path, mark), "umd", ["testA", "testB", "test"])
    assert [len(splits[name].references) for name in ("testA", "testB")] == [2, 1]
    assert len(splits["test"].references) >= 3  # every split that contains the word


def test_the_fixture_pickles_hold_what_real_ones_hold():
    content = (REFERENCE / "referit_fixture/annotations/test.pickle").read_bytes()
    assert {arg for op, arg, _ in pickletools.genops(content) if op.name == "GLOBAL"} == {"_codecs encode"}


@pytest.mark.parametrize("mode", ["L", "RGBA", "CMYK", "P", "1", "LA"])
def test_photos_of_any_mode_become_rgb(tmp_path, mode):
    file = tmp_path / ("a.jpg" if mode == "CMYK" else "a.png")
    Image.new("RGB", (5, 4), (200, 200, 200)).convert(mode).save(file)
    photo = read_photo(file)
    assert photo.mode == "RGB"
    assert to_input(resized(photo, 8)).shape == (3, 8, 8)


def test_photos_for_people_are_upright_those_of_data_sets_as_stored(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # a quarter turn
    Image.new("RGB", (5, 4)).save(tmp_path / "a.jpg", exif=exif)
    assert read_photo(tmp_path / "a.jpg").size == (5, 4)
    assert read_photo(tmp_path / "a.jpg", upright=True).size == (4, 5)
    assert as_image(tmp_path / "a.jpg").size == (4, 5)
