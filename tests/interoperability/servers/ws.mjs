// A server of the package "ws" for the client of syncws.

import { createRequire } from "node:module";

const require = createRequire(`${process.env.NODE_MODULES}/`);
const { WebSocketServer } = require("ws");

const ends = [];
const asking = [];

function tell() {
  while (ends.length && asking.length) asking.shift().send(ends.shift());
}

const actions = {
  "/echo": (socket) => socket.on("message", (data, binary) => socket.send(data, { binary })),
  "/joined": (socket) => socket.on("message", (data, binary) => socket.send(data, { binary })),
  "/fragments": (socket) => {
    socket.send("one, ", { fin: false });
    socket.send("two, ", { fin: false });
    socket.send("three", { fin: true });
  },
  "/ping": (socket) => {
    socket.on("pong", () => socket.send("answered"));
    socket.ping("x");
  },
  "/close": (socket) => socket.close(4001, "Größe"),
  "/closed": (socket) =>
    socket.on("close", (code, reason) => {
      ends.push(`${code} ${reason}`);
      tell();
    }),
  "/report": (socket) => {
    asking.push(socket);
    tell();
  },
};

const server = new WebSocketServer({
  host: "127.0.0.1",
  port: 0,
  perMessageDeflate: true,
  handleProtocols: (offered) => (offered.has("chat.v2") ? "chat.v2" : false),
});
server.on("connection", (socket, request) => actions[request.url](socket));
server.on("listening", () =>
  console.log(JSON.stringify({ version: require("ws/package.json").version, port: server.address().port })),
);
