"""Every figure of every checkpoint, measured once, into docs/results.json, README.md and the model cards.

    python -m eval.report --data DIR
    python -m eval.report --models teacher student-1step --n 10000 teacher=2000 --only distance,clip
    python -m eval.report --models student-1step-pruned-unstructured=runs/prune-unstructured/export
    python -m eval.report --compare before.json after.json

A section of a record whose model hash and protocol still hold is not measured again. The tables hold two rows for
scale beside the models: CIFAR-10's test set, and the same images with Gaussian noise. NAME=FOLDER measures a model
that is no folder of the checkpoints; its row stays in the tables, and says so, until it is measured again.
"""

import argparse
import sys
from dataclasses import replace
from pathlib import Path

import torch
from accelerate import PartialState

from eval.clip_score import bundled_clip, clip_score, measure_clip_score
from eval.compare import changes_table, compare_results
from eval.extractors import JUDGE, judge_extractor
from eval.fid import measure_distance
from eval.gaussian import check_count
from eval.images import ImageSet, real_images
from eval.inputs import DEFAULT_SAMPLES, kept_samples
from eval.latency import TIMED, measure_latency, measure_size, speed_ups
from eval.plots import write_plots
from eval.protocol import atomic_path, folder_sha256, library_versions
from eval.quality import TrainingFeatures, measure_quality
from eval.reference import reference_statistics
from eval.results import SCHEMA, read_results, write_results
from eval.sampling import DTYPES, SamplingSettings, load_sampler, resolve_settings
from mobilediff.captions import CLASS_NAMES, caption
from mobilediff.checkpoints import checkpoint_names
from mobilediff.model_card import RESULTS_END, RESULTS_START

SECTIONS = ("size", "latency", "distance", "quality", "clip")
NOISE_STD = 0.1  # of the range 0..1; what "damaged" means
REAL, DAMAGED = "CIFAR-10 test", f"CIFAR-10 test, noise {NOISE_STD}"
BASELINE = "teacher"


def model_folders(models: list[str] | None, checkpoints: str | Path) -> dict[str, Path]:
    """--models as given (names in `checkpoints`, or NAME=FOLDER) to a folder for each name; all names by default.

    Raises:
        ValueError: NAME=FOLDER with the name of a checkpoint, or without a name.
        FileNotFoundError: there is no checkpoint at all.
    """
    names = checkpoint_names(checkpoints)
    folders = {}
    for model in models or names:
        name, separator, folder = model.partition("=")
        if separator and (not name or not folder or name in names):
            raise ValueError(f"--models {model}: accepted are NAME=FOLDER, NAME other than {', '.join(names)}")
        folders[name] = Path(folder) if separator else Path(checkpoints) / name
    if not folders:
        raise FileNotFoundError(f"{checkpoints} holds no checkpoints")
    return folders


def sample_counts(values: list[str], models: list[str]) -> dict[str, int]:
    """--n as given ("10000 teacher=2000") to a count for each model.

    Raises:
        ValueError: not a number, below 2, or a model that is not measured.
    """
    counts = dict.fromkeys(models, 10000)
    for value in sorted(values, key=lambda value: "=" in value):  # the general count first
        name, _, number = value.rpartition("=")
        if not number.isdecimal() or int(number) < 2 or (name and name not in counts):
            raise ValueError(f"--n {value}: accepted are N or MODEL=N, N from 2, MODEL of {', '.join(models)}")
        counts |= {name: int(number)} if name else dict.fromkeys(models, int(number))
    return counts


def damaged(images: ImageSet) -> ImageSet:
    """The images with Gaussian noise, seed 0, cut to 0..255."""
    noise = torch.randn(images.images.shape, generator=torch.Generator().manual_seed(0)) * (255 * NOISE_STD)
    noised = (images.images + noise).round().clamp(0, 255).to(torch.uint8)
    protocol = images.protocol | {"damage": f"Gaussian noise, standard deviation {NOISE_STD}, seed 0"}
    return ImageSet(noised, images.class_labels, images.noun_ids, images.prompts, protocol)


class Report:
    """The records on disk, and what is still to be measured.

    Args:
        file: docs/results.json.
        checkpoints: the folder of checkpoints.
        folders: of the models, by name, as from `model_folders`.
        counts: samples of each model.
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
        data=None,
        samples=DEFAULT_SAMPLES,
        batch_size=100,
        dtype="fp32",
        compiled=False,
    ):
        self.file, self.checkpoints, self.folders, self.counts = Path(file), Path(checkpoints), folders, counts
        self.data, self.samples, self.batch_size, self.dtype = data, samples, batch_size, dtype
        self.compiled = compiled
        self.device = PartialState().device
        self.pipelines = {name: load_sampler(folder, self.device) for name, folder in folders.items()}
        self.results = read_results(self.file) if self.file.exists() else {"schema": SCHEMA, "records": {}}
        for name, folder in folders.items():
            sha256, shipped = folder_sha256(folder), folder.parent == self.checkpoints
            if self.record(name).get("model_sha256") != sha256:
                self.results["records"][name] = {"model": name, "model_sha256": sha256, "shipped": shipped}

    def record(self, name: str) -> dict:
        """The record of a model, of the real or of the damaged images."""
        return self.results["records"].setdefault(name, {})

    def save(self, name: str, section: str, content: dict) -> None:
        """Keep a section; what was measured survives an interruption."""
        self.record(name)[section] = content
        write_results(self.file, self.results)

    def size(self) -> None:
        """Parameters, multiply-accumulates and file size; takes no time, so it is always done."""
        for name, pipeline in self.pipelines.items():
            self.save(name, "size", measure_size(pipeline, self.folders[name]))

    def latency(self, threads: int) -> None:
        """Latency of all models in one run, because they are compared; again when one of them lacks it."""
        wanted = {"interleaved_with": sorted(self.pipelines), "threads": threads, "versions": library_versions()}
        wanted |= {"timed": TIMED}

        def holds(name: str) -> bool:
            protocol = self.record(name).get("latency", {}).get("protocol", {})
            there = {key: protocol.get(key) for key in wanted}
            return there | {"interleaved_with": sorted(there["interleaved_with"] or [])} == wanted

        if all(holds(name) for name in self.pipelines):
            return
        measured = measure_latency(self.pipelines, threads)
        faster = speed_ups(measured["models"], BASELINE) if BASELINE in self.pipelines else {}
        for name, parts in measured["models"].items():
            ratio = {"times_faster": faster[name], "baseline": BASELINE} if faster else {}
            self.save(name, "latency", parts | ratio | {"protocol": measured["protocol"]})

    def _settings(self, name: str) -> SamplingSettings:
        settings = resolve_settings(self.pipelines[name], self.folders[name], dtype=self.dtype, compiled=self.compiled)
        return replace(settings, model=name)

    def _samples(self, name: str) -> ImageSet:
        settings = self._settings(name)
        return kept_samples(self.pipelines[name], settings, self.counts[name], self.batch_size, self.samples)

    def _sampled_section_holds(self, name: str, section: str, protocol: dict) -> bool:
        """Whether a section was measured on the samples that would be drawn now, by the same extractor."""
        there = self.record(name).get(section)
        if there is None:
            return False
        settings = self._settings(name).protocol(self.counts[name])
        samples = {key: there["samples"].get(key) for key in settings}
        return samples == settings and all(there["protocol"].get(key) == value for key, value in protocol.items())

    def _real(self) -> dict[str, ImageSet]:
        real = real_images(self.data, "test")
        template = next(iter(self.pipelines.values())).config.class_template
        prompts = [caption(CLASS_NAMES[label], template) for label in real.class_labels.tolist()]
        real = ImageSet(real.images, real.class_labels, None, prompts, real.protocol | {"template": template})
        return {REAL: real, DAMAGED: damaged(real)}

    def distance(self) -> None:
        """Frechet distance with the bundled extractor and class accuracy."""
        judge = judge_extractor()
        names = [
            name for name in self.pipelines if not self._sampled_section_holds(name, "distance", judge.protocol())
        ]
        for name in names:
            check_count(self.counts[name], len(reference_statistics(judge, "train").mu))
        for name in names:
            self.save(name, "distance", measure_distance(self._samples(name), judge, device=self.device))
        if not all(self._scale_holds(name, "distance", judge.protocol()) for name in (REAL, DAMAGED)):
            for name, images in self._real().items():
                self.save(name, "distance", measure_distance(images, judge, device=self.device))

    def quality(self) -> None:
        """Precision and recall, kernel distance, copies and what else `measure_quality` takes of features."""
        judge = judge_extractor()
        names = [name for name in self.pipelines if not self._sampled_section_holds(name, "quality", judge.protocol())]
        scale = not all(self._scale_holds(name, "quality", judge.protocol()) for name in (REAL, DAMAGED))
        if not names and not scale:
            return
        training = TrainingFeatures(judge, self.data, self.device)
        images = {name: self._samples(name) for name in names} | (self._real() if scale else {})
        for name, one in images.items():
            self.save(name, "quality", measure_quality(one, judge, device=self.device, training=training))

    def clip(self) -> None:
        """CLIP score with the bundled CLIP."""
        clip = bundled_clip(device=self.device)
        names = [name for name in self.pipelines if not self._sampled_section_holds(name, "clip", clip.protocol())]
        for name in names:
            self.save(name, "clip", measure_clip_score(self._samples(name), clip, self.data, self.device))
        if not all(self._scale_holds(name, "clip", clip.protocol()) for name in (REAL, DAMAGED)):
            for name, images in self._real().items():
                score = clip_score(clip, images.images, images.prompts)
                content = {"clip_score": score, "n": len(images), "protocol": clip.protocol()}
                self.save(name, "clip", content | {"samples": images.protocol})

    def _scale_holds(self, name: str, section: str, protocol: dict) -> bool:
        there = self.record(name).get(section, {"protocol": {}})["protocol"]
        return all(there.get(key) == value for key, value in protocol.items())

    def finish(self) -> dict:
        """Drop what other models or extractors than those here gave, write the rows of the tables; the results."""
        for name in list(self.results["records"]):
            record, folder = self.results["records"][name], self.checkpoints / name
            if name in (REAL, DAMAGED) or not record.get("shipped", True):
                continue
            if not folder.is_dir() or folder_sha256(folder) != record["model_sha256"]:
                print(f"{name}: the checkpoint changed or went, its old record is dropped", file=sys.stderr)
                del self.results["records"][name]
        for record in self.results["records"].values():
            self._drop_stale_sections(record)
            record["figures"] = figures(record)
        write_results(self.file, self.results)
        return self.results

    def _drop_stale_sections(self, record: dict) -> None:
        judge = judge_extractor().protocol()
        current = {"distance": judge, "quality": judge, "clip": bundled_clip(device=self.device).protocol()}
        for section, protocol in current.items():
            there = record.get(section, {"protocol": protocol})["protocol"]
            if any(there.get(key) != value for key, value in protocol.items()):
                name = record.get("model", "real images")
                print(f"{name}: {section} was measured with another extractor, it is dropped", file=sys.stderr)
                del record[section]


def figures(record: dict) -> dict[str, dict[str, str]]:
    """A record's figures as they stand in the two tables, "cost" and "quality", by column.

    What was not measured is left out. Where sections were measured on different numbers of samples, `n` has them in
    the order of the columns.
    """
    cost, quality = {}, {}
    if size := record.get("size"):
        cost["params (M)"] = f"{size['params_total'] / 1e6:.2f}"
        cost["of these, network (M)"] = f"{size['params_unet'] / 1e6:.2f}"
        cost["MACs, network call (M)"] = f"{size['macs_network_call'] / 1e6:,.0f}"
        cost["MACs, image (M)"] = f"{size['macs_image'] / 1e6:,.0f}"
        cost["weights (MB)"] = f"{size['weights_bytes'] / 1e6:.1f}"
        cost["NFE"] = str(size["nfe"])
    if latency := record.get("latency"):
        for part, title in (("network_call", "network call (ms)"), ("image", "image (ms)")):
            cost[title] = f"{latency[part]['median_ms']:.1f} / {latency[part]['p90_ms']:.1f}"
        if "times_faster" in latency:
            cost[f"times faster than {latency['baseline']}"] = f"{latency['times_faster']:.1f}"
    sections = [record[name] for name in ("distance", "clip", "quality") if name in record]
    if sections:
        quality["n"] = " / ".join(dict.fromkeys(f"{section['n']:,}" for section in sections))
    if distance := record.get("distance"):
        quality["Fréchet distance"] = with_interval(distance, "frechet_distance_judge", "{:.2f}")
        quality["class accuracy"] = with_interval(distance, "class_accuracy", "{:.1%}")
    if clip := record.get("clip"):
        quality["CLIP score"] = with_interval(clip, "clip_score", "{:.2f}")
    if features := record.get("quality"):
        quality["kernel distance"] = f"{features['kernel_distance_mean']:.3f}"
        for name in ("precision", "recall", "density", "coverage"):
            quality[name] = f"{features[name]:.3f}"
        if "seed_distance" in features:
            quality["seed distance"] = f"{features['seed_distance']:.2f}"
        quality["near copies"] = f"{features['copies']['copy_share']:.1%}"
    return {"cost": cost, "quality": quality}


def with_interval(section: dict, key: str, form: str) -> str:
    """A figure and, where it has one, its confidence interval."""
    text = form.format(section[key])
    if interval := section.get("intervals", {}).get(key):
        text += f" ({form.format(interval['low'])} to {form.format(interval['high'])})"
    return text


def table(records: dict[str, dict]) -> str:
    """The two Markdown tables of records and their legend; the most expensive model first, the rows for scale last."""
    rows = sorted(
        (name for name, record in records.items() if "figures" in record),
        key=lambda name: (
            name in (REAL, DAMAGED),
            name == DAMAGED,
            -records[name].get("size", {}).get("macs_image", 0),
        ),
    )
    tables = [one_table(kind, rows, records) for kind in ("cost", "quality")]
    return "\n".join([*tables, *legend([records[name] for name in rows])])


def one_table(kind: str, rows: list[str], records: dict[str, dict]) -> str:
    """The rows that have figures of this kind, with a line of nothing at the end."""
    rows = [name for name in rows if records[name]["figures"][kind]]
    columns = list(dict.fromkeys(title for name in rows for title in records[name]["figures"][kind]))
    if not columns:
        return ""
    lines = ["| | " + " | ".join(columns) + " |", "|---|" + "---:|" * len(columns)]
    for name in rows:
        note = "" if records[name].get("shipped", True) else " (its weights are not in `checkpoints/`)"
        shown = records[name]["figures"][kind]
        lines.append(f"| {name}{note} | " + " | ".join(shown.get(title, "") for title in columns) + " |")
    return "\n".join([*lines, ""])


def legend(records: list[dict]) -> list[str]:
    """What the columns are, from the protocols in the records."""
    lines = []
    if timed := [record["latency"] for record in records if "latency" in record]:
        protocol = timed[0]["protocol"]
        lines.append(
            f"Latency: batch {protocol['batch_size']}, {protocol['dtype']}, {protocol['threads']} threads of "
            f"{protocol['device_name']}, torch {protocol['versions']['torch']}, median / 90th percentile, of "
            f"{protocol['timed']}, the models taking turns; network "
            "call is one sample without guidance, image is the whole pipeline at its default steps and guidance. The "
            f"machine's matrix product reaches {protocol['matrix_peak_fp32_gflops']:.0f} GFLOP/s in fp32 and "
            f"{protocol['matrix_peak_bf16_gflops']:.0f} in bf16."
        )
    if measured := [record["distance"] for record in records if "distance" in record]:
        protocol = measured[0]["protocol"]
        lines.append(
            f"Fréchet distance: features of {JUDGE} ({protocol['extractor_sha256'][:12]}), not FID, against "
            f"{protocol['reference']} (n = {protocol['reference_n']:,}); lower is better, the floor (test set against "
            f"training set) is {measured[0]['floor']:.2f}. Class accuracy: of the same classifier. In brackets: 95 % "
            "intervals by bootstrap over the samples."
        )
    drawn = {record["distance"]["samples"].get("dtype") for record in records if "distance" in record} - {None}
    if drawn:
        dtypes = " and ".join(sorted(drawn))
        lines.append(f"Samples: the classes' prompts in turn, one seed an image, drawn in {dtypes}.")
    if sets := [record["quality"] for record in records if "quality" in record]:
        first, copies = sets[0], sets[0]["copies"]
        lines.append(
            "Of the same features, at equal numbers of samples and training images: kernel distance "
            f"({first['subsets']} subsets), precision, recall, density and coverage (k = {first['neighbours']}); seed "
            "distance, the mean between samples of one prompt; near copies, the share of samples that are nearer to "
            f"one of {copies['n_training']:,} training images than all but {copies['copy_percentile']:.0f} % of the "
            "test images are."
        )
    if scored := [record["clip"] for record in records if "clip" in record]:
        protocol, template = scored[0]["protocol"], scored[0]["samples"]["template"]
        lines.append(f'CLIP score: {protocol["clip_model"]}, cosine x 100, prompts "{template}".')
    return [line for pair in zip(lines, [""] * len(lines), strict=True) for line in pair][:-1]


def check_markers(file: str | Path) -> None:
    """Refuse a file that a table cannot be put into.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the two markers do not stand in it once each, in order.
    """
    file = Path(file)
    if not file.is_file():
        raise FileNotFoundError(
            f"{file} does not exist: the table goes between {RESULTS_START} and {RESULTS_END} in it"
        )
    text = file.read_text(encoding="utf-8")
    if (
        text.count(RESULTS_START) != 1
        or text.count(RESULTS_END) != 1
        or text.index(RESULTS_START) > text.index(RESULTS_END)
    ):
        raise ValueError(f"{file} needs the line {RESULTS_START} once, and {RESULTS_END} once below it")


def insert_table(file: str | Path, content: str) -> None:
    """Put `content` between the markers; errors as in `check_markers`."""
    check_markers(file)
    text = Path(file).read_text(encoding="utf-8")
    before, rest = text.split(RESULTS_START)
    after = rest.split(RESULTS_END)[1]
    with atomic_path(file) as temporary:
        temporary.write_text(f"{before}{RESULTS_START}\n{content}\n{RESULTS_END}{after}", encoding="utf-8")


def parse_arguments(argv: list[str] | None) -> argparse.Namespace:
    """The command line, checked."""
    parser = argparse.ArgumentParser(prog="python -m eval.report", description=__doc__.splitlines()[0])
    parser.add_argument("--checkpoints", default="checkpoints", help="the folder of checkpoints")
    parser.add_argument("--models", nargs="+", help="names in that folder, or NAME=FOLDER (default: all names)")
    parser.add_argument("--n", nargs="+", default=["10000"], help="samples, N or MODEL=N")
    parser.add_argument("--only", default=",".join(SECTIONS), help=f"of {','.join(SECTIONS)}")
    parser.add_argument("--data", help="CIFAR-10: a folder or a hub name (default: the variable MOBILEDIFF_DATA)")
    parser.add_argument("--threads", type=int, default=2, help="threads of the CPU, for latency")
    parser.add_argument("--batch-size", type=int, default=100, help="samples drawn at once")
    parser.add_argument("--dtype", choices=tuple(DTYPES), default="fp32", help="bf16 samples under autocast")
    parser.add_argument("--compile", action="store_true", help="sample under torch.compile; pays for many steps")
    parser.add_argument("--samples", default=DEFAULT_SAMPLES, help="folder that keeps the samples drawn")
    parser.add_argument("--results", default="docs/results.json", help="where the records are")
    parser.add_argument("--readme", default="README.md", help="the file that gets the whole table")
    parser.add_argument("--no-insert", action="store_true", help="leave README and cards as they are")
    parser.add_argument(
        "--compare", nargs=2, metavar=("BEFORE", "AFTER"), help="only say what moved between two files"
    )
    args = parser.parse_args(argv)
    if args.compare:
        return args
    args.only = args.only.split(",")
    if unknown := set(args.only) - set(SECTIONS):
        raise ValueError(f"--only holds {', '.join(sorted(unknown))}; accepted are {', '.join(SECTIONS)}")
    args.models = model_folders(args.models, args.checkpoints)
    args.n = sample_counts(args.n, list(args.models))
    return args


def main(argv: list[str] | None = None) -> None:
    """The command line."""
    args = parse_arguments(argv)
    if args.compare:
        print(changes_table(compare_results(*map(read_results, args.compare))))
        return
    cards = {name: folder / "README.md" for name, folder in args.models.items()}
    if not args.no_insert:
        for file in (args.readme, *cards.values()):
            check_markers(file)
    report = Report(
        args.results,
        args.checkpoints,
        args.models,
        args.n,
        args.data,
        args.samples,
        args.batch_size,
        args.dtype,
        args.compile,
    )
    for section in SECTIONS:
        if section == "latency" and section in args.only:
            report.latency(args.threads)
        elif section in args.only:
            getattr(report, section)()
    records = report.finish()["records"]
    print(table(records))
    for file in write_plots(records, Path(args.results).parent):
        print(file)
    if not args.no_insert:
        insert_table(args.readme, table(records))
        for name, card in cards.items():
            insert_table(card, table({row: records[row] for row in (name, REAL, DAMAGED) if row in records}))


if __name__ == "__main__":
    try:
        main()
    except (ValueError, FileNotFoundError) as error:
        sys.exit(f"error: {error}")
