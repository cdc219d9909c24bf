// Draws the charts, whose still pictures stay where this script does not run. A chart's marks are also reached by keys.
(() => {
  "use strict";
  if (typeof Plotly === "undefined") return;
  const dark = matchMedia("(prefers-color-scheme: dark)"), narrow = matchMedia("(max-width: 640px)");
  const NIGHT = { "#1f2430": "#e6e9ef", "#5c6475": "#a3abba", "#e3e7ee": "#2f3541", "#ffffff": "#22262f",
    "rgba(255,255,255,0.7)": "rgba(21,24,30,0.7)" };
  const HINT = "Point at a mark, or focus the chart and press the arrow keys: its name and figures stand here.";
  const charts = [...document.querySelectorAll(".chart")].map((figure) => ({
    live: figure.querySelector(".live"), reading: figure.querySelector(".reading"),
    text: figure.querySelector("script").textContent, choice: figure.querySelector("select.view"), marks: [], place: -1,
  }));

  function figureOf(chart) {
    let text = chart.text;
    if (dark.matches) for (const [day, night] of Object.entries(NIGHT)) text = text.replaceAll(day, night);
    const figure = JSON.parse(text);
    const view = chart.choice && figure.views[chart.choice.selectedIndex];
    if (view) {
      figure.data.forEach((trace, place) => { trace.x = view.x[place]; });
      figure.layout = view.layout;
      chart.live.setAttribute("aria-label", view.title);
    }
    const listed = figure.data.filter((trace) => trace.showlegend !== false);
    const longest = Math.max(0, ...listed.map((trace) => trace.name.length));
    const width = chart.live.clientWidth || 800;
    const columns = Math.max(1, Math.floor((width - 80) / (60 + 7.2 * longest)));
    const key = 20 * Math.ceil(listed.length / columns);
    const plot = narrow.matches ? 300 : 400;
    const scale = figure.data.some((trace) => trace.marker && trace.marker.showscale) ? 60 : 0;
    figure.layout.height = plot + 90 + key + scale;
    figure.layout.legend.y = -70 / plot;
    if (narrow.matches) {
      for (const trace of figure.data.filter((trace) => trace.hovertemplate)) {  // the other lines stand below the chart
        trace.customdata = (trace.hovertext || trace.text).map((text) => text.split("<br>")[0]);
        trace.hovertemplate = "%{customdata}<extra></extra>";
      }
      figure.layout.annotations = [];
      figure.layout.legend.font = { size: 10 };
      figure.layout.margin.l = 44;
      figure.layout.margin.r = 8;
    }
    return figure;
  }

  function plain(text) {
    const box = document.createElement("textarea");  // decodes entities, and runs nothing
    box.innerHTML = text.replaceAll("<br>", "\n").replace(/<\/?b>/g, "");
    return box.value;
  }

  function draw(chart) {
    const figure = figureOf(chart);
    chart.marks = figure.data.flatMap((trace, curve) => (trace.hovertext || trace.text || [])
      .map((text, point) => ({ curve, point, text })).filter((mark) => mark.text));
    const bar = {
      displaylogo: false, responsive: true, plotlyServerURL: "",  // nothing is sent anywhere
      modeBarButtonsToRemove: ["sendChartToCloud", "select2d", "lasso2d", "autoScale2d"],
    };
    return Plotly.react(chart.live, figure.data, figure.layout, bar);
  }

  function move(chart, event) {
    const steps = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1, Home: -Infinity, End: Infinity };
    const last = chart.marks.length - 1;
    if (event.target !== chart.live || last < 0) return;
    if (event.key === "Escape") {
      Plotly.Fx.unhover(chart.live);
      return;
    }
    if (!(event.key in steps)) return;
    event.preventDefault();
    const wanted = chart.place + steps[event.key];
    chart.place = wanted > last ? (steps[event.key] === Infinity ? last : 0) : wanted < 0 ? (chart.place > 0 ? 0 : last) : wanted;
    const mark = chart.marks[chart.place];
    Plotly.Fx.hover(chart.live, [{ curveNumber: mark.curve, pointNumber: mark.point }]);
    chart.reading.textContent = plain(mark.text);
  }

  // What a reader chose before the page was loaded again. MLflow shows the page in a frame that may not store anything.
  function remembered(name) {
    try { return sessionStorage.getItem(name); } catch { return null; }
  }

  function remember(name, value) {
    try { sessionStorage.setItem(name, value); } catch { /* nothing is stored there */ }
  }

  document.documentElement.classList.add("script");
  for (const chart of charts) {
    chart.reading.textContent = HINT;
    const chosen = chart.choice && remembered(chart.live.parentNode.id);
    if (chosen && [...chart.choice.options].some((option) => option.value === chosen)) chart.choice.value = chosen;
    draw(chart).then(() => chart.live.on("plotly_hover", (event) => {
      chart.reading.textContent = plain(String(event.points[0].hovertext || event.points[0].text || ""));
    }));
    if (chart.choice) chart.choice.addEventListener("change", () => {
      remember(chart.live.parentNode.id, chart.choice.value);
      draw(chart);
    });
    chart.live.addEventListener("keydown", (event) => move(chart, event));
  }
  for (const media of [dark, narrow]) media.addEventListener("change", () => charts.forEach(draw));
  addEventListener("beforeprint", () => document.querySelectorAll("details").forEach((each) => { each.open = true; }));

  const again = document.querySelector("#again");
  if (again) {  // the page of a running sweep
    again.checked = remembered("again") !== "no";
    again.addEventListener("change", () => remember("again", again.checked ? "yes" : "no"));
    setInterval(() => { if (again.checked && !document.hidden) location.reload(); }, 30000);
  }
})();
