"""Decoders of video files behind one small interface, :class:`diffvqa.stages.decoders.reader.FrameReader`."""
