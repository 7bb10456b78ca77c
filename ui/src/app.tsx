// SPDX-License-Identifier: Apache-2.0
import { Box } from "@chakra-ui/react";
import { DagTab } from "./pages/DagTab";
import { MLPage } from "./pages/MLPage";
import { RunTab } from "./pages/RunTab";
import { TaskTab } from "./pages/TaskTab";
import { Boundary } from "./parts";
import type { Place } from "./main";

/** The page for a task instance, a DAG run, a DAG or, for none of them, the navigation page. */
export default function App({ dagId, runId, taskId, mapIndex }: Place) {
  const key = [dagId, runId, taskId, mapIndex].join("/");
  return (
    <Boundary key={key}>
      <Box data-testid="ml-page" p={dagId ? 2 : 4}>
        {dagId && runId && taskId ? (
          <TaskTab dagId={dagId} mapIndex={mapIndex ?? "-1"} runId={runId} taskId={taskId} />
        ) : dagId && runId ? (
          <RunTab dagId={dagId} runId={runId} />
        ) : dagId ? (
          <DagTab dagId={dagId} />
        ) : (
          <MLPage />
        )}
      </Box>
    </Boundary>
  );
}
