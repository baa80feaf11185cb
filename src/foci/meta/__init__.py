"""Meta-training: a weigher that learns which tokens of a document are worth learning from."""
