"""Run first by every Python process that a test starts: it has no Transformers, as most users have none.

Diffusers would import it for seconds where it is there, and it is here, for the few tests that compare with it.
"""

import sys

sys.modules["transformers"] = None  # type: ignore[assignment]  # how Python marks what cannot be imported
