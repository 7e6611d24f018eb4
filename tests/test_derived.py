from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from gpu_select.derived import Deriving


class Doubled(Deriving):
    derived = ("_doubled",)

    def __init__(self, value):
        super().__init__()
        self.register_buffer("value", torch.tensor([value]))
        self._doubled = None

    def forward(self):
        if self._doubled is None:
            self._doubled = 2 * self.value
        return self._doubled


@pytest.mark.parametrize(
    "change",
    [
        lambda module: module.to(torch.float64),
        lambda module: nn.Sequential(module).double(),
        lambda module: module.load_state_dict({"value": torch.tensor([1.5])}),
        lambda module: module.load_state_dict({"value": torch.tensor([1.5])}, assign=True),
        lambda module: nn.Sequential(module).load_state_dict({"0.value": torch.tensor([1.5])}),
    ],
)
def test_what_was_derived_is_forgotten_when_tensors_change(change):
    module = Doubled(1.5)
    before = module()
    assert module() is before
    change(module)
    assert module._doubled is None
    assert module().tolist() == [3.0]


def test_it_follows_the_tensors_that_were_loaded():
    module = Doubled(1.5)
    module()
    module.load_state_dict({"value": torch.tensor([4.0])})
    assert module().tolist() == [8.0]


def test_writing_in_place_needs_a_word():
    module = Doubled(1.5)
    module()
    module.value.fill_(4.0)
    module.forget()
    assert module().tolist() == [8.0]


@pytest.mark.parametrize("copied", [copy.copy, copy.deepcopy])
def test_copies_derive_for_themselves(copied):
    module = Doubled(1.5)
    module()
    other = copied(module)
    assert other._doubled is None
    assert module._doubled is not None
    assert other().tolist() == [3.0]


def test_what_was_derived_is_no_state():
    module = Doubled(1.5)
    module()
    assert list(module.state_dict()) == ["value"]
