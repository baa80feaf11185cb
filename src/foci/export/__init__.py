"""Writes a learned model in the forms that other programs read, loads it again, and asks the run's questions."""
