"""File formats of a corpus. This folder is the registry: one file per format, and nothing else has to know of it.

A format is the one public class of its module that derives from `foci.corpus.documents.Format`: it names the endings
that it reads, and yields documents and bad lines. To add a format, add a file; `text.py` is the shortest example.
"""
