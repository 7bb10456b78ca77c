# SPDX-License-Identifier: Apache-2.0
"""
### What was computed before is not computed again

The first run computes everything. In the second one each task finds its result: same code, same arguments,
same versions of the inputs. Run it with other `components`, or change a function, and only what depends on
that is computed. The XCom `cache` of each task says what happened and why, and the button *Reused from* leads
to the run that computed the result.

Run it by hand, with and without changes. It needs nothing but the XCom backend.
"""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Annotated

from airflow.sdk import dag, task

from airflow_ml_provider import Artifact, ml

if TYPE_CHECKING:
    import numpy as np


@dag(
    schedule=None,
    params={"components": [4, 8, 16]},
    description="Judges digit classifiers, and computes only what is new",
    doc_md=__doc__,
    tags=["ml"],
)
def cached_digits():
    @task
    def wanted(params=None):
        """Return the numbers of components to try."""
        return params["components"]

    # [START cached]
    @ml.cached(environment=["python", "scikit-learn"], ttl=timedelta(days=30))
    @task
    def reduced(components: int) -> Annotated[np.ndarray, Artifact("digits_reduced")]:
        """Return the digits in fewer dimensions."""
        from sklearn.datasets import load_digits
        from sklearn.decomposition import PCA

        return PCA(components, random_state=0).fit_transform(load_digits().data)

    @ml.cached(environment=["python", "scikit-learn"], version="2")
    @task
    def accuracy(pixels: np.ndarray) -> float:
        """Return the share of digits that a simple classifier tells right."""
        from sklearn.datasets import load_digits
        from sklearn.model_selection import cross_val_score
        from sklearn.naive_bayes import GaussianNB

        return float(cross_val_score(GaussianNB(), pixels, load_digits().target).mean())

    accuracy.expand(pixels=reduced.expand(components=wanted()))
    # [END cached]


cached_digits()
