"""Reports: one HTML file that shows what a run learned and forgot. Reads files alone and imports no torch."""
