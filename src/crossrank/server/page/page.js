// The page: asks this server, and nobody else.

import { read, write } from "./address.js";
import { drawColumns, drawResults, drawTimes, element, light, milliseconds, reach } from "./drawing.js";

const $ = (id) => document.getElementById(id);
const BUDGETS = [25, 50, 100, 150, 200, 300, 500, 750, 1000, 2000, 5000, null];
const SLIDERS = ["depth", "budget", "mix"];
const ROWS = 15;
// The first candidate repeats most words of the question, and is what word search and vectors put first.
const EXAMPLE = {
  query: "Who painted the Mona Lisa?",
  candidates: `Who is the woman in the Mona Lisa?
The Mona Lisa hangs in the Louvre in Paris.
Marcel Duchamp drew a moustache on a postcard of the Mona Lisa.
The Mona Lisa was stolen in 1911 by Vincenzo Peruggia.
Leonardo da Vinci painted the Mona Lisa between 1503 and 1506.
Mona Lisa is a song by Nat King Cole.
The painting has been behind glass since 2005.`,
};

let running = null;
let timer = 0;
// Whether there is a question that a slider may ask again.
let asking = false;
// What tells whether two names are of one model.
let models = new Map();
// The share that each source begins with: pasted candidates have no first stage worth mixing in.
const first = { index: $("mix").defaultValue, pasted: "1" };
const mixes = { ...first };

const source = () => document.querySelector("input[name=source]:checked").value;

function candidates() {
  const text = $("candidates").value.trim();
  return text.split(/\n\s*\n/.test(text) ? /\n\s*\n/ : /\n/).map((one) => one.trim()).filter(Boolean);
}

function showValues() {
  const budget = BUDGETS[$("budget").value];
  $("depth-value").textContent = $("depth").value;
  $("budget-value").textContent = budget === null ? "none" : `${budget} ms`;
  $("mix-value").textContent = Number($("mix").value).toFixed(2);
  // The slider of the budget counts its steps, which says nothing to who hears it: what is shown is what is said.
  for (const slider of SLIDERS) $(slider).ariaValueText = $(`${slider}-value`).textContent;
}

function problem(text) {
  $("problem").hidden = text === null;
  $("problem").textContent = text ?? "";
}

// An answer stands under its own question only.
function clear(text = null) {
  $("answer").hidden = true;
  $("status").textContent = "";
  problem(text);
}

// What the server replies, or an error in words for people: a proxy between may answer with a page of its own.
async function call(path, options = {}) {
  const headers = $("key").value ? { ...options.headers, Authorization: `Bearer ${$("key").value}` } : options.headers;
  const reply = await fetch(path, { ...options, headers }).catch((error) => {
    throw error.name === "AbortError" ? error : new Error("The server cannot be reached.");
  });
  const found = await reply.json().catch((error) => {
    if (error.name === "AbortError") throw error;
    return null;
  });
  if (reply.status === 401) $("locked").hidden = false;
  if (reply.ok && found) return found;
  throw new Error(found?.message ?? `The server, or a proxy before it, said ${reply.status} and no more.`);
}

function body() {
  const asked = {
    query: $("query").value, k: 10, depth: Number($("depth").value), mix: Number($("mix").value), columns: ROWS, evidence: true,
  };
  const budget = BUDGETS[$("budget").value];
  if (budget !== null) asked.budget_ms = budget;
  if ($("model").value) asked.model = $("model").value;
  // Where no cross-encoder has a share, none reads first either.
  if ($("coarse").value && asked.mix) asked.coarse = $("coarse").value;
  if (source() === "pasted") asked.documents = candidates();
  return asked;
}

// What the form says, for the address; null for what is as it was at the beginning.
function stated() {
  const other = (slider, begun) => ($(slider).value === begun ? null : $(slider).value);
  return {
    q: $("query").value, source: source() === "pasted" ? "pasted" : null, depth: other("depth", $("depth").defaultValue),
    budget: BUDGETS[$("budget").value], mix: other("mix", first[source()]),
    model: $("model").selectedIndex > 0 ? $("model").value : null, coarse: $("coarse").value || null,
  };
}

// Of several models the one that is called so, or else the first, which the server takes where nobody names one; and the
// one that reads before it, which is none where nobody names one.
function choose(said) {
  for (const field of ["model", "coarse"]) {
    const named = [...$(field).options].findIndex((option) => !option.disabled && option.value === (said[field] ?? ""));
    $(field).selectedIndex = $(field).options.length ? Math.max(named, 0) : -1;
    if (field === "model") others();
  }
}

// The model itself cannot read before itself, whatever it is called.
function others() {
  const mine = models.get($("model").value);
  for (const option of $("coarse").options) option.disabled = Boolean(mine) && models.get(option.value) === mine;
  if ($("coarse").selectedOptions[0]?.disabled) $("coarse").value = "";
}

// The form as the address has it, and whether that can be asked.
function fill() {
  const said = read();
  const number = (name, begun) => (said[name] && Number.isFinite(Number(said[name])) ? said[name] : begun);
  const wanted = document.querySelector(`input[value=${said.source === "pasted" ? "pasted" : "index"}]`);
  if (!wanted.disabled) wanted.checked = true;
  changeSource();
  const budget = BUDGETS.indexOf(Number(said.budget));
  $("query").value = said.q ?? "";
  $("depth").value = number("depth", $("depth").defaultValue);
  $("budget").value = budget < 0 ? BUDGETS.length - 1 : budget;
  $("mix").value = mixes[source()] = number("mix", first[source()]);
  choose(said);
  document.title = "crossrank";
  showValues();
}

// Asks what the address asks, where all is there: candidates are in no address, and a missing key is asked for first.
// Whoever is sent a link expects what it found. A search changes nothing, and what fetches links ahead or for a preview
// runs no script, so it costs no search.
function begin() {
  const whole = source() === "index" || candidates().length;
  const query = read().q ?? "";
  // Whoever types already is not interrupted.
  if (query.trim() && query === $("query").value && whole && $("locked").hidden) ask();
}

async function ask() {
  clearTimeout(timer);
  // The server drops what nobody waits for.
  running?.abort();
  const asked = body();
  if (!asked.query.trim()) return clear("Type a question first.");
  if (asked.documents && !asked.documents.length) return clear("Paste at least one candidate.");
  const mine = (running = new AbortController());
  const said = stated();
  asking = true;
  problem(null);
  $("answer").classList.add("working");
  if ($("answer").hidden) $("status").textContent = "Searching…";
  try {
    const headers = { "Content-Type": "application/json" };
    const found = await call("/search", { method: "POST", headers, body: JSON.stringify(asked), signal: mine.signal });
    problem(found.results.length ? null : "Nothing was found.");
    draw(found);
    write(said);
  } catch (error) {
    if (error.name !== "AbortError") clear(error.message);
  } finally {
    if (running === mine) $("answer").classList.remove("working");
  }
}

function draw(found) {
  $("answer").hidden = false;
  drawTimes($("bar"), $("legend"), found);
  drawColumns($("columns"), found);
  drawResults($("results"), found);
  scrolls();
  const count = found.results.length;
  // What a screen reader says of an answer; the answer itself would be minutes of speech.
  $("status").textContent = count ? `${count} ${count === 1 ? "answer" : "answers"}, ${milliseconds(found.timing.total)}` : "";
  const share = Math.round(100 * Number($("mix").value));
  const before = found.steps.some((step) => step.name === "coarse") ? `the order that ${found.coarse} has left` : "first stage";
  const order = share === 100 || !found.read
    ? "" : `Ordered by ${share} % cross-encoder and ${100 - share} % ${before}; the probability is the cross-encoder's alone.`;
  const notes = [order, ...found.warnings.map((one) => `${one[0].toUpperCase()}${one.slice(1)}.`)].filter(Boolean);
  $("notes").hidden = !notes.length;
  $("notes").textContent = notes.join(" ");
}

// Keys scroll only where the focus can be, and a stop of Tab that does nothing is in the way.
function scrolls() {
  $("columns").tabIndex = $("columns").scrollWidth > $("columns").clientWidth ? 0 : -1;
}

function changeSource() {
  running?.abort();
  asking = false;
  clear();
  const pasted = source() === "pasted";
  $("pasting").hidden = $("example").hidden = !pasted;
  $("mix").value = mixes[source()];
  showValues();
}

function move(step) {
  const rows = [...$("results").children];
  if (!rows.length || $("answer").hidden) return false;
  const next = Math.min(Math.max(rows.indexOf(document.activeElement) + step, 0), rows.length - 1);
  rows[next].focus();
  return true;
}

function keyed(event) {
  const typing = event.target.matches("input:not([type=range]):not([type=radio]), textarea, select");
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  if (event.key === "Escape") {
    $("query").focus();
    light(null);
  } else if (event.key === "/" && !typing) {
    $("query").focus();
    $("query").select();
  } else if (["ArrowDown", "ArrowUp"].includes(event.key) && !event.target.matches("textarea, select, [type=range], [type=radio]")) {
    // Without answers the arrows scroll, as everywhere.
    if (!move(event.key === "ArrowDown" ? 1 : -1)) return;
  } else return;
  event.preventDefault();
}

async function tell() {
  try {
    const info = await call("/info");
    const passages = info.index ? `, ${info.index.passages.toLocaleString("en")} passages` : "";
    const names = info.models.map((one) => one.name);
    const backends = [...new Set(info.models.map((one) => one.backend))];
    $("about").textContent = `${names.join(", ")} on ${backends.join(", ")}${passages}`;
    if (names.length > 1 && !$("model").options.length) {
      models = new Map(info.models.map((one) => [one.name, one.fingerprint]));
      for (const field of ["model", "coarse"]) $(field).append(...names.map((name) => element("option", { value: name }, name)));
      $("choosing").hidden = false;
      $("preceding").hidden = new Set(models.values()).size < 2;
      choose(read());
    }
    if (!info.index && !info.index_error && source() === "index") {
      document.querySelector("input[value=index]").disabled = true;
      document.querySelector("input[value=pasted]").checked = true;
      changeSource();
    }
  } catch (error) {
    // Without a key, the field that asks for it says enough.
    if ($("key").value || $("locked").hidden) problem(error.message);
  }
}

$("form").addEventListener("submit", (event) => {
  event.preventDefault();
  ask();
});
for (const slider of SLIDERS) {
  $(slider).addEventListener("input", () => {
    showValues();
    mixes[source()] = $("mix").value;
    clearTimeout(timer);
    if (asking) timer = setTimeout(ask, 150);
  });
}
for (const field of ["model", "coarse"]) {
  $(field).addEventListener("change", () => {
    others();
    if (asking) ask();
  });
}
for (const radio of document.querySelectorAll("input[name=source]")) radio.addEventListener("change", changeSource);
$("example").addEventListener("click", () => {
  $("query").value = EXAMPLE.query;
  $("candidates").value = EXAMPLE.candidates;
  ask();
});
for (const kind of ["mouseover", "focusin"]) {
  $("answer").addEventListener(kind, (event) => light(event.target.closest("[data-id]")?.dataset.id ?? null));
}
$("results").addEventListener("focusin", (event) => reach($("results"), event.target.closest("li")));
new ResizeObserver(scrolls).observe($("columns"));
window.addEventListener("popstate", () => {
  fill();
  begin();
});
$("key").addEventListener("change", () => {
  problem(null);
  tell();
});
document.addEventListener("keydown", keyed);
fill();
tell().then(begin);
