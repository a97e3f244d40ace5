#!/usr/bin/env python3
"""Render chat templates as transformers does, for the tests to compare with.

    render_templates.py TEMPLATE… < CONVERSATIONS.json

The conversations are {name: {"messages": […], …variables}}. Prints a JSON object: for each template's
path and each conversation, {"text": …}, or {"error": …} where Jinja2 refuses it.

Source: `_compile_jinja_template` in transformers' `utils/chat_template_utils.py`.
"""

import datetime
import json
import sys
from pathlib import Path

import jinja2
from jinja2 import nodes
from jinja2.ext import Extension, loopcontrols
from jinja2.sandbox import ImmutableSandboxedEnvironment

DATE = datetime.datetime(2026, 1, 5, 8, 9)


class Generation(Extension):
    """The block that marks what a model is trained on; it changes nothing of the text."""

    tags = {"generation"}

    def parse(self, parser: jinja2.parser.Parser) -> nodes.Node:
        line = next(parser.stream).lineno
        body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        call = self.call_method("_body")
        return nodes.CallBlock(call, [], [], body).set_lineno(line)

    def _body(self, caller: jinja2.runtime.Macro) -> str:
        return caller()


def raise_exception(message: str) -> None:
    raise jinja2.exceptions.TemplateError(message)


def tojson(x, ensure_ascii=False, indent=None, separators=None, sort_keys=False):  # noqa: ANN001
    return json.dumps(
        x, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys
    )


def environment() -> ImmutableSandboxedEnvironment:
    env = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[Generation, loopcontrols]
    )
    env.filters["tojson"] = tojson
    env.globals["raise_exception"] = raise_exception
    env.globals["strftime_now"] = DATE.strftime
    return env


def render(source: str, variables: dict) -> dict:
    try:
        text = environment().from_string(source).render(
            tools=None,
            documents=None,
            bos_token="<s>",
            eos_token="</s>",
            add_generation_prompt=True,
            **variables,
        )
    except Exception as error:  # noqa: BLE001 (whatever a template does)
        return {"error": str(error)}
    return {"text": text}


def main() -> None:
    conversations = json.load(sys.stdin)
    rendered = {
        path: {
            name: render(Path(path).read_text(encoding="utf-8"), variables)
            for name, variables in conversations.items()
        }
        for path in sys.argv[1:]
    }
    json.dump(rendered, sys.stdout)


if __name__ == "__main__":
    main()
