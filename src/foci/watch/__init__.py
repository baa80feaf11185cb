"""Runs `foci watch`: shows a run while it trains, from the files that it writes. Needs no model and changes nothing."""
