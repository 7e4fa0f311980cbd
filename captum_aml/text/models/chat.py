"""Messages of a chat as the prompt that the tokenizer's chat template makes of them."""

from __future__ import annotations

from collections.abc import Collection

from jinja2 import TemplateError
from transformers import PreTrainedTokenizerBase

from captum_aml._utils.rendered import absent_number, gaps
from captum_aml.exceptions import InvalidInputError
from captum_aml.text.inputs import Span, Text


def rendered_chat(
    tokenizer: PreTrainedTokenizerBase, chat: Text, roles: Collection[str]
) -> tuple[str, list[tuple[Span, int]]]:
    """The prompt of a chat, up to where the model answers.

    Args:
        tokenizer: A tokenizer with a chat template.
        chat: The messages.
        roles: Whose messages are to be found.

    Returns:
        The prompt, and for each message of these roles where it stands in the prompt and where that
        begins in the chat's text: a template may leave out white space around it.

    Raises:
        InvalidInputError: There is no chat template, it refuses the messages, or it shows one in
            another way than it was given.
    """
    contents = [chat.text[slice(*span)] for _, span in chat.messages]
    prompt = _rendered(tokenizer, chat, contents)
    absent = absent_number(prompt)
    spans = []
    for number, (role, (origin, _)) in enumerate(chat.messages):
        if role not in roles or not contents[number].strip():
            continue
        others = [*contents[:number], absent, *contents[number + 1 :]]
        places = gaps(prompt, _rendered(tokenizer, chat, others).split(absent))
        shown = prompt[slice(*places[0])] if places else ""
        before = contents[number].find(shown)
        if not places or not shown or before < 0:
            raise InvalidInputError(
                "tokenizer: expected a chat template that shows each message as it is, but message "
                f"{number} of role {role!r} cannot be found in {prompt!r}"
            )
        spans.append((places[0], origin + before))
    return prompt, spans


def _rendered(tokenizer: PreTrainedTokenizerBase, chat: Text, contents: list[str]) -> str:
    if not tokenizer.chat_template:
        raise InvalidInputError(
            "texts: expected strings, since the tokenizer has no chat template, got messages; set "
            "tokenizer.chat_template, or write the prompt as a string"
        )
    messages = [
        {"role": role, "content": content}
        for (role, _), content in zip(chat.messages, contents, strict=True)
    ]
    try:
        rendered = tokenizer.apply_chat_template(
            messages, tokenize=False, add_generation_prompt=True
        )
    except TemplateError as error:
        raise InvalidInputError(
            f"texts: expected messages that the chat template takes, got the roles "
            f"{', '.join(role for role, _ in chat.messages)} ({error})"
        ) from error
    return str(rendered)
