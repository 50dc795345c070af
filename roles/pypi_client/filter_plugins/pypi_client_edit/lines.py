"""What all editors do alike with the ends of lines."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Concatenate, ParamSpec

Parameters = ParamSpec("Parameters")
Editor = Callable[Concatenate[str, Parameters], str]


def whole(edit: Editor[Parameters]) -> Editor[Parameters]:
    """An editor that sees whole lines only: what ends like Windows or without a newline comes back so."""

    @functools.wraps(edit)
    def edited(text: str, /, *arguments: Parameters.args, **named: Parameters.kwargs) -> str:
        if "\r\n" in text and "\n" not in text.replace("\r\n", ""):
            return edited(text.replace("\r\n", "\n"), *arguments, **named).replace("\n", "\r\n")
        if text and not text.endswith("\n"):
            return edit(f"{text}\n", *arguments, **named).removesuffix("\n")
        return edit(text, *arguments, **named)

    return edited
