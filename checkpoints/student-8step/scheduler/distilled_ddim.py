"""Sample progressively distilled students (arXiv 2202.00512) by deterministic DDIM."""

from diffusers import DDIMScheduler
from diffusers.configuration_utils import register_to_config
from diffusers.schedulers.scheduling_ddim import DDIMSchedulerOutput
from diffusers.schedulers.scheduling_utils import SchedulerMixin
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


# --- distilled_ddim
# Sample progressively distilled students (arXiv 2202.00512) by deterministic DDIM.


# diffusers finds out how to load a component by looking for its base class in the component's own module.



class DistilledDDIMScheduler(ConversionMixin, DDIMScheduler):
    """Sample by DDIM in the step counts of a distilled student only.

    It is DDIM (arXiv 2010.02502) with eta = 0 on trailing timesteps. A student learns to land on given timesteps and
    not on those in between, so other counts are refused.
    Two things differ from diffusers' class: that refusal, and that a step leads exactly to the next timestep where
    the count does not divide `num_train_timesteps` (diffusers' own can be one timestep off).

    Args:
        num_train_timesteps: length of the diffusion that the network was trained with; 1000 alone.
        beta_schedule: its noise schedule, as diffusers names it; "squaredcos_cap_v2" alone.
        prediction_type: output of the network; "v_prediction" alone.
        distilled_num_inference_steps: the step counts that `set_timesteps` accepts.

    Raises:
        ValueError: for another value of the first three, or step counts outside 1..`num_train_timesteps`.
    """

    config: Any  # a FrozenDict, whose keys are attributes too
    # Others space the timesteps otherwise or need more of them.
    _compatibles = ["DDIMScheduler"]

    @register_to_config
    def __init__(
        self,
        num_train_timesteps: int = 1000,
        beta_schedule: Literal["squaredcos_cap_v2"] = "squaredcos_cap_v2",
        prediction_type: Literal["v_prediction"] = "v_prediction",
        distilled_num_inference_steps: list[int] | tuple[int, ...] = (8,),
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
        super().__init__(**SAMPLING)  # pyright: ignore[reportArgumentType] - each entry has its own type
        self._register_sampling()

    def set_timesteps(self, num_inference_steps: int, device: str | torch.device | None = None) -> None:
        """Space the timesteps evenly from `num_train_timesteps` - 1 downwards ("trailing").

        Raises:
            ValueError: if the student was not distilled for this count.
        """
        accepted = self.config.distilled_num_inference_steps
        if num_inference_steps not in accepted:
            raise ValueError(f"num_inference_steps is {num_inference_steps}, this scheduler accepts {list(accepted)}")
        super().set_timesteps(num_inference_steps, device=device)  # pyright: ignore[reportArgumentType] - None is its default

    def step(
        self,
        model_output: torch.Tensor,
        timestep: int | torch.Tensor,
        sample: torch.Tensor,
        return_dict: bool = True,
    ) -> DDIMSchedulerOutput | tuple[torch.Tensor, torch.Tensor]:
        """Step from x_t to x_s at the next timestep s, or finally to x_0.

        Args:
            model_output: the network's prediction at `timestep`, [B, C, H, W].
            timestep: t, one of `timesteps`.
            sample: x_t, [B, C, H, W].
            return_dict: whether to return a `DDIMSchedulerOutput` or a tuple.

        Returns:
            `prev_sample`, x_s, and `pred_original_sample`, the predicted x_0; [B, C, H, W] each.

        Raises:
            ValueError: if `set_timesteps` was not called, or `timestep` is not one of its timesteps.
        """
        # Legend, symbol -> name (arXiv 2202.00512: z_t, alpha_t, sigma_t, v; arXiv 2010.02502, eq. 12 with sigma = 0)
        #   z_t               -> sample
        #   alpha_t, sigma_t  -> alpha_t, sigma_t, with alpha_t^2 + sigma_t^2 = 1
        #   x_hat             -> pred_original_sample
        #   eps_hat           -> pred_epsilon
        #   z_s               -> prev_sample = alpha_s x_hat + sigma_s eps_hat
        timesteps = self.timesteps.tolist()
        if self.num_inference_steps is None or int(timestep) not in timesteps:
            raise ValueError(f"timestep is {int(timestep)}; call set_timesteps first, then pass one of its timesteps")
        next_index = timesteps.index(int(timestep)) + 1
        alpha_prod_t = self.alphas_cumprod[int(timestep)]
        alpha_prod_s = (
            self.alphas_cumprod[timesteps[next_index]] if next_index < len(timesteps) else self.final_alpha_cumprod
        )
        alpha_t, sigma_t = alpha_prod_t**0.5, (1 - alpha_prod_t) ** 0.5
        alpha_s, sigma_s = alpha_prod_s**0.5, (1 - alpha_prod_s) ** 0.5

        pred_original_sample = alpha_t * sample - sigma_t * model_output
        pred_epsilon = alpha_t * model_output + sigma_t * sample
        prev_sample = alpha_s * pred_original_sample + sigma_s * pred_epsilon
        if not return_dict:
            return prev_sample, pred_original_sample
        return DDIMSchedulerOutput(prev_sample=prev_sample, pred_original_sample=pred_original_sample)
