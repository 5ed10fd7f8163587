"""The base's own distribution on given tokens, kept small, and how far a model has moved from it.

Of each distribution over the vocabulary its KEPT likeliest tokens are kept, and the probability of the rest as
one. KL(base ‖ model) over these KEPT + 1 outcomes is never more than that over the vocabulary.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

__all__ = ["KEPT", "Reference"]

KEPT = 128
LEAST = -30.0  # log-probability below which the rest counts as nothing: keeps 0 · log 0 out


@dataclass(frozen=True, slots=True)
class Reference:
    """T distributions: `tokens` (T, K) int64, their `logps` (T, K) and the `rest` (T,), float32, in nats."""

    tokens: torch.Tensor
    logps: torch.Tensor
    rest: torch.Tensor

    @classmethod
    def of(cls, logits: torch.Tensor) -> Reference:
        """From logits (T, V), V more than 1."""
        logits = logits.detach().float()
        tokens = logits.topk(min(KEPT, logits.shape[-1] - 1), -1).indices  # (T, K)
        logps, rest = _outcomes(logits, tokens)
        return cls(tokens, logps, rest)

    @classmethod
    def moved(cls, logits: torch.Tensor, given: int, taken: int, certain: float = 0.0) -> Reference:
        """Of (T, V), in which token `given` has the probability of `taken` as well, and that none; and then of what
        all others have, the share `certain`."""
        import torch

        found = torch.softmax(logits.detach().float(), -1)
        found[:, given] += found[:, taken]
        found[:, taken] = 0
        found *= 1 - certain
        found[:, given] += certain
        return cls.of(found.log().clamp_min(LEAST))

    def part(self, at: slice) -> Reference:
        """Those of some of the tokens."""
        return Reference(self.tokens[at], self.logps[at], self.rest[at])

    def __len__(self) -> int:
        return len(self.tokens)

    def divergence(self, logits: torch.Tensor) -> torch.Tensor:
        """KL(base ‖ model) of every token, in nats: (T,). Gradient flows to `logits`, (T, V)."""
        logps, rest = _outcomes(logits.float(), self.tokens)
        kept = (self.logps.exp() * (self.logps - logps)).sum(-1)
        return kept + self.rest.exp() * (self.rest - rest)


def _outcomes(logits: torch.Tensor, tokens: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Log-probabilities of `tokens` (T, K), and of all others together (T,)."""
    import torch

    total = torch.logsumexp(logits, -1)
    others = torch.logsumexp(logits.scatter(-1, tokens, float("-inf")), -1)
    return logits.gather(-1, tokens) - total[:, None], (others - total).clamp_min(LEAST)
