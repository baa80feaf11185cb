"""How a corpus is read."""

from dataclasses import dataclass
from typing import Literal, get_args

Loss = Literal["answers", "all"]


@dataclass(frozen=True)
class Reading:
    """Settings that say which tokens are learned, and what control words in plain text are.

    `loss`: of conversations and completions the answers alone are learned, or all tokens. `control_words`: plain text
    holds a chat template already, so its control words (`<|im_end|>`) become control tokens.
    """

    loss: Loss = "answers"
    control_words: bool = False

    def __post_init__(self) -> None:
        if self.loss not in get_args(Loss):
            raise ValueError(f"loss is 'answers' or 'all', got {self.loss!r}")
