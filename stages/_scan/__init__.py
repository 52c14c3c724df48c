"""The selective scan of a Mamba block, and the short convolution before it, in three ways that agree."""
