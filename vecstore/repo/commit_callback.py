"""A callback for transformers' Trainer: what was trained becomes a behaviour when the training ends."""

from __future__ import annotations

import shutil
from os import PathLike
from pathlib import Path
from typing import Any

from transformers import TrainerCallback

from pv.vecstore.repo.commit import Capture
from pv.vecstore.repo.long_work import long_work
from pv.vecstore.repo.repo import Repo

__all__ = ["CommitCallback"]


class CommitCallback(TrainerCallback):  # type: ignore[misc]
    """`Trainer(..., callbacks=[CommitCallback("my-assistant", name="polite")])`.

    `repo` is a Repo or a folder in which there is one. Commits as `repo.commit` does, with its options (on, weight,
    message, force), also a PEFT adapter; `committed` is what that returned. The registry and the name are checked
    before the training; if the commit fails, what was trained lies in the folder `pv-NAME` of the output.
    """

    def __init__(self, repo: Repo | str | PathLike[str] = ".", *, name: str, **options: Any) -> None:
        self.repo, self.name, self.options = repo, name, options
        self.committed: Capture | None = None

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        repo = self._open()
        with long_work(repo) as work:
            work.check(self.name, self.options.get("weight"))
        self._close(repo)

    def on_train_end(
        self,
        args: Any,
        state: Any,
        control: Any,
        model: Any = None,
        processing_class: Any = None,
        **kwargs: Any,
    ) -> None:
        whole = getattr(model, "module", model)  # out of DistributedDataParallel
        weights = _gathered(whole)
        if not state.is_world_process_zero:
            return
        folder = Path(args.output_dir) / f"pv-{self.name}"
        whole.save_pretrained(folder, **({} if weights is None else {"state_dict": weights}))
        if processing_class is not None:
            processing_class.save_pretrained(folder)
        repo = self._open()
        self.committed = repo.commit(folder, name=self.name, **self.options)
        self._close(repo)
        shutil.rmtree(folder)

    def _open(self) -> Repo:
        return self.repo if isinstance(self.repo, Repo) else Repo.open(self.repo)

    def _close(self, repo: Repo) -> None:
        if repo is not self.repo:
            repo.close()


def _gathered(model: Any) -> dict[str, Any] | None:
    """The whole weights, if several processes hold them in shares; all processes ask together."""
    if not any(hasattr(p, "to_local") for p in model.parameters()):
        return None
    from torch.distributed.checkpoint.state_dict import StateDictOptions, get_model_state_dict

    return get_model_state_dict(model, options=StateDictOptions(full_state_dict=True, cpu_offload=True))
