// A server of Bun for the client of syncws.

const ends = [];
const asking = [];

function tell() {
  while (ends.length && asking.length) asking.shift().send(ends.shift());
}

const opened = {
  "/fragments": (socket) => socket.close(4404, "it sends a message as one frame"),
  "/ping": (socket) => socket.ping("x"),
  "/close": (socket) => socket.close(4001, "Größe"),
  "/report": (socket) => {
    asking.push(socket);
    tell();
  },
};

const server = Bun.serve({
  hostname: "127.0.0.1",
  port: 0,
  fetch(request, server) {
    const offered = (request.headers.get("sec-websocket-protocol") ?? "").split(/, */);
    const headers = offered.includes("chat.v2") ? { "Sec-WebSocket-Protocol": "chat.v2" } : {};
    server.upgrade(request, { data: new URL(request.url).pathname, headers });
  },
  websocket: {
    perMessageDeflate: true,
    open: (socket) => opened[socket.data]?.(socket),
    message: (socket, message) => socket.send(message, true),
    pong: (socket) => {
      if (socket.data === "/ping") socket.send("answered");
    },
    close: (socket, code, reason) => {
      if (socket.data !== "/closed") return;
      ends.push(`${code} ${reason}`);
      tell();
    },
  },
});
console.log(JSON.stringify({ version: Bun.version, port: server.port }));
