"""Has a writer, a model or a server, make questions and rewrites of a corpus: study rows to train on, and probes."""
