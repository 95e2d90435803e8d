// The dashboards' questions to Loki: read by Grafana's own grammar of LogQL, by labels that Promtail gives. No registry has Loki
// itself, so what it answers is not seen.
//
//     node .ci/logs.mjs NODE_MODULES      (with @grafana/lezer-logql, @lezer/lr and @lezer/common)
//
// Prints what is wrong and exits with 1; first every check finds a planted mistake.
import { readFileSync, readdirSync } from "node:fs";
import { join, resolve } from "node:path";
import { pathToFileURL } from "node:url";

const root = resolve(import.meta.dirname ?? new URL(".", import.meta.url).pathname, "..");
const { parser } = await import(pathToFileURL(join(resolve(process.argv[2]), "@grafana/lezer-logql/index.es.js")));

/** Labels of promtail.yaml: those of its target, and those that its pipeline makes. */
function labels(text) {
  const own = text.match(/^ +labels:\n((?: +\w+: .*\n)+)/m)[1].matchAll(/(\w+): /g);
  const made = text.matchAll(/- labels:\n((?: +\w+:\n)+)/g);
  return new Set([...own].map((m) => m[1]).filter((l) => !l.startsWith("__")).concat([...made].flatMap((m) => [...m[1].matchAll(/(\w+):/g)].map((l) => l[1]))));
}

function wrong(query, known) {
  const found = [];
  parser.parse(query).iterate({
    enter(node) {
      if (node.type.isError) found.push(`${query}: what is at ${node.from}?`);
      if (node.name === "Selector")
        for (const [, label] of query.slice(node.from, node.to).matchAll(/(\w+)\s*(?:=~|!~|!=|=)/g))
          if (!known.has(label)) found.push(`${query}: Promtail gives no label ${label}`);
    },
  });
  return found;
}

const known = labels(readFileSync(join(root, "deployments/loki/promtail.yaml"), "utf8"));
const folder = join(root, "deployments/grafana/dashboards");
const queries = readdirSync(folder).flatMap((file) =>
  JSON.parse(readFileSync(join(folder, file), "utf8")).panels.filter((p) => p.datasource.type === "loki").flatMap((p) => p.targets.map((t) => t.expr)),
);
for (const planted of ['{job="containers" level="WARN"}', '{job="containers"', '{job="containers"} |= ', '{jobs="containers"}'])
  if (!wrong(planted, known).length) throw new Error(`${planted} is taken`);
if (!queries.length) throw new Error("no dashboard asks Loki");
const all = queries.flatMap((query) => wrong(query, known));
console.log(all.join("\n") || `${queries.length} queries of logs, labels ${[...known].join(", ")}`);
process.exitCode = all.length ? 1 : 0;
