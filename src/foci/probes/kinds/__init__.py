"""Kinds of probes. This folder is the registry: one file per kind, and nothing else has to know of it.

A kind is the one public class of its module that derives from `foci.probes.probe.Kind`; its name is the file's. To add
a kind, add a file; `span.py` is the shortest example.
"""
