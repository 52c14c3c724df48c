"""Networks that turn views into features: the diffusion model, networks to compare it with, combinations of them."""
