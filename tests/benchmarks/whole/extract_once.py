"""One video through extraction, with its seconds and the peak of this process, as JSON on standard output.

python -m tests.benchmarks.whole.extract_once VIDEO [TABLE.KEY=VALUE ...]
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

from diffvqa.pipeline._waiting import wait_without_spinning

from .measuring import peak_resident_size


def main() -> None:
    """Decode the video here and extract it, with what is made once made before."""
    wait_without_spinning()
    import numpy as np

    from diffvqa.pipeline._backbone import load_backbone
    from diffvqa.pipeline._config import parse_assignment, resolve_settings
    from diffvqa.stages._decoding import FailedVideo, VideoSource, decode_video
    from diffvqa.stages._extraction import extract_unit

    video, *assignments = sys.argv[1:]
    settings = resolve_settings(None, dict(map(parse_assignment, assignments)))
    recipe = settings.extract
    extractor = load_backbone(recipe, settings.runtime).extractor
    extractor(np.zeros((1, recipe.view_size, recipe.view_size, 3), np.uint8), [0])
    begun = time.perf_counter()
    decoded = decode_video(VideoSource("video", Path(video)), recipe)
    (extracted,) = extract_unit([decoded], extractor, recipe)
    spent = time.perf_counter() - begun
    if isinstance(extracted, FailedVideo):
        raise RuntimeError(extracted.detail)
    sys.stdout.write(json.dumps({"seconds": spent, "memory": peak_resident_size()}))


if __name__ == "__main__":
    main()
