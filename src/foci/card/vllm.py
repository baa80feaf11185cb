"""Says whether vLLM takes an adapter, by its own checks (vllm/lora/peft_helper.py and vllm/config/lora.py)."""

from collections.abc import Mapping
from typing import Any

RANKS = (1, 8, 16, 32, 64, 128, 256, 320, 512)
"""The values that --max-lora-rank takes (`MaxLoRARanks` in vllm/config/lora.py)."""


def why_refused(settings: Mapping[str, Any]) -> str:
    """Returns why vLLM does not take an adapter with these settings of PEFT; "" where it does.

    >>> why_refused({"peft_type": "LORA", "r": 16}), why_refused({"peft_type": "LORA", "r": 8, "use_dora": True})
    ('', 'it is DoRA')
    """
    rank = int(settings.get("r") or 0)
    reasons = {
        f"it is of the type {settings.get('peft_type')}, not LORA": settings.get("peft_type") != "LORA",
        "it is DoRA": settings.get("use_dora"),
        "it trains whole modules (modules_to_save)": settings.get("modules_to_save"),
        "it has biases": settings.get("bias", "none") != "none",
        "it adapts stacks of experts (target_parameters)": settings.get("target_parameters"),
        "its rank or alpha differs between layers": settings.get("rank_pattern") or settings.get("alpha_pattern"),
        f"its rank {rank} is above {RANKS[-1]}": rank > RANKS[-1],
    }
    return "; ".join(words for words, true in reasons.items() if true)


def rank_flag(rank: int) -> int:
    """Returns the smallest --max-lora-rank that holds a rank.

    >>> rank_flag(16), rank_flag(20), rank_flag(4)
    (16, 32, 8)
    """
    return next(known for known in RANKS if known >= rank)
