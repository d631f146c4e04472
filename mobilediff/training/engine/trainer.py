"""Run the loop of every stage: deterministic draws, updates, EMA, logs, saved states."""

import hashlib
import json
import shutil
import signal
import time
from collections.abc import Iterable
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Protocol

import torch
from accelerate import Accelerator
from diffusers.training_utils import EMAModel
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.tensorboard import SummaryWriter
from tqdm.auto import tqdm

from mobilediff.files import atomic_folder, atomic_path
from mobilediff.training.engine.benchmark import measure_steps
from mobilediff.training.engine.options import (
    MAY_CHANGE,
    OPTIONS_FILE,
    RunLimits,
    TrainingOptions,
    plain_options,
    save_options,
    saved_options,
)
from mobilediff.training.engine.rounding import RoundedWeights, round_to_float16
from mobilediff.training.engine.state import load_optimizer_tensors, load_state, optimizer_tensors, save_state


def derived_seed(*words: int | str) -> int:
    """Hash words into a seed: (seed, rank, step) gives each step its own random state (as edm2 does)."""
    return int.from_bytes(hashlib.blake2b(repr(words).encode(), digest_size=7).digest(), "little")


@lru_cache(maxsize=2)
def epoch_order(size: int, seed: int, epoch: int) -> torch.Tensor:
    """Draw the order in which an epoch visits its images, int64 [size]."""
    return torch.randperm(size, generator=torch.Generator().manual_seed(derived_seed(seed, "epoch", epoch)))


@dataclass
class Draws:
    """Hold the sources of a step's randomness; nothing else is random.

    Attributes:
        index: the step's number, from 0.
        indices: rows of the data set, int64 [batch_size], each image once an epoch.
        generator: on the accelerator's device, seeded by (seed, rank, step).
    """

    index: int
    indices: torch.Tensor
    generator: torch.Generator


class TrainedNetwork:
    """Hold a network, its optimiser and the moving averages of its weights, by decay; the first one ships.

    With `rounded` the network's own weights are rounded to float16; optimiser and averages see those that are learned.
    """

    def __init__(
        self,
        accelerator: Accelerator,
        network: nn.Module,
        optimizer: torch.optim.Optimizer,
        ema_decays: list[float],
        rounded: bool,
    ):
        self.network = network  # the bare module: exports and EMA read it
        self.learning_rates = [group["lr"] for group in optimizer.param_groups]
        self.emas = {decay: EMAModel(network.parameters(), decay=decay, foreach=True) for decay in ema_decays}
        for ema in self.emas.values():
            ema.to(accelerator.device)
        self.module, self.optimizer = accelerator.prepare(network, optimizer)  # the one to call
        self.rounded = RoundedWeights(network) if rounded else None

    def step(self) -> None:
        """Take an optimiser step on the gradients, clear them, and move the averages."""
        with self.rounded.unrounded() if self.rounded else nullcontext():
            self.optimizer.step()
            self.optimizer.zero_grad(set_to_none=True)
            for ema in self.emas.values():
                ema.step(self.network.parameters())

    def average(self, decay: float | None = None) -> EMAModel | None:
        """Return the average of that decay, or of None the first; None where the network has no averages.

        Raises:
            ValueError: the network has averages, but none of that decay.
        """
        if not self.emas or decay is None:
            return next(iter(self.emas.values()), None)
        if decay not in self.emas:
            raise ValueError(f"ema_decay is {decay}; accepted are {list(self.emas)}")
        return self.emas[decay]

    def tensors(self) -> dict[str, torch.Tensor]:
        """Collect the tensors of network, optimiser, averages and learned weights by name, of any shape."""
        tensors = {f"network.{name}": value for name, value in self.network.state_dict().items()}
        tensors |= {f"optimizer.{name}": value for name, value in optimizer_tensors(self.optimizer).items()}
        for decay, ema in self.emas.items():
            tensors |= {f"ema {decay}.{i}": value for i, value in enumerate(ema.shadow_params)}
        if self.rounded:
            tensors |= {f"learned.{i}": value for i, value in enumerate(self.rounded.learned)}
        return tensors

    def load(self, tensors: dict[str, torch.Tensor], ema_steps: int) -> None:
        """Restore tensors of any shape that `tensors` collected, and the averages' number of steps."""
        self.network.load_state_dict(_with_prefix(tensors, "network."))
        load_optimizer_tensors(self.optimizer, _with_prefix(tensors, "optimizer."))
        for decay, ema in self.emas.items():
            for i, shadow in enumerate(ema.shadow_params):
                shadow.copy_(tensors[f"ema {decay}.{i}"])
            ema.optimization_step = ema_steps
        if self.rounded:
            for i, learned in enumerate(self.rounded.learned):
                learned.copy_(tensors[f"learned.{i}"])


class Trainable(Protocol):
    """Declare the methods of a `Stage` that the loop calls."""

    def batch(self, draws: Draws) -> Any: ...

    def step(self, batch: Any, draws: Draws) -> dict[str, torch.Tensor]: ...

    def validate(self) -> dict[str, float]: ...

    def export(self, folder: Path) -> None: ...


class Trainer:
    """Run a stage's steps until the planned one, the time limit or a signal.

    Args:
        options: of the run.
        limits: of this command.
        data_size: rows of the data set that `Draws.indices` points into.

    A stage registers its networks with `add`; its steps compute losses and hand each to `update`. The learning rate is
    warmed up linearly, held, and decayed linearly to zero at the last step.
    """

    def __init__(self, options: TrainingOptions, limits: RunLimits, data_size: int):
        self.options, self.limits, self.data_size = options, limits, data_size
        self.folder = Path(options.output)
        self.accelerator = Accelerator(mixed_precision="no")  # `autocast` instead: it leaves outputs in bf16
        self.networks: dict[str, TrainedNetwork] = {}
        self.kept: dict[str, nn.Module] = {}
        self.writer: SummaryWriter | None = None  # of tensorboard, on the main process while it trains
        self.step = 0
        self.minutes_before = 0.0
        self.stop_requested = False
        torch.manual_seed(options.seed)
        if limits.trial and self.accelerator.is_main_process:
            shutil.rmtree(self.folder, ignore_errors=True)
        self.accelerator.wait_for_everyone()
        self._check_same_options()
        self.accelerator.wait_for_everyone()
        if self.accelerator.is_main_process:
            self.folder.mkdir(parents=True, exist_ok=True)
            save_options(options, self.folder)

    @property
    def device(self) -> torch.device:
        """Return the device of this process."""
        return self.accelerator.device

    @contextmanager
    def autocast(self):
        """Run forward passes in the precision of the option `dtype`.

        On a CPU attention that gradients flow through takes the plain kernel, with its products in bf16 too: the
        backward pass of the fused one is slower at these widths.
        """
        fused = self.device.type != "cpu" or not torch.is_grad_enabled()
        attention = nullcontext() if fused else sdpa_kernel(SDPBackend.MATH)
        enabled = self.options.compute_dtype == "bf16"
        # of every device, in spite of its name
        reduced = torch.backends.cuda.fp16_bf16_reduction_math_sdp_allowed()
        torch.backends.cuda.allow_fp16_bf16_reduction_math_sdp(not fused)
        try:
            with torch.autocast(self.device.type, torch.bfloat16, enabled=enabled), attention:
                yield
        finally:
            torch.backends.cuda.allow_fp16_bf16_reduction_math_sdp(reduced)

    @property
    def images_seen(self) -> int:
        """Count the images of all steps so far, over all processes."""
        return self.step * self.options.batch_size * self.accelerator.num_processes

    def add(
        self,
        name: str,
        network: nn.Module,
        *,
        learning_rate: float | None = None,
        optimizer: torch.optim.Optimizer | None = None,
        betas: tuple[float, float] | None = None,
        ema_decay: float | None = None,
    ) -> nn.Module:
        """Train `network`, by AdamW unless told otherwise; returns the module to call in the step function."""
        options = self.options
        network.to(self.device).to(memory_format=torch.channels_last)
        optimizer = optimizer or torch.optim.AdamW(
            [parameter for parameter in network.parameters() if parameter.requires_grad],
            lr=options.learning_rate if learning_rate is None else learning_rate,
            betas=options.betas if betas is None else betas,
            weight_decay=options.weight_decay,
            fused=True,
        )
        decays = [options.ema_decay, *options.further_ema_decays] if ema_decay is None else [ema_decay]
        decays, rounded = [decay for decay in decays if decay], options.dtype == "fp16-weights"
        trained = TrainedNetwork(self.accelerator, network, optimizer, decays, rounded)
        self.networks[name] = trained
        return self.compiled(trained.module)

    def frozen(self, network: nn.Module) -> nn.Module:
        """Keep `network` as it is, in evaluation mode on the device; returns the module to call."""
        network.to(self.device).to(memory_format=torch.channels_last).requires_grad_(False).eval()
        return self.compiled(network)

    def keep(self, name: str, module: nn.Module) -> None:
        """Save and restore the buffers of a module that does not learn with the run's state."""
        self.kept[name] = module.to(self.device)

    def compiled(self, module: nn.Module) -> nn.Module:
        """Return the module under torch.compile, where the options say so.

        Not for dynamic shapes: after a second batch size those would compile slower kernels.
        """
        if not self.options.compile:
            return module
        return torch.compile(module, dynamic=False)  # pyright: ignore[reportReturnType] - a module again

    def update(self, name: str, loss: torch.Tensor) -> None:
        """Take one optimiser step of the named network on `loss`, a scalar."""
        trained = self.networks[name]
        factor = self.learning_rate_factor(self.step)
        for group, learning_rate in zip(trained.optimizer.param_groups, trained.learning_rates, strict=True):
            group["lr"] = learning_rate * factor
        self.accelerator.backward(loss)
        if self.options.max_grad_norm:
            self.accelerator.clip_grad_norm_(trained.network.parameters(), self.options.max_grad_norm)
        trained.step()

    def learning_rate_factor(self, step: int) -> float:
        """Compute the fraction of the base learning rate at a step: warm-up, constant, linear decay to zero."""
        options = self.options
        warmup = min(1.0, (step + 1) / max(1, options.warmup_steps))
        decay_steps = max(1.0, options.decay_fraction * options.steps)
        return min(warmup, (options.steps - step) / decay_steps, 1.0)

    def fit(self, stage: Trainable) -> bool:
        """Train; resumes from the run folder's state, and stops and saves at a SIGTERM.

        The EMA weights are exported at every saved state: to `export`, and for a further decay to
        `export-ema-<decay>`.

        Returns:
            Whether the planned last step was reached.

        Raises:
            FloatingPointError: a weight is not finite when a state is saved; the state before stays.
            ValueError: the run was begun on another number of processes, or they do not see one run folder.
        """
        if self.limits.benchmark:
            self._benchmark(stage)
            return False
        self._resume()
        self.writer = self._open_logs()
        with self._stop_at_sigterm():
            return self._train(stage)

    def _train(self, stage: Trainable) -> bool:
        started = saved = time.perf_counter()
        logged_at, logged_step, totals = started, self.step, {}
        bar = tqdm(
            total=self.options.steps,
            initial=self.step,
            disable=not self.accelerator.is_local_main_process,
            mininterval=5,
        )
        while self.step < self.options.steps and not self._out_of_time(started):
            values = self._train_step(stage)
            for name, value in values.items():  # summed on the device: no sync until the log line
                total, times = totals.get(name, (0, 0))  # a loss may not be there in every step
                totals[name] = total + value.detach(), times + 1
            self.step += 1
            bar.update()
            if self.step % self.options.log_every == 0 or self.step == self.options.steps:
                now, count = time.perf_counter(), self.step - logged_step
                means = {name: float(total) / times for name, (total, times) in totals.items()}
                rate = count * self.options.batch_size * self.accelerator.num_processes / (now - logged_at)
                self._log({**means, "images_per_second": rate})
                bar.set_postfix_str(f"{rate:.0f} images/s " + " ".join(f"{k} {v:.4g}" for k, v in means.items()))
                logged_at, logged_step, totals = now, self.step, {}
            if self.options.sample_every and self.step % self.options.sample_every == 0:
                paused = time.perf_counter()
                if self.accelerator.is_main_process:
                    self._log(stage.validate())
                self.accelerator.wait_for_everyone()
                logged_at += time.perf_counter() - paused
            if time.perf_counter() - saved > 60 * self.options.save_every_minutes:
                paused = time.perf_counter()
                self._save(started, stage)
                saved = time.perf_counter()
                logged_at += saved - paused
        bar.close()
        self._save(started, stage)
        return self.step >= self.options.steps

    @contextmanager
    def _stop_at_sigterm(self):
        """Let SIGTERM end the loop in a `with` block; the handler before is back after it."""
        before = signal.signal(signal.SIGTERM, lambda *_: setattr(self, "stop_requested", True))
        try:
            yield
        finally:
            signal.signal(signal.SIGTERM, before)

    def log_image(self, name: str, image: torch.Tensor) -> None:
        """Log an image of the current step to tensorboard: [3, H, W], float in [0, 1] or uint8."""
        if self.writer is not None:
            self.writer.add_image(name, image, self.step)

    def _train_step(self, stage: Trainable) -> dict[str, torch.Tensor]:
        draws = self._draws(self.step)
        return stage.step(stage.batch(draws), draws)

    def _benchmark(self, stage: Trainable) -> None:
        def run_step():
            self._train_step(stage)
            self.step += 1

        figures = measure_steps(run_step, self.options.batch_size, self.device, self.options.compute_dtype)
        self.accelerator.print(json.dumps(figures, indent=2))

    def _out_of_time(self, started: float) -> bool:
        limit = self.limits.max_minutes
        stop = self.stop_requested or (limit is not None and time.perf_counter() - started > 60 * limit)
        if self.accelerator.num_processes == 1:
            return stop
        if self.step % self.options.log_every:
            return False
        # all processes leave the loop at the same step, or those left behind wait for gradients for ever
        flag = torch.tensor(float(stop), device=self.device)
        total = self.accelerator.reduce(flag, reduction="sum")
        return total.item() > 0  # pyright: ignore[reportAttributeAccessIssue] - of a tensor a tensor

    def _draws(self, step: int) -> Draws:
        options, rank, world = self.options, self.accelerator.process_index, self.accelerator.num_processes
        seed = derived_seed(options.seed, rank, step)
        torch.manual_seed(seed)  # dropout inside the networks
        positions = (step * world + rank) * options.batch_size + torch.arange(options.batch_size)
        epochs = positions // self.data_size
        indices = torch.cat([
            epoch_order(self.data_size, options.seed, epoch)[positions[epochs == epoch] % self.data_size]
            for epoch in sorted(set(epochs.tolist()))
        ])  # fmt: skip
        generator = torch.Generator(device=self.device).manual_seed(seed)
        return Draws(step, indices.to(self.device, non_blocking=True), generator)

    def _open_logs(self) -> SummaryWriter | None:
        if not self.accelerator.is_main_process:
            return None
        self._drop_later_records()
        return SummaryWriter(str(self.folder / "tensorboard"), purge_step=self.step + 1)

    def _check_same_options(self) -> None:
        """Refuse to resume a run, or to use its caches, under changed options."""
        if not (self.folder / OPTIONS_FILE).is_file():
            return
        before, now = saved_options(self.folder), plain_options(self.options)
        changed = sorted(key for key in now if key not in MAY_CHANGE and before.get(key, now[key]) != now[key])
        if changed:
            raise ValueError(
                f"{self.folder} holds a run with other options: {changed[0]} was {before[changed[0]]!r} and is now "
                f"{now[changed[0]]!r}. Give another output, delete the folder, or change only {', '.join(MAY_CHANGE)}"
            )

    def _drop_later_records(self) -> None:
        """Drop log lines newer than the checkpoint being resumed."""
        file = self.folder / "stats.jsonl"
        if not file.is_file():
            return
        lines = file.read_text(encoding="utf-8").splitlines(keepends=True)
        whole = [line for line in lines if line.endswith("}\n")]  # a kill may have cut the last one
        kept = [line for line in whole if json.loads(line)["step"] <= self.step]
        with atomic_path(file) as temporary:
            temporary.write_text("".join(kept), encoding="utf-8")

    def _log(self, values: dict[str, float]) -> None:
        if self.writer is None or not values:
            return
        for name, value in values.items():
            self.writer.add_scalar(name, value, self.step)
        record = {"step": self.step, "images": self.images_seen, **values}
        with (self.folder / "stats.jsonl").open("a", encoding="utf-8") as stream:
            stream.write(json.dumps(record) + "\n")

    def _save(self, started: float, stage: Trainable) -> None:
        if not self.accelerator.is_main_process:
            return
        tensors = {
            f"{name}/{key}": value for name, net in self.networks.items() for key, value in net.tensors().items()
        }
        for name, module in self.kept.items():
            tensors |= {f"{name}/{key}": value for key, value in module.state_dict().items()}
        for name, value in tensors.items():
            if not torch.isfinite(value).all():
                raise FloatingPointError(f"{name} is not finite at step {self.step}; the state saved before is kept")
        minutes = self.minutes_before + (time.perf_counter() - started) / 60
        averages = {name: net.average() for name, net in self.networks.items()}
        ema_steps = {name: ema.optimization_step for name, ema in averages.items() if ema}
        scalars = {"step": self.step, "images": self.images_seen, "minutes": minutes, "ema_steps": ema_steps}
        scalars["num_processes"] = self.accelerator.num_processes
        save_state(self.folder, tensors, scalars)
        for decay in (None, *self.options.further_ema_decays):
            self._export(stage, decay)

    def _export(self, stage: Trainable, ema_decay: float | None) -> None:
        name = "export" if ema_decay is None else f"export-ema-{ema_decay}"
        with atomic_folder(self.folder / name) as folder, self.averaged_weights(ema_decay):
            stage.export(folder)

    def _resume(self) -> None:
        state, num_processes = load_state(self.folder), self.accelerator.num_processes
        step = torch.tensor([state[1]["step"] if state else 0], device=self.device)
        steps = self.accelerator.gather(step)
        if steps.unique().numel() > 1:  # pyright: ignore[reportAttributeAccessIssue] - of a tensor a tensor
            raise ValueError(f"the processes do not see the same {self.folder}: put the run on a shared file system")
        if state is None:
            return
        tensors, scalars = state
        if scalars["num_processes"] != num_processes:
            raise ValueError(
                f"{self.folder} was begun on {scalars['num_processes']} processes and is now on {num_processes}: each "
                "draws its own part of the images, so take the same number"
            )
        for name, network in self.networks.items():
            network.load(_with_prefix(tensors, f"{name}/"), scalars["ema_steps"].get(name, 0))
        for name, module in self.kept.items():
            module.load_state_dict(_with_prefix(tensors, f"{name}/"))
        self.step, self.minutes_before = scalars["step"], scalars["minutes"]

    def averaged_weights(self, ema_decay: float | None = None) -> "AveragedWeights":
        """Swap the averaged weights in for a `with` block, in evaluation mode.

        Raises:
            ValueError: a network has averages, but none of that decay.
        """
        return AveragedWeights(self.networks.values(), ema_decay)


class AveragedWeights:
    """Swap EMA weights in, rounded where the network's own are, and the trained ones back."""

    def __init__(self, networks: Iterable[TrainedNetwork], ema_decay: float | None = None):
        self.averages = [(trained, trained.average(ema_decay)) for trained in networks]

    def __enter__(self):
        for trained, ema in self.averages:
            trained.network.eval()
            if ema:
                ema.store(trained.network.parameters())
                ema.copy_to(trained.network.parameters())
                if trained.rounded:
                    round_to_float16(trained.rounded.parameters)

    def __exit__(self, *_):
        for trained, ema in self.averages:
            if ema:
                ema.restore(trained.network.parameters())
            trained.network.train()


def _with_prefix(tensors: dict[str, torch.Tensor], prefix: str) -> dict[str, torch.Tensor]:
    return {name[len(prefix) :]: value for name, value in tensors.items() if name.startswith(prefix)}
