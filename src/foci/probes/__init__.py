"""Probes (questions with known answers), a model's answers to them, and the controls to compare them with.

Every probe is to learn or to retain. A probe table is compared with the frozen baseline,
the answers of the model before its first step, never with a moving model.
"""

from foci.probes.asking import Answer, answer
from foci.probes.binding import binding
from foci.probes.controls import balanced, balanced_majority, majority
from foci.probes.held_out import hold_out
from foci.probes.perplexity import span_perplexity
from foci.probes.probe import Kind, Probe, kind_of, line_of, read_probes
from foci.probes.table import counted_by, read_answers, summarise, write_answers
from foci.probes.text import bits_per_byte

__all__ = [
    "Answer",
    "Kind",
    "Probe",
    "answer",
    "balanced",
    "balanced_majority",
    "binding",
    "bits_per_byte",
    "counted_by",
    "hold_out",
    "kind_of",
    "line_of",
    "majority",
    "read_answers",
    "read_probes",
    "span_perplexity",
    "summarise",
    "write_answers",
]
