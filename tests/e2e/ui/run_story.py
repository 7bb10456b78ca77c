# SPDX-License-Identifier: Apache-2.0
"""
Run the story of ``dags/ui_story.py`` in this process, and print its runs as JSON.

``dag.test`` needs no scheduler, so that the pages have real runs after seconds, not minutes.
"""

from __future__ import annotations

import json
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

#: How much of the labels is drawn by lot, by month of data time: the second is better, the third worse again.
NOISE = {1: 0.9, 2: 0.0, 3: 0.9}


def main() -> None:
    from airflow.dag_processing.bundles.manager import DagBundlesManager
    from airflow.dag_processing.dagbag import DagBag, sync_bag_to_db

    DagBundlesManager().sync_bundles_to_db()
    bag = DagBag(
        Path(__file__).parent / "dags",
        bundle_name="dags-folder",
        bundle_path=Path(__file__).parent / "dags",
    )
    assert not bag.import_errors, bag.import_errors
    sync_bag_to_db(bag, "dags-folder", None)

    def run(dag_id: str, when: datetime, conf: dict[str, Any]) -> str:
        done = bag.dags[dag_id].test(logical_date=when, run_conf=conf)
        assert done.state == "success", f"{dag_id} of {when}: {done.state}"
        return str(done.run_id)

    trainings, evaluations = {}, []
    for month, noise in NOISE.items():
        trainings[month] = run("ui_training", datetime(2013, month, 1, tzinfo=UTC), {"noise": noise})
        if month < 3:
            evaluations.append(run("ui_evaluation", datetime(2013, month, 15, tzinfo=UTC), {}))
    json.dump({"trainings": trainings, "evaluations": evaluations}, sys.stdout)


if __name__ == "__main__":
    main()
