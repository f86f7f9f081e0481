"""Fine-tune on judgments: check, mine, cross-validate, decide, and write a model only if it is better.

    check -> mine -> score with the base -> for each fold and seed: train, measure after each epoch
          -> pick epoch and share -> gate -> mean of all trainings, mixed with the base -> calibrate -> write

Every training leaves out a fold, and the final model is the mean of their weights: it has learned from all queries, and
costs no training of its own. Needs the extra `train`.
"""

from __future__ import annotations

import math
import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from errno import EXDEV
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from crossrank import cores
from crossrank.checkpoint import Checkpoint, check_target
from crossrank.checkpoint.copying import assembled
from crossrank.checkpoint.exporting import clear
from crossrank.errors import CheckpointError, InputError
from crossrank.extras import require
from crossrank.models import named
from crossrank.training import card, checks, gate
from crossrank.training import network as net
from crossrank.training.checks import Finding
from crossrank.training.gate import Verdict
from crossrank.training.judgments import Group, Judgments
from crossrank.training.material import Material, gathered
from crossrank.training.negatives import DEPTH, Nearest
from crossrank.training.outcome import Engine, Outcome, Progress
from crossrank.training.prepared import Prepared
from crossrank.training.settings import Settings, check_loss
from crossrank.training.trainings import Trainings
from crossrank.training.work import Work, ended

require("torch", extra="train")
import torch  # noqa: E402

UNSEARCHED = (
    "the index is not searched, because what it finds has no score of the teacher: only the documents in the rows are "
    "trained on and measured. To decide by searches, give rows with labels"
)


def tune(
    judgments: Judgments,
    to: str | Path,
    *,
    refused: str | Path | None = None,
    model: str | Path | None = None,
    held_out: Judgments | None = None,
    nearest: Nearest | None = None,
    general_sets: Mapping[str, Sequence[Group]] | None = None,
    settings: Settings | None = None,
    engine: Engine | None = None,
    restart: bool = False,
    overwrite: bool = False,
    report: Callable[[Progress], None] | None = None,
) -> Outcome:
    """Fine-tune a cross-encoder, and keep the base model unless the tuned one is better.

    Args:
        judgments: see `reading.read`.
        to: folder of the tuned model, made only when the gate keeps it. Beside it, `NAME.tuning` holds the state until
            the end; the same call goes on with it.
        refused: folder for a trained model that the gate refuses, to look at; its card says why it was refused.
        model: the base; "small" when absent.
        held_out: judgments to decide on, instead of cross-validation.
        nearest: where hard negatives are looked for; BM25 over the documents of the judgments when absent. With
            `searched.searched_by`, both models are also measured in whole searches, and the tuned one's share is found.
            Without meaning for a teacher's scores, which is a finding.
        general_sets: more general questions, by name, besides the built-in ones.
        settings: see `Settings`.
        engine: where it runs.
        restart: throw away the state of another tuning.
        overwrite: write into a folder that holds something.
        report: told about every step.

    Raises:
        InputError: a setting is wrong; a folder holds something, is a file, or an unfinished tuning of other things;
            `refused` is not apart from `to` and its work; or the judgments are something else, such as the name of a
            file.
        IndexFileError: another process is tuning into this folder.
        CheckpointError: the base model cannot be loaded or trained, or lies in a folder that would be written to.
    """
    began = time.monotonic()
    for given in (judgments, *([] if held_out is None else [held_out])):
        if not isinstance(given, Judgments):
            raise InputError(
                f"tune takes Judgments, not {type(given).__name__}: read a file or a folder with "
                "crossrank.training.reading.read(path), and rows of a program with reading.rows(rows)"
            )
    target, aside = Path(to), None if refused is None else Path(refused)
    _check_folders(target, aside, overwrite, restart)
    settings, engine = settings or Settings(), engine or Engine()
    tell = report or (lambda progress: None)
    tell(Progress("checking"))
    if settings.loss is not None:
        check_loss(settings.loss, judgments.scale)
    groups, held, findings, dropped = checks.together(judgments, held_out)
    if any(finding.fatal for finding in findings):
        reasons = tuple(finding.message for finding in findings if finding.fatal)
        return Outcome(Verdict("base", reasons), findings, seconds=time.monotonic() - began)
    read = named.read(model, "small")
    _check_head(read)
    for folder in (target, *([] if aside is None else [aside])):
        check_target(read, folder, overwrite=True)
    pool = judgments.pool or tuple(dict.fromkeys(row.document for row in judgments.rows))
    if nearest is not None and judgments.scale == "scores":
        findings = (*findings, Finding("index", len(groups), UNSEARCHED))
    if nearest is None:
        tell(Progress("indexing words"))
        from crossrank.evaluation.words import Words  # not needed where the user has an index

        nearest = Words(pool).nearest
    tell(Progress("mining negatives"))
    material = gathered(groups, held, judgments.scale, nearest, pool, settings, dropped)
    findings = (*findings, *_of_search(material))
    with _threads(engine.threads):
        prepared = Prepared(read, material, settings, engine, general_sets or {}, tell)
        outcome = _run(prepared, target, aside, judgments.source, findings, restart)
    return replace(outcome, seconds=time.monotonic() - began)


def _of_search(material: Material) -> tuple[Finding, ...]:
    """What the user should know of the search that was asked."""
    lost, queries = len(material.unfound), len(material.shown)
    if not lost:
        return ()
    told = f"{lost:,} of {queries:,} queries have no relevant document among the {DEPTH} passages that the index finds"
    decided = (
        "no order helps these, and they are not measured"
        if material.searched
        else "too few are left, so it is decided by lists of documents and not by searches"
    )
    return (Finding("not found", lost, f"{told}: {decided}", material.unfound[:3]),)


def _work(target: Path) -> Path:
    return target.with_name(target.name + ".tuning")


def _check_head(read: Checkpoint) -> None:
    if not assembled(read):
        return
    why = "has its head in sentence-transformers modules" if read.pair is None else "is asked through a prompt"
    raise CheckpointError(
        f"{read.name} {why}, and tune trains models whose head is in the network, such as 'small'. Its probabilities "
        "can be fitted with `crossrank calibrate`; train it with sentence-transformers"
    )


def _check_folders(target: Path, aside: Path | None, overwrite: bool, restart: bool) -> None:
    """Before hours of training, whether their model can be put there."""
    for folder in (target, *([] if aside is None else [aside])):
        if folder.name in ("", ".."):
            raise InputError(f"a model needs a folder of its own, which {folder} cannot be: give it a name")
        if not folder.is_dir() and (folder.exists() or folder.is_symlink()):
            raise InputError(f"{folder} is a file, and a model is a folder: give another name")
        # Of a tuning that was killed when nothing was left but to put its model there, some of it is there already.
        ours = not restart and ended(_work(target))
        if not (overwrite or ours) and folder.is_dir() and any(folder.iterdir()):
            raise InputError(f"{folder} is not empty: give a new folder, or say so with --force (overwrite=True)")
    if aside is None:
        return
    for folder, what in ((target, "a model that is kept"), (_work(target), "the work until the end")):
        one, other = folder.resolve(), aside.resolve()
        if one == other or one in other.parents or other in one.parents:
            raise InputError(f"{folder} is for {what}: give a refused model a folder apart from it, not {aside}")


@contextmanager
def _threads(count: int | None) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(count or cores.available())
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _run(
    prepared: Prepared, target: Path, aside: Path | None, source: str, findings: tuple[Finding, ...], restart: bool
) -> Outcome:
    """Train, decide, write."""
    material = prepared.material
    telling = int((material.telling & (material.fold >= 0)).sum())
    counts = {
        "queries": len(material.shown),
        "pairs": sum(len(np.unique(one.owner[one.judged])) for one in material.shown),
        "mined": sum(int((~one.judged & (one.distractor == 0)).sum()) for one in material.shown),
    }
    if telling < gate.FEWEST_HELD_OUT:
        return Outcome(gate.decide(np.zeros(telling), np.zeros(telling), [], chosen=False), findings, counts=counts)
    key = prepared.key()
    rows = prepared.hold_out()
    counts["measured"] = len(rows)
    if len(rows) < gate.FEWEST_HELD_OUT:
        return Outcome(_too_long(len(rows), prepared), findings, counts=counts)
    with Work(_work(target), key, restart) as work:
        if work.outcome is None:
            outcome = _trained(prepared, work, rows, target, aside, source, findings, counts)
            work.end(outcome.record())
        else:
            outcome = replace(Outcome.of(work.outcome, findings), resumed=True)
        made, to = _made(work), outcome.folder or outcome.refused
        if to is not None and made.is_dir():
            _place(made, to)
        work.close()
    return outcome


def _too_long(ranked: int, prepared: Prepared) -> Verdict:
    """The verdict that is certain before any training, where too few queries are ranked with the tokens there are."""
    allowed = prepared.settings.measured_tokens
    effort = math.ceil(10 * prepared.needed / Settings().measured_tokens) / 10
    shorter = "make an index of shorter passages" if prepared.depth else "judge fewer documents of each query"
    few = (
        f"{ranked} held-out queries can be ranked with the {allowed:,} tokens that are measured, and under "
        f"{gate.FEWEST_HELD_OUT} nothing is certain; {gate.FEWEST_HELD_OUT} of them take {prepared.needed:,}: allow so "
        f"many with --effort {effort:g} (measured_tokens={prepared.needed}), or {shorter}"
    )
    return Verdict("base", (few,))


def _trained(
    prepared: Prepared,
    work: Work,
    rows: NDArray[np.int64],
    target: Path,
    aside: Path | None,
    source: str,
    findings: tuple[Finding, ...],
    counts: dict[str, int],
) -> Outcome:
    prepared.score_base(work, rows)
    prepared.encode()
    doubtful = sum(int((one.doubtful & ~one.judged).sum()) for one in prepared.material.shown)
    distractors = sum(int((one.distractor > 0).sum()) for one in prepared.material.shown)
    counts = {**counts, "doubtful": doubtful, "distractors": distractors}
    counts["folds"], counts["candidates"] = len(prepared.material.parts), prepared.depth
    plan = prepared.plan()
    network = net.Network(prepared.read, plan.layers, prepared.engine.device)
    trainings = Trainings(prepared, work, network, plan, rows)
    trainings.run()
    verdict, point = trainings.decide()
    in_search = None if point is None else trainings.in_search(point)
    outcome = Outcome(
        verdict, findings, plan=plan, point=point, counts=counts, resumed=work.resumed, in_search=in_search
    )
    kept = verdict.kept == "tuned"
    to = target if kept else aside
    if to is not None and point is not None:
        prepared.tell(Progress("writing"))
        outcome = replace(outcome, folder=target if kept else None, refused=None if kept else aside)
        try:
            outcome = replace(outcome, calibration=trainings.calibration(point))
        except InputError as error:
            outcome = replace(outcome, uncalibrated=str(error))
        made = _made(work)
        network.write(trainings.mean(point), made)
        card.write(made, prepared.read, source, prepared.settings, outcome, prepared.length)
        _make_room(to)
    return outcome


def _made(work: Work) -> Path:
    return work.folder / "result"


def _make_room(target: Path) -> None:
    """Remove what of another model would change what the new one is: once, because `_place` may be begun twice."""
    clear(target)
    (target / "README.md").unlink(missing_ok=True)


def _place(made: Path, target: Path) -> None:
    """Move a finished folder to where it belongs; files of a folder that is there are replaced one by one.

    Where a process was killed in the middle, the next one moves the rest.
    """
    target = target.resolve()
    if target.is_dir() and not any(target.iterdir()):
        with suppress(OSError):  # a mount point stays, and is filled
            target.rmdir()
    if not target.is_dir():
        target.parent.mkdir(parents=True, exist_ok=True)
        _move(made, target)
        return
    for path in sorted(made.iterdir()):
        _move(path, target / path.name)


def _move(made: Path, target: Path) -> None:
    """Rename; on another file system copy beside the target first, so that the target is whole or is not."""
    try:
        made.replace(target)
    except OSError as error:
        if error.errno != EXDEV:
            raise
        part = target.with_name(f"{target.name}.part")
        if made.is_dir():
            shutil.rmtree(part, ignore_errors=True)
            shutil.copytree(made, part)
        else:
            shutil.copyfile(made, part)
        part.replace(target)
