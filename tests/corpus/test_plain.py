"""Plain text is text, whatever the tokenizer: no control token comes out of a text, and no word of it is lost."""

import json

import pytest
from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

import tiny
from foci.corpus import Document, make_rows, read_corpus, tokenizer_fingerprint
from foci.corpus.plain import control_words, encoded, named_words
from foci.corpus.tokens import tokens
from foci.pretrain.text import rows_of, trained_tokenizer
from foci.probes import Probe
from foci.probes.encode import encode, encode_prompts

LETTERS = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ<>/|[]_.,:0123456789"
WORDS = ("<s>", "</s>", "<pad>", "<unk>")
BRACKETS = ("[CLS]", "[SEP]", "[PAD]", "[UNK]")


def made(backend, words=WORDS, *, first=True, last=False, fenced=()):
    """A fast tokenizer with a first (and last) token; `fenced` are added without being marked as special."""
    backend.add_special_tokens([AddedToken(word, special=True) for word in words])
    backend.add_tokens([AddedToken(word, special=False) for word in fenced])
    ids = [(word, backend.token_to_id(word)) for word in words[:2]]
    template = " ".join([*([words[0]] if first else []), "$A", *([words[1]] if last else [])])
    backend.post_processor = processors.TemplateProcessing(single=template, special_tokens=ids)
    return PreTrainedTokenizerFast(
        tokenizer_object=backend, bos_token=words[0], eos_token=words[1], pad_token=words[2], unk_token=words[3]
    )


def unigram(last=False):
    """As SentencePiece's: control words stand among the pieces, with the best score of all."""
    pieces = [(word, 0.0) for word in WORDS] + [(letter, -9.0) for letter in "▁" + LETTERS] + [("▁the", -2.0)]
    backend = Tokenizer(models.Unigram([pieces[3], *pieces[:3], *pieces[4:]], unk_id=0))
    backend.pre_tokenizer, backend.decoder = pre_tokenizers.Metaspace(), decoders.Metaspace()
    return made(backend, last=last)


def by_bytes():
    """As XGen's or Jamba's: a unigram model that spells unknown letters by bytes; the bytes' names are pieces of it."""
    pieces = [(word, 0.0) for word in WORDS] + [(f"<0x{n:02X}>", 0.0) for n in range(256)]
    pieces += [(letter, -9.0) for letter in "▁" + LETTERS] + [("▁the", -2.0)]
    backend = Tokenizer(models.Unigram([pieces[3], *pieces[:3], *pieces[4:]], unk_id=0, byte_fallback=True))
    backend.pre_tokenizer = pre_tokenizers.Metaspace()
    backend.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()])
    return made(backend)


def merged():
    """As Llama 2's: converted from SentencePiece, with merges that lead to a control word, and byte fallback."""
    vocab = {word: n for n, word in enumerate(WORDS)} | {f"<0x{n:02X}>": 4 + n for n in range(256)}
    for piece in ["▁", *LETTERS, "</", "s>", "<s", "he", "the"]:
        vocab.setdefault(piece, len(vocab))
    merges = [("<", "/"), ("s", ">"), ("</", "s>"), ("<", "s>"), ("h", "e"), ("t", "he")]
    backend = Tokenizer(models.BPE(vocab=vocab, merges=merges, unk_token="<unk>", byte_fallback=True, fuse_unk=True))
    backend.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    return made(backend)


def whole_words():
    """As Llama 3's: byte level, where a whole word that stands in the vocabulary needs no merges."""
    vocab = {letter: n for n, letter in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}
    for word in ("<s>", "Ġ<s>", "the"):
        vocab[word] = len(vocab)
    backend = Tokenizer(models.BPE(vocab=vocab, merges=[], ignore_merges=True))
    backend.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Split(" ", "merged_with_next"), pre_tokenizers.ByteLevel(False, use_regex=False)]
    )
    return made(backend)


def pieces(case=True):
    """As BERT's: word pieces between brackets, in lower case."""
    vocab = {word: n for n, word in enumerate(BRACKETS)} | {letter: 4 + n for n, letter in enumerate(LETTERS)}
    for letter in LETTERS:
        vocab[f"##{letter}"] = len(vocab)
    backend = Tokenizer(models.WordPiece(vocab, unk_token="[UNK]"))
    backend.normalizer = normalizers.BertNormalizer(lowercase=True)
    backend.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return made(backend, BRACKETS, last=True)


def chat():
    """As Qwen's and DeepSeek's: words of chat that are added tokens, but not marked as special."""
    backend = Tokenizer.from_str(tiny.tokenizer().backend_tokenizer.to_str())
    fenced = ("<|fim_prefix|>", "<｜User｜>", "<think>", "</think>", "<h1>", "    ")  # noqa: RUF001
    tokenizer = made(backend, ("<eos>", "<pad>", "<pad>", "<pad>"), first=False, fenced=fenced)
    tokenizer.chat_template = "{{ '<think>' + message + '</think>' }}"
    return tokenizer


TOKENIZERS = {
    "byte level": lambda: made(Tokenizer.from_str(tiny.tokenizer().backend_tokenizer.to_str()), ("<eos>", "<pad>") * 2),
    "unigram": unigram,
    "bytes": by_bytes,
    "merges": merged,
    "whole words": whole_words,
    "word pieces": pieces,
    "chat": chat,
}


@pytest.mark.parametrize("name", TOKENIZERS)
def test_no_control_token_comes_out_of_a_text(name):
    tokenizer = TOKENIZERS[name]()
    words = control_words(tokenizer)
    assert len(words) >= 2
    before = tokenizer_fingerprint(tokenizer), tokenizer.backend_tokenizer.encode_special_tokens
    for word in words:
        for text in (word, f"{word}the end", f"the {word} end", f"the end{word}", f"{word}{word} {word}"):
            (read,) = encoded([text], tokenizer)
            content = list(zip(read.ids, read.offsets, strict=True))[read.lead : len(read.ids) - read.tail]
            unknown = {tokenizer.backend_tokenizer.token_to_id("[UNK]")}  # what word pieces cannot spell
            assert not {i for i, _ in content} & set(words.values()) - unknown, (text, read)
            assert {at for _, (a, b) in content for at in range(a, b)} >= {
                at for at, letter in enumerate(text) if not letter.isspace()
            }, "every letter is read"
    assert before == (tokenizer_fingerprint(tokenizer), tokenizer.backend_tokenizer.encode_special_tokens)


@pytest.mark.parametrize("name", TOKENIZERS)
def test_text_without_control_words_is_read_as_ever(name):
    tokenizer = TOKENIZERS[name]()
    texts = ["the end.", "a < b > c", "é the", "<h1>    x", " the [x]", "<x> </ s> <|"]
    plain = tokenizer(texts, return_offsets_mapping=True)
    want = list(zip(map(tuple, plain["input_ids"]), map(tuple, plain["offset_mapping"]), strict=True))
    for _ in range(2):
        assert tokens(texts, tokenizer) == want
        encoded(list(control_words(tokenizer)), tokenizer)  # now by way of the copy, if there is one
    alone = tokens([f"{text} " for text in texts], tokenizer)
    mixed = tokens([*(f"{text} " for text in texts), next(iter(control_words(tokenizer)))], tokenizer)
    assert mixed[:-1] == alone


@pytest.mark.parametrize("name", ["unigram", "merges", "whole words"])
def test_transformers_own_setting_is_not_enough(name):
    """The reason for a module of its own: here `split_special_tokens` leaves control tokens in a text."""
    tokenizer = TOKENIZERS[name]()
    texts = ["the <s>", "<s>"]
    read = tokenizer(texts, add_special_tokens=False, split_special_tokens=True)["input_ids"]
    assert any(tokenizer.bos_token_id in ids for ids in read)
    assert not any(tokenizer.bos_token_id in ids for ids, _ in tokens(texts, tokenizer, special=False))


@pytest.mark.parametrize("name", TOKENIZERS)
def test_not_even_a_text_with_the_letter_that_hides_control_words_spells_one(name):
    tokenizer = TOKENIZERS[name]()
    words = control_words(tokenizer)
    texts = [f"\U0010ffff{word}" for word in words]
    for text, (ids, offsets) in zip(texts, tokens(texts, tokenizer, special=False), strict=True):
        assert not set(ids) & set(words.values()) - {tokenizer.unk_token_id}
        assert max(end for _, end in offsets) == len(text)


@pytest.mark.parametrize("make", [by_bytes, merged])
@pytest.mark.parametrize(
    "text", ["<0x41>", "the <0x0A> is a line", "<0x41><0x42>", "é <0x41>ü", "<0xC3><0xA9> 中<0x41>"]
)
def test_the_name_of_a_byte_is_text_and_unknown_letters_are_bytes(make, text):
    tokenizer = make()
    (read,) = encoded([text], tokenizer, special=False)
    said = tokenizer.convert_ids_to_tokens(read.ids)
    spelled = [f"<0x{byte:02X}>" for letter in text if letter not in LETTERS + " " for byte in letter.encode()]
    assert [one for one in said if one.startswith("<0x")] == spelled
    assert {at for a, b in read.offsets for at in range(a, b)} >= {n for n, c in enumerate(text) if c != " "}
    if make is by_bytes:
        assert tokenizer.decode(read.ids).strip() == text
        own = tokenizer(text, add_special_tokens=False, split_special_tokens=True)["input_ids"]
        assert len(own) < len(read.ids), "the tokenizer itself reads the name as the byte"


def test_spaces_and_tags_that_are_tokens_stay_tokens_and_words_of_chat_do_not():
    tokenizer = chat()
    assert set(control_words(tokenizer)) == {
        "<eos>", "<pad>", "<|fim_prefix|>", "<｜User｜>", "<think>", "</think>",  # noqa: RUF001
    }  # fmt: skip
    ((ids, _),) = tokens(["<h1>    x<think>"], tokenizer)
    assert tokenizer.convert_ids_to_tokens(ids)[:2] == ["<h1>", "    "]
    assert tokenizer.convert_tokens_to_ids("<think>") not in ids
    assert tokenizer.decode(ids) == "<h1>    x<think>"
    assert named_words(tokenizer) == ["<eos>", "<pad>"]


def test_an_ordinary_letter_that_pads_stays_a_letter():
    backend = Tokenizer.from_str(tiny.tokenizer().backend_tokenizer.to_str())
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, pad_token="!", eos_token="<eos>")
    ((ids, offsets),) = tokens(["Oh! Yes"], tokenizer)
    assert tokenizer.decode(ids) == "Oh! Yes"
    assert tokenizer.convert_tokens_to_ids("!") in ids
    assert offsets[-1][1] == 7


@pytest.mark.parametrize("name", TOKENIZERS)
def test_rows_begin_once_and_end_once(tmp_path, name):
    """A text that spells the first and the last token: one first token, one last one, and its words as text."""
    tokenizer = TOKENIZERS[name]()
    first, last = tokenizer.bos_token_id, tokenizer.eos_token_id
    lead = encoded(["a"], tokenizer)[0].lead
    (tmp_path / "a.jsonl").write_text(
        json.dumps({"text": f"{tokenizer.bos_token}the end.{tokenizer.eos_token}"}) + '\n{"text": "the end."}\n'
    )
    rows = read_corpus(tmp_path, tokenizer, max_length=128).rows
    assert len(rows) == 2
    for row in rows:
        assert row.input_ids[-1] == last
        assert row.input_ids[:-1].count(last) == (first == last and lead)
        assert [i for i in row.input_ids if i == first and first != last] == [first] * lead
    assert rows[0].text == f"{tokenizer.bos_token}the end.{tokenizer.eos_token}"


@pytest.mark.parametrize("eos", [True, False])
def test_only_the_end_of_a_document_is_an_end(eos):
    """A tokenizer that ends every text (T5's way, or `add_eos_token`): the pieces of a long document have no end."""
    tokenizer = unigram(last=True)
    text = "One two three. Four five six. Seven eight nine."
    documents = [Document(text, "a.txt", 1), Document("Short one.", "b.txt", 1)]
    rows = make_rows(documents, tokenizer, max_length=20, add_eos=eos).rows
    assert len(rows) > 3
    ends = [row.input_ids.count(tokenizer.eos_token_id) for row in rows]
    assert ends == [0] * (len(rows) - 2) + [1, 1]
    assert all(row.input_ids[0] == tokenizer.bos_token_id and len(row) <= 20 for row in rows)
    assert "".join("".join(row.text.split()) for row in rows[:-1]) == "".join(text.split())
    full = make_rows(documents[:1], tokenizer, max_length=16, add_eos=eos).rows
    assert (full[0].text, len(full[0])) == ("One two three.", 16), "a piece takes the place that an end would need"


def test_probes_are_text_too():
    tokenizer = unigram()
    probe = Probe("1", "learn", "cloze", "the tag <s> means", "<pad>", " or </s>.")
    (row,) = encode([probe], tokenizer)
    assert list(row.input_ids).count(tokenizer.bos_token_id) == 1
    assert "".join(row.text[a:b] for (a, b), on in zip(row.offsets, row.columns["answer"], strict=True) if on) in (
        "<pad>",
        " <pad>",
    )
    (prompt,) = encode_prompts([probe], tokenizer)
    assert prompt.input_ids == row.input_ids[: len(prompt)]


def test_a_pretrainings_own_tokenizer_may_learn_its_control_words_from_the_text():
    """Where a text is full of <s>, merges build it; in rows it is text all the same."""
    text = "<s>old</s> <s>new</s> " * 40
    tokenizer = trained_tokenizer([text], 320, "causal")
    rows = rows_of([Document(text.strip(), "a.md", 1)], tokenizer, 32, "causal")
    assert all(row.input_ids[1:].count(tokenizer.bos_token_id) == 0 for row in rows)
    ends = [row.input_ids.count(tokenizer.eos_token_id) for row in rows]
    assert sum(ends[:-1]) == 0
