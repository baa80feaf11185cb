"""Values that go from one tokenizer's tokens to another's."""

import pytest

from foci.corpus.characters import to_characters, to_tokens


def test_there_and_back_by_hand():
    """ "Rome is" as Ro|me| is and as Rome| |is: the word's weight is the mean of its two tokens' characters."""
    characters = to_characters([0.2, 0.8, 0.5], [(0, 2), (2, 4), (4, 7)], 7, 1.0)
    assert characters == [0.2, 0.2, 0.8, 0.8, 0.5, 0.5, 0.5]
    assert to_tokens(characters, [(0, 4), (4, 5), (5, 7)], 1.0) == pytest.approx([0.5, 0.5, 0.5])
    assert to_tokens(characters, [(0, 3), (0, 0)], 1.0) == pytest.approx([0.4, 1.0])


def test_a_character_of_several_tokens_gets_their_mean():
    assert to_characters([0.2, 0.4], [(0, 1), (0, 1)], 2, 0.9) == pytest.approx([0.3, 0.9])


def test_the_same_tokens_keep_their_values():
    offsets = [(0, 0), (0, 3), (3, 9), (9, 10)]
    values = [0.7, 0.1, 0.4, 0.9]
    assert to_tokens(to_characters(values, offsets, 10, 1.0), offsets, 0.7) == pytest.approx(values)
