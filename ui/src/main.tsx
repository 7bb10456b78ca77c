// SPDX-License-Identifier: Apache-2.0
import { lazy, Suspense } from "react";

export interface Place {
  dagId?: string;
  runId?: string;
  taskId?: string;
  mapIndex?: string;
}

const App = lazy(() => import("./app"));

// All entries carry the label "ML", and Airflow's UI keeps one component for each label. So this is the one
// component of all of them, and what it is asked about tells it which page it is.
function ML(place: Place) {
  return (
    <Suspense fallback={null}>
      <App {...place} />
    </Suspense>
  );
}

Object.assign(globalThis, { ML, AirflowPlugin: ML });
