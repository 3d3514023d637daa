import pytest
import torch

from clip import build_clip
from model.scorer import Scorer
from model.stage1 import ResponseNetwork
from model.stage2 import SegmentationNetwork
from tests.golden import golden_clip, load_golden


def pytest_collection_modifyitems(items):
    without_gpu = pytest.mark.skip(reason="needs a CUDA device")
    for item in items:
        if "gpu" in item.keywords and not torch.cuda.is_available():
            item.add_marker(without_gpu)


@pytest.fixture(scope="session")
def golden_rn50():
    return golden_clip("RN50")


@pytest.fixture(scope="session")
def golden_scorer():
    return Scorer(golden_clip("ViT-B/32"))


@pytest.fixture(scope="session")
def golden_stage1():
    """The published stage-1 network with golden weights. A test that changes it takes a copy."""
    return load_golden(ResponseNetwork(build_clip("RN50", pretrained=False)), stage=1)


@pytest.fixture(scope="session")
def golden_stage2():
    """The published stage-2 network with golden weights. A test that changes it takes a copy."""
    return load_golden(SegmentationNetwork(build_clip("RN50", pretrained=False)), stage=2)


@pytest.fixture(scope="session")
def toy_stage1():
    """A small response network with random weights."""
    torch.manual_seed(0)
    return ResponseNetwork(build_clip("toy", pretrained=False), hidden_dim=32).eval()
