"""Law 4: two and three processes make the updates of one, in float64 to the last digits, with every role at work."""

from itertools import product

import pytest
import torch
from torch.utils.data import SequentialSampler

import several
from foci.training.dataset import FILLER
from foci.training.sharing import SharedOut, shares
from law_of_processes import CASES, SHARDED, train_all, trained


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    """The folder with the weights that two and three processes made."""
    folder = tmp_path_factory.mktemp("law")
    for count in (2, 3):
        several.called(train_all, folder, folder=folder, count=count)
    return folder


@pytest.mark.parametrize("name", CASES)
def test_processes_make_the_updates_of_one(name, found, tmp_path):
    one = trained(name, tmp_path)
    for kind, count in product(("whole", "sharded"), (2, 3)):
        if kind == "sharded" and name not in SHARDED[count]:
            continue
        weights = torch.load(found / f"{kind} {count} {name}.pt", weights_only=True)
        assert weights.keys() == one.keys()
        for key, expected in one.items():
            assert expected.dtype == torch.float64
            torch.testing.assert_close(weights[key], expected, atol=1e-10, rtol=0)


@pytest.mark.parametrize("rows", [1, 7, 10, 16])
@pytest.mark.parametrize("count", [1, 2, 3, 5])
@pytest.mark.parametrize("batch", [2, 4])
def test_every_row_is_read_once_in_the_update_of_one_process(rows, count, batch):
    places, micro_batches = shares(rows, batch, count)
    assert places <= batch
    sampler = SharedOut(SequentialSampler(range(23)), rows, places, micro_batches, count)
    dealt = list(sampler)
    assert len(dealt) == len(sampler)
    size = places * micro_batches * count
    updates = [dealt[at : at + size] for at in range(0, len(dealt), size)]
    expected = [list(range(23))[at : at + rows] for at in range(0, 23, rows)]
    assert [sorted(set(update) - {FILLER}) for update in updates] == expected
    assert all(len([row for row in update if row != FILLER]) <= rows for update in updates)


def test_an_update_that_does_not_fit_is_refused():
    with pytest.raises(ValueError, match="an update of 9 rows does not fit into 2 processes"):
        SharedOut(SequentialSampler(range(23)), 9, 4, 1, 2)
