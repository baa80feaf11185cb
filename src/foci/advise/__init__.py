"""The command `foci advise`: short trials say which plan, rate and strength suit a text."""
