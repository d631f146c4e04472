"""mobilediff: small text-to-image diffusion models on CIFAR-10, from teacher to one step."""
