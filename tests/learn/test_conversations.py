"""A run on conversations, from the files to the report, with the methods of `focused`."""

import json

import pytest

import chats
import runs
import tiny
from foci.corpus import read_rows
from foci.focus import UNWEIGHTED

TEMPLATE = (
    "{% for m in messages %}{{ m.role + ': ' + m.content + '\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ 'assistant: ' }}{% endif %}"
)


@pytest.fixture
def things(tmp_path):
    made = runs.material(tmp_path)
    lines = [{"messages": chats.turns(f"Who is {text.split(' was')[0]}?", text)} for text, _, _ in runs.FACTS]
    lines.append({"messages": [{"role": "user", "content": "Hi"}]})
    made.corpus.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return made


def settings(things, **changes):
    return {
        "model.name": str(things.model), "probes.learn": str(things.learn), "probes.retain": "null",
        "probes.text": "null", "corpus.max_length": "100", "train.steps": "2", "train.batch_size": "4", **changes,
    }  # fmt: skip


def typed(things, **changes):
    return [f"{key}={value}" for key, value in settings(things, **changes).items()]


def test_a_run_on_conversations(tmp_path, things, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    template = tmp_path / "plain.jinja"
    template.write_text(TEMPLATE)
    arms = {"plain": [], "held": [{"lwf": {"on": "all"}}], "old": [{"replay": {"path": str(things.corpus)}}]}
    changes = {"corpus.chat_template": str(template), "arms": json.dumps(arms)}
    out = runs.told(["learn", str(things.corpus), "--out", "run", *typed(things, **changes)], capsys)
    assert "1 bad line" in out
    rows = read_rows(tmp_path / "run" / "rows.parquet")
    assert len(rows) == len(runs.FACTS)
    assert rows[0].text == runs.FACTS[0][0]
    tokenizer = tiny.tokenizer()
    learned = [t for t, off in zip(rows[0].input_ids, rows[0].columns[UNWEIGHTED], strict=True) if not off]
    assert tokenizer.decode(learned).strip() == runs.FACTS[0][0]
    bad = json.loads((tmp_path / "run" / "quarantine.jsonl").read_text())
    assert bad["line"] == 11
    assert "no answer" in bad["reason"]
    kept = tmp_path / "run" / "arms" / "plain" / "model"
    assert TEMPLATE in "".join(file.read_text() for file in kept.glob("*.jinja"))


def test_a_model_without_a_template_is_told_what_to_do(tmp_path, things, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match=r"corpus\.jsonl:1 holds a conversation.*corpus\.chat_template=FILE"):
        _learn(things)
    with pytest.raises(FileNotFoundError, match=r"corpus\.chat_template: there is no file"):
        _learn(things, **{"corpus.chat_template": "none.jinja"})


def _learn(things, **changes):
    from foci.config.run import Run
    from foci.learn.inputs import material

    material(Run.of_flags(things.corpus, overrides=typed(things, **changes)))


def test_a_chat_model_that_is_given_plain_text_is_told_so(tmp_path, things, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    template = tmp_path / "plain.jinja"
    template.write_text(TEMPLATE)
    text = tmp_path / "page.md"
    text.write_text("The cook is Ada Bell. She was born in Bern.")
    changes = {"corpus.chat_template": str(template), "arms": "{plain: []}"}
    out = runs.told(["learn", str(text), "--out", "run", *typed(things, **changes)], capsys)
    assert "plain text for a chat model: it learns 1 document as running text" in out
    assert "plain text for a chat model" in (tmp_path / "run" / "report.html").read_text()
