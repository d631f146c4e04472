"""Choose steps and guidance of models that take several; the others keep their own."""

from dataclasses import dataclass

from mobilediff.demo.service.inputs import check_choice, quoted
from mobilediff.demo.service.models import Model
from mobilediff.sampling.scheduling import distilled_steps

OWN = "own"
FEW_STEPS = (OWN, 1, 2, 4)
MANY_STEPS = (OWN, 25, 50)
MAX_GUIDANCE = 10


@dataclass(frozen=True)
class Settings:
    """Hold a visitor's choice of steps and guidance.

    Attributes:
        few_steps: of models that were distilled for several numbers of steps; "own" leaves each its default.
        many_steps: of models that were not distilled, likewise.
        guidance: scale of models that were not distilled; None leaves each its default.
    """

    few_steps: int | str = OWN
    many_steps: int | str = OWN
    guidance: float | None = None

    def options(self, model: Model) -> dict:
        """Return the arguments of a call of the model that differ from its own defaults.

        Raises:
            ValueError: the model was distilled for other numbers of steps; names it.
        """
        config, distilled = model.pipeline.config, distilled_steps(model.pipeline.scheduler)
        options = {}
        if distilled is not None and len(distilled) > 1:
            if self.few_steps not in (OWN, *distilled):
                accepted = ", ".join(map(str, distilled))
                raise ValueError(f"The number of steps is {self.few_steps}; {model.name} accepts {accepted}.")
            options["num_inference_steps"] = self.few_steps
        elif distilled is None:
            options["num_inference_steps"] = self.many_steps
        if options.get("num_inference_steps") in (None, OWN, config.default_num_inference_steps):
            options = {}
        if not config.guidance_distilled and self.guidance not in (None, config.default_guidance_scale):
            options["guidance_scale"] = self.guidance
        return options


OWN_SETTINGS = Settings()


def check_guidance(value: object) -> float | None:
    """Return a guidance scale, None for each model's own.

    Raises:
        ValueError: it is no number from 0 to `MAX_GUIDANCE`.
    """
    if value is None:
        return None
    if not isinstance(value, int | float) or isinstance(value, bool) or not 0 <= value <= MAX_GUIDANCE:
        raise ValueError(f"The guidance is {quoted(value)}; accepted is a number from 0 to {MAX_GUIDANCE}, or none.")
    return float(value)


def check_settings(few_steps: object, many_steps: object, guidance: object) -> Settings:
    """Check a visitor's choice of steps and guidance.

    Raises:
        ValueError: a value is none of those accepted; names it.
    """
    return Settings(
        check_choice("number of steps of one-step students", few_steps, FEW_STEPS),
        check_choice("number of steps of teacher and student", many_steps, MANY_STEPS),
        check_guidance(guidance),
    )
