# SPDX-License-Identifier: Apache-2.0
"""
A model and the one it would replace, judged on the same rows by MLflow's evaluator.

Each model is loaded once. Explanations (SHAP) are off: they cost minutes. The plots of the model under
judgement cost one to two seconds and can be turned off; the baseline gets none.
"""

from __future__ import annotations

import json
import logging
import math
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

from airflow_ml_provider.exceptions import EmptyEvaluationError, ModelInputError
from airflow_ml_provider.tracking.datasets import dataset_inputs
from airflow_ml_provider.tracking.models import load_pyfunc, trained_columns
from airflow_ml_provider.tracking.paired import Weighted, bootstrap_gains, by_slice, weighted_metrics
from airflow_ml_provider.tracking.registry import resolve_model_uri

if TYPE_CHECKING:
    from airflow_ml_provider.tracking.models import ModelRef
    from airflow_ml_provider.tracking.runs import TaskRun

BASELINE_PREFIX = "baseline_"
# Each is kept in the evaluation, which crosses XCom.
_MOST_SLICES = 100
_METRICS_TAG = "evaluation.metrics"
_QUIET_CLASSIFIER = "airflow_ml_provider_classifier"
_SUPPRESS = "_MLFLOW_EVALUATE_SUPPRESS_CLASSIFICATION_ERRORS"

_log = logging.getLogger(__name__)


def evaluate_model(
    model_uri: ModelRef | Mapping[str, Any] | str,
    data: Any,
    target: str,
    model_type: str = "classifier",
    *,
    run: TaskRun,
    baseline_uri: ModelRef | Mapping[str, Any] | str | None = None,
    dataset: Any | None = None,
    about: str | None = None,
    evaluator_config: Mapping[str, Any] | None = None,
    plots: bool = True,
    effective_at: str | None = None,
    slices: Sequence[str] = (),
    bootstrap_draws: int = 0,
    bootstrap_seed: int = 0,
    tags: Mapping[str, str] | None = None,
) -> dict[str, Any]:
    """
    Measure a model, and a baseline beside it, and record both in the open run.

    The model's metrics stand under MLflow's own names (``roc_auc``, ``accuracy_score``, ``log_loss``, ...),
    the baseline's with the prefix ``baseline_``. What was judged stands in tags, so that judging again in the
    same run (a retry, a backfill) updates it; a metric that an earlier attempt had and this one has not
    becomes NaN. Each model gets the columns it was trained on.

    :param data: A DataFrame with the features and the target.
    :param target: Name of the column with the truth.
    :param model_type: ``classifier`` or ``regressor``.
    :param baseline_uri: The model to compare with; None for no comparison.
    :param dataset: The ArtifactRef that ``data`` was loaded from; MLflow then shows the artifact. Where not
        given, the last input that the run logged counts.
    :param about: What the rows are, for messages: a data interval or an artifact.
    :param evaluator_config: Options of MLflow's evaluator, such as ``pos_label`` and ``average``.
    :param plots: Draw curves and the confusion matrix for the model.
    :param slices: Columns of ``data`` whose values are measured one by one, too.
    :param bootstrap_draws: How often to draw the rows again, to say how sure the gain over the baseline is.
    :param tags: More tags of the run.
    :returns: What crosses XCom, plain JSON. Metrics that the rows leave undefined, such as ``roc_auc`` where
        all rows are of one class, are absent.
    :raises EmptyEvaluationError: if there are no rows.
    :raises ModelInputError: if the target or a column that a model needs is missing.
    """
    described = about or _description(dataset)
    frame = _checked(data, target, described)
    model = resolve_model_uri(run.client, model_uri)
    baseline = None if baseline_uri is None else resolve_model_uri(run.client, baseline_uri)
    said = {
        **(tags or {}),
        "evaluation.model_type": model_type,
        "evaluation.target": target,
        "evaluation.rows": len(frame),
        "evaluation.model": model.model_uri,
        "evaluation.model_id": model.model_id or "",
        "evaluation.baseline": "" if baseline is None else baseline.model_uri,
        "evaluation.baseline_id": "" if baseline is None else baseline.model_id or "",
        "evaluation.data": described,
    }
    run.set_tags(said)
    entity = _entity(run, frame, dataset)
    config = dict(evaluator_config or {})
    loaded: dict[str, Any] = {}
    measured = _judge(
        model, frame, target, model_type, entity=entity, config=config, plots=plots, loaded=loaded, prefix=""
    )
    compared = None
    if baseline is not None:
        compared = _judge(
            baseline,
            frame,
            target,
            model_type,
            entity=entity,
            config=config,
            plots=False,
            loaded=loaded,
            prefix=BASELINE_PREFIX,
        )
    _note_metrics(run, measured, compared)
    doubt = _look_closer(
        [ref for ref in (model, baseline) if ref is not None],
        loaded,
        frame,
        target,
        model_type,
        config=config,
        slices=slices,
        draws=bootstrap_draws,
        seed=bootstrap_seed,
        described=described,
    )
    if doubt["slices"] or doubt["gains"]:
        run.client.log_dict(run.run_id, doubt, "slices_and_gains.json")
    return {
        **doubt,
        "model_uri": model.model_uri,
        "model_id": model.model_id,
        "registered_model_name": model.registered_model_name,
        "version": model.version,
        "baseline_uri": None if baseline is None else baseline.model_uri,
        "baseline_version": None if baseline is None else baseline.version,
        "metrics": measured,
        "baseline_metrics": compared,
        "rows": len(frame),
        "mlflow_run_id": run.run_id,
        "experiment_id": run.experiment_id,
        "data": _data_of(dataset),
        "effective_at": effective_at,
    }


def _note_metrics(run: TaskRun, measured: Mapping[str, float], compared: Mapping[str, float] | None) -> None:
    """Let go of the metrics of an earlier attempt that this one has not; MLflow deletes none."""
    names = [*measured, *(f"{BASELINE_PREFIX}{name}" for name in compared or ())]
    if run.resumed:
        before = json.loads(run.client.get_run(run.run_id).data.tags.get(_METRICS_TAG) or "[]")
        run.log_metrics(dict.fromkeys(set(before) - set(names), math.nan))
    run.set_tags({_METRICS_TAG: json.dumps(sorted(names))})


def _look_closer(
    refs: list[ModelRef],
    loaded: Mapping[str, Any],
    frame: Any,
    target: str,
    model_type: str,
    *,
    config: Mapping[str, Any],
    slices: Sequence[str],
    draws: int,
    seed: int,
    described: str,
) -> dict[str, Any]:
    """Measure slices, and how sure the gain of the first model over the second is."""
    found: dict[str, Any] = {"slices": {}, "gains": {}}
    if not slices and not (draws and len(refs) > 1):
        return found
    missing = [column for column in slices if column not in frame.columns]
    if missing:
        columns = ", ".join(map(str, frame.columns))
        raise ModelInputError(f"{described} has no columns {missing!r} to slice by; it has: {columns}")
    measures = [
        _weighted(ref, loaded[ref.model_id or ref.model_uri], frame, target, model_type, config)
        for ref in refs
    ]
    for column in slices:
        values = frame[column].nunique(dropna=False)
        if values > _MOST_SLICES:
            raise ModelInputError(
                f"{described} has {values} values in the column {column!r}; slices are for columns of at "
                f"most {_MOST_SLICES}, so make one that groups them"
            )
        parts = [by_slice(measure, frame[column]) for measure in measures]
        found["slices"][column] = {
            value: {**part, "baseline_metrics": parts[1][value]["metrics"] if len(parts) > 1 else None}
            for value, part in parts[0].items()
        }
    if draws and len(measures) > 1:
        found["gains"] = bootstrap_gains(measures[0], measures[1], len(frame), draws=draws, seed=seed)
    return found


def _weighted(
    ref: ModelRef, model: Any, frame: Any, target: str, model_type: str, config: Mapping[str, Any]
) -> dict[str, Weighted]:
    import numpy as np
    from mlflow.models.evaluation.default_evaluator import _extract_predict_fn

    rows, truth = frame[_inputs(model, frame, target, ref)], frame[target].to_numpy()
    raw = _raw(model)
    classes = list(getattr(raw, "classes_", ()))
    if model_type == "classifier" and len(classes) == 2 and hasattr(raw, "predict_proba"):
        positive = config.get("pos_label", classes[1])
        column = classes.index(positive)
        predicted = np.asarray(raw.predict(rows))
        return weighted_metrics(
            model_type,
            (truth == positive).astype("int64"),
            (predicted == positive).astype("int64"),
            raw.predict_proba(rows)[:, column],
        )
    # As the evaluator asks it: without a signature, and a booster of XGBoost takes no DataFrame itself.
    predict = raw.predict if classes else _extract_predict_fn(model)
    predicted = np.asarray(predict(rows)).reshape(-1)
    return weighted_metrics(model_type, truth, predicted)


def _checked(data: Any, target: str, described: str) -> Any:
    import pandas as pd

    if not isinstance(data, pd.DataFrame):
        raise TypeError(f"a model is evaluated on a DataFrame, got {type(data).__name__}")
    if target not in data.columns:
        columns = ", ".join(map(str, data.columns))
        raise ModelInputError(f"{described} has no target column {target!r}; its columns are: {columns}")
    if len(data) == 0:
        raise EmptyEvaluationError(
            f"{described} has no rows to judge a model on; check the data interval, or skip the evaluation"
        )
    unknown = int(data[target].isna().sum())
    if unknown:
        raise ModelInputError(
            f"{described} has {unknown} of {len(data)} rows without a value in the target column {target!r}; "
            f"drop them, as there is no truth to compare with"
        )
    if str(data[target].dtype) == "category":
        data = data.assign(**{target: data[target].astype(data[target].cat.categories.dtype)})
    return data


def _judge(
    ref: ModelRef,
    frame: Any,
    target: str,
    model_type: str,
    *,
    entity: Any,
    config: dict[str, Any],
    plots: bool,
    loaded: dict[str, Any],
    prefix: str,
) -> dict[str, float]:
    import mlflow

    same = ref.model_id or ref.model_uri
    if same not in loaded:
        loaded[same] = _in_one_dimension(load_pyfunc(ref))
    model = loaded[same]
    rows = frame[[*_inputs(model, frame, target, ref), target]]
    options: dict[str, Any] = {"log_model_explainability": False, **config}
    if prefix:
        options["metric_prefix"] = prefix
    lacking = False
    evaluator = "default"
    if model_type == "classifier":
        lacking = _prepare_labels(model, rows[target], options, ref)
        evaluator = "default" if plots and not lacking else _quiet_classifier()
    elif model_type == "regressor" and str(rows[target].dtype) == "bool":
        raise ModelInputError(f"the target column {target!r} of a regressor must be numbers, it is boolean")
    with _calm(lacking):
        result = mlflow.models.evaluate(
            model,
            _dataset(rows, target, entity),
            model_type=model_type,
            evaluators=[evaluator],
            evaluator_config={evaluator: options},
        )
    return {
        name.removeprefix(prefix): float(value)
        for name, value in sorted(result.metrics.items())
        if isinstance(value, int | float) or hasattr(value, "item")
        if math.isfinite(float(value))
    }


def _inputs(model: Any, frame: Any, target: str, ref: ModelRef) -> list[str]:
    """The columns that a model was trained on, in its order; all but the target where it does not say."""
    raw = _raw(model)
    names = trained_columns(raw, frame.columns)
    if names is None:
        schema = model.metadata.get_input_schema() if model.metadata is not None else None
        names = schema.input_names() if schema is not None and schema.has_input_names() else None
    if names is None:
        return [name for name in frame.columns if name != target]
    wanted = [name for name in names if name != target]
    missing = [str(name) for name in wanted if name not in frame.columns]
    if missing:
        raise ModelInputError(
            f"{ref.model_uri} was trained on columns that the evaluation data lacks: {', '.join(missing)}; "
            f"it has: {', '.join(map(str, frame.columns))}"
        )
    return wanted


def _in_one_dimension(model: Any) -> Any:
    """Let a model predict a value for each row, also if it was fitted on a table of one target."""
    from mlflow.models.evaluation.default_evaluator import _extract_raw_model

    _, raw = _extract_raw_model(model)
    asked = model if raw is None else raw  # as the evaluator asks it
    plain = asked.predict

    def predict(*args: Any, **kwargs: Any) -> Any:
        found = plain(*args, **kwargs)
        shape = tuple(getattr(found, "shape", ()))
        if len(shape) != 2 or shape[-1] != 1:
            return found
        return (found.to_numpy() if hasattr(found, "to_numpy") else found).reshape(-1)

    asked.predict = predict
    return model


def _raw(model: Any) -> Any:
    with suppress(Exception):
        return model.get_raw_model()
    return None


def _prepare_labels(model: Any, truth: Any, options: dict[str, Any], ref: ModelRef) -> bool:
    """Tell the evaluator all classes, and say whether there are some that no row is of."""
    present = list(truth.unique())
    single = len(present) < 2
    if "label_list" in options:
        return single or any(label not in present for label in options["label_list"])
    raw = _raw(model)
    classes = getattr(raw, "classes_", None)
    if classes is None:
        if single:
            raise ModelInputError(
                f"all {len(truth)} rows are of one class, {present[0]!r}, and {ref.model_uri} does not say "
                f"which others there are; pass evaluator_config={{'label_list': [...]}}"
            )
        return single
    known = list(classes)
    strange = [label for label in present if label not in known]
    if strange and hasattr(raw, "predict_proba"):
        raise ModelInputError(
            f"the target holds the labels {strange!r}, which {ref.model_uri} was not trained on; "
            f"it knows {[getattr(label, 'item', lambda label=label: label)() for label in known]!r}"
        )
    options["label_list"] = [*known, *strange]
    return single or any(label not in present for label in known)


def _quiet_classifier() -> str:
    """Register MLflow's evaluator of classifiers without its plots, once a process."""
    from mlflow.models.evaluation.evaluator_registry import _model_evaluation_registry as registry
    from mlflow.models.evaluation.evaluators import classifier

    if not registry.is_registered(_QUIET_CLASSIFIER):

        class QuietClassifierEvaluator(classifier.ClassifierEvaluator):  # type: ignore[misc]
            """The metrics of MLflow's ClassifierEvaluator and none of its files."""

            name = _QUIET_CLASSIFIER

            def _compute_builtin_metrics(self, model: Any) -> None:
                if len(self.label_list) == 2 or set(self.label_list) <= set(self.y_true):
                    super()._compute_builtin_metrics(model)
                    return
                # MLflow gives up on all metrics where roc_auc is undefined: no row is of some class.
                self._evaluate_sklearn_model_score_if_scorable(model, self.y_true, self.sample_weights)
                metrics = classifier._get_common_classifier_metrics(
                    y_true=self.y_true,
                    y_pred=self.y_pred,
                    y_proba=self.y_probs,
                    labels=self.label_list,
                    average=self.evaluator_config.get("average", "weighted"),
                    pos_label=None,
                    sample_weights=self.sample_weights,
                )
                self.metrics_values.update(classifier._get_aggregate_metrics_values(metrics))

            def _log_binary_classifier_artifacts(self) -> None:
                return

            def _log_multiclass_classifier_artifacts(self) -> None:
                return

            def _log_confusion_matrix(self) -> None:
                return

        registry.register(_QUIET_CLASSIFIER, QuietClassifierEvaluator)
    return _QUIET_CLASSIFIER


def _entity(run: TaskRun, frame: Any, dataset: Any | None) -> Any:
    """How MLflow names the data: as the artifact it came from or the run logged, else by its content."""
    if dataset is None and run.inputs:
        return run.inputs[-1].dataset
    found = dataset_inputs([frame if dataset is None else dataset], context="evaluation")[0]
    run.log_datasets([found])
    return found.dataset


def _dataset(rows: Any, target: str, entity: Any) -> Any:
    """
    The rows, known to MLflow under a name that was decided before.

    MLflow asks its own dataset for its schema, which costs a second on a large frame, and would show one
    dataset more for the baseline's columns.
    """
    import mlflow.data
    from mlflow.data.pandas_dataset import PandasDataset

    class KnownDataset(PandasDataset):  # type: ignore[misc]
        def _to_mlflow_entity(self) -> Any:
            return entity

    plain = mlflow.data.from_pandas(rows, targets=target, name=entity.name, digest=entity.digest)
    return KnownDataset(rows, plain.source, targets=target, name=entity.name, digest=entity.digest)


@contextmanager
def _calm(lacks_classes: bool) -> Iterator[None]:
    """Keep the evaluator from guessing aloud and, where the rows lack a class, from giving up."""
    if "matplotlib.pyplot" not in sys.modules:
        with suppress(ImportError):
            import matplotlib

            matplotlib.use("Agg")  # a worker has no screen
    loggers = [logging.getLogger(name) for name in ("mlflow.models.evaluation", "mlflow.tracking.fluent")]
    levels = [logger.level for logger in loggers]
    before = os.environ.get(_SUPPRESS)
    import warnings

    for logger in loggers:
        logger.setLevel(logging.ERROR)
    if lacks_classes:
        os.environ[_SUPPRESS] = "true"
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
        if lacks_classes:
            if before is None:
                del os.environ[_SUPPRESS]
            else:
                os.environ[_SUPPRESS] = before


def _description(dataset: Any | None) -> str:
    if dataset is None:
        return "the evaluation data"
    return f"the artifact {dataset.name!r} (version {dataset.version_id})"


def _data_of(dataset: Any | None) -> dict[str, str] | None:
    if dataset is None:
        return None
    return {"name": dataset.name, "version_id": dataset.version_id, "digest": dataset.digest}
