// The client of the package "ws".

import { createRequire } from "node:module";
import { runChecks } from "./checks.mjs";

// Found where the command installed it, which is not beside this file.
const require = createRequire(`${process.env.NODE_MODULES}/`);
const WebSocket = require("ws");

const print = (value) => console.log(JSON.stringify(value));
const extras = {
  sendFragments: (socket, parts) =>
    parts.forEach((part, index) => socket.send(part, { fin: index === parts.length - 1 })),
  ping: (socket) =>
    new Promise((resolve) => {
      socket.once("pong", resolve);
      socket.ping("x");
    }),
};
print({ version: require("ws/package.json").version });
// By itself it compresses from 1 KiB up, and so does it here.
await runChecks(process.argv[2], process.argv[3], print, { WebSocket, extras });
process.exit(0);
