"""What benchmarks make anew in a document stands between ``<!-- NAME -->`` and ``<!-- end NAME -->``."""

from __future__ import annotations

import re


def between_markers(text: str, name: str, made: str) -> str:
    """The text with what was made between its markers.

    Raises:
        ValueError: the markers are not there, or there more than once.
    """
    pattern = rf"(<!-- {name} -->\n).*?(\n<!-- end {name} -->)"
    text, found = re.subn(pattern, lambda match: match[1] + made + match[2], text, flags=re.DOTALL)
    if found != 1:
        raise ValueError(f"the document has the markers of {name} {found} times, not once")
    return text
