"""The page in a real browser: Debian's chromium, or what CROSSRANK_TEST_BROWSER names, driven by Playwright."""

from __future__ import annotations

import itertools
import os
import re
import shutil
from collections.abc import Iterator
from typing import Any

import pytest

import crossrank
from crossrank.pipeline import MIX
from serving import Serving, serving

playwright = pytest.importorskip("playwright.sync_api", reason="the page is tested with: pip install playwright")
pytest.importorskip("lance", reason="the page's index needs the search extra")

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "chrome")
BROWSER = os.environ.get("CROSSRANK_TEST_BROWSER") or next(filter(None, map(shutil.which, BROWSERS)), None)
pytestmark = pytest.mark.skipif(BROWSER is None, reason=f"none of {', '.join(BROWSERS)} is installed")
QUIET = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
         "--disable-component-update", "--disable-sync"]  # fmt: skip
TEXTS = [
    "Paris is the capital of France. It lies in the north.",
    "Bread needs yeast. The yeast needs time.",
    "<img src=x onerror=alert(1)> is the capital of a page. What is it?",
    "A cat is a cat. The planet is a planet.",
]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Serving]:
    import tiny
    from crossrank.index import Document, Index

    folder = tmp_path_factory.mktemp("page")
    embedder = crossrank.load_embedder(tiny.bi_encoder(folder / "embedder"), backend="fake")
    index = Index.create(folder / "index", embedder, embedder.tokenizer)
    documents = [Document(f"{number}.txt", text) for number, text in enumerate(TEXTS)]
    index.add(documents, embedder, embedder.tokenizer)
    with serving(tiny.cross_encoder(folder / "reranker"), embedder=embedder, index=index) as made:
        yield made


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with playwright.sync_playwright() as started:
        opened = started.chromium.launch(executable_path=BROWSER, headless=True, args=QUIET)
        yield opened
        opened.close()


@pytest.fixture
def page(server: Serving, browser: Any) -> Iterator[Any]:
    """A page that has loaded, which fails the test for errors of the script and for requests to elsewhere."""
    wrong: list[str] = []
    context = browser.new_context(viewport={"width": 1200, "height": 900})
    opened = context.new_page()
    opened.set_default_timeout(30_000)
    opened.on("pageerror", lambda error: wrong.append(str(error)))
    opened.on("request", lambda one: None if one.url.startswith(server.listener.url) else wrong.append(one.url))
    opened.on("dialog", lambda dialog: wrong.append(dialog.message))
    opened.goto(server.listener.url)
    # By selectors only: the page's policy forbids the eval with which wait_for_function asks a second time.
    opened.wait_for_selector("#about:not(:empty)", state="attached")
    yield opened
    context.close()
    assert wrong == []


def search(page: Any, query: str) -> None:
    page.fill("#query", query)
    with page.expect_response("**/search"):
        page.keyboard.press("Enter")
    page.wait_for_selector("#answer:not(.working) #results li")


def test_a_search_shows_every_step(page: Any) -> None:
    assert "4 passages" in page.text_content("#about")
    search(page, "what is the capital of france?")
    assert page.locator("#columns h3").all_text_contents() == ["BM25", "Dense", "Fused", "Reranked"]
    assert page.locator("#columns svg path").count() > 4
    assert page.locator("#results li").count() == 4
    assert all(text.endswith("%") for text in page.locator("#results .chance").all_text_contents())
    assert page.locator("#results mark").count() >= 1
    assert "Reranked" in page.text_content("#legend")
    assert page.locator("#bar i").count() >= 3
    # A passage is text, whatever it holds.
    assert page.locator("#answer img").count() == 0


def test_the_page_begins_with_the_share_of_every_other_search(page: Any) -> None:
    # It was written down a second time, and stayed at 0.1 when the product's became 0.3.
    assert float(page.text_content("#mix-value")) == MIX
    with page.expect_request("**/search") as asked:
        search(page, "paris")
    assert asked.value.post_data_json["mix"] == MIX


def test_sliders_search_again(page: Any) -> None:
    search(page, "what is a planet?")
    with page.expect_request("**/search") as asked:
        page.locator("#mix").focus()
        page.keyboard.press("End")
    assert asked.value.post_data_json["mix"] == 1
    assert page.text_content("#mix-value") == "1.00"
    with page.expect_request("**/search") as asked:
        page.locator("#budget").focus()
        page.keyboard.press("Home")
    assert asked.value.post_data_json["budget_ms"] == 25
    with page.expect_request("**/search") as asked:
        page.locator("#depth").focus()
        page.keyboard.press("Home")
    assert asked.value.post_data_json["depth"] == 5


def test_pasted_candidates_are_reranked(page: Any) -> None:
    page.check("input[value=pasted]")
    page.fill("#candidates", "bread needs yeast\n\nparis is the capital\nof france\n\na cat")
    search(page, "capital?")
    assert page.locator("#columns h3").all_text_contents() == ["As given", "Dense", "Reranked"]
    assert page.locator("#results li").count() == 3


def test_bad_input_is_told(page: Any) -> None:
    page.fill("#query", "   ")
    page.click("button[type=submit]")
    assert page.text_content("#problem") == "Type a question first."
    page.check("input[value=pasted]")
    page.fill("#query", "capital?")
    page.click("button[type=submit]")
    assert "candidate" in page.text_content("#problem")
    page.fill("#candidates", "x " * 20_000 + "\n")
    page.check("input[value=index]")
    page.evaluate("document.getElementById('depth').max = 5000; document.getElementById('depth').value = 5000")
    with page.expect_response("**/search"):
        page.click("button[type=submit]")
    page.locator("#problem", has_text="depth").wait_for()
    search_again = page.locator("#depth")
    search_again.evaluate("one => { one.value = 50 }")
    search(page, "paris")
    assert page.is_hidden("#problem")


BUSY = {"status": 429, "content_type": "application/json", "body": '{"message": "no room now"}'}


@pytest.mark.parametrize(
    ("reply", "said"),
    [
        (
            {"status": 502, "content_type": "text/html", "body": "<html>bad gateway</html>"},
            "a proxy before it, said 502",
        ),
        ({"status": 200, "content_type": "text/html", "body": "<html>log in</html>"}, "a proxy before it, said 200"),
        (BUSY, "no room now"),
    ],
)
def test_an_error_takes_the_place_of_the_answer_before(page: Any, reply: dict[str, Any], said: str) -> None:
    # The answers of the question before stayed under it, and a proxy's page was an "Unexpected token '<'".
    search(page, "paris")
    page.route("**/search", lambda route: route.fulfill(**reply))
    page.fill("#query", "bread")
    page.keyboard.press("Enter")
    page.locator("#problem", has_text=said).wait_for()
    assert page.is_hidden("#answer")
    page.unroute("**/search")
    with page.expect_response("**/search"):
        page.locator("#depth").press("Home")
    page.wait_for_selector("#answer:not(.working) #results li")
    assert page.is_hidden("#problem")


def test_another_source_begins_without_an_answer(page: Any) -> None:
    search(page, "paris")
    page.check("input[value=pasted]")
    assert page.is_hidden("#answer")


def test_the_first_question_is_seen_to_be_under_way(page: Any) -> None:
    held: list[Any] = []
    page.route("**/search", lambda route: held.append(route))
    page.fill("#query", "paris")
    with page.expect_request("**/search"):
        page.keyboard.press("Enter")
    page.locator("#status", has_text="Searching…").wait_for()
    held[0].continue_()
    page.wait_for_selector("#answer:not(.working) #results li")
    # A screen reader says this much by itself: it was the whole answer, minutes of speech.
    assert re.fullmatch(r"\d+ answers, [\d.]+ m?s", page.text_content("#status"))
    assert page.locator("[aria-live=polite]").count() == 0


def test_what_the_server_is_may_be_refused_too(page: Any) -> None:
    # It was told as "The server cannot be reached.", and a key that was typed changed nothing.
    page.route("**/info", lambda route: route.fulfill(**BUSY))
    page.reload()
    page.locator("#problem", has_text="no room now").wait_for()
    locked = {"status": 401, "content_type": "application/json", "body": '{"message": "an API key is needed"}'}
    page.unroute("**/info")
    page.route(
        "**/info",
        lambda route: route.continue_() if "authorization" in route.request.headers else route.fulfill(**locked),
    )
    page.reload()
    page.wait_for_selector("#key")
    assert page.is_hidden("#problem")
    page.fill("#key", "a-long-secret")
    page.keyboard.press("Tab")
    page.wait_for_selector("#about:not(:empty)")


def test_it_can_be_used_without_a_mouse(page: Any) -> None:
    page.keyboard.press("/")
    assert page.evaluate("document.activeElement.id") == "query"
    search(page, "what is yeast?")
    page.keyboard.press("ArrowDown")
    page.keyboard.press("ArrowDown")
    second = page.locator("#results li").nth(1)
    assert second.evaluate("one => one === document.activeElement")
    assert page.locator("#columns li.lit").count() >= 2
    page.keyboard.press("Escape")
    assert page.evaluate("document.activeElement.id") == "query"
    assert page.locator(".lit").count() == 0


def test_sliders_say_what_they_are_and_what_they_are_set_to(page: Any) -> None:
    # The output in a slider's label had the label, so that the sliders had no name; a budget of none was "11".
    for name, value in (("depth", "50"), ("budget", "none"), ("share of the cross-encoder", f"{MIX:.2f}")):
        slider = page.get_by_role("slider", name=name, exact=True)
        assert slider.get_attribute("aria-valuetext") == value
    page.locator("#budget").press("Home")
    assert page.get_attribute("#budget", "aria-valuetext") == "25 ms"


def test_headings_go_down_a_step_at_a_time(page: Any) -> None:
    search(page, "paris")
    levels = page.locator("h1, h2, h3, h4").evaluate_all("all => all.map((one) => Number(one.tagName[1]))")
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(after <= before + 1 for before, after in itertools.pairwise(levels))


def test_answers_are_reached_with_tab(page: Any) -> None:
    # Each row had a tabindex of -1, so that only who knew of the arrows came to them.
    search(page, "what is yeast?")
    reachable = page.locator("#results li[tabindex='0']")
    assert reachable.count() == 1
    page.locator("#mix").focus()
    page.keyboard.press("Tab")
    rows = page.locator("#results li")
    assert rows.nth(0).evaluate("one => one === document.activeElement")
    page.keyboard.press("ArrowDown")
    assert reachable.count() == 1
    page.keyboard.press("Shift+Tab")
    assert page.evaluate("document.activeElement.id") == "mix"
    page.keyboard.press("Tab")
    assert rows.nth(1).evaluate("one => one === document.activeElement")


def test_on_a_telephone_only_the_columns_scroll_sideways(page: Any) -> None:
    search(page, "paris")
    assert page.get_attribute("#columns", "tabindex") == "-1"
    page.set_viewport_size({"width": 375, "height": 800})
    page.wait_for_selector("#columns[tabindex='0']")
    assert page.get_by_role("region", name="The order after each step").count() == 1
    assert page.evaluate("document.documentElement.scrollWidth") <= 375


def test_the_address_says_what_was_asked(page: Any, server: Serving) -> None:
    search(page, "what is yeast & bread?")
    assert page.title() == "what is yeast & bread? – crossrank"
    with page.expect_response("**/search"):
        page.locator("#mix").press("End")
    page.wait_for_url("**/?q=what+is+yeast+%26+bread%3F&mix=1")
    search(page, "paris")
    with page.expect_response("**/search"):
        page.go_back()
    page.wait_for_selector("#answer:not(.working) #results li")
    assert (page.input_value("#query"), page.input_value("#mix")) == ("what is yeast & bread?", "1")
    # Another slider was no page of its own to go back to.
    page.go_back()
    page.wait_for_selector("#answer", state="hidden")
    assert (page.input_value("#query"), page.title()) == ("", "crossrank")
    with page.expect_request("**/search") as asked:
        page.goto(f"{server.listener.url}/?q=paris&depth=20&budget=100&mix=0.5")
    sent = asked.value.post_data_json
    assert {name: sent[name] for name in ("query", "depth", "budget_ms", "mix")} == {
        "query": "paris", "depth": 20, "budget_ms": 100, "mix": 0.5,
    }  # fmt: skip
    page.wait_for_selector("#answer:not(.working) #results li")


def test_of_several_models_one_is_chosen(browser: Any, tmp_path: Any) -> None:
    import tiny

    folders = {name: tiny.cross_encoder(tmp_path / name) for name in ("first", "second")}
    scorers = {name: crossrank.load(folder, backend="fake") for name, folder in folders.items()}
    with serving(scorers) as made:
        context = browser.new_context()
        page = context.new_page()
        page.goto(f"{made.listener.url}/?source=pasted&model=second")
        page.wait_for_selector("#choosing")
        assert page.text_content("#about").startswith("first, second on ")
        assert page.locator("#model option").all_text_contents() == ["first", "second"]
        assert page.input_value("#model") == "second"
        page.fill("#candidates", "bread\nparis")
        page.fill("#query", "capital?")
        for name, address in (("second", "model=second"), ("first", "q=capital%3F&source=pasted")):
            with page.expect_response("**/search") as answered:
                if name == "first":
                    # By its keys, which go through answers elsewhere.
                    page.locator("#model").press("ArrowUp")
                else:
                    page.click("button[type=submit]")
            assert answered.value.request.post_data_json["model"] == answered.value.json()["model"] == name
            page.wait_for_selector("#answer:not(.working) #results li")
            assert address in page.url
        assert "model" not in page.url
        # What the server does not have is not asked for.
        page.goto(f"{made.listener.url}/?source=pasted&model=nobody")
        page.wait_for_selector("#choosing")
        assert page.input_value("#model") == "first"
        context.close()


def test_another_model_may_read_first(browser: Any, tmp_path: Any) -> None:
    import tiny

    # Two names of one model, and one with another number of positions.
    first, second = tiny.cross_encoder(tmp_path / "a"), tiny.cross_encoder(tmp_path / "b", max_position_embeddings=80)
    one = crossrank.load(first, backend="fake")
    with serving({"first": one, "alias": one, "second": crossrank.load(second, backend="fake")}) as made:
        context = browser.new_context()
        page = context.new_page()
        page.goto(f"{made.listener.url}/?source=pasted&depth=5&coarse=second")
        page.wait_for_selector("#preceding")
        assert page.locator("#coarse option").all_text_contents() == ["no other", "first", "alias", "second"]
        assert page.input_value("#coarse") == "second"
        assert page.locator("#coarse option:disabled").all_text_contents() == ["first", "alias"]
        page.fill("#candidates", "bread\nparis\nfrance\na cat")
        search(page, "capital?")
        assert page.locator("#columns h3").all_text_contents() == ["As given", "Coarse", "Reranked"]
        assert re.search(r"Coarse [\d.]+ m?s, 4 readReranked [\d.]+ m?s, 2 read", page.text_content("#legend"))
        assert "coarse=second" in page.url
        with page.expect_request("**/search") as asked:
            page.locator("#mix").press("Home")
        assert "coarse" not in asked.value.post_data_json
        with page.expect_request("**/search") as asked:
            page.locator("#mix").press("PageUp")
        assert asked.value.post_data_json["coarse"] == "second"
        page.wait_for_selector("#answer:not(.working) #results li")
        assert "the order that second has left" in page.text_content("#notes")
        # The model that reads last reads not before itself.
        with page.expect_request("**/search") as asked:
            page.select_option("#model", "second")
        assert "coarse" not in asked.value.post_data_json
        assert page.input_value("#coarse") == ""
        page.wait_for_selector("#answer:not(.working) #results li")
        assert "coarse" not in page.url
        context.close()


def test_one_model_is_no_choice(page: Any) -> None:
    assert page.locator("#choosing").is_hidden()
    assert page.locator("#preceding").is_hidden()
    with page.expect_request("**/search") as asked:
        search(page, "paris")
    assert not {"model", "coarse"} & set(asked.value.post_data_json)


def test_an_address_holds_neither_keys_nor_candidates(page: Any) -> None:
    page.evaluate("document.getElementById('locked').hidden = false")
    page.fill("#key", "a-long-secret")
    page.check("input[value=pasted]")
    page.fill("#candidates", "bread\nparis")
    search(page, "capital?")
    page.wait_for_url("**/?q=capital%3F&source=pasted")
    page.reload()
    page.wait_for_selector("#about:not(:empty)", state="attached")
    assert page.is_checked("input[value=pasted]")
    assert page.input_value("#query") == "capital?"
    assert page.is_hidden("#answer")


def test_arrows_scroll_where_there_is_no_answer(page: Any) -> None:
    assert page.evaluate(
        "document.body.dispatchEvent(new KeyboardEvent('keydown', {key: 'ArrowDown', bubbles: true, cancelable: true}))"
    )


def test_a_lost_server_is_told(page: Any) -> None:
    page.context.set_offline(True)
    page.fill("#query", "paris")
    page.keyboard.press("Enter")
    page.locator("#problem", has_text="cannot be reached").wait_for()
    page.context.set_offline(False)
    search(page, "paris")
    assert page.is_hidden("#problem")


def test_the_api_page_sends_its_examples(page: Any, server: Serving) -> None:
    page.goto(server.listener.url + "/docs")
    page.click("summary >> nth=0")
    page.click("details[open] button")
    page.locator("details[open] pre", has_text="relevance_score").first.wait_for()
    # The name in a path is one of those that are served; it was sent in its braces.
    page.locator("summary", has_text="GET /v1/models/{name} One of").click()
    one = page.locator("details[open]", has_text="/v1/models/{name}")
    one.locator("button").click()
    one.locator("pre", has_text='"object": "model"').wait_for()
    assert page.locator("h1").count() == 1
    assert page.locator("summary h2").count() == page.locator("details").count()
    assert page.locator("details").count() == len(server.client.get("/openapi.json").json()["paths"])
