"""Installs particles into a loaded model in place, shard by shard, without knowing the model."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch

from evoswarm.engine.merge import Merge
from evoswarm.engine.merged import Change, MergedBase
from evoswarm.engine.pristine import Pristine
from evoswarm.engine.shards import Named, Shard, find_shards


class InPlace:
    """Writes every adapted shard once per install, from its pristine copy on the model's device or in host memory."""

    def __init__(
        self, base: MergedBase, load: Callable[[Iterator[Named]], object], pristine: Pristine, *, complete: bool
    ) -> None:
        """
        Args:
            base: the checkpoint that the model was loaded from.
            load: the model's own loader.
            pristine: keeps what the model has before the first change.
            complete: the model is not split over ranks.
        """
        self._base, self._load, self._pristine, self._complete = base, load, pristine, complete
        self._shards: dict[str, list[Shard]] = {}
        self._written: set[str] = set()

    def prepare(self, names: set[str]) -> bool:
        """Find where these tensors are. False: this model's loader does more than copying."""
        new = names - self._shards.keys()
        if not new:
            return True
        found = find_shards(self._load, self._base.read(new), complete=self._complete)
        if found is None:
            return False
        self._pristine.keep([shard.target for shards in found.values() for shard in shards])
        self._shards |= found
        return True

    @torch.no_grad()
    def install(self, change: Change) -> None:
        """Make the model the base with this change, whose names were prepared."""
        for name in self._written - change.names:
            for shard in self._shards[name]:
                self._pristine.restore(shard.target)
        self._written |= change.names
        for name in sorted(change.names):
            for shard in self._shards[name]:
                self._write(shard, name, change)
        self._written = set(change.names)
        if torch.cuda.is_initialized():
            torch.cuda.synchronize()

    def _write(self, shard: Shard, name: str, change: Change) -> None:
        if name in change.products:
            self._merge(shard, name, change).write()
        else:
            shard.target.copy_(self._start(shard, name, change), non_blocking=True)

    def wrong_weights(self, change: Change) -> str | None:
        """The first adapted parameter that this rank does not hold as it should after installing the change."""
        for name in change.products:
            for shard in self._shards[name]:
                if not self._merge(shard, name, change).is_written():
                    return name
        return None

    def _start(self, shard: Shard, name: str, change: Change) -> torch.Tensor:
        """What a pair is added to: the base's values, or those that the adapter holds whole."""
        whole = change.whole.get(name)
        return self._pristine[shard.target] if whole is None else shard.part(whole)

    def _merge(self, shard: Shard, name: str, change: Change) -> Merge:
        """The merge of one shard: only its part of A and B goes to the device."""
        product = change.products[name]
        a, b = product.a[:, shard.columns], product.b[shard.rows]
        return Merge(shard.target, self._start(shard, name, change), a, b, product.scale, shard.transposed)
