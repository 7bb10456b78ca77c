// SPDX-License-Identifier: Apache-2.0

export const KINDS: Record<string, { name: string; noun: string; hue: string; sign: string }> = {
  version: { name: "Artifact version", noun: "the artifact", hue: "blue", sign: "▤" },
  model: { name: "Model", noun: "the model", hue: "purple", sign: "◆" },
  task: { name: "Task", noun: "the task", hue: "gray", sign: "▶" },
  evaluation: { name: "Evaluation", noun: "the task", hue: "teal", sign: "≷" },
  asset: { name: "Asset event", noun: "the asset", hue: "orange", sign: "●" },
  dag_run: { name: "DAG run", noun: "the run", hue: "gray", sign: "≡" },
  missing: { name: "Missing", noun: "it", hue: "red", sign: "?" },
};
