"""The trainer, and the plan it trains by."""
