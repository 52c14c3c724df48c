"""The adapted diffusion model: its networks, its Controller and the folder they lie in."""
