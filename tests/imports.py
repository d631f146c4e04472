"""Read imports off a file's syntax tree."""

import ast
from pathlib import Path


def imported_names(file: Path) -> set[str]:
    """Names that a file imports, anywhere in it: "a.b" of `import a.b` and of `from a import b`."""
    names = set()
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{file} imports relatively"
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names
