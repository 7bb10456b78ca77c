// SPDX-License-Identifier: Apache-2.0
import { expect, test } from "vitest";
import { url } from "../src/api";
import { byPurpose, bytes, choices, compact, day, delta, newestFirst, number, safeHref, short, time, usableZone, zoneOffset } from "../src/format";

test("sizes carry three digits and a decimal unit", () => {
  expect([0, 999, 1000, 1834112, 999_999, 5e15, null].map(bytes)).toEqual(["0 B", "999 B", "1 kB", "1.83 MB", "1 MB", "5 PB", "–"]);
});

test("numbers are short, and what JSON lacks stays a word", () => {
  expect([0, 0.712345, 12345, 1234.56, 1e-9, "NaN", null].map(number)).toEqual(["0", "0.7123", "12,345", "1,234.6", "1.000e-9", "NaN", "–"]);
  expect([0.01, -0.01, 0, "NaN"].map(delta)).toEqual(["+0.01", "−0.01", "0", "NaN"]);
  expect([250000, 0.5, 1200].map(compact)).toEqual(["250k", "0.5", "1,200"]);
});

test("times are told in the zone of the UI, summer time too", () => {
  expect(time("2013-05-14T00:00:00+00:00", "Europe/Berlin")).toBe("2013-05-14 02:00:00");
  expect(time("2013-01-14T00:00:00+00:00", "Europe/Berlin")).toBe("2013-01-14 01:00:00");
  expect(day("2013-05-14T00:00:00+00:00", "UTC")).toBe("2013-05-14");
  expect(day("2013-05-14T00:00:00+00:00", "America/New_York")).toBe("2013-05-13 20:00");
  expect(time("no time", "UTC")).toBe("no time");
  expect(zoneOffset(Date.parse("2013-05-14T00:00:00Z"), "Europe/Berlin")).toBe(7_200_000);
});

test("an unknown zone falls back to UTC", () => {
  expect([usableZone("Europe/Berlin"), usableZone("Nowhere/Land"), usableZone(null)]).toEqual(["Europe/Berlin", "UTC", "UTC"]);
});

test("only web addresses become links", () => {
  expect(safeHref("https://mlflow/#/runs/1")).toBe("https://mlflow/#/runs/1");
  for (const bad of ["javascript:alert(1)", "data:text/html,x", " javascript:alert(1)", "/local", "", null]) expect(safeHref(bad)).toBeNull();
});

test("ids and names of users are escaped in addresses", () => {
  expect(url(["dags", "a/b?c", "runs", "x#y"], { q: "&=", empty: "", none: null })).toBe("dags/a%2Fb%3Fc/runs/x%23y?q=%26%3D");
  expect(short("0123456789abcdefghij", 11)).toBe("01234…fghij");
});

test("what is run instead of other commands does not stand among them", () => {
  const [bad, one, two, again] = ["origin", "clear", "clear", "backfill"].map((purpose, index) => ({ purpose, shell: String(index) }));
  expect(byPurpose([again!, bad!, one!, two!]).map((each) => each.commands)).toEqual([[bad], [one, two], [again]]);
  expect(byPurpose([one!])).toHaveLength(1);
});

test("decisions of several pages stand in one order", () => {
  const [may, june, again] = [
    { effective_at: "2013-05-01T00:00:00+00:00", recorded_at: "2013-07-01T00:00:00+00:00" },
    { effective_at: "2013-06-01T00:00:00+00:00", recorded_at: "2013-06-01T00:00:00+00:00" },
    { effective_at: "2013-06-01T00:00:00+00:00", recorded_at: "2013-06-02T00:00:00+00:00" },
  ];
  expect(newestFirst([june!, may!, { effective_at: null }, again!])).toEqual([again, june, may, { effective_at: null }]);
});

test("a list shows as chosen only what is", () => {
  expect(choices("b", ["a", "b"])).toEqual([{ value: "a", label: "a" }, { value: "b", label: "b" }]);
  expect(choices("", ["a"])).toEqual([{ value: "", label: "–" }, { value: "a", label: "a" }]);
  expect(choices("gone", [{ value: "a", label: "A" }])).toEqual([{ value: "gone", label: "gone" }, { value: "a", label: "A" }]);
});
