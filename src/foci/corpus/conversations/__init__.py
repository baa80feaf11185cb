"""Conversations, prompts with completions, and rows of tokens: what a record may hold in place of plain text.

`shapes` reads them from records by their keys, `messages` reads messages and their weights, `template` writes them
with a model's chat template and finds the answers, `encode` turns that into tokens, `rows` into rows.
"""
