"""The network, its pairs, losses and updates, against figures of the published code and worked out by hand."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

from dataset.artifacts import write_label
from IRNet.affinity import pair_affinity, path_to, search_offsets, shifted
from IRNet.data import Corners, normalise
from IRNet.losses import RADIUS, affinity_displacement_losses, pair_losses, sort_pairs
from IRNet.network import STRIDE, build_network
from IRNet.train_irn import SMALLEST_CROP, batch_loader, build_optimizer, mean_displacement, train_step
from tests.golden import figures
from tests.irnet_helpers import golden_network, photo, published_name, published_order
from utils.errors import UserError

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def network():
    return golden_network()


def as_input(images):
    return torch.from_numpy(normalise(images)).movedim(-1, -3)


@pytest.mark.parametrize("radius", [5, 10])
def test_offsets_and_paths_are_the_published_ones(radius):
    expected = figures("irnet_path_index")
    offsets = [tuple(offset) for offset in expected[f"r{radius}.search_dst"].tolist()]
    assert sorted(search_offsets(radius)) == sorted(offsets)
    coordinates = expected[f"r{radius}.path_coords"].tolist()
    lengths = np.repeat(expected[f"r{radius}.path_lengths"], expected[f"r{radius}.path_counts"])
    for offset, end in zip(offsets, np.cumsum(lengths), strict=True):
        length = len(path_to(offset))
        assert path_to(offset) == tuple(map(tuple, coordinates[end - length : end]))


@pytest.mark.parametrize(("radius", "size"), [(5, (30, 40)), (5, (17, 23)), (5, (65, 90)), (10, (41, 63))])
def test_shifted_views_visit_the_published_indices(radius, size):
    expected = figures("irnet_path_index")
    key = f"r{radius}_{size[0]}x{size[1]}"
    index = torch.arange(size[0] * size[1]).view(size)
    assert shifted(index, (0, 0), radius).sum() == expected[f"{key}.src_sum"]
    targets = [shifted(index, offset, radius) for offset in search_offsets(radius)]
    assert expected[f"{key}.dst_shape"].tolist() == [len(targets), targets[0].numel()]
    assert sum(int(target.sum()) for target in targets) == expected[f"{key}.dst_sum"]
    sums = {}
    for offset in search_offsets(radius):
        points = path_to(offset)
        sums[len(points)] = sums.get(len(points), 0) + sum(int(shifted(index, p, radius).sum()) for p in points)
    assert [sums[length] for length in sorted(sums)] == expected[f"{key}.sums"].tolist()


def test_path_and_smallest_crop_by_hand():
    assert path_to((0, 2)) == ((0, 2), (0, 1), (0, 0))
    assert set(path_to((2, 2))) == {(0, 0), (0, 1), (1, 0), (1, 1), (1, 2), (2, 1), (2, 2)}
    assert shifted(torch.zeros(3, 3), (0, 0), 5).shape == (0, 0)
    crops = [torch.zeros(crop // STRIDE, crop // STRIDE) for crop in (72, SMALLEST_CROP)]
    assert [shifted(crop, (0, 0), RADIUS).shape[1] for crop in crops] == [0, 1]


def test_affinity_and_its_gradient_by_hand():
    edge = torch.zeros(3, 5, dtype=torch.float64)
    edge[0, 2], edge[0, 3] = 0.25, 0.5
    edge.requires_grad_()
    affinity = pair_affinity(edge, 3, search_offsets(3))  # sources: row 0, column 2
    assert affinity.shape == (len(search_offsets(3)), 1, 1)
    by_offset = dict(zip(search_offsets(3), affinity.flatten().tolist(), strict=True))
    assert by_offset[0, 1] == 0.5 and by_offset[0, 2] == 0.5 and by_offset[1, 0] == 0.75
    noise = torch.rand(1, 6, 9, dtype=torch.float64, generator=torch.Generator().manual_seed(0), requires_grad=True)
    assert torch.autograd.gradcheck(lambda maps: pair_affinity(maps, 4, search_offsets(4)), (noise,))


@pytest.mark.parametrize("key", ["crop_161x203", "crop_96x130", "chelsea"])
def test_edges_and_displacements_are_the_published_ones(network, key):
    expected = figures("irnet_edge_displacement")
    edge, displacement = network.detect(as_input(photo(key) if key == "chelsea" else expected[f"{key}.img"]))
    np.testing.assert_allclose(edge[None], expected[f"{key}.edge"], atol=1e-5)
    np.testing.assert_allclose(displacement, expected[f"{key}.dp"], atol=1e-4)


@pytest.mark.parametrize("size", [(3, 2000), (1, 1), (64, 65)])
def test_output_size_for_any_photo(size):
    edge, displacement = build_network("resnet-toy").eval().detect(torch.zeros(3, *size))
    small = tuple((side - 1) // 4 + 1 for side in size)
    assert edge.shape == small and displacement.shape == (2, *small)


def test_pairs_and_loss_maps_are_the_published_ones(network):
    expected, order = figures("irnet_train_step"), published_order(10)
    label = torch.from_numpy(expected["label"][:, 2::4, 2::4])
    assert (label.numpy() == expected["reduced"]).all()
    for pairs, kind in zip(sort_pairs(label, 10, search_offsets(10)), ("bg_pos", "fg_pos", "neg"), strict=True):
        assert (np.packbits(pairs[:, order].numpy()) == expected[f"lab_{kind}.bits"]).all()
        assert pairs.sum() == expected[f"lab_{kind}.sum"]
    with torch.no_grad():
        output = network(as_input(expected["img"]))
        centred = output.displacement - network.mean_displacement[:, None, None]
    np.testing.assert_allclose(output.edge_logits, expected["eval.edge_logit"], atol=1e-4)
    np.testing.assert_allclose(centred, expected["eval.dp"], atol=1e-4)
    kinds = ("pos_aff", "neg_aff", "dp_fg", "dp_bg")
    for losses, kind in zip(pair_losses(*output, 10, search_offsets(10)), kinds, strict=True):
        losses = losses.index_select(-3, torch.tensor(order))
        assert float(losses.double().sum()) == pytest.approx(expected[f"loss_map.{kind}.sum"], rel=1e-5)
        every_97th = losses.flatten()[::97].numpy()
        np.testing.assert_allclose(every_97th, expected[f"loss_map.{kind}.every_97th"], rtol=1e-3, atol=1e-4)


def test_three_updates_are_the_published_ones():
    expected, network = figures("irnet_train_step"), golden_network()
    images, label = as_input(expected["img"]), torch.from_numpy(expected["reduced"])
    optimizer = build_optimizer(network.train(), 0.1, 1e-4)
    parameters = {published_name(name): parameter for name, parameter in network.named_parameters()}
    for step, tolerance in enumerate((1e-5, 3e-4, 3e-4)):
        losses = train_step(network, optimizer, step / 10, images, label)
        np.testing.assert_allclose([float(loss) for loss in losses.values()], expected["losses"][step], rtol=tolerance)
        rates = [group["lr"] for group in optimizer.param_groups]
        np.testing.assert_allclose(rates, expected["lrs"][step], rtol=1e-6)
        if step == 0:
            check_norms({name: p.grad for name, p in parameters.items()}, expected, "grad_norm.")
            for name in ("fc_edge6.weight", "fc_dp7.3.weight"):
                gradient = parameters[name].grad.flatten()
                np.testing.assert_allclose(gradient, expected[f"grad.{name}"].flatten(), atol=1e-5)
    check_norms(parameters, expected, "param_norm_after_3.")
    with torch.no_grad():
        output = network(images)
        last = affinity_displacement_losses(*output, label)
    np.testing.assert_allclose([float(loss) for loss in last.values()], expected["losses"][3], rtol=1e-3)
    mean = output.displacement.mean(dim=(0, 2, 3)) - network.mean_displacement
    np.testing.assert_allclose(mean, expected["dp_mean_after_3"], atol=5e-3)
    assert all(p.grad is None and not p.requires_grad for p in network.backbone.parameters())
    assert network.training and not any(module.training for module in network.backbone.modules())


def check_norms(tensors, expected, prefix):
    for key in (key for key in expected if key.startswith(prefix)):
        assert float(tensors[key.removeprefix(prefix)].detach().norm()) == pytest.approx(float(expected[key]), rel=1e-4)


def test_mean_displacement_by_hand(tmp_path):
    """Every pixel moves by its red and green. The lower half of the third photo's crop is padding: it counts as 0.

    The second photo has two refs.
    """
    colours = np.array([(10, 200, 0), (250, 30, 0), (90, 180, 0)], dtype=np.uint8)
    items = [(f"{ref}_{number}", tmp_path / f"{number}.png") for ref, number in enumerate((0, 1, 1, 2))]
    for (name, path), height in zip(items, (8, 8, 8, 4), strict=True):
        Image.fromarray(np.tile(colours[int(path.stem)], (height, 8, 1))).save(path)
        write_label(tmp_path / "labels", name, np.zeros((height, 8)))
    loader = batch_loader(Corners(items, tmp_path / "labels", 8), range(3), 2, 0)
    network = SimpleNamespace(backbone=lambda photos: photos, displacement_branch=lambda photos: photos[:, :2])
    found = mean_displacement(network, loader, torch.device("cpu"))
    expected = (normalise(colours[None])[0, :, :2] * [[1], [2], [0.5]]).sum(axis=0) / 4
    np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_losses_by_hand():
    edge_logits = torch.full((1, 1, 3, 5), -100.0)  # no edges: every pair belongs together
    rows = {"background": [0] * 5, "half": [0, 0, 0, 1, 1], "foreground": [1] * 5, "unknown": [255] * 5}
    labels = {name: torch.tensor([[row] * 3], dtype=torch.uint8) for name, row in rows.items()}
    displacement = torch.zeros(1, 2, 3, 5)
    losses = {
        name: affinity_displacement_losses(edge_logits, displacement, label, radius=3) for name, label in labels.items()
    }
    assert losses["background"]["total"] == pytest.approx(0, abs=1e-4)
    assert float(losses["half"]["negative"]) == pytest.approx(-np.log(1e-5), rel=1e-2)
    mean_offset = np.abs(search_offsets(3)).mean()
    assert float(losses["foreground"]["displacement_foreground"]) == pytest.approx(mean_offset, rel=1e-4)
    assert all(float(loss) == 0 for loss in losses["unknown"].values())


def test_imagenet_weights_that_cannot_be_fetched_are_named(monkeypatch):
    def fail(weights):
        raise OSError("no network")

    monkeypatch.setattr("IRNet.network.resnet50", fail)
    with pytest.raises(UserError, match=r"no network.*put resnet50-0676ba61.pth into"):
        build_network("resnet50", pretrained=True)
