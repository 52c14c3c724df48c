"""The features of the videos that are trained on, by id: all in memory where they fit, else read when they are used."""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterator, Mapping, Sequence

from diffvqa.stages._errors import TrainingDataError
from diffvqa.stages._frame_summary import FrameSummary
from diffvqa.stages._network_maps import NetworkMaps
from diffvqa.stages._texture import LatentTexture
from diffvqa.stages._training_data import BranchMoments, FeatureSource, LoadedVideo, load_video

logger = logging.getLogger(__name__)

_SAME_FOR_ALL = ("resize_shape", "crop_shape")


class VideoStore(Mapping[str, LoadedVideo]):
    """Videos by id, in the precision they are stored in.

    Args:
        features: Where from.
        video_ids: Which; others are not to be had from this store.
        memory_limit: Bytes of features that may be kept in memory. What fits is read once; where the whole does not
            fit, at most the textures of latents and the summaries are kept, and every use of a video reads it again.
        networks: What of ``multiscale`` each network of the backbone has; one has all when empty.

    Attributes:
        networks: The same.

    Raises:
        TrainingDataError: A video's features are incomplete, not finite, or of another shape than the first one's.
    """

    def __init__(
        self,
        features: FeatureSource,
        video_ids: Sequence[str],
        *,
        memory_limit: int,
        networks: Sequence[NetworkMaps] = (),
    ) -> None:
        self.networks = tuple(networks)
        self._features = features
        self._ids = dict.fromkeys(video_ids)
        self._moments: dict[str, dict[str, BranchMoments]] = {}
        self._textures: dict[str, dict[str, LatentTexture]] = {}
        self._summaries: dict[str, FrameSummary] = {}
        self._derived_fit = False
        self._first: LoadedVideo | None = None
        self._kept: dict[str, LoadedVideo] = {}
        if not self._ids:
            return
        first, *others = self._ids
        video = self._read(first)
        summary = FrameSummary.of(video.resize, video.crop)
        derived = summary.nbytes + sum(each.nbytes for each in video.textures().values())
        self._derived_fit = derived * len(self._ids) <= memory_limit
        if self._derived_fit:
            self._textures[first], self._summaries[first] = video.textures(), summary
        expected = video.size * len(self._ids)
        if expected <= memory_limit:
            self._kept = {first: video} | {video_id: self._read(video_id) for video_id in others}
        else:
            logger.info(
                "the features, about %.1f GB, exceed the limit of %.1f GB and are read as they are used",
                expected / 1e9,
                memory_limit / 1e9,
            )

    def __getitem__(self, video_id: str) -> LoadedVideo:
        if video_id not in self._ids:
            raise KeyError(video_id)
        kept = self._kept.get(video_id)
        return self._read(video_id) if kept is None else kept

    def __iter__(self) -> Iterator[str]:
        return iter(self._ids)

    def __len__(self) -> int:
        return len(self._ids)

    def __contains__(self, video_id: object) -> bool:
        return video_id in self._ids  # the inherited one would read the video

    def only(self, video_ids: Collection[str]) -> VideoStore:
        """Return a store that gives these videos and, whatever is asked of it, no other; it shares what is kept.

        Raises:
            KeyError: One of them is not in this store.
        """
        for video_id in video_ids:
            if video_id not in self._ids:
                raise KeyError(video_id)
        part = VideoStore(self._features, (), memory_limit=0, networks=self.networks)
        part._ids = dict.fromkeys(video_ids)
        part._moments, part._textures, part._summaries = self._moments, self._textures, self._summaries
        part._first, part._derived_fit = self._first, self._derived_fit
        part._kept = {video_id: self._kept[video_id] for video_id in video_ids if video_id in self._kept}
        return part

    def moments(self) -> dict[str, BranchMoments]:
        """Return the moments of ``resize`` and ``crop`` over all videos of this store; each is looked at once only."""
        for video_id in self._ids:
            if video_id not in self._moments:
                self._moments[video_id] = self[video_id].moments()
        every = [self._moments[video_id] for video_id in self._ids]
        return {view: BranchMoments.combined([each[view] for each in every]) for view in ("resize", "crop")}

    def summary(self, video_id: str) -> FrameSummary:
        """Return the statistics of a video's frames; made once where they fit into memory."""
        summary = self._summaries.get(video_id)
        if summary is None:
            video = self[video_id]
            summary = FrameSummary.of(video.resize, video.crop)
            if self._derived_fit:
                self._summaries[video_id] = summary
        return summary

    def _read(self, video_id: str) -> LoadedVideo:
        video = load_video(self._features[video_id], video_id, self._textures.get(video_id))
        if self._derived_fit:
            self._textures[video_id] = video.textures()
        first = self._first = self._first or video
        for name in _SAME_FOR_ALL:
            expected, found = getattr(first, name), getattr(video, name)
            if expected != found:
                raise TrainingDataError(
                    f"The features of '{video_id}' differ from the others: {name} is {found}, not {expected}.",
                    "Use features that were all extracted with one recipe.",
                )
        return video
