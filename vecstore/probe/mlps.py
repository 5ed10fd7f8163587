"""Where the MLP of a block is: the projection that ends it, and whether it is a mixture of experts."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import nn

__all__ = ["ENDS", "is_mixture", "mlp_ends"]

ENDS = ("down_proj", "c_proj", "fc2", "dense_4h_to_h", "fc_out", "w2")
"""What MLPs call their last projection, in the architectures that transformers has."""
ATTENTION = ("attn", "attention")
EXPERTS = ("expert", "block_sparse_moe", "shared_mlp")


def is_mixture(block: nn.Module) -> bool:
    return any(word in name for name, _ in block.named_modules() for word in EXPERTS)


def mlp_ends(block: nn.Module) -> dict[str, nn.Module]:
    """The projections that may end the block's MLP, by their names in it: one where pv knows which. Attention has some
    of the same names."""
    return {
        name: module
        for name, module in block.named_modules()
        if name.rpartition(".")[2] in ENDS
        and not any(word in name for word in ATTENTION)
        and getattr(getattr(module, "weight", None), "ndim", 0) == 2
    }
