"""The page's style sheet, for light and dark."""

STYLE = """\
:root {
  --back: #fff; --text: #1a1d23; --soft: #515a68; --line: #5b6472; --label: #9a4a00;
  --start: #e3f6e8; --start-line: #1f7a3d; --listen: #e8f0fe; --listen-line: #2f5fb3;
  --route: #fff1dc; --route-line: #b25a00; --join: #414a59; --join-text: #fff;
}
@media (prefers-color-scheme: dark) {
  :root {
    --back: #14171c; --text: #e8ebf0; --soft: #a9b3c1; --line: #94a0b0; --label: #ffb968;
    --start: #15331f; --start-line: #5cc97f; --listen: #182a47; --listen-line: #7aa7f2;
    --route: #3a2812; --route-line: #f0a04b; --join: #c3ccd8; --join-text: #14171c;
  }
}
body { margin: 0 auto; padding: 20px; background: var(--back); color: var(--text);
  font-family: system-ui, -apple-system, "Segoe UI", Roboto, Helvetica, Arial, sans-serif; }
h1 { margin: 0 0 12px; font-size: 22px; text-align: center; overflow-wrap: anywhere; }
p { text-align: center; color: var(--soft); }
.drawing { overflow-x: auto; }
.drawing svg { display: block; margin: 0 auto; height: auto; }
text { text-anchor: middle; fill: var(--text); }
.name { font: 600 13px ui-monospace, SFMono-Regular, Menlo, Consolas, "DejaVu Sans Mono", monospace; }
.doc { font-size: 12px; fill: var(--soft); }
.node rect, .node polygon { stroke-width: 1.6; stroke-linejoin: round; }
.listener rect { fill: var(--listen); stroke: var(--listen-line); }
.start rect, .start polygon { fill: var(--start); stroke: var(--start-line); }
.router polygon { fill: var(--route); stroke: var(--route-line); }
.router.start polygon { fill: var(--start); }
.waiting rect { stroke-dasharray: 6 4; }
.and rect { fill: var(--join); stroke: var(--join); }
.or rect { fill: var(--back); stroke: var(--join); }
.loose rect { fill: var(--back); stroke: var(--label); stroke-dasharray: 2 3; }
.and .name, .or .name { font-size: 11px; }
.and .name { fill: var(--join-text); }
.loose .name, .carried .name { font: 600 12px system-ui, -apple-system, "Segoe UI", Roboto, Helvetica, Arial,
  sans-serif; fill: var(--label); }
.carried rect { fill: var(--back); }
.way { fill: none; stroke: var(--line); stroke-width: 1.5; }
.head { fill: var(--line); }
.labelled .way, .maybe .way { stroke: var(--label); stroke-dasharray: 6 4; }
.maybe .way { stroke-dasharray: 1.5 4; }
.labelled .head, .maybe .head { fill: var(--label); }
.legend { display: flex; flex-wrap: wrap; justify-content: center; gap: 6px 20px; margin: 16px 0 0; padding: 0;
  list-style: none; font-size: 13px; color: var(--soft); }
.legend li { display: flex; align-items: center; gap: 6px; }
"""
