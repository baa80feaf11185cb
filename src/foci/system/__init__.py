"""Files, folders, checkpoints, signals and the machine. Knows no model and no method."""
