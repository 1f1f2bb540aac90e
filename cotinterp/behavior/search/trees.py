"""Methods with a tree: its nodes are prefixes that end where a step ends, and a child adds a step that was drawn.

Equal steps behind one prefix are one child, whatever was paid for drawing both. Every problem has a tree of its own; a
round adds to all of them in one call of the model.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from math import inf, log, nan, sqrt

from cotinterp.behavior.search.answers import Answers, TreeNode, finished
from cotinterp.behavior.search.writer import Draft, Writer


@dataclass(eq=False)
class Node:
    """A prefix in a tree that grows.

    Attributes:
        score: The scorer's number for the prefix (`beam`); +inf for the prompt.
        draws: Steps that were drawn behind it.
        visits: How often it was drawn (`beam`), or written through (`mcts`).
        values: Scores of the finished responses that were written through it (`mcts`).
    """

    draft: Draft
    parent: "Node | None"
    score: float = inf
    draws: int = 0
    visits: int = 0
    values: list[float] = field(default_factory=list)
    children: dict[tuple[int, ...], "Node"] = field(default_factory=dict)

    @property
    def depth(self) -> int:
        """Steps that are written."""
        return 0 if self.parent is None else 1 + self.parent.depth

    def child(self, draft: Draft) -> "Node":
        """The child with these tokens, which is made where there is none."""
        return self.children.setdefault(draft.tokens, Node(draft, self))

    def path(self) -> "Iterator[Node]":
        """This node and those before it, the prompt last."""
        node: Node | None = self
        while node is not None:
            yield node
            node = node.parent

    def all(self) -> "Iterator[Node]":
        """This node and all behind it, each before its children."""
        yield self
        for child in self.children.values():
            yield from child.all()


def beam(writer: Writer) -> Answers:
    """Tree of thoughts: the best prefixes are continued by a step, with backtracking (Yao et al. 2023, 2305.10601).

    In each round the `width` best of the longest prefixes that were not continued yet are, by `branches` drawn steps
    each, the best first. Where none of the longest is left, shorter ones that were passed over have their turn: that is
    the way back. With a threshold a prefix that scores less is given up, those from which no way is left are tried
    again where no other is (the least tried first, of these the longest), and a finished response that is good enough
    ends the search. Else it ends with the budget, and the complete response that scores highest is taken. A step beyond
    the first of a round is drawn only where one whole response can still be paid for, so that any budget that pays for
    one ends with one.
    """
    roots = [Node(draft, None) for draft in writer.roots()]
    running = dict.fromkeys(range(len(roots)))
    while running:
        asked: list[Node] = []
        most: list[int] = []
        for row in list(running):
            nodes = _frontier(writer, roots[row])
            rooms = _affordable(writer, nodes)
            if not rooms:
                del running[row]
            asked += [nodes[draw % len(nodes)] for draw in range(len(rooms))]
            most += rooms
        drafts = writer.write([(node.draft, n) for node, n in zip(asked, most, strict=True)], stop=writer.ends)
        fresh = [node for node in _attached(asked, drafts) if writer.goes_on(node.draft) or writer.ended(node.draft)]
        for node, score in zip(fresh, writer.score([node.draft for node in fresh]), strict=True):
            node.score = score
            if writer.ended(node.draft) and writer.good_enough(score):
                running.pop(node.draft.row, None)
    leaves = [_best(writer, root) for root in roots]
    return _answers(writer, "beam", roots, leaves, [nan if leaf.parent is None else leaf.score for leaf in leaves])


def _frontier(writer: Writer, root: Node) -> list[Node]:
    """The prefixes of a tree that are continued next: of those least tried the longest, of these the best.

    A prefix is given up where nothing can follow or its score is below the threshold, and has failed where all its
    steps were given up or have failed. Without a threshold none is tried twice.
    """
    threshold = -inf if writer.search.threshold is None else writer.search.threshold
    again = writer.search.threshold is not None
    failed: dict[int, bool] = {}
    found = []
    for node in reversed(list(root.all())):
        given_up = not writer.goes_on(node.draft) or node.score < threshold
        failed[id(node)] = given_up or (node.draws > 0 and all(failed[id(child)] for child in node.children.values()))
        if not given_up and (not node.draws or (again and failed[id(node)])):
            found.append(node)
    first = min(((node.draws, -node.depth) for node in found), default=None)
    level = [node for node in reversed(found) if (node.draws, -node.depth) == first]
    return sorted(level, key=lambda node: -node.score)[: writer.search.width]


def _affordable(writer: Writer, nodes: Sequence[Node]) -> list[int]:
    """Most tokens of each draw of a round behind these nodes, which take turns; empty where nothing can be paid for."""
    if not nodes:
        return []
    best = nodes[0].draft
    left, lengths = writer.left(best.row), writer.lengths[best.row]
    rooms = [writer.room(nodes[draw % len(nodes)].draft) for draw in range(len(nodes) * writer.search.branches)]
    chosen = [min(rooms[0], left)] if left >= min(rooms[0], lengths.answer) else []
    rest = left - sum(chosen) - max(lengths.response - len(best.log_probs) - rooms[0], 0)
    for room in rooms[1:] if chosen else []:
        rest -= room
        if rest < 0:
            break
        chosen.append(room)
    return chosen


def _attached(parents: Sequence[Node], drafts: Sequence[Draft]) -> list[Node]:
    """The children that some drafts are, those that were there before left out."""
    fresh = {}
    for parent, draft in zip(parents, drafts, strict=True):
        child = parent.child(draft)
        parent.draws += 1
        child.visits += 1
        if child.draft is draft:
            child.score = -inf
            fresh[id(child)] = child
    return list(fresh.values())


def _best(writer: Writer, root: Node) -> Node:
    """The complete response that scores highest, else the best of the longest prefixes."""
    return max(root.all(), key=lambda node: (writer.ended(node.draft), node.depth, node.score))


def mcts(writer: Writer) -> Answers:
    """Monte Carlo tree search over steps: UCT (Kocsis and Szepesvari 2006) with the model as the policy of rollouts.

    Each round goes down from the prompt to a prefix behind which fewer than `branches` steps were drawn, by the child
    with the highest mean value plus `exploration` times sqrt(ln visits of the parent / visits of the child). From there
    the model writes a response to its end. Its first step is the new child; the scorer judges the whole response, and
    its number counts for every prefix on the way. Values are taken relative to the lowest and the highest of the tree
    so far (Schrittwieser et al. 2020, arXiv 1911.08265), so that any scorer will do; a response that did not end counts
    as the lowest. The response that scores highest is the answer, the first of them where several do. A tree with
    nothing left to draw ends the search, as does a response that is good enough.
    """
    roots = [Node(draft, None, nan) for draft in writer.roots()]
    responses: list[list[tuple[Draft, float, Node]]] = [[] for _ in roots]
    running = dict.fromkeys(range(len(roots)))
    while running:
        asked = []
        for row in list(running):
            node = select(writer, roots[row])
            needed = 1 if node is None else max(1, writer.lengths[row].response - len(node.draft.log_probs))
            if node is None or (responses[row] and writer.left(row) < needed) or not writer.left(row):
                del running[row]
            else:
                asked.append((node, min(writer.limit[row] - len(node.draft.tokens), writer.left(row))))
        drafts = writer.write([(node.draft, most) for node, most in asked])
        complete = iter(writer.score([draft for draft in drafts if writer.ended(draft)]))
        for (node, _), draft in zip(asked, drafts, strict=True):
            score = next(complete) if writer.ended(draft) else None
            leaf = node.child(_first_step(writer, node.draft, draft))
            node.draws += 1
            back_up(leaf, score)
            responses[draft.row].append((draft, -inf if score is None else score, leaf))
            if score is not None and writer.good_enough(score):
                del running[draft.row]
    best = [max(of_row, key=lambda found: (writer.ended(found[0]), found[1])) for of_row in responses]
    for root in roots:
        for node in root.all():
            node.score = sum(node.values) / len(node.values) if node.values else nan
    chosen = [draft for draft, _, _ in best]
    drawn = [sum(writer.ended(draft) for draft, _, _ in of_row) for of_row in responses]
    trees = [_kept(writer, root, draft) for root, draft in zip(roots, chosen, strict=True)]
    return finished(writer, "mcts", chosen, drawn=drawn, scores=[score for _, score, _ in best], trees=trees)


def select(writer: Writer, root: Node) -> Node | None:
    """The prefix of one tree that is written on next; None where the tree has nothing left to draw."""
    values = root.values
    low, span = min(values, default=0.0), (max(values) - min(values) if values else 0.0)

    def worth(child: Node) -> float:
        above = sum(value - low for value in child.values) / (span or 1.0)
        parent = child.parent
        assert parent is not None
        return above / child.visits + writer.search.exploration * sqrt(log(parent.visits) / child.visits)

    def left(node: Node) -> bool:
        if not writer.goes_on(node.draft):
            return False
        return node.draws < writer.search.branches or any(map(left, node.children.values()))

    node = root
    while node.draws >= writer.search.branches:
        able = [child for child in node.children.values() if left(child)]
        if not able:
            return None
        node = max(able, key=worth)
    return node


def back_up(leaf: Node, score: float | None) -> None:
    """Counts a response for every prefix on its way; None for one that did not end."""
    for node in leaf.path():
        node.visits += 1
        node.values += [] if score is None else [score]


def _first_step(writer: Writer, before: Draft, draft: Draft) -> Draft:
    """A draft up to the end of the first step that it adds; its last token is read where it was written on."""
    n = len(before.tokens)
    end = next((n + i for i, token in enumerate(draft.tokens[n:], start=1) if token in writer.ends), len(draft.tokens))
    return draft if end == len(draft.tokens) else draft.cut(end, unread=0)


def _answers(
    writer: Writer, method: str, roots: Sequence[Node], leaves: Sequence[Node], scores: Sequence[float]
) -> Answers:
    drawn = [sum(node.visits for node in root.all() if writer.ended(node.draft)) for root in roots]
    trees = [_kept(writer, root, leaf.draft) for root, leaf in zip(roots, leaves, strict=True)]
    return finished(writer, method, [leaf.draft for leaf in leaves], drawn=drawn, scores=scores, trees=trees)


def _kept(writer: Writer, root: Node, chosen: Draft) -> tuple[TreeNode, ...]:
    """The tree as a table, where it was asked for."""
    if not writer.search.trees:
        return ()
    nodes = list(root.all())
    number = {id(node): index for index, node in enumerate(nodes)}
    right = writer.batch.transcripts[root.draft.row].response
    return tuple(
        TreeNode(
            parent=-1 if node.parent is None else number[id(node.parent)],
            step=node.depth,
            text=writer.text(node.draft)[0 if node.parent is None else len(node.parent.draft.log_probs) :],
            score=node.score if node.parent is not None else nan,
            visits=node.visits,
            right=right.startswith(writer.text(node.draft)),
            chosen=chosen.tokens[: len(node.draft.tokens)] == node.draft.tokens,
        )
        for node in nodes
    )
