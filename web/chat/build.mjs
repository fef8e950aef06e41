#!/usr/bin/env node
// Builds the page into dist/: one script, one style sheet, the font, each with a hash in its name, and the shell that names them; everything that gains by it
// also as .br and .gz.   node build.mjs            the page
//                         node build.mjs --tests    build/test/*.test.mjs, for node --test
import { createHash } from "node:crypto";
import { cp, mkdir, readFile, readdir, rm, writeFile } from "node:fs/promises";
import { basename, join } from "node:path";
import { fileURLToPath } from "node:url";
import { brotliCompressSync, constants, gzipSync } from "node:zlib";
import { build } from "esbuild";

const here = fileURLToPath(new URL(".", import.meta.url));
const at = (...parts) => join(here, ...parts);
const TARGET = ["chrome116", "edge116", "firefox117", "safari17"];
const COMPRESSED = /\.(js|css|html|svg|webmanifest)$/;

const common = { absWorkingDir: here, bundle: true, jsx: "automatic", jsxImportSource: "preact", logLevel: "warning", target: TARGET, legalComments: "none" };

async function tests() {
  const names = (await readdir(at("test"))).filter((name) => /\.test\.tsx?$/.test(name));
  await rm(at("build"), { recursive: true, force: true });
  await build({ ...common, entryPoints: names.map((name) => at("test", name)), outdir: at("build/test"), outExtension: { ".js": ".mjs" }, format: "esm", platform: "node",
    target: "node20", packages: "external", sourcemap: "inline" });
}

async function page() {
  const dist = at("dist");
  await mkdir(dist, { recursive: true });
  // the folder and its .gitignore stay: the server's build looks whether they change
  for (const name of await readdir(dist)) if (name !== ".gitignore") await rm(join(dist, name), { recursive: true });
  const hashed = { ...common, minify: true, outdir: join(dist, "assets"), entryNames: "[name]-[hash]", assetNames: "[name]-[hash]", loader: { ".woff2": "file" }, publicPath: "/assets/", metafile: true };
  const results = [
    await build({ ...hashed, entryPoints: [at("src/main.tsx"), at("src/styles/main.css")], format: "esm" }),
    await build({ ...hashed, entryPoints: [at("src/theme.ts")], format: "iife" }),
  ];
  const names = {};
  for (const { metafile } of results) {
    for (const [output, { entryPoint }] of Object.entries(metafile.outputs)) {
      if (entryPoint !== undefined) names[basename(entryPoint).replace(/\.tsx?$/, ".js")] = `/assets/${basename(output)}`;
    }
  }
  const html = (await readFile(at("src/index.html"), "utf8")).replace(/\{\{([\w.]+)\}\}/g, (_, name) => names[name] ?? fail(`no ${name}`));
  await writeFile(join(dist, "index.html"), html);
  await cp(at("public"), dist, { recursive: true });

  const assets = (await readdir(join(dist, "assets"))).sort();
  const files = ["/", ...assets.map((name) => `/assets/${name}`), "/manifest.webmanifest", "/icons/icon.svg", "/icons/icon-192.png"];
  const hash = createHash("sha256");
  for (const path of files) hash.update(await readFile(join(dist, path === "/" ? "index.html" : path)));
  await build({ ...common, entryPoints: [at("src/sw.ts")], outfile: join(dist, "sw.js"), minify: true, format: "iife",
    define: { FILES: JSON.stringify(files), BUILD: JSON.stringify(hash.digest("hex").slice(0, 16)) } });
  await compress(dist);
}

/** The same file smaller, where that is so. */
async function compress(folder) {
  for (const entry of await readdir(folder, { withFileTypes: true, recursive: true })) {
    const path = join(entry.parentPath ?? entry.path, entry.name);
    if (!entry.isFile() || !COMPRESSED.test(entry.name)) continue;
    const bytes = await readFile(path);
    const brotli = brotliCompressSync(bytes, { params: { [constants.BROTLI_PARAM_QUALITY]: 11 } });
    if (brotli.length > bytes.length * 0.9) continue;
    await writeFile(`${path}.br`, brotli);
    await writeFile(`${path}.gz`, gzipSync(bytes, { level: 9 }));
    if (process.env.VERBOSE) console.log(`${entry.name}: ${bytes.length} bytes, ${brotli.length} compressed`);
  }
}

function fail(why) { throw new Error(why); }

await (process.argv.includes("--tests") ? tests() : page());
