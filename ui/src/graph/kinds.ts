// SPDX-License-Identifier: Apache-2.0

export const KINDS: Record<string, { name: string; noun: string; hue: string; sign: string }> = {
  version: { name: "Artifact version", noun: "the artifact", hue: "blue", sign: "▤" },
  model: { name: "Model", noun: "the model", hue: "purple", sign: "◆" },
  task: { name: "Task", noun: "the task", hue: "gray", sign: "▶" },
  evaluation: { name: "Evaluation", noun: "the task", hue: "teal", sign: "≷" },
  event: { name: "Asset event", noun: "its task", hue: "orange", sign: "●" },
  asset: { name: "Asset", noun: "its task", hue: "orange", sign: "○" },
  run: { name: "DAG run", noun: "the run", hue: "cyan", sign: "≡" },
};
