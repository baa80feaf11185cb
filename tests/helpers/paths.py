"""Where the checkout's own files and the published data are."""

from pathlib import Path

ROOT = Path(__file__).parents[2]
HELPERS = Path(__file__).parent
PUBLISHED = ROOT.parent / "shared" / "data"
"""Published data sets, where somebody has put them beside the checkout."""
