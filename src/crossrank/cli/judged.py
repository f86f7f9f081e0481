"""What `crossrank eval` and `crossrank frontier` share: options of a judged collection, and opening it."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import urlsplit

import click

from crossrank import cores, writing
from crossrank.addresses import is_address
from crossrank.cli import options, terminal
from crossrank.credentials import without_secrets

if TYPE_CHECKING:
    from crossrank.cli.counted import Counted
    from crossrank.embedder import TextEmbedder
    from crossrank.evaluation.beir import JudgedSet
    from crossrank.evaluation.setting import Setting
    from crossrank.remoteembedder import RemoteEmbedder
    from crossrank.scorers import PairScorer
    from crossrank.types import Run

F = TypeVar("F", bound=Callable[..., Any])
# What tables call the steps of a search.
STEPS = {"bm25": "BM25", "dense": "dense", "fused": "fusion"}
_FILE = click.Path(dir_okay=False, path_type=Path)


@dataclass(frozen=True)
class Asked:
    """The options of a judged collection, as the command line has them."""

    source: Path | None
    queries: Path | None
    qrels: Path | None
    split: str | None
    runs: tuple[str, ...]
    over: str | None
    models: str
    sample: int | None
    seed: int
    cache: Path | None
    embedder: str | None
    passage_tokens: int | None
    backend: str
    device: str
    dtype: str
    threads: int | None

    @property
    def engine(self) -> dict[str, Any]:
        """How models run."""
        return {"backend": self.backend, "device": self.device, "dtype": self.dtype, "threads": self.threads}


class QueriesFile(click.Path):
    """A file of queries; a number is refused with the option that was meant."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """As click's."""
        if isinstance(value, str) and value.isdecimal() and not Path(value).exists():
            self.fail(
                f"{value} is no file of queries. For a sample of so many queries use --sample {value}", param, ctx
            )
        return super().convert(value, param, ctx)


def collection(runs: str) -> Callable[[F], F]:
    """The options of a judged collection; `runs` is the help of `--run`."""
    listed = (
        click.option("--queries", type=QueriesFile(dir_okay=False, path_type=Path), metavar="FILE",
                     help='Lines of {"_id", "text"}, or of id, tab and text.  [default: queries.jsonl of a BEIR '
                     "folder]"),
        click.option("--qrels", type=_FILE, metavar="FILE",
                     help="Judgments, TREC's four columns or BEIR's three.  [default: those of a BEIR folder]"),
        click.option("--split", metavar="NAME", help="The file in qrels/ of a BEIR folder.  [default: test]"),
        click.option("--run", "runs", multiple=True, metavar="NAME=FILE", help=runs),
        click.option("--over", metavar="NAME",
                     help="Rerank the candidates of this --run, with the texts of a BEIR folder; nothing is indexed."),
        click.option("--models", metavar="A,B", default="small", show_default=True, envvar="CROSSRANK_MODEL",
                     show_envvar=True, help="Cross-encoders or late-interaction models, with commas between them."),
        click.option("--sample", type=options.Count(min=1), metavar="N", help="Only so many queries, by --seed."),
        click.option("--seed", type=options.Count(min=0), metavar="N", default=0, show_default=True,
                     help="Of the sample, the intervals and the tests."),
        click.option("--cache", type=click.Path(file_okay=False, path_type=Path), metavar="DIR",
                     help="Where the index of a BEIR folder is kept; the next time takes it from there."),
        click.option("--embedder", type=options.ModelName(), envvar="CROSSRANK_EMBEDDER", show_envvar=True,
                     help="Bi-encoder, where it is not the one that an index names; URL#MODEL is one behind an "
                     "address, to which all texts of a BEIR folder, or queries to an index, are sent with "
                     "OPENAI_API_KEY.  [default: the index's own, or embed]"),
        click.option("--passage-tokens", type=options.Count(min=0), metavar="N",
                     help="Tokens of a passage when a BEIR folder is indexed; 0 keeps documents whole.  [default: as "
                     "`crossrank index`]"),
    )  # fmt: skip

    def decorated(command: F) -> F:
        for option in reversed(listed):
            command = option(command)
        return command

    return decorated


def opened_set(asked: Asked) -> tuple[JudgedSet, list[str]]:
    """The judged queries, sampled, and what was left out.

    Raises:
        click.UsageError: an option is missing for this kind of source, or has no use there.
        InputError: no document is judged relevant.
    """
    from crossrank.evaluation import setting

    _check_used(asked)
    notes: list[str] = []
    if asked.source is None:
        if asked.qrels is None or not asked.runs:
            raise click.UsageError("name an index or a BEIR folder, or compare runs with --qrels FILE --run NAME=FILE")
        if asked.over:
            raise click.UsageError("--over reranks, which needs the texts: name the BEIR folder")
        judged = setting.judgments(asked.qrels, asked.queries)
    elif setting.is_judged_set(asked.source):
        judged, notes = setting.judged_set(asked.source, asked.split, asked.qrels, asked.queries)
    else:
        if asked.queries is None or asked.qrels is None:
            raise click.UsageError(
                f"{asked.source} is no BEIR folder (it has no corpus.jsonl); for an index name the judged queries: "
                "--queries FILE --qrels FILE"
            )
        judged, notes = setting.questions(asked.queries, asked.qrels)
    judged, drawn = setting.sampled(judged, asked.sample, asked.seed)
    return judged, [*drawn, *notes, *setting.unanswerable(judged.qrels, bool(drawn))]


def _check_used(asked: Asked) -> None:
    """Refuse options that this kind of source does not read."""
    from crossrank.evaluation import setting

    named = {"--cache": asked.cache, "--passage-tokens": asked.passage_tokens, "--split": asked.split}
    given = [option for option, value in named.items() if value is not None]
    if given and (asked.source is None or not setting.is_judged_set(asked.source)):
        raise click.UsageError(f"{given[0]} is for a BEIR folder, one with a corpus.jsonl, and the source is none")
    if given and asked.over is not None and given != ["--split"]:
        raise click.UsageError(f"{given[0]} is of no use beside --over, which indexes nothing")
    if asked.split is not None and asked.qrels is not None:
        raise click.UsageError("--split and --qrels both name the judgments; leave one out")


def opened(asked: Asked, judged: JudgedSet, runs: dict[str, Run], depth: int, progress: terminal.Progress) -> Setting:
    """The collection, searched for every judged query; or the run of `--over`.

    Raises:
        click.UsageError: `--over` names no run, or the index of a BEIR folder has no place.
    """
    from crossrank.embedder import own_name
    from crossrank.evaluation import setting

    assert asked.source is not None
    if asked.over is not None:
        if asked.over not in runs:
            raise click.UsageError(f"--over {asked.over} names no run; there are: {', '.join(runs) or 'none'}")
        if not judged.corpus:
            raise click.UsageError("--over needs the texts of what is ranked, so the source must be a BEIR folder")
        ties = setting.BY_ID if asked.source.is_dir() else setting.BY_TEXT
        return setting.over_run(judged, asked.over, runs[asked.over], ties)
    from crossrank.evaluation import indexing
    from crossrank.index import Index

    if not judged.corpus:
        index = Index.open(asked.source)
        name = asked.embedder or own_name(index.settings.model, asked.source)
        return indexing.over_index(index, judged, _embedder(name, asked, index.settings.prompts), depth, progress)
    if asked.cache is None:
        raise click.UsageError(
            "a BEIR folder is indexed first, which takes a while: say where to keep the index, --cache DIR. To rerank "
            "a run without an index, --run NAME=FILE --over NAME"
        )
    embedder = _embedder(asked.embedder, asked)
    size = indexing.WHOLE if asked.passage_tokens == 0 else asked.passage_tokens
    index = indexing.kept(judged, asked.source, embedder, asked.cache, size, asked.embedder or "embed", progress)
    return indexing.over_index(index, judged, embedder, depth, progress)


def _embedder(
    name: str | None, asked: Asked, prompts: Mapping[str, str] = MappingProxyType({})
) -> TextEmbedder | RemoteEmbedder:
    import crossrank
    from crossrank.embedder import asked_as

    remote = options.remote_embedder(name)
    loaded: dict[str, Any] = {**asked.engine, **prompts}
    return crossrank.load_embedder(name, **loaded) if remote is None else asked_as(remote, prompts)


def check_names(names: Sequence[str]) -> None:
    """Refuse a name that two systems will have, before anything is scored."""
    if twice := next((name for name in names if names.count(name) > 1), None):
        raise click.UsageError(
            f"two systems would be called {twice!r}; give a run or a model's folder another name, and shares of --mix "
            "that differ in their first six digits"
        )


def run_files(named: Sequence[str]) -> dict[str, Path]:
    """The files of `--run NAME=FILE`, by name.

    Raises:
        click.UsageError: no name, or one twice.
    """
    files: dict[str, Path] = {}
    for text in named:
        name, mark, file = text.partition("=")
        if not (name and mark and file):
            raise click.UsageError(f"--run takes NAME=FILE, not {text!r}")
        if name in files:
            raise click.UsageError(f"two runs are called {name!r}")
        files[name] = Path(file)
    return files


def read_runs(named: Sequence[str]) -> dict[str, Run]:
    """The runs of `--run NAME=FILE`.

    Raises:
        click.UsageError: as `run_files`.
        ReadError: a file is missing, damaged or empty.
    """
    from crossrank.evaluation import read_run
    from crossrank.evaluation.files import filled

    return {name: filled(file, read_run(file, ties="trec_eval"), "rankings") for name, file in run_files(named).items()}


def scorers(asked: Asked) -> dict[str, PairScorer]:
    """The models of `--models`, by the last part of their names.

    Raises:
        click.UsageError: as `labels`, or one is behind an address.
    """
    from crossrank.scorers import load_scorer

    named = labels(asked.models)
    if remote := next((label for label, name in named.items() if is_address(name)), None):
        raise click.UsageError(
            f"--models: {remote} is behind an address, and a frontier is of models on this machine: `crossrank eval` "
            "measures it"
        )
    return {label: load_scorer(name, **asked.engine) for label, name in named.items()}


def readers(asked: Asked) -> dict[str, PairScorer | Counted]:
    """Likewise, with those behind an address, which are asked with RERANK_API_KEY.

    Raises:
        click.UsageError: as `labels`, or one key would go to two hosts.
        InputError: an address that is none of a rerank API.
    """
    from crossrank.cli.counted import Counted
    from crossrank.scorers import load_scorer

    named = labels(asked.models)
    # First, because a mistake there is told at once, and loading takes seconds.
    elsewhere = {label: options.remote_reranker(name) for label, name in named.items() if is_address(name)}
    remote = {label: Counted(one, name=label) for label, one in elsewhere.items()}
    hosts = list(dict.fromkeys(_host(one.address) for one in remote.values()))
    if len(hosts) > 1 and os.environ.get("RERANK_API_KEY"):
        raise click.UsageError(
            f"--models: RERANK_API_KEY would be sent to {' and '.join(hosts)}, and is a key of one of them: measure "
            "one at a time, each with --write-runs, and compare the runs"
        )
    return {label: remote.get(label) or load_scorer(name, **asked.engine) for label, name in named.items()}


def labels(models: str) -> dict[str, str]:
    """The names that `--models` lists, by their last parts; behind that of an address its host, where another model has
    the same.

    Raises:
        click.UsageError: two have one last part, or none is named.
    """
    names = [name.strip() for name in models.split(",") if name.strip()]
    if not names:
        raise click.UsageError("--models names none; for first stages alone use --no-rerank")
    if any("://" in name and "#" not in name for name in names):
        # None of it is told: it may be the beginning of a password.
        raise click.UsageError(
            "--models: the address of a rerank API is URL#MODEL, and a comma parts models: write %2C for one in an "
            "address"
        )
    made: dict[str, str] = {}
    parts = [_label(name) for name in names]
    for name, label in zip(names, parts, strict=True):
        if is_address(name) and parts.count(label) > 1:
            label = f"{label} ({_host(name)})"
        if label in made:
            raise click.UsageError(f"two models are called {label!r}; rename the folder of one, or leave it out")
        made[label] = name
    return made


def _label(name: str) -> str:
    """The last part of a name; of a folder that is named by dots, such as ".", that of its path; of URL#MODEL that
    of MODEL."""
    if is_address(name):
        # What comes before a # may hold a password.
        name = name.rpartition("#")[2].partition("?")[0] if "#" in name else "an address without #MODEL"
    return os.path.basename(os.path.abspath(name)) if name else ""


def _host(address: str) -> str:
    """Host and port of an address; empty where it is none."""
    try:
        return urlsplit(str(without_secrets(address))).netloc
    except ValueError:
        return ""


def cascades(named: Sequence[str], models: str) -> list[tuple[str, str]]:
    """Coarse and fine model of each `--cascade`, as `labels` calls them.

    Raises:
        click.UsageError: it is no pair, or names a model that `--models` does not.
    """
    made = []
    for text in named:
        coarse, *rest = (_label(part.strip()) for part in text.split(">"))
        if len(rest) != 1 or not coarse or not rest[0]:
            raise click.UsageError(f"--cascade takes two models, as in 'fast>small', not {text!r}")
        if unknown := next((name for name in (coarse, *rest) if name not in labels(models)), None):
            raise click.UsageError(f"--cascade {text} names {unknown!r}, which --models does not")
        made.append((coarse, rest[0]))
    return list(dict.fromkeys(made))


def weights(text: str | None) -> list[float]:
    """Shares of the cross-encoder, from `0.1,1`; its own order and the product's mix when absent.

    Raises:
        click.UsageError: one is no share.
    """
    from crossrank.pipeline import MIX

    if text is None:
        return [1.0, MIX]
    try:
        found = [float(part) for part in text.split(",")]
    except ValueError:
        raise click.UsageError(f"--mix takes shares with commas between them, not {text!r}") from None
    if not all(0.0 < share <= 1.0 for share in found):
        raise click.UsageError(f"--mix: a share is over 0 and at most 1, not {text}")
    return list(dict.fromkeys(found))


def check_page(html: Path) -> None:
    """Refuse a page that could not be written.

    Raises:
        click.UsageError: its folder does not exist, or takes no file of that name.
    """
    if not html.absolute().parent.is_dir():
        raise click.UsageError(f"--html {html}: there is no folder {html.parent}")
    try:
        writing.check(html)
    except OSError as error:
        raise click.UsageError(f"--html {html} cannot be written: {error.strerror}") from None


def busy() -> list[str]:
    """A note when other programs run: they slow down whatever is timed."""
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else 0.0
    if load <= cores.available() / 2:
        return []
    return [f"Other programs kept {load:.1f} cores busy at the start, so the times here say little."]


def about(asked: Asked, judged: JudgedSet, made: Mapping[str, PairScorer | Counted], depth: int) -> dict[str, Any]:
    """What the figures depend on besides the machine's load."""
    import crossrank
    from crossrank.cli.counted import Counted

    first = next((scorer for scorer in made.values() if not isinstance(scorer, Counted)), None)
    marks = {
        label: scorer.address if isinstance(scorer, Counted) else scorer.fingerprint[:16]
        for label, scorer in made.items()
    }
    return {
        "set": asked.source.resolve().name if asked.source else judged.name,
        "queries": len(judged.queries),
        "models": marks,
        "depth": depth,
        "backend": first.backend.name if first else None,
        "threads": asked.threads or cores.available(),
        "crossrank": crossrank.__version__,
    }
