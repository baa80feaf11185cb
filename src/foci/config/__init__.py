"""Run files: typed settings read from YAML. Nothing here imports torch."""
