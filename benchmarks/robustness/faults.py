"""All faults that could be planted in a source file: one changed expression each, found in its syntax tree."""

from __future__ import annotations

import ast
import hashlib
import re
from collections.abc import Iterator
from dataclasses import dataclass

EFFORT = {
    "CHUNK _CHUNK _TILE TILE LINE BLOCK BAND LANES CHANNELS SAMPLES COLUMNS": "how much is handled at once",
    "CACHE_BYTES _BLOCK_BYTES _REMEMBERED _GPU_POINTS BUDGET": "memory",
    "MATRIX_LIMIT DENSE SHORT FEW": "which of two equal ways is faster",
    "THREADS threads workers chunk batch block": "how work is shared out",
    "iterations inner steps STEPS rounds _ROUNDS _SQUARINGS SCALE_SLICES SCALE_ITERATIONS": "how long it goes on",
    "SUBSTEPS PROBES BINS": "how fine it goes",
    "tolerance tol rtol atol eps": "how exact it is",
}
"""Names of defaults, arguments and constants that decide the effort and not the result, and why they are left alone."""
NOT_CODE = {"__repr__", "__str__", "examples", "describe"}
"""Functions that make texts or the settings of tests."""
TALKERS = {"print", "warn", "log", "debug", "info", "warning", "on_progress", "cast", "TypeVar", "field_validator"}
"""Calls that say something and change nothing."""
PHYSICS = ("core/units", "numerics/spectrum", "sampling/spiral", "coils/whitening", "formats/")
"""Files whose constants are of nature or of a machine: 1 % is a fault there."""

OPERATORS: dict[type[ast.AST], tuple[str, str]] = {
    ast.Add: ("+", "-"),
    ast.Sub: ("-", "+"),
    ast.Mult: ("*", "/"),
    ast.Div: ("/", "*"),
    ast.FloorDiv: ("//", "*"),
    ast.Pow: ("**", "*"),
    ast.BitAnd: ("&", "|"),
    ast.BitOr: ("|", "&"),
    ast.And: ("and", "or"),
    ast.Or: ("or", "and"),
    ast.Lt: ("<", ">="),
    ast.LtE: ("<=", ">"),
    ast.Gt: (">", "<="),
    ast.GtE: (">=", "<"),
    ast.Eq: ("==", "!="),
    ast.NotEq: ("!=", "=="),
    ast.Is: ("is", "is not"),
    ast.IsNot: ("is not", "is"),
    ast.In: ("in", "not in"),
    ast.NotIn: ("not in", "in"),
}
OPPOSITES = {"min": "max", "amin": "amax", "minimum": "maximum", "clamp_min": "clamp_max", "ceil": "floor"}
OPPOSITES |= {there: here for here, there in OPPOSITES.items()}
DROPPED = {"conj", "abs", "sqrt", "square", "clamp", "flip", "real"}
MODULES = ("torch", "np", "math", "numpy")
Change = tuple[str, int, int, str]
"""kind, first and last byte, what stands there instead"""


@dataclass(frozen=True)
class Fault:
    """One planted change of a file: bytes start to end become `new`."""

    path: str
    where: str
    kind: str
    line: int
    start: int
    end: int
    new: str
    before: str
    after: str
    inside: bool
    """in a function, which is named by `where`; otherwise it acts where the module is imported"""
    place: str
    """what it is chosen and remembered by: stays as the code around it moves"""

    def plant(self, source: bytes) -> bytes:
        return source[: self.start] + self.new.encode() + source[self.end :]


class Finder(ast.NodeVisitor):
    """Collects (scope, whether it is a function, change); leaves texts, types, effort and examples alone."""

    def __init__(self, path: str, source: bytes) -> None:
        self.source = source
        self.physics = any(part in path for part in PHYSICS)
        self.scope: list[str] = []
        self.returned: list[str | None] = []
        self.found: list[tuple[str, bool, Change]] = []
        lines = source.splitlines(keepends=True)
        self.offsets = [sum(map(len, lines[:n])) for n in range(len(lines) + 1)]

    def start(self, node: ast.expr) -> int:
        return self.offsets[node.lineno - 1] + node.col_offset

    def end(self, node: ast.expr) -> int:
        return self.offsets[(node.end_lineno or node.lineno) - 1] + (node.end_col_offset or 0)

    def text(self, node: ast.expr) -> str:
        return self.source[self.start(node) : self.end(node)].decode()

    def add(self, change: Change) -> None:
        self.found.append((".".join(self.scope), bool(self.returned), change))

    def put(self, kind: str, node: ast.expr, new: str) -> None:
        self.add((kind, self.start(node), self.end(node), new))

    def swap(self, kind: str, left: ast.expr, right: ast.expr, op: ast.AST) -> None:
        """Another operator between two operands, where they are not texts or sequences."""
        texts = (ast.JoinedStr, ast.List, ast.Tuple)
        if isinstance(op, ast.Add) and any(isinstance(n, texts) or literal(n) for n in (left, right)):
            return
        if type(op) in OPERATORS:
            old, new = OPERATORS[type(op)]
            between = self.source[self.end(left) : self.start(right)].decode()
            if between.count(old) == 1:
                start = self.end(left) + len(between[: between.index(old)].encode())
                self.add((kind, start, start + len(old), new))

    def visit_FunctionDef(self, node: ast.FunctionDef) -> None:
        marks = [ast.unparse(d) for d in node.decorator_list]
        if node.name in NOT_CODE or any(m.endswith(("abstractmethod", "overload")) for m in marks):
            return
        arguments = [*node.args.posonlyargs, *node.args.args]
        self.scope.append(node.name)
        kind = ast.unparse(node.returns) if node.returns else ""
        same = [a.arg for a in arguments if a.annotation and ast.unparse(a.annotation) == kind]
        self.returned.append(same[0] if same else None)
        for names, defaults in (
            (arguments[len(arguments) - len(node.args.defaults) :], node.args.defaults),
            (node.args.kwonlyargs, node.args.kw_defaults),
        ):
            for name, default in zip(names, defaults):
                if default is not None and name.arg not in effort():
                    self.visit(default)
        for statement in node.body:
            self.visit(statement)
        self.returned.pop()
        self.scope.pop()

    def visit_ClassDef(self, node: ast.ClassDef) -> None:
        self.scope.append(node.name)
        for statement in node.body:
            self.visit(statement)
        self.scope.pop()

    def visit_Raise(self, node: ast.Raise) -> None:
        """Texts of errors."""

    def visit_JoinedStr(self, node: ast.JoinedStr) -> None:
        """Texts."""

    def visit_AnnAssign(self, node: ast.AnnAssign) -> None:
        if node.value is not None and ast.unparse(node.target) not in effort():
            self.visit(node.value)

    def visit_Assign(self, node: ast.Assign) -> None:
        names = {n.id for t in node.targets for n in ast.walk(t) if isinstance(n, ast.Name)}
        alias = not self.scope and all(re.fullmatch("[A-Z][a-z]+[A-Za-z]*", name) for name in names)
        if not alias and not names <= effort():
            self.visit(node.value)

    def visit_keyword(self, node: ast.keyword) -> None:
        if node.arg not in effort() and node.arg not in ("message", "match", "stacklevel", "dtype"):
            self.visit(node.value)

    def visit_Constant(self, node: ast.Constant) -> None:
        if isinstance(node.value, bool):
            self.put("boolean", node, str(not node.value))
        elif isinstance(node.value, int):
            self.put("constant", node, "1" if node.value == 0 else str(2 * node.value))
        elif isinstance(node.value, float):
            factor = 1.01 if self.physics and not any(s.islower() for s in self.scope[:1]) else 2
            self.put("constant", node, repr(factor * node.value if node.value else 1.0))

    def visit_UnaryOp(self, node: ast.UnaryOp) -> None:
        number = isinstance(node.operand, ast.Constant) and node.operand.value in (1, 2)
        if isinstance(node.op, ast.USub) and number:
            self.put("axis", node, {"-1": "-2", "-2": "-1"}.get(self.text(node), self.text(node.operand)))
            return
        if isinstance(node.op, (ast.USub, ast.Not, ast.Invert)):
            self.put("sign" if isinstance(node.op, ast.USub) else "negation", node, self.text(node.operand))
        self.generic_visit(node)

    def visit_BinOp(self, node: ast.BinOp) -> None:
        self.swap("arithmetic", node.left, node.right, node.op)
        self.generic_visit(node)

    def visit_BoolOp(self, node: ast.BoolOp) -> None:
        self.swap("and, or", node.values[0], node.values[1], node.op)
        self.generic_visit(node)

    def visit_Compare(self, node: ast.Compare) -> None:
        self.swap("comparison", node.left, node.comparators[0], node.ops[0])
        self.generic_visit(node)

    def condition(self, node: ast.If | ast.IfExp | ast.While) -> None:
        if "TYPE_CHECKING" in ast.unparse(node.test):
            return
        if not isinstance(node.test, (ast.Compare, ast.BoolOp, ast.UnaryOp)):
            self.put("negation", node.test, f"not ({self.text(node.test)})")
        self.generic_visit(node)

    visit_If = visit_IfExp = visit_While = condition

    def visit_Return(self, node: ast.Return) -> None:
        own = self.returned[-1] if self.returned else None
        if own and node.value is not None and ast.unparse(node.value) != own:
            self.put("input returned", node.value, own)
        self.generic_visit(node)

    def visit_Slice(self, node: ast.Slice) -> None:
        for bound in (node.lower, node.upper):
            if isinstance(bound, ast.Constant) and isinstance(bound.value, int):
                self.put("slice", bound, str(bound.value + 1))
            elif bound is not None:
                self.put("slice", bound, f"{self.text(bound)} + 1")
                self.visit(bound)
        if node.step is not None:
            self.visit(node.step)

    def visit_Attribute(self, node: ast.Attribute) -> None:
        if node.attr in ("real", "imag"):
            self.put("dropped", node, self.text(node.value) + (".real" if node.attr == "imag" else ""))
        self.generic_visit(node)

    def visit_Call(self, node: ast.Call) -> None:
        name = node.func.attr if isinstance(node.func, ast.Attribute) else ast.unparse(node.func)
        if name in TALKERS:
            return
        if name in OPPOSITES:
            self.put("min, max", node.func, ast.unparse(node.func).removesuffix(name) + OPPOSITES[name])
        if name in DROPPED or name in ("clamp_min", "clamp_max"):
            method = isinstance(node.func, ast.Attribute) and ast.unparse(node.func.value) not in MODULES
            kept = [node.func.value] if method and isinstance(node.func, ast.Attribute) else node.args[:1]
            for inner in kept:
                self.put("dropped", node, f"({self.text(inner)})")
        self.generic_visit(node)


def literal(node: ast.expr) -> bool:
    return isinstance(node, ast.Constant) and isinstance(node.value, str)


def effort() -> set[str]:
    return {name for names in EFFORT for name in names.split()}


def faults(path: str, source: bytes) -> Iterator[Fault]:
    """All faults of a file, each once."""
    finder, seen, lines = Finder(path, source), dict[str, int](), source.decode().splitlines()
    finder.visit(ast.parse(source))
    for where, inside, (kind, start, end, new) in dict.fromkeys(finder.found):
        old, first = source[start:end].decode(), source.rfind(b"\n", 0, start) + 1
        line = source.count(b"\n", 0, start)
        after = (source[first:start].decode() + new + source[end:].decode().split("\n", 1)[0]).strip()
        before = lines[line].strip()
        place = "|".join((path, where, kind, before, old, new))
        seen[place] = seen.get(place, 0) + 1
        if new != old:
            known = f"{place}|{seen[place]}"
            yield Fault(path, where, kind, line + 1, start, end, new, before, after, inside, known)


def compiles(source: bytes) -> bool:
    try:
        compile(source, "mutant", "exec")
    except SyntaxError:
        return False
    return True


def rank(fault: Fault, seed: int) -> str:
    """Where a fault stands in the order of a seed, whatever else there is to choose from."""
    return hashlib.sha256(f"{seed}|{fault.place}".encode()).hexdigest()
