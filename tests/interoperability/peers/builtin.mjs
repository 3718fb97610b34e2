// The WebSocket that a runtime brings along: Node, Deno, Bun.

import { runChecks } from "./checks.mjs";

const runtime = globalThis.Deno ?? globalThis.Bun;
const [uri, compressing] = globalThis.Deno ? Deno.args : process.argv.slice(2);
const version = globalThis.Deno?.version.deno ?? globalThis.Bun?.version ?? process.versions.node;
const print = (value) => console.log(JSON.stringify(value));

const extras = {};
if (globalThis.Bun) {
  extras.ping = (socket) =>
    new Promise((resolve) => {
      socket.addEventListener("pong", resolve);
      socket.ping("x");
    });
}
print({ version });
await runChecks(uri, compressing, print, { WebSocket: globalThis.WebSocket, extras });
(runtime === globalThis.Deno && runtime ? Deno : process).exit(0);
