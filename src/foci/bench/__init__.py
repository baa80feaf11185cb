"""Suites: arms times seeds, compared in one table with intervals."""
