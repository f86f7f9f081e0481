"""Chat templates. Each is a program that comes with a model, so it runs in Jinja's sandbox, in a process of its own.

The sandbox keeps a template from the machine. It does not keep it from taking all memory, or from running for ever:
`{{ 'a' * 10**10 }}` is a template. The process does, which may take so much of both and no more.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping
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
from jinja2.sandbox import ImmutableSandboxedEnvironment

def refuse(message):
    raise TemplateError(message)

def as_json(value, ensure_ascii=False, indent=None, separators=None, sort_keys=False):
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)

given = json.loads(sys.stdin.buffer.read())
made = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True, extensions=["jinja2.ext.loopcontrols"])
made.filters["tojson"] = as_json
made.globals.update(raise_exception=refuse, strftime_now=lambda form: datetime.datetime.now().strftime(form))
try:
    text, size = [], 0
    for part in made.from_string(given["template"]).generate(**given["values"]):
        size += len(part)
        if size > most:
            refuse("it gives over %d characters" % most)
        text.append(part)
    told = {"text": "".join(text)}
except BaseException as error:
    told = {"error": type(error).__name__ + ": " + str(error)[:300]}
sys.stdout.buffer.write(json.dumps(told).encode())
"""


def rendered(template: str, values: Mapping[str, Any], where: str) -> str:
    """The text that a chat template gives.

    Args:
        template: in Jinja's language.
        values: what it may name, as JSON has it.
        where: whose it is, for messages.

    Raises:
        CheckpointError: it is no template, it fails, or it takes too much time or memory.
        MissingExtraError: Jinja is not installed.

    >>> rendered("{{ messages[0].content }}!", {"messages": [{"content": "Hello"}]}, "a model")
    'Hello!'
    """
    extras.require("jinja2", extra="torch")
    command = [sys.executable, "-I", "-c", PROGRAM, json.dumps([sys.path, MEMORY, MOST])]
    given = json.dumps({"template": template, "values": dict(values)}).encode()
    try:
        done = subprocess.run(command, input=given, capture_output=True, timeout=SECONDS, check=False)
        told = json.loads(done.stdout)
    except subprocess.TimeoutExpired:
        told = {"error": f"it runs for over {SECONDS} seconds"}
    except OSError as error:
        told = {"error": f"{sys.executable} cannot be started: {error.strerror}"}
    except ValueError:  # ended from outside, or by what it took
        told = {"error": f"its process ended with {done.returncode}"}
    if "text" not in told:
        raise CheckpointError(
            f"{where}: its chat template cannot be used for a query and a document ({told['error']}). Use a folder "
            "whose chat_template.jinja has messages of these two roles, as sentence-transformers saves rerankers."
        )
    return str(told["text"])
