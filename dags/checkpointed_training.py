# SPDX-License-Identifier: Apache-2.0
"""
### A training that may be interrupted

Epoch by epoch, with a checkpoint after each. Kill the task's process while it runs (`kill -9`): the retry
goes on with the epoch that was saved last, and the model is the same as without the kill.

Run it by hand. It needs no connection.
"""

# [START checkpointed]
from __future__ import annotations

from datetime import timedelta

from airflow.sdk import dag, task

from airflow_ml_provider import ml


@dag(schedule=None, description="Learns digits, and survives interruptions", doc_md=__doc__, tags=["ml"])
def checkpointed_training():
    # [START policy]
    # Lost workers are retried after retry_delay, NaN and bad data never, other failures after 2 minutes.
    @task(
        retries=5,
        retry_delay=timedelta(seconds=5),
        retry_policy=ml.retry_policy(delay=timedelta(minutes=2)),
    )
    # [END policy]
    def fit(epochs: int = 8):
        """Return the model and its loss; a killed attempt costs one epoch."""
        import numpy as np
        from sklearn.datasets import load_digits
        from sklearn.linear_model import SGDClassifier
        from sklearn.metrics import log_loss

        pixels, digits = load_digits(return_X_y=True)
        # [START loop]
        checkpoint = ml.checkpoint(keep=2)
        state = checkpoint.load({"epoch": 0, "model": SGDClassifier(loss="log_loss", random_state=0)})
        model = state["model"]
        for epoch in range(state["epoch"], epochs):
            order = np.random.default_rng(epoch).permutation(len(digits))
            model.partial_fit(pixels[order], digits[order], classes=range(10))
            loss = log_loss(digits, model.predict_proba(pixels))
            checkpoint.save({"epoch": epoch + 1, "model": model}, step=epoch + 1, loss=loss)
        # [END loop]
        return {"model": model, "loss": float(log_loss(digits, model.predict_proba(pixels)))}

    fit()


checkpointed_training()
# [END checkpointed]
