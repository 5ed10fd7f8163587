"""Reading and changing activations while a model runs: any module that gives a tensor, of any rank.

    with captured(model, ["model.layers.14"]) as seen:
        model(ids)
    seen["model.layers.14"]                                    # (B, T, d)

    with steered(model, {"model.layers.14": 2 * direction}):   # (d,), added at every position
        model(ids)

The model itself is not changed: when the block ends, however it ends, the hooks are gone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from pv.registry.errors import UsageError
from pv.vecstore.activations.sites import Site, module_at
from pv.vecstore.models.reply_columns import forward_pass

if TYPE_CHECKING:
    import torch
    from torch import nn

__all__ = [
    "POSITIONS",
    "RULES",
    "Edit",
    "Gate",
    "captured",
    "edited",
    "not_steered",
    "preserving_norm",
    "steered",
]

Positions = Literal["all", "prompt", "reply"]
Rule = Literal["add", "preserve-norm"]
POSITIONS: tuple[Positions, ...] = ("all", "prompt", "reply")
RULES: tuple[Rule, ...] = ("add", "preserve-norm")
SMALLEST = 1e-12
_STEERED: ContextVar[bool] = ContextVar("steered", default=True)
_GATE: ContextVar[object] = ContextVar(
    "gate", default=None
)  # whose prompt is running, amid another forward pass


@dataclass(slots=True, eq=False)
class Gate:
    """Whether a prompt is about something: the cosine of its mean activation at `site`, without that of its first
    token, with a direction is `above` a number.

    A prompt runs through the model for it once, by itself and not steered; the answer is kept.
    """

    site: str
    direction: torch.Tensor
    above: float
    _known: dict[tuple[int, ...], float] = field(default_factory=dict)

    def opens(self, model: nn.Module, prompt: Sequence[int]) -> bool:
        return self.cosine(model, prompt) > self.above

    def cosine(self, model: nn.Module, prompt: Sequence[int]) -> float:
        import torch

        key = tuple(prompt)
        if key not in self._known:
            ids = torch.tensor([key], device=getattr(model, "device", None))
            token = _GATE.set(self)
            try:
                with torch.no_grad(), not_steered(), captured(model, [self.site]) as seen:
                    model(input_ids=ids, use_cache=False, logits_to_keep=1)
            finally:
                _GATE.reset(token)
            tokens = seen[str(Site.parse(self.site))][0].float()  # (T, ...)
            # The first token's activation is huge in most models, whatever the prompt is.
            mean = tokens[min(1, len(tokens) - 1) :].mean(0).flatten()
            own = self.direction.to(mean).flatten()
            if own.shape != mean.shape:
                raise UsageError(
                    f"a direction of {len(own)} numbers does not fit {self.site}, which gives {len(mean)}"
                )
            self._known[key] = float(torch.nn.functional.cosine_similarity(mean, own, dim=0))
        return self._known[key]


@dataclass(frozen=True, slots=True, eq=False)
class Edit:
    """A direction to add at one site, at which positions. Its shape is the activation's last dimensions.

    "reply": from the last token of the prompt on, which is where the reply's first token comes from; "prompt": before.
    With a gate, which goes with "reply" alone, only in replies to prompts for which it opens.
    """

    site: str
    direction: torch.Tensor
    positions: Positions = "all"
    gate: Gate | None = None


@contextmanager
def not_steered() -> Iterator[None]:
    """Inside, the model runs as if nothing steered it."""
    token = _STEERED.set(False)
    try:
        yield
    finally:
        _STEERED.reset(token)


@contextmanager
def captured(
    model: nn.Module, sites: Iterable[str | Site], *, detach: bool = True
) -> Iterator[dict[str, torch.Tensor]]:
    """What each site gave in the last forward pass, by name; that of a gate's prompt is none. Raises UsageError for
    what is no site here."""
    seen: dict[str, torch.Tensor] = {}
    gate = _GATE.get()
    with ExitStack() as held:
        for name in sites:
            site = Site.parse(name)

            def read(found: torch.Tensor, site: Site = site) -> None:
                if _GATE.get() is not gate:
                    return
                part = _slice(found, site)
                seen[str(site)] = part.detach().clone() if detach else part

            held.callback(_hook(module_at(model, site), site, read).remove)
        yield seen


@contextmanager
def steered(
    model: nn.Module,
    edits: Mapping[str, torch.Tensor] | Sequence[Edit],
    *,
    rule: Rule = "add",
) -> Iterator[None]:
    """Add directions to activations. Several at one site add up, or, with `preserve-norm`, turn it: `preserving_norm`.

    Raises UsageError for what is no site here, and in the forward pass for a direction of another shape.
    """
    with ExitStack() as held:
        for handle in edited(model, edits, rule=rule):
            held.callback(handle.remove)
        yield


def edited(
    model: nn.Module,
    edits: Mapping[str, torch.Tensor] | Sequence[Edit],
    *,
    rule: Rule = "add",
) -> list[Any]:
    """The same for as long as the handles that it returns are not removed."""
    if rule not in RULES:
        raise UsageError(f"no rule {rule!r} for steering", hint=f"there are: {', '.join(RULES)}")
    listed = (
        [Edit(site, direction) for site, direction in edits.items()] if isinstance(edits, Mapping) else edits
    )
    by_site: dict[Site, list[Edit]] = {}
    for edit in listed:
        if edit.positions not in POSITIONS:
            raise UsageError(f"no positions {edit.positions!r}", hint=f"there are: {', '.join(POSITIONS)}")
        if edit.gate is not None and edit.positions != "reply":
            raise UsageError(
                "what depends on the prompt can steer the reply alone",
                hint="--positions reply goes with a condition",
            )
        by_site.setdefault(Site.parse(edit.site), []).append(edit)
    modules = {site: module_at(model, site) for site in by_site}  # all are there, or no hook is set
    return [_steer(model, modules[site], site, found, rule) for site, found in by_site.items()]


def preserving_norm(found: torch.Tensor, directions: Sequence[torch.Tensor], own: int = 1) -> torch.Tensor:
    """`found` turned towards directions of its shape, its norm over the last `own` dimensions kept.

    Of each direction what it shares with the activation, and with the directions before it, is left out, position by
    position: none only makes the activation longer, and what two share counts once. Then the sum is scaled back.
    """
    import torch

    flat = (found if found.element_size() > 4 else found.float()).flatten(-own)  # (..., D)
    norm = flat.norm(dim=-1, keepdim=True)
    taken = [flat / norm.clamp_min(SMALLEST)]
    step = torch.zeros_like(flat)
    for direction in directions:
        rest = direction.to(flat.dtype).flatten(-own)
        for one in taken:
            rest = rest - (rest * one).sum(-1, keepdim=True) * one
        step = step + rest
        taken.append(rest / rest.norm(dim=-1, keepdim=True).clamp_min(SMALLEST))
    moved = flat + step
    moved = moved * (norm / moved.norm(dim=-1, keepdim=True).clamp_min(SMALLEST))
    turned: torch.Tensor = moved.view_as(found).to(found.dtype)
    return turned


def _steer(model: nn.Module, module: nn.Module, site: Site, edits: list[Edit], rule: Rule) -> Any:
    def change(found: torch.Tensor) -> torch.Tensor | None:
        if not _STEERED.get():
            return None
        part = _slice(found, site)
        placed = [_placed(model, part, edit) for edit in edits]
        if rule == "preserve-norm":
            moved = preserving_norm(part, placed, edits[0].direction.dim())
        else:
            moved = part + sum(placed)
        if site.count == 1:
            return moved
        width = part.shape[-1]
        whole = found.clone()
        whole[..., site.index * width : (site.index + 1) * width] = moved
        return whole

    return _hook(module, site, change)


def _placed(model: nn.Module, found: torch.Tensor, edit: Edit) -> torch.Tensor:
    """A direction at every position that it is for, and 0 at the others: of the activation's shape."""
    own = edit.direction.dim()
    if own == 0 or own >= found.dim() or found.shape[-own:] != edit.direction.shape:
        raise UsageError(
            f"a direction of shape {tuple(edit.direction.shape)} does not fit {edit.site}, "
            f"whose activations are {tuple(found.shape)}",
            hint="the vector is of another model, or of another site",
        )
    direction = edit.direction.to(found.device, found.dtype).expand_as(found)
    if edit.positions == "all":
        return direction
    mask = _mask(model, found.shape[:-own], edit)  # (B, T)
    return direction * mask.to(found.device, found.dtype).view(*mask.shape, *[1] * own)


def _mask(model: nn.Module, shape: torch.Size, edit: Edit) -> torch.Tensor:
    """(B, T): the positions that an edit is for."""
    import torch

    run = forward_pass()
    if len(shape) != 2:
        raise UsageError(
            f"{edit.site} has no rows of positions, so {edit.positions!r} means nothing there",
            hint="steer at all positions there, or at a layer's output",
        )
    if run is None or len(run.columns) not in (1, shape[0]):
        raise UsageError(
            f"{edit.site} is steered at {edit.positions!r} positions, and nobody said where the reply begins",
            hint='run the model inside `with reply_from([column of the last prompt token, ...])`, or use "all"',
        )
    columns = torch.arange(shape[1])
    in_reply = (columns >= torch.tensor(run.columns)[:, None]).expand(shape)  # (B, T)
    if edit.positions == "prompt":
        return ~in_reply
    if edit.gate is None or not in_reply.any():
        return in_reply
    prompts = run.prompts() if run.prompts else ()
    if len(prompts) != shape[0]:
        raise UsageError(f"{edit.site} is steered for some prompts, and nobody said which these are")
    opened = torch.tensor([edit.gate.opens(model, prompt) for prompt in prompts])
    return in_reply & opened[:, None]


def _slice(found: torch.Tensor, site: Site) -> torch.Tensor:
    """The slice of the last dimension that a site is: a view."""
    if site.count == 1:
        return found
    if found.shape[-1] % site.count:
        raise UsageError(
            f"{site}: {found.shape[-1]} does not divide by {site.count}", hint="give the number of heads"
        )
    width = found.shape[-1] // site.count
    return found[..., site.index * width : (site.index + 1) * width]


def _hook(module: nn.Module, site: Site, do: Callable[[torch.Tensor], torch.Tensor | None]) -> Any:
    """Call `do` with what a site gives; what it returns, if it does, takes its place. The hook's handle."""

    def before(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if args:
            changed = do(_tensor(args[0], site))
            return None if changed is None else ((changed, *args[1:]), kwargs)
        name = next(iter(kwargs), "")
        changed = do(_tensor(kwargs.get(name), site))
        return None if changed is None else (args, {**kwargs, name: changed})

    def after(_: nn.Module, args: tuple[Any, ...], output: Any) -> Any:
        several = isinstance(output, tuple | list) and len(output) > 0
        changed = do(_tensor(output[0] if several else output, site))
        if changed is None or not several:
            return changed
        return type(output)([changed, *output[1:]])

    if site.input:
        return module.register_forward_pre_hook(before, with_kwargs=True)
    return module.register_forward_hook(after)


def _tensor(value: object, site: Site) -> torch.Tensor:
    import torch

    if isinstance(value, torch.Tensor) and value.is_floating_point():
        return value
    raise UsageError(
        f"{site} gives {type(value).__name__}, not a tensor of floating-point numbers",
        hint="name a module whose output is one, such as a layer, its attention or its MLP",
    )
