"""Torch gets fewer threads for a while, and all of them back."""

import pytest
import torch

from sam2s_model.threads import torch_threads


@pytest.fixture
def two_threads():
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


def test_threads_are_given_back(two_threads):
    with torch_threads(1):
        assert torch.get_num_threads() == 1
    assert torch.get_num_threads() == 2


def test_threads_are_given_back_after_an_error(two_threads):
    with pytest.raises(ValueError, match="stop"), torch_threads(1):
        raise ValueError("stop")
    assert torch.get_num_threads() == 2


def test_none_leaves_threads_alone(two_threads):
    with torch_threads(None):
        assert torch.get_num_threads() == 2
