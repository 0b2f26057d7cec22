"""Texts in and without a chat: the tokens of the real model's tokenizer."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from interv.errors import IntervError
from interv.extract import Pair
from interv.extract.tokens import Tokens, Wording, check_wording, tokenize, uses_chat

PAIR = Pair("I am glad.", "I am sad.", None, 7)
ANSWER = Pair("Glad!", "Sad.", "How are you?", 7)


@pytest.fixture(scope="module")
def tokenizer(model_path: Path) -> Any:
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(model_path)


def texts(tokenizer: Any, tokens: Tokens) -> tuple[str, str]:
    """Return the whole prompt, and the part that counts as the text."""
    return tokenizer.decode(tokens.ids), tokenizer.decode(tokens.ids[tokens.start : tokens.stop])


def chat(tokenizer: Any, said: str) -> str:
    messages = [{"role": "user", "content": said}]
    return str(tokenizer.apply_chat_template(messages, add_generation_prompt=True, tokenize=False))


def test_a_text_is_what_the_user_says(tokenizer: Any) -> None:
    (positive,), (negative,) = tokenize([PAIR], Wording(), tokenizer)
    assert texts(tokenizer, positive) == (chat(tokenizer, "I am glad."), "I am glad.")
    assert texts(tokenizer, negative) == (chat(tokenizer, "I am sad."), "I am sad.")
    assert texts(tokenizer, positive)[0].endswith("<|im_start|>assistant\n")


def test_with_a_prompt_it_is_the_answer(tokenizer: Any) -> None:
    (positive,), _ = tokenize([ANSWER], Wording(), tokenizer)
    assert texts(tokenizer, positive) == (chat(tokenizer, "How are you?") + "Glad!", "Glad!")
    assert positive.stop == len(positive.ids)


def test_the_system_message_is_the_chats(tokenizer: Any) -> None:
    (positive,), _ = tokenize([PAIR], Wording(system="Be brief."), tokenizer)
    assert texts(tokenizer, positive)[0].startswith("<|im_start|>system\nBe brief.<|im_end|>\n")


def test_a_template_is_part_of_the_text(tokenizer: Any) -> None:
    wording = Wording(template="Say: {text} {not}")
    (positive,), _ = tokenize([PAIR], wording, tokenizer)
    assert texts(tokenizer, positive)[1] == "Say: I am glad. {not}"


def test_without_a_chat_it_is_the_whole_prompt(tokenizer: Any) -> None:
    (positive,), _ = tokenize([PAIR], Wording(chat=False), tokenizer)
    assert texts(tokenizer, positive) == ("I am glad.", "I am glad.")
    (positive,), _ = tokenize([ANSWER], Wording(chat=False), tokenizer)
    assert texts(tokenizer, positive) == ("How are you?Glad!", "Glad!")


def test_a_text_that_the_template_says_too_is_found_where_it_stands(tokenizer: Any) -> None:
    (positive,), _ = tokenize([Pair("assistant", "system", None, 1)], Wording(), tokenizer)
    assert positive.ids[positive.start : positive.stop] == tuple(
        tokenizer("assistant")["input_ids"]
    )
    assert positive.stop < len(positive.ids) - 3


class NoTemplate:
    chat_template = None


def refusal(wording: Wording, tokenizer: Any) -> str:
    with pytest.raises(IntervError) as caught:
        uses_chat(wording, tokenizer)
    return str(caught.value)


def test_a_tokenizer_without_a_chat_template() -> None:
    assert uses_chat(Wording(), NoTemplate()) is False
    assert refusal(Wording(chat=True), NoTemplate()) == (
        "error[E289]: the model's tokenizer has no chat template, which --chat needs\n"
        "  = use --no-chat, and put the whole prompt into the texts or --template"
    )
    assert "which --system needs" in refusal(Wording(system="Be brief."), NoTemplate())


def test_a_tokenizer_that_does_not_tell_where_tokens_are() -> None:
    with pytest.raises(IntervError) as caught:
        tokenize([PAIR], Wording(), NoTemplate())
    assert str(caught.value) == (
        "error[E289]: the model's tokenizer does not tell where in a text its tokens stand\n"
        "  = Transformers' fast tokenizers do\n"
        "  = add the tokenizer.json of the model to its folder"
    )


def test_a_template_that_changes_texts_is_refused(tokenizer: Any) -> None:
    import copy

    trimming = copy.deepcopy(tokenizer)
    trimming.chat_template = "{% for m in messages %}<{{ m['content'] | trim }}>{% endfor %}"
    spaced = Pair(" a", "b", None, 4)
    with pytest.raises(IntervError) as caught:
        tokenize([spaced], Wording(), trimming)
    assert str(caught.value) == (
        "error[E289]: the chat template changes a text of line 4\n"
        "  = leave out spaces at the ends of texts, or use --no-chat"
    )
    assert len(tokenize([Pair("a", "b", None, 4)], Wording(), trimming)[0]) == 1


def test_a_template_that_raises_is_refused(tokenizer: Any) -> None:
    import copy

    strict = copy.deepcopy(tokenizer)
    strict.chat_template = "{{ raise_exception('no system messages') }}"
    with pytest.raises(IntervError) as caught:
        tokenize([PAIR], Wording(), strict)
    assert str(caught.value) == (
        "error[E289]: the chat template refuses these messages\n  = no system messages"
    )


def test_wording_that_says_nothing() -> None:
    with pytest.raises(IntervError) as caught:
        check_wording(Wording(False, "Be brief.", "no place"))
    assert str(caught.value) == (
        "error[E285]: the template 'no place' does not hold '{text}' once\n"
        '  = for example: --template "Pretend to be {text}."\n\n'
        "error[E285]: '--system' says nothing with --no-chat"
    )
