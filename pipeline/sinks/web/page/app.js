// The page: figures come in by server-sent events, wishes go out by POST.

import { Chart } from "/charts.js";
import { Picture } from "/picture.js";

const $ = (id) => document.getElementById(id);

// The token came in by the address and is a cookie now: not for shoulders, history or bookmarks.
const query = new URLSearchParams(location.search);
if (query.has("token")) history.replaceState(null, "", location.pathname);

const charts = {
  fps: new Chart($("fps-chart"), ["fps"], ["--accent"]),
  latency: new Chart($("latency-chart"), ["p50", "p99"], ["--accent", "--second"]),
  drops: new Chart($("drops-chart"), ["drops"], ["--warn"], { bars: true }),
};

function status(state, text) {
  $("status").dataset.state = state;
  $("status").textContent = text;
}

function message(text) {
  $("message").textContent = text;
  $("message").hidden = !text;
}

// The picture

const picture = new Picture($("video"), $("mjpeg"), (transport, text) => {
  message("");
  mark(transport);
  reason = text;
  describe();
});
let reason = "", size = "";

function mark(transport) {
  $("by-webrtc").setAttribute("aria-pressed", transport === "webrtc");
  $("by-mjpeg").setAttribute("aria-pressed", transport === "mjpeg");
}

function describe() {
  $("source").textContent = [size, reason].filter(Boolean).join(" · ");
}

function show(transport) {
  reason = "";
  mark(transport);
  message("Waiting for the picture");
  picture.start(transport);
}
$("by-webrtc").onclick = () => show("webrtc");
$("by-mjpeg").onclick = () => show("mjpeg");
if (document.fullscreenEnabled) {
  $("full").hidden = false;
  $("full").onclick = () => (document.fullscreenElement ? document.exitFullscreen() : $("picture").requestFullscreen());
}

// The look: one wish under way at a time, and of those that come meanwhile all fields' newest.

let wish = null, sending = false, quietUntil = 0;
const painted = new Set();

function change(fields) {
  wish = { ...wish, ...fields };
  if (!sending) send();
}

async function send() {
  sending = true;
  while (wish) {
    const body = JSON.stringify(wish);
    wish = null;
    try {
      const response = await fetch("/api/look", {
        method: "POST",
        headers: { "content-type": "application/json" },
        body,
      });
      if (!response.ok) status("lost", (await response.text()).trim());
    } catch {
      status("lost", "connection lost");
    }
  }
  // A tick that is on its way was made before this wish; it must not turn a switch back.
  quietUntil = Date.now() + 700;
  sending = false;
}

$("overlay").oninput = (e) => {
  $("overlay-value").textContent = `${e.target.value}%`;
  change({ overlay: e.target.value / 100 });
};
$("contours").onchange = (e) => change({ contours: e.target.checked });
$("legend").onchange = (e) => change({ legend: e.target.checked });

let rows = new Map();

function setClasses(ids) {
  painted.clear();
  ids.forEach((id) => painted.add(id));
  for (const [id, row] of rows) row.input.checked = painted.has(id);
}

function choose(ids) {
  setClasses(ids);
  change({ classes: [...painted].sort((a, b) => a - b) });
}
$("all").onclick = () => choose([...rows.keys()]);
$("none").onclick = () => choose([]);

function listClasses(classes) {
  rows = new Map();
  $("classes").replaceChildren(...classes.map(({ id, name, color }) => {
    const item = document.createElement("li"), label = document.createElement("label");
    label.className = "row absent";
    const [swatch, text, share] = ["swatch", "name", "share"].map((kind) => {
      const span = document.createElement("span");
      span.className = kind;
      return span;
    });
    swatch.style.background = color;
    text.textContent = text.title = name;
    const bar = document.createElement("i"), part = document.createElement("span");
    share.append(bar, part);
    const input = document.createElement("input");
    input.type = "checkbox";
    input.setAttribute("role", "switch");
    input.setAttribute("aria-label", name);
    input.onchange = () => {
      if (input.checked) painted.add(id);
      else painted.delete(id);
      choose([...painted]);
    };
    label.append(swatch, text, share, input);
    item.append(label);
    rows.set(id, { label, bar, part, input });
    return item;
  }));
}

function showLook(look) {
  if (sending || wish || Date.now() < quietUntil) return;
  $("overlay").value = Math.round(look.overlay * 100);
  $("overlay-value").textContent = `${Math.round(look.overlay * 100)}%`;
  $("contours").checked = look.contours;
  $("legend").checked = look.legend;
  setClasses(look.classes);
}

function showShares(shares) {
  for (const [id, { label, bar, part }] of rows) {
    const share = shares[id] ?? 0;
    label.classList.toggle("absent", !share);
    bar.style.setProperty("--part", share);
    part.textContent = share ? `${share < 0.1 ? (share * 100).toFixed(1) : Math.round(share * 100)}%` : "";
  }
}

// The figures

const text = (value, digits = 0) => (value == null ? "–" : value.toFixed(digits));

function showFigures({ now, delivered, dropped, lost, latency_ms: all }) {
  for (const chart of Object.values(charts)) chart.add(now);
  $("fps").textContent = text(now.fps, 1);
  $("p50").textContent = text(now.p50);
  $("p99").textContent = text(now.p99);
  $("drops").textContent = text(now.drops, 1);
  $("delivered").textContent = delivered.toLocaleString("en");
  for (const name of ["p50", "p90", "p99", "p99.9"]) $(`all-${name.replace(".", "-")}`).textContent = text(all[name]);
  const causes = Object.entries(dropped).filter(([, n]) => n).map(([cause, n]) => `${n} ${cause}`)
    .concat(Object.entries(lost).map(([cause, n]) => `${n} lost: ${cause}`));
  $("causes").textContent = causes.join(", ") || "none in the whole run";
  picture.flowing = now.fps > 0;
  if (delivered) status("live", now.fps ? "live" : "no new frames");
  else status("waiting", "waiting for the first frame");
}

// Server-sent events; a browser tries again by itself when the connection breaks.

function connect() {
  const events = new EventSource("/api/events");
  events.addEventListener("run", (e) => {
    const run = JSON.parse(e.data);
    listClasses(run.classes);
    Object.values(charts).forEach((chart) => chart.reset(run.history));
    $("by-webrtc").disabled = !run.webrtc;
    const transport = run.webrtc && !query.has("mjpeg") && "RTCPeerConnection" in window ? "webrtc" : "mjpeg";
    show(transport);
    if (!run.webrtc) reason = run.no_webrtc;
  });
  events.addEventListener("tick", (e) => {
    const tick = JSON.parse(e.data);
    showFigures(tick);
    showLook(tick.look);
    showShares(tick.shares);
    if (tick.frame) {
      size = `${tick.frame.width} × ${tick.frame.height}`;
      $("picture").style.setProperty("--aspect", `${tick.frame.width} / ${tick.frame.height}`);
      describe();
    }
  });
  events.addEventListener("ended", () => {
    events.close();
    picture.stop();
    picture.wanted = null;
    status("ended", "ended");
    message("The run has ended");
    setTimeout(again, 3000);
  });
  events.onerror = () => {
    if ($("status").dataset.state === "ended") {
      events.close();
      setTimeout(again, 3000);
    } else {
      status("lost", "connection lost");
      if (events.readyState === EventSource.CLOSED) setTimeout(connect, 3000); // refused, not broken
    }
  };
}

// The next run at the same address is shown without a reload.
async function again() {
  try {
    await fetch("/healthz");
    connect();
  } catch {
    setTimeout(again, 3000);
  }
}

connect();
