// Small charts of the last two minutes, drawn by hand on a canvas.

const POINTS = 240; // two a second, as the server keeps them

// A round number at or above the largest value, so that the scale is easy to read and seldom moves.
function ceiling(value) {
  if (!(value > 0)) return 1;
  const step = 10 ** Math.floor(Math.log10(value));
  return [1, 1.5, 2, 3, 5, 7.5, 10].map((m) => m * step).find((c) => c >= value);
}

export class Chart {
  // `keys` of the points, the first drawn last and strongest; `colors` are CSS variables.
  constructor(canvas, keys, colors, { bars = false } = {}) {
    this.canvas = canvas;
    this.keys = keys;
    this.colors = colors;
    this.bars = bars;
    this.points = [];
    new ResizeObserver(() => this.draw()).observe(canvas);
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => this.draw());
  }

  reset(points) {
    this.points = points.slice(-POINTS);
    this.draw();
  }

  add(point) {
    this.points.push(point);
    if (this.points.length > POINTS) this.points.shift();
    this.draw();
  }

  draw() {
    const { canvas } = this;
    const width = canvas.clientWidth, height = canvas.clientHeight;
    if (!width || !height) return;
    const ratio = window.devicePixelRatio || 1;
    canvas.width = Math.round(width * ratio);
    canvas.height = Math.round(height * ratio);
    const ctx = canvas.getContext("2d");
    ctx.scale(ratio, ratio);
    const style = getComputedStyle(canvas);
    const shade = (name) => {
      // A variable may hold light-dark(...), which only a real property resolves.
      canvas.style.color = `var(${name})`;
      return getComputedStyle(canvas).color;
    };
    const line = shade("--line"), quiet = shade("--quiet");
    const colors = this.colors.map(shade);

    const values = this.points.flatMap((p) => this.keys.map((k) => p[k] ?? 0));
    const top = ceiling(Math.max(0, ...values));
    ctx.font = `11px ${style.fontFamily}`;
    const label = String(top);
    const left = Math.max(26, ctx.measureText(label).width + 8), pad = 6;
    const bottom = height - pad, tall = bottom - pad;
    const y = (v) => bottom - (v / top) * tall;
    const x = (i) => left + ((i + POINTS - this.points.length) / (POINTS - 1)) * (width - left - 2);

    ctx.fillStyle = quiet;
    ctx.textAlign = "right";
    ctx.textBaseline = "middle";
    ctx.fillText(label, left - 6, pad + 1);
    ctx.fillText("0", left - 6, bottom - 1);
    ctx.strokeStyle = line;
    ctx.lineWidth = 1;
    for (const v of [0, top / 2, top]) {
      ctx.beginPath();
      ctx.moveTo(left, Math.round(y(v)) + 0.5);
      ctx.lineTo(width, Math.round(y(v)) + 0.5);
      ctx.stroke();
    }
    for (let k = this.keys.length - 1; k >= 0; k--) this.series(ctx, this.keys[k], colors[k], x, y, k === 0);
  }

  series(ctx, key, color, x, y, filled) {
    ctx.strokeStyle = ctx.fillStyle = color;
    if (this.bars) {
      this.points.forEach((p, i) => {
        if (p[key] > 0) ctx.fillRect(x(i) - 1, y(p[key]), 2, y(0) - y(p[key]));
      });
      return;
    }
    ctx.lineWidth = 1.6;
    ctx.lineJoin = "round";
    ctx.beginPath();
    let first = null, last = null;
    this.points.forEach((p, i) => {
      if (p[key] == null) return; // before the first frame there is no latency
      if (first === null) ctx.moveTo(x(i), y(p[key]));
      else ctx.lineTo(x(i), y(p[key]));
      first ??= i;
      last = i;
    });
    ctx.stroke();
    if (filled && last !== null) {
      ctx.lineTo(x(last), y(0));
      ctx.lineTo(x(first), y(0));
      ctx.globalAlpha = 0.12;
      ctx.fill();
      ctx.globalAlpha = 1;
    }
  }
}
