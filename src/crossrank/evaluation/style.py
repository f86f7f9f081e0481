"""How a report looks: the style sheet of `page`, and the colours that plots share with it."""

from __future__ import annotations

# Blue and orange are told apart by everybody; grey is what cannot be told.
BETTER, WORSE, UNCLEAR, INK, LINE, PAPER = "#1f6feb", "#d9480f", "#8b949e", "#24292f", "#d0d7de", "#ffffff"
# A line that says something must be seen: 3:1 against the paper at least, as WCAG 2.1 has it. LINE only divides.
TRACE = "#6e7781"
# What tells models apart, in light; the sheet has others of the same names for dark.
MODELS = (BETTER, WORSE, "#2a9a49", "#8250df", "#b37e00", "#0f7b8a", "#cf3f8e", "#57606a")
# What the sheet calls a plot's colours: by these names they follow the reader's choice of light or dark.
NAMES = {
    BETTER: "better", WORSE: "worse", UNCLEAR: "unclear", INK: "ink", LINE: "line", PAPER: "paper", "#000000": "ink",
    TRACE: "trace", **{colour: f"model{place}" for place, colour in enumerate(MODELS[2:], start=3)},
}  # fmt: skip

CSS = """
:root { color-scheme: light; --ink: #24292f; --faint: #57606a; --line: #d0d7de; --better: #1f6feb; --worse: #d9480f;
  --unclear: #8b949e; --paper: #ffffff; --ground: #f6f8fa; --thin: #eaeef2; --good: #1a7f37; --mark: #fff3b0;
  --trace: #6e7781; --model3: #2a9a49; --model4: #8250df; --model5: #b37e00; --model6: #0f7b8a; --model7: #cf3f8e;
  --model8: #57606a; }
@media screen and (prefers-color-scheme: dark) {
  :root { color-scheme: dark; --ink: #e6edf3; --faint: #9aa4af; --line: #444c56; --better: #58a6ff; --worse: #ff8a5b;
    --unclear: #7d8590; --paper: #161b22; --ground: #0d1117; --thin: #2a3038; --good: #56d364; --mark: #5a4a00;
    --trace: #8b949e; --model3: #56d364; --model4: #a371f7; --model5: #d29922; --model6: #39c5cf; --model7: #f778ba;
    --model8: #9aa4af; }
}
* { box-sizing: border-box; }
body { margin: 0; background: var(--ground); color: var(--ink); font: 15px/1.5 system-ui, sans-serif; }
main { max-width: 66rem; margin: 0 auto; padding: 2rem 1.25rem 4rem; }
section, header { background: var(--paper); border: 1px solid var(--line); border-radius: 10px; padding: 1.25rem 1.5rem;
  margin-bottom: 1.25rem; }
header { border-left: 8px solid var(--line); }
header.yes { border-left-color: var(--better); }
header.no { border-left-color: var(--worse); }
h1 { font-size: 1.05rem; font-weight: 600; color: var(--faint); margin: 0 0 .35rem; }
header > p.answer { font-size: 1.45rem; line-height: 1.35; font-weight: 600; margin: 0 0 .75rem; }
h2 { font-size: 1.1rem; margin: 0 0 .5rem; }
h3 { font-size: .95rem; margin: 1.1rem 0 .3rem; }
p { margin: .35rem 0; }
ul { margin: .35rem 0; padding-left: 1.2rem; }
.faint, caption, dt { color: var(--faint); font-size: .88rem; }
.wide { overflow-x: auto; }
.wide:focus-visible, figure:focus-visible { outline: 2px solid var(--better); outline-offset: 2px; }
.wide caption { position: absolute; width: 1px; height: 1px; overflow: hidden; clip-path: inset(50%); }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; font-size: .9rem; }
th { text-align: left; font-weight: 600; color: var(--faint); border-bottom: 1px solid var(--line); }
th, td { padding: .32rem .7rem .32rem 0; vertical-align: top; }
tbody th.t { white-space: nowrap; }
td, tbody th { border-bottom: 1px solid var(--thin); }
tbody th { font-weight: 400; color: inherit; }
.n { text-align: right; white-space: nowrap; }
thead th.n { white-space: normal; vertical-align: bottom; }
thead th.t { vertical-align: bottom; }
.better { color: var(--better); font-weight: 600; }
.worse { color: var(--worse); font-weight: 600; }
dl { display: grid; grid-template-columns: max-content 1fr; gap: .1rem 1rem; margin: 0; }
dd { margin: 0; overflow-wrap: anywhere; }
figure { margin: .5rem 0 0; overflow-x: auto; }
svg { display: block; height: auto; max-width: 100%; min-width: 34rem; }
svg text { fill: var(--ink); font-family: system-ui, sans-serif !important; }
details { border-top: 1px solid var(--thin); padding: .5rem 0; }
summary { cursor: pointer; overflow-wrap: anywhere; }
blockquote { margin: .4rem 0; padding: .35rem .8rem; border-left: 3px solid var(--line); overflow-wrap: anywhere; }
blockquote p { margin: .1rem 0; }
.tag { display: inline-block; font-size: .78rem; border: 1px solid var(--line); border-radius: 1rem; padding: 0 .5rem;
  margin-right: .35rem; color: var(--faint); }
.tag.relevant { color: var(--good); border-color: var(--good); }
mark { background: var(--mark); color: inherit; border-radius: 2px; padding: 0 .1em; }
footer { color: var(--faint); font-size: .85rem; }
@media (max-width: 40rem) {
  main { padding: .75rem .5rem 2rem; }
  section, header { padding: .9rem .9rem; }
  header > p.answer { font-size: 1.2rem; }
}
@media print { body { background: #fff; } section, header { break-inside: avoid; } details { break-inside: avoid; } }
"""
