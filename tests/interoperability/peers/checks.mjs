// The checks of a client with the interface that browsers have; each answers "yes", "absent" (the
// client has no such thing) or ONE_WAY, or throws what went wrong.

const PATIENCE = 20000; // milliseconds

// RFC 7692 §6.1: who has agreed to compress may send a message as it is.
const UNUSED = "negotiated, but not used";
const ONE_WAY = "it receives compressed messages, and sends its own as they are";

// Opens a connection; its messages and its end can be awaited.
class Link {
  constructor(WebSocket, url, protocols = [], ...options) {
    this.socket = new WebSocket(url, protocols, ...options);
    this.socket.binaryType = "arraybuffer";
    this.waiting = [];
    this.arrived = [];
    this.ended = new Promise((resolve) => {
      this.socket.onclose = ({ code, reason }) => {
        resolve({ code, reason });
        this.put(null);
      };
    });
    this.opened = new Promise((resolve, reject) => {
      this.socket.onopen = resolve;
      this.socket.onerror = (event) => reject(new Error(event.message || "not opened"));
    });
    this.opened.catch(() => {});
    this.socket.onmessage = (event) => this.put(event.data);
  }

  put(message) {
    const waiter = this.waiting.shift();
    if (waiter) waiter(message);
    else this.arrived.push(message);
  }

  async recv() {
    const next = this.arrived.length
      ? this.arrived.shift()
      : await within(new Promise((resolve) => this.waiting.push(resolve)));
    if (next === null) throw new Error("closed before a message came");
    return next;
  }
}

function within(promise) {
  let timer;
  const late = new Promise((_, reject) => {
    timer = setTimeout(() => reject(new Error("nothing came in time")), PATIENCE);
  });
  return Promise.race([promise, late]).finally(() => clearTimeout(timer));
}

function expect(got, wanted) {
  if (got !== wanted) throw new Error(`got ${String(got).slice(0, 60)}, not ${wanted.slice(0, 60)}`);
  return "yes";
}

function pattern(length) {
  return Uint8Array.from({ length }, (_, index) => index % 251);
}

// Adds to the checks of browsers what a client of a program may have besides:
// sendFragments(socket, parts), and ping(socket), a promise of the pong.
export async function runChecks(uri, compressing, report, { WebSocket, extras = {}, options = [] }) {
  const link = async (path, protocols, base = uri) => {
    const made = new Link(WebSocket, base + path, protocols, ...options);
    await within(made.opened);
    return made;
  };
  const echoes = async (messages) => {
    const connection = await link("/echo");
    for (const message of messages) {
      connection.socket.send(message);
      const echo = await connection.recv();
      if (typeof message === "string") {
        expect(echo, message);
      } else {
        if (typeof echo === "string") throw new Error("binary came back as text");
        const got = new Uint8Array(echo);
        expect(String(got.length), String(message.length));
        if (!got.every((byte, index) => byte === message[index])) throw new Error("other bytes");
      }
    }
    connection.socket.close();
    await within(connection.ended);
    return "yes";
  };

  const checks = {
    text: () => echoes(["Grüße, 世界 🌍"]),
    binary: () => echoes([pattern(256)]),
    empty: () => echoes(["", new Uint8Array(0)]),
    "64k": () => echoes(["ä".repeat(32768), pattern(65536)]),
    "1m": () => echoes([pattern(1048576)]),
    "fragments-to": async () => {
      const connection = await link("/fragments");
      return expect(await connection.recv(), "one, two, three");
    },
    "fragments-from": async () => {
      if (!extras.sendFragments) return "absent";
      const connection = await link("/joined");
      extras.sendFragments(connection.socket, ["one, ", "two, ", "three"]);
      return expect(await connection.recv(), "fragments: one, two, three");
    },
    "pings-to": async () => {
      const connection = await link("/ping");
      return expect(await connection.recv(), "answered");
    },
    "pings-from": async () => {
      if (!extras.ping) return "absent";
      const connection = await link("/echo");
      await within(extras.ping(connection.socket));
      connection.socket.close();
      return "yes";
    },
    "close-to": async () => {
      const connection = await link("/close");
      const { code, reason } = await within(connection.ended);
      return expect(`${code} ${reason}`, "4001 Größe");
    },
    "close-from": async () => {
      const connection = await link("/closed");
      connection.socket.close(4002, "Übung");
      await within(connection.ended);
      return expect(await (await link("/report")).recv(), "4002 Übung");
    },
    subprotocol: async () => {
      const connection = await link("/echo", ["chat.v9", "chat.v2"]);
      return expect(connection.socket.protocol, "chat.v2");
    },
    compression: async () => {
      const connection = await link("/compression", [], compressing);
      const message = "compress me, ".repeat(1000);
      connection.socket.send(message);
      const found = await connection.recv();
      if (found === "not negotiated") return "absent";
      expect(await connection.recv(), message);
      return found === UNUSED ? ONE_WAY : expect(found, "compressed");
    },
  };
  for (const [check, act] of Object.entries(checks)) {
    let found = { check };
    try {
      const result = await act();
      if (result === ONE_WAY) Object.assign(found, { result: "partly", note: ONE_WAY });
      else found.result = result;
    } catch (error) {
      found.result = "no";
      found.note = error.message || String(error);
    }
    report(found);
  }
}
