"""The random walk, centroids, clusters and masks, against figures of the published code and worked out by hand."""

import numpy as np
import pytest
import torch
from pycocotools import mask as coco_mask

from IRNet.affinity import pair_affinity, search_offsets
from IRNet.instances import cluster, connected_parts, find_centroids, instance_seeds, part_at_peak, strongest
from IRNet.make_ins_seg import pseudo_scores
from IRNet.random_walk import random_walk, transition
from tests.golden import figures
from tests.irnet_helpers import bits, published_order
from tests.reference.golden_weights import upsample

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.mark.parametrize(
    ("size", "beta", "exp_times", "key", "tolerance"),
    [
        *((size, 10, 8, f"{size}.rw", 1e-4) for size in ("30x40", "56x80", "23x17")),
        *((size, 10, 8, f"{size}.rw_exact", 1e-5) for size in ("30x40", "56x80", "23x17")),
        *(("23x17", b, t, f"beta{b}_times{t}", 1e-4) for b, t in ((10, 0), (4, 3), (10, 8))),
    ],
)
def test_walk_is_the_published_one(size, beta, exp_times, key, tolerance):
    expected = figures("irnet_random_walk")
    scores, edge = torch.from_numpy(expected[f"{size}.x"][:, 0]), torch.from_numpy(expected[f"{size}.edge"][0])
    error = np.abs(random_walk(scores, edge, beta, exp_times).numpy() - expected[key][:, 0]).max()
    assert error / expected[key].max() < tolerance


def test_affinities_are_the_published_ones():
    expected = figures("irnet_random_walk")
    edge = torch.nn.functional.pad(torch.from_numpy(expected["23x17.edge"]), (5, 5, 0, 5), value=1)[0]
    affinity = pair_affinity(edge, 5, search_offsets(5)).flatten(1)[published_order(5)]
    np.testing.assert_allclose(affinity, expected["aff_sparse"][0], atol=1e-6)


def test_walk_on_two_pixels_by_hand():
    # T = [[1, a], [a, 1]] / (1 + a) with a = 0.5: one step keeps 2/3 and passes 1/3 on.
    edge = torch.tensor([[0.0, 0.5]], dtype=torch.float64)
    result = random_walk(torch.tensor([[[3.0, 0.0]]]), edge, beta=1, exp_times=0)
    torch.testing.assert_close(result, torch.tensor([[[2.0, 1.0]]], dtype=torch.float64))


def test_walk_does_not_cross_a_wall():
    edge = torch.zeros(6, 11)
    edge[:, 5] = 1
    scores = torch.zeros(1, 6, 11)
    scores[0, 2, 2] = 1
    result = random_walk(scores, edge)[0]
    assert result[:, 6:].max() == 0 and result[:, :5].min() > 0.01 and result.min() >= 0


@pytest.mark.parametrize("size", [(1, 1), (1, 500), (500, 1), (3, 4)])
def test_walk_keeps_scores_on_maps_of_any_size(size):
    """Equal scores stay, and of others the sum weighted by degree: the walk's stationary law."""
    equal = random_walk(torch.ones(1, *size), torch.zeros(size))
    torch.testing.assert_close(equal, torch.ones_like(equal), atol=1e-5, rtol=0)
    scores, edge = torch.rand(2, 2, *size, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    edge = edge[0] / 5
    degree = transition(edge, beta=10)[1].view(size)
    assert degree.max() > 1.1 or size == (1, 1)
    sums = [(degree * maps).sum(dim=(1, 2)) for maps in (scores * (1 - edge), random_walk(scores, edge))]
    torch.testing.assert_close(*sums, atol=0, rtol=1e-5)


@pytest.mark.parametrize(("key", "contracting"), [("a", True), ("b", False), ("c", True)])
def test_centroids_and_clusters_are_the_published_ones(key, contracting):
    expected = figures("irnet_instances")
    displacement = torch.from_numpy(expected[f"{key}.dp"])
    for steps, name in ((300, "centroids"), (100, "centroids100")):
        found = find_centroids(displacement, steps).numpy()
        within_one = np.abs(found - expected[f"{key}.{name}"]).max(axis=0) <= 1
        assert (found == expected[f"{key}.{name}"]).all() if contracting else within_one.mean() >= 0.85
    instances = cluster(displacement, torch.from_numpy(expected[f"{key}.centroids"].astype(np.int64)))
    assert (instances.numpy() == expected[f"{key}.cluster_map"]).all()
    seeds = instance_seeds(torch.from_numpy(expected[f"{key}.score"][0]), instances)
    np.testing.assert_allclose(seeds.sum(dim=(1, 2)), expected[f"{key}.separated_sums"], rtol=1e-5)


def decoded(parts):
    """The masks, uint8 (n, H, W), and the scores of connected parts."""
    return np.stack([coco_mask.decode(part["segmentation"]) for part in parts]), [part["score"] for part in parts]


@pytest.mark.parametrize("key", ["a", "b", "c"])
def test_connected_parts_are_the_published_ones(key):
    expected = figures("irnet_instances")
    score = expected[f"{key}.score"][0]
    masks = bits(expected[f"{key}.det_in_mask"], (2, *score.shape))
    found, scores = decoded(connected_parts(np.stack([score, 1 - score]), masks, 0.04 * score.size))
    assert (np.packbits(found) == expected[f"{key}.det_mask"]).all()
    np.testing.assert_allclose(scores, expected[f"{key}.det_score"], atol=1e-6)  # stored with six decimals


@pytest.mark.parametrize("key", ["0_1", "1_2"])
def test_whole_photo_from_stored_edges_and_displacements(key):
    expected = figures("irnet_ins_seg")
    size = expected[f"{key}.img"].shape[:2]
    displacement = torch.from_numpy(expected[f"{key}.dp"])
    centroids = find_centroids(displacement)
    assert (centroids.numpy() == expected[f"{key}.centroids"]).all()
    instances = cluster(displacement, centroids)
    assert (instances.numpy() == expected[f"{key}.cluster_map"]).all()
    assert instances.max() + 1 == expected[f"{key}.n_instances"]
    response = torch.from_numpy(upsample(expected[f"{key}.cam10"], size))
    (scores,) = pseudo_scores(response[None], torch.from_numpy(expected[f"{key}.edge"][0]), instances, 10, 8)
    np.testing.assert_allclose(scores.amax(0)[::2, ::2], expected[f"{key}.rw_up_max"], atol=1e-3)
    np.testing.assert_allclose(scores.sum(dim=(1, 2)), expected[f"{key}.rw_up_channel_sums"], rtol=1e-3)
    masks = strongest(scores, 0.25)
    union = bits(expected[f"{key}.mask_union"], size)
    assert (masks.any(0).numpy() != union).mean() <= 0.002
    found, best = decoded(connected_parts(scores.numpy(), masks.numpy(), 0.01 * union.size))
    np.testing.assert_allclose(best, expected[f"{key}.det_score"], atol=1e-3)
    np.testing.assert_allclose(found.sum(axis=(1, 2), dtype=int), expected[f"{key}.det_sizes"], atol=40)


def test_centroids_and_clusters_by_hand():
    y, x = torch.meshgrid(torch.arange(5.0), torch.arange(7.0), indexing="ij")
    centroids = find_centroids(torch.stack([2 - y, 4 - x]))  # everyone goes to (2, 4) at once
    assert (centroids[0] == 2).all() and (centroids[1] == 4).all()
    still = find_centroids(torch.zeros(2, 5, 7))
    assert torch.equal(still, torch.stack([y, x]).long())
    outwards = find_centroids(torch.full((2, 5, 7), 9.0))
    assert (outwards[0] == 4).all() and (outwards[1] == 6).all()
    # Pixels that reach no core share a number.
    displacement = torch.full((2, 3, 3), 5.0)
    displacement[:, 2, 2] = 0
    assert cluster(displacement, find_centroids(displacement)).tolist() == [[0] * 3] * 3


@pytest.mark.parametrize("edge", [0.0, 1.0])
def test_nothing_in_gives_nothing_out(edge):
    structure = torch.full((3, 4), edge), torch.zeros(3, 4, dtype=torch.int64)
    responses = torch.stack([torch.zeros(10, 13), torch.ones(10, 13)])
    empty, full = (strongest(scores, 0.25) for scores in pseudo_scores(responses, *structure, 10, 8))
    assert empty.shape == full.shape == (1, 10, 13) and not empty.any()
    assert full.all() if edge == 0 else not full.any()  # nothing spreads where edges are everywhere


def test_the_part_at_the_peak_by_hand():
    """Two parts, which touch at a corner only: 0.5 in the right one beats 0.4; 0.9 lies in neither."""
    mask = np.array([[1, 1, 0], [0, 0, 1]], dtype=bool)
    response = np.array([[0.4, 0, 0.9], [0, 0, 0.5]], dtype=np.float32)
    assert part_at_peak(mask, response).tolist() == [[False, False, False], [False, False, True]]
    assert not part_at_peak(np.zeros((2, 3), dtype=bool), response).any()
    assert (part_at_peak(mask, np.zeros_like(response)) == [[1, 1, 0], [0, 0, 0]]).all()  # the first of equals
