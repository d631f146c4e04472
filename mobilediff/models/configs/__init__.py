"""Hold the network configurations of the project, one JSON file each.

teacher: diffusers' `UNet2DConditionModel`, Stable Diffusion's layout on CIFAR-10's 16 x 16 x 4 latents: two ResNet
    blocks a level, self- and cross-attention at 8 x 8 and in the middle.

student: `MobileUNet` on the same latents at two resolutions (16, 8) with MobileDiffusion's choices: one ResNet block a
    level, a middle of one transformer, no attention at 16 x 16, self- and cross-attention at 8 x 8 and in the middle,
    shared key and value projection, Swish gate, expansion 6, separable convolutions at 8 x 8. The outer level keeps
    full convolutions, as in the paper.

supernet: the student with two ResNet blocks a level on the way down, three on the way up, and two transformers in the
    middle, from which `mobilediff.compression.evolve` removes blocks.

mobilediffusion_md: `MobileUNet` in the paper's MD setting (arXiv 2311.16567), at 64 x 64 x 8 latents with 768-wide
    text: channels 320, 640, 1024, 11 ResNet blocks, 15 self- and 18 cross-attentions, expansion 6. Where the paper
    leaves the layout open, it is chosen to meet the paper's parameters and its fraction of Stable Diffusion 1.5's
    multiply-accumulates. So the 11 blocks are 1, 1, 2 down, 2, 2, 3 up and a middle of transformers alone; there is
    one transformer after each block of the two inner levels and ten in the middle, each between projections of its
    own; and only the innermost level has separable convolutions, because with those of 32 x 32 separable too the
    network falls short of both figures (358 M parameters, 0.395 of the multiply-accumulates).
"""
