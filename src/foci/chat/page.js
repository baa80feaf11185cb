"use strict";
// Every text of a model or a document enters the page as text (textContent), never as markup.

const at = (id) => document.getElementById(id);
const question = at("question");
let facts = { arm: "", history: [] };

function exchange(text) {
  const made = at("exchange").content.cloneNode(true).firstElementChild;
  made.querySelector(".question").textContent = text;
  const names = ["untouched", `learned \u00b7 ${facts.arm}`];
  made.querySelectorAll(".answer h3").forEach((head, side) => { head.textContent = names[side]; });
  at("said").append(made);
  at("hello").hidden = true;
  return made;
}

function finish(made, told) {
  made.querySelectorAll(".answer").forEach((side) => side.classList.remove("writing"));
  const passage = made.querySelector(".passage"), notice = made.querySelector(".notice");
  if (told.passage) {
    passage.querySelector("cite").textContent = told.passage.source;
    passage.querySelector("blockquote").textContent = told.passage.shown;
    passage.hidden = false;
  }
  const none = told.passage === null ? "No passage of the corpus has a word of the question." : "";
  const words = told.error || [told.stopped ? "Stopped." : "", none, told.notice || ""].filter(Boolean).join(" ");
  notice.textContent = words;
  notice.hidden = !words;
}

function add(made, piece) {
  const side = made.querySelectorAll(".answer")[piece.side], text = side.querySelector(".text");
  text.textContent = (text.textContent + piece.text).trimStart();
  side.classList.toggle("writing", !piece.ended);
}

function busy(is) {
  at("send").hidden = is;
  at("stop").hidden = !is;
  at("reset").disabled = is;
}

function below() { return innerHeight + scrollY > document.documentElement.scrollHeight - 160; }
function down() { scrollTo({ top: document.documentElement.scrollHeight }); }

async function* events(answer) {
  const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    const { value, done } = await reader.read();
    if (done) return;
    const parts = (rest + value).split("\n\n");
    rest = parts.pop();
    for (const part of parts) yield JSON.parse(part.replace(/^data: /, ""));
  }
}

const post = (path, body) => fetch(path, { method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(body) });

async function ask(text) {
  const made = exchange(text);
  made.querySelectorAll(".answer").forEach((side) => side.classList.add("writing"));
  busy(true);
  down();
  try {
    const answer = await post("/ask", { question: text });
    if (!answer.ok) throw new Error((await answer.json()).error);
    for await (const event of events(answer)) {
      const follow = below();
      if ("side" in event) add(made, event); else finish(made, event);
      if (follow) down();
    }
  } catch (error) {
    finish(made, { error: error instanceof TypeError ? "foci chat no longer runs; start it again." : error.message });
  } finally {
    made.querySelectorAll(".answer").forEach((side) => side.classList.remove("writing"));
    busy(false);
    question.focus();
  }
}

function grow() {
  question.style.height = "auto";
  question.style.height = `${question.scrollHeight + 2}px`;
}

at("composer").addEventListener("submit", (event) => {
  event.preventDefault();
  const text = question.value.trim();
  if (!text || at("send").hidden) return;
  question.value = "";
  grow();
  ask(text);
});
question.addEventListener("input", grow);
question.addEventListener("keydown", (event) => {
  if (event.key === "Enter" && !event.shiftKey && !event.isComposing) {
    event.preventDefault();
    at("composer").requestSubmit();
  }
});
at("stop").addEventListener("click", () => post("/halt", {}));
at("reset").addEventListener("click", async () => {
  if (!(await post("/reset", {})).ok) return;
  at("said").replaceChildren();
  at("hello").hidden = false;
  question.focus();
});

const tabs = [...document.querySelectorAll("[role=tab]")];
function choose(tab) {
  for (const one of tabs) {
    const is = one === tab;
    one.setAttribute("aria-selected", String(is));
    one.tabIndex = is ? 0 : -1;
    at(one.getAttribute("aria-controls")).hidden = !is;
  }
  if (tab.id === "tab-report" && !at("report").firstChild) report();
}
function report() {
  const made = document.createElement(facts.report ? "iframe" : "p");
  if (facts.report) Object.assign(made, { src: "/report", title: "The run's report" }); 
  else made.textContent = "This run has no report yet. Write it with: foci report RUN";
  if (facts.report) made.setAttribute("sandbox", "allow-scripts");
  at("report").append(made);
}
for (const tab of tabs) {
  tab.addEventListener("click", () => choose(tab));
  tab.addEventListener("keydown", (event) => {
    if (!["ArrowLeft", "ArrowRight"].includes(event.key)) return;
    const other = tabs[(tabs.indexOf(tab) + 1) % tabs.length];
    choose(other);
    other.focus();
  });
}

fetch("/facts").then((answer) => answer.json()).then((told) => {
  facts = told;
  document.title = `${told.run} \u2013 foci chat`;
  at("run").textContent = told.run;
  at("about").textContent = `${told.model} as it was, beside what arm ${told.arm} learned. ` +
    (told.remembers ? "Each remembers what was said." : "Each text is completed by itself: the model has no chat template.") +
    " The nearest passage of your pages stands below the answers.";
  for (const one of told.history) {
    const made = exchange(one.question);
    one.answers.forEach((text, side) => add(made, { side, text, ended: true }));
    finish(made, one);
  }
});
