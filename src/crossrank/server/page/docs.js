// Shows /openapi.json: each path with an example that can be sent.

import { element } from "./drawing.js";

const key = () => document.getElementById("key").value;

// The path with the first of the names that may stand in it.
function addressOf(path, parameters) {
  return path.replace(/\{(\w+)\}/g, (place, name) => {
    const parameter = parameters.find((one) => one.in === "path" && one.name === name);
    return encodeURIComponent(parameter?.schema.enum?.[0] ?? place);
  });
}

async function send(method, path, content, shown) {
  shown.hidden = false;
  try {
    const headers = key() ? { Authorization: `Bearer ${key()}` } : {};
    const reply = await fetch(path, { method, headers, body: content || undefined });
    const text = await reply.text();
    const json = (reply.headers.get("content-type") ?? "").includes("json");
    shown.textContent = `${reply.status}\n${json ? JSON.stringify(JSON.parse(text), null, 1) : text}`.slice(0, 20000);
  } catch (error) {
    shown.textContent = `The server cannot be reached (${error.message}).`;
  }
}

function operation(path, method, about) {
  const parts = [];
  const schema = about.requestBody?.content["application/json"].schema;
  let input = null;
  if (schema) {
    input = element("textarea", { value: JSON.stringify(schema.example, null, 1), spellcheck: false, ariaLabel: "body" });
    input.rows = Math.min(14, input.value.split("\n").length + 1);
    parts.push(input);
  }
  // Long lines scroll, which keys do only where the focus can be.
  const shown = element("pre", { hidden: true, tabIndex: 0, role: "region", ariaLabel: "reply" });
  const button = element("button", { type: "submit" }, "Send");
  const address = addressOf(path, about.parameters ?? []);
  button.addEventListener("click", () => send(method.toUpperCase(), address, input?.value, shown));
  const failures = Object.entries(about.responses).map(([status, one]) => `${status} ${one.description}`).join(" ");
  parts.push(element("p", {}, button), shown, element("p", { className: "quiet" }, failures));
  const heading = element("h2", {}, element("code", {}, `${method.toUpperCase()} ${path}`), ` ${about.summary}`);
  return element("details", {}, element("summary", {}, heading), ...parts);
}

async function begin() {
  const described = await (await fetch("/openapi.json")).json();
  document.getElementById("about").textContent = described.info.description;
  const made = Object.entries(described.paths).flatMap(([path, methods]) =>
    Object.entries(methods).map(([method, about]) => operation(path, method, about)));
  document.getElementById("paths").replaceChildren(...made);
}

begin();
