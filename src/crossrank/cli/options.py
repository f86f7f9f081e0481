"""Options that several commands share. Each may also come from an environment variable, which its help names."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

import click
from click.core import ParameterSource
from click.shell_completion import CompletionItem

from crossrank.addresses import is_address
from crossrank.errors import InputError

if TYPE_CHECKING:
    from crossrank.llm import LanguageModel
    from crossrank.remoteembedder import RemoteEmbedder
    from crossrank.remotereranker import RemoteReranker
    from crossrank.scorecache import CachedScorer
    from crossrank.types import Scorer

    TextType = click.ParamType[str]
else:
    # Generic only since click 8.4.
    TextType = click.ParamType

F = TypeVar("F", bound=Callable[..., Any])
S = TypeVar("S", bound="Scorer")
# What the options of `engine` give: backend, device, dtype, threads.
Engine = tuple[str, str, str, "int | None"]
_DAY = 86_400


class ModelName(TextType):
    """A model: a name of the catalog, a hub name, or a folder."""

    name = "model"

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        """Catalog names that start so; when there are none, folders."""
        from crossrank.models.catalog import ALIASES, CATALOG

        known = (*(entry.name for entry in CATALOG), *ALIASES)
        names = [name for name in known if name.startswith(incomplete)]
        folders = [] if names else [CompletionItem(incomplete, type="dir")]
        return [CompletionItem(name) for name in names] + folders


class Given(click.Path):
    """A file or folder to read. One that is missing is an error in the input, and ends with the code of those."""

    def __init__(self, **how: Any) -> None:
        super().__init__(exists=True, **how)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """As click's, but for the error."""
        try:
            return super().convert(value, param, ctx)
        except click.UsageError as error:
            if os.path.exists(value):
                raise
            raise InputError(error.format_message()) from error


class Top(click.Option):
    """`-k`, which also goes by the names that other tools have for it; help shows `-k` alone."""

    def add_to_parser(self, parser: Any, ctx: click.Context) -> None:
        """As click's."""
        super().add_to_parser(parser, ctx)
        parser.add_option(self, ["--top-k", "--top-n"], dest=self.name)


class Number(click.FloatRange):
    """A finite number in a range. click's own takes NaN, which is in no range, and infinity where no end is given."""

    name = "number"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """As click's, for numbers."""
        number = super().convert(value, param, ctx)
        if not math.isfinite(number):
            self.fail(f"{value} is not a finite number", param, ctx)
        return number


class Count(click.IntRange):
    """A whole number in a range, of 32 bits, see `crossrank.asking.LARGEST`."""

    name = "integer"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """As click's."""
        from crossrank.asking import LARGEST

        number = super().convert(value, param, ctx)
        if number > LARGEST:
            self.fail(f"{value} is more than {LARGEST:,}", param, ctx)
        return number


class Seconds(Number):
    """A time of at most a day: clocks of the system fail far beyond it, and nobody waits for an answer so long."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """As a number."""
        seconds = super().convert(value, param, ctx)
        if seconds > _DAY:
            self.fail(f"{value} is more than {_DAY:,} seconds, a day", param, ctx)
        return seconds


class Threshold(Number):
    """A probability, or "model" for the model's own threshold."""

    name = "threshold"

    def __init__(self) -> None:
        super().__init__(0, 1)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """ "model" as it is, everything else as a number from 0 to 1."""
        return value if value == "model" else super().convert(value, param, ctx)


model = click.option(
    "--model",
    "-m",
    type=ModelName(),
    envvar="CROSSRANK_MODEL",
    show_envvar=True,
    help="Cross-encoder: a name from `crossrank models`, a hub name, or a folder.  [default: small]",
)
embedder = click.option(
    "--embedder",
    type=ModelName(),
    metavar="NAME",
    help="Bi-encoder, where it is not the one that INDEX names: a folder that was moved, or URL#MODEL of an index made "
    "with one behind an address, to which queries and OPENAI_API_KEY are sent.",
)
llm = click.option(
    "--llm",
    metavar="URL#MODEL",
    help="A language model behind an OpenAI-compatible address, which reads last: it is asked about each of the best "
    "passages, and these, the query and OPENAI_API_KEY are sent there.",
)
llm_depth = click.option(
    "--llm-depth",
    type=Count(min=1),
    metavar="N",
    default=10,
    show_default=True,
    help="Passages that --llm reads.",
)
llm_window = click.option(
    "--llm-window",
    type=Count(min=2),
    metavar="N",
    help="Let --llm order N passages at a time, from the last to the first (RankGPT), instead of judging each alone.",
)
rerank_api = click.option(
    "--rerank-api",
    metavar="URL#MODEL",
    help="A rerank API in place of --model: that of Cohere, Jina, Voyage and others, or `crossrank serve` elsewhere. "
    "The query, the passages it reads and RERANK_API_KEY are sent there.",
)
as_json = click.option("--json", "as_json", is_flag=True, help="Print one JSON object a line.")

per_document = click.option(
    "--per-document", type=Count(min=1), metavar="N",
    help="At most so many passages of one document, its best: -k counts what is left, and stderr says what was left "
    "out. A --stop-early reads further then.  [default: any number]",
)  # fmt: skip
cache = click.option(
    "--cache",
    type=click.Path(dir_okay=False),
    metavar="FILE",
    envvar="CROSSRANK_CACHE",
    show_envvar=True,
    help="Remember scores of cross-encoders in FILE, without texts, and look them up there first.  [default: remember "
    "nothing]",
)

backend = click.option(
    "--backend",
    default="auto",
    show_default=True,
    envvar="CROSSRANK_BACKEND",
    show_envvar=True,
    help="What runs the model; `crossrank doctor` says what auto picks, and why.",
)
device = click.option(
    "--device",
    default="auto",
    show_default=True,
    envvar="CROSSRANK_DEVICE",
    show_envvar=True,
    help="Where the model runs: cpu, cuda, or cards such as cuda:1; the cuda backend also takes cuda:0,1 and cuda:all.",
)
dtype = click.option(
    "--dtype",
    default="auto",
    show_default=True,
    envvar="CROSSRANK_DTYPE",
    show_envvar=True,
    help="Number format the model runs in: float32, bfloat16, float16 (in torch on a CPU) or int16 (AVX2 or AMX).",
)

threads = click.option(
    "--threads",
    type=click.IntRange(1, 1024),
    envvar="CROSSRANK_THREADS",
    show_envvar=True,
    help="Cores that the native engine uses for one call.  [default: all that this process may use]",
)


def remote_embedder(name: str | None, *, timeout: float = 60.0, tries: int = 4) -> RemoteEmbedder | None:
    """The embedder behind the address `URL#MODEL`, with the key of OPENAI_API_KEY; None for any other name."""
    if name is None or not is_address(name):
        return None
    from crossrank.remoteembedder import RemoteEmbedder

    return RemoteEmbedder.named(name, os.environ.get("OPENAI_API_KEY", ""), timeout=timeout, tries=tries)


def language_model(name: str, window: int | None = None) -> LanguageModel:
    """The language model behind the address `URL#MODEL`, with the key of OPENAI_API_KEY.

    Raises:
        InputError: no such name.
    """
    from crossrank.llm import LanguageModel

    return LanguageModel.named(name, os.environ.get("OPENAI_API_KEY", ""), window=window)


def remote_reranker(name: str) -> RemoteReranker:
    """The rerank API behind the address `URL#MODEL`, with the key of RERANK_API_KEY.

    Raises:
        InputError: no such name.
    """
    from crossrank.remotereranker import RemoteReranker

    return RemoteReranker.named(name, os.environ.get("RERANK_API_KEY", ""))


def typed(name: str) -> bool:
    """Whether an option of the running command was given on the command line, and not by its default or a variable."""
    source = click.get_current_context().get_parameter_source(name)
    return source is ParameterSource.COMMANDLINE


def given(names: Sequence[str]) -> str:
    """Which of these options are on the command line, as they are written there."""
    written = {one.name: max(one.opts, key=len) for one in click.get_current_context().command.params}
    return ", ".join(written[name] for name in names if typed(name))


def remembering(scorer: S, cache: str | None) -> S | CachedScorer:
    """The scorer, with the scores in the file of `--cache`. That of the variable is passed over where none are kept.

    Raises:
        InputError: the file was typed for what is no cross-encoder, or holds something else.
    """
    from crossrank.crossencoder import CrossEncoder
    from crossrank.scorecache import CachedScorer

    if cache is None or not (typed("cache") or isinstance(scorer, CrossEncoder)):
        return scorer
    made = CachedScorer(scorer, cache)
    click.get_current_context().call_on_close(made.close)
    return made


def prompts(command: F) -> F:
    """What an embedder reads before texts: `--query-prompt`, `--document-prompt`."""
    query = click.option(
        "--query-prompt",
        metavar="TEXT",
        help='What the bi-encoder was trained to read before a query, such as "query: ".  '
        "[default: the index's, or what the model's folder says]",
    )
    document = click.option(
        "--document-prompt",
        metavar="TEXT",
        help='What it was trained to read before a document, such as "passage: ".',
    )
    return query(document(command))


def prompts_asked(made: Mapping[str, str], query: str | None, document: str | None) -> dict[str, str]:
    """The prompts of an index: those that are named, or else those that it was made with.

    Args:
        made: those that it was made with, where they are not its model's own.
        query: `--query-prompt`.
        document: `--document-prompt`.
    """
    asked = {"query_prompt": query, "document_prompt": document}
    return {**made, **{key: text for key, text in asked.items() if text is not None}}


def check_prompts(folder: str | os.PathLike[str], made: Mapping[str, str] | None, embedder: object) -> None:
    """Refuse an embedder with other prompts than the index, which is there already, was made with.

    Raises:
        InputError: it has others.
    """
    now = getattr(embedder, "prompts", {})
    if made is not None and now != made:
        raise InputError(
            f"the index {os.fspath(folder)} was made with {dict(made) or 'the prompts of its model'}, not with "
            f"{dict(now) or 'those of its model'}: leave --query-prompt and --document-prompt out, or make it anew "
            "with `crossrank index --rebuild`"
        )


def engine(command: F) -> F:
    """Where and how a model runs: `--backend`, `--device`, `--dtype`, `--threads`."""
    # Decorators apply from the inside out, and help lists options from the outside in.
    return backend(device(dtype(threads(command))))
