"""The run of `foci learn`: corpus, baseline, arms, summary."""
