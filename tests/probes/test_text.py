"""Bits per byte: windows by hand, values by hand."""

import math

import pytest
import torch

import tiny
from foci.probes import bits_per_byte
from foci.probes.text import windows

TEXT = "She was born in the town of Bern and works in the north as a painter. " * 3


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ((5, 8, 4), [(0, 5, 1)]),
        ((8, 8, 4), [(0, 8, 1)]),
        ((9, 8, 4), [(0, 8, 1), (4, 9, 8)]),
        ((7, 4, 3), [(0, 4, 1), (3, 7, 4)]),  # the least overlap: one token
        ((6, 4, 1), [(0, 4, 1), (1, 5, 4), (2, 6, 5)]),
        ((6, 4, 2, 0), [(0, 4, 0), (2, 6, 4)]),  # the tokenizer's first token stands before
    ],
)
def test_windows_by_hand(arguments, expected):
    assert windows(*arguments) == expected


@pytest.mark.parametrize("length", range(2, 30))
@pytest.mark.parametrize(("window", "stride"), [(4, 1), (4, 3), (7, 4), (8, 5)])
def test_every_token_but_the_first_is_predicted_once_with_a_token_before_it(length, window, stride):
    made = windows(length, window, stride)
    assert [t for _, end, first in made for t in range(first, end)] == list(range(1, length))
    assert all(begin < first and end - begin <= window for begin, end, first in made)
    assert all(first - begin >= window - stride for begin, _, first in made[1:])


def test_a_uniform_model_needs_log_vocab_bits_per_token():
    model, tokenizer = tiny.build("llama", vocab=tiny.VOCAB), tiny.tokenizer()
    with torch.no_grad():
        model.lm_head.weight.zero_()
    # "n" "é" in two byte tokens "e": 3 tokens predicted; "ée" is 3 bytes, "n" does not count
    assert bits_per_byte(model, tokenizer, "née") == pytest.approx(3 * math.log2(tiny.VOCAB) / 3, abs=1e-5)
    # with a token before the text all 4 are predicted, and all 4 bytes count
    special = tiny.with_first_token()
    assert bits_per_byte(model, special, "née") == pytest.approx(4 * math.log2(tiny.VOCAB) / 4, abs=1e-5)
    # "The" " capital": one token of 8 bytes
    assert bits_per_byte(model, tokenizer, "The capital") == pytest.approx(math.log2(tiny.VOCAB) / 8, abs=1e-5)


@pytest.mark.parametrize("special", [False, True])
def test_windows_are_read_as_the_plain_model_reads_them(special):
    model = tiny.build("gpt2", vocab=tiny.VOCAB)
    tokenizer = tiny.with_first_token() if special else tiny.tokenizer()
    ids = tokenizer(TEXT)["input_ids"][special:]
    before = [tiny.EOS] * special
    nats = 0.0
    for begin, end, first in windows(len(ids), 16 - special, 6, 1 - special):
        read = torch.tensor([before + ids[begin:end]])
        with torch.no_grad():
            logs = model(read).logits[0, :-1].double().log_softmax(-1)
        nll = -logs.gather(1, read[0, 1:, None])[:, 0]
        nats += float(nll[len(before) + first - begin - 1 :].sum())
    size = len(TEXT) - (0 if special else len("She"))
    got = bits_per_byte(model, tokenizer, TEXT, window=16, stride=6)
    assert got == pytest.approx(nats / math.log(2) / size, abs=1e-5)


def test_the_window_is_at_most_the_models_input_and_the_stride_half_of_it():
    model, tokenizer = tiny.build("gpt2", vocab=tiny.VOCAB), tiny.tokenizer()
    assert len(tokenizer(TEXT * 4)["input_ids"]) > 128
    assert bits_per_byte(model, tokenizer, TEXT * 4) == bits_per_byte(model, tokenizer, TEXT * 4, window=128, stride=64)


def test_what_has_no_bits_is_refused():
    model, tokenizer = tiny.build("gpt2", vocab=tiny.VOCAB), tiny.tokenizer()
    with pytest.raises(ValueError, match=r"at least 2 tokens, got 0 in ''; give a page"):
        bits_per_byte(model, tokenizer, "")
    with pytest.raises(ValueError, match=r"at least 2 tokens, got 1 in 'The'"):
        bits_per_byte(model, tokenizer, "The")
    with pytest.raises(ValueError, match=r"stride must be between 1 and 7 .* got 8"):
        bits_per_byte(model, tokenizer, TEXT, window=8, stride=8)
    with pytest.raises(ValueError, match=r"window must hold at least 2 tokens, got 1"):
        bits_per_byte(model, tokenizer, TEXT, window=1)
