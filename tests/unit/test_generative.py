"""How a language model is asked about a pair: its chat template, and the text around the two texts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import tiny
from crossrank.checkpoint import generative, templating
from crossrank.checkpoint.generative import BLANKS, DOCUMENT, LARGEST, MAX_TEMPLATE, QUERY, Answer, PairPrompt
from crossrank.errors import CheckpointError, InputError

ASKED, SHOWN = f"{BLANKS[0]}{QUERY}{BLANKS[1]}", f"{BLANKS[2]}{DOCUMENT}{BLANKS[3]}"


@pytest.mark.parametrize(
    ("template", "text"),
    [
        ("a\n  {% if true %}\nb\n  {% endif %}\nc", "a\nb\nc"),
        ("{{ x | tojson }}", '{"\u00e9": "<"}'),
        ("{{ strftime_now('%Y') | length }}", "4"),
        ("{% for n in [1, 2, 3] %}{% if n == 2 %}{% break %}{% endif %}{{ n }}{% endfor %}", "1"),
    ],
)
def test_templates_run_as_in_transformers(template: str, text: str) -> None:
    pytest.importorskip("jinja2", reason="needs the extra torch")
    assert templating.rendered(template, [{"x": {"\u00e9": "<"}}, {"x": 1}], "a model")[0] == text


@pytest.mark.parametrize(
    ("template", "said"),
    [
        ("{% for n in range(2000) %}{{ 'a' * 1000 }}{% endfor %}", "it gives over 1000000 characters"),
        ("{{ raise_exception('only two roles') }}", "TemplateError: only two roles"),
        ("{{ ''.__class__.__mro__ }}", "SecurityError"),
    ],
)
def test_templates_that_are_refused(template: str, said: str) -> None:
    pytest.importorskip("jinja2", reason="needs the extra torch")
    with pytest.raises(CheckpointError, match=said):
        templating.rendered(template, [{}], "a model")


@pytest.mark.parametrize(
    ("made", "parts"),
    [
        (f"q:{ASKED}d:{SHOWN}.", PairPrompt("q:", "d:", ".")),
        (f"q: {ASKED} d: {SHOWN} .", PairPrompt("q: ", " d: ", " .")),
        (f"q:{QUERY} d: {SHOWN}\n", PairPrompt("q:", " d: ", "\n", True)),
        (f"q: {ASKED}, {DOCUMENT} .", PairPrompt("q: ", ", ", " .", False, True)),
        (f"q: {ASKED[:-1]}, {SHOWN}", None),
        (f"q: {ASKED}, {SHOWN[1:]}", None),
        (f"{DOCUMENT} {QUERY}", None),
        (f"{QUERY} {DOCUMENT} {DOCUMENT}", None),
        (f"{QUERY} {QUERY} {DOCUMENT}", None),
    ],
)
def test_the_text_around_a_pair(made: str, parts: PairPrompt | None) -> None:
    assert generative._parts(made) == parts


@pytest.mark.parametrize("bare", [(False, False), (True, False), (False, True), (True, True)])
def test_white_space_is_left_out_where_the_template_leaves_it_out(bare: tuple[bool, bool]) -> None:
    query, document = ("a" if one else " a\n" for one in bare)
    assert PairPrompt("<", "|", ">", *bare).of(" a\n", " a\n") == f"<{query}|{document}>"


# Which tokens answer


def scoring(folder: Path, kinds: tuple[str, ...] = ("Transformer", "LogitScore"), **stated: Any) -> Path:
    """A folder whose modules are these, and whose LogitScore states this."""
    places = {kind: f"{number}_{kind}" if number else "" for number, kind in enumerate(kinds)}
    tiny.write_json(folder / "modules.json", [{"type": f"a.{kind}", "path": places[kind]} for kind in kinds])
    if "LogitScore" in places:
        tiny.write_json(folder / places["LogitScore"] / "config.json", stated)
    return folder


@pytest.mark.parametrize(
    ("stated", "want"),
    [
        ({"true_token_id": 3, "false_token_id": 7}, Answer(3, 7)),
        ({"true_token_id": 3}, Answer(3)),
        ({"true_token_id": 0, "false_token_id": None}, Answer(0)),
        ({"true_token_id": 9, "false_token_id": 0}, Answer(9, 0)),
    ],
)
def test_the_tokens_that_answer(tmp_path: Path, stated: dict[str, Any], want: Answer) -> None:
    assert generative.answer(scoring(tmp_path, **stated), {"vocab_size": 10}) == want


@pytest.mark.parametrize(
    "stated", [{}, {"yes": 10}, {"yes": -1}, {"yes": 3, "no": 10}, {"yes": 3, "no": -1}, {"no": 3}]
)
def test_answers_that_are_no_words_of_the_model_are_refused(tmp_path: Path, stated: dict[str, int]) -> None:
    written = {{"yes": "true_token_id", "no": "false_token_id"}[name]: number for name, number in stated.items()}
    with pytest.raises(CheckpointError, match="are not both words of the model"):
        generative.answer(scoring(tmp_path, **written), {"vocab_size": 10})


def test_a_model_that_does_not_say_how_many_words_it_has_may_answer_with_any(tmp_path: Path) -> None:
    assert generative.answer(scoring(tmp_path, true_token_id=LARGEST - 1), {}) == Answer(LARGEST - 1)
    with pytest.raises(CheckpointError, match="are not both words of the model"):
        generative.answer(scoring(tmp_path, true_token_id=LARGEST), {})


@pytest.mark.parametrize(
    "kinds", [("LogitScore",), ("Transformer", "LogitScore", "Dense"), ("Transformer", "Dense", "LogitScore")]
)
def test_modules_beside_an_answer_are_refused(tmp_path: Path, kinds: tuple[str, ...]) -> None:
    with pytest.raises(CheckpointError, match=f"modules {', '.join(kinds)}; of language models"):
        generative.answer(scoring(tmp_path, kinds, true_token_id=1), {})


def test_a_model_without_an_answer_has_none(tmp_path: Path) -> None:
    assert generative.answer(tmp_path, {}) is None
    assert generative.answer(scoring(tmp_path, ("Transformer", "Pooling")), {}) is None


# What is asked


PLAIN = "{% for m in messages %}{{ m.role }}={{ m.content }};{% endfor %}"
READ = PairPrompt("query=", ";document=", ";")
DEEP = PLAIN.replace("m.content", "m.content[0].text")
FLAT = {"modality_config": {"message": {"format": "flat"}}}


def asked(folder: Path, template: str | None = PLAIN, stated: Any = FLAT, **config: Any) -> Path:
    """A folder that is asked through a template; `config` is of its tokenizer."""
    pytest.importorskip("jinja2", reason="needs the extra torch")
    tiny.write_json(folder / "sentence_bert_config.json", stated)
    tiny.write_json(folder / "tokenizer_config.json", config)
    if template is not None:
        (folder / "chat_template.jinja").write_text(template, encoding="utf-8")
    return folder


def before(folder: Path, instruction: str | None = None) -> str:
    """What stands before the query."""
    made = generative.prompt(folder, folder, instruction)
    assert made is not None
    return made.before


@pytest.mark.parametrize("ways", [None, {}, {"text": {}}, [], ["message"], "message"])
def test_without_messages_there_is_no_prompt(tmp_path: Path, ways: Any) -> None:
    assert generative.prompt(asked(tmp_path, stated={"modality_config": ways}), tmp_path) is None


@pytest.mark.parametrize(
    ("way", "template", "want"),
    [
        ("flat", PLAIN, READ),
        ("structured", DEEP, READ),
        (None, PLAIN, READ),
        (None, DEEP, READ),
        # Of a template that takes both, the form that the folder states.
        ("flat", "{{ messages[0].content is string }}:" + "{% if messages[0].content is string %}" + PLAIN
         + "{% else %}" + DEEP + "{% endif %}", PairPrompt("True:query=", ";document=", ";")),
        ("structured", "{{ messages[0].content is string }}:" + "{% if messages[0].content is string %}" + PLAIN
         + "{% else %}" + DEEP + "{% endif %}", PairPrompt("False:query=", ";document=", ";")),
    ],
)  # fmt: skip
def test_messages_in_the_form_that_is_stated(tmp_path: Path, way: str | None, template: str, want: PairPrompt) -> None:
    message = {} if way is None else {"format": way}
    assert generative.prompt(asked(tmp_path, template, {"modality_config": {"message": message}}), tmp_path) == want


@pytest.mark.parametrize(("way", "template"), [("flat", DEEP), ("structured", PLAIN)])
def test_another_form_than_the_stated_one_is_not_tried(tmp_path: Path, way: str, template: str) -> None:
    with pytest.raises(CheckpointError, match="chat template"):
        generative.prompt(asked(tmp_path, template, {"modality_config": {"message": {"format": way}}}), tmp_path)


def test_a_message_that_is_no_object_states_no_form(tmp_path: Path) -> None:
    assert generative.prompt(asked(tmp_path, DEEP, {"modality_config": {"message": "text"}}), tmp_path) == READ


def test_the_system_message_is_the_instruction_else_the_default_prompt_else_none(tmp_path: Path) -> None:
    folder = asked(tmp_path)
    assert before(folder) == "query="
    assert before(folder, "Find it") == "system=Find it;query="
    tiny.write_json(
        folder / "config_sentence_transformers.json", {"prompts": {"a": "Find"}, "default_prompt_name": "a"}
    )
    assert before(folder) == "system=Find;query="
    assert before(folder, "Find it") == "system=Find it;query="
    for wrong in ("", " ", "Find \ud800 law"):
        with pytest.raises(InputError, match="a text in valid Unicode that is not blank"):
            before(folder, wrong)


def test_an_instruction_may_be_what_the_template_says_without_one(tmp_path: Path) -> None:
    told = '{{ messages | selectattr("role", "eq", "system") | map(attribute="content") | first | default("Find") }}: '
    folder = asked(tmp_path, told + '{% for m in messages if m.role != "system" %}{{ m.content }}|{% endfor %}')
    assert before(folder, "Find") == before(folder) == "Find: "
    assert before(folder, "Seek") == "Seek: "


def test_a_template_without_a_place_for_instructions_needs_none(tmp_path: Path) -> None:
    folder = asked(tmp_path, '{% for m in messages if m.role != "system" %}{{ m.role }}={{ m.content }};{% endfor %}')
    assert before(folder) == "query="
    with pytest.raises(InputError, match="has no place for an instruction"):
        before(folder, "Find it")


def test_where_a_template_lies(tmp_path: Path) -> None:
    """The model's own file first, then the file beside the tokenizer, then the tokenizer's settings."""
    folder, vocabulary = tmp_path / "model", tmp_path / "shared"
    asked(folder, None)
    asked(vocabulary, None, chat_template="settings " + PLAIN)
    for place, want in ((None, "settings "), (vocabulary, "beside "), (folder, "own ")):
        if place is not None:
            (place / "chat_template.jinja").write_text(want + PLAIN)
        made = generative.prompt(folder, vocabulary)
        assert made is not None
        assert made.before == f"{want}query="


def test_the_default_of_several_templates(tmp_path: Path) -> None:
    several = ["odd", {"name": "tool", "template": "x"}, {"name": "default", "template": PLAIN}]
    assert before(asked(tmp_path, None, chat_template=several)) == "query="
    with pytest.raises(CheckpointError, match="has none of up to 200,000 characters"):
        before(asked(tmp_path, None, chat_template=several[:2]))


def test_a_template_is_as_long_as_templates_are(tmp_path: Path) -> None:
    longest = PLAIN + "{#" + "x" * (MAX_TEMPLATE - len(PLAIN) - 4) + "#}"
    assert before(asked(tmp_path, None, chat_template=longest)) == "query="
    with pytest.raises(CheckpointError, match="has none of up to 200,000 characters"):
        before(asked(tmp_path, None, chat_template=longest + " "))
    assert before(asked(tmp_path, longest)) == "query="
    with pytest.raises(CheckpointError, match="so it is not a chat template"):
        before(asked(tmp_path, longest + " "))


def test_a_template_that_the_disk_does_not_give(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, plain = asked(tmp_path), Path.open

    def broken(path: Path, *given: Any, **options: Any) -> Any:
        if path.name == "chat_template.jinja":
            raise PermissionError(13, "Permission denied")
        return plain(path, *given, **options)

    monkeypatch.setattr(Path, "open", broken)
    with pytest.raises(CheckpointError, match=r"cannot read .*chat_template\.jinja: Permission denied"):
        before(folder)


def test_a_template_that_gives_no_valid_text_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="each once and as it is"):
        before(asked(tmp_path, "{{ '\\ud800' }}" + PLAIN))


@pytest.mark.parametrize("change", ["upper", "e", "truncate(50000)"])
def test_a_template_that_changes_texts_is_refused(tmp_path: Path, change: str) -> None:
    with pytest.raises(CheckpointError, match="each once and as it is"):
        before(asked(tmp_path, PLAIN.replace("m.content", f"m.content | {change}")))


def test_a_template_sees_what_transformers_gives_it(tmp_path: Path) -> None:
    given = ["tools", "documents", "add_generation_prompt", "bos_token", "cls_token", "eos_token", "padding_side"]
    seen = "".join(f"{{{{ {name} if {name} is defined else '-' }}}} " for name in given)
    config: dict[str, Any] = {"bos_token": None, "eos_token": {"content": "</s>"}, "padding_side": "left"}
    folder = asked(tmp_path, seen + PLAIN, **config)
    assert before(folder) == "None None False - - </s> - query="
    tiny.write_json(folder / "special_tokens_map.json", {"bos_token": "<s>", "eos_token": "<e>"})
    assert before(folder) == "None None False <s> - <e> - query=", "transformers reads the map over the settings"
    config["added_tokens_decoder"] = {}
    asked(folder, seen + PLAIN, **config)
    assert before(folder) == "None None False <s> - </s> - query=", "but where these list what was added"
    asked(folder, **config, extra_special_tokens={"eos_token": "<x>", "cls_token": "<c>"})
    (folder / "chat_template.jinja").write_text(seen + PLAIN)
    assert before(folder) == "None None False <s> <c> <x> - query="
    asked(folder, seen + PLAIN, **config, extra_special_tokens=["<c>"])
    assert before(folder) == "None None False <s> - </s> - query="


@pytest.mark.parametrize(
    ("processing", "want"),
    [
        ({"chat_template": {"add_generation_prompt": True, "enable_thinking": False}}, "True False -"),
        ({"chat_template": {"max_length": 5, "padding": True, "truncation": True}}, "False - -"),
        ({"chat_template": "x"}, "False - -"),
        (["chat_template"], "False - -"),
        (None, "False - -"),
    ],
)
def test_a_folder_may_set_what_its_template_asks_for(tmp_path: Path, processing: Any, want: str) -> None:
    seen = "{{ add_generation_prompt }} {{ enable_thinking if enable_thinking is defined else '-' }} "
    seen += "{{ 'set' if max_length is defined or padding is defined or truncation is defined else '-' }}"
    folder = asked(tmp_path, seen + PLAIN, {**FLAT, "processing_kwargs": processing})
    assert before(folder) == f"{want}query="
