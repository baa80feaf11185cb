"""Tokenizers and chat templates of several families, written here; and a slow reference for what is learned."""

from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

TEXT = "The cook is Ada Bell, who was born in Bern. She knows the workshop: it has 12 lathes, and <none> is new!?"
LETTERS = "".join(
    sorted({*TEXT, *"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ<>/|[]_.,:0123456789\n'#"} - {" "})
)

CHATML = (
    "{% for m in messages %}{{ '<|im_start|>' + m.role + '\n' + m.content + '<|im_end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
HELPED = (
    "{% if messages and messages[0].role != 'system' %}"
    "{{ '<|im_start|>system\nBe kind.<|im_end|>\n' }}{% endif %}" + CHATML
)
"""As SmolLM2's: adds a system message where there is none."""
MARKED = (
    "{% for m in messages %}{{ '<|im_start|>' + m.role + '\n' }}"
    "{% if m.role == 'assistant' %}{% generation %}{{ m.content + '<|im_end|>' }}{% endgeneration %}"
    "{% else %}{{ m.content + '<|im_end|>' }}{% endif %}{{ '\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
HEADED = (
    "{{ bos_token }}{% for m in messages %}"
    "{{ '<|start|>' + m['role'] + '<|end|>\n\n' + m['content'] | trim + '<|eot|>' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|start|>assistant<|end|>\n\n' }}{% endif %}"
)
"""As Llama 3's: a first token, headers, contents without white space at their edges."""
TURNS = (
    "{{ bos_token }}{% if messages[0].role == 'system' %}{% set lead = messages[0].content | trim + '\n\n' %}"
    "{% set rest = messages[1:] %}{% else %}{% set lead = '' %}{% set rest = messages %}{% endif %}"
    "{% for m in rest %}{% if (m.role == 'user') != (loop.index0 % 2 == 0) %}"
    "{{ raise_exception('Roles must alternate: user, assistant, user, ...') }}{% endif %}"
    "{{ '<turn>' + ('model' if m.role == 'assistant' else m.role) + '\n' + (lead if loop.first else '') }}"
    "{{ m.content | trim + '</turn>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<turn>model\n' }}{% endif %}"
)
"""As Gemma's: roles must alternate, a system message is a part of the first question."""
BRACKETS = (
    "{{ bos_token }}{% if messages[0].role == 'system' %}{% set system = messages[0].content %}"
    "{% set rest = messages[1:] %}{% else %}{% set rest = messages %}{% endif %}"
    "{% set asked = rest | selectattr('role', 'equalto', 'user') | list %}"
    "{% for m in rest %}{% if m.role == 'user' %}{{ '[INST] ' }}"
    "{% if m == asked[-1] and system is defined %}{{ system + '\n\n' }}{% endif %}{{ m.content + '[/INST]' }}"
    "{% elif m.role == 'tool' %}{{ '[RESULT] ' + m.content + '[/RESULT]' }}"
    "{% else %}{{ ' ' + m.content + eos_token }}{% endif %}{% endfor %}"
)
"""As Mistral's: no beginning of an answer, and a system message in the last question alone."""
REASONED = (
    "{% set at = namespace(last=0) %}{% for m in messages %}{% if m.role == 'user' %}{% set at.last = loop.index0 %}"
    "{% endif %}{% endfor %}{% for m in messages %}{{ '<|im_start|>' + m.role + '\n' }}"
    "{% if m.role == 'assistant' and '</think>' in m.content %}"
    "{% set parts = m.content.split('</think>') %}{% if loop.index0 > at.last %}"
    "{{ '<think>' + parts[0].split('<think>')[-1] + '</think>' }}{% endif %}{{ parts[-1] }}"
    "{% else %}{{ m.content }}{% endif %}{{ '<|im_end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
"""As Qwen 3's: the reasoning of all answers but those after the last question is dropped."""
MERGED = (
    "{{ bos_token }}{% for m in messages %}{% if loop.first or m.role != messages[loop.index0 - 1].role %}"
    "{{ '<|' + m.role + '|>' }}{% else %}{{ '\n\n' }}{% endif %}{{ m.content | trim }}"
    "{% if loop.last or m.role != messages[loop.index0 + 1].role %}{{ eos_token }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}"
)
"""Writes messages of one role in a row as one."""

WORDS = ("<s>", "</s>", "<pad>", "<unk>")
CONTROLS = (
    "<|im_start|>", "<|im_end|>", "<|start|>", "<|end|>", "<|eot|>", "<turn>", "</turn>", "[INST]", "[/INST]",
    "[RESULT]", "[/RESULT]", "<|user|>", "<|assistant|>", "<|system|>",
)  # fmt: skip


def _made(backend: Tokenizer, template: str) -> PreTrainedTokenizerFast:
    """Ends as every tokenizer here: control tokens, a first token that it adds by itself, and a chat template."""
    backend.add_special_tokens([AddedToken(word, special=True, normalized=False) for word in (*WORDS, *CONTROLS)])
    backend.add_tokens([AddedToken(word, special=False, normalized=False) for word in ("<think>", "</think>")])
    backend.post_processor = processors.TemplateProcessing(
        single="<s> $A", special_tokens=[("<s>", backend.token_to_id("<s>"))]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=backend, bos_token="<s>", eos_token="</s>", pad_token="<pad>", unk_token="<unk>",
        chat_template=template,
    )  # fmt: skip


def bytes_(template: str) -> PreTrainedTokenizerFast:
    """Byte level with merges, as Llama 3's and Qwen's."""
    vocab = {letter: n for n, letter in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}
    merges = [
        ("t", "h"),
        ("th", "e"),
        ("Ġ", "the"),
        ("Ċ", "Ċ"),
        ("B", "e"),
        ("Be", "r"),
        ("Ber", "n"),
        ("i", "m"),
        ("<", "|"),
    ]
    for a, b in merges:
        vocab.setdefault(a + b, len(vocab))
    backend = Tokenizer(models.BPE(vocab=vocab, merges=merges))
    backend.pre_tokenizer, backend.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    return _made(backend, template)


def pieces(template: str) -> PreTrainedTokenizerFast:
    """As SentencePiece's unigram models: control words stand among the pieces, with the best score of all."""
    known = [("<unk>", 0.0)] + [(word, 0.0) for word in WORDS if word != "<unk>"]
    known += [(letter, -9.0) for letter in "▁" + LETTERS] + [("▁the", -2.0), ("▁Ada", -3.0)]
    backend = Tokenizer(models.Unigram(known, unk_id=0))
    backend.pre_tokenizer, backend.decoder = pre_tokenizers.Metaspace(prepend_scheme="first"), decoders.Metaspace()
    return _made(backend, template)


def merged(template: str) -> PreTrainedTokenizerFast:
    """As Llama 2's: a space is put before every stretch between control tokens."""
    vocab = {word: n for n, word in enumerate(WORDS)} | {f"<0x{n:02X}>": 4 + n for n in range(256)}
    for piece in ["▁", *LETTERS, "</", "s>", "<s", "he", "the"]:
        vocab.setdefault(piece, len(vocab))
    merges = [("<", "/"), ("s", ">"), ("</", "s>"), ("<", "s>"), ("h", "e"), ("t", "he")]
    backend = Tokenizer(models.BPE(vocab=vocab, merges=merges, unk_token="<unk>", byte_fallback=True, fuse_unk=True))
    backend.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    return _made(backend, template)


TOKENIZERS = {"bytes": bytes_, "pieces": pieces, "merged": merged}


def turns(*contents: str, system: str = "") -> list[dict[str, str]]:
    """Questions and answers in turn, behind a system message if there is one."""
    lead = [{"role": "system", "content": system}] if system else []
    roles = ("user", "assistant")
    return lead + [{"role": roles[n % 2], "content": content} for n, content in enumerate(contents)]


def reference(tokenizer: PreTrainedTokenizerFast, parts: list[tuple[str, float]]) -> tuple[list[int], list[float]]:
    """Ids and weights of a text in parts, slowly: a token has the weight of the first weighed part that it reaches."""
    text = "".join(part for part, _ in parts)
    made = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
    weights = []
    for start, end in made["offset_mapping"]:
        at, found = 0, 0.0
        for part, weight in parts:
            inside = [c for c in range(start, end) if at <= c < at + len(part)]
            found = found or (weight if inside else 0.0)
            at += len(part)
        weights.append(found)
    return list(made["input_ids"]), weights
