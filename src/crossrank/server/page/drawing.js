// Draws what a search found. Texts reach the page only as text nodes, so nothing in them can become markup.

const ROW = 34;
const SVG = "http://www.w3.org/2000/svg";
const NAMES = {
  evidence: "Evidence", bm25: "BM25", dense: "Dense", fused: "Fused", coarse: "Coarse", reranked: "Reranked", given: "As given",
};
const COLOURS = {
  bm25: "--step1", given: "--step1", dense: "--step2", fused: "--step3", coarse: "--step6", reranked: "--step4", evidence: "--step5",
};
// Steps that read passages, and do not only order them.
const READING = ["coarse", "reranked"];

export function element(kind, attributes = {}, ...children) {
  const made = document.createElement(kind);
  for (const [name, value] of Object.entries(attributes)) made[name] = value;
  made.append(...children);
  return made;
}

const title = (name) => NAMES[name] ?? name;
export const percent = (chance) => (chance === null ? "–" : chance < 0.0005 ? "<0.1%" : `${(100 * chance).toFixed(chance < 0.1 || chance > 0.99 ? 1 : 0)}%`);
export const milliseconds = (seconds) => (seconds >= 1 ? `${seconds.toFixed(1)} s` : seconds < 0.01 ? `${(1000 * seconds).toFixed(1)} ms` : `${Math.round(1000 * seconds)} ms`);

export function drawTimes(bar, legend, found) {
  const steps = found.steps.filter((step) => step.seconds > 0);
  const known = steps.reduce((sum, step) => sum + step.seconds, 0);
  const total = Math.max(found.timing.total, known);
  bar.replaceChildren(...steps.map((step) => {
    const part = element("i", { title: `${title(step.name)} ${milliseconds(step.seconds)}` });
    part.style.width = `${(100 * step.seconds) / total}%`;
    part.style.background = `var(${COLOURS[step.name] ?? "--quiet"})`;
    return part;
  }));
  legend.replaceChildren(...steps.map((step) => {
    const swatch = element("b");
    swatch.style.background = `var(${COLOURS[step.name] ?? "--quiet"})`;
    const read = READING.includes(step.name) ? `, ${step.passages} read` : "";
    return element("span", {}, swatch, `${title(step.name)} ${milliseconds(step.seconds)}${read}`);
  }), element("span", {}, `all ${milliseconds(found.timing.total)}, of which ${milliseconds(found.timing.queue)} in the queue`));
}

function score(step, column) {
  if (column === "given") return "";
  if (step.probability !== undefined) return step.probability === null ? "" : percent(step.probability);
  return step.score === null ? "" : Math.abs(step.score) < 1 ? step.score.toFixed(3) : step.score.toFixed(1);
}

function line(from, to, id, last) {
  const path = document.createElementNS(SVG, "path");
  const y = (row) => row * ROW + ROW / 2 - 2;
  path.setAttribute("d", `M0 ${y(from)} C 50 ${y(from)}, 50 ${y(to)}, 100 ${y(to)}`);
  path.dataset.id = id;
  if (last && to !== from) path.classList.add(to < from ? "up" : "down");
  return path;
}

function lines(left, right, last) {
  const drawn = document.createElementNS(SVG, "svg");
  const height = ROW * Math.max(left.entries.length, right.entries.length);
  drawn.setAttribute("viewBox", `0 0 100 ${height}`);
  drawn.setAttribute("preserveAspectRatio", "none");
  drawn.setAttribute("aria-hidden", "true");
  drawn.style.height = `${height}px`;
  const places = new Map(right.entries.map((entry, row) => [entry.id, row]));
  left.entries.forEach((entry, row) => {
    if (places.has(entry.id)) drawn.append(line(row, places.get(entry.id), entry.id, last));
  });
  return drawn;
}

export function drawColumns(holder, found) {
  const shown = found.columns;
  const parts = [];
  shown.forEach((column, number) => {
    const list = element("ol", {}, ...column.entries.map((entry) => {
      const passage = found.passages[entry.id];
      // Signs of lists and headings say nothing in one line.
      const name = (passage.title || passage.text).replace(/^[\s*+#>-]+/, "");
      const row = element("li", { title: `${passage.document || entry.id}\n${name.slice(0, 300)}` },
        element("em", {}, String(entry.rank)), element("span", {}, name.slice(0, 120)), element("em", {}, score(entry, column.name)));
      row.dataset.id = entry.id;
      return row;
    }));
    const heading = element("h3", {}, title(column.name));
    parts.push(element("section", {}, heading, list));
    if (number + 1 < shown.length) parts.push(lines(column, shown[number + 1], number + 2 === shown.length));
  });
  holder.style.gridTemplateColumns = shown.map((_, number) => (number ? "64px minmax(170px, 1fr)" : "minmax(170px, 1fr)")).join(" ");
  holder.replaceChildren(...parts);
}

// A line end inside a paragraph is where an editor wrapped it. Each becomes one space, so that places stay the same.
const unwrapped = (text) => text.replace(/([^\n])\n(?![ \t]*(?:\n|[-*+•#]|\d+[.)]|$))/g, "$1 ");

function marked(wrapped, evidence) {
  const text = unwrapped(wrapped);
  if (!evidence || evidence[1] - evidence[0] >= text.trim().length) return [text];
  // Spans count code points, as Python does; JavaScript's own indices count UTF-16 units.
  const points = Array.from(text);
  const [begin, end] = evidence;
  return [points.slice(0, begin).join(""), element("mark", {}, points.slice(begin, end).join("")), points.slice(end).join("")];
}

function moved(result) {
  const before = (result.steps.fused ?? result.steps.dense ?? result.steps.given)?.rank;
  const change = before === undefined ? 0 : before - result.rank;
  if (!change) return element("span", { className: "quiet" }, "same place");
  const way = change > 0 ? "up" : "down";
  return element("span", { className: `quiet moved ${way}` }, `${change > 0 ? "▲" : "▼"} ${Math.abs(change)} from ${before}`);
}

export function drawResults(list, found) {
  list.replaceChildren(...found.results.map((result, place) => {
    const fill = element("i");
    fill.style.width = `${100 * (result.probability ?? 0)}%`;
    const side = element("div", {},
      element("div", { className: "chance", title: "probability that this answers" }, percent(result.probability)),
      element("div", { className: "gauge" }, fill), moved(result));
    const where = [result.title, result.document].filter(Boolean).join(" · ");
    const body = element("div", {}, ...(where ? [element("h3", {}, where)] : []),
      element("p", {}, ...marked(result.text, result.evidence)));
    const row = element("li", { tabIndex: place ? -1 : 0 }, side, body);
    row.dataset.id = result.id;
    return row;
  }));
}

// One row is reached with Tab, the others with the arrows from there.
export function reach(list, row) {
  for (const one of list.children) one.tabIndex = one === row ? 0 : -1;
}

export function light(id) {
  for (const one of document.querySelectorAll("[data-id]")) one.classList.toggle("lit", id !== null && one.dataset.id === id);
}
