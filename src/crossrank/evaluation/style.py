"""How a report looks: the style sheet of `page`."""

from __future__ import annotations

CSS = """
:root { color-scheme: light; --ink: #24292f; --faint: #57606a; --line: #d0d7de; --better: #1f6feb; --worse: #d9480f; }
* { box-sizing: border-box; }
body { margin: 0; background: #f6f8fa; color: var(--ink); font: 15px/1.5 system-ui, sans-serif; }
main { max-width: 66rem; margin: 0 auto; padding: 2rem 1.25rem 4rem; }
section, header { background: #fff; border: 1px solid var(--line); border-radius: 10px; padding: 1.25rem 1.5rem;
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
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; font-size: .9rem; }
th { text-align: left; font-weight: 600; color: var(--faint); border-bottom: 1px solid var(--line); }
th, td { padding: .32rem .7rem .32rem 0; vertical-align: top; }
td.t:first-child { white-space: nowrap; }
td { border-bottom: 1px solid #eaeef2; }
.n { text-align: right; white-space: nowrap; }
th.n { white-space: normal; vertical-align: bottom; }
th.t { vertical-align: bottom; }
.better { color: var(--better); font-weight: 600; }
.worse { color: var(--worse); font-weight: 600; }
.base td { background: #f6f8fa; }
dl { display: grid; grid-template-columns: max-content 1fr; gap: .1rem 1rem; margin: 0; }
dd { margin: 0; overflow-wrap: anywhere; }
figure { margin: .5rem 0 0; }
svg { display: block; height: auto; max-width: 100%; }
svg text { font-family: system-ui, sans-serif !important; }
details { border-top: 1px solid #eaeef2; padding: .5rem 0; }
summary { cursor: pointer; overflow-wrap: anywhere; }
blockquote { margin: .4rem 0; padding: .35rem .8rem; border-left: 3px solid var(--line); overflow-wrap: anywhere; }
blockquote p { margin: .1rem 0; }
.tag { display: inline-block; font-size: .78rem; border: 1px solid var(--line); border-radius: 1rem; padding: 0 .5rem;
  margin-right: .35rem; color: var(--faint); }
.tag.relevant { color: #1a7f37; border-color: #1a7f37; }
footer { color: var(--faint); font-size: .85rem; }
@media print { body { background: #fff; } section, header { break-inside: avoid; } details { break-inside: avoid; } }
"""
