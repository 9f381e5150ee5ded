// Draws the page's charts from the JSON in the page. Every number is also in the page's tables.
(() => {
  "use strict";
  const data = JSON.parse(document.getElementById("data").textContent);
  const root = document.documentElement;
  root.classList.add("scripted");

  // Groups of causes differ in colour, dash and symbol, so that they can be told apart without colours.
  const COLOURS = ["--well", "--cut", "--failed", "--open"];
  const DASHES = ["solid", "dotted", "dashed", "solid"];
  const SYMBOLS = ["circle", "triangle", "diamond", "rect"];
  const byId = (id) => document.getElementById(id);
  const css = (name) => getComputedStyle(root).getPropertyValue(name).trim();
  const escaped = (text) => echarts.format.encodeHTML(String(text));
  const value = (v) => {
    if (v === null || v === undefined) return "-";
    return data.percentage ? (100 * v).toFixed(2) + "%" : String(+(+v).toPrecision(4));
  };
  const tick = (v) => (data.percentage ? +(100 * v).toPrecision(6) + "%" : +v.toPrecision(6) + "");
  const short = (v) => (Math.abs(v) !== 0 && (Math.abs(v) < 1e-3 || Math.abs(v) >= 1e5) ? (+v).toExponential(1) : +(+v).toPrecision(4) + "");
  const better = (a, b) => (data.maximize ? a > b : a < b);
  const xs = (run) => run.x || run.y.map((_, index) => index + 1);

  const charts = {};
  function draw(id, option) {
    const box = typeof id === "string" ? byId(id) : id;
    if (!box) return null;
    const key = box.id;
    charts[key] = charts[key] || echarts.init(box, null, { renderer: "canvas" });
    charts[key].setOption(
      { animation: false, textStyle: { color: css("--ink"), fontFamily: "system-ui, sans-serif" }, ...option },
      { notMerge: true },
    );
    return charts[key];
  }
  const axis = (more) => ({
    nameLocation: "middle", nameGap: 30, nameTextStyle: { color: css("--faint") },
    axisLine: { onZero: false, lineStyle: { color: css("--line") } }, axisLabel: { color: css("--faint"), hideOverlap: true },
    splitLine: { lineStyle: { color: css("--line") } }, ...more,
  });
  const metricAxis = (more) => axis({
    type: "value", name: data.metric, nameGap: 52, scale: true, ...more,
    axisLabel: { color: css("--faint"), formatter: tick },
  });
  const tooltip = (formatter) => ({
    trigger: "item", confine: true, formatter, backgroundColor: css("--paper"), borderColor: css("--line"),
    textStyle: { color: css("--ink") },
  });
  const about = (run) =>
    `<b>${escaped(run.title)}</b><br>${data.peakName} ${value(run.peak)}` + (run.at === null ? "" : ` at epoch ${run.at}`) +
    `<br>${escaped(run.cause)}${run.gem ? ", hidden gem" : ""}` +
    data.parameters.map((p, i) => `<br>${escaped(p.name)} ${escaped(run.values[i] ?? "-")}`).join("");

  // Learning curves: one series for each group, with gaps between runs, so that a thousand runs draw fast.
  const hidden = new Set();
  let selected = null;
  const outlines = (runs) => {
    const points = [];
    for (const run of runs) {
      const x = xs(run);
      run.y.forEach((y, index) => points.push([x[index], y]));
      points.push([null, null]);
    }
    return points;
  };
  const peaks = (runs) => runs.filter((run) => run.peak !== null && run.at !== null).map((run) => [run.at, run.peak]);
  function curves() {
    if (!byId("chart-curves")) return;
    const many = data.runs.length > 100;
    const series = [];
    data.groups.forEach((name, group) => {
      if (hidden.has(name)) return;
      const members = data.runs.filter((run) => run.group === group);
      for (const gem of [false, true]) {
        const runs = members.filter((run) => run.gem === gem);
        if (!runs.length) continue;
        series.push({
          type: "line", name, data: outlines(runs), showSymbol: false, silent: true, clip: true, z: gem ? 4 : 3,
          lineStyle: {
            color: css(COLOURS[group]), type: many && !gem ? "solid" : DASHES[group], width: gem ? 2.6 : many ? 0.8 : 1.5,
            opacity: gem ? 1 : many ? 0.35 : 0.85,
          },
        });
        if (!many || gem) series.push({
          type: "scatter", data: peaks(runs), symbol: SYMBOLS[group], symbolSize: gem ? 11 : 7, silent: true, z: 5,
          itemStyle: { color: css(COLOURS[group]), borderColor: css("--paper") },
        });
      }
    });
    if (selected) series.push({
      type: "line", data: outlines([selected]), showSymbol: false, silent: true, z: 9,
      lineStyle: { color: css("--ink"), width: 3 },
    }, { type: "scatter", data: peaks([selected]), silent: true, z: 10, symbolSize: 12, itemStyle: { color: css("--ink") } });
    const [low, high] = data.range;
    draw("chart-curves", {
      grid: { left: 76, right: 16, top: 12, bottom: 48 },
      xAxis: axis({ type: "value", name: data.xLabel, min: "dataMin", max: "dataMax", splitLine: { show: false } }),
      yAxis: metricAxis({ min: low, max: high }),
      series,
    });
  }
  function select(run) {
    if (run === selected) return;
    selected = run;
    byId("shown").value = run ? run.id : "";
    byId("shown-run").textContent = run ? `${data.peakName} ${value(run.peak)}${run.at === null ? "" : ` at epoch ${run.at}`}, ${run.cause}` : "";
    curves();
  }
  function nearest(event) {
    const chart = charts["chart-curves"];
    if (!chart.containPixel("grid", [event.offsetX, event.offsetY])) return null;
    const [x] = chart.convertFromPixel({ seriesIndex: 0 }, [event.offsetX, event.offsetY]);
    let best = null;
    let least = 14; // px
    for (const run of data.runs) {
      if (hidden.has(data.groups[run.group])) continue;
      const places = xs(run);
      let at = Math.round(x) - 1;
      if (places[at] !== Math.round(x)) at = places.findIndex((place) => place >= x);
      if (at < 0 || at >= run.y.length || run.y[at] === null) continue;
      const pixel = chart.convertToPixel({ seriesIndex: 0 }, [places[at], run.y[at]]);
      const distance = Math.hypot(pixel[0] - event.offsetX, pixel[1] - event.offsetY);
      if (distance < least) { least = distance; best = run; }
    }
    return best;
  }

  function bestSoFar() {
    const runs = data.runs.filter((run) => run.peak !== null).sort((a, b) => a.order - b.order);
    const line = [];
    for (const run of runs) {
      const before = line.length ? line[line.length - 1][1] : null;
      line.push([run.order, before === null || better(run.peak, before) ? run.peak : before]);
    }
    draw("chart-best", {
      grid: { left: 76, right: 16, top: 12, bottom: 48 },
      tooltip: tooltip((item) => (item.data.run === undefined ? "" : about(data.runs[item.data.run]))),
      xAxis: axis({ type: "value", name: "runs in the order of their starts", min: 0, max: data.runs.length + 1, minInterval: 1, splitLine: { show: false } }),
      yAxis: metricAxis({ min: data.peakRange[0], max: data.peakRange[1] }),
      series: [
        { type: "line", step: "end", data: line, showSymbol: false, silent: true, lineStyle: { color: css("--ink"), width: 2 } },
        ...data.groups.map((name, group) => ({
          type: "scatter", name, symbol: SYMBOLS[group], symbolSize: 9,
          itemStyle: { color: css(COLOURS[group]), borderColor: css("--paper") },
          data: data.runs.flatMap((run, index) =>
            run.group === group && run.peak !== null ? [{ value: [run.order, run.peak], run: index, symbolSize: run.gem ? 14 : 9 }] : []),
        })),
      ],
    });
  }

  function slices() {
    const grid = byId("slices");
    if (!grid) return;
    data.slices.forEach((slice, number) => {
      const id = `slice-${number}`;
      if (!byId(id)) {
        const box = document.createElement("div");
        box.id = id;
        box.className = "chart low";
        box.setAttribute("role", "img");
        box.setAttribute("aria-label", `${data.metric} by ${slice.name}`);
        grid.append(box);
      }
      const listed = slice.labels.length > 0;
      // Points of one value are spread out a little, always in the same way.
      const spread = (place, run) => (listed ? place + (((run * 0.618034) % 1) - 0.5) * 0.4 : place);
      const edge = (share) => (slice.log ? Math.exp : (v) => v)(share);
      const scale = slice.log ? Math.log : (v) => v;
      const means = slice.values.filter((outcome) => outcome.mean !== null).map((outcome, place) => {
        const at = listed ? slice.labels.indexOf(outcome.label) : edge((scale(outcome.low) + scale(outcome.high)) / 2);
        const [low, high] = outcome.interval || [outcome.mean, outcome.mean];
        return { value: [at, outcome.mean, low, high, listed ? at - 0.25 : outcome.low, listed ? at + 0.25 : outcome.high], label: outcome.label, n: outcome.n, interval: outcome.interval };
      });
      draw(id, {
        title: { text: slice.name + (slice.epochs ? `, first ${slice.epochs} ${slice.epochs === 1 ? "epoch" : "epochs"}` : "") + (slice.clear ? "" : " (no clear effect)"), textStyle: { color: css("--ink"), fontSize: 13 } },
        grid: { left: 76, right: 12, top: 34, bottom: 40 },
        tooltip: tooltip((item) => (item.data.run !== undefined ? about(data.runs[item.data.run])
          : `<b>${escaped(item.data.label)}</b><br>n ${item.data.n}, mean ${value(item.data.value[1])}` +
            (item.data.interval ? `<br>${value(item.data.value[2])} to ${value(item.data.value[3])}` : "<br>no interval: fewer than 8 runs"))),
        xAxis: listed
          ? axis({ type: "value", min: -0.5, max: slice.labels.length - 0.5, interval: 0.5, splitLine: { show: false },
            axisTick: { show: false },
            axisLabel: { color: css("--faint"), formatter: (v) => (Number.isInteger(v) ? slice.labels[v] ?? "" : "") } })
          : axis({ type: slice.log ? "log" : "value", scale: true, min: "dataMin", max: "dataMax", splitLine: { show: false },
            axisLabel: { color: css("--faint"), formatter: short, hideOverlap: true, showMinLabel: false, showMaxLabel: false } }),
        yAxis: metricAxis({ min: slice.range[0], max: slice.range[1] }),
        series: [
          ...data.groups.map((name, group) => ({
            type: "scatter", name, symbol: SYMBOLS[group], symbolSize: 7, clip: true,
            itemStyle: { color: css(COLOURS[group]), opacity: 0.75 },
            data: slice.points.filter((point) => data.runs[point[2]].group === group)
              .map(([place, peak, run]) => ({ value: [spread(place, run), peak], run })),
          })),
          {
            type: "custom", data: means, z: 6, clip: true, encode: { x: 0, y: [1, 2, 3] },
            renderItem: (_, api) => {
              const [x, y] = api.coord([api.value(0), api.value(1)]);
              const low = api.coord([api.value(0), api.value(2)])[1];
              const high = api.coord([api.value(0), api.value(3)])[1];
              const left = api.coord([api.value(4), api.value(1)])[0];
              const right = api.coord([api.value(5), api.value(1)])[0];
              const stroke = { stroke: css("--ink"), lineWidth: 2 };
              return { type: "group", children: [
                { type: "line", shape: { x1: x, y1: low, x2: x, y2: high }, style: stroke },
                { type: "line", shape: { x1: x - 6, y1: low, x2: x + 6, y2: low }, style: stroke },
                { type: "line", shape: { x1: x - 6, y1: high, x2: x + 6, y2: high }, style: stroke },
                { type: "line", shape: { x1: left, y1: y, x2: right, y2: y }, style: { stroke: css("--ink"), lineWidth: 1, lineDash: [3, 3] } },
                { type: "rect", shape: { x: x - 5, y: y - 5, width: 10, height: 10 }, style: { fill: css("--paper"), ...stroke } },
              ] };
            },
          },
        ],
      });
    });
  }

  function parallel() {
    if (!byId("parallel")) return;
    const dims = [...data.parameters, { name: data.metric, kind: "value", levels: [], metric: true }];
    const withPeak = data.runs.filter((run) => run.peak !== null);
    const chart = draw("parallel", {
      tooltip: tooltip((item) => (item.data && item.data.run !== undefined ? about(data.runs[item.data.run]) : "")),
      parallel: { left: 60, right: 90, top: 36, bottom: 28, parallelAxisDefault: { nameTextStyle: { color: css("--ink") }, nameGap: 14 } },
      parallelAxis: dims.map((dim, index) => ({
        dim: index, name: dim.name, type: dim.kind === "category" ? "category" : dim.kind, scale: true,
        ...(dim.kind === "category" ? { data: dim.levels } : {}),
        ...(dim.metric ? { min: "dataMin", max: "dataMax" } : {}),
        z: 10, axisLine: { lineStyle: { color: css("--faint") } },
        axisLabel: { color: css("--ink"), backgroundColor: css("--paper"), padding: [1, 3], hideOverlap: true, showMinLabel: dim.metric ? false : null, showMaxLabel: dim.metric ? false : null, formatter: dim.kind === "category" ? undefined : dim.metric ? tick : short },
        areaSelectStyle: { color: css("--focus"), opacity: 0.25, borderColor: css("--focus") },
      })),
      series: data.groups.map((name, group) => ({
        type: "parallel", name, inactiveOpacity: 0.03, activeOpacity: 0.9,
        lineStyle: { color: css(COLOURS[group]), width: 1.3, opacity: withPeak.length > 200 ? 0.25 : 0.6, type: withPeak.length > 200 ? "solid" : DASHES[group] },
        data: data.runs.flatMap((run, index) => (run.group === group && run.peak !== null
          ? [{ value: [...run.values.map((v) => v ?? NaN), run.peak], run: index, lineStyle: run.gem ? { width: 3.5, opacity: 1 } : undefined }] : [])),
      })),
    });
    chart.off("axisareaselected");
    chart.on("axisareaselected", () => {
      const selectedRuns = chart.getModel().getSeries().flatMap((series) => {
        const list = series.option.data;
        return series.getRawIndicesByActiveState("active").map((index) => data.runs[list[index].run]);
      });
      selectedRuns.sort((a, b) => (better(a.peak, b.peak) ? -1 : 1));
      byId("brushed").textContent = selectedRuns.length
        ? `Selected runs: ${selectedRuns.length} of ${withPeak.length}. The best is ${selectedRuns[0].title}, ${value(selectedRuns[0].peak)}.`
        : "Each line is a run. Drag along an axis to select runs.";
    });
  }

  function levels() {
    if (!data.levels || !byId("levels")) return;
    const palette = ["--well", "--failed", "--open", "--cut", "--ink", "--faint"];
    draw("levels", {
      legend: { type: "scroll", top: 0, textStyle: { color: css("--ink") } },
      grid: { left: 76, right: 16, top: 40, bottom: 48 },
      tooltip: { ...tooltip(), trigger: "axis", formatter: undefined, valueFormatter: (v) => (100 * v).toFixed(1) + "%" },
      xAxis: axis({ type: "value", name: "SNR in dB", min: "dataMin", max: "dataMax", splitLine: { show: false } }),
      yAxis: axis({ type: "value", name: "accuracy", nameGap: 52, axisLabel: { color: css("--faint"), formatter: (v) => +(100 * v).toPrecision(6) + "%" } }),
      series: data.levels.runs.map((line, index) => ({
        type: "line", name: data.runs[line.run].title, data: line.points, symbolSize: 7, symbol: SYMBOLS[index % 4],
        lineStyle: { color: css(palette[index]), type: ["solid", "dashed", "dotted"][index % 3], width: 2 },
        itemStyle: { color: css(palette[index]) },
      })),
    });
  }

  function confusion() {
    const picker = byId("confused");
    if (!picker) return;
    const pair = data.confusions[picker.value || 0];
    for (const [id, matrix, unit] of [["confusion-modulation", pair.modulation, ""], ["confusion-snr", pair.snr, " dB"]]) {
      draw(id, {
        grid: { left: 84, right: 16, top: 12, bottom: 96 },
        tooltip: tooltip((item) => `true ${escaped(matrix.names[item.value[1]])}${unit}, taken for ${escaped(matrix.names[item.value[0]])}${unit}: ${(100 * item.value[2]).toFixed(1)}%`),
        xAxis: axis({ type: "category", data: matrix.names, name: `taken for${unit && ", dB"}`, nameGap: 62, axisLabel: { color: css("--faint"), rotate: 60, interval: 0 } }),
        yAxis: axis({ type: "category", data: matrix.names, inverse: true, name: `true${unit && ", dB"}`, nameGap: 62, axisLabel: { color: css("--faint"), interval: 0 } }),
        visualMap: { min: 0, max: Math.max(...matrix.shares.flat()) || 1, show: false, inRange: { color: [css("--low"), css("--high")] } },
        series: [{ type: "heatmap", data: matrix.shares.flatMap((row, y) => row.map((share, x) => [x, y, share])) }],
      });
    }
  }

  function drawAll() {
    curves();
    bestSoFar();
    slices();
    parallel();
    levels();
    confusion();
  }

  const shown = byId("shown");
  if (shown) {
    for (const run of data.runs) {
      if (run.y.length) shown.add(new Option(`${run.title}: ${value(run.peak)}, ${run.cause}`, run.id));
    }
    shown.addEventListener("change", () => select(data.runs.find((run) => run.id === shown.value) || null));
    for (const box of byId("legend").querySelectorAll("input")) {
      box.addEventListener("change", () => {
        if (box.checked) hidden.delete(box.value); else hidden.add(box.value);
        curves();
      });
    }
  }
  const picker = byId("confused");
  if (picker) {
    data.confusions.forEach((pair, index) => picker.add(new Option(pair.title, index)));
    picker.addEventListener("change", confusion);
  }
  byId("theme").addEventListener("click", () => {
    const dark = root.dataset.theme ? root.dataset.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
    root.dataset.theme = dark ? "light" : "dark";
    drawAll();
  });
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", drawAll);
  drawAll();
  if (shown) charts["chart-curves"].getZr().on("mousemove", (event) => select(nearest(event) || selected));
  let waiting = 0;
  addEventListener("resize", () => {
    cancelAnimationFrame(waiting);
    waiting = requestAnimationFrame(() => Object.values(charts).forEach((chart) => chart.resize()));
  });
  root.dataset.charts = String(Object.keys(charts).length); // tests read it to see that everything was drawn
})();
