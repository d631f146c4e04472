"""Make schedulers of each other's configurations, so that they sample alike or say why not."""

from typing import Any

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
