// Two people, two tabs. Everything a client of the protocol must do, and nothing else: docs/protocol.md has the words.
//
// What must survive a reload lives in sessionStorage, one tab one device: the device's name, the cursor (the seq of the last event
// stored, and its epoch) and the outbox (what was sent and not yet answered). Text reaches the page by textContent only.
"use strict";

const $ = (id) => document.getElementById(id);
const NUMBER = /^[1-9][0-9]{0,19}$/;
const BACKOFF_FIRST_MS = 500, BACKOFF_LAST_MS = 30_000, PING_EVERY_MS = 20_000, ACK_EVERY_MS = 200, ACK_EVERY_EVENTS = 32, HISTORY_PAGE = 50;
// Close codes after which coming again by itself would be wrong.
const STOPS = {
  1002: "the server says this page breaks the WebSocket protocol", 1003: "the server did not take a frame", 1007: "the server did not take a frame",
  1009: "a frame was too large", 4400: "the server says this page sent a bad request", 4403: "this token is for another device",
  4409: "this tab's device connected elsewhere (a duplicated tab?)", 4426: "the server speaks another version of the protocol",
};

// --- what is kept ------------------------------------------------------------------------------------------------
const kept = {
  read(name, otherwise) {
    try { return JSON.parse(sessionStorage.getItem("switchboard." + name)) ?? otherwise; } catch { return otherwise; }
  },
  write(name, value) {
    if (value === null) sessionStorage.removeItem("switchboard." + name);
    else sessionStorage.setItem("switchboard." + name, JSON.stringify(value));
  },
};

function uuid7() {
  const bytes = crypto.getRandomValues(new Uint8Array(16));
  let ms = Date.now();
  for (let i = 5; i >= 0; i--) { bytes[i] = ms % 256; ms = Math.floor(ms / 256); }
  bytes[6] = 0x70 | (bytes[6] & 0x0f);
  bytes[8] = 0x80 | (bytes[8] & 0x3f);
  const hex = Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
  return [hex.slice(0, 8), hex.slice(8, 12), hex.slice(12, 16), hex.slice(16, 20), hex.slice(20)].join("-");
}

const device = kept.read("device", null) ?? uuid7();
kept.write("device", device);

let me = null, to = null;            // who talks to whom: decimal strings
let token = null;                    // never in the URL
let tokensForTheAsking = true;       // false once POST /dev/token said 404
let cursor = null;                   // {seq, epoch} or null: never attached
let outbox = [];                     // [{id, to, text}], oldest first
let shown = new Map();               // "from/id" -> list item, of the conversation on the screen
let older = null;                    // position before which older messages are

const conversationWith = (user) => "d:" + (BigInt(me) < BigInt(user) ? `${me}:${user}` : `${user}:${me}`);
const keepCursor = (seq, epoch) => { cursor = { seq, epoch }; kept.write("cursor." + me, cursor); };
const keepOutbox = () => kept.write("outbox." + me, outbox);

// --- what is shown -----------------------------------------------------------------------------------------------
function state(name, words) {
  $("state").dataset.state = name;
  $("state").textContent = words;
}

function note(words) {
  $("note").textContent = words;
  $("note").hidden = !words;
}

function tick(item, name, words) {
  item.dataset.state = name;
  const mark = item.querySelector(".tick");
  if (mark) mark.textContent = { pending: "… sending", accepted: "✓ accepted", refused: "✗ " + (words ?? "refused") }[name];
}

// Shows a message once, however often it comes: from the outbox, as an event, in a page of history.
function show(message) {
  const key = message.from + "/" + message.id;
  const list = $("messages");
  const atEnd = list.scrollHeight - list.scrollTop - list.clientHeight < 40;
  let item = shown.get(key);
  if (!item) {
    item = document.createElement("li");
    item.dataset.testid = "message";
    item.dataset.id = message.id;
    item.classList.toggle("mine", message.from === me);
    const text = document.createElement("div");
    text.className = "text";
    text.dataset.testid = "message-text";
    const foot = document.createElement("div");
    foot.className = "foot";
    const who = document.createElement("span");
    who.className = "unseen";
    who.textContent = message.from === me ? "You, " : `User ${message.from}, `;
    const time = document.createElement("time");
    foot.append(who, time);
    if (message.from === me) {
      const mark = document.createElement("span");
      mark.className = "tick";
      mark.dataset.testid = "tick";
      foot.append(" ", mark);
    }
    item.append(text, foot);
    shown.set(key, item);
  }
  item.querySelector(".text").textContent = message.body.text;
  if (message.at) {
    const time = item.querySelector("time");
    time.dateTime = message.at;
    time.textContent = new Date(message.at).toLocaleTimeString([], { hour: "2-digit", minute: "2-digit" });
  }
  if (message.position) item.dataset.position = message.position;
  tick(item, message.position ? "accepted" : "pending");
  // By position; those without one yet stand last, in the order they were written.
  const after = (other) => !other.dataset.position || (message.position && BigInt(other.dataset.position) > BigInt(message.position));
  let next = null;
  for (let other = list.lastElementChild; other; other = other.previousElementSibling) {
    if (other === item) continue;
    if (!message.position || !after(other)) break;
    next = other;
  }
  if (!item.isConnected || message.position) list.insertBefore(item, next);
  if (atEnd || message.from === me) list.scrollTop = list.scrollHeight;
}

function showOther(user) {
  if (user === me || document.querySelector(`#others a[data-user="${user}"]`)) return;
  const link = document.createElement("a");
  link.href = `#me=${me}&to=${user}`;
  link.dataset.user = user;
  link.textContent = "user " + user;
  $("others").append($("others").childElementCount ? ", " : "New from ", link);
  $("others").hidden = false;
}

// --- the connection ----------------------------------------------------------------------------------------------
let socket = null, attempt = 0, timer = null, limits = { in_flight: 32, body_bytes: 16384 }, heartbeat_s = 30;
let run = 0;                         // counts connects wanted; an answer for an older one is dropped
let live = false, moving = false;
let sent = new Set();                // ids sent on this connection and not yet answered
let refusals = 0;                    // handshakes refused with a pasted token, one after another
let retry = null, toAck = null, unacked = 0, ackTimer = null, heardAt = 0;

const post = (frame) => { if (socket?.readyState === WebSocket.OPEN) socket.send(JSON.stringify(frame)); };

async function takeToken() {
  if (token) return true;
  if (tokensForTheAsking) {
    const answer = await fetch("/dev/token", {
      method: "POST", headers: { "content-type": "application/json" }, body: JSON.stringify({ user: me, device }),
    });
    if (answer.ok) { token = (await answer.json()).data.token; return true; }
    if (answer.status >= 500 || answer.status === 429) throw new Error("HTTP " + answer.status);
    if (answer.status !== 404) { state("stopped", "Stopped"); note(`The server gives user ${me} no token (HTTP ${answer.status}).`); return false; }
    tokensForTheAsking = false;
  }
  token = kept.read("token." + me, null);
  if (token) return true;
  askForToken();
  return false;
}

function askForToken() {
  $("token-user").textContent = me;
  $("token-form").hidden = false;
  state("stopped", "A token is needed");
}

function forgetToken() {
  token = null;
  kept.write("token." + me, null);
}

async function connect() {
  const mine = ++run;
  clearTimeout(timer);
  drop();
  state("connecting", "Connecting…");
  try {
    if (!await takeToken()) return;
  } catch {
    if (mine === run) later();
    return;
  }
  if (mine !== run) return;
  const url = (location.protocol === "https:" ? "wss://" : "ws://") + location.host + "/ws";
  const opening = new WebSocket(url, ["switchboard.v1.json", "switchboard.bearer." + token]);
  let opened = false;
  socket = opening;
  heardAt = Date.now();
  opening.onopen = () => { opened = true; hello(); };
  opening.onmessage = (frame) => { heardAt = Date.now(); receive(JSON.parse(frame.data)); };
  opening.onclose = (close) => { drop(); closed(close.code, opened); };
}

function hello() {
  const frame = { type: "hello", version: 1, device };
  if (cursor) { frame.cursor = cursor.seq; frame.epoch = cursor.epoch; }
  post(frame);
}

// Lets go of the socket, whether or not it ever notices.
function drop() {
  const old = socket;
  socket = null;
  live = moving = false;
  sent = new Set();
  clearTimeout(retry); retry = null;
  clearTimeout(ackTimer); ackTimer = toAck = null; unacked = 0;
  if (old) { old.onopen = old.onmessage = old.onclose = null; old.close(1000); }
}

async function closed(code, opened) {
  if (STOPS[code]) { state("stopped", "Stopped"); note(`Stopped (${code}): ${STOPS[code]}. Press Connect to go on here.`); return; }
  if (code === 4401) { forgetToken(); if (!tokensForTheAsking) return askForToken(); }
  if (code === 4410) { cursor = null; kept.write("cursor." + me, null); }
  if (code === 4429) attempt = 6;
  later();
  // A handshake that was refused says nothing to a page. If the server is there, the token is the likely cause.
  if (opened || !await fetch("/health").then((answer) => answer.ok, () => false)) return;
  if (tokensForTheAsking) token = null;
  else if (++refusals >= 3) forgetToken();
}

function later(atLeast_ms = 0) {
  const wait = atLeast_ms + Math.random() * Math.min(BACKOFF_LAST_MS, BACKOFF_FIRST_MS * 2 ** attempt++);
  state("waiting", "Connection lost; trying again");
  clearTimeout(timer);
  timer = setTimeout(connect, wait);
}

setInterval(() => {
  if (!socket || socket.readyState !== WebSocket.OPEN) return;
  if (Date.now() - heardAt > 2 * heartbeat_s * 1000) { drop(); later(); return; }
  post({ type: "ping" });
}, PING_EVERY_MS);
addEventListener("online", () => { if (me && !socket && $("state").dataset.state === "waiting") { attempt = 0; connect(); } });

// --- what the server says ----------------------------------------------------------------------------------------
const onFrame = {
  welcome(frame) {
    limits = { ...limits, ...frame.limits };
    heartbeat_s = frame.heartbeat_s ?? heartbeat_s;
    if (cursor) keepCursor(cursor.seq, frame.epoch);
    else cursor = { seq: 0, epoch: frame.epoch };           // kept once there is something to keep: at `live`
    state("connecting", "Catching up…");
  },
  live(frame) {
    live = true;
    attempt = refusals = 0;
    keepCursor(Math.max(cursor.seq, frame.head), cursor.epoch);
    state("live", "Connected");
    note("");
    post({ type: "history", conversation: conversationWith(to), before: null, limit: HISTORY_PAGE });
    pump();
  },
  resync(frame) {
    note(frame.reason === "below_floor" ? "Some messages are older than the server keeps." : "The server's record is a new one; starting over.");
    keepCursor(frame.floor, frame.epoch);
    hello();
  },
  event(frame) {
    if (frame.seq <= cursor.seq) return;            // have it
    if (frame.event === "message") {
      answered(frame.from === me ? frame.id : null);
      if (frame.conversation === conversationWith(to)) show(frame);
      else showOther(frame.from);
    } else if (frame.event === "refused") {
      refused(frame.id, frame.code);
    }
    keepCursor(frame.seq, cursor.epoch);
    acknowledge(frame.seq);
  },
  page(frame) {
    if (frame.conversation !== conversationWith(to)) return;
    frame.events.filter((event) => event.event === "message").forEach(show);
    const oldest = frame.before === null ? null : BigInt(frame.before);
    if (older === null || oldest === null || oldest < BigInt(older)) older = frame.before;
    $("older").hidden = older === null;
  },
  accepted(frame) {
    answered(frame.id);
    const item = shown.get(me + "/" + frame.id);
    if (item) tick(item, "accepted");
  },
  refused(frame) {
    if (frame.final) refused(frame.id, frame.code);
    else again(frame.retry_after_ms ?? 500);
  },
  error(frame) {
    if (frame.code === "outcome_unknown") again(frame.retry_after_ms ?? 1000);
    else if (frame.id && outbox.some((entry) => entry.id === frame.id)) refused(frame.id, frame.code);
    else note(`The server answered: ${frame.message ?? frame.code}`);
  },
  move(frame) {
    moving = true;
    state("connecting", "The server moves; reconnecting soon");
    clearTimeout(timer);
    timer = setTimeout(() => { drop(); attempt = 0; later(); }, frame.after_ms);
  },
  reauth() {
    forgetToken();
    if (tokensForTheAsking) connect();
    else askForToken();
  },
};

function receive(frame) {
  if (Object.hasOwn(onFrame, frame.type)) onFrame[frame.type](frame);   // an unknown type is not for us
}

function acknowledge(seq) {
  toAck = seq;
  const flush = () => { clearTimeout(ackTimer); ackTimer = null; unacked = 0; post({ type: "received", seq: toAck }); };
  if (++unacked >= ACK_EVERY_EVENTS) flush();
  else ackTimer ??= setTimeout(flush, ACK_EVERY_MS);
}

// --- the outbox --------------------------------------------------------------------------------------------------
// In order, at most so many unanswered; after any refusal that is not final, again from the oldest.
function pump() {
  if (!live || moving || retry) return;
  for (const entry of outbox) {
    if (sent.size >= limits.in_flight) return;
    if (sent.has(entry.id)) continue;
    sent.add(entry.id);
    post({ type: "send", id: entry.id, to: "u:" + entry.to, kind: "text", body: { text: entry.text } });
  }
}

function answered(id) {
  sent.delete(id);
  if (outbox.some((entry) => entry.id === id)) { outbox = outbox.filter((entry) => entry.id !== id); keepOutbox(); }
  pump();
}

function refused(id, code) {
  answered(id);
  const item = shown.get(me + "/" + id);
  if (item) tick(item, "refused", "refused: " + code);
}

function again(after_ms) {
  retry ??= setTimeout(() => { retry = null; sent = new Set(); pump(); }, after_ms);
}

function write(text) {
  if (new TextEncoder().encode(text).length > limits.body_bytes) return note(`Too long: at most ${limits.body_bytes} bytes.`);
  const entry = { id: uuid7(), to, text };
  outbox.push(entry);
  keepOutbox();                                              // kept first, sent second
  note("");
  $("text").value = "";
  show({ from: me, id: entry.id, body: { text } });
  pump();
}

// --- the person --------------------------------------------------------------------------------------------------
function begin(nextMe, nextTo) {
  if (me !== nextMe) token = null;
  [me, to] = [nextMe, nextTo];
  cursor = kept.read("cursor." + me, null);
  outbox = kept.read("outbox." + me, []);
  shown = new Map();
  older = null;
  attempt = 0;
  [$("me").value, $("to").value] = [me, to];
  document.title = `${me} → ${to} · Switchboard`;
  $("messages").replaceChildren();
  $("others").replaceChildren();
  $("older").hidden = $("others").hidden = $("token-form").hidden = true;
  $("text").disabled = $("send").disabled = false;
  note("");
  for (const entry of outbox) if (entry.to === to) show({ from: me, id: entry.id, body: { text: entry.text } });
  $("text").focus();
  connect();
}

function fromFragment() {
  const words = new URLSearchParams(location.hash.slice(1));
  const [nextMe, nextTo] = [words.get("me") ?? "", words.get("to") ?? ""];
  if (NUMBER.test(nextMe) && NUMBER.test(nextTo)) begin(nextMe, nextTo);
}

$("who").onsubmit = (event) => {
  event.preventDefault();
  const fragment = `#me=${$("me").value.trim()}&to=${$("to").value.trim()}`;
  if (location.hash === fragment) fromFragment();
  else location.hash = fragment;
};
$("token-form").onsubmit = (event) => {
  event.preventDefault();
  token = $("token").value.trim();
  kept.write("token." + me, token);
  $("token").value = "";
  $("token-form").hidden = true;
  attempt = 0;
  connect();
};
$("composer").onsubmit = (event) => {
  event.preventDefault();
  if (me && $("text").value.trim()) write($("text").value);
};
$("text").onkeydown = (event) => {
  if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
  event.preventDefault();
  $("composer").requestSubmit();
};
$("older").onclick = () => post({ type: "history", conversation: conversationWith(to), before: older, limit: HISTORY_PAGE });
addEventListener("hashchange", fromFragment);
fromFragment();
