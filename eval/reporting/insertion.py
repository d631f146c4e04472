"""Find, check and replace parts of Markdown files between a pair of markers."""

from pathlib import Path

from mobilediff.files import atomic_path


def markers(part: str) -> tuple[str, str]:
    """Return the two lines around a part, as in the file."""
    return f"<!-- {part}:start -->", f"<!-- {part}:end -->"


def marked_parts(file: str | Path, accepted: tuple[str, ...]) -> list[str]:
    """List the accepted parts whose markers are in a file.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it has no part, or not each of a part's two markers once, in order.
    """
    file = Path(file)
    needed = " or ".join(f"{start} ... {end}" for start, end in map(markers, accepted))
    if not file.is_file():
        raise FileNotFoundError(f"{file} does not exist: it needs {needed}")
    text = file.read_text(encoding="utf-8")
    parts = [part for part in accepted if any(marker in text for marker in markers(part))]
    if not parts:
        raise ValueError(f"{file} needs {needed}, each marker on a line of its own")
    for start, end in map(markers, parts):
        if text.count(start) != 1 or text.count(end) != 1 or text.index(start) > text.index(end):
            raise ValueError(f"{file} needs the line {start} once, and {end} once below it")
    return parts


def part_of(file: str | Path, part: str) -> str:
    """Read a part, without the line breaks beside its markers; errors as in `marked_parts`."""
    marked_parts(file, (part,))
    start, end = markers(part)
    return Path(file).read_text(encoding="utf-8").split(start)[1].split(end)[0].strip("\n")


def insert_parts(file: str | Path, contents: dict[str, str]) -> None:
    """Replace parts of a file, by name, in one write; errors as in `marked_parts`, before anything is written."""
    for part in contents:
        marked_parts(file, (part,))
    text = Path(file).read_text(encoding="utf-8")
    for part, content in contents.items():
        start, end = markers(part)
        before, rest = text.split(start)
        text = f"{before}{start}\n{content}\n{end}{rest.split(end)[1]}"
    with atomic_path(file) as temporary:
        temporary.write_text(text, encoding="utf-8")
