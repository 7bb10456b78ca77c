# SPDX-License-Identifier: Apache-2.0
"""What the model sees was known before departure."""

from __future__ import annotations

from datetime import UTC, datetime

import numpy as np
import pandas as pd
import pytest
from flights import data, features, model
from flights.features import CATEGORIES, FEATURES, KEYS, NUMBERS, TARGET, WEATHER, build_features

START, END = datetime(2013, 5, 6, tzinfo=UTC), datetime(2013, 5, 9, tzinfo=UTC)

#: Measured at or after departure.
OUTCOMES = ("dep_time", "dep_delay", "arr_time", "arr_delay", "air_time")


@pytest.fixture(scope="module")
def flights() -> pd.DataFrame:
    return data.load_flights(START, END)


@pytest.fixture(scope="module")
def table() -> pd.DataFrame:
    return build_features(START, END)


def test_the_columns_are_keys_features_and_target(table: pd.DataFrame) -> None:
    assert list(table.columns) == [*KEYS, *FEATURES, TARGET]
    assert not {*OUTCOMES, TARGET, *KEYS} & set(FEATURES)


def test_features_do_not_move_with_what_happened(
    flights: pd.DataFrame, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = build_features(START, END, with_target=False)
    changed = flights.copy()
    for column in OUTCOMES:
        changed[column] = np.random.default_rng(0).permutation(changed[column].to_numpy()) + 7
    monkeypatch.setattr(features, "load_flights", lambda start, end: changed)
    pd.testing.assert_frame_equal(build_features(START, END, with_target=False), before)


def test_weather_is_that_of_the_hour_before(flights: pd.DataFrame, monkeypatch: pytest.MonkeyPatch) -> None:
    def hours_as_weather(start: datetime, end: datetime) -> pd.DataFrame:
        weather = data.load_weather(start, end)
        for name in WEATHER:
            weather[name] = hour_number(weather["time_hour"])
        return weather

    monkeypatch.setattr(features, "load_weather", hours_as_weather)
    table = build_features(START, END, with_target=False)
    for name in WEATHER:
        seen = table[name].to_numpy()
        assert np.isfinite(seen).all()
        np.testing.assert_array_equal(seen, hour_number(flights["time_hour"]) - 1)


def hour_number(times: pd.Series) -> np.ndarray:
    first = pd.Timestamp(data.FIRST_DAY)
    return ((times - first) // pd.Timedelta(hours=1)).to_numpy(dtype="float32")


def test_weather_is_that_of_the_airport(table: pd.DataFrame) -> None:
    weather = data.load_weather(data.FIRST_DAY, END).set_index(["origin", "time_hour"])["temp"]
    hours = table["scheduled_at"].dt.floor("h") - pd.Timedelta(hours=1)
    expected = [weather.get(key, np.nan) for key in zip(table["origin"], hours, strict=True)]
    np.testing.assert_array_equal(table["temp"], np.array(expected, dtype="float32"))


def test_no_feature_alone_tells_who_comes_late() -> None:
    from sklearn.metrics import roc_auc_score

    month = build_features(datetime(2013, 7, 1, tzinfo=UTC), datetime(2013, 8, 1, tzinfo=UTC))
    for name in NUMBERS:
        known = month[month[name].notna()]
        auc = roc_auc_score(known[TARGET], known[name])
        assert 0.25 < auc < 0.75, f"{name} alone has a ROC AUC of {auc:.2f}"


def test_late_means_more_than_15_minutes_after_the_scheduled_arrival(
    flights: pd.DataFrame, table: pd.DataFrame
) -> None:
    arrived = flights[flights["arr_delay"].notna()]
    assert len(arrived) < len(flights), "these days have cancelled flights"
    assert {15, 16} <= set(arrived["arr_delay"])
    np.testing.assert_array_equal(table[TARGET], (arrived["arr_delay"] >= 16).astype("int8"))


def test_flights_still_to_leave_are_all_there_and_unjudged(flights: pd.DataFrame) -> None:
    ahead = build_features(START, END, with_target=False)
    assert list(ahead.columns) == [*KEYS, *FEATURES]
    pd.testing.assert_series_equal(ahead["scheduled_at"], flights["scheduled_at"])


def test_hours_and_weekdays_are_those_of_new_york() -> None:
    for month in (1, 7):
        start, end = datetime(2013, month, 1, tzinfo=UTC), datetime(2013, month, 8, tzinfo=UTC)
        flights, table = data.load_flights(start, end), build_features(start, end, with_target=False)
        np.testing.assert_array_equal(table["hour"], flights["hour"])
        dates = pd.to_datetime(flights[["year", "month", "day"]])
        np.testing.assert_array_equal(table["weekday"], dates.dt.day_of_week)


def test_a_row_is_about_one_flight(table: pd.DataFrame) -> None:
    assert not table.duplicated([*KEYS, "carrier", "origin"]).any()
    assert table[[*KEYS, *CATEGORIES, TARGET]].notna().all(axis=None)


def test_a_plane_that_the_registry_lacks_is_unknown_and_not_another_one(
    flights: pd.DataFrame, monkeypatch: pytest.MonkeyPatch
) -> None:
    planes = data.load_planes()
    monkeypatch.setattr(features, "load_planes", lambda: planes.iloc[:0])
    table = build_features(START, END)
    assert table["plane_age"].isna().all()
    assert table["plane_seats"].isna().all()


def test_days_with_flights_and_no_weather_can_be_scored() -> None:
    new_year = build_features(
        datetime(2013, 12, 31, 12, tzinfo=UTC), datetime(2014, 1, 2, tzinfo=UTC), with_target=False
    )
    assert len(new_year) > 0
    assert new_year[WEATHER].isna().all(axis=None)


def test_the_classifier_takes_whole_tables_with_airlines_it_never_met(table: pd.DataFrame) -> None:
    with model.one_thread():
        fitted = model.delay_classifier(max_iter=5).fit(table[FEATURES], table[TARGET])
        ahead = build_features(START, END, with_target=False)
        as_it_was = fitted.predict_proba(ahead)[:, 1]
        ahead.loc[:, "carrier"] = "ZZ"
        with_strangers = fitted.predict_proba(ahead[ahead.columns[::-1]])[:, 1]
    assert np.isfinite(as_it_was).all()
    assert np.isfinite(with_strangers).all()


def test_training_again_gives_the_same_model(table: pd.DataFrame) -> None:
    with model.one_thread():
        first, second = (
            model.delay_classifier(max_iter=5).fit(table[FEATURES], table[TARGET]).predict_proba(table)
            for _ in range(2)
        )
    np.testing.assert_array_equal(first, second)
