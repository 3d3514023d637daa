"""Pictures by hand."""

import numpy as np
from PIL import Image

from utils.pictures import VEIL, contact_sheet, heat_overlay, mask_overlay, save_png


def test_overlays_by_hand():
    photo = np.full((2, 3, 3), 100, dtype=np.uint8)
    heat = heat_overlay(photo, np.array([[0.0, 1.0, 0.5]] * 2))
    assert heat[0, 0].tolist() == [40, 40, 117]  # JET begins with blue 128: 0.6 * 128 + 0.4 * 100
    assert heat[0, 1, 0] > heat[0, 1, 2]  # and ends with red
    masked = mask_overlay(photo, np.array([[True, False, False]] * 2))
    assert masked[0, 0].tolist() == [100] * 3 and masked[0, 1].tolist() == [20 + veil for veil in VEIL]


def test_contact_sheet_places_every_picture(tmp_path):
    rows = [[np.full((8, 16, 3), 10 * row + column, dtype=np.uint8) for column in range(2)] for row in range(3)]
    sheet = contact_sheet(rows, across=2, tile=8)
    assert set(np.unique(sheet)) == {0, 1, 10, 11, 20, 21, 255}
    assert (sheet == 21).sum() == 4 * 8 * 3
    save_png(tmp_path / "sheet.png", sheet)
    assert (np.asarray(Image.open(tmp_path / "sheet.png")) == sheet).all()
