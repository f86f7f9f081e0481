// The page's own address says what was asked, so that it can be kept, sent and gone back to. Candidates are too long for
// one, and API keys stay secret: neither is ever in it.

// A reload sends the address to the server, which reads no longer ones.
const LONGEST = 2000;

// Fields by name, as the address has them: `q`, and what differs from how the page begins.
export const read = () => Object.fromEntries(new URLSearchParams(location.search));

// Another question is another page to go back to; the same one with other sliders is not.
export function write(said) {
  document.title = `${said.q} – crossrank`;
  const fields = Object.entries(said).filter(([, value]) => value !== null);
  const search = said.q.length > LONGEST ? "" : `?${new URLSearchParams(fields)}`;
  if (search === location.search) return;
  const before = read();
  const same = before.q === said.q && (before.source ?? null) === said.source;
  history[same ? "replaceState" : "pushState"](null, "", search || location.pathname);
}
