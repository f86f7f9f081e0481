"""The fields of Markdown's front matter, the block of YAML that a file may begin with. Needs the extra `search`."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

from crossrank.errors import InputError
from crossrank.extras import require
from crossrank.index.documents import Document, Value, left_out, plain_metadata
from crossrank.index.headings import FRONT_MATTER, front_title, without_front_matter
from crossrank.unicode import valid_text

require("yaml", extra="search")
import yaml  # noqa: E402

_MOST_CHARACTERS, _MOST_NODES = 64_000, 5_000
"""Of a block that is read. An alias counts as all that it stands for: a few lines of them can stand for gigabytes."""


class _Loader(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):  # type: ignore[misc]
    """Plain data with the types of YAML 1.2: `no` is a word, and 010 and 2024-05-01 stay as they are written."""


_Loader.yaml_implicit_resolvers = {}
for _tag, _pattern, _first in (
    ("null", r"~|null|Null|NULL|", ["~", "n", "N", ""]),
    ("bool", r"true|True|TRUE|false|False|FALSE", list("tTfF")),
    ("int", r"[-+]?(?:0|[1-9][0-9]*)", list("-+0123456789")),
    ("float", r"[-+]?(?:0|[1-9][0-9]*)?\.[0-9]+(?:[eE][-+]?[0-9]+)?", list("-+.0123456789")),
):
    _Loader.add_implicit_resolver(f"tag:yaml.org,2002:{_tag}", re.compile(f"(?:{_pattern})$"), _first)


def parted(document: Document) -> Document:
    """A document of Markdown with its front matter as title and metadata, and blanks where it stood in the text.

    Metadata that it has already keep their values, and a field of such a name is left out. What only looks like front
    matter, text between two rules, say, and what is not YAML stays in the text, where its title is found all the same.

    >>> text = "---\\ntitle: Retries\\ntype: faq\\nyear: 2020\\n---\\nThree times.\\n"
    >>> found = parted(Document("a.md", text, metadata={"type": "md"}))
    >>> found.title, found.text.strip(), found.metadata, found.omitted
    ('Retries', 'Three times.', {'type': 'md', 'year': 2020}, ['type'])
    """
    title, found = valid_text(front_title(document.text)), fields_of(document.text)
    if found is None:
        return replace(document, title=title)
    fields, omitted = found
    if title or isinstance(fields.get("title", ""), str | None):
        # One that is folded over several lines is read by YAML alone.
        title = title or " ".join(str(fields.get("title") or "").split())
        fields.pop("title", None)
    return replace(
        document,
        text=without_front_matter(document.text),
        title=title,
        metadata={**document.metadata, **{name: fields[name] for name in fields if name not in document.metadata}},
        omitted=[*omitted, *(name for name in fields if name in document.metadata)],
    )


def fields_of(text: str) -> tuple[dict[str, Value], list[str]] | None:
    """What the front matter of a text says, as `plain_metadata` keeps it; and the names of what is left out.

    None where there is no such block, or one that is no mapping, is not YAML, or is too large.

    >>> fields_of("---\\ntitle: Retries\\ntags: [upload, api]\\nweight: 4\\nlang: no\\n---\\nThree times.\\n")
    ({'title': 'Retries', 'tags': ['upload', 'api'], 'weight': 4, 'lang': 'no'}, [])
    """
    found = FRONT_MATTER.match(text)
    if found is None:
        return None
    try:
        fields = _mapping(found["fields"])
        kept = plain_metadata(fields)
    # Numbers of thousands of digits, keys that are lists, `!!bool maybe`, nests of brackets.
    except (yaml.YAMLError, InputError, ValueError, TypeError, LookupError, RecursionError):
        return None
    return kept, left_out(fields, kept)


def _mapping(written: str) -> dict[Any, Any]:
    """Raises: ValueError: too large, or no mapping; and what YAML and Python make of what they cannot read."""
    if len(written) > _MOST_CHARACTERS:
        raise ValueError("too long")
    loader = _Loader(written)
    try:
        node = loader.get_single_node()
        if not isinstance(node, yaml.MappingNode):
            raise ValueError("no mapping")
        _count(node)
        made: dict[Any, Any] = loader.construct_document(node)
    finally:
        loader.dispose()
    return made


def _count(root: yaml.Node) -> None:
    """Refuse what is too large when it is written out. Raises: ValueError."""
    waiting, seen = [root], 0
    while waiting:
        node = waiting.pop()
        seen += 1
        if seen > _MOST_NODES:
            raise ValueError("too large")
        if isinstance(node, yaml.MappingNode):
            waiting += [part for pair in node.value for part in pair]
        elif isinstance(node, yaml.SequenceNode):
            waiting += node.value
