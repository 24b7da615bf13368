"""Counts what the design of a checkout looks like: files per folder, circles, long functions, flags.

python benchmarks/structure.py [CHECKOUT]
"""

import ast
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

SOURCES = ("medrecon", "operators", "models")
LIMIT_PARAMETERS, LIMIT_LINES = 6, 40


def python_files(root: Path, folders: tuple[str, ...]) -> list[Path]:
    """All Python files below the folders; linked folders are those of the top level and count once."""
    found = [path for folder in folders for path in sorted((root / folder).rglob("*.py"))]
    return [path for path in found if not any(parent.is_symlink() for parent in path.parents)]


def lines(files: list[Path]) -> int:
    return sum(len(path.read_text().splitlines()) for path in files)


def largest_folder(root: Path, files: list[Path]) -> str:
    counts = Counter(path.parent.relative_to(root) for path in files if path.name != "__init__.py")
    folder, count = counts.most_common(1)[0]
    return f"{count} ({folder})"


def functions(files: list[Path]) -> Iterator[tuple[int, int]]:
    """(parameters without self, lines) of every function."""
    for path in files:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                given = [a.arg for a in (*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs)]
                length = (node.end_lineno or node.lineno) - node.lineno + 1
                yield len([name for name in given if name not in ("self", "cls")]), length


def imports(root: Path, files: list[Path]) -> dict[str, set[str]]:
    """Module -> the modules it imports, inside functions too."""
    named = {}
    for path in files:
        parts = path.relative_to(root).with_suffix("").parts
        parts = parts if parts[0] == "medrecon" else ("medrecon", *parts)
        named[".".join(parts).removesuffix(".__init__")] = path
    arrows: dict[str, set[str]] = {name: set() for name in named}
    for name, path in named.items():
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom) and node.module and not node.level:
                targets = {f"{node.module}.{a.name}" for a in node.names}
                arrows[name] |= {t if t in named else node.module for t in targets}
    return {name: {t for t in targets if t in named and t != name} for name, targets in arrows.items()}


def circular(arrows: dict[str, set[str]]) -> list[str]:
    """Modules that reach themselves."""

    def reached(start: str) -> set[str]:
        seen: set[str] = set()
        waiting = [start]
        while waiting:
            for target in arrows[waiting.pop()] - seen:
                seen.add(target)
                waiting.append(target)
        return seen

    return [name for name in sorted(arrows) if name in reached(name)]


def measure(root: Path) -> dict[str, object]:
    source, tests = python_files(root, SOURCES), python_files(root, ("tests",))
    each = sorted(lines([path]) for path in source if path.name != "__init__.py")
    text = "\n".join(path.read_text() for path in source)
    found = list(functions(source))
    return {
        "source files": len(source),
        "source lines": lines(source),
        "median and largest file": f"{each[len(each) // 2]}, {each[-1]}",
        "largest folder of the source": largest_folder(root, source),
        "largest folder of the tests": largest_folder(root, tests),
        "modules in circles": ", ".join(circular(imports(root, source))) or "none",
        "fmt: skip": text.count("fmt: skip"),
        "hasattr": text.count("hasattr("),
        f"functions of more than {LIMIT_PARAMETERS} parameters": sum(p > LIMIT_PARAMETERS for p, _ in found),
        f"functions of more than {LIMIT_LINES} lines": sum(n > LIMIT_LINES for _, n in found),
        "lines of tests a line of source": round(lines(tests) / lines(source), 2),
    }


if __name__ == "__main__":
    checkout = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parents[1]
    for name, value in measure(checkout).items():
        print(f"| {name} | {value} |")
