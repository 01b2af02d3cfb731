"""Export to every_eval_ever: what the schema demands, nothing of this machine, stable files."""

from __future__ import annotations

import hashlib
import json
import re
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from eval.models.names import ZOO_FOLDER
from eval.results.every_eval_ever import EVERY_EVAL_EVER, to_every_eval_ever, write_every_eval_ever
from eval.results.schema import Result
from eval.results.store import read_result
from tests.factories import Cli, make_result, refusal, split_hash

COMMITTED = sorted(ZOO_FOLDER.glob("*/results/*.json"))
HUB_TASK = "hub:org/photos?revision=abc&image=img&label=y&train=train&test=validation"


@pytest.fixture(scope="module")
def committed() -> list[Result]:
    return [read_result(path) for path in COMMITTED]


def with_parts(result: Result, **parts: dict[str, Any]) -> Result:
    """A result with fields of its parts changed: ``task={"source": ...}``."""
    raw = result.model_dump(mode="json")
    for part, changes in parts.items():
        raw[part] |= changes
    return Result.model_validate(raw)


def hub_result() -> Result:
    return with_parts(
        make_result("hf-hub:google/vit.base", "hub-photos-12345678"),
        model={"spec": "hf-hub:google/vit.base@" + "c" * 40, "revision": "c" * 40, "img_size": 64},
        task={"source": HUB_TASK, "revision": "abc"},
        environment={"versions": {"transferzoo": "0.1.0", "timm": "1.0.31"}},
    )


def is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def check_details(part: dict[str, Any], key: str = "additional_details") -> None:
    found = part.get(key, {})
    assert isinstance(found, dict)
    assert all(isinstance(k, str) and isinstance(v, str) for k, v in found.items()), found


def check_texts(part: dict[str, Any], *names: str) -> None:
    for name in names:
        assert isinstance(part[name], str), name
        assert part[name], name


def check_source(source: dict[str, Any]) -> None:
    check_texts(source, "dataset_name")
    assert source["source_type"] in ("hf_dataset", "other")  # of the schema's three we use two
    known = {"dataset_name", "source_type", "additional_details"}
    if source["source_type"] == "hf_dataset":
        check_texts(source, "hf_repo")
        assert type(source["samples_number"]) is int
        known |= {"hf_repo", "samples_number"}
    assert set(source) <= known
    check_details(source)


def check_entry(entry: dict[str, Any]) -> None:
    assert set(entry) == {
        "evaluation_result_id", "evaluation_name", "source_data", "metric_config", "score_details",
    }  # fmt: skip
    check_texts(entry, "evaluation_result_id", "evaluation_name")
    check_source(entry["source_data"])
    metric = entry["metric_config"]
    assert isinstance(metric["lower_is_better"], bool)
    assert metric["score_type"] == "continuous"  # which makes both bounds compulsory
    assert is_number(metric["min_score"])
    assert is_number(metric["max_score"])
    check_texts(metric, "evaluation_description", "metric_id", "metric_name", "metric_unit")
    check_details(metric)
    assert set(entry["score_details"]) == {"score", "uncertainty"}
    assert is_number(entry["score_details"]["score"])
    uncertainty = entry["score_details"]["uncertainty"]
    assert set(uncertainty) - {"num_bootstrap_samples"} == {"confidence_interval", "num_samples"}
    assert type(uncertainty["num_samples"]) is int
    interval = uncertainty["confidence_interval"]
    assert set(interval) <= {"lower", "upper", "confidence_level", "method"}
    assert is_number(interval["lower"])
    assert is_number(interval["upper"])
    assert 0 <= interval["confidence_level"] <= 1
    assert isinstance(interval.get("method", ""), str)


def check_document(document: dict[str, Any]) -> None:
    """The demands of version 0.3.0 on the fields we write."""
    required = {
        "schema_version",
        "evaluation_id",
        "retrieved_timestamp",
        "source_metadata",
        "model_info",
        "eval_library",
        "evaluation_results",
    }
    assert required <= set(document)
    assert set(document) <= required | {"evaluation_timestamp"}  # further fields are refused
    check_texts(document, "evaluation_id", "evaluation_timestamp")
    assert document["schema_version"] == EVERY_EVAL_EVER == "0.3.0"
    assert re.fullmatch(r"\d+\.\d+", document["retrieved_timestamp"])
    source = document["source_metadata"]
    check_texts(source, "source_organization_name", "source_name")
    assert source["source_type"] in ("documentation", "evaluation_run")
    assert source["evaluator_relationship"] in (
        "first_party",
        "third_party",
        "collaborative",
        "other",
    )
    check_texts(document["eval_library"], "name", "version")
    check_details(document["eval_library"])
    model = document["model_info"]
    check_texts(model, "name", "id", "developer")
    assert re.fullmatch(r"[^/]+/[^/]+", model["id"])
    check_texts(model["inference_engine"], "name", "version")
    check_details(model)
    assert model["additional_details"]["deployment_type"] == "self_deployed"
    assert model["additional_details"]["model_availability"] in ("open_weights", "unknown")
    assert isinstance(document["evaluation_results"], list)
    for entry in document["evaluation_results"]:
        check_entry(entry)


def strings(value: object) -> list[str]:
    """All strings of a document, keys too."""
    if isinstance(value, dict):
        return [s for k, v in value.items() for s in (k, *strings(v))]
    if isinstance(value, list):
        return [s for v in value for s in strings(v)]
    return [value] if isinstance(value, str) else []


def check_no_path(document: dict[str, Any]) -> None:
    for text in strings(document):
        assert not re.search(r"(^|[\s:\"'=])(~?/\w|[A-Za-z]:\\)", text), text
        assert "/work/" not in text
        assert "/home/" not in text


def files_of(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if not p.is_dir()}


def test_committed_results_fit_the_schema(committed: list[Result]) -> None:
    assert len(committed) >= 144
    documents = [to_every_eval_ever(result) for result in committed]
    for result, document in zip(committed, documents, strict=True):
        check_document(json.loads(json.dumps(document, allow_nan=False)))
        check_no_path(document)
        assert len(document["evaluation_results"]) == len(result.scores)
        assert document["model_info"]["developer"] == "transferzoo"
    ids = [d["evaluation_id"] for d in documents]
    assert len(set(ids)) == len(ids)


def test_numbers_are_carried_exactly(committed: list[Result]) -> None:
    for result in committed:
        method = "normal" if result.protocol.name == "fewshot" else "bootstrap"
        entries = to_every_eval_ever(result)["evaluation_results"]
        for score, entry in zip(result.scores, entries, strict=True):
            name = f"{result.task.name} / {result.protocol.name} / {score.name}"
            assert entry["evaluation_name"] == name
            draws = {} if method == "normal" else {"num_bootstrap_samples": 1000}
            assert entry["score_details"] == {
                "score": score.value,
                "uncertainty": {
                    "confidence_interval": {
                        "lower": score.ci_low,
                        "upper": score.ci_high,
                        "confidence_level": 0.95,
                        "method": method,
                    },
                    "num_samples": score.n,
                    **draws,
                },
            }


def test_only_errors_and_losses_are_better_when_lower(committed: list[Result]) -> None:
    lower = {
        entry["evaluation_name"].split(" / ")[-1]: entry["metric_config"]["lower_is_better"]
        for result in committed
        for entry in to_every_eval_ever(result)["evaluation_results"]
    }
    assert {name for name, better in lower.items() if better} == {"ece", "nll"}
    assert {"top1", "mean_per_class", "top1_1shot", "top1_5shot_cosine"} <= set(lower)


def test_a_detector_s_result() -> None:
    """Its samples are resamples, its scores no means over images."""
    from tests.space.detectors import detector

    document = to_every_eval_ever(detector("random:resnet18"))
    check_document(document)
    entries = {e["evaluation_name"].split(" / ")[-1]: e for e in document["evaluation_results"]}
    assert {"ap", "ap50", "ap75"} <= set(entries)
    uncertainty = entries["ap"]["score_details"]["uncertainty"]
    assert uncertainty["confidence_interval"]["method"] == "bootstrap"


def test_log_likelihood_may_exceed_one_and_is_better_when_lower() -> None:
    score = {"name": "nll", "value": 2.5, "ci_low": 2.0, "ci_high": 3.0, "n": 40}
    (entry,) = to_every_eval_ever(make_result(scores=[score]))["evaluation_results"]
    assert entry["metric_config"]["lower_is_better"]
    assert entry["metric_config"]["max_score"] > 27.6
    assert entry["metric_config"]["metric_unit"] == "nats"


def test_accuracy_is_named_as_everywhere_and_the_others_as_ours(committed: list[Result]) -> None:
    ids = {
        entry["metric_config"]["metric_name"]: entry["metric_config"]["metric_id"]
        for result in committed
        for entry in to_every_eval_ever(result)["evaluation_results"]
    }
    assert ids["top1"] == ids["top1_5shot"] == ids["top1_1shot_cosine"] == "accuracy"
    assert ids["ece"] == "transferzoo.ece"
    assert ids["mean_per_class"] == "transferzoo.mean_per_class"


def test_hand_made_linear_result() -> None:
    result = make_result(config={"validation": 0.2}, seed=3, limit=10)
    document = to_every_eval_ever(result)
    check_document(document)
    assert document["evaluation_id"] == (
        "transferzoo_dtd_linear_seed=3-limit=10/random/resnet18/1767225600.0"
    )
    assert document["eval_library"]["version"] == "unknown"  # an empty environment.versions
    (entry,) = document["evaluation_results"]
    assert entry["metric_config"]["additional_details"] == {
        "validation": "0.2",
        "protocol": "linear",
        "seed": "3",
    }
    assert entry["source_data"] == {
        "dataset_name": "dtd",
        "source_type": "other",
        "additional_details": {
            "split_hash": split_hash("dtd"),
            "duplicates": "0",
            "subset": "false",
            "limit": "10",
            "count_classes": "2",
            "count_train": "60",
            "count_test": "40",
        },
    }


def test_hub_model_on_a_hub_task() -> None:
    document = to_every_eval_ever(hub_result())
    check_document(document)
    check_no_path(document)
    model = document["model_info"]
    assert (model["id"], model["developer"]) == ("google/vit.base", "google")
    assert model["additional_details"] == {
        "deployment_type": "self_deployed",
        "model_availability": "open_weights",
        "revision": "c" * 40,
        "weights_sha256": "ab" * 32,
        "params": "10",
        "input": "{}",
        "img_size": "64",
    }
    assert (document["eval_library"]["name"], document["eval_library"]["version"]) == (
        "transferzoo",
        "0.1.0",
    )
    assert document["eval_library"]["additional_details"]["version_timm"] == "1.0.31"
    source = document["evaluation_results"][0]["source_data"]
    assert (source["source_type"], source["hf_repo"]) == ("hf_dataset", "org/photos")
    assert source["samples_number"] == 100
    assert source["additional_details"]["hub_test"] == "validation"
    assert source["additional_details"]["revision"] == "abc"


@pytest.mark.parametrize(
    ("spec", "shown", "found"),
    [
        ("zoo:resnet18.ce", "zoo:resnet18.ce", "transferzoo/resnet18.ce"),
        ("random:resnet18@7", "random:resnet18@7", "random/resnet18@7"),
        ("hf-hub:timm/vit.a1@" + "a" * 40, "vit.a1", "timm/vit.a1"),
        ("vit.a1", "vit.a1", "timm/vit.a1"),
        ("local-dir:/home/me/my run", "local-dir:my run", "local/my-run"),
        ("local-dir:/home/me/run", "local-dir:/home/me/run", "local/run"),
        ("other:x", "other:x", "unknown/x"),
        ("hf-hub:../../x", "hf-hub:../../x", "unnamed/x"),
    ],
)
def test_model_ids(spec: str, shown: str, found: str) -> None:
    result = with_parts(make_result(), model={"spec": spec, "id": shown})
    document = to_every_eval_ever(result)
    assert document["model_info"]["id"] == found
    check_document(document)
    check_no_path(document)


@pytest.mark.parametrize(
    "source",
    [
        "/home/me/data",
        "imagefolder:/home/me/data",
        "parquet:/home/me/data?image=i",
        "hub:/home/me/data",
    ],
)
def test_local_sources_are_left_out(source: str) -> None:
    document = to_every_eval_ever(with_parts(make_result(), task={"source": source}))
    check_document(document)
    check_no_path(document)
    assert document["evaluation_results"][0]["source_data"]["source_type"] == "other"


def test_unknown_units_claim_no_method() -> None:
    document = to_every_eval_ever(make_result(samples={}))
    check_document(document)
    details = document["evaluation_results"][0]["score_details"]
    assert "method" not in details["uncertainty"]["confidence_interval"]


@pytest.fixture
def tokyo(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """This process nine hours east of UTC."""
    monkeypatch.setenv("TZ", "JST-9")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


@pytest.mark.usefixtures("tokyo")
def test_time_comes_from_the_result() -> None:
    times = [
        to_every_eval_ever(make_result(created=text))["retrieved_timestamp"]
        for text in ("2026-01-01T00:00:00", "2026-01-01T00:00:00Z", "2026-01-01T09:00:00+09:00")
    ]
    assert times == ["1767225600.0"] * 3
    assert "'yesterday' is not an ISO time" in refusal(
        to_every_eval_ever, make_result(created="yesterday")
    )


def test_two_exports_give_the_same_tree(tmp_path: Path, committed: list[Result]) -> None:
    results = [*committed[:24], make_result(), hub_result()]
    paths = write_every_eval_ever(results, tmp_path / "a")
    assert len(set(paths)) == len(results)
    for path, result in zip(paths, results, strict=True):
        assert json.loads(path.read_bytes()) == to_every_eval_ever(result)
    again = [Result.model_validate_json(r.model_dump_json()) for r in reversed(results)]
    write_every_eval_ever(again, tmp_path / "b")
    tree = files_of(tmp_path / "a")
    assert files_of(tmp_path / "b") == tree
    write_every_eval_ever(results, tmp_path / "a")
    assert files_of(tmp_path / "a") == tree


def test_layout_and_distinct_results(tmp_path: Path) -> None:
    one, other = make_result(correct=np.ones(40, bool)), make_result(revision="seed1")
    paths = write_every_eval_ever([one, other], tmp_path)
    assert len(files_of(tmp_path)) == 2
    for path in paths:
        assert path.parent == tmp_path / "data" / "transferzoo_dtd_linear" / "random" / "resnet18"
        # of random form: the validator of the datastore takes no other names
        assert re.fullmatch(
            r"[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}\.json", path.name
        )


@pytest.mark.parametrize("name", ["a/b", "../../x", "/etc/x", "..", "a\\b\0c", "\n", "é:?*"])
def test_names_stay_inside_the_folder(tmp_path: Path, name: str) -> None:
    out = tmp_path / "out"
    results = [
        make_result(task=name),
        make_result(model=f"hf-hub:{name}"),
        make_result(model=f"zoo:{name}"),
        make_result(model=name),
        make_result(config={"validation": name}),
    ]
    for path in write_every_eval_ever(results, out):
        assert path.resolve().is_relative_to(out.resolve() / "data")
        assert len(path.relative_to(out).parts) == 5
        check_document(json.loads(path.read_bytes()))
    assert [p.name for p in tmp_path.iterdir()] == ["out"]
    assert len(files_of(tmp_path)) == len(results)


# ---- samples


def lines_of(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def samples_file(path: Path) -> Path:
    return path.with_name(f"{path.stem}_samples.jsonl")


def test_every_answer_is_a_line(tmp_path: Path, committed: list[Result]) -> None:
    results = [
        next(r for r in committed if r.protocol.name == name) for name in ("linear", "fewshot")
    ]
    for path, result in zip(
        write_every_eval_ever(results, tmp_path, samples=True), results, strict=True
    ):
        document, lines = json.loads(path.read_bytes()), lines_of(samples_file(path))
        assert len(lines) == sum(s.n for s in result.samples.values())
        for name, samples in result.samples.items():
            mine = [x for x in lines if x["evaluation_result_id"] == name]
            assert [x["evaluation"]["score"] for x in mine] == samples.values().tolist()
            assert len({x["sample_id"] for x in mine}) == samples.n
            score = result.score(name)
            assert score is not None
            mean = np.mean([x["evaluation"]["score"] for x in mine])
            assert mean == pytest.approx(score.value, abs=1e-6)
        said = document["detailed_evaluation_results"]
        assert tmp_path / said["file_path"] == samples_file(path)
        content = samples_file(path).read_bytes()
        assert said["checksum"] == hashlib.sha256(content).hexdigest()
        assert said["total_rows"] == len(lines)
        assert {x["evaluation_id"] for x in lines} == {document["evaluation_id"]}
        assert {x["model_id"] for x in lines} == {document["model_info"]["id"]}


def test_two_models_answer_the_same_items(tmp_path: Path) -> None:
    results = [make_result(), make_result("random:resnet50"), make_result(split="other")]
    ids = [
        [x["sample_id"] for x in lines_of(samples_file(path))]
        for path in write_every_eval_ever(results, tmp_path, samples=True)
    ]
    assert ids[0] == ids[1]
    assert not set(ids[0]) & set(ids[2])


def test_resamples_are_no_items(tmp_path: Path) -> None:
    from tests.space.detectors import detector

    (path,) = write_every_eval_ever([detector("random:resnet18")], tmp_path, samples=True)
    assert not samples_file(path).exists()
    assert "detailed_evaluation_results" not in json.loads(path.read_bytes())


def test_an_export_with_samples_takes_the_place_of_one_without(tmp_path: Path) -> None:
    (bare,) = write_every_eval_ever([make_result()], tmp_path)
    assert not samples_file(bare).exists()
    (full,) = write_every_eval_ever([make_result()], tmp_path, samples=True)
    assert bare == full
    assert len(files_of(tmp_path)) == 2


# ---- the schema itself


SCHEMAS = Path(__file__).parent / "every_eval_ever"  # SOURCE.md there says where they are from


def faults(name: str, values: Sequence[dict[str, Any]]) -> list[str]:
    """What the official JSON schema of that name finds wrong, by an independent validator."""
    jsonschema = pytest.importorskip("jsonschema")
    schema = json.loads((SCHEMAS / name).read_bytes())
    assert schema["version"] == EVERY_EVAL_EVER
    jsonschema.Draft7Validator.check_schema(schema)
    validator = jsonschema.Draft7Validator(schema)
    return [
        f"{error.json_path}: {error.message}" for v in values for error in validator.iter_errors(v)
    ]


def test_documents_pass_the_official_schema(tmp_path: Path, committed: list[Result]) -> None:
    from tests.space.detectors import detector

    results = [*committed, make_result(), hub_result(), detector("random:resnet18")]
    paths = write_every_eval_ever(results, tmp_path / "bare")
    answered = next(result for result in committed if result.protocol.name == "fewshot")
    some = [answered, make_result(), make_result(protocol="fewshot")]
    paths += write_every_eval_ever(some, tmp_path / "full", samples=True)
    assert faults("eval.schema.json", [json.loads(p.read_bytes()) for p in paths]) == []
    lines = [line for p in paths[-3:] for line in lines_of(samples_file(p))]
    assert len(lines) > 80
    assert faults("instance_level_eval.schema.json", lines) == []


def test_the_official_schema_refuses_what_the_old_version_wrote() -> None:
    document = to_every_eval_ever(make_result())
    del document["model_info"]["additional_details"]["deployment_type"]
    assert "deployment_type" in " ".join(faults("eval.schema.json", [document]))
    document = to_every_eval_ever(make_result()) | {"invented": 1}
    assert "invented" in " ".join(faults("eval.schema.json", [document]))


def test_unwritable_place_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    assert "cannot write" in refusal(write_every_eval_ever, [make_result()], tmp_path / "file")


def test_the_command_exports_a_shelf(cli: Cli, tmp_path: Path) -> None:
    done = cli("export", tmp_path / "out", "--results", ZOO_FOLDER)
    assert done.code == 0
    shipped = len(list(ZOO_FOLDER.glob("*/results/*.json")))
    assert shipped >= 144
    assert f"{shipped} files of every_eval_ever 0.3.0" in done.out
    assert len(list((tmp_path / "out").rglob("*.json"))) == shipped
    none = cli("export", tmp_path / "out2", "--results", tmp_path / "nothing")
    assert none.code == 2
    assert "does not exist" in none.err
