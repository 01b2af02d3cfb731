// What the pages do without asking the server: the address, downloads, and the board's keys.
(() => {
  "use strict";
  const own = (window.transferzoo = {});
  const params = () => new URLSearchParams(location.search);

  // ------------------------------------------------------------------ every view is a link

  let touched = false; // has the visitor done anything since the page came, or went back?
  let typed = false; // was the last change of the address one of the search alone?
  let shown = params();
  for (const kind of ["pointerdown", "keydown", "input"])
    addEventListener(kind, () => { touched = true; }, true);

  const different = (a, b) =>
    [...new Set([...a.keys(), ...b.keys()])].filter((k) => a.get(k) !== b.get(k));

  function go(next) {
    const keys = different(params(), next);
    if (!keys.length) return;
    const typing = keys.length === 1 && keys[0] === "search";
    const quiet = !touched || (typing && typed); // one step back undoes a whole word
    typed = typing;
    const text = next.toString();
    history[quiet ? "replaceState" : "pushState"](null, "", text ? "?" + text : location.pathname);
    shown = params();
  }

  // The parameters called `names` become those of `query`; others stay as they are.
  own.put = (query, names) => {
    const next = params();
    for (const name of names) next.delete(name);
    for (const [name, value] of new URLSearchParams(query)) next.set(name, value);
    go(next);
  };

  // A page's choices: values as components have them, in the order of names.
  own.choose = (names, values) => {
    const pairs = names.map((name, i) => [name, values[i]]);
    const kept = pairs.filter(([, v]) => v !== null && v !== undefined && v !== "");
    own.put(new URLSearchParams(kept.map(([n, v]) => [n, String(v)])), names);
  };

  let moving = false; // a tab is opened by the address, not by the visitor
  function openTab(id) {
    const tab = document.querySelector(`[role=tab][data-tab-id="${CSS.escape(id)}"]`);
    if (!tab || tab.getAttribute("aria-selected") === "true") return;
    moving = true;
    tab.click();
    moving = false;
  }
  addEventListener("click", (event) => {
    const tab = event.target.closest?.("[role=tab][data-tab-id]");
    if (!tab || moving) return;
    const next = params();
    if (tab.dataset.tabId === "leaderboard") next.delete("tab");
    else next.set("tab", tab.dataset.tabId);
    go(next);
  }, true);
  own.arrive = () => openTab(params().get("tab") || "leaderboard");
  addEventListener("popstate", () => {
    touched = typed = false;
    const now = params();
    const keys = different(shown, now);
    shown = now;
    if (keys.includes("tab")) own.arrive();
    if (keys.some((key) => key !== "tab")) document.querySelector("#restore")?.click();
  });
  // Once the choices are those of the address: the open page is drawn anew.
  own.restored = () =>
    document.getElementById(`again-${params().get("tab") || "leaderboard"}`)?.click();

  // ------------------------------------------------------------------ copies and downloads

  own.say = (text) => {
    const place = document.querySelector("#told-aloud");
    if (!place) return;
    place.textContent = text;
    setTimeout(() => { if (place.textContent === text) place.textContent = ""; }, 2500);
  };
  own.copyLink = async () => {
    try {
      await navigator.clipboard.writeText(location.href);
      own.say("Link copied");
    } catch {
      own.say("The link is in the address bar");
    }
  };
  const offer = (name, blob) => {
    const link = Object.assign(document.createElement("a"), {
      href: URL.createObjectURL(blob), download: name,
    });
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 10000);
  };
  own.save = (name, text, type) => { if (text) offer(name, new Blob([text], { type })); };
  own.saveBytes = (name, base64, type) => {
    if (!base64) return;
    const bytes = Uint8Array.from(atob(base64), (c) => c.charCodeAt(0));
    offer(name, new Blob([bytes], { type }));
  };
  // A table as CSV; what a spreadsheet would take for a formula is quoted.
  own.csv = (table, name) => {
    const cell = (value) => {
      let text = value === null || value === undefined ? "" : String(value);
      if (typeof value === "string" && /^[=+\-@\t\r]/.test(text) && isNaN(text)) text = "'" + text;
      return /[",\n\r]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
    };
    const rows = [table?.headers ?? [], ...(table?.data ?? [])];
    own.save(name, rows.map((row) => row.map(cell).join(",")).join("\n") + "\n", "text/csv");
  };

  const colours = () => {
    const style = getComputedStyle(document.body);
    return {
      ink: style.getPropertyValue("--body-text-color").trim() || "#1b2430",
      paper: style.getPropertyValue("--body-background-fill").trim() || "#ffffff",
    };
  };
  const file = (element) =>
    `transferzoo-${element.closest("[id]:not([id^=html-])")?.id || "plot"}`;
  function savePlot(plot, format) {
    const { ink, paper } = colours();
    const layout = { ...plot.layout, paper_bgcolor: paper, font: { ...plot.layout.font, color: ink } };
    window.Plotly.downloadImage({ data: plot.data, layout }, {
      format, filename: file(plot), width: plot.clientWidth, height: plot.clientHeight,
      ...(format === "png" ? { scale: 2 } : {}),
    });
  }
  // A drawing of our own: the colours that the page gave it are written into it.
  function saveDrawing(drawing, format) {
    const copy = drawing.cloneNode(true);
    const sources = [drawing, ...drawing.querySelectorAll("*")];
    [copy, ...copy.querySelectorAll("*")].forEach((node, i) => {
      const style = getComputedStyle(sources[i]);
      for (const name of ["fill", "stroke", "font-size", "font-family", "font-weight", "opacity"])
        node.style.setProperty(name, style.getPropertyValue(name));
    });
    const { width, height } = drawing.getBoundingClientRect();
    copy.setAttribute("xmlns", "http://www.w3.org/2000/svg");
    copy.setAttribute("width", width);
    copy.setAttribute("height", height);
    copy.style.background = colours().paper;
    const text = new XMLSerializer().serializeToString(copy);
    if (format === "svg") return own.save(`${file(drawing)}.svg`, text, "image/svg+xml");
    const image = new Image();
    image.onload = () => {
      const canvas = Object.assign(document.createElement("canvas"),
        { width: 2 * width, height: 2 * height });
      const pen = canvas.getContext("2d");
      pen.fillStyle = colours().paper;
      pen.fillRect(0, 0, canvas.width, canvas.height);
      pen.drawImage(image, 0, 0, canvas.width, canvas.height);
      canvas.toBlob((blob) => offer(`${file(drawing)}.png`, blob));
    };
    image.src = "data:image/svg+xml;charset=utf-8," + encodeURIComponent(text);
  }

  // Under each plot, drawing and table: its link and its files.
  const button = (label, title, act) => {
    const made = document.createElement("button");
    Object.assign(made, { type: "button", className: "tool", textContent: label, title });
    made.addEventListener("click", act);
    return made;
  };
  function tools(block, makers) {
    if (block.querySelector(":scope > .tools")) return;
    const bar = document.createElement("div");
    bar.className = "tools";
    bar.append(button("Copy link", "Copy the address of this view", own.copyLink), ...makers());
    block.append(bar);
  }
  function equip() {
    for (const plot of document.querySelectorAll(".js-plotly-plot")) {
      const block = plot.closest(".block");
      if (block) tools(block, () => ["png", "svg"].map((format) =>
        button(format.toUpperCase(), `Download this plot as ${format.toUpperCase()}`, () => {
          const now = block.querySelector(".js-plotly-plot");
          if (now) savePlot(now, format);
        })));
    }
    for (const drawing of document.querySelectorAll("svg.drawing")) {
      const block = drawing.closest("figure");
      if (block) tools(block, () => ["png", "svg"].map((format) =>
        button(format.toUpperCase(), `Download this plot as ${format.toUpperCase()}`, () => {
          const now = block.querySelector("svg.drawing");
          if (now) saveDrawing(now, format);
        })));
    }
    // A table of our own: what its cells say, to a screen reader too.
    for (const ranks of document.querySelectorAll("#ranks table")) {
      const words = (cell) => (cell.querySelector("[aria-label]")?.ariaLabel
        ?? (cell.querySelector(".model > span") ?? cell).innerText).trim();
      tools(ranks.parentElement, () => [button("CSV", "Download this table as CSV", () => {
        const [headers, ...data] = [...ranks.rows].map((row) => [...row.cells].map(words));
        own.csv({ headers, data }, "models.csv");
      })]);
    }
    // Gradio labels a plot that is not there yet without saying what it is.
    for (const empty of document.querySelectorAll("div.empty[aria-label]:not([role])"))
      empty.setAttribute("role", "img");
    // Models whose first result came after the visitor's last visit.
    for (const row of document.querySelectorAll("#board tr[data-created]")) {
      if (!own.lastVisit || !(new Date(row.dataset.created) > new Date(own.lastVisit))) continue;
      const place = row.querySelector("td.name > span");
      if (!place || place.querySelector(".fresh")) continue;
      const badge = Object.assign(document.createElement("span"), {
        className: "badge fresh", textContent: "new",
        title: `scored since your last visit, ${own.lastVisit.slice(0, 10)}`,
      });
      place.append(badge);
    }
    for (const hidden of document.querySelectorAll("button[id^='csv-of-']")) {
      const block = document.getElementById(hidden.id.slice("csv-of-".length));
      if (block?.querySelector("table")) tools(block, () => [
        button("CSV", "Download this table as CSV", () => hidden.click()),
      ]);
    }
  }
  let due = 0;
  const later = () => { clearTimeout(due); due = setTimeout(equip, 150); };
  const start = () => {
    new MutationObserver(later).observe(document.body, { childList: true, subtree: true });
    later();
  };
  if (document.body) start();
  else addEventListener("DOMContentLoaded", start);

  // ------------------------------------------------------------------ the board

  // Arrow keys go from number to number; the tab key enters and leaves the board.
  own.board = (element, trigger) => {
    element.addEventListener("click", (event) => {
      const hit = event.target.closest("[data-task], [data-sort], [data-page]");
      if (!hit) return;
      if (hit.dataset.task !== undefined) {
        const { model, task } = hit.dataset;
        own.put(new URLSearchParams({ receipt: `${model}|${task}` }), ["receipt"]);
        trigger("select", { model, task });
      } else if (hit.dataset.sort !== undefined) trigger("click", { sort: hit.dataset.sort });
      else trigger("submit", { page: Number(hit.dataset.page) });
    });
    element.addEventListener("keydown", (event) => {
      const step = { ArrowLeft: [0, -1], ArrowRight: [0, 1], ArrowUp: [-1, 0], ArrowDown: [1, 0] };
      const cell = event.target.closest("td");
      if (!step[event.key] || !cell) return;
      const rows = [...element.querySelectorAll("tbody tr")];
      let [row, column] = [rows.indexOf(cell.parentElement), cell.cellIndex];
      for (;;) { // over gaps, to the next number
        row += step[event.key][0];
        column += step[event.key][1];
        const next = rows[row]?.cells[column];
        if (!next) break;
        const target = next.querySelector("button[data-task]");
        if (target) {
          event.target.tabIndex = -1;
          target.tabIndex = 0;
          target.focus();
          break;
        }
      }
      event.preventDefault();
    });
  };
  // Since when has the visitor not been here? Kept in their browser alone.
  own.lastVisit = (() => {
    const key = "transferzoo-last-visit";
    let last = "";
    try {
      last = sessionStorage.getItem(key) ?? localStorage.getItem(key) ?? "";
      sessionStorage.setItem(key, last);
      localStorage.setItem(key, new Date().toISOString());
    } catch { /* a browser that keeps nothing: nothing is new */ }
    return last;
  })();
  own.closeReceipt = () => own.put("", ["receipt"]);
})();
