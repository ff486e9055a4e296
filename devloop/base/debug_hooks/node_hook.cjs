// node loads this at its start in a service with `debug: {kind: node}`: it opens the inspector for an
// editor, then leaves everything as it would be without.
//
// The first process that can open it does, and takes the variables away that ask for it. It runs in
// containers, in any version of node: nothing here may keep the program from running, and what cannot
// be had is said in one line that devloop/app/debugging.py reads.
"use strict";

// They start the program, and are none themselves.
const LAUNCHERS =
  /^(npm|npx|npm-cli|npx-cli|yarn|yarnpkg|pnpm|pnpx|corepack|nodemon|tsx|ts-node-dev|tsnd|node-dev|nest|concurrently|conc|run-s|run-p|npm-run-all|cross-env|cross-env-shell|dotenv|env-cmd|turbo|lerna|nx|pm2|pm2-runtime|wait-on)(\.(c|m)?js)?$/;
const INSIDE = /[\\/]node_modules[\\/](npm|yarn|pnpm|corepack|nodemon|tsx|ts-node-dev|node-dev|concurrently|cross-env)[\\/]/;

function starts() {
  const script = process.argv[1] || "";
  if (LAUNCHERS.test(script.split(/[\\/]/).pop()) || INSIDE.test(script)) return true;
  const watches = process.execArgv.some((each) => /^--watch(-path.*)?$/.test(each));
  return watches && !process.env.WATCH_REPORT_DEPENDENCIES;
}

function listen(port) {
  try {
    if (!require("worker_threads").isMainThread) return null;
  } catch {
    // None in this version.
  }
  if (starts()) return null;
  try {
    const inspector = require("inspector");
    if (inspector.url()) return "the inspector is on already, at " + inspector.url();
    inspector.open(port, "127.0.0.1");
    return inspector.url() ? "" : "port " + port + " of the container: Address already in use";
  } catch (error) {
    return "node: " + String((error && error.message) || error).split("\n")[0];
  }
}

try {
  const port = Number(process.env.DEVLOOP_DEBUG);
  const why = port ? listen(port) : null;
  if (why) {
    require("fs").writeSync(2, "devloop: debug: not started: " + why + "\n");
  } else if (why === "") {
    delete process.env.DEVLOOP_DEBUG;
    const own = "--require " + __filename;
    const rest = (process.env.NODE_OPTIONS || "").split(own).join("").trim();
    if (rest) process.env.NODE_OPTIONS = rest;
    else delete process.env.NODE_OPTIONS;
  }
} catch {
  // The program runs without.
}
