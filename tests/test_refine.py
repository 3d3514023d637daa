"""Prompts and choice of the cutter by hand, the chain with a cutter that floods colours, and SAM's classes for real."""

import json
import sys

import numpy as np
import pytest
from PIL import Image

from dataset.artifacts import read_mask, write_map, write_mask, write_names
from model.refine import Clicks, Prompt, Sam, agreement, core, interior_points, prompts_of, refine
from model.segmenter import Segmenter
from tests.conftest import data_words
from tests.stand_ins import Flood, Redness
from utils.errors import UserError


def blob(x, y, size=(8, 8), width=2.0):
    """A response with its maximum 1 at x, y."""
    rows, columns = np.mgrid[: size[0], : size[1]]
    return np.exp(-((columns - x) ** 2 + (rows - y) ** 2) / width**2).astype(np.float32)


def test_one_blob_has_one_point_well_inside_and_the_box_of_its_core():
    response = np.zeros((8, 8), np.float32)
    response[2:7, 1:6] = 0.6
    response[2, 1] = 1.0  # the maximum itself lies in a corner
    assert core(response).sum() == 25
    assert interior_points(response) == [(3, 4)]  # 0.6 times a distance of 3 is more than 1 times 1
    assert prompts_of([response], [0]) == [Prompt([(3, 4)], [], (1, 2, 6, 7))]


def test_two_blobs_have_a_point_each_and_the_stronger_comes_first():
    response = np.maximum(0.8 * blob(1, 1, width=1.2), blob(6, 6, width=1.2))
    assert interior_points(response) == [(6, 6), (1, 1)]
    assert prompts_of([response], [0])[0].box == (1, 1, 7, 7)


def test_at_the_photos_edge_the_point_lies_inside():
    response = np.zeros((8, 8), np.float32)
    response[0:3, 0:3] = 1
    assert interior_points(response) == [(1, 1)]


def test_a_flat_map_has_one_point_in_the_middle_and_an_empty_one_none():
    assert interior_points(np.ones((9, 9), np.float32)) == [(4, 4)]
    assert prompts_of([np.zeros((8, 8), np.float32)], [0]) == [None]


def test_other_refs_are_outside_but_not_other_sentences_of_the_same():
    here, there = blob(1, 1, width=1.5), blob(6, 6, width=1.5)
    one, two, same = prompts_of([here, there, blob(5, 6, width=1.5)], [0, 1, 0])
    assert (one.outside, two.outside, same.outside) == ([(6, 6)], [(1, 1)], [])  # (6, 6) is in the core of `same`


def test_agreement_by_hand():
    response = np.array([[1.0, 0.5, 0.0]])
    masks = np.array([[[1, 0, 0]], [[1, 1, 0]], [[1, 1, 1]], [[0, 0, 0]]], dtype=bool)
    assert agreement(response, masks) == pytest.approx([1 / 1.5, 1.5 / 2, 1.5 / 3, 0])


@pytest.fixture
def scene():
    """A photo 120 x 160 with a red disc and a blue square, and a response around each."""
    photo = np.full((120, 160, 3), 200, np.uint8)
    rows, columns = np.mgrid[:120, :160]
    disc, square = (columns - 40) ** 2 + (rows - 60) ** 2 < 25**2, (abs(columns - 115) < 22) & (abs(rows - 55) < 22)
    photo[disc], photo[square] = (220, 30, 30), (30, 30, 220)
    return photo, [disc, square], [blob(42, 58, (120, 160), 30), blob(113, 57, (120, 160), 30)]


def iou(one, other):
    return (one & other).sum() / (one | other).sum()


def test_a_right_blob_gets_a_sharp_outline_and_a_flat_one_keeps_its_mask(scene):
    photo, truth, responses = scene
    flat, empty = np.full((120, 160), 0.5, np.float32), np.zeros((120, 160), np.float32)
    responses = [*responses, flat, empty]
    masks = [response > 0 for response in responses]
    cutter = Flood()
    refined = refine(cutter, cutter.encode(photo), responses, masks, range(4))
    for found, wanted, before in zip(refined, truth, masks, strict=False):
        assert iou(found, wanted) > 0.99 > 0.9 > iou(before, wanted)
    assert refined[2] is masks[2] and refined[3] is masks[3]


def test_a_click_decides_what_the_first_mask_is(scene):
    photo, truth, responses = scene
    masks = [response > 0 for response in responses]
    found = refine(Flood(), photo, responses, masks, [0, 1], Clicks(((94, 55),), ()))
    assert iou(found[0], truth[1]) == 1 and iou(found[1], truth[1]) == 1
    nowhere = np.zeros((120, 160), np.float32)
    (found,) = refine(Flood(), photo, [nowhere], [nowhere > 0], [0], Clicks(((40, 60),), ()))
    assert found.any() and not (found & ~truth[0]).any()


def test_a_segmenter_encodes_a_photo_once_and_cuts_its_masks():
    photo = np.full((48, 64, 3), 128, np.uint8)
    photo[12:24, 16:32] = (255, 0, 0)
    segmenter = Segmenter(Redness(), size=16, cutter=Flood())
    encoded = segmenter.encode(photo)
    (mask,) = segmenter.segment(encoded, ["the red one"])
    assert (mask == (photo[:, :, 0] == 255)).all()
    responses = segmenter.respond(encoded, ["the red one"])
    assert (segmenter.masks(encoded, responses, cut=False) == (responses > 0)).all()
    assert segmenter.cutter.encoded == segmenter.network.encoded == 1


def test_without_transformers_one_line_says_how_to_install_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(UserError, match="^--sam needs transformers; run: pip install -r requirements-sam.txt$"):
        Sam("x")


SIZE = 128
MEMORY_SIZES = ["memory_attention_hidden_size", "memory_attention_feed_forward_hidden_size"]
MEMORY_SIZES += ["memory_encoder_hidden_size", "mask_downsampler_embed_dim", "memory_fuser_embed_dim"]


@pytest.fixture(scope="module")
def sam_folder(tmp_path_factory):
    """A random SAM 2 of 128 x 128 pixels, saved as a user would find it."""
    transformers = pytest.importorskip("transformers", reason="needs requirements-sam.txt")
    backbone = {"model_type": "sam2_hiera_det_model", "hidden_size": 8, "image_size": [SIZE, SIZE]}
    backbone |= {"embed_dim_per_stage": [8, 16, 32, 64], "num_attention_heads_per_stage": [1] * 4}
    backbone |= {"blocks_per_stage": [1, 2, 1, 1], "window_size_per_stage": [4] * 4, "global_attention_blocks": [2]}
    vision = {"backbone_config": backbone, "backbone_channel_list": [64, 32, 16, 8], "fpn_hidden_size": 32}
    vision["backbone_feature_sizes"] = [[SIZE // stride] * 2 for stride in (4, 8, 16)]
    decoder = {"hidden_size": 32, "mlp_dim": 32, "num_attention_heads": 2, "iou_head_hidden_dim": 32}
    config = transformers.Sam2Config(
        vision_config=vision,
        prompt_encoder_config={"hidden_size": 32, "image_size": SIZE},
        mask_decoder_config=decoder,
    )
    folder = tmp_path_factory.mktemp("sam")
    transformers.Sam2Model(config).save_pretrained(folder)
    sizes = {name: {"height": side, "width": side} for name, side in (("size", SIZE), ("mask_size", SIZE // 4))}
    transformers.Sam2Processor(transformers.Sam2ImageProcessor(**sizes)).save_pretrained(folder)
    return folder


def rewritten(folder, to, change):
    """A copy of the folder, with another config.json."""
    for file in folder.iterdir():
        (to / file.name).write_bytes(file.read_bytes())
    config = json.loads((to / "config.json").read_text())
    change(config)
    (to / "config.json").write_text(json.dumps(config))
    return to


def test_sam_cuts_three_masks_for_each_prompt_and_padding_changes_nothing(sam_folder, scene):
    photo, _, responses = scene
    sam = Sam(sam_folder)
    encoded = sam.encode(photo)
    one, two = prompts_of(responses, [0, 1])
    more = two._replace(outside=[*two.outside, (5, 5)])
    masks = list(sam.cut(encoded, [one, more], (120, 160)))
    assert [(each.shape, each.dtype) for each in masks] == [((3, 120, 160), bool)] * 2
    (alone,) = sam.cut(encoded, [one], (120, 160))
    assert (alone != masks[0]).mean() < 0.001
    assert not (masks[0] == masks[1]).all()
    found = refine(sam, encoded, responses, [response > 0 for response in responses], [0, 1])
    assert [mask.shape for mask in found] == [(120, 160)] * 2


def test_the_hubs_files_are_those_of_the_video_model(sam_folder, scene, tmp_path):
    """They also hold the memory of earlier frames, which a photo has no use for."""
    import transformers

    image = transformers.Sam2Model.from_pretrained(sam_folder)
    parts = {name: getattr(image.config, name) for name in ("vision_config", "prompt_encoder_config")}
    small = dict.fromkeys(MEMORY_SIZES, 32) | {"memory_encoder_output_channels": 16, "image_size": SIZE}
    config = transformers.Sam2VideoConfig(**parts, mask_decoder_config=image.config.mask_decoder_config, **small)
    whole = transformers.Sam2VideoModel(config)
    assert not whole.load_state_dict(image.state_dict(), strict=False).unexpected_keys
    whole.save_pretrained(tmp_path)
    processor = transformers.Sam2Processor.from_pretrained(sam_folder).image_processor
    videos = transformers.Sam2VideoVideoProcessor(size={"height": SIZE, "width": SIZE})
    transformers.Sam2VideoProcessor(processor, videos).save_pretrained(tmp_path)
    assert json.loads((tmp_path / "config.json").read_text())["model_type"] == "sam2_video"
    video = Sam(tmp_path)
    (one,), (other,) = (
        list(each.cut(each.encode(scene[0]), prompts_of(scene[2][:1], [0]), (120, 160)))
        for each in (Sam(sam_folder), video)
    )
    assert (one == other).all()


def test_a_folder_that_lacks_weights_or_holds_none_is_refused(sam_folder, tmp_path, capfd):
    def widen(config):
        config["mask_decoder_config"]["mlp_dim"] = 48

    for name in ("wide", "pickled", "empty", "half", "foreign", "number", "list"):
        (tmp_path / name).mkdir()
    with pytest.raises(UserError, match="^--sam .*wide.*such as .*mask_decoder"):
        Sam(rewritten(sam_folder, tmp_path / "wide", widen))
    pickled = rewritten(sam_folder, tmp_path / "pickled", lambda config: None)
    (pickled / "model.safetensors").rename(pickled / "pytorch_model.bin")
    with pytest.raises(
        UserError, match="/nowhere is no folder, and no name on the hub such as facebook/sam2.1-hiera-tiny$"
    ):
        Sam(tmp_path / "nowhere")
    half = rewritten(sam_folder, tmp_path / "half", lambda config: None)
    weights = half / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[: weights.stat().st_size // 2])
    code = {"model_type": "foreign", "auto_map": {"AutoConfig": "foreign.Config"}}
    foreign = rewritten(sam_folder, tmp_path / "foreign", lambda config: config.update(code))
    (foreign / "foreign.py").write_text("class Config: pass")
    number = rewritten(sam_folder, tmp_path / "number", lambda config: config.update(vision_config=5))
    listed = rewritten(sam_folder, tmp_path / "list", lambda config: None)
    (listed / "processor_config.json").write_text("[]")
    for folder in (pickled, half, foreign, number, listed, tmp_path / "empty"):
        with pytest.raises(UserError, match=r"^--sam .* cannot be used \(.*; give a folder with"):
            Sam(folder)
    assert capfd.readouterr().out == ""  # nobody is asked whether to run a folder's code


def test_pseudo_masks_are_cut_from_maps_and_from_irnets_masks(sam_folder, scene, tmp_path, script):
    photo, _, responses = scene
    Image.fromarray(photo).save(tmp_path / "photo.png")
    for name, response in zip(("0_1", "1_1"), responses, strict=True):
        write_map(tmp_path / "cam", name, response)
    write_mask(tmp_path / "irnet", "0_1", responses[0] > 0.5)  # and none for the other
    write_names(tmp_path / "x_names.json", {"0_1": "photo.png", "1_1": "photo.png"})
    words = [
        "scripts/cut_pseudo_masks.py",
        "--train_list",
        tmp_path / "x_names.json",
        "--cam_out_dir",
        tmp_path / "cam",
    ]
    words += ["--image_root", tmp_path, "--sam", sam_folder, "--num_workers", "0", "--work_space", tmp_path / "work"]
    status, printed, errors = script(*words, "--ins_seg_out_dir", tmp_path / "masks")
    assert status == 0 and "2 made" in printed and "masks stayed as they were" in printed, errors
    before = [read_mask(tmp_path / "masks", name, (120, 160)) for name in ("0_1", "1_1")]
    (tmp_path / "masks" / "1_1.png").unlink()
    status, printed, errors = script(*words, "--ins_seg_out_dir", tmp_path / "masks", "--resume")
    assert status == 0 and "1 made" in printed and "1 kept" in printed, errors
    assert (read_mask(tmp_path / "masks", "0_1") == before[0]).all()
    more = ["--irnet_masks", tmp_path / "irnet", "--ins_seg_out_dir", tmp_path / "both"]
    status, printed, errors = script(*words, *more)
    assert status == 0 and "1 made" in printed and "1 refused" in printed, errors
    assert (tmp_path / "both" / "0_1.png").is_file() and (tmp_path / "work" / "pseudo_masks.png").is_file()


def test_the_scripts_cut_masks_where_they_are_told_to(sam_folder, trained, world, tmp_path, script):
    """Evaluation beside the uncut masks, with its card; many photos in a file; the demo's picture."""
    sam = ["--sam", sam_folder]
    checkpoint = trained[0] / "ckpt.pth"
    words = [*data_words(world), "--test_split", "val", "--output", trained[0], "--json", tmp_path / "metrics.json"]
    status, printed, errors = script("validate.py", *words, *sam, "--report", tmp_path / "card")
    assert status == 0 and "\nval+sam " in printed and "masks stayed as they were" in printed, errors
    metrics = json.loads((tmp_path / "metrics.json").read_text())
    assert metrics["val"]["PointM"] == metrics["val+sam"]["PointM"]  # where it points at is not cut
    card = json.loads((tmp_path / "card" / "report.json").read_text())["splits"]
    assert card["val+sam"]["metrics"]["mIoU"]["value"] == metrics["val+sam"]["mIoU"]
    assert "<h2>val+sam</h2>" in (tmp_path / "card" / "report.html").read_text()

    photo = min((world / "train2014").iterdir())
    words = ["--photos", photo.parent, "--text", "the red one", "--pretrain", checkpoint, "--num_workers", "0"]
    files = [tmp_path / "plain.json", tmp_path / "cut.json"]
    for file, more in zip(files, ([], sam), strict=True):
        status, _, errors = script("predict.py", *words, "--size", "64", "--output", file, *more)
        assert status == 0, errors
    plain, cut = (json.loads(file.read_text())["annotations"] for file in files)
    assert [one["peak"] for one in plain] == [one["peak"] for one in cut]

    words = ["--img", photo, "--text", "red", "--pretrain", checkpoint, "--device", "cpu", "--output", tmp_path]
    status, printed, errors = script("demo.py", *words, "--mask", *sam)
    assert status == 0 and len(printed.split("\n")) == 4, errors
    status, _, errors = script("validate.py", *data_words(world), "--pseudo_path", tmp_path, *sam)
    assert status == 2 and "leave out --prms, --mean_map, --absent_below, --sam" in errors
