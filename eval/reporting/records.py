"""Keep records of every checkpoint on disk, and measure each section once."""

import sys
from dataclasses import replace
from functools import cached_property, partial
from pathlib import Path

from eval.benchmark.latency import MIN_RUNS, TIMED, measure_latency, speed_ups
from eval.benchmark.peers import load_peers
from eval.benchmark.size import measure_size
from eval.extractors.base import Extractor
from eval.extractors.clip import bundled_clip
from eval.extractors.efficientnet import efficientnet_extractor
from eval.extractors.features import FeatureSet
from eval.extractors.judge import JUDGE, judge_extractor
from eval.extractors.statistics import reference_statistics
from eval.measures.accuracy import measure_accuracy
from eval.measures.clip_score import measure_clip_score
from eval.measures.frechet import distance_label, measure_frechet_distance
from eval.measures.outside import measure_outside, outside_protocol
from eval.measures.quality import TrainingFeatures, measure_quality
from eval.measures.reconstruction import reconstructed
from eval.metrics.accuracy import known_nouns
from eval.metrics.frechet import check_count
from eval.protocol import default_device, device_description, folder_sha256, library_versions, tensor_sha256
from eval.reporting.tables import BASELINE, DAMAGED, NOISE_STD, RECONSTRUCTED, SCALE, figures
from eval.samples.damage import noised
from eval.samples.images import ImageSet, real_images
from eval.samples.pipelines import load_sampler
from eval.samples.settings import CheckpointSettings, resolve_settings
from eval.samples.store import DEFAULT_SAMPLES, kept_samples
from eval.schema import OTHER_DISTANCE, SCHEMA, Results, check_results, write_results
from mobilediff.captions import CLASS_NAMES, caption
from mobilediff.files import read_json
from mobilediff.threads import wait_policy

SECTIONS = ("size", "latency", "throughput", "distance", "quality", "nouns", "clip", "outside")
ONE_SET = ("frechet_distance", "quality", "clip")  # sections of one row that are of the same samples
NEWEST = "sliced_wasserstein"  # of the figures of quality, which kept records may lack


def damaged(images: ImageSet) -> ImageSet:
    """Add Gaussian noise to the images, seed 0, cut to 0..255."""
    noisy = noised(images.images, NOISE_STD)
    protocol = images.protocol | {"damage": f"Gaussian noise, standard deviation {NOISE_STD}, seed 0"}
    protocol |= {"images_sha256": tensor_sha256(noisy)}
    return replace(images, images=noisy, protocol=protocol)


def agrees(there: dict, wanted: dict) -> bool:
    """Return whether a kept protocol has every value of `wanted`."""
    return all(there.get(key) == value for key, value in wanted.items())


class Report:
    """Keep records on disk, and measure missing sections.

    Args:
        file: docs/results.json.
        checkpoints: the folder of checkpoints.
        folders: of the models, by name, as from `model_folders`.
        counts: samples of each model, for the prompts "class" and for the prompts "noun".
        outside_count: images of every row whose distance the extractor from outside measures.
        data: CIFAR-10, or None for the variable MOBILEDIFF_DATA.
        samples: folder that keeps samples.
        batch_size: samples drawn at once.
        dtype: samples are drawn in, "fp32" or "bf16".
        compiled: samples are drawn under torch.compile.
    """

    def __init__(
        self,
        file,
        checkpoints,
        folders,
        counts,
        outside_count,
        data=None,
        samples=DEFAULT_SAMPLES,
        batch_size=100,
        dtype="fp32",
        compiled=False,
    ):
        self.file, self.checkpoints, self.folders, self.counts = Path(file), Path(checkpoints), folders, counts
        self.data, self.samples, self.batch_size, self.dtype = data, samples, batch_size, dtype
        self.compiled, self.outside_count = compiled, outside_count
        self._sets: dict[tuple[str, str, int], FeatureSet] = {}
        self.device = default_device()
        self.pipelines = {name: load_sampler(folder, self.device) for name, folder in folders.items()}
        self.results = read_json(self.file) if self.file.exists() else {"schema": SCHEMA, "records": {}}
        check_results(self.results, str(self.file))
        for name, folder in folders.items():
            sha256, shipped = folder_sha256(folder), folder.parent == self.checkpoints
            if self.record(name).get("model_sha256") != sha256:
                self.results["records"][name] = {"model": name, "model_sha256": sha256, "shipped": shipped}
        vae_sha256 = folder_sha256(next(iter(folders.values())) / "vae")
        if self.record(RECONSTRUCTED).get("vae_sha256") != vae_sha256:
            self.results["records"][RECONSTRUCTED] = {"vae_sha256": vae_sha256}

    def record(self, name: str) -> dict:
        """Return the record of a row, a model's or one for scale."""
        return self.results["records"].setdefault(name, {})

    def save(self, name: str, section: str, content: dict) -> None:
        """Write a section at once, and drop sections of the row measured on other samples."""
        record = self.record(name)
        if section in ONE_SET:
            for other in set(ONE_SET) & set(record):
                if record[other]["samples"]["images_sha256"] != content["samples"]["images_sha256"]:
                    self._drop(record, other, f"was measured on other samples than the new {section}")
        record[section] = content
        write_results(self.file, self.results)

    def size(self) -> None:
        """Count parameters, multiply-accumulates and bytes, always anew."""
        for name, pipeline in self.pipelines.items():
            self.save(name, "size", measure_size(pipeline, self.folders[name]))

    def latency(self, threads: int, peers: list[str] | None = None) -> None:
        """Time all models and peers in one run; again when one of them lacks it."""
        names = [*self.pipelines, *(peers or [])]
        if all(self._timing_holds(self.record(name).get("latency", {}), names, threads) for name in names):
            return
        self._drop_other_timings("latency", names)
        for name in [name for name, record in self.results["records"].items() if "peer" in record]:
            del self.results["records"][name]
        loaded = load_peers(peers or [], self.device)
        for name, peer in loaded.items():
            self.results["records"][name] = {"model": name, "peer": peer.config.source, "size": peer.size()}
        measured = measure_latency(self.pipelines | loaded, threads)
        faster = speed_ups(measured["models"], BASELINE) if BASELINE in self.pipelines else {}
        for name, parts in measured["models"].items():
            ratio = {"times_faster": faster[name], "baseline": BASELINE} if name in faster else {}
            self.save(name, "latency", parts | ratio | {"protocol": measured["protocol"]})

    def _drop_other_timings(self, section: str, names: list[str]) -> None:
        """Drop timings of models outside this run: the times of one table are of one run."""
        for name, record in self.results["records"].items():
            if name not in names and section in record:
                self._drop(record, section, f"is of another run than that of {', '.join(names)}")

    def throughput(self, threads: int, batch_sizes: list[int]) -> None:
        """Time the parts at larger batches and their peak memory; again for other batch sizes or models."""
        names = list(self.pipelines)

        def holds(batches: list[dict]) -> bool:
            sizes = [batch["protocol"]["batch_size"] for batch in batches]
            return sizes == batch_sizes and all(self._timing_holds(batch, names, threads) for batch in batches)

        if all(holds(self.record(name).get("throughput", {"batches": []})["batches"]) for name in names):
            return
        self._drop_other_timings("throughput", names)
        batches = {name: [] for name in names}
        for size in batch_sizes:
            measured = measure_latency(self.pipelines, threads, MIN_RUNS, batch_size=size, memory=True)
            for name, parts in measured["models"].items():
                batches[name].append(parts | {"protocol": measured["protocol"]})
        for name in names:
            self.save(name, "throughput", {"batches": batches[name]})

    def _timing_holds(self, section: dict, names: list[str], threads: int) -> bool:
        """Return whether these models were timed together, on this machine and these libraries, waiting as now."""
        wanted = {"interleaved_with": sorted(names), "versions": library_versions(), "timed": TIMED}
        wanted |= device_description(self.device) | {"threads": threads, "wait_policy": wait_policy(), "neighbours": 0}
        there = {key: section.get("protocol", {}).get(key) for key in wanted}
        return there | {"interleaved_with": sorted(there["interleaved_with"] or [])} == wanted

    def _settings(self, name: str, prompts: str = "class") -> CheckpointSettings:
        options = {"prompts": prompts, "dtype": self.dtype, "compiled": self.compiled}
        return replace(resolve_settings(self.pipelines[name], self.folders[name], **options), model=name)

    def _samples(self, name: str, prompts: str = "class", n: int | None = None) -> FeatureSet:
        """Draw or read a model's samples, as many as its prompts' count without `n`, once a report."""
        n = n or self.counts[prompts][name]
        if (name, prompts, n) not in self._sets:
            settings = self._settings(name, prompts)
            images = kept_samples(self.pipelines[name], settings, n, self.batch_size, self.samples)
            self._sets[name, prompts, n] = FeatureSet(images, self.device)
        return self._sets[name, prompts, n]

    def _stale(
        self, section: str, protocol: dict, prompts: str = "class", figure: str | None = None, n: int | None = None
    ) -> list[str]:
        """List the models whose section lacks a figure, or is missing, or of other samples or another extractor."""

        def holds(name: str) -> bool:
            there = self.record(name).get(section)
            if there is None or figure not in (None, *there):
                return False
            settings = self._settings(name, prompts).protocol(n or self.counts[prompts][name])
            return agrees(there["samples"], settings) and agrees(there["protocol"], protocol)

        return [name for name in self.pipelines if not holds(name)]

    @cached_property
    def real(self) -> ImageSet:
        """Read CIFAR-10's test set with prompts of the classes; errors as in `real_images`."""
        real = real_images(self.data, "test")
        template = next(iter(self.pipelines.values())).config.class_template
        prompts = [caption(CLASS_NAMES[label], template) for label in real.known_labels().tolist()]
        return replace(real, prompts=prompts, protocol=real.protocol | {"template": template})

    @cached_property
    def training(self) -> TrainingFeatures:
        """Extract features of the training images; errors as in `real_images`."""
        return TrainingFeatures(judge_extractor(), self.data, self.device)

    def _scale_images(self, name: str, n: int | None = None) -> FeatureSet:
        """Make the images of a row for scale, of all test images or the first `n`, once a report."""
        real = self.real.first(n or len(self.real))
        if (name, "class", len(real)) not in self._sets:
            vae = next(iter(self.pipelines.values())).vae
            make = {RECONSTRUCTED: partial(reconstructed, vae, device=self.device), DAMAGED: damaged}
            images = make[name](real) if name in make else real
            self._sets[name, "class", len(real)] = FeatureSet(images, self.device)
        return self._sets[name, "class", len(real)]

    @cached_property
    def outside_extractor(self) -> Extractor:
        """Make the extractor from outside; errors as in `efficientnet_extractor`."""
        return efficientnet_extractor()

    def check_data(self, sections: list[str]) -> None:
        """Refuse sections whose rows for scale need missing images, before samples are drawn."""
        judge, clip = judge_extractor().protocol(), bundled_clip(device=self.device).protocol()
        extracted = {"distance": "frechet_distance", "quality": "quality", "nouns": "nouns", "clip": "clip"}
        for section in set(sections) & set(extracted):
            figure = NEWEST if section == "quality" else None
            if self._scale_rows(extracted[section], clip if section == "clip" else judge, figure):
                self.real  # noqa: B018 - reads them
        if "quality" in sections and self._stale("quality", judge, figure=NEWEST):
            self.training  # noqa: B018 - reads the training images
        if "outside" in sections:
            reference = reference_statistics(self.outside_extractor, "train", device=self.device)
            check_count(self.outside_count, len(reference.mu))
            if self._scale_rows("outside", outside_protocol(self.outside_extractor), n=self.outside_count):
                self.real.first(self.outside_count)

    def distance(self, extractors: list[Extractor]) -> None:
        """Measure Frechet distances and class accuracy, a section for each extractor."""
        for extractor in extractors:
            section = "frechet_distance" if extractor.name == JUDGE else OTHER_DISTANCE + extractor.name
            protocol = extractor.protocol()
            names = self._stale(section, protocol)
            for name in names:
                reference = reference_statistics(extractor, "train", self._reference_data(extractor), self.device)
                check_count(self.counts["class"][name], len(reference.mu))
            for name in names:
                self.save(name, section, self._distance(self._samples(name), extractor))
            for name in self._scale_rows(section, protocol):
                self.save(name, section, self._distance(self._scale_images(name), extractor))

    def _distance(self, measured: FeatureSet, extractor: Extractor) -> dict:
        distance = measure_frechet_distance(measured, extractor, data=self._reference_data(extractor))
        if extractor.name == JUDGE:
            return distance
        return distance | {"label": distance_label(extractor, len(measured)), "figure": extractor.result_key}

    def _reference_data(self, extractor: Extractor) -> str | None:
        return self.data if extractor.shipped_as is None else None

    def quality(self) -> None:
        """Measure fidelity, diversity and copies with the judge."""
        judge = judge_extractor()
        names = self._stale("quality", judge.protocol(), figure=NEWEST)
        scale = self._scale_rows("quality", judge.protocol(), NEWEST)
        sets = {name: self._samples(name) for name in names} | {name: self._scale_images(name) for name in scale}
        for name, one in sets.items():
            self.save(name, "quality", measure_quality(one, judge, training=self.training))

    def nouns(self) -> None:
        """Measure noun accuracies on samples of noun prompts."""
        judge = judge_extractor()
        for name in self._stale("nouns", judge.protocol(), "noun"):
            self.save(name, "nouns", measure_accuracy(self._samples(name, "noun"), judge))
        for name in self._scale_rows("nouns", judge.protocol()):
            if len(known_nouns(self.real.noun_ids)[1]):  # data without file names has no nouns
                self.save(name, "nouns", measure_accuracy(self._scale_images(name), judge))

    def clip(self) -> None:
        """Measure CLIP scores with the bundled CLIP."""
        clip = bundled_clip(device=self.device)
        for name in self._stale("clip", clip.protocol()):
            self.save(name, "clip", measure_clip_score(self._samples(name).images, clip, self.data, self.device))
        for name in self._scale_rows("clip", clip.protocol()):
            self.save(name, "clip", measure_clip_score(self._scale_images(name).images, clip, self.data, self.device))

    def outside(self) -> None:
        """Measure distances of equally many images of every row under the extractor from outside and the judge.

        Rows for scale come first, then the models with the fewest network calls: the others take hours on a CPU.
        """
        protocol, n = outside_protocol(self.outside_extractor), self.outside_count
        for name in self._scale_rows("outside", protocol, n=n):
            self.save(name, "outside", measure_outside(self._scale_images(name, n), self.outside_extractor))
        for name in sorted(self._stale("outside", protocol, n=n), key=lambda name: self.pipelines[name].nfe()):
            self.save(name, "outside", measure_outside(self._samples(name, n=n), self.outside_extractor))

    def _scale_rows(self, section: str, protocol: dict, figure: str | None = None, n: int | None = None) -> list[str]:
        """List the rows for scale whose section lacks a figure, or is missing, of another extractor or another n."""

        def holds(there: dict) -> bool:
            return figure in (None, *there) and n in (None, there.get("n")) and agrees(there["protocol"], protocol)

        return [name for name in SCALE if not holds(self.record(name).get(section, {"protocol": {}}))]

    def finish(self) -> Results:
        """Drop other models and other extractors' sections, add the tables' cells, write, return."""
        for name in list(self.results["records"]):
            record, folder = self.results["records"][name], self.checkpoints / name
            if name in SCALE or "peer" in record or not record.get("shipped", True):
                continue
            if not folder.is_dir() or folder_sha256(folder) != record["model_sha256"]:
                print(f"{name}: the checkpoint changed or went, its old record is dropped", file=sys.stderr)
                del self.results["records"][name]
        for record in self.results["records"].values():
            self._drop_stale_sections(record)
        for name, record in check_results(self.results, str(self.file)).records.items():
            self.record(name)["figures"] = figures(record)
        return write_results(self.file, self.results)

    def _drop_stale_sections(self, record: dict) -> None:
        judge = judge_extractor().protocol()
        current: dict[str, dict] = dict.fromkeys(("frechet_distance", "quality", "nouns"), judge)
        current["clip"] = bundled_clip(device=self.device).protocol()
        current["outside"] = {"judge_sha256": judge["extractor_sha256"]}  # the other's packages need not be there
        for section, protocol in current.items():
            if not agrees(record.get(section, {"protocol": protocol})["protocol"], protocol):
                self._drop(record, section, "was measured with another extractor")

    def _drop(self, record: dict, section: str, why: str) -> None:
        print(f"{record.get('model', 'real images')}: {section} {why}, it is dropped", file=sys.stderr)
        del record[section]
