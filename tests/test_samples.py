"""Samples for training and evaluation against the published data (h), and how they are drawn."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from clip import tokenize
from dataset.artifacts import write_mask
from dataset.datasets import load_splits
from dataset.references import ABSENT, Reference, Split
from dataset.samples import (
    EvalPhotos,
    TrainSamples,
    eval_loader,
    smallest_batch,
    start_epoch,
    train_loader,
    with_pseudo_masks,
)
from tests.golden import REFERENCE, figures
from utils.errors import UserError

FIGURES = figures("h_dataset")
SPLITS = load_splits("refcocog", REFERENCE / "refer_fixture", "umd", ["train", "val", "test"])


@pytest.mark.parametrize("name", SPLITS)
def test_each_photo_once_with_all_its_refs_and_sentences(name):
    photos = EvalPhotos(SPLITS[name], 320, 20)
    seen = {}
    for batch in photos:
        assert batch.images.shape == (1, 3, 320, 320)
        for place, target in enumerate(batch.targets):
            seen[target.reference.index] = batch.tokens[batch.target == place]
            assert target.mask.shape == target.size == target.reference.size
    assert sorted(seen) == list(range(len(SPLITS[name].references)))
    for index, tokens in seen.items():
        published = torch.from_numpy(FIGURES[f"{name}.eval.{index}.word_ids"][0].T).long()
        long = published.amax(dim=1) == 49406  # these lost their <end>
        assert torch.equal(tokens[~long], published[~long])


def test_batches_of_photos_keep_sentences_with_their_photos_and_refs():
    def sentences(batches):
        for batch in batches:
            for tokens, photo, target in zip(batch.tokens, batch.photo, batch.target, strict=True):
                yield batch.images[photo], tokens, batch.targets[target].reference

    photos = EvalPhotos(SPLITS["train"], 32, 20)
    together = sentences(eval_loader(photos, batch_size=3, workers=0))
    for (image, tokens, reference), (other_image, other_tokens, other) in zip(together, sentences(photos), strict=True):
        assert torch.equal(image, other_image) and torch.equal(tokens, other_tokens)
        assert reference == other


def test_a_split_without_masks_is_exported_not_evaluated(tmp_path):
    split = Split("jsonl", "train", REFERENCE, [Reference(0, 0, 0, "a.jpg", None, ("a",))])
    with pytest.raises(UserError, match="has no mask for ref 0_0: it can be trained on and exported, "):
        EvalPhotos(split, 32, 20)
    assert len(EvalPhotos(split, 32, 20, masks=False)) == 1


def test_absent_refs_are_evaluated_not_trained_on(tmp_path):
    train = SPLITS["train"]
    gone = replace(train.references[1], segmentation=ABSENT, box=None)
    split = train.part([train.references[0], gone, *train.references[2:]])
    samples = TrainSamples(split, 32, 20, seed=0)
    assert [r.index for r in samples.references] == [r.index for r in train.references if r.index != 1]
    assert len(samples.sentences) == sum(len(r.sentences) for r in samples.references)
    targets = {t.reference.index: t for batch in EvalPhotos(split, 32, 20) for t in batch.targets}
    assert (targets[1].box, targets[1].mask.shape, targets[1].mask.any()) == (None, gone.size, False)
    for reference in samples.references:
        write_mask(tmp_path, reference.name, np.ones(reference.size, bool))
    assert len(with_pseudo_masks(split, tmp_path, skip_missing=False).references) == len(samples)


def test_negatives_come_from_the_photo_s_other_refs_else_have_another_text():
    train = TrainSamples(SPLITS["train"], 32, 20, seed=0)
    for index in range(len(train)):
        assert train.other_refs(index) == FIGURES[f"train.neg_index.{index}"].tolist()
    references = SPLITS["val"].references
    samples = TrainSamples(SPLITS["val"], 32, 20, seed=0, negatives=50)
    for index in range(len(references)):
        ids = samples[index]["ids"]
        drawn = {samples.sentences[number] for number in ids["negatives"].tolist()}
        others = samples.other_refs(index)
        allowed = {text for number in others or range(len(references)) for text in references[number].sentences}
        assert ids["negatives"].shape == (50,)
        assert drawn <= (allowed if others else allowed - {samples.sentences[ids["sentence"]]})


def test_a_visit_draws_one_sentence_of_the_ref():
    samples = TrainSamples(SPLITS["train"], 32, 20, seed=1)
    for epoch in range(5):
        samples.epoch = epoch
        for index, reference in enumerate(SPLITS["train"].references):
            sample = samples[index]
            drawn = samples.sentences[sample["ids"]["sentence"]]
            assert drawn in reference.sentences
            assert torch.equal(tokenize([drawn])[0], sample["tokens"])


def batches(workers=0, epoch=0, seed=5):
    loader = train_loader(TrainSamples(SPLITS["train"], 32, 20, seed, negatives=3), 3, seed, workers)
    start_epoch(loader, epoch)
    return [(batch["ref_id"], batch["tokens"].tolist(), batch["ids"]["negatives"].tolist()) for batch in loader]


def test_an_epoch_has_every_ref_once_in_an_order_and_draws_of_seed_and_epoch_alone():
    """And the last partial batch is kept, as published."""
    orders = [[ids for ids, _, _ in batches(epoch=epoch)] for epoch in range(2)]
    assert [len(ids) for ids in orders[0]] == [3, 3, 1] and orders[0] != orders[1]
    assert all(sorted(sum(ids, [])) == sorted(str(r.ref_id) for r in SPLITS["train"].references) for ids in orders)
    assert batches() == batches(workers=2)
    assert batches() != batches(epoch=1) != batches(epoch=1, seed=6)


def test_processes_share_out_the_refs(monkeypatch):
    monkeypatch.setattr("dataset.samples.world_size", lambda: 3)
    seen = []
    for number in range(3):
        monkeypatch.setattr("dataset.samples.rank", lambda number=number: number)
        seen += [tokens for _, batch, _ in batches() for tokens in batch]
    assert len(seen) == 9  # as DistributedSampler does: 7 refs, filled up to a multiple of 3


@pytest.mark.parametrize(("processes", "batch_size", "smallest"), [(1, 4, 3), (2, 4, 4), (2, 3, 1), (2, 9, 4)])
def test_the_smallest_batch_is_that_of_a_process(processes, batch_size, smallest, monkeypatch):
    """One process has all 7 refs, in batches of 4 and 3; of two each has 4, since one ref is taken twice."""
    monkeypatch.setattr("dataset.samples.world_size", lambda: processes)
    loader = train_loader(TrainSamples(SPLITS["train"], 32, 20, seed=0), batch_size, seed=0, workers=0)
    assert smallest_batch(loader) == smallest == min(len(batch["ref_id"]) for batch in loader)


def test_pseudo_masks_are_read_as_published(tmp_path):
    split = SPLITS["train"]
    for reference in split.references:
        stored = np.load(REFERENCE / "refer_fixture" / "ins_seg" / f"{reference.name}.npy", allow_pickle=True).item()
        write_mask(tmp_path, reference.name, stored["mask"].sum(0) > 0)
    samples = TrainSamples(split, 320, 20, seed=0, pseudo_masks=tmp_path)
    for index in range(len(samples)):
        mask = samples[index]["mask"]
        values = FIGURES[f"train.pseudo.{index}.slice"]
        assert (mask[:, ::8, ::8].numpy() == (values > 0)).all()  # overlapping instances: union instead of 2
        if FIGURES[f"train.pseudo.{index}.values"].max() == 1:
            assert mask.sum() == FIGURES[f"train.pseudo.{index}.sum"]


def test_refs_without_pseudo_mask_or_with_one_of_another_photo(tmp_path, capsys):
    split = SPLITS["train"]
    for reference in split.references[2:]:
        write_mask(tmp_path, reference.name, np.ones(reference.size, bool))
    names = ", ".join(reference.name for reference in split.references[:2])
    with pytest.raises(UserError, match=rf"2 of 7 refs have no pseudo mask in .* \({names}\); .*--skip_missing"):
        with_pseudo_masks(split, tmp_path, skip_missing=False)
    kept = with_pseudo_masks(split, tmp_path, skip_missing=True)
    assert capsys.readouterr().out == f"pseudo masks: 5 of 7 refs of train, in {tmp_path}, not {names}\n"
    with pytest.raises(UserError, match="7 of 7 refs have no pseudo mask in .*; check --pseudo_path"):
        with_pseudo_masks(split, tmp_path / "elsewhere", skip_missing=True)
    assert [r.name for r in kept.references] == [r.name for r in split.references[2:]]
    assert TrainSamples(kept, 32, 20, seed=0, pseudo_masks=tmp_path)[0]["mask"].mean() == 1
    write_mask(tmp_path, split.references[0].name, np.ones((4, 6), bool))
    with pytest.raises(UserError, match="is 4 x 6, its photo .*; remove it and make it"):
        TrainSamples(split, 32, 20, seed=0, pseudo_masks=tmp_path)[0]
