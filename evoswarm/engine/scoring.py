"""Answers requests with a network: one forward pass for drafts and options, shared prompts computed once."""

from __future__ import annotations

import copy
import math
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from transformers.cache_utils import DynamicCache

from evoswarm.engine.base import Verified, together
from evoswarm.engine.encode import Ids
from evoswarm.engine.network import Network
from evoswarm.engine.tokenizer import RunTokenizer
from evoswarm.utility.types import OptionScore, Prompt

Pairs = list[tuple[Ids, Ids]]
"""(prompt, option) of each option of one request"""
PADDING = 0
"""Any token: what is padding cannot be seen. The tokenizer's own may have no row in the model."""
MOST_LOGITS = 1 << 28
"""Logits of options that are computed at once: 1 GiB in float32."""
SHARED_FROM = 16
"""Tokens from which a prefix that all prompts of a batch share (few-shot examples) is computed only once."""


class NetworkEngine(ABC):
    """A network with its tokenizer; a subclass installs particles and continues prompts.

    A slice is one batch, padded on the left, with an attention mask. The slices of a run are fixed (see
    `utility.slices`), so a result does not depend on the number of workers.
    """

    def __init__(self, tokenizer: RunTokenizer, network: Network, *, ends: Sequence[int], batch_size: int) -> None:
        """`ends` are the tokens that end an answer."""
        self.tokenizer, self.batch_size = tokenizer.tokenizer, batch_size
        self._network, self.exact = network, network.exact
        self._encoder = tokenizer.encoder(ends=ends, longest=network.longest, rows=network.rows)
        self.tokens, self.steps = self._encoder.tokens, Counter[str]()
        self._shared: tuple[Ids, DynamicCache] | None = None

    def sleep(self) -> None:  # noqa: B027 most engines keep everything
        """See `Engine.sleep`. It keeps everything."""

    @abstractmethod
    def _greedy(self, rows: Mapping[int, Ids], limit: int, stop: Sequence[str]) -> dict[int, list[int]]:
        """Up to `limit` generated ids for each row, by the positions of their prompts."""

    @torch.inference_mode()
    def generate(self, prompts: Sequence[Prompt], *, max_new_tokens: int, stop: Sequence[str] = ()) -> list[str]:
        """See `Engine.generate`."""
        rows, found = [self._encoder.prompt(prompt) for prompt in prompts], dict[int, list[int]]()
        rooms = [self._encoder.room(len(row), max_new_tokens) for row in rows]
        for room in set(rooms):  # the end of a context must not end the answers to shorter prompts
            found |= self._greedy({i: row for i, row in enumerate(rows) if rooms[i] == room}, room, stop)
        return [self._encoder.text(prompt, found[i], stop) for i, prompt in enumerate(prompts)]

    @torch.inference_mode()
    def verify(
        self,
        prompts: Sequence[Prompt],
        drafts: Sequence[str],
        *,
        max_new_tokens: int,
        stop: Sequence[str] = (),
        logprobs: bool = False,
    ) -> list[Verified]:
        """See `Engine.verify`. A draft whose first token would merge with the prompt is not verified."""
        encoded = [self._encoder.draft(prompt, draft) for prompt, draft in zip(prompts, drafts, strict=True)]
        limits = [self._encoder.room(len(context), max_new_tokens) for context, _ in encoded]
        pairs = [(context, draft[: limit - 1]) for (context, draft), limit in zip(encoded, limits, strict=True)]
        longest = max(len(draft) for _, draft in pairs)
        inputs = self._batch([context + draft for context, draft in pairs], last=longest + 1)
        logits = self._network.forward(inputs, keep=longest + 1).logits
        found: list[Verified] = []
        for i, (prompt, (_, wanted), row) in enumerate(zip(prompts, pairs, logits.argmax(-1).tolist(), strict=True)):
            chosen = row[-len(wanted) - 1 :]
            agreed = next((i for i, token in enumerate(wanted) if token != chosen[i]), len(wanted))
            reply = self._encoder.reply(prompt, chosen[: agreed + 1], max_new_tokens=limits[i], stop=stop)
            last = self._encoder.last_tokens(encoded[i][1], stop, limit=limits[i]) if logprobs else ()
            found.append(Verified(reply, _logprob(logits[i], wanted, last) if last and wanted else None))
        return found

    @torch.inference_mode()
    def loglikelihood(
        self, prompts: Sequence[Prompt], options: Sequence[Sequence[str]]
    ) -> list[tuple[OptionScore, ...]]:
        """See `Engine.loglikelihood`.

        Prompt and option are tokenized together, as in lm-eval. Options of one token after the same prompt share one
        forward pass; for longer options the prompt is computed once.
        """
        pairs = [[self._encoder.option(p, option) for option in row] for p, row in zip(prompts, options, strict=True)]
        if self._network.branches and _share_prompts(pairs):
            return [scores for part in _parts(pairs, self.batch_size) for scores in self._branch(part)]
        found = self._scores([pair for row in pairs for pair in row])
        return [tuple(found[pair] for pair in row) for row in pairs]

    @torch.inference_mode()
    def rolling(self, texts: Sequence[str]) -> list[OptionScore]:
        """See `Engine.rolling`."""
        rows = [self._encoder.windows(text) for text in texts]
        found = self._scores([pair for row in rows for pair in row])
        return [together([found[pair] for pair in row]) for row in rows]

    def _scores(self, pairs: Sequence[tuple[Ids, Ids]]) -> dict[tuple[Ids, Ids], OptionScore]:
        """The scores of pairs of prompt and option."""
        wanted: dict[Ids, dict[Ids, tuple[Ids, Ids]]] = {}
        for context, option in pairs:
            wanted.setdefault(context + option[:-1], {})[option] = context, option
        found: dict[tuple[Ids, Ids], OptionScore] = {}
        most = MOST_LOGITS // self._network.rows
        for batch in _batches({ids: max(map(len, options)) for ids, options in wanted.items()}, self.batch_size, most):
            scores = self._score({ids: list(wanted[ids]) for ids in batch})
            found |= {wanted[ids][option]: score for (ids, option), score in scores.items()}
        return {pair: found[wanted[pair[0] + pair[1][:-1]][pair[1]]] for pair in pairs}

    def _score(self, batch: dict[Ids, list[Ids]]) -> dict[tuple[Ids, Ids], OptionScore]:
        """The score of each option at the end of each input, by (input, option)."""
        longest = max(len(option) for options in batch.values() for option in options)
        logits = self._network.forward(self._batch(list(batch), last=longest), keep=longest).logits
        keys, sums, greedy = [], [], []
        for (ids, options), row in zip(batch.items(), logits, strict=True):
            logprobs = torch.log_softmax(row.float(), dim=-1)
            likeliest = logprobs.argmax(-1)
            for option in options:
                tokens = torch.tensor(option, device=row.device)
                keys.append((ids, option))
                sums.append(logprobs[-len(option) :].gather(1, tokens[:, None]).sum())
                greedy.append((likeliest[-len(option) :] == tokens).all())
        found = zip(keys, torch.stack(sums).tolist(), torch.stack(greedy).tolist(), strict=True)
        return {key: OptionScore(total, len(key[1]), hit) for key, total, hit in found}

    def _branch(self, pairs: Sequence[Pairs]) -> list[tuple[OptionScore, ...]]:
        """Scores of options of several tokens. The prompts' keys and values are computed once and repeated."""
        contexts = [row[0][0] for row in pairs]
        options = [option for row in pairs for _, option in row]
        owners = torch.tensor([i for i, row in enumerate(pairs) for _ in row], device=self._network.device)
        width = max(len(option) for option in options)
        self._encoder.check(max(len(context) + len(option) - 1 for row in pairs for context, option in row))
        prompts = self._batch(contexts)
        first = self._network.forward(prompts, keep=1, use_cache=True)
        logprobs = torch.log_softmax(first.logits[owners].float(), dim=-1)
        # Padding on the right is not visible to any real token.
        tokens = torch.tensor([option + (0,) * (width - len(option)) for option in options], device=owners.device)
        if width > 1:
            first.past_key_values.batch_select_indices(owners)
            mask = torch.cat([prompts["attention_mask"][owners], torch.ones_like(tokens[:, 1:])], dim=-1)
            inputs = {"input_ids": tokens[:, :-1], "attention_mask": mask, "past_key_values": first.past_key_values}
            rest = self._network.forward(inputs, keep=width - 1)
            logprobs = torch.cat([logprobs, torch.log_softmax(rest.logits.float(), dim=-1)], dim=1)
        each = logprobs.gather(2, tokens[:, :, None])[:, :, 0].tolist()
        hits = (logprobs.argmax(-1) == tokens).tolist()
        scores = iter(
            OptionScore(math.fsum(row[: len(o)]), len(o), all(hit[: len(o)]))
            for row, hit, o in zip(each, hits, options, strict=True)
        )
        return [tuple(next(scores) for _ in row) for row in pairs]

    def _batch(self, rows: Sequence[Ids], *, last: int = 1) -> dict[str, Any]:
        """Token ids and mask [B, T], padded on the left, after the prefix that all rows share.

        If that is long, the result includes its keys and values, computed once per particle.

        Args:
            rows: token ids.
            last: how many tokens at the end of each row must be computed.
        """
        width = max(len(row) for row in rows)
        self._encoder.check(width)
        shared = _common(rows)[: max(0, min(map(len, rows)) - last)]
        if len(rows) < 2 or len(shared) < SHARED_FROM or not self._network.branches:
            shared = ()
        pads = [width - len(row) for row in rows]
        rests = [row[len(shared) :] for row in rows]
        ids = [shared + (PADDING,) * pad + rest for pad, rest in zip(pads, rests, strict=True)]
        mask = [(1,) * len(shared) + (0,) * pad + (1,) * len(rest) for pad, rest in zip(pads, rests, strict=True)]
        device = self._network.device
        inputs = {
            "input_ids": torch.tensor(ids, device=device),
            "attention_mask": torch.tensor(mask, device=device),
        }
        return inputs | ({"past_key_values": self._repeated(shared, len(rows))} if shared else {})

    def _repeated(self, shared: Ids, times: int) -> DynamicCache:
        """Keys and values of a shared prefix, for `times` rows."""
        if self._shared is None or self._shared[0] != shared:
            ids = torch.tensor([shared], device=self._network.device)
            inputs = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
            self._shared = shared, self._network.forward(inputs, keep=1, use_cache=True).past_key_values
        cache = copy.deepcopy(self._shared[1])
        cache.batch_repeat_interleave(times)
        return cache


def _logprob(logits: torch.Tensor, tokens: Ids, last: Ids) -> float:
    """Log-probability of tokens and then one of `last`, from logits [T, vocabulary] that end after the tokens."""
    logprobs = torch.log_softmax(logits[-len(tokens) - 1 :].float(), dim=-1)
    each = logprobs[:-1].gather(1, torch.tensor(tokens, device=logits.device)[:, None]).sum()
    return float(each + logprobs[-1, list(last)].logsumexp(0))


def _common(rows: Sequence[Ids]) -> Ids:
    """The prefix that all rows share."""
    low, high = min(rows), max(rows)
    return low[: next((i for i, pair in enumerate(zip(low, high, strict=False)) if pair[0] != pair[1]), len(low))]


def _batches(longest: Mapping[Ids, int], size: int, most: int) -> Iterator[list[Ids]]:
    """The inputs in batches of up to `size`, whose longest options have at most `most` tokens together; one at least.

    Args:
        longest: tokens of the longest option at the end of each input.
        size: `engine.batch_size`.
        most: a batch computes as many logits for each input as for the one with the longest option.
    """
    batch: list[Ids] = []
    for ids in longest:
        if batch and (len(batch) == size or (len(batch) + 1) * max(longest[one] for one in [*batch, ids]) > most):
            yield batch
            batch = []
        batch.append(ids)
    if batch:
        yield batch


def _share_prompts(pairs: Sequence[Pairs]) -> bool:
    """Whether the options of each request follow the same tokens, and some option has several tokens."""
    same = all(row and all(context == row[0][0] for context, _ in row) for row in pairs)
    return same and any(len(option) > 1 for row in pairs for _, option in row)


def _parts(pairs: Sequence[Pairs], size: int) -> Iterator[Sequence[Pairs]]:
    """The requests in groups of up to `size` options, at least one request each."""
    start = total = 0
    for i, row in enumerate(pairs):
        if i > start and total + len(row) > size:
            yield pairs[start:i]
            start, total = i, 0
        total += len(row)
    yield pairs[start:]
