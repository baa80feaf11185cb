"""Tells which of several processes this one is, as a launcher such as torchrun says. Imports no torch."""

import os


def count() -> int:
    """Returns how many processes the launcher started together; 1 without a launcher."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def local_count() -> int:
    """Returns how many of the processes run on this machine."""
    return int(os.environ.get("LOCAL_WORLD_SIZE", "1")) if count() > 1 else 1


def number() -> int:
    """Returns the number of this process, from 0."""
    return int(os.environ.get("RANK", "0")) if count() > 1 else 0


def is_first() -> bool:
    """Returns whether this process is the one that reads input, writes files and prints."""
    return number() == 0
