"""Rerankers that are language models: what they are asked about a pair, and which token answers.

Qwen3-Reranker and its kin, as sentence-transformers 5.4 and later lays them out: a chat template with the roles `query`
and `document`, and a module LogitScore with the numbers of the tokens "yes" and "no".
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from crossrank.checkpoint import settings
from crossrank.checkpoint.vocabulary import spelled
from crossrank.errors import CheckpointError, InputError
from crossrank.unicode import valid_text

# Words of a model that does not say how many it has.
LARGEST = 2**31
# Bytes of a chat template.
MAX_TEMPLATE = 200_000
# Characters of an instruction, which is tokenized beside each probe of a template.
MAX_INSTRUCTION = 50_000
# No text of a template, and white space around each that no template writes: what trims takes it off.
QUERY, DOCUMENT = "\ue000query\ue000", "\ue000document\ue000"
BLANKS = ("\u2002", "\u2003", "\u2004", "\u2005")
# What shows that a template changes texts: quotes, marks of HTML, ends of lines, capitals; longer than it would cut.
ODD = ('Ab "c" <d> & \\e\n\nF  g: ' * 2000, "'H' {i} | j%\r\n\tK\u00e9 " * 3000)
# Of `apply_chat_template`, or of sentence-transformers alone: how long a sequence is, which is not the template's.
LENGTHS = ("padding", "truncation", "max_length", "return_tensors", "restore_suffix")


@dataclass(frozen=True, slots=True)
class PairPrompt:
    """What a model reads of a pair: `before`, the query, `between`, the document, `after`.

    Attributes:
        before: text in front of the query.
        between: text between the two.
        after: text behind the document.
        bare_query: whether white space around the query is left out.
        bare_document: whether white space around the document is.
    """

    before: str
    between: str
    after: str
    bare_query: bool = False
    bare_document: bool = False

    def of(self, query: str, document: str) -> str:
        """The whole text that is read of a pair.

        >>> PairPrompt("Q: ", " D: ", ".", bare_query=True).of(" tea ", "hot")
        'Q: tea D: hot.'
        """
        query = query.strip() if self.bare_query else query
        document = document.strip() if self.bare_document else document
        return f"{self.before}{query}{self.between}{document}{self.after}"


@dataclass(frozen=True, slots=True)
class Answer:
    """The score of a pair: what the model's next token is.

    Attributes:
        yes: the token that says relevant.
        no: the token that says not relevant, whose logit is subtracted; None for none.
    """

    yes: int
    no: int | None = None


def answer(folder: Path, config: Mapping[str, Any]) -> Answer | None:
    """What the module LogitScore of a folder states; None where it has none.

    Raises:
        CheckpointError: it is damaged, or there are modules beside it that crossrank does not compute.
    """
    listed = settings.modules(folder)
    kinds = [kind for kind, _ in listed]
    if "LogitScore" not in kinds:
        return None
    if kinds != ["Transformer", "LogitScore"]:
        raise CheckpointError(
            f"{folder} scores with the sentence-transformers modules {', '.join(kinds)}; of language models crossrank "
            "computes Transformer, LogitScore. Use it through sentence-transformers, or choose another."
        )
    where = listed[1][1] / "config.json"
    stated = settings.load_json(where)
    yes, no = (settings.whole(stated, f"{name}_token_id", str(where)) for name in ("true", "false"))
    rows = settings.whole(config, "vocab_size", str(folder))
    words = range(LARGEST if rows is None else rows)
    if yes is None or yes not in words or (no is not None and no not in words):
        raise CheckpointError(
            f"{where}: true_token_id {yes} and false_token_id {no} are not both words of the model. Download or copy "
            "the model again."
        )
    return Answer(yes, no)


def prompt(folder: Path, vocabulary: Path, instruction: str | None = None) -> PairPrompt | None:
    """What a folder's chat template makes of a pair; None where sentence-transformers uses none.

    Args:
        folder: of the model.
        vocabulary: the folder that holds the tokenizer.
        instruction: the system message; the folder's default prompt when absent, and none where it has none.

    Raises:
        CheckpointError: the template is missing, fails, or does not hold the two texts as they are, query first.
        InputError: the template does not hold the instruction.
        MissingExtraError: Jinja is not installed.
    """
    stated = settings.optional_json(folder / "sentence_bert_config.json")
    ways = stated.get("modality_config")
    if not isinstance(ways, dict) or "message" not in ways:
        return None
    way = ways["message"].get("format") if isinstance(ways["message"], dict) else None
    system = settings.prompt(folder) if instruction is None else _check_text(instruction)
    source = _Source(folder, _template(folder, vocabulary), _values(vocabulary, stated))
    # Where the folder does not say which form of messages its template takes, the first that it does.
    structured = way == "structured"
    try:
        made = source.asked(system, structured)
    except CheckpointError:
        if way in ("flat", "structured"):
            raise
        structured = True
        made = source.asked(system, structured)
    if instruction is not None and source.asked(f"{system} or not", structured) == made:
        raise InputError(
            f"the chat template of {folder} has no place for an instruction (it leaves out the system message): leave "
            f"instruction={instruction!r:.200} out"
        )
    return made


def _check_text(instruction: object) -> str:
    """An instruction as it is.

    Raises:
        InputError: it is blank, no text, no valid Unicode, or longer than any model reads.
    """
    if not isinstance(instruction, str) or not instruction.strip() or valid_text(instruction) != instruction:
        raise InputError(f"an instruction is a text in valid Unicode that is not blank, not {instruction!r:.200}")
    if len(instruction) > MAX_INSTRUCTION:
        raise InputError(
            f"an instruction has at most {MAX_INSTRUCTION:,} characters, not {len(instruction):,}: shorten it"
        )
    return instruction


@dataclass(frozen=True, slots=True)
class _Source:
    """A folder's chat template, and what it may ask for beside the messages."""

    folder: Path
    template: str
    values: Mapping[str, Any]

    def asked(self, system: str, structured: bool) -> PairPrompt:
        """What it makes of a pair.

        Raises:
            CheckpointError: it fails, or does not hold the two texts as they are, query first.
        """
        from crossrank.checkpoint import templating  # 6 ms of imports that other models do not need

        marked = f"{BLANKS[0]}{QUERY}{BLANKS[1]}", f"{BLANKS[2]}{DOCUMENT}{BLANKS[3]}"
        values = [{**self.values, "messages": _messages(system, pair, structured)} for pair in (marked, ODD)]
        plain, odd = templating.rendered(self.template, values, str(self.folder))
        parts = _parts(plain)
        if parts is None or parts.of(*ODD) != odd or valid_text(plain) != plain:
            raise CheckpointError(
                f"{self.folder}: its chat template does not give the query and then the document, each once and as it "
                "is (but for white space around it). crossrank reads templates with a message of role 'query' and one "
                "of role 'document', as sentence-transformers does; use a folder whose chat_template.jinja has them."
            )
        return parts


def _template(folder: Path, vocabulary: Path) -> str:
    """The chat template: a file of its own, or in the tokenizer's settings."""
    for place in dict.fromkeys((folder, vocabulary)):
        path = place / "chat_template.jinja"
        if path.is_file():
            return _text(path)
    found = settings.optional_json(vocabulary / "tokenizer_config.json").get("chat_template")
    if isinstance(found, list):  # several, by name
        named = {one.get("name"): one.get("template") for one in found if isinstance(one, dict)}
        found = named.get("default")
    if not isinstance(found, str) or len(found) > MAX_TEMPLATE:
        raise CheckpointError(
            f"{folder} says that pairs are read through a chat template and has none of up to {MAX_TEMPLATE:,} "
            "characters: it belongs into chat_template.jinja. Download or copy the model again."
        )
    return found


def _text(path: Path) -> str:
    try:
        return settings.bounded(path, MAX_TEMPLATE, "a chat template").decode("utf-8")
    except UnicodeDecodeError as error:
        raise CheckpointError(f"{path} is not UTF-8. Download or copy the model again.") from error
    except OSError as error:
        raise CheckpointError(f"cannot read {path}: {error.strerror}") from error


def _values(vocabulary: Path, stated: Mapping[str, Any]) -> dict[str, Any]:
    """What a template may ask for beside the messages: special tokens, and what the folder's settings add."""
    found: dict[str, Any] = {"tools": None, "documents": None, "add_generation_prompt": False}
    named = settings.optional_json(vocabulary / "tokenizer_config.json")
    mapped, extra = settings.optional_json(vocabulary / "special_tokens_map.json"), named.get("extra_special_tokens")
    # The latter wins. In transformers that is the map, unless the settings list the tokens that were added.
    for tokens in (*((mapped, named) if "added_tokens_decoder" in named else (named, mapped)), extra):
        for name, value in tokens.items() if isinstance(tokens, dict) else ():
            # One that is null is none: a template asks whether it is defined.
            if name.endswith("_token") and (text := spelled(value)) is not None:
                found[name] = text
    processing = stated.get("processing_kwargs")
    told = processing.get("chat_template") if isinstance(processing, dict) else None
    if isinstance(told, dict):
        found.update({name: value for name, value in told.items() if name not in LENGTHS})
    return found


def _messages(system: str, pair: tuple[str, str], structured: bool) -> list[dict[str, Any]]:
    texts = [*([("system", system)] if system else []), ("query", pair[0]), ("document", pair[1])]
    return [{"role": role, "content": [{"type": "text", "text": text}] if structured else text} for role, text in texts]


def _parts(made: str) -> PairPrompt | None:
    """The text around both texts; None where one is missing, comes twice or behind the other, or is trimmed at one end
    alone."""
    before, _, rest = made.partition(QUERY)
    between, _, after = rest.partition(DOCUMENT)
    if made.count(QUERY) != 1 or rest.count(DOCUMENT) != 1:
        return None
    query = before.endswith(BLANKS[0]), between.startswith(BLANKS[1])
    document = between.endswith(BLANKS[2]), after.startswith(BLANKS[3])
    if query[0] != query[1] or document[0] != document[1]:
        return None
    before, between, after = (text.strip("".join(BLANKS)) for text in (before, between, after))
    return PairPrompt(before, between, after, not query[0], not document[0])
