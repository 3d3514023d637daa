"""The networks, what they are trained on, and the selection of response maps.

from model import load_model
masks = load_model("weights/stage2_refcocog_umd.pth").segment("photo.jpg", ["man on the right"])
"""

from model.segmenter import Segmenter, load_model

__all__ = ["Segmenter", "load_model"]
