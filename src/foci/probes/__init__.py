"""What the model knows: probes, the answers to them, and what they must be held against.

Every probe says whether it should be learned or retained. A probe table is compared with the frozen baseline,
the answers of the model before its first step, never with a moving model.
"""

from foci.probes.asking import Answer, answer
from foci.probes.binding import binding
from foci.probes.controls import balanced, balanced_majority, majority
from foci.probes.perplexity import span_perplexity
from foci.probes.probe import Probe, read_probes
from foci.probes.table import counted_by, read_answers, summarise, write_answers
from foci.probes.text import bits_per_byte

__all__ = [
    "Answer",
    "Probe",
    "answer",
    "balanced",
    "balanced_majority",
    "binding",
    "bits_per_byte",
    "counted_by",
    "majority",
    "read_answers",
    "read_probes",
    "span_perplexity",
    "summarise",
    "write_answers",
]
