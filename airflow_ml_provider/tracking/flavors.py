# SPDX-License-Identifier: Apache-2.0
"""
Trained objects to models in MLflow.

The library is told by the names of the object's classes. What a model needs is told explicitly, the
installed versions of the packages it is made of: MLflow's own inference loads the model in a new process
and takes seconds.

scikit-learn models are written in the skops format, which runs no code when read, as long as all they are
made of comes from scikit-learn, NumPy, SciPy, pandas, XGBoost or LightGBM. A model with classes or
functions of your own is written with cloudpickle, which runs code when read; the LoggedModel's tag
``airflow.serialization`` says which. Both can be read in a process that has the model's modules;
cloudpickle also carries what was defined in the DAG file itself.
"""

from __future__ import annotations

import importlib.metadata
import logging
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from airflow_ml_provider.artifacts.libraries import import_skops
from airflow_ml_provider.exceptions import UnsupportedTypeError
from airflow_ml_provider.tracking.models import ModelRef, trained_columns
from airflow_ml_provider.tracking.registry import EFFECTIVE_AT_TAG
from airflow_ml_provider.tracking.runs import ATTEMPT_TAG, TaskRun, current_run

FLAVOR_TAG = "airflow.flavor"
SERIALIZATION_TAG = "airflow.serialization"
#: Flavors by the package of one of the object's classes, the most special first.
FLAVORS = {"xgboost": "xgboost", "lightgbm": "lightgbm", "sklearn": "sklearn"}
_PYTHON_MODEL = "mlflow.pyfunc.model.PythonModel"
_DISTRIBUTIONS = {
    "sklearn": "scikit-learn",
    "xgboost": "xgboost",
    "lightgbm": "lightgbm",
    "numpy": "numpy",
    "pandas": "pandas",
    "scipy": "scipy",
    "skops": "skops",
    "cloudpickle": "cloudpickle",
    "mlflow": "mlflow",
}
_TRUSTED_PACKAGES = frozenset({"sklearn", "numpy", "scipy", "pandas", "xgboost", "lightgbm"})
_TRUSTED_TYPES = frozenset({"functools.partial", "collections.OrderedDict", "collections.defaultdict"})
_SAMPLE_ROWS = 100

_log = logging.getLogger(__name__)


def flavor_of(value: Any) -> str:
    """
    Name the MLflow flavor that writes a trained object.

    :raises UnsupportedTypeError: naming the type and the flavors there are.
    """
    bases = type(value).__mro__
    packages = {base.__module__.partition(".")[0] for base in bases}
    for package, flavor in FLAVORS.items():
        if package in packages:
            return flavor
    if any(f"{base.__module__}.{base.__qualname__}" == _PYTHON_MODEL for base in bases):
        return "pyfunc"
    raise UnsupportedTypeError(
        f"no MLflow flavor here writes {type(value).__module__}.{type(value).__qualname__}; return a "
        f"scikit-learn, XGBoost or LightGBM model, or an mlflow.pyfunc.PythonModel that wraps it"
    )


def log_model(
    value: Any,
    *,
    run: TaskRun | None = None,
    name: str = "model",
    X_sample: Any | None = None,
    signature: Any | None = None,
    requirements: Sequence[str] | None = None,
    tags: Mapping[str, str] | None = None,
    mlflow_conn_id: str | None = None,
    effective_at: str | None = None,
) -> ModelRef:
    """
    Write a trained object as a LoggedModel of the open run.

    Models that an earlier try of the same task instance left in the run are deleted then, unless a version
    of a registered model points at them.

    :param run: The open run; the innermost :func:`task_run` where not given.
    :param X_sample: Rows like those the model was trained on, to tell its signature. Columns that it was
        not trained on (the target) are left out where the model knows its columns.
    :param signature: An MLflow ``ModelSignature``, in place of one told from the sample.
    :param requirements: pip requirements, in place of the installed versions of what the model is made of.
    :param mlflow_conn_id: Kept in the reference, so that loading it finds credentials.
    :raises UnsupportedTypeError: if no flavor here writes the object.
    """
    run = run or current_run()
    flavor = flavor_of(value)
    signature = signature if signature is not None else _signature(value, X_sample)
    given: dict[str, Any] = {"name": name, "signature": signature}
    about = {**(tags or {}), FLAVOR_TAG: flavor, **run.attempt}
    if effective_at is not None:
        about[EFFECTIVE_AT_TAG] = effective_at
    with _quiet():
        info = _WRITERS[flavor](value, given, about, requirements)
    _delete_left_over(run, keep=info.model_id)
    return ModelRef(
        model_uri=info.model_uri,
        model_id=info.model_id,
        mlflow_run_id=run.run_id,
        experiment_id=run.experiment_id,
        flavor=flavor,
        metrics=run.metrics(),
        name=name,
        tracking_uri=run.client.tracking_uri,
        mlflow_conn_id=mlflow_conn_id,
        effective_at=effective_at,
    )


@contextmanager
def models_logged() -> Iterator[list[tuple[str, Any]]]:
    """
    Collect what is logged as a model by MLflow's functions, autologging too, while the block runs.

    The list holds pairs of a model's URI and an object that MLflow was given for it, in the order of logging.
    """
    from mlflow.models import Model

    found: list[tuple[str, Any]] = []
    own = vars(Model)["log"]

    def log_and_note(cls: Any, *args: Any, **kwargs: Any) -> Any:
        info = own.__func__(cls, *args, **kwargs)
        found.extend((info.model_uri, given) for given in kwargs.values())
        return info

    Model.log = classmethod(log_and_note)
    try:
        yield found
    finally:
        Model.log = own


def _log_sklearn(
    value: Any, given: dict[str, Any], tags: dict[str, str], requirements: Sequence[str] | None
) -> Any:
    import mlflow.sklearn

    trusted = _skops_types(value)
    if trusted is not None:
        tags[SERIALIZATION_TAG] = "skops"
        return mlflow.sklearn.log_model(
            value,
            tags=tags,
            serialization_format="skops",
            skops_trusted_types=trusted,
            pip_requirements=list(requirements or _requirements(value, "sklearn", "skops")),
            **given,
        )
    tags[SERIALIZATION_TAG] = "cloudpickle"
    with _dag_files_by_value():
        return mlflow.sklearn.log_model(
            value,
            tags=tags,
            serialization_format="cloudpickle",
            pip_requirements=list(requirements or _requirements(value, "sklearn", "cloudpickle")),
            **given,
        )


def _log_xgboost(
    value: Any, given: dict[str, Any], tags: dict[str, str], requirements: Sequence[str] | None
) -> Any:
    import mlflow.xgboost

    needed = list(requirements or _requirements(value, "xgboost"))
    return mlflow.xgboost.log_model(value, tags=tags, pip_requirements=needed, **given)


def _log_lightgbm(
    value: Any, given: dict[str, Any], tags: dict[str, str], requirements: Sequence[str] | None
) -> Any:
    import mlflow.lightgbm

    needed = list(requirements or _requirements(value, "lightgbm"))
    return mlflow.lightgbm.log_model(value, tags=tags, pip_requirements=needed, **given)


def _log_pyfunc(
    value: Any, given: dict[str, Any], tags: dict[str, str], requirements: Sequence[str] | None
) -> Any:
    import mlflow.pyfunc

    tags[SERIALIZATION_TAG] = "cloudpickle"
    needed = list(requirements or _requirements(value, "mlflow", "cloudpickle"))
    with _dag_files_by_value():
        return mlflow.pyfunc.log_model(python_model=value, tags=tags, pip_requirements=needed, **given)


_WRITERS: dict[str, Callable[[Any, dict[str, Any], dict[str, str], Sequence[str] | None], Any]] = {
    "sklearn": _log_sklearn,
    "xgboost": _log_xgboost,
    "lightgbm": _log_lightgbm,
    "pyfunc": _log_pyfunc,
}


def _skops_types(value: Any) -> list[str] | None:
    """The types that reading must be allowed to make; None if skops cannot or should not write the model."""
    try:
        skops_io = import_skops()
    except ImportError:
        return None
    try:
        types = skops_io.get_untrusted_types(data=skops_io.dumps(value))
    except Exception:  # noqa: BLE001 - skops raises whatever the object's own code raises
        _log.info("skops cannot write %s; cloudpickle does", type(value).__name__, exc_info=True)
        return None
    foreign = [
        name
        for name in types
        if name.partition(".")[0] not in _TRUSTED_PACKAGES and name not in _TRUSTED_TYPES
    ]
    if foreign:
        _log.warning(
            "the model is written with cloudpickle, which runs code when it is read, because it holds %s",
            ", ".join(foreign),
        )
        return None
    return list(types)


def _requirements(value: Any, *packages: str) -> list[str]:
    wanted = dict.fromkeys((*packages, "numpy", "pandas"))
    for part in _parts(value):
        root = type(part).__module__.partition(".")[0]
        if root in FLAVORS:
            wanted[root] = None
            if root in {"xgboost", "lightgbm"} and hasattr(part, "get_params"):
                wanted["sklearn"] = None
    found = []
    for package in wanted:
        distribution = _DISTRIBUTIONS[package]
        try:
            found.append(f"{distribution}=={importlib.metadata.version(distribution)}")
        except importlib.metadata.PackageNotFoundError:
            if package in packages:
                found.append(distribution)
    return sorted(found)


def _parts(value: Any) -> Iterator[Any]:
    """The model and, for a pipeline or another composite, what it is made of."""
    yield value
    get_params = getattr(value, "get_params", None)
    if callable(get_params):
        try:
            yield from get_params(deep=True).values()
        except Exception:  # noqa: BLE001 - only to list more requirements; user estimators may misbehave
            return


def _signature(value: Any, sample: Any | None) -> Any | None:
    if sample is None:
        return None
    rows = _trained_columns(value, sample)
    if rows is None:
        return None
    from mlflow.models import infer_signature

    try:
        with _quiet():
            predict = getattr(value, "predict", None)
            outputs = predict(rows) if _is_plain_predict(value) and predict is not None else None
            inferred = infer_signature(rows, outputs)
    except Exception:  # noqa: BLE001 - a model without a signature still serves
        _log.warning("no signature could be told from the sample", exc_info=True)
        return None
    if _needs_categories(value, rows, outputs):
        _log.info(
            "the model has no signature: MLflow would give it the values of its categorical columns without "
            "their dtype, which %s needs",
            type(value).__name__,
        )
        return None
    return _with_categories(inferred, rows)


def _is_plain_predict(value: Any) -> bool:
    # A native booster wants its own matrix, a PythonModel its context.
    return flavor_of(value) == "sklearn" or hasattr(value, "get_params")


def _trained_columns(value: Any, sample: Any) -> Any | None:
    if not hasattr(sample, "head"):
        return sample[:_SAMPLE_ROWS] if hasattr(sample, "__getitem__") else None
    rows = sample.head(_SAMPLE_ROWS)
    if len(rows) == 0:
        return None
    names = trained_columns(value, getattr(rows, "columns", ()))
    if names is None:
        return rows
    missing = [name for name in names if name not in rows.columns]
    return None if missing else rows[names]


def _categories(rows: Any) -> list[Any]:
    dtypes: Any = getattr(rows, "dtypes", None)
    if not hasattr(dtypes, "items"):
        return []
    return [name for name, dtype in dtypes.items() if str(dtype) == "category"]


def _needs_categories(value: Any, rows: Any, outputs: Any) -> bool:
    """
    Whether a model does not predict the same where categorical columns are plain values.

    LightGBM and XGBoost refuse them, and a signature makes MLflow pass them so.
    """
    categories = _categories(rows)
    if not categories or outputs is None:
        return bool(categories) and flavor_of(value) in {"lightgbm", "xgboost"}
    import numpy as np

    plain = rows.assign(**{name: list(rows[name]) for name in categories})
    try:
        with _quiet():
            return not np.array_equal(np.asarray(value.predict(plain)), np.asarray(outputs))
    except Exception:  # noqa: BLE001 - libraries refuse a dtype each in their own way
        return True


def _with_categories(signature: Any, rows: Any) -> Any:
    """Let the values of categorical columns pass: MLflow's "string" refuses the dtype that training had."""
    categories = set(map(str, _categories(rows)))
    if signature.inputs is None or not categories:
        return signature
    from mlflow.models import ModelSignature
    from mlflow.types.schema import AnyType, ColSpec, Schema

    specs = [
        ColSpec(AnyType(), spec.name, required=spec.required) if spec.name in categories else spec
        for spec in signature.inputs.inputs
    ]
    return ModelSignature(inputs=Schema(specs), outputs=signature.outputs, params=signature.params)


def _delete_left_over(run: TaskRun, *, keep: str) -> None:
    """Delete what earlier tries logged and nothing points at, so that one run has one model."""
    found = run.client.search_logged_models(
        [run.experiment_id], filter_string=f"source_run_id = '{run.run_id}'", max_results=100
    )
    mine = run.attempt[ATTEMPT_TAG]
    left = [
        model
        for model in found
        if model.model_id != keep and (model.tags or {}).get(ATTEMPT_TAG, mine) != mine
    ]
    if not left:
        return
    versions = run.client.search_model_versions(f"run_id = '{run.run_id}'", max_results=1000)
    used = {version.model_id for version in versions} | {
        (version.source or "").removeprefix("models:/") for version in versions
    }
    for model in left:
        if model.model_id not in used:
            _log.info("deleting model %s, which an earlier try of this task left behind", model.model_id)
            run.client.delete_logged_model(model.model_id)


@contextmanager
def _quiet() -> Iterator[None]:
    """Hold back MLflow's advice on integer columns and formats, which the caller has decided."""
    loggers = [logging.getLogger(name) for name in ("mlflow.sklearn", "mlflow.models.model")]
    before = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)
            warnings.simplefilter("ignore", FutureWarning)
            yield
    finally:
        for logger, level in zip(loggers, before, strict=True):
            logger.setLevel(level)


@contextmanager
def _dag_files_by_value() -> Iterator[None]:
    """Let cloudpickle carry classes of DAG files, whose modules exist only while Airflow parses them."""
    import cloudpickle  # type: ignore[import-untyped]

    modules = [module for name, module in list(sys.modules.items()) if name.startswith("unusual_prefix_")]
    for module in modules:
        cloudpickle.register_pickle_by_value(module)
    try:
        yield
    finally:
        for module in modules:
            cloudpickle.unregister_pickle_by_value(module)
