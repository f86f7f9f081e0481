"""A file of what was measured, so that a new process need not measure again."""

from __future__ import annotations

import json
import platform
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from crossrank import cores
from crossrank.cost import CostModel, Pace
from crossrank.crossencoder import CrossEncoder
from crossrank.errors import InputError
from crossrank.planner.timing import check, holds, measure, model_of, remember, renewed
from crossrank.writing import whole

_FILE = "costs.json"
# Models, machines and thread counts that one file holds; the oldest go first.
_MOST = 64
# A file that cannot be read or written; a path with a NUL, no JSON; JSON nested too deep, or the home of nobody.
_USELESS = (OSError, ValueError, RuntimeError)
_PARTS = ("call", "sequence", "token", "square", "character", "workers", "padded", "budget")


@dataclass(frozen=True, slots=True)
class Memory:
    """A folder where costs are kept between processes. It is read and written only when it is asked.

    An entry belongs to a processor, its cores, the backend with its instruction set and dtype, the threads, the model's
    fingerprint and the program's version. What cannot be read is measured again; what cannot be written is not kept,
    and the answer is the same.

    Attributes:
        folder: made when something is first written.
        version: of the program; what another version measured does not count.
    """

    folder: str | Path
    version: str = ""

    @property
    def _file(self) -> Path:
        return Path(self.folder).expanduser() / _FILE

    def pace(self, scorer: CrossEncoder, seconds: float = 1.5) -> Pace:
        """How fast the scorer is: as the file says, if a check of 20 ms agrees within a quarter; else measured anew."""
        before = model_of(scorer)
        key = f"{machine_key(scorer)} | {self.version}"
        known = self._read().get(key)
        model = None if known is None else _model(known)
        # Once more before it is thrown away: a moment in which another process had the core is no reason.
        if model is not None and any(holds(check(scorer, model)) for _ in range(2)):
            return remember(scorer, model)
        return renewed(scorer, before, lambda: self._measured(key, scorer, seconds))

    def _measured(self, key: str, scorer: CrossEncoder, seconds: float) -> CostModel:
        model = measure(scorer, seconds)
        self._write(key, model)
        return model

    def _read(self) -> dict[str, Any]:
        try:
            found = json.loads(self._file.read_text(encoding="utf-8"))
        except _USELESS:
            return {}
        return found if isinstance(found, dict) else {}

    def _write(self, key: str, model: CostModel) -> None:
        entries = self._read()
        entries.pop(key, None)
        entries[key] = {part: getattr(model, part) for part in _PARTS}
        kept = dict(list(entries.items())[-_MOST:])
        try:
            self._file.parent.mkdir(parents=True, exist_ok=True)
            with whole(self._file) as part:
                part.touch(0o600)  # It tells of a user's machine and models, and is nobody else's.
                part.write_text(json.dumps(kept, indent=1), encoding="utf-8")
        except _USELESS:
            return


def _model(stated: Any) -> CostModel | None:
    """The model of an entry; None for one that is damaged."""
    try:
        return CostModel(**{part: stated[part] for part in _PARTS})
    except (KeyError, TypeError, ValueError, InputError):
        return None


def machine_key(scorer: CrossEncoder) -> str:
    """What a measurement depends on, as one line."""
    parts = (
        processor(),
        f"{cores.available()} cores",
        scorer.backend.name,
        f"{getattr(scorer.backend, 'threads', 1)} threads",
        scorer.fingerprint[:16],
    )
    return " | ".join(parts)


def processor() -> str:
    """The processor's name, as the system tells it."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        lines = []
    named = {line.partition(":")[0].strip(): line.partition(":")[2].strip() for line in reversed(lines)}
    parts = [named.get(field, "") for field in ("model name", "cpu family", "model", "stepping")]
    return " ".join(part for part in parts if part) or platform.processor() or platform.machine()
