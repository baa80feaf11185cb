"""The machine and the versions that a benchmark's numbers were measured with."""

import contextlib
import importlib.metadata
import os
from pathlib import Path
from typing import Any

from foci.system.machine import machine, versions

RIVALS = ("trl", "lm_eval")


def described() -> dict[str, Any]:
    """Returns "machine" and "versions", with the processor's name, its cores, and the rivals that are installed."""
    found = versions()
    for name in RIVALS:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            found[name] = importlib.metadata.version(name)
    return {"machine": {**machine(), "processor": processor(), "cores": os.cpu_count()}, "versions": found}


def processor() -> str:
    """Returns the processor's name as Linux has it, with its bfloat16 instructions; "unknown" elsewhere."""
    information = Path("/proc/cpuinfo")
    if not information.exists():
        return "unknown"
    text = information.read_text(encoding="utf-8")
    named = {key.strip(): value.strip() for key, _, value in (line.partition(":") for line in text.splitlines())}
    wide = [told for flag, told in (("amx_bf16", "AMX"), ("avx512_bf16", "AVX512-BF16")) if flag in text]
    return ", ".join([named.get("model name", "unknown"), *wide[:1]])
