"""Meta-training: a weigher that learns which tokens of a document are worth learning from."""

from foci.meta.config import MetaRun, load_meta
from foci.meta.run import meta

__all__ = ["MetaRun", "load_meta", "meta"]
