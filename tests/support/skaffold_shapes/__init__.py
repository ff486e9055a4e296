"""Small projects of the shapes that Skaffold's users have: files, an edit, and what is served.

Each is written for devloop's tests; what they share with the examples that Skaffold ships is the
shape: which keys a skaffold.yaml has, and what lies around it. The unit tests compare each with
what `devloop init --from` makes of it, end-to-end tests and tests/bench/skaffold_shapes.py run it.
"""

from __future__ import annotations

from tests.support.skaffold_shapes.deploys import DEPLOYS
from tests.support.skaffold_shapes.images import IMAGES
from tests.support.skaffold_shapes.languages import LANGUAGES
from tests.support.skaffold_shapes.shape import Edit, Shape
from tests.support.skaffold_shapes.tools import TOOLS

__all__ = ["SHAPES", "Edit", "Shape"]

SHAPES = {each.name: each for each in (*DEPLOYS, *IMAGES, *LANGUAGES, *TOOLS)}
