"""One video scored as ``diffvqa score`` does, with the time of each stage, as JSON on standard output.

python -m tests.benchmarks.whole.score_stages RUNS MODEL VIDEO
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

from diffvqa.pipeline._waiting import wait_without_spinning


def main() -> None:
    """Score the video, stage by stage: with one video nothing overlaps."""
    runs, model, video = sys.argv[1:]
    laps, last = {}, time.perf_counter()

    def lap(stage: str) -> None:
        nonlocal last
        now = time.perf_counter()
        laps[stage], last = now - last, now

    wait_without_spinning()
    from diffvqa.pipeline._config import Runtime
    from diffvqa.pipeline._scorer import Scorer
    from diffvqa.stages._decode_pool import DecodePool
    from diffvqa.stages._decoding import DecodedVideo, VideoSource
    from diffvqa.stages._extraction import extract_unit

    lap("imports")
    scorer = Scorer(model, Runtime(runs=Path(runs)))
    lap("load the models")
    with DecodePool(scorer.recipe, workers=1, timeout=120) as pool:
        (decoded,) = pool.run([VideoSource(video, Path(video), seed_key="")])
        if not isinstance(decoded, DecodedVideo):
            raise RuntimeError(decoded.detail)
        lap("decode, in a process that starts")
        (extracted,) = extract_unit([decoded], scorer.backbone.extractor, scorer.recipe)
        lap("features")
        score = scorer.score_extracted(extracted).score
        lap("regressors")
    sys.stdout.write(json.dumps({"score": score, "laps": laps}))


if __name__ == "__main__":
    main()
