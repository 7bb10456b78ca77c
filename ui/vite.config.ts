// SPDX-License-Identifier: Apache-2.0
import { readFileSync, readdirSync, rmSync } from "node:fs";
import { dirname, join, resolve } from "node:path";
import type { Plugin } from "vite";
import { defineConfig } from "vitest/config";

const STATIC = resolve(import.meta.dirname, "../airflow_ml_provider/plugins/static");

// Airflow's UI shares its own copies; a second React in the page would break hooks and themes.
const HOST: Record<string, string> = {
  react: "React",
  "react-dom": "ReactDOM",
  "react/jsx-runtime": "ReactJSXRuntime",
  "react-router-dom": "ReactRouterDOM",
  "@chakra-ui/react": "ChakraUI",
};

function fromHost(): Plugin {
  return {
    name: "from-host",
    enforce: "pre",
    apply: "build",
    resolveId: (id) => (id in HOST ? `\0host:${id}` : null),
    async load(id) {
      if (!id.startsWith("\0host:")) return null;
      const name = id.slice("\0host:".length);
      const names = Object.keys(await import(name)).filter((key) => /^[A-Za-z_$][\w$]*$/.test(key));
      const host = `globalThis.${HOST[name]}`;
      const exports = names
        .filter((key) => key !== "default")
        .map((key) => `export const ${key} = /* @__PURE__ */ (() => ${host}.${key})();`);
      return { code: `${exports.join("\n")}\nexport default ${host};`, moduleSideEffects: false };
    },
  };
}

// What is bundled keeps its licence: its text goes into the wheel beside the bundle.
function licences(): Plugin {
  return {
    name: "licences",
    apply: "build",
    generateBundle() {
      const packages = new Map<string, string>();
      for (const id of this.getModuleIds()) {
        const found = /^(.*\/node_modules\/((?:@[^/]+\/)?[^/]+))\//.exec(id.replace("\0", ""));
        if (found) packages.set(found[2]!, found[1]!);
      }
      const texts = [...packages].sort().map(([name, folder]) => {
        const { version, license } = JSON.parse(readFileSync(join(folder, "package.json"), "utf8"));
        const file = readdirSync(folder).find((each) => /^licen[cs]e/i.test(each));
        if (!file) this.error(`${name} has no licence file in ${dirname(folder)}`);
        return `${name} ${version} (${license})\n\n${readFileSync(join(folder, file), "utf8").trim()}\n`;
      });
      this.emitFile({
        type: "asset",
        fileName: "LICENSES.txt",
        source: `The scripts in this folder are built from ui/ and hold these libraries.\n\n${texts.join(`\n${"-".repeat(72)}\n\n`)}`,
      });
    },
  };
}

export default defineConfig({
  base: "./",
  plugins: [
    fromHost(),
    licences(),
    {
      name: "clean-chunks",
      apply: "build",
      buildStart: () => rmSync(join(STATIC, "chunks"), { recursive: true, force: true }),
    },
  ],
  oxc: { jsx: { runtime: "automatic", development: false } },
  define: { "process.env.NODE_ENV": JSON.stringify("production") },
  build: {
    outDir: STATIC,
    emptyOutDir: false,
    target: "es2022",
    modulePreload: false,
    cssCodeSplit: false,
    rollupOptions: {
      input: { ml: resolve(import.meta.dirname, "src/main.tsx") },
      preserveEntrySignatures: "strict",
      output: {
        format: "es",
        entryFileNames: "[name].js",
        chunkFileNames: "chunks/[name]-[hash].js",
      },
    },
  },
  test: { include: ["tests/**/*.test.ts"], environment: "node" },
});
