"""Extract features of images, and keep their statistics over reference images."""
