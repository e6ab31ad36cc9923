// Builds the page into one self-contained file: ../static/page.html (no request but the API's, works offline).
import { createHash } from "node:crypto";
import { readFileSync, readdirSync, writeFileSync, mkdirSync } from "node:fs";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { build } from "esbuild";

const here = dirname(fileURLToPath(import.meta.url));
const result = await build({
  entryPoints: [join(here, "src/main.ts")],
  bundle: true,
  write: false,
  minify: true,
  target: "es2021",
  format: "iife",
  charset: "utf8",
  legalComments: "none",
});
const style = await build({
  entryPoints: [join(here, "src/style.css")],
  bundle: true,
  write: false,
  minify: true,
  target: "chrome111",
});

// A test computes the same digest, so that a forgotten build is noticed without Node.
const sources = createHash("sha256");
for (const name of readdirSync(join(here, "src")).sort()) {
  sources.update(name).update("\0").update(readFileSync(join(here, "src", name))).update("\0");
}

const page = readFileSync(join(here, "src/page.html"), "utf8")
  .replace("/*style*/", () => style.outputFiles[0].text.trim())
  .replace("/*script*/", () => result.outputFiles[0].text.trim().replaceAll("</script", "<\\/script"))
  .replace("{sources}", sources.digest("hex"));
mkdirSync(join(here, "../static"), { recursive: true });
writeFileSync(join(here, "../static/page.html"), page);
