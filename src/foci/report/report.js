"use strict";
// The probe table, the switch of the token colours and the tooltips. Text of the run is only ever set as text.
(() => {
  const $ = (id) => document.getElementById(id);
  const make = (tag, text, name) => {
    const node = document.createElement(tag);
    if (text !== undefined) node.textContent = text;
    if (name) node.className = name;
    return node;
  };

  const COLUMNS = [
    { key: "arm", title: "Arm", name: "name" },
    { key: "verdict", title: "Outcome", name: "outcome" },
    { key: "prompt", title: "Prompt", name: "prompt" },
    { key: "answer", title: "Answer", name: "said" },
    { key: "before", title: "Said before", name: "said" },
    { key: "after", title: "Said after", name: "said" },
    { key: "nllBefore", title: "NLL before", name: "num" },
    { key: "nllAfter", title: "NLL after", name: "num" },
    { key: "role", title: "Probe to", name: "name" },
    { key: "kind", title: "Kind", name: "name" },
    { key: "group", title: "Group", name: "name" },
  ];
  const FIELDS = ["arm", "role", "kind", "group", "prompt", "answer", "before", "after", "verdict", "id", "evidence", "source"];
  const ALL = { verdict: "all outcomes", role: "both", kind: "all kinds", group: "all groups", arm: "all arms" };
  const SIGNS = { "newly right": "+", forgotten: "−", "still right": "=", "still wrong": "·", "never read": "∅",
    "says what it said before": "·", "read, not recalled in other words": "·", "read, not recalled": "·" };
  const LONG = 320;

  function probes(data, marks) {
    const rows = data.rows.map((row) => {
      const one = {};
      FIELDS.forEach((field, i) => { one[field] = data.texts[row[i]]; });
      [one.nllBefore, one.nllAfter, one.counted] = row.slice(FIELDS.length);
      one.search = [one.prompt, one.answer, one.before, one.after, one.id, one.evidence, one.source].join("\n").toLowerCase();
      return one;
    });
    const form = $("filters"), table = $("probe-table"), size = $("page-size");
    const head = table.tHead.insertRow(), body = table.tBodies[0];
    let shown = rows, sort = { key: null, down: false }, page = 0;

    const compare = new Intl.Collator("en", { numeric: true }).compare;
    function sorted(found) {
      if (!sort.key) return found;
      const sign = sort.down ? -1 : 1;
      return [...found].sort((a, b) => {
        const x = a[sort.key], y = b[sort.key];
        if (x === null || y === null) return (x === null) - (y === null);
        return sign * (typeof x === "number" ? x - y : compare(x, y));
      });
    }

    function cell(row, column) {
      const value = row[column.key];
      const td = make("td", undefined, column.name);
      if (column.name === "num") td.textContent = value === null ? "–" : value.toFixed(2);
      else if (column.key === "arm") td.append(marks(value));
      else if (column.key === "verdict") {
        td.textContent = (value in SIGNS ? SIGNS[value] + "\u00a0" : "") + value + (row.counted ? "" : " (not counted)");
        td.classList.add(value.replace(/[ ,]+/g, "-"));
      } else if (value.length > LONG) {
        const details = make("details");
        details.append(make("summary", "… " + value.slice(-LONG)), value);
        td.append(details);
      } else td.textContent = value === "" ? "–" : value;
      if (column.key === "prompt" && (row.evidence || row.source)) {
        const from = make("p", undefined, "evidence");
        if (row.evidence) from.append(make("q", row.evidence));
        if (row.source) from.append(make("cite", row.source));
        td.append(from);
      }
      return td;
    }

    function draw() {
      const per = Number(size.value), pages = Math.max(1, Math.ceil(shown.length / per));
      page = Math.min(Math.max(page, 0), pages - 1);
      body.replaceChildren(...shown.slice(page * per, (page + 1) * per).map((row) => {
        const tr = make("tr");
        tr.append(...COLUMNS.map((column) => cell(row, column)));
        return tr;
      }));
      const said = shown.length === rows.length ? "" : ` of ${rows.length}`;
      $("probe-status").textContent = `${shown.length}${said} answers to probes`;
      $("page-label").textContent = `page ${page + 1} of ${pages}`;
      const [back, next] = $("pages").querySelectorAll("button");
      back.disabled = page === 0;
      next.disabled = page === pages - 1;
    }

    function filter() {
      const wanted = new FormData(form);
      const words = wanted.get("text").toLowerCase().split(/\s+/).filter(Boolean);
      const exact = Object.keys(ALL).filter((key) => wanted.get(key) !== "");
      shown = sorted(rows.filter((row) =>
        exact.every((key) => row[key] === wanted.get(key).slice(1)) &&
        words.every((word) => row.search.includes(word)) &&
        (!wanted.get("counted") || row.counted)));
      page = 0;
      draw();
    }

    for (const column of COLUMNS) {
      const th = make("th", undefined, column.name === "num" ? "num" : undefined);
      th.scope = "col";
      const button = make("button", column.title);
      button.type = "button";
      button.addEventListener("click", () => {
        sort = { key: column.key, down: sort.key === column.key && !sort.down };
        for (const other of head.cells) other.removeAttribute("aria-sort");
        th.setAttribute("aria-sort", sort.down ? "descending" : "ascending");
        filter();
      });
      th.append(button);
      head.append(th);
    }
    for (const [key, all] of Object.entries(ALL)) {
      const select = form.elements[key];
      select.append(new Option(all, ""));
      const values = [...new Set(rows.map((row) => row[key]))];
      if (key !== "arm") values.sort(compare);
      // "=" keeps a value that is the empty string apart from "all".
      for (const value of values) select.append(new Option(value === "" ? "(none)" : value, "=" + value));
    }
    form.addEventListener("input", filter);
    form.addEventListener("reset", () => setTimeout(filter));
    form.addEventListener("submit", (event) => event.preventDefault());
    size.addEventListener("change", draw);
    $("pages").addEventListener("click", (event) => {
      if (!event.target.dataset.go) return;
      page += Number(event.target.dataset.go);
      draw();
    });
    for (const node of [form, table, $("pages")]) node.hidden = false;
    draw();
  }

  if ($("probe-data")) {
    const known = new Map([...document.querySelectorAll("#before-after tbody .arm")].map((n) => [n.textContent, n]));
    probes(JSON.parse($("probe-data").textContent), (name) => {
      const node = known.get(name);
      return node ? node.cloneNode(true) : document.createTextNode(name);
    });
  }

  if ($("show")) {
    $("show").hidden = false;
    $("show").addEventListener("change", (event) => { $("samples").dataset.show = event.target.value; });
  }

  const tip = $("tip");
  function words(node) {
    if (node.dataset.tip) return node.dataset.tip;
    const read = (name) => node.style.getPropertyValue(name).trim();
    const nll = [read("--b"), read("--a")].map((v) => (v === "" ? "–" : Number(v).toFixed(2)));
    const surprise = nll.every((v) => v === "–") ? "no NLL" : `NLL ${nll[0]} → ${nll[1]} nats`;
    return `weight ${read("--w") === "" ? "–" : Number(read("--w")).toFixed(2)} · ${surprise}`;
  }
  document.addEventListener("pointerover", (event) => {
    const node = event.target.closest(".point, .tokens span");
    tip.hidden = !node;
    if (!node) return;
    tip.textContent = words(node);
    const box = node.getBoundingClientRect(), own = tip.getBoundingClientRect();
    const left = Math.min(Math.max(4, event.clientX - own.width / 2), innerWidth - own.width - 4);
    const top = box.top - own.height - 6 > 0 ? box.top - own.height - 6 : box.bottom + 6;
    tip.style.transform = `translate(${left}px, ${top}px)`;
  });
  document.addEventListener("scroll", () => { tip.hidden = true; }, { passive: true });
  addEventListener("beforeprint", () => {
    for (const node of document.querySelectorAll("section > details, #samples > details")) node.open = true;
  });
})();
