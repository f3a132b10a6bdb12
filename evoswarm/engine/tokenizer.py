"""The tokenizer of a run: the base model's, or that of the experts if they bring another one."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Collection, Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from heapq import nlargest
from pathlib import Path

from transformers import AutoTokenizer, PreTrainedTokenizerBase

from evoswarm.engine.encode import Encoder
from evoswarm.errors import UserError, first_line
from evoswarm.utility.reasoning import Tags
from evoswarm.utility.templates import template_of
from evoswarm.utility.types import Chat, Generate, Request
from evoswarm.weights.hub import model_folder

VOCABULARIES = ("tokenizer.json", "tokenizer.model", "spiece.model", "vocab.json", "vocab.txt")
"""Files that make a tokenizer; a folder without them has at most settings and a chat template."""
_SETTINGS = ("bos_token", "eos_token", "add_bos_token", "add_eos_token", "added_tokens_decoder", "tokenizer_class")
PROBE = "What is 12 + 7?\n\n  Füße 数 <|im_start|>user</s>"
"""A text that tokenizers of the same vocabulary may split differently."""
SAMPLES = 8
"""Prompts of one kind that are checked before a run."""


@dataclass(frozen=True)
class RunTokenizer:
    """A tokenizer with what the run does with it.

    Attributes:
        tokenizer: with the chat template of the run.
        tags: opening and closing tags of reasoning that the config names.
        notices: where it comes from, if that is not only the base model. One line each.
    """

    tokenizer: PreTrainedTokenizerBase
    tags: Tags = ()
    notices: tuple[str, ...] = ()

    def encoder(self, *, ends: Sequence[int] = (), longest: int | None = None, rows: int | None = None) -> Encoder:
        """See `Encoder`."""
        return Encoder(self.tokenizer, ends=ends, longest=longest, rows=rows, tags=self.tags)


def load_tokenizer(model: str, *, trust_remote_code: bool) -> PreTrainedTokenizerBase:
    """The model's tokenizer, with a padding token if there is an end token.

    Raises:
        UserError: it cannot be loaded.
    """
    folder = model_folder(model, weights=False)
    try:
        tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=trust_remote_code)
        if not tokenizer.encode("a", add_special_tokens=False):  # transformers makes some types without any file
            raise ValueError("it has no vocabulary")
    except Exception as error:  # the tokenizers library raises plain Exception
        raise UserError(
            f"{model}: the tokenizer cannot be loaded ({first_line(error)}); put tokenizer.json and "
            "tokenizer_config.json of the base model into its folder"
        ) from None
    if tokenizer.pad_token_id is None and tokenizer.eos_token_id is not None:
        tokenizer.pad_token_id = tokenizer.eos_token_id
    return tokenizer


def run_tokenizer(
    model: str, experts: Mapping[str, Path], *, trust_remote_code: bool, tags: Tags = (), chats: bool = True
) -> RunTokenizer:
    """The tokenizer that was saved with the experts where they agree, else the base model's; likewise the template.

    Args:
        model: base model folder or hub name.
        experts: folder of each expert.
        trust_remote_code: run Python code that comes with the model.
        tags: of reasoning.
        chats: whether prompts need a chat template.

    Raises:
        UserError: the base model's tokenizer cannot be loaded.
    """
    notices: list[str] = []
    saved = _saved_tokenizers(experts, notices, trust_remote_code=trust_remote_code)
    try:
        base = load_tokenizer(model, trust_remote_code=trust_remote_code)
    except UserError as problem:
        base, missing = None, problem
    padding = {str(one.pad_token) for one in (base, *saved.values()) if one is not None}
    kinds = _alike({name: _identity(other, padding) for name, other in saved.items()})
    if base is None and len(kinds) != 1:
        raise missing
    tokenizer = base or next(iter(saved.values()))
    own = _template(tokenizer, model)
    if len(kinds) > 1:
        notices.append(f"{_listed(kinds)} were saved with different tokenizers; the base model's is used")
    elif kinds and (base is None or _identity(base, padding) not in kinds):
        tokenizer, other = next(iter(saved.values())), "none" if base is None else "another one"
        notices.append(f"the tokenizer that was saved with {_listed(kinds)} is used; the base model has {other}")
    templates = {name: text for name, folder in experts.items() if (text := _saved_template(folder))} if chats else {}
    kinds = _alike({name: text.strip() for name, text in templates.items()})
    tokenizer.chat_template = own
    if len(kinds) > 1:
        notices.append(
            f"{_listed(kinds)} were saved with different chat templates; the base model's is used, unless "
            "utility.prompt.chat_template is the path of another one"
        )
    elif kinds and str(own).strip() not in kinds:
        tokenizer.chat_template = next(iter(templates.values()))
        other = "another one" if own else "none"
        notices.append(f"the chat template that was saved with {_listed(kinds)} is used; the base model has {other}")
    return RunTokenizer(tokenizer, tags, tuple(notices))


def _template(tokenizer: PreTrainedTokenizerBase, model: str) -> str | None:
    """A tokenizer's default chat template, or that of the processor of an image-text model."""
    if not tokenizer.chat_template:
        return template_of(Path(model_folder(model, weights=False)))
    try:
        return str(tokenizer.get_chat_template())
    except ValueError:  # several, none of which is the default
        return None


def check_prompts(
    tokenizer: RunTokenizer, requests: Iterable[Request], *, longest: int | None, rows: int, spare: int = 0
) -> list[str]:
    """Render and encode the longest prompts of each kind, and say what the user should know about them.

    Args:
        tokenizer: of the run.
        requests: of all splits.
        longest: the model's maximum number of tokens; None if it is unknown.
        rows: the size of its vocabulary.
        spare: tokens that the engine needs after an option.

    Raises:
        UserError: the model cannot answer a prompt.
    """
    encoder, end, ended = tokenizer.encoder(longest=longest, rows=rows), tokenizer.tokenizer.eos_token_id, False
    for request in _samples(requests):
        if isinstance(request, Generate):
            ids = encoder.prompt(request.prompt)
            encoder.check(len(ids), more=1)
        elif request.rolling:
            continue  # it is cut into what the model has room for
        else:
            ids = sum(encoder.option(request.prompt, max(request.options, key=len)), ())[:-1]
            encoder.check(len(ids), more=spare)
        ended = ended or (ids[-1] == end and len(ids) > 1)
    notice = f"prompts end with the end token {tokenizer.tokenizer.eos_token}; end them where the answer starts"
    return [*tokenizer.notices, *encoder.notices, *([notice] if ended else [])]


def _samples(requests: Iterable[Request]) -> list[Request]:
    """The longest requests with the same settings of prompts."""
    kinds: dict[Hashable, list[tuple[int, Request]]] = {}
    for request in requests:
        prompt = request.prompt
        text, kind = (prompt, None) if isinstance(prompt, str) else (prompt.text, _without_text(prompt))
        kinds.setdefault((type(request), kind), []).append((len(text), request))
    return [request for same in kinds.values() for _, request in nlargest(SAMPLES, same, key=lambda pair: pair[0])]


def _without_text(chat: Chat) -> Chat:
    return replace(chat, messages=tuple((role, "") for role, _ in chat.messages))


def _saved_tokenizers(
    experts: Mapping[str, Path], notices: list[str], *, trust_remote_code: bool
) -> dict[str, PreTrainedTokenizerBase]:
    """The tokenizer of each expert that has one. The same files are loaded once; notes those that cannot be loaded."""
    places = {name: next(filter(has_vocabulary, _places(folder)), None) for name, folder in experts.items()}
    folders = {name: place for name, place in places.items() if place is not None}
    found: dict[str, PreTrainedTokenizerBase] = {}
    for names in _alike({name: _digest(folder) for name, folder in folders.items()}).values():
        try:
            loaded = load_tokenizer(str(folders[names[0]]), trust_remote_code=trust_remote_code)
        except UserError as error:
            notices.append(f"the tokenizer that was saved with {', '.join(names)} is not used: {error}")
        else:
            found |= dict.fromkeys(names, loaded)
    return found


def _places(folder: Path) -> Iterator[Path]:
    """An expert's folder, and that of its training if it is a checkpoint of one (`checkpoint-500`)."""
    yield folder
    if re.fullmatch(r"checkpoint-\d+", folder.name):
        yield folder.parent


def has_vocabulary(folder: Path) -> bool:
    """Whether a folder has the files of a tokenizer."""
    return any((folder / name).exists() for name in VOCABULARIES)


def _saved_template(folder: Path) -> str | None:
    return next((template for place in _places(folder) if (template := template_of(place))), None)


def _digest(folder: Path) -> str:
    """What identifies the files of a tokenizer."""
    digest = hashlib.sha256()
    for name in (*VOCABULARIES, "merges.txt", "added_tokens.json"):
        if (folder / name).exists():
            digest.update(name.encode() + (folder / name).read_bytes())
    try:
        settings = json.loads((folder / "tokenizer_config.json").read_bytes())
        digest.update(json.dumps({key: settings.get(key) for key in _SETTINGS}, sort_keys=True).encode())
    except (OSError, ValueError, AttributeError):
        pass
    return digest.hexdigest()


def _identity(tokenizer: PreTrainedTokenizerBase, padding: Collection[str]) -> str:
    """Equal for tokenizers that a run cannot tell apart, which may have different tokens for padding."""
    vocabulary = sorted((token, number) for token, number in tokenizer.get_vocab().items() if token not in padding)
    probe = Encoder(tokenizer, ends=(), longest=None).prompt(PROBE)
    content = [vocabulary, tokenizer.bos_token_id, tokenizer.eos_token_id, probe]
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()


def _alike(values: Mapping[str, str]) -> dict[str, list[str]]:
    """Names by their value."""
    groups: dict[str, list[str]] = {}
    for name, value in values.items():
        groups.setdefault(value, []).append(name)
    return groups


def _listed(groups: Mapping[str, Sequence[str]]) -> str:
    """The names of each group, at most three.

    Example:
        _listed({"x": ["a", "b"], "y": ["c"]}) == "a, b / c"
    """
    return " / ".join(
        ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "") for names in groups.values()
    )
