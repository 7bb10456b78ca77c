# SPDX-License-Identifier: Apache-2.0
# ruff: noqa: E501 - tables of values
"""Models of XGBoost, LightGBM and CatBoost."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import catboost
import lightgbm
import numpy as np
import pandas as pd
import pytest
import xgboost
from sklearn.base import is_classifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from airflow_ml_provider.artifacts.codecs import catboost as catboost_codec
from airflow_ml_provider.artifacts.codecs import lightgbm as lightgbm_codec
from airflow_ml_provider.artifacts.codecs import xgboost as xgboost_codec
from airflow_ml_provider.artifacts.store import ArtifactStore
from airflow_ml_provider.exceptions import UnsupportedTypeError, UntrustedTypeError
from tests.unit.artifacts import sameness
from tests.unit.artifacts.conftest import KEY

rng = np.random.default_rng(0)
X = rng.normal(size=(120, 3))
X[::7, 1] = np.nan
y = (X[:, 0] > 0).astype(int)
three = np.digitize(X[:, 0], [-0.5, 0.5])
text = np.array(["no", "yes"])[y]
named = pd.DataFrame(X, columns=["a", "b c", "é"])
mixed = named.assign(kind=pd.Categorical(np.array(["x", "y", "z"])[three], categories=["z", "y", "x"]))
groups = np.repeat(np.arange(12), 10)
QUIET: dict[str, Any] = {"verbose": 0, "allow_writing_files": False, "iterations": 5, "thread_count": 1}


def same(left: Any, right: Any) -> bool:
    """Classes that are text come in arrays of objects, which have no bytes to compare."""

    def plain(value: Any) -> Any:
        if isinstance(value, np.ndarray) and value.dtype == object:
            return [value.shape, *value.ravel().tolist()]
        if isinstance(value, list):
            return [plain(item) for item in value]
        return {key: plain(item) for key, item in value.items()} if type(value) is dict else value

    return sameness.same(plain(left), plain(right))


def xgb_stopped() -> Any:
    model = xgboost.XGBClassifier(
        n_estimators=50, early_stopping_rounds=2, eval_metric=["logloss", "auc"], n_jobs=1
    )
    return model.fit(X[:80], y[:80], eval_set=[(X[80:], y[80:])], verbose=False)


def lgb_stopped() -> Any:
    model = lightgbm.LGBMClassifier(n_estimators=50, verbose=-1, n_jobs=1, class_weight={0: 1.0, 1: 2.0})
    stop = lightgbm.early_stopping(2, verbose=False)
    return model.fit(X[:80], y[:80], eval_X=(X[80:],), eval_y=(y[80:],), callbacks=[stop])


def cat_stopped() -> Any:
    model = catboost.CatBoostClassifier(**{**QUIET, "iterations": 50}, early_stopping_rounds=2)
    return model.fit(X[:80], text[:80], eval_set=(X[80:], text[80:]))


def xgb_booster(**params: Any) -> Any:
    data = xgboost.DMatrix(named, three)
    booster = xgboost.train({"objective": "multi:softprob", "num_class": 3, "nthread": 1, **params}, data, 3)
    booster.set_attr(made_by="us")
    return booster


def lgb_booster() -> Any:
    data = lightgbm.Dataset(mixed, y)
    return lightgbm.train({"objective": "binary", "verbose": -1, "num_threads": 1}, data, 5)


FITTED: dict[str, tuple[Callable[[], Any], Any]] = {
    "XGBClassifier": (xgb_stopped, X),
    "XGBClassifier of three": (lambda: xgboost.XGBClassifier(n_estimators=3).fit(named, three), named),
    "XGBRegressor of categories": (lambda: xgboost.XGBRegressor(n_estimators=3, enable_categorical=True).fit(mixed, X[:, 0]), mixed),
    "XGBRegressor, linear": (lambda: xgboost.XGBRegressor(booster="gblinear", n_estimators=3).fit(np.nan_to_num(X), y), X),
    "XGBRegressor, dart": (lambda: xgboost.XGBRegressor(booster="dart", rate_drop=0.5, n_estimators=5).fit(X, y), X),
    "XGBRegressor of two targets": (lambda: xgboost.XGBRegressor(n_estimators=3).fit(X, np.c_[y, three]), X),
    "XGBRegressor with other parameters": (lambda: xgboost.XGBRegressor(n_estimators=3, max_cached_hist_node=7, monotone_constraints=(1, 0, 0)).fit(X, y), X),
    "XGBRanker": (lambda: xgboost.XGBRanker(n_estimators=3).fit(X, y, qid=groups), X),
    "XGBRFClassifier": (lambda: xgboost.XGBRFClassifier(n_estimators=3).fit(X, y), X),
    "XGBRFRegressor": (lambda: xgboost.XGBRFRegressor(n_estimators=3).fit(X, y), X),
    "LGBMClassifier": (lgb_stopped, X),
    "LGBMClassifier of three": (lambda: lightgbm.LGBMClassifier(n_estimators=3, verbose=-1).fit(named.rename(columns={"é": "e"}), three), named.rename(columns={"é": "e"})),
    "LGBMClassifier of text": (lambda: lightgbm.LGBMClassifier(n_estimators=3, verbose=-1).fit(X, text), X),
    "LGBMClassifier of objects": (lambda: lightgbm.LGBMClassifier(n_estimators=3, verbose=-1).fit(X, text.astype(object)), X),
    "LGBMRegressor of categories": (lambda: lightgbm.LGBMRegressor(n_estimators=3, verbose=-1).fit(mixed, X[:, 0]), mixed),
    "LGBMRegressor, dart": (lambda: lightgbm.LGBMRegressor(boosting_type="dart", n_estimators=5, verbose=-1).fit(X, y), X),
    "LGBMRanker": (lambda: lightgbm.LGBMRanker(n_estimators=3, verbose=-1).fit(X, y, group=[10] * 12), X),
    "CatBoostClassifier": (cat_stopped, X),
    "CatBoostClassifier of three": (lambda: catboost.CatBoostClassifier(**QUIET).fit(named, three), named),
    "CatBoostRegressor of categories": (lambda: catboost.CatBoostRegressor(**QUIET, cat_features=["kind"]).fit(mixed, y), mixed),
    "CatBoostRanker": (lambda: catboost.CatBoostRanker(**QUIET).fit(X, y, group_id=groups), X),
    "CatBoost": (lambda: catboost.CatBoost({**QUIET, "loss_function": "RMSE"}).fit(X, y), X),
}  # fmt: skip

UNFITTED = [
    *(cls(max_depth=2) for name, cls in xgboost_codec.CLASSES.items() if name != "Booster"),
    *(cls(max_depth=2, extra=1) for name, cls in lightgbm_codec.CLASSES.items() if name != "Booster"),
    *(cls(**QUIET) for name, cls in catboost_codec.CLASSES.items() if name != "CatBoost"),
    catboost.CatBoost({"iterations": 3}),
]


def predictions(model: Any, data: Any) -> list[Any]:
    names = ["predict", "predict_proba", "apply"]
    if getattr(model, "booster", None) == "gblinear":
        names.remove("apply")
    return [getattr(model, name)(data) for name in names if hasattr(model, name)]


def fitted_state(model: Any) -> dict[str, Any]:
    names = [
        "classes_", "n_classes_", "n_features_in_", "feature_names_in_", "feature_name_", "feature_names_",
        "best_iteration", "best_iteration_", "best_score", "best_score_", "evals_result_",
        "feature_importances_", "objective_", "tree_count_", "learning_rate_", "random_seed_",
    ]  # fmt: skip
    found = {}
    for name in names:
        try:
            found[name] = getattr(model, name)
        except Exception as exc:  # noqa: BLE001 - what a model does not have, and says in its own way
            found[name] = type(exc).__name__
    return found


def rounded(found: Any, expected: Any) -> None:
    if not isinstance(expected, dict):
        assert found == pytest.approx(expected, rel=1e-14)
        return
    assert list(found) == list(expected)
    for key in expected:
        rounded(found[key], expected[key])


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize(("make", "data"), FITTED.values(), ids=FITTED.keys())
def test_a_fitted_model_comes_back_whole(store: ArtifactStore, make: Any, data: Any) -> None:
    model = make()
    ref = store.save(model, "task")

    back = store.load(ref)

    assert type(back) is type(model)
    assert same(predictions(back, data), predictions(model, data))
    assert same(back.get_params(), model.get_params())
    found, expected = fitted_state(back), fitted_state(model)
    if isinstance(model, catboost.CatBoost):
        for name in ("evals_result_", "best_score_"):  # CatBoost's file has them as text, to 16 digits
            rounded(found.pop(name), expected.pop(name))
    assert same(found, expected)
    assert is_classifier(back) == is_classifier(model)
    assert ref.type == ref.schema["class"] == f"{type(model).__module__.split('.')[0]}.{type(model).__name__}"
    assert ref.format == f"{ref.type.split('.')[0]}-v1"
    assert (ref.schema["n_features"], ref.schema["n_trees"] > 0) == (data.shape[1], True)
    assert ref.preview.startswith(type(model).__name__)
    assert store.save(model, "task").digest == ref.digest
    # CatBoost writes a model that it read in another order.
    assert isinstance(model, catboost.CatBoost) or store.save(back, "task").digest == ref.digest


@pytest.mark.parametrize(
    "model", UNFITTED, ids=lambda model: f"{type(model).__module__}.{type(model).__name__}"
)
def test_a_model_that_was_not_fitted_comes_back_as_that(store: ArtifactStore, model: Any) -> None:
    back = store.load(store.save(model, "task"))

    assert type(back) is type(model)
    assert same(back.get_params(), model.get_params())
    assert set(vars(back)) == set(vars(model))
    with pytest.raises(Exception, match=r"(?i)fit"):
        back.predict(X)


@pytest.mark.parametrize(
    "make",
    [xgb_booster, lambda: xgb_booster(booster="dart", rate_drop=0.5), lambda: xgb_stopped().get_booster()],
)
def test_a_booster_of_xgboost_comes_back_with_its_attributes_and_parameters(
    store: ArtifactStore, make: Any
) -> None:
    booster = make()
    ref = store.save(booster, "task")

    back = store.load(ref)

    data = xgboost.DMatrix(X, feature_names=booster.feature_names)
    assert type(back) is xgboost.Booster
    assert same(back.predict(data), booster.predict(data))
    assert back.attributes() == booster.attributes()
    assert (back.feature_names, back.feature_types) == (booster.feature_names, booster.feature_types)
    assert back.save_config() == booster.save_config()
    assert (ref.type, store.save(back, "task").digest) == ("xgboost.Booster", ref.digest)


def test_a_booster_of_xgboost_goes_on_learning_as_it_would_have(store: ArtifactStore) -> None:
    booster = xgb_booster(eta=0.9, max_depth=2)
    back = store.load(store.save(booster, "task"))

    data = xgboost.DMatrix(named, three)
    for model in (booster, back):
        model.update(data, 3)
    assert same(back.predict(data), booster.predict(data))


def test_parameters_of_another_major_release_of_xgboost_are_left_out_and_it_is_said(
    store: ArtifactStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    booster, written = xgb_booster(eta=0.9), xgboost.__version__
    ref = store.save(booster, "task")
    monkeypatch.setattr(xgboost, "__version__", "99.1.0")

    with pytest.warns(UserWarning, match=rf"'task' was written by XGBoost {written}"):
        back = store.load(ref)

    assert same(back.predict(xgboost.DMatrix(named)), booster.predict(xgboost.DMatrix(named)))


def test_a_booster_of_lightgbm_comes_back_with_its_trees_and_scores(store: ArtifactStore) -> None:
    booster = lgb_booster()
    booster.best_iteration = 2  # what is stored are all trees, not the best ones only
    ref = store.save(booster, "task")

    back = store.load(ref)

    assert type(back) is lightgbm.Booster
    assert same(back.predict(mixed), booster.predict(mixed))
    assert same(back.predict(mixed, num_iteration=5), booster.predict(mixed, num_iteration=5))
    assert back.num_trees() == 5
    assert (back.params, back.best_iteration, back.best_score) == (booster.params, 2, booster.best_score)
    assert back.pandas_categorical == booster.pandas_categorical == [["z", "y", "x"]]
    assert (ref.type, store.save(back, "task").digest) == ("lightgbm.Booster", ref.digest)


def test_a_booster_of_lightgbm_with_its_training_data_is_refused(store: ArtifactStore) -> None:
    data = lightgbm.Dataset(X, y)
    booster = lightgbm.train({"verbose": -1}, data, 2, keep_training_booster=True)

    with pytest.raises(UnsupportedTypeError, match=r"training data.*keep_training_booster"):
        store.save(booster, "task")


def test_an_empty_booster_of_xgboost_is_refused(store: ArtifactStore) -> None:
    with pytest.raises(UnsupportedTypeError, match="train it first"):
        store.save(xgboost.Booster(), "task")


def own_loss(truth: Any, guess: Any) -> Any:
    return guess - truth, np.ones_like(truth)


class Stop(xgboost.callback.TrainingCallback):
    pass


class CatLoss:
    def calc_ders_range(self, approxes: Any, targets: Any, weights: Any) -> Any:
        return [(target - approx, -1) for approx, target in zip(approxes, targets, strict=True)]


@pytest.mark.parametrize(
    ("make", "part"),
    [
        (lambda: xgboost.XGBRegressor(n_estimators=2, objective=own_loss).fit(X, y), "objective.*own_loss"),
        (lambda: xgboost.XGBRegressor(n_estimators=2, eval_metric=own_loss), "eval_metric.*own_loss"),
        (lambda: xgboost.XGBRegressor(n_estimators=2, callbacks=[Stop()]), "callbacks.*Stop"),
        (lambda: xgboost.XGBRegressor(random_state=np.random.RandomState(1)), "random_state.*RandomState"),
        (lambda: lightgbm.LGBMRegressor(n_estimators=2, objective=own_loss), "objective.*own_loss"),
        (lambda: catboost.CatBoostRegressor(**QUIET, loss_function=CatLoss()), "loss_function.*CatLoss"),
    ],
)
def test_what_is_only_code_is_refused_by_name(store: ArtifactStore, make: Any, part: str) -> None:
    with pytest.raises(UnsupportedTypeError, match=rf"(?s){part}.*set_params"):
        store.save(make(), "task")


class Own(xgboost.XGBClassifier):
    """A class of the user."""


def test_a_class_of_the_user_is_stored_by_skops_and_needs_to_be_allowed(store: ArtifactStore) -> None:
    model = Own(n_estimators=2).fit(X, y)
    ref = store.save(model, "task")

    assert ref.format == "skops-v1"
    with pytest.raises(UntrustedTypeError, match=r"test_boosters\.Own.*allowed_classes"):
        store.load(ref)
    allowing = ArtifactStore(store.objects.root, signing_key=KEY, allowed_classes=["tests.unit.artifacts.*"])
    assert same(allowing.load(ref).predict_proba(X), model.predict_proba(X))


@pytest.mark.parametrize(
    "model",
    [
        xgboost.XGBClassifier(n_estimators=2),
        lightgbm.LGBMClassifier(n_estimators=2, verbose=-1),
        catboost.CatBoostClassifier(**QUIET),
    ],
    ids=lambda model: type(model).__name__,
)
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_a_pipeline_may_end_in_a_model_of_these(store: ArtifactStore, model: Any) -> None:
    pipeline = make_pipeline(StandardScaler(), model).fit(X, text if "XGB" not in type(model).__name__ else y)
    ref = store.save(pipeline, "task")

    back = store.load(ref)

    assert ref.format == "skops-v1"
    assert same(back.predict_proba(X), pipeline.predict_proba(X))
    assert same(back.predict(X), pipeline.predict(X))


def test_equal_trainings_give_equal_bytes(store: ArtifactStore) -> None:
    for make in (xgb_stopped, lgb_stopped, xgb_booster, lgb_booster):
        assert store.save(make(), "task").digest == store.save(make(), "task").digest


def test_a_model_is_read_in_another_process(store: ArtifactStore, tmp_path: Path) -> None:
    models = {"x": xgb_stopped(), "l": lgb_stopped(), "c": cat_stopped()}
    saved = store.save(models, "task")
    np.save(tmp_path / "expected.npy", np.stack([model.predict_proba(X) for model in models.values()]))
    np.save(tmp_path / "X.npy", X)
    code = f"""
import numpy as np, sys
from airflow_ml_provider.artifacts.store import ArtifactStore
store = ArtifactStore({store.objects.root!r}, signing_key={KEY!r})
models = store.load(store.get("task", {saved.version_id!r}))
X = np.load({str(tmp_path / "X.npy")!r})
found = np.stack([model.predict_proba(X) for model in models.values()])
raise SystemExit(not np.array_equal(found, np.load({str(tmp_path / "expected.npy")!r})))
"""
    done = subprocess.run(
        [sys.executable, "-c", code], check=False, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr[-2000:]
