"""A graph as a picture: nodes in layers, edges between them. Pure: names and edges in, places out.

The template draws the result as SVG, where every name stays text.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

START: Final = "__start__"
END: Final = "__end__"

NODES_MAX: Final = 200
"""Nodes that are drawn."""

_HEIGHT: Final = 34
_LAYER: Final = 84
_GAP: Final = 26
_CHAR: Final = 8
_CHARS: Final = 28


@dataclass
class Seen:
    """What a log says about a graph.

    Attributes:
        edges: how often each edge was taken.
        runs: how often each node finished.
        failed: nodes that failed.
    """

    edges: dict[tuple[str, str], int] = field(default_factory=dict)
    runs: dict[str, int] = field(default_factory=dict)
    failed: set[str] = field(default_factory=set)

    def take(self, source: str, target: str) -> None:
        """Count an edge."""
        self.edges[source, target] = self.edges.get((source, target), 0) + 1


def drawn(
    nodes: Iterable[str],
    edges: Mapping[tuple[str, str], bool],
    seen: Seen,
    due: Collection[str] = (),
) -> dict[str, Any]:
    """Where to draw nodes and edges.

    Args:
        nodes: those that the application declares; the log's own are added.
        edges: those that it declares, and whether each is conditional.
        due: nodes that are next.
    """
    both = {**dict.fromkeys(seen.edges, False), **edges}
    inner = (*nodes, *(name for edge in both for name in edge), *seen.runs, *seen.failed)
    names = list(dict.fromkeys([START, *inner]))
    is_cut = len(names) > NODES_MAX
    names = names[:NODES_MAX]
    both = {edge: how for edge, how in both.items() if edge[0] in names and edge[1] in names}
    layers = _layers(names, both)
    boxes = _boxes(layers)
    width = max((box["x"] + box["width"] for box in boxes.values()), default=0) + 90
    for name, box in boxes.items():
        states = [
            word
            for word, holds in (
                ("taken", name in seen.runs or (name == START and bool(seen.edges))),
                ("next", name in due),
                ("failed", name in seen.failed),
            )
            if holds
        ]
        box |= {"name": name, "classes": " ".join(states), "runs": seen.runs.get(name)}
    return {
        "nodes": list(boxes.values()),
        "edges": [
            {
                "source": source,
                "target": target,
                "d": _line(boxes[source], boxes[target], width),
                "taken": seen.edges.get((source, target), 0),
                "conditional": conditional,
            }
            for (source, target), conditional in both.items()
        ],
        "width": width,
        "height": len(layers) * _LAYER,
        "is_cut": is_cut,
    }


def _layers(names: list[str], edges: Collection[tuple[str, str]]) -> list[list[str]]:
    """The nodes by their distance from the start; unreachable ones at the top, the end last."""
    following: dict[str, list[str]] = {}
    for source, target in edges:
        following.setdefault(source, []).append(target)
    depth = {START: 0}
    todo = [START]
    for name in todo:
        for target in following.get(name, ()):
            if target not in depth:
                depth[target] = depth[name] + 1
                todo.append(target)
    for name in names:
        depth.setdefault(name, 1)
    if END in depth:
        depth[END] = max(at for name, at in depth.items() if name != END) + 1
    layers: list[list[str]] = [[] for _ in range(max(depth.values()) + 1)]
    for name in sorted(names, key=names.index):
        layers[depth[name]].append(name)
    return [layer for layer in layers if layer]


def _boxes(layers: list[list[str]]) -> dict[str, dict[str, Any]]:
    widths = [[min(len(name), _CHARS) * _CHAR + 28 for name in layer] for layer in layers]
    totals = [sum(each) + _GAP * (len(each) - 1) for each in widths]
    widest = max(totals, default=0)
    boxes: dict[str, dict[str, Any]] = {}
    for number, (layer, sizes, total) in enumerate(zip(layers, widths, totals, strict=True)):
        x = 10 + (widest - total) // 2
        for name, width in zip(layer, sizes, strict=True):
            label = name if len(name) <= _CHARS else name[: _CHARS - 1] + "…"
            label = {START: "start", END: "end"}.get(name, label)
            boxes[name] = {
                "x": x,
                "y": 10 + number * _LAYER,
                "width": width,
                "height": _HEIGHT,
                "label": label,
            }
            x += width + _GAP
    return boxes


def _line(source: Mapping[str, Any], target: Mapping[str, Any], width: int) -> str:
    """The path of an edge: down to a lower layer, around the side to one that is not lower."""
    x1, x2 = source["x"] + source["width"] // 2, target["x"] + target["width"] // 2
    if target["y"] > source["y"]:
        y1, y2 = source["y"] + _HEIGHT, target["y"] - 4
        middle = (y1 + y2) // 2
        return f"M{x1},{y1} C{x1},{middle} {x2},{middle} {x2},{y2}"
    side = max(source["x"] + source["width"], target["x"] + target["width"]) + 40
    side = min(side, width - 10)
    y1, y2 = source["y"] + _HEIGHT // 2, target["y"] + _HEIGHT // 2
    return (
        f"M{source['x'] + source['width']},{y1} C{side},{y1} {side},{y2} "
        f"{target['x'] + target['width'] + 4},{y2}"
    )
