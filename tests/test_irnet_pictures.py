"""Pictures worked out by hand, and the contact sheet of pseudo masks."""

import json

import numpy as np
from PIL import Image

from dataset.artifacts import write_map, write_mask
from IRNet.make_ins_seg import show_pseudo_masks
from utils.pictures import VEIL, contact_sheet, heat_overlay, mask_overlay, save_png


def test_overlays_by_hand():
    photo = np.full((2, 3, 3), 100, dtype=np.uint8)
    heat = heat_overlay(photo, np.array([[0.0, 1.0, 0.5]] * 2))
    assert heat[0, 0].tolist() == [40, 40, 117]  # JET begins with blue 128: 0.6 * 128 + 0.4 * 100
    assert heat[0, 1, 0] > heat[0, 1, 2]  # and ends with red
    masked = mask_overlay(photo, np.array([[True, False, False]] * 2))
    assert masked[0, 0].tolist() == [100] * 3 and masked[0, 1].tolist() == [20 + veil for veil in VEIL]
    larger = np.repeat(np.repeat([[True, False, False]] * 2, 2, axis=0), 2, axis=1)
    assert (mask_overlay(photo, larger) == masked).all() and (
        heat_overlay(photo, larger * 1.0)[0] == heat[0, [1, 0, 0]]
    ).all()


def test_contact_sheet_places_every_picture(tmp_path):
    rows = [[np.full((8, 16, 3), 10 * row + column, dtype=np.uint8) for column in range(2)] for row in range(3)]
    sheet = contact_sheet(rows, across=2, tile=8)
    assert set(np.unique(sheet)) == {0, 1, 10, 11, 20, 21, 255}
    assert (sheet == 21).sum() == 4 * 8 * 3
    save_png(tmp_path / "sheet.png", sheet)
    assert (np.asarray(Image.open(tmp_path / "sheet.png")) == sheet).all()


def test_masks_are_counted_and_those_of_another_size_are_not_shown(tmp_path):
    Image.new("RGB", (6, 4)).save(tmp_path / "1.png")
    for name, size in (("0_1", (4, 6)), ("1_1", (6, 4))):
        write_map(tmp_path, name, np.ones((4, 6)))
        write_mask(tmp_path / "masks", name, np.full(size, name == "0_1"))
    for number, names in enumerate((["0_1"], ["0_1", "1_1"], ["1_1", "2_1"])):
        photos = [(tmp_path / "1.png", names)]
        show_pseudo_masks(photos, tmp_path, None, tmp_path / "masks", tmp_path / str(number))
    summaries = [json.loads((tmp_path / str(number) / "pseudo_masks.json").read_text()) for number in range(3)]
    assert [tuple(summary.values()) for summary in summaries] == [(1, 1, 0, 1), (2, 2, 1, 0.5), (2, 1, 1, 0)]
    assert (tmp_path / "0" / "pseudo_masks.png").read_bytes() == (tmp_path / "1" / "pseudo_masks.png").read_bytes()
    assert not (tmp_path / "2" / "pseudo_masks.png").exists()
