"""From texts to the tokens that the model is given, by its chat template or without one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from interv.errors import IntervError, raise_all
from interv.extract.pairs import Pair

SLOT = "{text}"
# Stands for a text while the chat template is asked where texts go; no template has it.
_MARK = "\ue000text\ue000"


@dataclass(frozen=True, slots=True)
class Wording:
    """What stands around each text.

    `chat` is None where the tokenizer decides: yes, if it has a chat template. `template` holds
    `{text}` once, `system` is the chat's system message.
    """

    chat: bool | None = None
    system: str | None = None
    template: str = SLOT


@dataclass(frozen=True, slots=True)
class Tokens:
    """A prompt for the engine; `[start, stop)` are the tokens of the text itself."""

    ids: tuple[int, ...]
    start: int
    stop: int


def check_wording(wording: Wording) -> None:
    """Raise E285 for a template without its place for the text, or a system message and no chat."""
    errors = []
    if wording.template.count(SLOT) != 1:
        message = f"the template '{wording.template}' does not hold '{SLOT}' once"
        helps = (f'for example: --template "Pretend to be {SLOT}."',)
        errors.append(IntervError("E285", message, helps=helps))
    if wording.system is not None and wording.chat is False:
        errors.append(IntervError("E285", "'--system' says nothing with --no-chat"))
    raise_all(errors)


def uses_chat(wording: Wording, tokenizer: Any) -> bool:
    """Say whether texts go through the chat template; raise E289 where it is missing."""
    has = bool(getattr(tokenizer, "chat_template", None))
    wanted = wording.chat is True or wording.system is not None
    if wanted and not has:
        asked = "--chat" if wording.chat else "--system"
        raise IntervError(
            "E289",
            f"the model's tokenizer has no chat template, which {asked} needs",
            helps=("use --no-chat, and put the whole prompt into the texts or --template",),
        )
    return has and wording.chat is not False


def tokenize(
    pairs: Sequence[Pair], wording: Wording, tokenizer: Any
) -> tuple[list[Tokens], list[Tokens]]:
    """Return the prompts of all positives and of all negatives.

    `tokenizer` is one of Transformers. In a chat a text is what the user says, and the prompt ends
    where the answer would begin; with a `prompt` of its own it is the answer, unfinished. Without
    a chat it is the whole prompt, or stands right behind its `prompt`. Raises E289 where the chat
    template is missing, or changes a text, and for a tokenizer that does not tell where tokens are.
    """
    if not getattr(tokenizer, "is_fast", False):
        raise IntervError(
            "E289",
            "the model's tokenizer does not tell where in a text its tokens stand",
            notes=("Transformers' fast tokenizers do",),
            helps=("add the tokenizer.json of the model to its folder",),
        )
    chat = uses_chat(wording, tokenizer)
    encoder = _Encoder(tokenizer, wording, chat)
    positive = [encoder.encode(pair.positive, pair) for pair in pairs]
    return positive, [encoder.encode(pair.negative, pair) for pair in pairs]


@dataclass(frozen=True, slots=True)
class _Encoder:
    tokenizer: Any
    wording: Wording
    chat: bool

    def encode(self, text: str, pair: Pair) -> Tokens:
        """Return the tokens of one text of a pair."""
        whole = self.wording.template.replace(SLOT, text)
        before, after = self._around(whole, pair)
        said = before + whole + after
        # A chat template writes its special tokens out.
        encoded = self.tokenizer(
            said, add_special_tokens=not self.chat, return_offsets_mapping=True
        )
        ids: Sequence[int] = encoded["input_ids"]
        inside = _inside(encoded["offset_mapping"], len(before), len(before) + len(whole))
        if not inside:
            message = f"the tokenizer leaves nothing of a text of {pair.where}"
            raise IntervError("E289", message)
        return Tokens(tuple(ids), inside[0], inside[-1] + 1)

    def _around(self, whole: str, pair: Pair) -> tuple[str, str]:
        """Return what stands before a text and behind it."""
        if not self.chat:
            return pair.prompt or "", ""
        if pair.prompt is not None:
            return self._rendered(pair.prompt), ""
        before, _, after = self._rendered(_MARK).partition(_MARK)
        # Some templates cut spaces off a text, or keep a tidied copy of it.
        if self._rendered(whole) != before + whole + after:
            raise IntervError(
                "E289",
                f"the chat template changes a text of {pair.where}",
                helps=("leave out spaces at the ends of texts, or use --no-chat",),
            )
        return before, after

    def _rendered(self, said: str) -> str:
        chat: list[Mapping[str, str]] = [{"role": "user", "content": said}]
        if self.wording.system is not None:
            chat.insert(0, {"role": "system", "content": self.wording.system})
        try:
            rendered = self.tokenizer.apply_chat_template(
                chat, add_generation_prompt=True, tokenize=False
            )
        except Exception as error:  # a template may raise what it likes
            raise IntervError(
                "E289", "the chat template refuses these messages", notes=(str(error),)
            ) from error
        return str(rendered)


def _inside(offsets: Sequence[tuple[int, int]], start: int, stop: int) -> list[int]:
    """Return the tokens that hold a sign of `[start, stop)`; special tokens hold none."""
    return [
        i for i, (first, last) in enumerate(offsets) if first < stop and last > max(start, first)
    ]
