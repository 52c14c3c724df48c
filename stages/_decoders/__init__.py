"""Decoders of video files behind one small interface, :class:`diffvqa.stages._decoders.reader.FrameReader`."""
