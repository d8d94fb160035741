"""The colours and the style sheet of a drawn graph, for ``plot()``, for Mermaid text and for the web page."""

from __future__ import annotations

from collections.abc import Mapping

LIGHT = {
    "back": "#fff",
    "text": "#1a1d23",
    "soft": "#515a68",
    "edge": "#5b6472",
    "label": "#9a4a00",
    "start": "#e3f6e8",
    "start-line": "#1f7a3d",
    "listen": "#e8f0fe",
    "listen-line": "#2f5fb3",
    "route": "#fff1dc",
    "route-line": "#b25a00",
    "join": "#414a59",
    "join-text": "#fff",
}
DARK = {
    "back": "#14171c",
    "text": "#e8ebf0",
    "soft": "#a9b3c1",
    "edge": "#94a0b0",
    "label": "#ffb968",
    "start": "#15331f",
    "start-line": "#5cc97f",
    "listen": "#182a47",
    "listen-line": "#7aa7f2",
    "route": "#3a2812",
    "route-line": "#f0a04b",
    "join": "#c3ccd8",
    "join-text": "#14171c",
}


def _declare(colours: Mapping[str, str]) -> str:
    return f":root {{ {' '.join(f'--{name}: {colour};' for name, colour in colours.items())} }}"


DRAWING_STYLE = f"""\
{_declare(LIGHT)}
@media (prefers-color-scheme: dark) {{ {_declare(DARK)} }}
svg text {{ text-anchor: middle; fill: var(--text); }}
svg .name {{ font: 600 13px ui-monospace, SFMono-Regular, Menlo, Consolas, "DejaVu Sans Mono", monospace; }}
svg .doc {{ font-size: 12px; fill: var(--soft); }}
svg .node rect, svg .node polygon {{ stroke-width: 1.6; stroke-linejoin: round; }}
svg .listener rect {{ fill: var(--listen); stroke: var(--listen-line); }}
svg .start rect, svg .start polygon {{ fill: var(--start); stroke: var(--start-line); }}
svg .router polygon {{ fill: var(--route); stroke: var(--route-line); }}
svg .router.start polygon {{ fill: var(--start); }}
svg .waiting rect {{ stroke-dasharray: 6 4; }}
svg .and rect {{ fill: var(--join); stroke: var(--join); }}
svg .or rect {{ fill: var(--back); stroke: var(--join); }}
svg .loose rect {{ fill: var(--back); stroke: var(--label); stroke-dasharray: 2 3; }}
svg .and .name, svg .or .name {{ font-size: 11px; }}
svg .and .name {{ fill: var(--join-text); }}
svg .loose .name, svg .carried .name {{ font: 600 12px system-ui, -apple-system, "Segoe UI", Roboto, Helvetica, Arial,
  sans-serif; fill: var(--label); }}
svg .carried rect {{ fill: var(--back); }}
svg .way {{ fill: none; stroke: var(--edge); stroke-width: 1.5; }}
svg .head {{ fill: var(--edge); }}
svg .labelled .way, svg .maybe .way {{ stroke: var(--label); stroke-dasharray: 6 4; }}
svg .maybe .way {{ stroke-dasharray: 1.5 4; }}
svg .labelled .head, svg .maybe .head {{ fill: var(--label); }}
"""
"""Styles the elements of ``draw_figure``. Its colours are variables of the page (``--text``)."""
