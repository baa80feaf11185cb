"""Answers: values worked by hand, and the law that they do not depend on batch size."""

import math
from copy import deepcopy
from dataclasses import replace
from itertools import pairwise

import pytest
import torch

import small
import tiny
from foci.models.decoding import decodes_from_cache
from foci.models.forward import answering, padded
from foci.models.losses import token_nll
from foci.probes import Probe, answer
from foci.probes.encode import encode, encode_prompts
from foci.probes.forced import teacher_forced
from foci.probes.generation import generate, token_limits
from foci.probes.scoring import exact_match, f1
from training import trained

CITIES = ("Paris", "Bern", "1999", "the town of Bern")
PROMPTS = ("The capital of France is", "She was born in the town of", "in", "She works as a painter and was")


def mixed(count: int = 20) -> list[Probe]:
    """Probes of all kinds and many lengths."""
    kinds = ("cloze", "qa", "span")
    return [
        Probe(str(i), "learn", kinds[i % 3], (PROMPTS[i % 4] + " ") * (1 + i % 3), CITIES[i % 4], ".")
        for i in range(count)
    ]


def chain(text: str, share: float = 0.5, **changes: str) -> torch.nn.Module:
    """A model of the last token alone: it gives `share` to the token that follows in `text`, the rest evenly.

    Attention and MLP add nothing. Embeddings are one-hot (and large, so that the norm's epsilon vanishes): a
    normalised state is sqrt(VOCAB) at one place. `changes`: what follows a token instead.
    """
    model, tokenizer = tiny.build("llama", vocab=tiny.VOCAB, width=tiny.VOCAB), tiny.tokenizer()
    ids = tokenizer(text)["input_ids"]
    follows = dict(pairwise(ids))
    for token, after in changes.items():
        follows[tokenizer.convert_tokens_to_ids(token)] = tokenizer.convert_tokens_to_ids(after)
    with torch.no_grad():
        for layer in model.model.layers:
            layer.self_attn.o_proj.weight.zero_()
            layer.mlp.down_proj.weight.zero_()
        model.model.norm.weight.fill_(1.0)
        model.model.embed_tokens.weight.copy_(100 * torch.eye(tiny.VOCAB))
        model.lm_head.weight.zero_()
        gap = math.log(share / (1 - share) * (tiny.VOCAB - 1)) / math.sqrt(tiny.VOCAB)
        for token, after in follows.items():
            model.lm_head.weight[after, token] = gap
    return model


def cloze(prompt: str, text: str, kind: str = "cloze", **more) -> Probe:
    return Probe("p", "learn", kind, prompt, text, **more)


def same(left, right) -> None:
    """Equal answers, NLL to 1e-5."""
    assert [replace(a, nll=0.0) for a in left] == [replace(a, nll=0.0) for a in right]
    assert [a.nll for a in left] == pytest.approx([a.nll for a in right], abs=1e-5)


@pytest.mark.parametrize("name", tiny.ARCHITECTURES)
def test_answers_do_not_depend_on_batch_size(name):
    model, tokenizer, probes = tiny.build(name, vocab=tiny.VOCAB), tiny.tokenizer(), mixed()
    alone = answer(model, tokenizer, probes, batch_size=1)
    same(alone, answer(model, tokenizer, probes, batch_size=32))
    assert [a.probe_id for a in alone] == [p.id for p in probes]


@pytest.mark.parametrize("name", tiny.ARCHITECTURES)
def test_answers_are_those_of_the_model_called_plainly(name):
    model, tokenizer, probes = tiny.build(name, vocab=tiny.VOCAB), tiny.tokenizer(), mixed(6)
    for got, row in zip(answer(model, tokenizer, probes), encode(probes, tokenizer), strict=True):
        ids = torch.tensor([row.input_ids])
        with torch.no_grad():
            logits = model(ids).logits[0, :-1].double()
        marked = torch.tensor(row.columns["answer"][1:]).bool()
        truth = ids[0, 1:][marked]
        assert got.accuracy == (logits[marked].argmax(-1) == truth).double().mean()
        nll = -logits.log_softmax(-1)[marked].gather(1, truth[:, None])
        assert got.nll == pytest.approx(float(nll.mean()), abs=1e-5)


@pytest.mark.parametrize("name", [*tiny.ARCHITECTURES, tiny.counted, tiny.recurrent])
def test_generation_is_greedy(name):
    model = tiny.build(name, vocab=tiny.VOCAB) if isinstance(name, str) else name(vocab=tiny.VOCAB)
    assert decodes_from_cache(model) == isinstance(name, str)
    assert decodes_from_cache(model, uneven=False) == isinstance(name, str)
    tokenizer, probes = tiny.tokenizer(), mixed(6)
    prompts = encode_prompts(probes, tokenizer)
    with answering(model, torch.float32):
        said = generate(model, tokenizer, prompts, [5] * len(prompts))
    for prompt, text in zip(prompts, said, strict=True):
        ids = list(prompt.input_ids)
        with torch.no_grad():
            for _ in range(5):
                ids.append(int(model(torch.tensor([ids])).logits[0, -1].argmax()))
                if ids[-1] == tiny.EOS:
                    ids.pop()
                    break
        expected = tokenizer.decode(ids[len(prompt) :], skip_special_tokens=True).strip()
        assert text == expected.split("\n")[0].strip()


def test_a_wrapped_model_answers_with_its_adapter():
    model, tokenizer, probes = tiny.build("llama", vocab=tiny.VOCAB), tiny.tokenizer(), mixed(6)
    before = answer(model, tokenizer, probes)
    wrapped = tiny.lora(model)
    after = answer(wrapped, tokenizer, probes)
    same(after, answer(wrapped, tokenizer, probes, batch_size=1))
    assert all(a.nll != pytest.approx(b.nll, abs=1e-3) for a, b in zip(after, before, strict=True))


def test_right_answers_by_hand():
    text = "The capital of France is Paris"
    (got,) = answer(chain(text), tiny.tokenizer(), [cloze("The capital of France is", "Paris")])
    assert (got.predicted, got.correct, got.accuracy, got.exact_match, got.f1) == ("Paris", True, 1.0, None, None)
    assert got.nll == pytest.approx(math.log(2), abs=1e-4)  # every token has probability 1/2


def test_half_right_answers_by_hand():
    model = chain("The capital of France is Paris", **{"ĠPa": "Ġtown"})  # " Pa" "ris": the second one is missed
    (got,) = answer(model, tiny.tokenizer(), [cloze("The capital of France is", "Paris")])
    assert (got.predicted, got.correct, got.accuracy) == ("Pa town", False, 0.5)
    missed = 0.5 / (tiny.VOCAB - 1)
    assert got.nll == pytest.approx((math.log(2) - math.log(missed)) / 2, abs=1e-4)


def test_a_question_is_answered_by_generation():
    model = chain("The capital of France is Paris.\n")
    probe = cloze("The capital of France is", "the Paris!", "qa", aliases=("Bern",))
    (got,) = answer(model, tiny.tokenizer(), [probe])
    assert (got.predicted, got.correct, got.exact_match, got.f1) == ("Paris.", True, 1.0, 1.0)
    assert got.accuracy < 1.0  # teacher-forced, of "the Paris!"
    (wrong,) = answer(model, tiny.tokenizer(), [replace(probe, answer="Bern", aliases=())])
    assert (wrong.correct, wrong.exact_match, wrong.f1) == (False, 0.0, 0.0)
    both = answer(model, tiny.tokenizer(), [replace(probe, kind="cloze"), probe])
    assert (both[0].exact_match, both[1].exact_match, both[1].predicted) == (None, 1.0, "Paris.")
    (alias,) = answer(model, tiny.tokenizer(), [replace(probe, answer="Bern", aliases=("paris",))])
    assert (alias.correct, alias.f1, alias.answer) == (True, 1.0, "Bern")


def test_generation_stops_at_newline_end_token_and_limit():
    tokenizer, probe = tiny.tokenizer(), [cloze("The", "x", "qa")]

    def said(text: str, limit: int = 9) -> str:
        return answer(chain(text), tokenizer, probe, max_new_tokens=limit)[0].predicted

    assert said("The capital\n of France") == "capital"
    assert said("The\n capital of France") == "capital of France"  # a newline before any text does not stop
    assert said("The capital<eos> of France") == "capital"
    assert said("The capital of France is born", limit=2) == "capital of"
    model = chain("The capital of France is")
    model.generation_config.eos_token_id = [tiny.EOS, tokenizer.convert_tokens_to_ids("ĠFrance")]
    assert answer(model, tokenizer, probe, max_new_tokens=9)[0].predicted == "capital of"  # by the model's settings


def test_the_limit_is_the_longest_answer_of_the_probe_and_two():
    probes = [cloze("The", "Paris", "qa"), cloze("The", "Bern", "qa", aliases=("France is Paris",))]
    assert token_limits(probes, tiny.tokenizer()) == [2 + 2, 4 + 2]
    assert token_limits([], tiny.tokenizer()) == []


def test_the_models_generation_settings_and_the_random_state_play_no_part():
    model, tokenizer, probes = tiny.build("llama", vocab=tiny.VOCAB), tiny.tokenizer(), mixed(6)
    expected = answer(model, tokenizer, probes)
    odd = model.generation_config
    odd.do_sample, odd.temperature, odd.repetition_penalty, odd.max_length, odd.num_beams = True, 9.0, 5.0, 1, 3
    state = torch.get_rng_state()
    same(answer(model, tokenizer, probes), expected)
    assert torch.equal(torch.get_rng_state(), state)


def test_the_model_is_left_as_it_was():
    model, tokenizer = tiny.lora(tiny.build("gpt2", vocab=tiny.VOCAB)), tiny.tokenizer()
    model.train()
    frozen = next(m for m in model.modules() if isinstance(m, torch.nn.LayerNorm))
    frozen.eval()
    modes = [m.training for m in model.modules()]
    model.config.use_cache = False
    hooks = [(len(m._forward_hooks), len(m._forward_pre_hooks), "forward" in vars(m)) for m in model.modules()]
    answer(model, tokenizer, mixed(6))
    assert [m.training for m in model.modules()] == modes
    assert not frozen.training
    assert model.config.use_cache is False
    assert [(len(m._forward_hooks), len(m._forward_pre_hooks), "forward" in vars(m)) for m in model.modules()] == hooks
    model(**tokenizer("She was", return_tensors="pt")).logits.sum().backward()  # and can be trained


def test_dropout_is_off():
    model, tokenizer, probes = tiny.build("gpt2", vocab=tiny.VOCAB), tiny.tokenizer(), mixed(6)
    expected = answer(model, tokenizer, probes)
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.5
    same(answer(model.train(), tokenizer, probes), expected)


def test_float32_is_the_default_inside_autocast_too():
    model, tokenizer, probes = tiny.build("llama", vocab=tiny.VOCAB), tiny.tokenizer(), mixed(6)
    exact = answer(model, tokenizer, probes)
    rough = answer(model, tokenizer, probes, dtype=torch.bfloat16)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        same(answer(model, tokenizer, probes), exact)
        same(answer(model, tokenizer, probes, dtype=None), rough)
        loss = model(**tokenizer("She was", return_tensors="pt")).logits.float().sum()
    loss.backward()  # no weight was cast where gradients are off and kept for later
    assert model.model.layers[0].mlp.up_proj.weight.grad is not None
    same(answer(model, tokenizer, probes, dtype=None), exact)
    assert [a.nll for a in rough] != pytest.approx([a.nll for a in exact], abs=1e-5)


def test_what_cannot_be_asked_is_refused():
    tokenizer, model = tiny.tokenizer(), tiny.build("gpt2", vocab=tiny.VOCAB)
    with pytest.raises(ValueError, match=r"'p' needs \d+ tokens, the model reads at most 128; shorten"):
        answer(model, tokenizer, [cloze("She was born " * 60, "Bern")])
    with pytest.raises(ValueError, match=r"'p' needs 131 tokens, the model reads at most 128; .* max_new_tokens"):
        answer(model, tokenizer, [cloze("in", "Bern", "qa")], max_new_tokens=130)
    with pytest.raises(ValueError, match=r"'p' has token 3\d\d at position \d+ \(from 0\), the model knows 0 to 96"):
        answer(tiny.build("gpt2"), tokenizer, [cloze("She was born", "in")])
    with pytest.raises(ValueError, match="batch_size must be at least 1, got 0"):
        answer(model, tokenizer, mixed(), batch_size=0)
    with pytest.raises(ValueError, match="max_new_tokens must be at least 1, got 0"):
        answer(model, tokenizer, mixed(), max_new_tokens=0)
    with torch.no_grad():
        model.transformer.ln_f.weight.fill_(math.nan)
    with pytest.raises(ValueError, match="'p': the model's logits are NaN"):
        answer(model, tokenizer, [cloze("She was born", "in")])


def test_no_probes_have_no_answers():
    assert answer(tiny.build("gpt2", vocab=tiny.VOCAB), tiny.tokenizer(), []) == []


def test_retain_counts_where_this_model_is_right():
    model = chain("The capital of France is Paris")
    right, wrong = cloze("France is", "Paris"), cloze("France is", "Bern")
    probes = [right, wrong, replace(right, role="retain"), replace(wrong, role="retain")]
    assert [a.counted for a in answer(model, tiny.tokenizer(), probes)] == [True, True, True, False]


@pytest.mark.parametrize(
    ("predicted", "answers", "em", "score"),
    [
        ("the Paris!", ["paris"], 1.0, 1.0),
        ("Paris France", ["Paris"], 0.0, 2 * 0.5 * 1 / 1.5),
        ("Bern", ["Paris"], 0.0, 0.0),
        ("Bern", ["Paris", "Bern city"], 0.0, 2 * 1 * 0.5 / 1.5),
        ("x x y", ["x z"], 0.0, 2 * (1 / 3) * (1 / 2) / (1 / 3 + 1 / 2)),  # a repeated word counts once
        ("", ["Paris"], 0.0, 0.0),
        ("the", ["a"], 0.0, 0.0),
    ],
)
def test_exact_match_and_f1_by_hand(predicted, answers, em, score):
    assert exact_match(predicted, answers) == em
    assert f1(predicted, answers) == pytest.approx(score)


@pytest.mark.parametrize("lora", [False, True])
def test_a_model_that_was_trained_in_bfloat16_answers_in_float32(tmp_path, lora):
    """As its weights do when they are loaded anew: before and after are measured alike."""
    start = tiny.build("llama", vocab=tiny.VOCAB)
    start = tiny.lora(start) if lora else start
    net, _ = trained(tmp_path, small.rows(4), start=start, max_steps=2, bf16=True)
    rows = encode([Probe("a", "learn", "span", "Ada was born in", "Bern")], tiny.tokenizer())
    fresh = deepcopy(net)
    for name in ("forward", "_original_forward"):
        fresh.__dict__.pop(name)
    forward = net.forward
    with answering(net, torch.float32):
        after = teacher_forced(net, rows, tiny.PAD)[0].nll
    with answering(fresh, torch.float32):
        assert after == teacher_forced(fresh, rows, tiny.PAD)[0].nll
    assert net.forward == forward
    with torch.no_grad():
        half = token_nll(net, padded(rows, tiny.PAD, "right", torch.device("cpu")))
    assert not torch.equal(half[0][-len(after) :], torch.tensor(after)), "bfloat16 would tell"
