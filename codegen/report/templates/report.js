"use strict";
(() => {
  const facts = JSON.parse(document.getElementById("facts").textContent);
  const byId = (id) => document.getElementById(id);
  const unique = (values) => [...new Set(values)];
  const colour = (index, count) => `hsl(${Math.round((360 * index) / count)} 70% 55%)`;
  const shown = (value) =>
    value === null ? "" : Math.abs(value) >= 1e5 || (value !== 0 && Math.abs(value) < 1e-3) ? value.toExponential(2) : String(Number(value.toPrecision(4)));

  // --- Charts, in the colours of the page, drawn again when these change ---
  const drawn = new Map();
  function chart(id, traces, layout = {}) {
    const element = byId(id);
    if (!element) return;
    drawn.set(id, [traces, layout]);
    const style = getComputedStyle(document.documentElement);
    const [ink, line] = ["--ink", "--line"].map((name) => style.getPropertyValue(name).trim());
    const axis = { gridcolor: line, zerolinecolor: line, automargin: true };
    Plotly.react(
      element,
      traces,
      {
        paper_bgcolor: "rgba(0,0,0,0)",
        plot_bgcolor: "rgba(0,0,0,0)",
        font: { color: ink, family: "system-ui, sans-serif" },
        margin: { l: 60, r: 20, t: 30, b: 50 },
        legend: { orientation: "h", y: -0.2 },
        ...layout,
        xaxis: { ...axis, ...layout.xaxis },
        yaxis: { ...axis, ...layout.yaxis },
      },
      { responsive: true, displaylogo: false },
    );
  }
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => drawn.forEach(([traces, layout], id) => chart(id, traces, layout)));

  // --- Tables: sorted by their heads, copied as tab-separated text ---
  function value(row, column) {
    const text = row.cells[column].textContent.trim();
    const number = Number(text.replaceAll(",", "").replace("%", ""));
    return text === "" ? -Infinity : Number.isNaN(number) ? text : number;
  }
  function sort(table, column) {
    const heads = [...table.tHead.rows[0].cells];
    const falling = heads[column].getAttribute("aria-sort") === "ascending";
    heads.forEach((head, index) => head.setAttribute("aria-sort", index !== column ? "none" : falling ? "descending" : "ascending"));
    const rows = [...table.tBodies[0].rows].sort((a, b) => {
      const [x, y] = [value(a, column), value(b, column)];
      const order = typeof x === "number" && typeof y === "number" ? x - y : String(x).localeCompare(String(y), "en", { numeric: true });
      return falling ? -order : order;
    });
    table.tBodies[0].append(...rows);
  }
  function copy(table) {
    const lines = [...table.rows].map((row) => [...row.cells].map((cell) => cell.textContent.trim()).join("\t"));
    const area = document.createElement("textarea");
    area.value = lines.join("\n");
    document.body.append(area);
    area.select();
    // The clipboard's own interface is closed to pages that are opened from a file.
    const copied = document.execCommand("copy");
    area.remove();
    byId("status").textContent = copied ? "table copied" : "the browser does not let this page copy";
    setTimeout(() => (byId("status").textContent = ""), 2000);
  }
  for (const table of document.querySelectorAll("table")) {
    [...table.tHead.rows[0].cells].forEach((head, column) => {
      const button = document.createElement("button");
      button.type = "button";
      button.textContent = head.textContent;
      button.addEventListener("click", () => sort(table, column));
      head.replaceChildren(button);
    });
    const button = document.createElement("button");
    button.type = "button";
    button.textContent = "copy";
    button.setAttribute("aria-label", `copy the table: ${table.caption.textContent}`);
    button.addEventListener("click", () => copy(table));
    table.caption.append(" ", button);
  }

  // --- Choices ---
  function choose(id, values, labels, changed) {
    const select = byId(id);
    if (!select) return;
    values.forEach((each, index) => select.add(new Option(labels[index], each)));
    select.addEventListener("change", changed);
  }
  const chosen = (id) => byId(id).value;

  // --- Results: each picture is in the page once ---
  document.querySelectorAll("img[data-picture]").forEach((image) => (image.src = facts.pictures[image.dataset.picture]));

  // --- Time ---
  if (facts.timeline.length) {
    const reasons = unique(facts.timeline.map((stage) => stage.bound_by));
    chart(
      "timeline",
      reasons.map((reason) => {
        const stages = facts.timeline.filter((stage) => stage.bound_by === reason);
        return {
          type: "bar",
          orientation: "h",
          name: `waits for ${reason}`,
          y: stages.map((stage) => stage.part),
          x: stages.map((stage) => stage.cycles),
          base: stages.map((stage) => stage.start),
          customdata: stages.map((stage) => [stage.name, stage.start, stage.load]),
          hovertemplate: "%{customdata[0]}<br>from cycle %{customdata[1]:,}<br>%{x:,} cycles<br>%{customdata[2]:,} beats loaded<extra></extra>",
        };
      }),
      { barmode: "overlay", xaxis: { title: { text: "cycles" } }, yaxis: { autorange: "reversed", categoryorder: "array", categoryarray: unique(facts.timeline.map((stage) => stage.part)) } },
    );
  }
  if (facts.rivals.length) {
    chart(
      "rivals",
      [{ type: "bar", orientation: "h", x: facts.rivals.map((rival) => rival.ms), y: facts.rivals.map((rival) => rival.label), text: facts.rivals.map((rival) => `${shown(rival.ms)} ms`), hoverinfo: "none" }],
      { xaxis: { title: { text: "milliseconds an image" } }, yaxis: { autorange: "reversed" } },
    );
  }

  // --- Resources ---
  if (facts.resources.length) {
    const names = facts.resources.map((resource) => resource.name);
    chart(
      "shares",
      [
        { type: "bar", name: "used", x: names, y: facts.resources.map((resource) => resource.share), text: facts.resources.map((resource) => `${resource.share.toFixed(1)} %`) },
        { type: "scatter", mode: "markers", name: "limit of fit", x: names, y: facts.resources.map((resource) => resource.margin), marker: { symbol: "line-ew-open", size: 44, line: { width: 3 } } },
      ],
      { yaxis: { title: { text: "% of the board" }, rangemode: "tozero" } },
    );
  }

  // --- Accuracy ---
  function bars(id, title, low, high, counts, unit) {
    const width = (high - low) / counts.length || 1 / counts.length;
    chart(
      id,
      [{ type: "bar", x: counts.map((_, index) => low + (index + 0.5) * width), y: counts, width }],
      { title: { text: title }, xaxis: { title: { text: unit } }, yaxis: { type: "log", title: { text: "values" } }, bargap: 0 },
    );
  }
  const histogram = (stage) => bars("histogram", `${stage.name}, task ${stage.task}`, stage.low, stage.high, stage.histogram, "");
  // Rows that can be chosen, by mouse and by keyboard.
  function pickable(body, row, pick) {
    const picked = () => {
      body.querySelectorAll(".chosen").forEach((each) => each.classList.remove("chosen"));
      row.classList.add("chosen");
      pick();
    };
    row.tabIndex = 0;
    row.addEventListener("click", picked);
    row.addEventListener("keydown", (event) => event.key === "Enter" && picked());
  }
  function accuracy() {
    const stages = facts.stages.filter((stage) => stage.task === chosen("accuracy-task"));
    const known = stages.filter((stage) => stage.layer !== null && stage.sqnr_db !== null);
    const parts = unique(known.map((stage) => stage.part));
    const lines = parts.map((part) => {
      const of = known.filter((stage) => stage.part === part);
      return { type: "scatter", mode: "lines+markers", name: part, x: of.map((stage) => stage.layer), y: of.map((stage) => stage.sqnr_db) };
    });
    byId("stages").hidden = !lines.length;
    if (lines.length) chart("stages", lines, { xaxis: { title: { text: "layer" }, dtick: 1 }, yaxis: { title: { text: "SQNR, dB" } } });
    const body = byId("stage-table").tBodies[0];
    body.replaceChildren(
      ...stages.map((stage) => {
        const row = document.createElement("tr");
        const cells = [stage.name, shown(stage.low), shown(stage.high), shown(stage.max_error), stage.sqnr_db === null ? "" : stage.sqnr_db.toFixed(1)];
        cells.forEach((text, index) => {
          const cell = row.insertCell();
          cell.textContent = text;
          if (index) cell.className = "number";
        });
        pickable(body, row, () => histogram(stage));
        return row;
      }),
    );
    if (stages.length) histogram(stages[0]);
  }
  if (byId("accuracy-task")) {
    const tasks = unique(facts.stages.map((stage) => stage.task));
    choose("accuracy-task", tasks, tasks, accuracy);
    accuracy();
  }

  // --- Pictures with a colour for each patch ---
  function overlay(element, picture, paint) {
    const image = new Image();
    image.src = facts.pictures[picture];
    image.alt = `picture ${picture}`;
    const canvas = document.createElement("canvas");
    const [rows, columns] = facts.grid;
    [canvas.height, canvas.width] = [rows, columns];
    const context = canvas.getContext("2d");
    for (let patch = 0; patch < rows * columns; ++patch) {
      context.fillStyle = paint(patch);
      context.fillRect(patch % columns, Math.floor(patch / columns), 1, 1);
    }
    element.replaceChildren(image, canvas);
  }

  // --- Routing ---
  function routing() {
    const task = chosen("routing-task");
    const layers = facts.routing.filter((each) => each.task === task);
    const layer = layers.find((each) => String(each.layer) === chosen("routing-layer"));
    const picture = Number(chosen("routing-picture"));
    overlay(byId("routing-overlay"), picture, (patch) => {
      const expert = layer.patches[picture][patch][Number(chosen("routing-rank"))];
      return colour(expert, layer.experts).replace(")", " / 0.6)");
    });
    byId("routing-legend").replaceChildren(
      ...layer.tokens.map((tokens, expert) => {
        const [item, box] = [document.createElement("li"), document.createElement("i")];
        box.style.background = colour(expert, layer.experts);
        item.append(box, `expert ${expert}: ${tokens.toLocaleString("en")}`);
        return item;
      }),
    );
    chart(
      "usage",
      [{ type: "heatmap", z: layers.map((each) => each.tokens), y: layers.map((each) => `layer ${each.layer}`), x: layer.tokens.map((_, expert) => `${expert}`), colorscale: "Viridis", hovertemplate: "%{y}, expert %{x}: %{z:,} tokens<extra></extra>" }],
      { xaxis: { title: { text: "expert" }, type: "category" }, yaxis: { autorange: "reversed", type: "category" } },
    );
  }
  if (facts.routing.length) {
    const first = facts.routing[0];
    const tasks = unique(facts.routing.map((each) => each.task));
    const layers = unique(facts.routing.map((each) => each.layer));
    const ranks = first.patches[0][0].map((_, rank) => rank);
    const pictures = facts.pictures.map((_, picture) => picture);
    choose("routing-task", tasks, tasks, routing);
    choose("routing-layer", layers, layers, routing);
    choose("routing-rank", ranks, ranks.map((rank) => `${rank + 1}`), routing);
    choose("routing-picture", pictures, pictures.map((picture) => `${picture + 1}`), routing);
    routing();
  }

  // --- Attention ---
  function attention() {
    const layer = facts.attention.find((each) => each.task === chosen("attention-task") && String(each.layer) === chosen("attention-layer"));
    const picture = Number(chosen("attention-picture"));
    byId("attention-maps").replaceChildren(
      ...layer.heads[picture].map((looks, head) => {
        const [figure, map, caption] = ["figure", "div", "figcaption"].map((name) => document.createElement(name));
        map.className = "overlay";
        caption.textContent = `head ${head}`;
        overlay(map, picture, (patch) => `rgb(255 60 0 / ${(0.75 * looks[patch]) / 255})`);
        figure.append(map, caption);
        return figure;
      }),
    );
  }
  if (facts.attention.length) {
    const tasks = unique(facts.attention.map((each) => each.task));
    const layers = unique(facts.attention.map((each) => each.layer));
    const pictures = facts.pictures.map((_, picture) => picture);
    choose("attention-task", tasks, tasks, attention);
    choose("attention-layer", layers, layers, attention);
    choose("attention-picture", pictures, pictures.map((picture) => `${picture + 1}`), attention);
    attention();
  }

  // --- Sensitivity ---
  if (facts.losses.length) {
    const most = facts.losses.slice(0, 40);
    chart("losses", [{ type: "bar", x: most.map((loss) => loss.name), y: most.map((loss) => loss.sqnr_db), text: most.map((loss) => loss.kind) }], { yaxis: { title: { text: "SQNR, dB (less is worse)" } }, xaxis: { tickangle: -60 } });
    const byName = new Map(facts.losses.map((loss) => [loss.name, loss]));
    const drawLoss = (loss) => {
      const known = loss.histogram ?? { low: 0, high: 1, counts: [], unit: "no histogram: no image was run on this task" };
      bars("loss-histogram", `${loss.name}, ${loss.kind}`, known.low, known.high, known.counts, known.unit);
    };
    const body = byId("loss-table").tBodies[0];
    for (const row of body.rows) pickable(body, row, () => drawLoss(byName.get(row.cells[0].textContent.trim())));
    drawLoss(facts.losses[0]);
  }
  document.documentElement.dataset.ready = "yes";
})();
