// The page: asks this server, and nobody else.

import { drawColumns, drawResults, drawTimes, light } from "./drawing.js";

const $ = (id) => document.getElementById(id);
const BUDGETS = [25, 50, 100, 150, 200, 300, 500, 750, 1000, 2000, 5000, null];
const ROWS = 15;
const EXAMPLE = {
  query: "How long can I wait before returning shoes?",
  candidates: `Our shops are open from nine to six, and on Saturdays from ten to four.
Shoes may be sent back within 60 days of delivery. They must be unworn and in their box.
Returning visitors see the shoes that they looked at last time.
Refunds reach your account three to five days after the parcel has reached us.
How long leather lasts depends on care. Wait a day between two wearings, and return the trees to the shoes.
Everything else can be returned within 30 days; shoes have twice that time because of the sizes.`,
};

let running = null;
let timer = 0;
// Whether there is a question that a slider may ask again.
let asking = false;
// The share that each source begins with: pasted candidates have no first stage worth mixing in.
const mixes = { index: $("mix").defaultValue, pasted: "1" };

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
}

function problem(text) {
  $("problem").hidden = text === null;
  $("problem").textContent = text ?? "";
}

// An answer stands under its own question only.
function clear(text = null) {
  $("answer").hidden = true;
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
  if (source() === "pasted") asked.documents = candidates();
  return asked;
}

async function ask() {
  clearTimeout(timer);
  // The server drops what nobody waits for.
  running?.abort();
  const asked = body();
  if (!asked.query.trim()) return clear("Type a question first.");
  if (asked.documents && !asked.documents.length) return clear("Paste at least one candidate.");
  const mine = (running = new AbortController());
  asking = true;
  problem(null);
  $("answer").classList.add("working");
  $("searching").hidden = !$("answer").hidden;
  try {
    const headers = { "Content-Type": "application/json" };
    const found = await call("/search", { method: "POST", headers, body: JSON.stringify(asked), signal: mine.signal });
    problem(found.results.length ? null : "Nothing was found.");
    draw(found);
  } catch (error) {
    if (error.name !== "AbortError") clear(error.message);
  } finally {
    if (running === mine) {
      $("answer").classList.remove("working");
      $("searching").hidden = true;
    }
  }
}

function draw(found) {
  $("answer").hidden = false;
  drawTimes($("bar"), $("legend"), found);
  drawColumns($("columns"), found);
  drawResults($("results"), found);
  const share = Math.round(100 * Number($("mix").value));
  const order = share === 100 || !found.read
    ? "" : `Ordered by ${share} % cross-encoder and ${100 - share} % first stage; the probability is the cross-encoder's alone.`;
  const notes = [order, ...found.warnings.map((one) => `${one[0].toUpperCase()}${one.slice(1)}.`)].filter(Boolean);
  $("notes").hidden = !notes.length;
  $("notes").textContent = notes.join(" ");
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
  if (!rows.length) return;
  const next = Math.min(Math.max(rows.indexOf(document.activeElement) + step, 0), rows.length - 1);
  rows[next].focus();
}

function keyed(event) {
  const typing = event.target.matches("input:not([type=range]):not([type=radio]), textarea");
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  if (event.key === "Escape") {
    $("query").focus();
    light(null);
  } else if (event.key === "/" && !typing) {
    $("query").focus();
    $("query").select();
  } else if (["ArrowDown", "ArrowUp"].includes(event.key) && !event.target.matches("textarea, [type=range], [type=radio]")) {
    move(event.key === "ArrowDown" ? 1 : -1);
  } else return;
  event.preventDefault();
}

async function tell() {
  try {
    const info = await call("/info");
    const passages = info.index ? `, ${info.index.passages.toLocaleString("en")} passages` : "";
    $("about").textContent = `${info.model.name} on ${info.model.backend}${passages}`;
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
for (const slider of ["depth", "budget", "mix"]) {
  $(slider).addEventListener("input", () => {
    showValues();
    mixes[source()] = $("mix").value;
    clearTimeout(timer);
    if (asking) timer = setTimeout(ask, 150);
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
$("key").addEventListener("change", () => {
  problem(null);
  tell();
});
document.addEventListener("keydown", keyed);
showValues();
tell();
