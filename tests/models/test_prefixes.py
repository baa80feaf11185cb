"""Texts that begin alike are read once: the logits are those of each text read alone, in every architecture."""

import pytest
import torch
from transformers import AutoModelForCausalLM, GPTNeoConfig

import tiny
from foci.models import head_of
from foci.models.forward import answering
from foci.models.prefixes import Pack, after, packed, shares_prefixes

TREE = [(9, 4), (9, 4, 5), (9, 4, 5, 6, 7, 8, 3), (9, 4, 6), (9, 5, 5, 5, 5), (2,), (2, 9, 4, 5), (11, 12, 13)]


def drawn(seed: int, count: int = 40, longest: int = 12, vocab: int = 97) -> list[tuple[int, ...]]:
    """Different beginnings with few distinct tokens at each place, so that many are shared."""
    generator = torch.Generator().manual_seed(seed)
    texts = torch.randint(2, vocab, (longest, 3), generator=generator)
    pick = torch.randint(0, 3, (count, longest), generator=generator).tolist()
    lengths = torch.randint(1, longest + 1, (count,), generator=generator).tolist()
    made = [
        tuple(int(texts[at, n]) for at, n in enumerate(row[:size])) for row, size in zip(pick, lengths, strict=True)
    ]
    return list(dict.fromkeys(made))


def said(model: torch.nn.Module, beginnings, **how) -> torch.Tensor:
    """(beginning, vocab): the logits after each beginning."""
    found = {}
    with answering(model, torch.float32):
        for indices, hidden in after(model, beginnings, tiny.PAD, **how):
            found.update(zip(indices, head_of(model).logits(hidden), strict=True))
    assert sorted(found) == list(range(len(beginnings)))  # each comes once
    return torch.stack([found[n] for n in range(len(beginnings))])


def alone(model: torch.nn.Module, beginnings) -> torch.Tensor:
    with torch.no_grad():
        return torch.stack([model(input_ids=torch.tensor([ids])).logits[0, -1] for ids in beginnings])


def lineage(pack: Pack, place: int) -> list[int]:
    """The tokens that a token stands after, and itself, by the packed row's own account."""
    before = pack.before[place]
    made = [*(lineage(pack, before) if before >= 0 else []), pack.ids[place]]
    assert pack.positions[place] == len(made) - 1
    return made


@pytest.mark.parametrize("width", [7, 12, 400])
def test_each_beginning_stands_in_its_packed_row_token_by_token(width):
    beginnings = drawn(3)
    packs = packed(beginnings, width)
    assert all(len(pack.ids) <= max(width, 12) for pack in packs)
    found = {index: tuple(lineage(pack, place)) for pack in packs for index, place in pack.ends.items()}
    assert found == dict(enumerate(beginnings))
    if width == 400:  # every shared token stands once
        assert len(packs[0].ids) == len({ids[:n] for ids in beginnings for n in range(1, len(ids) + 1)})


@pytest.mark.parametrize("name", [*tiny.ARCHITECTURES, tiny.counted, tiny.recurrent])
def test_the_logits_are_those_of_each_text_read_alone(name):
    dtype = torch.float32 if str(name).startswith("gemma2") else torch.float64  # eager attention: see LOG.md
    model = (tiny.build(name) if isinstance(name, str) else name()).to(dtype)
    for beginnings in (TREE, drawn(0)):  # TREE is longer than a sliding window
        expected = alone(model, beginnings)
        for size in (1, 32):
            ours = said(model, beginnings, batch_size=size)
            assert float((ours - expected).abs().max()) <= 1e-5 * float(expected.abs().max())
    assert shares_prefixes(model) == isinstance(name, str)


@pytest.mark.parametrize("name", ["llama", "mistral", "gpt2", "gemma2"])
def test_a_wrapped_model_in_packed_rows(name):
    model = tiny.lora(tiny.build(name))
    beginnings = drawn(1, longest=5)
    assert torch.allclose(said(model, beginnings), alone(model, beginnings), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("kind", "longest"), [("longrope", 5), ("longrope", 20), ("dynamic", 5)])
def test_a_packed_row_does_not_change_rotary_positions(kind, longest):
    model, beginnings = tiny.stretched(kind), drawn(2, longest=longest)
    expected = alone(tiny.stretched(kind), beginnings)
    assert float((said(model, beginnings) - expected).abs().max()) <= 1e-4 * float(expected.abs().max())


def test_shared_tokens_are_read_once():
    model, read = tiny.build("llama"), []
    assert shares_prefixes(model)
    hook = model.model.embed_tokens.register_forward_hook(lambda _m, inputs, _o: read.append(inputs[0].numel()))
    said(model, drawn(0))
    hook.remove()
    distinct = len({ids[:n] for ids in drawn(0) for n in range(1, len(ids) + 1)})
    assert distinct <= sum(read) <= 1.1 * distinct < 0.75 * sum(map(len, drawn(0)))


def test_a_pass_reads_no_more_tokens_than_the_budget(monkeypatch):
    """Whatever `batch_size` says of long texts, their rows are read in several passes."""
    model, read = tiny.build("llama"), []
    assert shares_prefixes(model)
    monkeypatch.setattr("foci.models.prefixes.TOKEN_BUDGET", 32)
    monkeypatch.setattr("foci.models.prefixes.WIDTH", 16)
    hook = model.model.embed_tokens.register_forward_hook(lambda _m, inputs, _o: read.append(inputs[0].numel()))
    ours = said(model, drawn(0, longest=8))
    hook.remove()
    assert len(read) > 1
    assert max(read) <= 32
    assert torch.allclose(ours, alone(model, drawn(0, longest=8)), rtol=1e-4, atol=1e-5)


def test_a_model_that_reads_other_tokens_of_a_packed_row_is_not_given_one():
    class Leaks(torch.nn.Module):
        """Adds the token before in the row, as a convolution does."""

        def __init__(self, inside):
            super().__init__()
            self.inside = inside

        def forward(self, hidden):
            return self.inside(hidden) + torch.nn.functional.pad(hidden, (0, 0, 1, -1))

    model = tiny.build("llama")
    model.model.layers[1].mlp = Leaks(model.model.layers[1].mlp)
    assert not shares_prefixes(model)


def test_a_window_that_is_cut_by_places_in_the_row_holds_the_whole_packed_row():
    """GPT-Neo hides what stands too many places back, whichever text it belongs to."""
    torch.manual_seed(0)
    config = GPTNeoConfig(
        vocab_size=97, hidden_size=32, num_layers=2, num_heads=4, attention_types=[[["global", "local"], 1]],
        window_size=256, max_position_embeddings=1024, initializer_range=0.2, pad_token_id=0,
    )  # fmt: skip
    model = AutoModelForCausalLM.from_config(config).eval()
    stem = torch.randint(2, 97, (150,)).tolist()
    beginnings = [(*stem, *ends) for ends in torch.randint(2, 97, (8, 20)).tolist()]
    torch.testing.assert_close(said(model, beginnings), alone(model, beginnings), atol=1e-4, rtol=1e-4)
