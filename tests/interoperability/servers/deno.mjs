// A server of Deno for the client of syncws.

const ends = [];
const asking = [];

function tell() {
  while (ends.length && asking.length) asking.shift().send(ends.shift());
}

const absent = (reason) => (socket) => {
  socket.onopen = () => socket.close(4404, reason);
};
const echo = (socket) => {
  socket.onmessage = (event) => socket.send(event.data);
};
const actions = {
  "/echo": echo,
  "/joined": echo,
  "/fragments": absent("it sends a message as one frame"),
  "/ping": absent("it pings by itself, and tells nobody"),
  "/close": (socket) => {
    socket.onopen = () => socket.close(4001, "Größe");
  },
  "/closed": (socket) => {
    socket.onclose = ({ code, reason }) => {
      ends.push(`${code} ${reason}`);
      tell();
    };
  },
  "/report": (socket) => {
    socket.onopen = () => {
      asking.push(socket);
      tell();
    };
  },
};

Deno.serve(
  {
    hostname: "127.0.0.1",
    port: 0,
    onListen: ({ port }) => console.log(JSON.stringify({ version: Deno.version.deno, port })),
  },
  (request) => {
    const offered = (request.headers.get("sec-websocket-protocol") ?? "").split(/, */);
    const options = offered.includes("chat.v2") ? { protocol: "chat.v2" } : {};
    const { socket, response } = Deno.upgradeWebSocket(request, options);
    socket.binaryType = "arraybuffer";
    actions[new URL(request.url).pathname](socket);
    return response;
  },
);
