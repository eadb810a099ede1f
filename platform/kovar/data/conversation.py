"""From conversations to one text, and which parts of it a model is to learn to write."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from kovar.data.tokenizer import load_tokenizer
from kovar.errors import DataError, ModelError

if TYPE_CHECKING:
    from tokenizers import Tokenizer

TEMPLATE_FILE: Final = "chat_template.jinja"
TOKENIZER_CONFIG: Final = "tokenizer_config.json"

DATE: Final = "26 Jul 2024"
"""What templates that write the date of the day are told, so that equal rows give equal tokens."""

Message = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Rendered:
    """One text as the model reads it, special tokens written out.

    Args:
        text: the whole.
        spans: beginnings and ends, in characters, of what is learned; the rest is only read.
    """

    text: str
    spans: tuple[tuple[int, int], ...]


@dataclass(frozen=True, slots=True)
class Dialect:
    """How a model's texts begin and end, and how its conversations are written.

    Args:
        begin: token before every text; empty where the model has none.
        end: token after every text; empty where the model has none.
        template: the chat template, in Jinja; None where the model has none.
        special: all special tokens of the tokenizer's configuration, for the template.
        folder: the model's folder, for messages.
    """

    begin: str
    end: str
    template: str | None
    special: Mapping[str, str]
    folder: Path

    @classmethod
    def read(cls, folder: Path, *, tokenizer: Tokenizer | None = None) -> Dialect:
        """Read a model's folder.

        Args:
            folder: the model's.
            tokenizer: its tokenizer, where it is loaded already.

        Raises:
            ModelError: a file is damaged, or there are several templates.
        """
        config = _read_json(folder / TOKENIZER_CONFIG)
        special = {
            name: token
            for name, value in config.items()
            if name.endswith("_token") and (token := _content(value))
        }
        tokenizer = tokenizer or load_tokenizer(folder)
        end = special.get("eos_token") or _by_id(folder, tokenizer)
        return cls(
            begin=_begin(tokenizer, end),
            end=end,
            template=_template(folder, config),
            special={**special, **({"eos_token": end} if end else {})},
            folder=folder,
        )

    def document(self, text: str) -> Rendered:
        """Write a plain text; all of it is learned, and where it ends."""
        whole = f"{self.begin}{text}{self.end}"
        return Rendered(whole, ((len(self.begin), len(whole)),))

    def completion(self, prompt: str, completion: str) -> Rendered:
        """Write a prompt and its answer; the answer is learned, and where it ends.

        Raises:
            ModelError: the model has no token that ends a text, so it would never stop.
        """
        if not self.end:
            raise ModelError(
                "the tokenizer names no token that ends a text (eos_token)",
                file=self.folder / TOKENIZER_CONFIG,
                hint="add eos_token to it",
            )
        start = f"{self.begin}{prompt}"
        whole = f"{start}{completion}{self.end}"
        return Rendered(whole, ((len(start), len(whole)),))

    def conversation(self, messages: Sequence[Message]) -> Rendered:
        """Write a conversation by the model's template; what the assistant says is learned.

        A template that marks the assistant's words (`{% generation %}`) is believed. With another
        one, each answer is what the template adds to the conversation before it, with the mark
        that ends the answer.

        Raises:
            ModelError: the model has no chat template.
            DataError: the template refuses the messages, or rewrites earlier ones.
        """
        template = self.check_template()
        if "{% generation" in template or "{%- generation" in template:
            text, spans = self._render(messages, marks=True)
            return Rendered(text, spans)
        text, _ = self._render(messages)
        spans = tuple(self._answers(messages, text))
        return Rendered(text, spans)

    def check_template(self) -> str:
        """Return the chat template.

        Raises:
            ModelError: the model has none.
        """
        if self.template is None:
            raise ModelError(
                "the model has no chat template",
                file=self.folder,
                hint=f"add {TEMPLATE_FILE}, choose a model that was made for conversations, or "
                "give data.prompt and data.completion in place of data.messages",
            )
        return self.template

    def _answers(self, messages: Sequence[Message], text: str) -> list[tuple[int, int]]:
        found = []
        for index, message in enumerate(messages):
            if message["role"] != "assistant":
                continue
            before, _ = self._render(messages[:index], prompts=True) if index else ("", ())
            after, _ = self._render(messages[: index + 1])
            if not (after.startswith(before) and text.startswith(after)):
                raise DataError(
                    "the chat template rewrites earlier messages, so that answers cannot be told "
                    "from prompts",
                    field="data.messages",
                    hint="mark the answers in the template with {% generation %} … "
                    "{% endgeneration %}",
                )
            found.append((len(before), len(after)))
        return found

    def _render(
        self, messages: Sequence[Message], *, prompts: bool = False, marks: bool = False
    ) -> tuple[str, tuple[tuple[int, int], ...]]:
        """Run the template in transformers' sandbox."""
        from jinja2.exceptions import TemplateError
        from transformers.utils.chat_template_utils import render_jinja_template

        try:
            texts, spans = render_jinja_template(
                [list(messages)],
                chat_template=self.template,
                add_generation_prompt=prompts,
                return_assistant_tokens_mask=marks,
                date_string=DATE,
                **self.special,
            )
        except (TemplateError, TypeError, KeyError) as problem:
            raise DataError(
                f"the model's chat template refuses a conversation: {problem}",
                field="data.messages",
                hint="roles that most templates take: system, then user and assistant in turn",
            ) from None
        return texts[0], tuple((start, end) for start, end in (spans[0] if marks else ()))


def parse_messages(value: str) -> list[dict[str, Any]]:
    """Read a conversation from JSON.

    Raises:
        ValueError: it is not a list of objects with a role and a content, or nobody answers.
    """
    messages = json.loads(value)
    if not isinstance(messages, list) or not messages:
        raise ValueError("not a list of messages")
    clean = []
    for message in messages:
        if not isinstance(message, dict) or not isinstance(message.get("role"), str):
            raise ValueError("a message without a role")
        # Arrow writes a field that one message has into all of them.
        message = {name: part for name, part in message.items() if part is not None}
        if "content" not in message and "tool_calls" not in message:
            raise ValueError("a message without a content")
        clean.append(message)
    if not any(message["role"] == "assistant" for message in clean):
        raise ValueError("a conversation in which the assistant says nothing")
    return clean


def _read_json(path: Path) -> dict[str, Any]:
    if not path.is_file():
        return {}
    try:
        found = json.loads(path.read_bytes())
    except ValueError as problem:
        raise ModelError(f"damaged: not valid JSON: {problem}", file=path) from None
    if not isinstance(found, dict):
        raise ModelError("damaged: not a JSON object", file=path)
    return found


def _content(token: Any) -> str:
    """Return a special token, which may be a string or an object that describes one."""
    found = token.get("content") if isinstance(token, dict) else token
    return found if isinstance(found, str) else ""


def _by_id(folder: Path, tokenizer: Tokenizer) -> str:
    """Return the end token that the model's configuration names by number; the first of several."""
    number = _read_json(folder / "config.json").get("eos_token_id")
    number = number[0] if isinstance(number, list) and number else number
    return (tokenizer.id_to_token(number) or "") if isinstance(number, int) else ""


def _begin(tokenizer: Tokenizer, end: str) -> str:
    """Return the token that the tokenizer puts before every text, if it does."""
    around: list[str] = tokenizer.encode("").tokens
    return around[0] if around and around[0] != end else ""


def _template(folder: Path, config: Mapping[str, Any]) -> str | None:
    path = folder / TEMPLATE_FILE
    if path.is_file():
        return path.read_text(encoding="utf-8")
    found = config.get("chat_template")
    if found is not None and not isinstance(found, str):
        raise ModelError(
            "the tokenizer has several chat templates",
            file=folder / TOKENIZER_CONFIG,
            field="chat_template",
            allowed="one template",
            hint=f"write the one to use into {TEMPLATE_FILE}",
        )
    return found
