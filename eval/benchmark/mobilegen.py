"""MobileGen's student: a class-conditional network for CIFAR-10 at 64 x 64 pixels, without a latent space."""

import torch
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.models.attention_processor import Attention
from diffusers.models.embeddings import get_timestep_embedding
from diffusers.models.modeling_utils import ModelMixin
from torch import nn

HEADS = 4
EMBEDDING_DIM = 256


def double_convolution(in_channels: int, out_channels: int, inner_channels: int | None = None) -> nn.Sequential:
    """Make two convolutions with a normalisation over all channels each, and a GELU between them."""
    inner_channels = inner_channels or out_channels
    return nn.Sequential(
        nn.Conv2d(in_channels, inner_channels, 3, padding=1, bias=False),
        nn.GroupNorm(1, inner_channels),
        nn.GELU(),
        nn.Conv2d(inner_channels, out_channels, 3, padding=1, bias=False),
        nn.GroupNorm(1, out_channels),
    )


class MobileGenStage(nn.Module):
    """Change resolution and width, add the embedding of timestep and class, attend to all places.

    Args:
        in_channels: of the input, on the way up with the skip connection's.
        out_channels: of the output.
        up: double the resolution by bilinear interpolation, instead of halving it by pooling.
    """

    def __init__(self, in_channels: int, out_channels: int, up: bool = False):
        super().__init__()
        self.resample = nn.Upsample(scale_factor=2, mode="bilinear", align_corners=True) if up else nn.MaxPool2d(2)
        self.convolutions = double_convolution(in_channels, out_channels, in_channels // 2 if up else None)
        self.embedding = nn.Sequential(nn.SiLU(), nn.Linear(EMBEDDING_DIM, out_channels))
        self.norm = nn.LayerNorm(out_channels)
        self.attention = Attention(out_channels, heads=HEADS, dim_head=out_channels // HEADS, bias=True)
        self.feed_forward = nn.Sequential(
            nn.LayerNorm(out_channels),
            nn.Linear(out_channels, out_channels),
            nn.GELU(),
            nn.Linear(out_channels, out_channels),
        )

    def forward(
        self, hidden_states: torch.Tensor, embedding: torch.Tensor, skip: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Map [N, C, H, W] to [N, out_channels, H', W'].

        Args:
            hidden_states: of the stage before.
            embedding: of timestep and class, [N, EMBEDDING_DIM].
            skip: on the way up, the output of the same resolution on the way down, [N, C', H', W'].
        """
        hidden_states = self.resample(hidden_states)
        if skip is not None:
            hidden_states = torch.cat([skip, hidden_states], dim=1)
        hidden_states = self.convolutions(hidden_states) + self.embedding(embedding)[:, :, None, None]
        tokens = hidden_states.flatten(2).transpose(1, 2)
        tokens = tokens + self.attention(self.norm(tokens))
        tokens = tokens + self.feed_forward(tokens)
        return tokens.transpose(1, 2).reshape(hidden_states.shape)


class MobileGenUNet(ModelMixin, ConfigMixin):
    """Predict noise in the shape of MobileGen's first student, github.com/01pooja10/MobileGen.

    Of its published 7,917,699 parameters 1,180,672 belong to a block of the bottleneck that its forward leaves out;
    here that block is not there.

    Args:
        sample_size: height and width of the images, a multiple of 8.
        in_channels: of the images.
        num_class_embeds: classes.
    """

    @register_to_config
    def __init__(self, sample_size: int = 64, in_channels: int = 3, num_class_embeds: int = 10):
        super().__init__()
        self.class_embedding = nn.Embedding(num_class_embeds, EMBEDDING_DIM)
        self.conv_in = double_convolution(in_channels, 64)
        self.down = nn.ModuleList([MobileGenStage(64, 128), MobileGenStage(128, 256), MobileGenStage(256, 256)])
        self.middle = double_convolution(256, 256)
        widths = ((512, 128), (256, 64), (128, 64))
        self.up = nn.ModuleList(MobileGenStage(*channels, up=True) for channels in widths)
        self.conv_out = nn.Conv2d(64, in_channels, 1)

    def forward(self, sample: torch.Tensor, timestep: torch.Tensor, class_labels: torch.Tensor) -> torch.Tensor:
        """Predict the noise of images [N, C, H, W], of timesteps [N] and classes [N]; returns [N, C, H, W]."""
        embedding = get_timestep_embedding(timestep, EMBEDDING_DIM, downscale_freq_shift=0)
        embedding = embedding + self.class_embedding(class_labels)
        hidden_states, skips = self.conv_in(sample), []
        for stage in self.down:
            skips.append(hidden_states)
            hidden_states = stage(hidden_states, embedding)
        hidden_states = self.middle(hidden_states)
        for stage in self.up:
            hidden_states = stage(hidden_states, embedding, skips.pop())
        return self.conv_out(hidden_states)
