"""A graph as a picture: nodes, edges, and their text in Mermaid.

Owns :class:`DrawableGraph`, made from a checked topology. Promises valid Mermaid for any node
names: keywords and signs of Mermaid in them are escaped. Dotted edges are conditional, solid ones
are always taken.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass, replace
from itertools import product
from typing import Any, Final

from graph.build import callables
from graph.build.topology import Graph, Topology
from graph.errors import DrawingError
from graph.types import END, START

_HEAD: Final = "---\nconfig:\n  flowchart:\n    curve: linear\n---\ngraph TD;\n"
_STYLES: Final = (
    "\tclassDef default fill:#f2f0ff,line-height:1.2\n"
    "\tclassDef first fill-opacity:0\n"
    "\tclassDef last fill:#bfb6fc\n"
)
_KEYWORD: Final = re.compile(
    r"\b(end|graph|flowchart|subgraph|style|linkStyle|classDef|class|click|call|href|default"
    r"|interpolate|direction)\b",
    re.IGNORECASE,
)
_UNSAFE_IN_ID: Final = re.compile(r"[^A-Za-z0-9_-]|(?<![A-Za-z0-9_])-|-(?![A-Za-z0-9_])")
_SAFE_LINE: Final = re.compile(r"[A-Za-z0-9_ ,.]+ = [A-Za-z0-9_ ,.]+")
_SAFE_TEXT: Final = re.compile(r"(?!_)[A-Za-z0-9_ ]+(?<!_)")


@dataclass(frozen=True)
class DrawableNode:
    """A node; ``id`` is its path, ``outer:inner`` inside a subgraph."""

    id: str
    name: str
    metadata: dict[str, Any] | None = None


@dataclass(frozen=True)
class DrawableEdge:
    """An edge; ``data`` is its label."""

    source: str
    target: str
    conditional: bool = False
    data: str | None = None


@dataclass(frozen=True)
class DrawableGraph:
    """The nodes and edges of a graph, to be drawn."""

    nodes: dict[str, DrawableNode]
    edges: tuple[DrawableEdge, ...]

    @classmethod
    def of(
        cls,
        topology: Topology,
        *,
        xray: int | bool = False,
        interrupt_before: Collection[str] = (),
        interrupt_after: Collection[str] = (),
    ) -> DrawableGraph:
        """The drawing of a topology.

        Args:
            xray: open subgraphs: ``True``, or how many levels deep.
        """
        stops = {"before": interrupt_before, "after": interrupt_after}
        nodes = {START: DrawableNode(START, START)}
        for name, spec in topology.nodes.items():
            shown = dict(spec.metadata or {}) | ({"defer": True} if spec.defer else {})
            if when := [moment for moment, names in stops.items() if name in names]:
                shown["__interrupt"] = ",".join(when)
            tools = getattr(getattr(spec.action, "__self__", None), "tools_by_name", None)
            if tools:
                shown["__tools"] = list(tools)
            nodes[name] = DrawableNode(name, name, shown or None)
        nodes[END] = DrawableNode(END, END)
        graph = cls(nodes, tuple(_merged(_edges(topology))))
        for name, spec in topology.nodes.items() if xray else ():
            for inner in callables.leading_to(spec.action, Graph)[:1]:
                drawn = inner.get_graph(xray=xray if xray is True else xray - 1)
                graph = graph._opened(name, drawn)
        return graph

    def _opened(self, name: str, inner: DrawableGraph) -> DrawableGraph:
        """This graph with a node replaced by the subgraph that it runs."""
        nodes: dict[str, DrawableNode] = {}
        for key, node in self.nodes.items():
            parts = inner.nodes.values() if key == name else ()
            within = [replace(part, id=f"{name}:{part.id}") for part in parts if _is_inner(part.id)]
            nodes |= {part.id: part for part in within or [node]}
        ways_in = [edge for edge in inner.edges if edge.source == START and edge.target != END]
        ways_out = [edge for edge in inner.edges if edge.target == END and edge.source != START]
        if not ways_in or not ways_out:
            return self
        between = [e for e in inner.edges if _is_inner(e.source) and _is_inner(e.target)]
        edges = [
            replace(e, source=f"{name}:{e.source}", target=f"{name}:{e.target}") for e in between
        ]
        ways_in = [replace(edge, target=f"{name}:{edge.target}") for edge in ways_in]
        ways_out = [replace(edge, source=f"{name}:{edge.source}") for edge in ways_out]
        for edge in self.edges:
            starts = ways_out if edge.source == name else [edge]
            ends = ways_in if edge.target == name else [edge]
            for start, end in product(starts, ends):
                decided = edge.conditional or start.conditional or end.conditional
                label = edge.data or start.data or end.data
                edges.append(DrawableEdge(start.source, end.target, decided, label))
        return DrawableGraph(nodes, tuple(_merged(edges)))

    def first_node(self) -> DrawableNode | None:
        """The only node to which no edge leads; ``None`` if there are several."""
        return self._only({edge.target for edge in self.edges})

    def last_node(self) -> DrawableNode | None:
        """The only node from which no edge leads; ``None`` if there are several."""
        return self._only({edge.source for edge in self.edges})

    def _only(self, others: set[str]) -> DrawableNode | None:
        left = [node for node in self.nodes.values() if node.id not in others]
        return left[0] if len(left) == 1 else None

    def to_json(self) -> dict[str, list[dict[str, Any]]]:
        """The nodes and edges as plain data."""
        nodes = [
            {"id": node.id, "type": "runnable", "data": {"name": node.name}}
            | ({"metadata": node.metadata} if node.metadata else {})
            for node in self.nodes.values()
        ]
        edges = [
            {"source": edge.source, "target": edge.target}
            | ({"data": edge.data} if edge.data else {})
            | ({"conditional": True} if edge.conditional else {})
            for edge in self.edges
        ]
        return {"nodes": nodes, "edges": edges}

    def draw_mermaid(self, *, with_styles: bool = True, **_style: Any) -> str:
        """The graph as Mermaid source; LangGraph's options of style have no effect.

        Args:
            with_styles: with the configuration of the drawing and the colours of nodes.
        """
        blocks = "".join(self._block("", "\t"))
        return _HEAD + blocks + _STYLES if with_styles else "graph TD;\n" + blocks

    def draw_mermaid_png(self, **_options: Any) -> bytes:
        """Always refused: nothing here draws Mermaid, and graphs are not sent to web services.

        Raises:
            DrawingError: always.
        """
        raise DrawingError(
            "no local renderer draws Mermaid as PNG, and graphs are not sent to web services; pass "
            "draw_mermaid() to mermaid-cli (mmdc) or a Markdown viewer, or call print_ascii()"
        )

    def draw_ascii(self) -> str:
        """The graph as text: each node, and under it where it leads.

        ``-->`` is always taken, ``..>`` is conditional.
        """
        lines: list[str] = []
        for node in self.nodes.values():
            lines.append(node.id)
            for edge in self.edges:
                if edge.source == node.id:
                    label = f" ({edge.data})" if edge.data else ""
                    lines.append(f"  {'..>' if edge.conditional else '-->'} {edge.target}{label}")
        return "\n".join(lines)

    def print_ascii(self) -> None:
        """Print :meth:`draw_ascii`."""
        print(self.draw_ascii())

    def _block(self, prefix: str, indent: str) -> Iterator[str]:
        """The nodes and edges directly under ``prefix``, then the blocks within it."""
        inner: dict[str, None] = {}
        for node in self.nodes.values():
            if node.id.startswith(prefix):
                head, colon, _ = node.id.removeprefix(prefix).partition(":")
                if colon:
                    inner[f"{prefix}{head}:"] = None
                else:
                    yield f"{indent}{_node(node)}\n"
        # LangGraph's order: an edge from a node to itself comes last.
        for edge in sorted(self.edges, key=lambda each: each.source == each.target):
            if _home(edge) == prefix:
                yield f"{indent}{_safe_id(edge.source)}{_arrow(edge)}{_safe_id(edge.target)};\n"
        for block in inner:
            path = block.removesuffix(":")
            title = path.rpartition(":")[2]
            plain = path == title == _safe_id(title) and _SAFE_TEXT.fullmatch(title)
            yield f"{indent}subgraph {title if plain else f'{_safe_id(path)}[{_quoted(title)}]'}\n"
            yield from self._block(block, indent)
            yield f"{indent}end\n"


def _edges(topology: Topology) -> Iterator[DrawableEdge]:
    leaving = {START}
    for source, targets in topology.edges.items():
        leaving.add(source)
        yield from (DrawableEdge(source, target) for target in targets)
    for join in topology.joins:
        leaving.update(join.sources)
        yield from (DrawableEdge(source, join.target) for source in join.sources)
    for source, branches in topology.branches.items():
        leaving.add(source)
        for branch in branches:
            anywhere = {name: name for name in [*topology.nodes, END] if name != source}
            for result, target in (branch.ends or anywhere).items():
                label = None if result == target else str(result)
                yield DrawableEdge(source, target, True, label)
    for name, node in topology.nodes.items():
        for end in node.ends:
            yield DrawableEdge(name, end, True, node.labels.get(end))
        if name not in leaving and not node.ends:
            yield DrawableEdge(name, END)


def _merged(edges: Iterable[DrawableEdge]) -> Iterator[DrawableEdge]:
    """One edge for each pair of nodes, in a stable order."""
    pairs: dict[tuple[str, str], list[DrawableEdge]] = {}
    for edge in edges:
        pairs.setdefault((edge.source, edge.target), []).append(edge)
    merged: list[DrawableEdge] = []
    for (source, target), alike in sorted(pairs.items()):
        decided = all(edge.conditional for edge in alike)
        labels = sorted({edge.data for edge in alike if edge.data}) if decided else []
        merged.append(DrawableEdge(source, target, decided, ", ".join(labels) or None))
    yield from sorted(merged, key=lambda edge: edge.target == END and not edge.conditional)


def _is_inner(path: str) -> bool:
    return path not in (START, END)


def _home(edge: DrawableEdge) -> str:
    """The innermost subgraph that holds both ends, as a prefix."""
    home = edge.source
    while colon := home.rfind(":") + 1:
        if edge.target.startswith(home[:colon]):
            return home[:colon]
        home = home[: colon - 1]
    return ""


def _safe_id(path: str) -> str:
    def escaped(found: re.Match[str]) -> str:
        return f"\\{ord(found[0]):x}"

    safe = _UNSAFE_IN_ID.sub(escaped, path)
    return f"\\{ord(safe[0]):x}{safe[1:]}" if _KEYWORD.match(safe) else safe


def _node(node: DrawableNode) -> str:
    if node.id in (START, END):
        return f"{node.id}([<p>{node.id}</p>]):::{'first' if node.id == START else 'last'}"
    lines = [f"{key} = {_listed(value)}" for key, value in (node.metadata or {}).items()]
    if lines and _SAFE_TEXT.fullmatch(node.name) and all(map(_SAFE_LINE.fullmatch, lines)):
        shown = "\n".join(lines)
        label = f"{node.name}<hr/><small><em>{shown}</em></small>"
    elif lines:
        shown = "<br/>".join(map(_entities, lines))
        label = f'"{_entities(node.name)}<hr/><small><em>{shown}</em></small>"'
    elif _SAFE_TEXT.fullmatch(node.name) and not _KEYWORD.search(node.name):
        label = node.name
    else:
        label = _quoted(node.name)
    return f"{_safe_id(node.id)}({label})"


def _arrow(edge: DrawableEdge) -> str:
    if edge.data is None:
        return " -.-> " if edge.conditional else " --> "
    text = f"&nbsp;{_entities(edge.data)}&nbsp;"
    if not _SAFE_TEXT.fullmatch(edge.data) or _KEYWORD.search(edge.data):
        text = f'"{text}"'
    return f" -. {text} .-> " if edge.conditional else f" -- {text} --> "


def _listed(value: Any) -> str:
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)


def _entities(text: str) -> str:
    """Text in which every sign of Mermaid or HTML is a numeric entity."""
    return re.sub(r"[^\w .,=/-]", lambda found: f"#{ord(found[0])};", text)


def _quoted(text: str) -> str:
    return f'"{_entities(text)}"'
