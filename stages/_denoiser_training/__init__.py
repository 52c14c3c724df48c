"""Training the denoising networks: the U-Net from nothing (pretrain), and its Controller (adapt)."""
