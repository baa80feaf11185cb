#!/usr/bin/env bash
# transformers serve FOLDER answers HTTP 500 where a client asks for its models and the hub's cache is empty
#
# Packages: torch==2.13.0, transformers==5.23.0 (with its extra serving)
# Guess:    `transformers serve FOLDER` lists FOLDER at /v1/models, as other servers of the protocol list their model.
# Seen:     Without a cache of the hub /v1/models answers HTTP 500. Chat completions of the model FOLDER work all the same,
#           and their answer names it FOLDER@main.
# Matters:  A client that asks the server for its model's name gets an error. Name the folder as the model.
set -euo pipefail
work=$(mktemp -d)
trap 'kill "${server:-}" 2>/dev/null || true; rm -rf "$work"' EXIT
cd "$work"
python3 -m venv venv
venv/bin/python -m pip install --quiet torch==2.13.0 'transformers[serving]==5.23.0'
venv/bin/python - <<'PY'
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

words = Tokenizer(models.WordLevel({"<eos>": 0, "a": 1, "b": 2}, unk_token="<eos>"))
words.pre_tokenizer = pre_tokenizers.Whitespace()
made = PreTrainedTokenizerFast(tokenizer_object=words, eos_token="<eos>", pad_token="<eos>")
made.chat_template = "{% for message in messages %}{{ message['content'] }}{% endfor %}"
made.save_pretrained("model")
shape = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
LlamaForCausalLM(LlamaConfig(vocab_size=3, **shape)).save_pretrained("model")
PY
export HF_HOME=$work/empty HF_HUB_OFFLINE=1
port=$(venv/bin/python -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')
venv/bin/transformers serve "$work/model" --host 127.0.0.1 --port "$port" --device cpu >serve.log 2>&1 &
server=$!
PORT=$port MODEL=$work/model venv/bin/python - <<'PY'
import json, os, time, urllib.error, urllib.request

root = f"http://127.0.0.1:{os.environ['PORT']}"


def ask(path, body=None):
    data = json.dumps(body).encode() if body else None
    try:
        with urllib.request.urlopen(urllib.request.Request(root + path, data, {"content-type": "application/json"})) as f:
            return f.status, json.load(f)
    except urllib.error.HTTPError as error:
        return error.code, None


for _ in range(120):
    try:
        ask("/health")
        break
    except urllib.error.URLError:
        time.sleep(1)
listed = ask("/v1/models")
message = {"role": "user", "content": "a b"}
said = ask("/v1/chat/completions", {"model": os.environ["MODEL"], "messages": [message], "max_tokens": 4})
print("/v1/models:", listed, "/v1/chat/completions:", said[0], said[1]["model"])
assert listed[0] == 500
assert said[0] == 200
PY
