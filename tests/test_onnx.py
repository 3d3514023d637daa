"""The ONNX file of a segmentation network gives the network's logits."""

import numpy as np
import pytest
import torch

from clip import build_clip, tokenize
from model.stage2 import SegmentationNetwork
from scripts.export_onnx import OnePhoto, export

onnxruntime = pytest.importorskip("onnxruntime", reason="needs requirements-onnx.txt")
pytest.importorskip("onnxscript", reason="needs requirements-onnx.txt")


def test_onnx_gives_the_same_logits(tmp_path):
    torch.manual_seed(0)
    module = OnePhoto(SegmentationNetwork(build_clip("toy", pretrained=False)).eval())
    assert export(module, tmp_path / "x.onnx", size=64, length=12) < 1e-3
    assert [file.name for file in tmp_path.iterdir()] == ["x.onnx"]
    session = onnxruntime.InferenceSession(str(tmp_path / "x.onnx"))
    image, tokens = torch.rand(1, 3, 64, 64), tokenize(["another sentence"], 12)
    (found,) = session.run(None, {"image": image.numpy(), "tokens": tokens.numpy()})
    with torch.inference_mode():
        expected = module.network.respond(image, tokens, torch.zeros(1, dtype=torch.int64)).maps
    assert np.abs(found - expected.numpy()).max() < 1e-3
