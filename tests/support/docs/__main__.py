"""`python -m tests.support.docs`: writes the generated pages of docs/ anew."""

from __future__ import annotations

from tests.support.docs.pages import DOCS, PAGES

for name, page in PAGES.items():
    (DOCS / name).write_text(page(), encoding="utf-8")
    print(f"wrote docs/{name}")
