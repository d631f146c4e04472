"""Sample as UFOGen (arXiv 2311.09257): predict the clean sample, noise it to the next timestep."""

from dataclasses import dataclass
from diffusers import DDPMScheduler
from diffusers.configuration_utils import ConfigMixin
from diffusers.configuration_utils import register_to_config
from diffusers.schedulers.scheduling_utils import SchedulerMixin
from diffusers.utils import BaseOutput
from diffusers.utils.torch_utils import randn_tensor
from typing import Any
from typing import Literal
import torch


# --- mobilediff.schedulers.conversion
# Make schedulers of each other's configurations, so that they sample alike or say why not.


# How the schedulers of distilled networks sample, along the forward process that these networks are trained with.
SAMPLING = {
    "beta_schedule": "squaredcos_cap_v2",
    "clip_sample": False,
    "num_train_timesteps": 1000,
    "prediction_type": "v_prediction",
    "rescale_betas_zero_snr": False,
    "set_alpha_to_one": True,
    "thresholding": False,
    "timestep_spacing": "trailing",
    "trained_betas": None,
}


class ConversionMixin:
    """Count the defaults of a configuration as given, which diffusers replaces by the new class's."""

    register_to_config: Any

    def _register_sampling(self) -> None:
        """Register all that another class needs to sample alike, none of it as a default."""
        self.register_to_config(**SAMPLING, _use_default_values=[])

    @classmethod
    def _check_sampling(cls, given: dict) -> None:
        """Refuse entries of a configuration that ask for sampling that is not in `SAMPLING`."""
        for name, accepted in SAMPLING.items():
            if (value := given.get(name, accepted)) != accepted:
                raise ValueError(f"{name} is {value!r}, but {cls.__name__} samples with {accepted!r} alone")

    @classmethod
    def from_config(cls, config: Any = None, return_unused_kwargs: bool = False, **kwargs) -> Any:
        """Make a scheduler of a configuration, another class's among them.

        Args:
            config: of this class, or of one of `compatibles`.
            return_unused_kwargs: whether to return the arguments as well that are not of this class.
            kwargs: replace entries of `config`.

        Raises:
            ValueError: `config` asks for sampling that is not in `SAMPLING`.
        """
        given = {name: value for name, value in (config or {}).items() if name != "_use_default_values"}
        cls._check_sampling(given | kwargs)
        return super().from_config(given, return_unused_kwargs, **kwargs)  # pyright: ignore[reportAttributeAccessIssue]


# --- ufogen
# Sample as UFOGen (arXiv 2311.09257): predict the clean sample, noise it to the next timestep.


@dataclass
class UFOGenSchedulerOutput(BaseOutput):
    """Hold the output of `UFOGenScheduler.step`.

    Attributes:
        prev_sample: the network's next input; after the last step the clean sample itself, [B, C, H, W].
        pred_original_sample: the predicted clean sample, [B, C, H, W].
    """

    prev_sample: torch.Tensor
    pred_original_sample: torch.Tensor


class UFOGenScheduler(ConversionMixin, SchedulerMixin, ConfigMixin):
    """Sample in few steps from a generator that predicts x_0 at several noise levels.

    Unlike DDIM the noise between two steps is drawn anew from the forward kernel q(x_t | x_0), the one that the
    discriminator saw in training, and not carried over from the prediction.

    Args:
        num_train_timesteps: length of the diffusion that the network was trained with; 1000 alone.
        beta_schedule: its noise schedule, as diffusers names it; "squaredcos_cap_v2" alone.
        prediction_type: output of the network; "v_prediction" alone.
        distilled_num_inference_steps: the step counts that `set_timesteps` accepts.

    Raises:
        ValueError: for another value of the first three, or step counts outside 1..`num_train_timesteps`.
    """

    config: Any  # a FrozenDict, whose keys are attributes too
    order = 1
    # On the same timesteps DDIM's only step is this one's; of several it carries the noise over.
    _compatibles = ["DDIMScheduler"]

    @register_to_config
    def __init__(
        self,
        num_train_timesteps: int = 1000,
        beta_schedule: Literal["squaredcos_cap_v2"] = "squaredcos_cap_v2",
        prediction_type: Literal["v_prediction"] = "v_prediction",
        distilled_num_inference_steps: list[int] | tuple[int, ...] = (1, 2, 4),
    ):
        self._check_sampling(
            {
                "num_train_timesteps": num_train_timesteps,
                "beta_schedule": beta_schedule,
                "prediction_type": prediction_type,
            }
        )
        if not distilled_num_inference_steps or not all(
            1 <= steps <= num_train_timesteps for steps in distilled_num_inference_steps
        ):
            raise ValueError(
                f"distilled_num_inference_steps is {distilled_num_inference_steps}, "
                f"accepted: counts from 1 to {num_train_timesteps}"
            )
        self._register_sampling()
        # q(x_t | x_0) is that of DDPM for every sampler.
        self._forward_process = DDPMScheduler(num_train_timesteps, beta_schedule=beta_schedule)
        self.alphas_cumprod = self._forward_process.alphas_cumprod
        self.init_noise_sigma = 1.0
        self.num_inference_steps = None
        self.timesteps = torch.arange(num_train_timesteps - 1, -1, -1)

    def set_timesteps(self, num_inference_steps: int, device: str | torch.device | None = None) -> None:
        """Space the timesteps evenly from the last one downwards ("trailing").

        So one step starts at pure noise.

        Raises:
            ValueError: if the generator was not made for this count.
        """
        accepted = self.config.distilled_num_inference_steps
        if num_inference_steps not in accepted:
            raise ValueError(f"num_inference_steps is {num_inference_steps}, this scheduler accepts {list(accepted)}")
        self.num_inference_steps = num_inference_steps
        remaining = torch.arange(num_inference_steps, 0, -1, dtype=torch.float64) / num_inference_steps
        self.timesteps = ((remaining * self.config.num_train_timesteps).round().long() - 1).to(device)

    def scale_model_input(self, sample: torch.Tensor, timestep: int | torch.Tensor | None = None) -> torch.Tensor:
        """Return x_t, [B, C, H, W], as it is: the network takes it unscaled."""
        return sample

    def step(
        self,
        model_output: torch.Tensor,
        timestep: int | torch.Tensor,
        sample: torch.Tensor,
        generator: torch.Generator | list[torch.Generator] | None = None,
        return_dict: bool = True,
    ) -> UFOGenSchedulerOutput | tuple[torch.Tensor, torch.Tensor]:
        """Step from x_t to x_s at the next timestep s, or finally to x_0.

        Args:
            model_output: the network's prediction at `timestep`, [B, C, H, W].
            timestep: t, one of `timesteps`.
            sample: x_t, [B, C, H, W].
            generator: one, or one an image, for the fresh noise.
            return_dict: whether to return a `UFOGenSchedulerOutput` or a tuple.

        Raises:
            ValueError: if `set_timesteps` was not called, or `timestep` is not one of its timesteps.
        """
        # Legend, symbol -> name (arXiv 2311.09257, sections 3 and 4.1)
        #   x_t      -> sample
        #   x_0_hat  -> pred_original_sample, G(x_t, t) of the paper once the network's output is read as x_0
        #   abar_t   -> alpha_prod_t, the product of (1 - beta) up to t
        #   s        -> prev_timestep, the next smaller timestep (t - delta in training)
        #   eps      -> noise, fresh and standard normal
        #   x_s      -> prev_sample = sqrt(abar_s) x_0_hat + sqrt(1 - abar_s) eps, a draw from q(x_s | x_0_hat)
        timesteps = self.timesteps.tolist()
        if self.num_inference_steps is None or int(timestep) not in timesteps:
            raise ValueError(f"timestep is {int(timestep)}; call set_timesteps first, then pass one of its timesteps")
        next_index = timesteps.index(int(timestep)) + 1

        alpha_prod_t = self.alphas_cumprod[int(timestep)]
        pred_original_sample = alpha_prod_t**0.5 * sample - (1 - alpha_prod_t) ** 0.5 * model_output

        if next_index == len(timesteps):
            prev_sample = pred_original_sample
        else:
            # Drawn in float32 so that a seed means the same noise in every precision.
            noise = randn_tensor(sample.shape, generator=generator, device=sample.device, dtype=torch.float32)
            prev_timestep = self.timesteps[next_index].expand(len(sample))
            noise = noise.to(sample.dtype)
            prev_sample = self.add_noise(pred_original_sample, noise, prev_timestep)  # pyright: ignore[reportArgumentType]

        if not return_dict:
            return prev_sample, pred_original_sample
        return UFOGenSchedulerOutput(prev_sample=prev_sample, pred_original_sample=pred_original_sample)

    def add_noise(
        self, original_samples: torch.Tensor, noise: torch.Tensor, timesteps: torch.IntTensor
    ) -> torch.Tensor:
        """Draw from q(x_t | x_0): sqrt(abar_t) `original_samples` + sqrt(1 - abar_t) `noise`.

        Args:
            original_samples, noise: x_0 and eps, [B, C, H, W].
            timesteps: t, int64 [B].

        Returns:
            x_t, [B, C, H, W].
        """
        return self._forward_process.add_noise(original_samples, noise, timesteps)

    def get_velocity(self, sample: torch.Tensor, noise: torch.Tensor, timesteps: torch.IntTensor) -> torch.Tensor:
        """Compute v = sqrt(abar_t) `noise` - sqrt(1 - abar_t) `sample` (arXiv 2202.00512).

        Args:
            sample, noise: x_0 and eps, [B, C, H, W].
            timesteps: t, int64 [B].

        Returns:
            v, the target of v-prediction, [B, C, H, W].
        """
        return self._forward_process.get_velocity(sample, noise, timesteps)

    def __len__(self) -> int:
        return self.config.num_train_timesteps
