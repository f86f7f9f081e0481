"""Chat templates. Each is a program that comes with a model, so it runs in Jinja's sandbox, in a process of its own.

The sandbox keeps a template from the machine. It does not keep it from taking all memory, or from running for ever:
`{{ 'a' * 10**10 }}` is a template. The process does, which may take so much of both and no more.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from crossrank import extras
from crossrank.errors import CheckpointError

# One that is used takes 60 MB and a quarter of a second, nearly all of it Python and Jinja.
MEMORY, SECONDS = 1_000_000_000, 30
# Bytes of what it gives.
MOST = 1_000_000
# Settings and functions are those of transformers' `apply_chat_template`.
PROGRAM = r"""
import json, sys
sys.path[:], memory, most = json.loads(sys.argv[1])
try:
    import resource
    resource.setrlimit(resource.RLIMIT_AS, (memory, memory))
except (ImportError, ValueError, OSError):  # not on Windows, and not under a lower limit
    pass
import datetime
from jinja2.exceptions import TemplateError
from jinja2.ext import Extension
from jinja2.sandbox import ImmutableSandboxedEnvironment

def refuse(message):
    raise TemplateError(message)

def as_json(value, ensure_ascii=False, indent=None, separators=None, sort_keys=False):
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)

class Generation(Extension):  # marks what an assistant has said, for training
    tags = {"generation"}

    def parse(self, parser):
        next(parser.stream)
        return parser.parse_statements(["name:endgeneration"], drop_needle=True)

given = json.loads(sys.stdin.buffer.read())
extensions = ["jinja2.ext.loopcontrols", Generation]
made = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True, extensions=extensions)
made.filters["tojson"] = as_json
made.globals.update(raise_exception=refuse, strftime_now=lambda form: datetime.datetime.now().strftime(form))
try:
    template, texts = made.from_string(given["template"]), []
    for values in given["values"]:
        text, size = [], 0
        for part in template.generate(**values):
            size += len(part)
            if size > most:
                refuse("it gives over %d characters" % most)
            text.append(part)
        texts.append("".join(text))
    told = {"texts": texts}
except BaseException as error:
    told = {"error": type(error).__name__ + ": " + str(error)[:300]}
sys.stdout.buffer.write(json.dumps(told).encode())
"""


def rendered(template: str, values: Sequence[Mapping[str, Any]], where: str) -> list[str]:
    """The texts that a chat template gives.

    Args:
        template: in Jinja's language.
        values: for each text what it may name, as JSON has it.
        where: whose it is, for messages.

    Raises:
        CheckpointError: it is no template, it fails, or it takes too much time or memory.
        MissingExtraError: Jinja is not installed.

    >>> rendered("{{ messages[0].content }}!", [{"messages": [{"content": "Hello"}]}], "a model")
    ['Hello!']
    """
    extras.require("jinja2", extra="torch")
    # As far as it can be written down: a path may be any object, and a host that embeds Python may name no program.
    places = [place for place in sys.path if isinstance(place, str)]
    command = [sys.executable or "python3", "-I", "-c", PROGRAM, json.dumps([places, MEMORY, MOST])]
    given = json.dumps({"template": template, "values": [dict(one) for one in values]}).encode()
    try:
        done = subprocess.run(command, input=given, capture_output=True, timeout=SECONDS, check=False)
        told = json.loads(done.stdout)
    except subprocess.TimeoutExpired:
        told = {"error": f"it runs for over {SECONDS} seconds"}
    except OSError as error:
        told = {"error": f"{command[0]} cannot be started: {error.strerror}"}
    except ValueError:  # ended from outside, or by what it took
        told = {"error": f"its process ended with {done.returncode}"}
    if "texts" not in told:
        raise CheckpointError(
            f"{where}: its chat template cannot be used for a query and a document ({told['error']}). Use a folder "
            "whose chat_template.jinja has messages of these two roles, as sentence-transformers saves rerankers."
        )
    return [str(text) for text in told["texts"]]
