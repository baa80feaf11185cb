"""Model cards: the README.md that says what a learned model is, what was measured, and how others load it."""
