"""Runs `foci chat`: the untouched and the learned model answer side by side, with the corpus' nearest passage.

`chosen` finds what an arm has saved, `sides` loads both models, `prompts` writes a conversation for a model, `writing`
lets it answer piece by piece, `passages` finds the nearest passage. `session` joins them; `terminal` and `web` show it.
"""
