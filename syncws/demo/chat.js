"use strict";

const $ = (id) => document.getElementById(id);
const FIRST_DELAY = 500, LAST_DELAY = 10000, MOST_SHOWN = 500;
const SAMPLES = 60;     // of the charts, one a second

let socket = null;      // the only one, while it is not closed
let delay = FIRST_DELAY;
let timer = 0;          // of the next attempt
let room = null;        // the server's name for this run of it
let lastId = 0;         // of the messages shown from that room

// --- The nickname, kept from one visit to the next where the browser lets us -----------------

function remembered() {
  try { return localStorage.getItem("nick"); } catch { return null; }
}

function remember(nick) {
  try { localStorage.setItem("nick", nick); } catch { /* private mode: then not */ }
}

// --- What is said; text of others becomes text, never markup ----------------------------------

function element(name, className, text) {
  const made = document.createElement(name);
  made.className = className;
  made.textContent = text;
  return made;
}

function show(item) {
  const log = $("log");
  const atEnd = log.scrollHeight - log.scrollTop - log.clientHeight < 60;
  log.append(item);
  while (log.childElementCount > MOST_SHOWN) log.firstElementChild.remove();
  if (atEnd) log.scrollTop = log.scrollHeight;
}

function showMessage({id, nick, text, time}) {
  if (id <= lastId) return;
  lastId = id;
  const item = element("li", "message", "");
  const about = element("div", "about", "");
  const name = element("bdi", "nick", nick);
  name.style.setProperty("--hue", hueOf(nick));
  const when = new Date(time * 1000);
  const clock = element("time", "", when.toLocaleTimeString([], {hour: "2-digit", minute: "2-digit"}));
  clock.dateTime = when.toISOString();
  about.append(name, clock);
  const words = element("div", "words", text);
  words.dir = "auto";
  item.append(about, words);
  item.classList.toggle("own", nick === $("nick").value.trim());
  show(item);
}

function hueOf(nick) {
  let hash = 0;
  for (const character of nick) hash = (hash * 31 + character.codePointAt(0)) % 360;
  return hash;
}

function showHistory(past) {
  if (room !== null && past.room !== room) show(element("li", "note", "The server was restarted."));
  if (past.room !== room) {
    lastId = 0;
    forgetSamples();
  }
  room = past.room;
  past.messages.forEach(showMessage);
}

function showOnline(count) {
  $("online").textContent = count === null ? "" : count === 1 ? "only you here" : `${count} online`;
}

function showState(state, text) {
  $("state").dataset.state = state;
  $("state").textContent = text;
  for (const id of ["send", "small", "large"]) $(id).disabled = state !== "open";
  $("retry").hidden = state !== "closed";
}

// --- Figures ------------------------------------------------------------------------------------

const UNITS = ["B", "kB", "MB", "GB", "TB"];
const charts = {
  messages: {figure: $("chart-messages"), format: (value) => number(value), least: 4, in: [], out: []},
  bytes: {figure: $("chart-bytes"), format: (value) => bytes(value), least: 1000, in: [], out: []},
};
let before = null;      // the statistics of a second ago

function number(value) {
  const digits = value !== 0 && value < 10 && value % 1 ? 1 : 0;
  return value.toLocaleString("en", {maximumFractionDigits: digits});
}

function bytes(value) {
  let unit = 0;
  while (value >= 1000 && unit < UNITS.length - 1) { value /= 1000; unit++; }
  return `${unit === 0 ? Math.round(value) : value < 99.5 ? value.toPrecision(2) : Math.round(value)} ${UNITS[unit]}`;
}

function milliseconds(value) {
  return `${value < 0.1 ? value.toFixed(2) : value < 10 ? value.toFixed(1) : Math.round(value)} ms`;
}

function duration(seconds) {
  const [minutes, hours] = [Math.floor(seconds / 60), Math.floor(seconds / 3600)];
  return hours ? `${hours} h ${minutes % 60} min` : minutes ? `${minutes} min` : `${Math.floor(seconds)} s`;
}

function forgetSamples() {
  before = null;
  for (const chart of Object.values(charts)) chart.in = [], chart.out = [];
}

function showStats(stats) {
  const passed = before === null ? 0 : stats.time - before.time;
  const rate = (name) => Math.max(0, (stats[name] - before[name]) / passed);
  if (passed > 0) {
    addSample(charts.messages, rate("messages_received"), rate("messages_sent"));
    addSample(charts.bytes, rate("bytes_received"), rate("bytes_sent"));
    $("tile-messages").textContent = number(rate("messages_received") + rate("messages_sent"));
    showTraffic(rate("bytes_received") + rate("bytes_sent"));
  }
  before = stats;
  $("tile-open").textContent = number(stats.open);
  const latency = stats.rows[0].latency;
  $("tile-latency").textContent = latency ? milliseconds(latency * 1000) : "–";
  showRows(stats);
}

function showTraffic(value) {
  const [amount, unit] = bytes(value).split(" ");
  $("tile-bytes").replaceChildren(`${amount} `, element("small", "", `${unit}/s`));
}

function showRows({rows, open}) {
  $("rows").replaceChildren(...rows.map((row, index) => {
    const made = document.createElement("tr");
    const name = element("bdi", index === 0 ? "you" : "", row.name || "visitor");
    const first = document.createElement("td");
    first.append(name);
    made.append(
      first,
      element("td", "", row.latency ? milliseconds(row.latency * 1000) : "–"),
      element("td", "", `${number(row.messages_received)} / ${number(row.messages_sent)}`),
      element("td", "wide", `${bytes(row.bytes_received)} / ${bytes(row.bytes_sent)}`),
      element("td", "narrow", bytes(row.bytes_received + row.bytes_sent)),
      element("td", "wide", duration(row.age)),
    );
    return made;
  }));
  $("more").textContent = open > rows.length ? `and ${number(open - rows.length)} more` : "";
}

// --- Charts: the last minute, the newest at the right -------------------------------------------

function addSample(chart, received, sent) {
  for (const [list, value] of [[chart.in, received], [chart.out, sent]]) {
    list.push(value);
    if (list.length > SAMPLES) list.shift();
  }
  draw(chart);
}

// What was received goes up, what was sent goes down: they are often the same.
function draw({figure, format, least, in: received, out: sent}) {
  const [width, height] = [figure.clientWidth || 480, 112];
  const middle = height / 2;
  const peak = niceAbove(Math.max(least, ...received, ...sent));
  const x = (index, list) => width - (list.length - 1 - index) * width / (SAMPLES - 1);
  const y = (value) => middle - value / peak * (middle - 14);
  const path = (list, sign) => list.map(
    (value, i) => `${i ? "L" : "M"}${x(i, list).toFixed(1)} ${y(sign * value).toFixed(1)}`).join("");
  const drawing = svg("svg", {viewBox: `0 0 ${width} ${height}`, role: "img", preserveAspectRatio: "none"});
  const now = (list) => format(list[list.length - 1]);
  drawing.setAttribute("aria-label", `the last minute; now ${now(received)} received, ${now(sent)} sent, each second`);
  for (const value of [peak, 0, -peak]) {
    drawing.append(svg("line", {class: "grid", x1: 0, x2: width, y1: y(value), y2: y(value)}));
  }
  const label = svg("text", {x: 0, y: y(peak) - 4});
  label.textContent = format(peak);
  drawing.append(label);
  for (const [name, list, sign] of [["out", sent, -1], ["in", received, 1]]) {
    const line = path(list, sign);
    drawing.append(svg("path", {class: `area ${name}`, d: `${line}L${width} ${middle}L${x(0, list).toFixed(1)} ${middle}Z`}));
    drawing.append(svg("path", {class: `line ${name}`, d: line}));
  }
  figure.replaceChildren(drawing);
}

function svg(name, attributes) {
  const made = document.createElementNS("http://www.w3.org/2000/svg", name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  return made;
}

function niceAbove(value) {
  const power = 10 ** Math.floor(Math.log10(value));
  return [1, 2, 4, 5, 10].map((factor) => factor * power).find((nice) => nice >= value);
}

function askStats() {
  if (!document.hidden) say({type: "stats"});
}

// --- There and back -----------------------------------------------------------------------------

let echoes = [];        // what waits for the binary messages to come, the next first

function echo(data) {
  return new Promise((resolve, reject) => {
    echoes.push({resolve, reject});
    socket.send(data);
  });
}

function noise(size) {
  const data = new Uint8Array(size);
  for (let at = 0; at < size; at += 65536) crypto.getRandomValues(data.subarray(at, at + 65536));
  return data;
}

function same(data, back) {
  const other = new Uint8Array(back);
  return data.length === other.length && data.every((value, index) => value === other[index]);
}

async function measure(size, times) {
  const data = noise(size), took = [];
  for (let index = 0; index < times; index++) {
    const began = performance.now();
    const back = await echo(data);
    took.push(performance.now() - began);
    if (!same(data, back)) throw new Error("something else came back");
  }
  return took.sort((a, b) => a - b);
}

async function showSpeed(size, times) {
  for (const id of ["small", "large"]) $(id).disabled = true;
  try {
    const took = await measure(size, times);
    const median = took[Math.floor(took.length / 2)], slow = took[Math.floor(took.length * 0.99)];
    $("speed").textContent = times === 1
      ? `${size.toLocaleString("en")} bytes there and back in ${milliseconds(median)}, unharmed.`
      : `${times} messages, one after the other: median ${milliseconds(median)}, 99 % within ${milliseconds(slow)}.`;
  } catch (error) {
    $("speed").textContent = `It did not work: ${error.message}.`;
  }
  const open = socket !== null && socket.readyState === WebSocket.OPEN;
  for (const id of ["small", "large"]) $(id).disabled = !open;
}

// --- The connection, and the next one when it ends ----------------------------------------------

// RFC 6455 §7.4.1, and the codes registered later
const CLOSE_CODES = {
  1000: "normal closure", 1001: "going away", 1002: "protocol error", 1003: "unsupported data",
  1005: "no code", 1006: "connection lost", 1007: "invalid data", 1008: "policy violation",
  1009: "message too big", 1011: "server error", 1012: "service restart", 1013: "try again later",
};

function address() {
  const url = new URL("ws", location.href);
  url.protocol = url.protocol.replace("http", "ws");
  return url;
}

function connect() {
  clearTimeout(timer);
  showState("connecting", "connecting");
  socket = new WebSocket(address());
  socket.binaryType = "arraybuffer";
  socket.onopen = () => { showState("open", "connected"); sayName(); askStats(); };
  socket.onmessage = (event) => receive(event.data);
  socket.onclose = (event) => retry(event);
}

function receive(data) {
  delay = FIRST_DELAY; // the server works: it does not merely accept and close
  if (typeof data !== "string") {
    const next = echoes.shift();
    if (next) next.resolve(data);
    return;
  }
  const message = JSON.parse(data);
  if (message.type === "message") showMessage(message);
  else if (message.type === "stats") showStats(message);
  else if (message.type === "history") showHistory(message);
  else if (message.type === "online") showOnline(message.count);
  else if (message.type === "error") $("error").textContent = `Not sent: ${message.text}.`;
}

function retry({code, reason}) {
  socket = null;
  showOnline(null);
  for (const waiting of echoes.splice(0)) waiting.reject(new Error("the connection ended"));
  const wait = delay * (0.75 + Math.random() / 2); // not all tabs at the same moment
  delay = Math.min(delay * 2, LAST_DELAY);
  const why = reason || CLOSE_CODES[code] || "";
  showState("closed", `disconnected: ${code} ${why}; next try in ${Math.ceil(wait / 1000)} s`);
  timer = setTimeout(connect, wait);
}

function retryNow() {
  const ended = socket === null || socket.readyState === WebSocket.CLOSED;
  if (ended && !document.hidden) connect();
}

function say(message) {
  if (socket === null || socket.readyState !== WebSocket.OPEN) return false;
  socket.send(JSON.stringify(message));
  return true;
}

// --- What the visitor does ----------------------------------------------------------------------

function sayName() {
  const nick = $("nick").value.trim();
  if (nick) say({type: "name", nick});
}

function send(event) {
  event.preventDefault();
  const nick = $("nick").value.trim(), text = $("text").value.trim();
  if (!nick) $("nick").focus();
  if (!nick || !text || !say({type: "message", nick, text})) return;
  remember(nick);
  $("error").textContent = "";
  $("text").value = "";
  fit();
  $("text").focus();
}

function fit() {
  const text = $("text");
  text.style.height = "";
  text.style.height = `${text.scrollHeight + 2}px`;
}

$("nick").value = remembered() || `guest ${Math.floor(Math.random() * 900 + 100)}`;
$("nick").addEventListener("change", sayName);
$("form").addEventListener("submit", send);
$("text").addEventListener("input", fit);
$("text").addEventListener("keydown", (event) => {
  if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
  event.preventDefault();
  $("form").requestSubmit();
});
$("retry").addEventListener("click", connect);
$("small").addEventListener("click", () => showSpeed(32, 500));
$("large").addEventListener("click", () => showSpeed(1 << 20, 1));
addEventListener("online", retryNow);
document.addEventListener("visibilitychange", retryNow);
// A tab that comes out of the browser's page cache has lost its connection.
addEventListener("pageshow", (event) => { if (event.persisted) retryNow(); });
setInterval(askStats, 1000);
if (matchMedia("(min-width: 60rem)").matches) $("text").focus();
connect();
