"""Any sequence classifier or encoder that transformers loads, on a CPU or GPU. Needs the extra `torch`."""

from __future__ import annotations

import inspect
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
from numpy.typing import NDArray

from crossrank import extras, forks
from crossrank.backends import together
from crossrank.backends.limits import Limits, check_process, check_seen
from crossrank.checkpoint import Answer, Checkpoint, gte, names, settings, weights
from crossrank.errors import CheckpointError, InputError
from crossrank.types import Pooling, Tokens

extras.require("torch", extra="torch")
extras.require("transformers", extra="torch")
import torch  # noqa: E402
import transformers  # noqa: E402

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


class Torch:
    """The forward pass of transformers. Safe to share between threads; a batch is padded to its longest sequence.

    Where padding would change scores only sequences of one length are read at once.
    """

    padded = True

    def __init__(self, checkpoint: Checkpoint, device: str = "auto", dtype: str = "auto") -> None:
        device, chosen = resolved(device, dtype)
        self._process = os.getpid()
        self._device = torch.device(device)
        self.name = f"torch ({self._device.type}, {chosen})"
        self._labels = checkpoint.labels
        self._limits = Limits.of(checkpoint)
        self._model = in_format(model_of(checkpoint), DTYPES[chosen]).to(self._device).eval()
        self._padding = padding_of(self._model, checkpoint)
        self._encoder = self._model.base_model
        self._typed = typed(self._model, checkpoint)
        self._answer = checkpoint.answer
        self._placed = "position_ids" in inspect.signature(self._model.forward).parameters
        if checkpoint.kind == "cross-encoder" and self._answer is None:
            self._check_padding(str(checkpoint.folder))
        self._together = together.of(self._model, checkpoint, self._padding, self._probed, chosen)

    def forward(self, tokens: Tokens) -> NDArray[np.float32]:
        """Raw logits, shape (n,); a two-label head gives log-odds, logit 1 minus logit 0.

        Raises:
            CheckpointError: the model is a bi-encoder and has no head.
            InputError: an empty or too long sequence, or an id outside the vocabulary.
        """
        self._limits.check_head()
        tokens = self._limits.admit(tokens)
        if not len(tokens):
            return np.empty(0, dtype=np.float32)
        return self._apart(tokens, self._logits)

    def pool(self, tokens: Tokens, pooling: Pooling) -> NDArray[np.float32]:
        """One vector a sequence, shape (n, hidden): the mean over its tokens or its first token; not normalized.

        Raises:
            InputError: an empty or too long sequence, an id outside the vocabulary, or another pooling.
        """
        self._limits.check_pooling(pooling)
        tokens = self._limits.admit(tokens)
        if not len(tokens):
            return np.empty((0, int(self._model.config.hidden_size)), dtype=np.float32)
        return self._apart(tokens, lambda some: self._pooled(some, pooling))

    def states(self, tokens: Tokens, seen: NDArray[np.int64] | None = None) -> NDArray[np.float32]:
        """The last hidden state of every token, shape (total, hidden), for late interaction.

        Args:
            tokens: the sequences.
            seen: of each sequence, attention sees so many tokens from its start, shape (n,); all when absent.

        Raises:
            InputError: an empty or too long sequence, an id outside the vocabulary, or a `seen` outside a sequence.
        """
        tokens = self._limits.admit(tokens)
        check_seen(tokens, seen)
        if not len(tokens):
            return np.empty((0, int(self._model.config.hidden_size)), dtype=np.float32)
        self._check_process()
        if self._together == "any":
            return self._every(tokens, seen)
        rows = [np.empty(0, dtype=np.float32)] * len(tokens)
        for part in together.parts(tokens.lengths, self._together):
            some = tokens.take(part)
            states = self._every(some, None if seen is None else seen[part])
            for row, vectors in zip(part.tolist(), np.split(states, some.offsets[1:-1]), strict=True):
                rows[row] = vectors
        return np.concatenate(rows)

    def _apart(self, tokens: Tokens, compute: Callable[[Tokens], NDArray[np.float32]]) -> NDArray[np.float32]:
        """What is computed of sequences, in as many passes as the model needs."""
        self._check_process()
        if self._together == "any":
            return compute(tokens)
        found = [(part, compute(tokens.take(part))) for part in together.parts(tokens.lengths, self._together)]
        made = np.empty((len(tokens), *found[0][1].shape[1:]), dtype=np.float32)
        for part, values in found:
            made[part] = values
        return made

    def _check_process(self) -> None:
        if self._device.type != "cpu":
            check_process(self._process)
        own_threads()

    def _probed(self, tokens: Tokens) -> NDArray[np.float32]:
        """The first sequence's hidden states, or its logit where there are none without a word to go on with."""
        if self._answer is not None or self._model.config.is_encoder_decoder:
            return self._logits(tokens)[:1]
        return self._every(tokens, None)[: int(tokens.lengths[0])]

    @torch.inference_mode()
    def _logits(self, tokens: Tokens) -> NDArray[np.float32]:
        if self._answer is not None:
            return self._answers(tokens, self._answer)
        logits = self._model(**self._batch(tokens)).logits.float().cpu().numpy()
        scores = logits[:, 0] if self._labels == 1 else logits[:, 1] - logits[:, 0]
        return np.ascontiguousarray(scores, dtype=np.float32)

    @torch.inference_mode()
    def _pooled(self, tokens: Tokens, pooling: Pooling) -> NDArray[np.float32]:
        batch = self._batch(tokens)
        states = self._encoder(**batch).last_hidden_state.float()
        if pooling == "cls":
            vectors = states[:, 0]
        else:
            mask = batch["attention_mask"][:, :, None].float()
            vectors = (states * mask).sum(dim=1) / mask.sum(dim=1)
        return np.asarray(vectors.cpu().numpy(), dtype=np.float32)

    @torch.inference_mode()
    def _every(self, tokens: Tokens, seen: NDArray[np.int64] | None) -> NDArray[np.float32]:
        batch = self._batch(tokens)
        real = batch["attention_mask"].bool()
        if seen is not None:
            shown = np.arange(real.shape[1])[None, :] < seen[:, None]
            batch["attention_mask"] = torch.from_numpy(shown.astype(np.int64)).to(self._device)
        states = self._encoder(**batch).last_hidden_state[real].float()
        return np.asarray(states.cpu().numpy(), dtype=np.float32)

    def _answers(self, tokens: Tokens, answer: Answer) -> NDArray[np.float32]:
        """Of a language model, how much rather it would go on with `answer.yes` than with `answer.no`."""
        batch = self._batch(tokens, left=True)
        if self._placed:
            # Without, places count from the padding, which models with a table of places would see.
            batch["position_ids"] = (batch["attention_mask"].cumsum(1) - 1).clamp(min=0)
        # Every sequence ends in the last column, and only that is multiplied with the words.
        last = self._model(**batch, logits_to_keep=1, use_cache=False).logits[:, -1].float()
        scores = last[:, answer.yes] if answer.no is None else last[:, answer.yes] - last[:, answer.no]
        return np.ascontiguousarray(scores.cpu().numpy(), dtype=np.float32)

    def _check_padding(self, where: str) -> None:
        """Refuse a decoder that could score no list: it finds the last token of a sequence by the padding behind it."""
        if getattr(self._model.config.get_text_config(), "pad_token_id", None) is not None:
            return
        try:
            with torch.inference_mode():
                self._model(input_ids=torch.zeros((2, 1), dtype=torch.int64, device=self._device))
        except ValueError as error:
            if "padding token" in str(error):
                raise CheckpointError(
                    f"{where} names no padding token, by which transformers finds where each of several texts ends. "
                    "Add pad_token_id to its config.json: the number of the token that stood behind shorter texts in "
                    "training."
                ) from error

    def _batch(self, tokens: Tokens, left: bool = False) -> dict[str, torch.Tensor]:
        lengths = tokens.lengths
        mask = np.arange(int(lengths.max()))[None, :] < lengths[:, None]
        if left:
            mask = mask[:, ::-1]
        ids = np.full(mask.shape, self._padding, dtype=np.int64)
        ids[mask] = tokens.ids  # row by row, which is the packed order
        arrays = {"input_ids": ids, "attention_mask": mask.astype(np.int64)}
        if self._typed:
            arrays["token_type_ids"] = np.zeros_like(ids)
            arrays["token_type_ids"][mask] = tokens.types
        return {name: torch.from_numpy(array).to(self._device) for name, array in arrays.items()}


_bounded: set[int] = set()


def own_threads() -> None:
    """Have torch compute in one thread where its pool was left in the process that this one was forked from.

    It would wait for ever for threads that are not here, from the first sum that is worth dividing.
    """
    process = os.getpid()
    if process not in _bounded:
        _bounded.add(process)
        if forks.inherited("torch"):
            torch.set_num_threads(1)


def resolved(device: str, dtype: str) -> tuple[str, str]:
    """The device with its number, and the number format, that these names mean now.

    Raises:
        InputError: torch sees no GPU, or several devices are named.
    """
    cuda = torch.cuda.is_available()
    if device.startswith("cuda") and not cuda:
        raise InputError("device='cuda' was asked for but torch sees no GPU; use device='cpu' or check the driver")
    try:
        found = torch.device(("cuda" if cuda else "cpu") if device == "auto" else device)
    except RuntimeError as error:  # cuda:all
        raise InputError(f"the torch backend computes on one device, not on {device}; use device='cuda'") from error
    if found.type == "cpu":
        return "cpu", "float32" if dtype == "auto" else dtype
    number = torch.cuda.current_device() if found.index is None else found.index
    return f"cuda:{number}", "bfloat16" if dtype == "auto" else dtype


def in_format(model: Any, dtype: torch.dtype) -> Any:
    """The model with its weights in a number format; what it has computed for itself stays as it is.

    `model.to(dtype)` also rounds the angles of rotary positions, which transformers keeps in float32: at token 700
    bfloat16 has the wrong angle, and scores of a random ModernBERT were off by 0.4 instead of 0.03.
    """
    for tensor in model.state_dict(keep_vars=True).values():
        if tensor.is_floating_point():
            tensor.data = tensor.data.to(dtype)
    return model


def typed(model: Any, checkpoint: Checkpoint) -> bool:
    """Whether the model is fed token types: types of 0 are not none, since GPT-2 adds the word of a type to every word.

    Not by the config alone, which may leave out how many types there are: transformers then takes two.
    """
    return checkpoint.token_types and "token_type_ids" in inspect.signature(model.base_model.forward).parameters


def padding_of(model: Any, checkpoint: Checkpoint) -> int:
    """The token behind shorter sequences; where config.json states none, that of transformers' class (OPT has 1)."""
    config = dict(checkpoint.config)
    if config.get("pad_token_id") is None:
        config["pad_token_id"] = getattr(model.config.get_text_config(), "pad_token_id", None)
    return settings.padding(config, checkpoint.architecture, str(checkpoint.folder))


def model_of(checkpoint: Checkpoint, attention: str = "sdpa") -> Any:
    """The transformers model with every weight taken from the checkpoint.

    Args:
        checkpoint: what is loaded.
        attention: transformers' name of the attention; "eager" where a model has no other.

    Raises:
        CheckpointError: transformers cannot load it, or would make up a weight.
    """
    own_threads()
    if checkpoint.modules and checkpoint.kind == "cross-encoder":
        raise CheckpointError(
            f"{checkpoint.folder} has its head in sentence-transformers modules, which transformers does not load. "
            "Use backend='reference'."
        )
    auto: Any = transformers.AutoModel
    if checkpoint.answer is not None:
        auto = transformers.AutoModelForCausalLM
    elif checkpoint.kind == "cross-encoder":
        auto = transformers.AutoModelForSequenceClassification
    ordinary = _picked(checkpoint)
    try:
        config = _config(checkpoint)
        options: dict[str, Any] = {"config": config, "output_loading_info": True, "trust_remote_code": False}
        with torch.device("meta"):  # without memory: which class the config asks for, and how large a model
            made = auto.from_config(config)
        _check_shapes(made, checkpoint)
        if ordinary:
            options |= {"use_safetensors": True, "local_files_only": True}
        else:
            auto = type(made)
            # Arrays over a file's bytes are read-only, which torch's tensors cannot be.
            arrays = {name: np.require(array, requirements="W") for name, array in checkpoint.tensors().items()}
            options["state_dict"] = {name: torch.from_numpy(array) for name, array in arrays.items()}
        with _quiet():
            model, loaded = _first_that_works(auto, checkpoint.folder if ordinary else None, attention, options)
    except CheckpointError:
        raise
    except Exception as error:  # transformers raises ValueError, KeyError, OSError, RuntimeError and its own
        first = str(error).strip().partition("\n")[0]
        raise CheckpointError(
            f"transformers cannot load {checkpoint.name!r} ({type(error).__name__}: {first}). crossrank runs no code "
            "that a model brings along; if it needs none, upgrade transformers, else use another model."
        ) from error
    _refuse_made_up(loaded, checkpoint)
    _refuse_left_out(model, checkpoint)
    return model


def _config(checkpoint: Checkpoint) -> Any:
    """transformers' config of a checkpoint, without what would fail at the first text."""
    stated = settings.padding(checkpoint.config, checkpoint.architecture, str(checkpoint.folder))
    config: Any
    if checkpoint.architecture == gte.NAME:  # its folder may name code that transformers would ask for
        if gte.NAME not in transformers.CONFIG_MAPPING:
            cure = "pip install --upgrade transformers, or use the native engine, which needs no code of the model's"
            raise CheckpointError(f"transformers {transformers.__version__} knows no GTE: {cure}")
        config = transformers.AutoConfig.for_model(**checkpoint.config)
    else:
        config = transformers.AutoConfig.from_pretrained(
            checkpoint.folder, trust_remote_code=False, local_files_only=True
        )
    config.reference_compile = False  # ModernBERT of transformers 4 would start a compiler
    if checkpoint.architecture in settings.OFFSET_POSITIONS:
        config.pad_token_id = stated
    heads = getattr(config.get_text_config(), "num_attention_heads", None)
    if isinstance(heads, int) and heads < 1:
        raise CheckpointError(f"{checkpoint.folder}: config.json has {heads} attention heads. Copy the model again.")
    return config


def _check_shapes(model: Any, checkpoint: Checkpoint) -> None:
    """Refuse a config that asks for other shapes than the file has: transformers makes them before it compares."""
    held = {names.given(checkpoint.architecture, k): v for k, v in weights.headers(checkpoint.weights).items()}
    for name, tensor in model.state_dict().items():
        found = held.get(name) or held.get(name.removeprefix(f"{model.base_model_prefix}."))
        if found is not None and found.shape != tuple(tensor.shape):
            raise CheckpointError(
                f"{checkpoint.folder}: config.json and the weights are of two models ({name} has {list(found.shape)} "
                f"numbers and should have {list(tensor.shape)}). Copy the whole folder again."
            )


def _picked(checkpoint: Checkpoint) -> bool:
    """Whether transformers, given the folder, reads exactly the checkpoint's weights under the names they have."""
    folder = checkpoint.folder
    # It may name other files than those that all backends read.
    if checkpoint.shared or checkpoint.config.get("transformers_weights") is not None:
        return False
    if names.foreign(checkpoint.architecture, weights.headers(checkpoint.weights)):
        return False
    if (folder / "model.safetensors").is_file():
        return checkpoint.weights == (folder / "model.safetensors",)
    index = folder / "model.safetensors.index.json"
    return index.is_file() and checkpoint.weights == weights.shards(folder, settings.load_json(index))


def _first_that_works(auto: Any, place: Any, attention: str, options: dict[str, Any]) -> tuple[Any, Mapping[str, Any]]:
    try:
        model, loaded = auto.from_pretrained(place, attn_implementation=attention, **options)
    except ValueError as error:
        if "scaled_dot_product_attention" not in str(error) and "sdpa" not in str(error):
            raise
        model, loaded = auto.from_pretrained(place, attn_implementation="eager", **options)
    return model, loaded


def _refuse_made_up(loaded: Mapping[str, Any], checkpoint: Checkpoint) -> None:
    missing = [str(name) for name in loaded.get("missing_keys", ())]
    if checkpoint.kind != "cross-encoder":
        # The pooler is not part of mean or first-token pooling, and many encoders leave it out.
        missing = [name for name in missing if not name.startswith("pooler.")]
    wrong = missing + [str(name) for name in loaded.get("mismatched_keys", ())]
    if wrong:
        raise CheckpointError(
            f"{checkpoint.folder}: the weights do not hold {', '.join(sorted(wrong)[:4])}; newly initialised they "
            "would make scores random. Use the complete weight file of the fine-tuned model."
        )


def _refuse_left_out(model: Any, checkpoint: Checkpoint) -> None:
    kind = checkpoint.config.get("position_embedding_type")
    relative = isinstance(kind, str) and kind.startswith("relative_key")
    if relative and not any("distance_embedding" in name for name, _ in model.named_parameters()):
        raise CheckpointError(
            f"{checkpoint.folder} has {kind!r} position embeddings, which transformers {transformers.__version__} "
            "leaves out: scores would be wrong. Version 4 has them: pip install 'transformers<5'; or use another model."
        )


@contextmanager
def _quiet() -> Iterator[None]:
    """Without transformers' bars and warnings: what they would say is raised as an error here."""
    logs: Any = transformers.utils.logging
    level, bar = logs.get_verbosity(), logs.is_progress_bar_enabled()
    logs.set_verbosity_error()
    logs.disable_progress_bar()
    try:
        yield
    finally:
        logs.set_verbosity(level)
        if bar:
            logs.enable_progress_bar()
