"""What is computed: frames, views, diffusion features, the regressor, its training and its metrics."""
