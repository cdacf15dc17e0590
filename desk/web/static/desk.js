// The next message is here before the last one is decided: a decision shows it at once, and is sent
// behind it. Without this script every button is a plain form.
"use strict";
(() => {
  const LEAVING_MS = 3000;
  const stage = document.querySelector("[data-stage]");
  const status = document.querySelector("[data-status]");
  const help = document.querySelector("[data-help-list]");
  const ahead = []; // messages that are held for this person and not on screen yet
  const unsent = new Set(); // items whose decisions are under way
  let line = Promise.resolve(); // requests go one after the other, in the order of the keys
  let shownAt = performance.now();
  let lost = false;
  let leftAt = -Infinity; // when the search page was asked for, which takes its time to come

  const task = () => stage && stage.querySelector(".task");
  const item = (element) => element.dataset.item;

  function say(words, bad) {
    if (!status) return;
    status.textContent = words;
    status.classList.toggle("bad", Boolean(bad));
  }

  function read(html) {
    const holder = document.createElement("template");
    holder.innerHTML = html; // from this desk alone, escaped there; the policy lets no script of it run
    return holder.content.querySelector(".task");
  }

  function show(element) {
    stage.replaceChildren(element);
    for (const each of element.querySelectorAll(".needs-script")) each.hidden = false;
    shownAt = performance.now();
    window.scrollTo(0, 0);
    element.querySelector(".text").focus({ preventScroll: true });
  }

  function onScreen() {
    const shown = task();
    return [...(shown ? [item(shown)] : []), ...ahead.map(item), ...unsent];
  }

  function take(html) {
    const element = html && read(html);
    if (!element || onScreen().includes(item(element))) return;
    if (task()) ahead.push(element);
    else show(element);
  }

  async function ask(address, options) {
    const answer = await fetch(address, { credentials: "same-origin", redirect: "error", ...options });
    const body = answer.status === 204 ? "" : await answer.text();
    if (!answer.ok) {
      const error = new Error(body);
      error.status = answer.status;
      throw error;
    }
    return body;
  }

  async function patiently(address, options) {
    // A decision can be sent again: its request id decides once.
    for (let tries = 0; ; tries += 1) {
      try {
        const body = await ask(address, options());
        if (tries) say("");
        return body;
      } catch (error) {
        if ((error.status && error.status !== 503) || tries > 20) throw error;
        say(status.dataset.offline, true);
        await new Promise((done) => setTimeout(done, Math.min(10000, 500 * 2 ** tries)));
      }
    }
  }

  function fields(form, values) {
    const sent = new URLSearchParams();
    for (const [name, value] of new FormData(form)) sent.append(name, value);
    for (const [name, value] of Object.entries(values)) sent.set(name, value);
    sent.set("part", "1");
    return sent;
  }

  function queueUp(work) {
    line = line.then(work).catch((error) => {
      lost = true;
      say(status.dataset.failed.replace("%", error.message || status.dataset.offline), true);
    });
    return line;
  }

  function prefetch() {
    const form = task().querySelector("form");
    queueUp(async () => {
      if (ahead.length || !task()) return;
      const asked = fields(form, { action: "next", beside: onScreen().join(",") });
      take(await ask("/review", { method: "POST", body: asked }));
    });
  }

  function decide(button) {
    const current = task();
    const form = current.querySelector("form");
    const seconds = ((performance.now() - shownAt) / 1000).toFixed(2);
    const sent = fields(form, { action: button.value, seconds });
    const id = item(current);
    unsent.add(id);
    say((button.querySelector(".label") || button.lastChild).textContent.trim());
    const next = ahead.shift();
    if (next) show(next);
    else current.remove();
    queueUp(async () => {
      try {
        const body = await patiently("/review", () => {
          sent.set("beside", onScreen().join(","));
          return { method: "POST", body: sent };
        });
        take(body);
      } finally {
        unsent.delete(id);
      }
      if (!task() && !unsent.size && !lost) location.reload();
    });
  }

  function undo(form) {
    const sent = fields(form, { action: "undo" });
    queueUp(async () => {
      const body = await patiently("/review", () => ({ method: "POST", body: sent }));
      if (!body) return location.assign("/adjudicate"); // where a dispute is decided
      const element = read(body);
      const current = task();
      if (current && item(current) !== item(element)) ahead.unshift(current);
      const again = ahead.findIndex((each) => item(each) === item(element));
      if (again >= 0) ahead.splice(again, 1);
      show(element);
      say(status.dataset.undone);
    });
  }

  // A page that is loaded claims nothing: this form does. The server marks it if the reviewer asked.
  const begin = document.querySelector("form[data-begin]");
  if (begin) begin.requestSubmit();

  if (stage) {
    for (const each of stage.querySelectorAll(".needs-script")) each.hidden = false;
    stage.addEventListener("submit", (event) => {
      const button = event.submitter;
      if (!button || !button.value) return;
      event.preventDefault();
      if (button.value === "undo") undo(event.target);
      else decide(button);
    });
    stage.addEventListener("click", (event) => {
      if (event.target.closest("[data-help]")) help.showModal();
    });
    window.addEventListener("beforeunload", (event) => {
      if (unsent.size) event.preventDefault();
    });
    prefetch();
  }

  // On a phone the navigation is wider than the screen: where one is should be in sight.
  const here = document.querySelector(".top nav [aria-current]");
  if (here) here.scrollIntoView({ block: "nearest", inline: "nearest" });

  const clusterForm = document.querySelector("form.cluster");
  for (const form of [clusterForm, document.querySelector("form.deciding[action='/adjudicate']")]) {
    if (!form) continue;
    form.addEventListener("formdata", (event) => {
      event.formData.set("seconds", ((performance.now() - shownAt) / 1000).toFixed(2));
    });
  }

  // The browser focuses it with its first picture, which a quick hand does not wait for.
  const first = document.querySelector("[autofocus]");
  if (first) first.focus();

  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || event.isComposing) return;
    const typing = event.target.closest("input, textarea, select");
    if (event.key === "Escape" && typing) {
      typing.blur();
      return;
    }
    if (typing || document.querySelector("dialog[open]") || event.repeat) return;
    if (performance.now() - leftAt < LEAVING_MS) return; // words to search for decide nothing
    if (event.key === "?" && help) {
      event.preventDefault();
      help.showModal();
    } else if (event.key === "/") {
      event.preventDefault();
      const words = document.querySelector("[data-search]");
      if (words) words.focus();
      else {
        leftAt = performance.now();
        location.assign("/search");
      }
    } else if (event.key === "m") {
      const note = document.querySelector("[data-note]");
      if (!note) return;
      event.preventDefault();
      note.focus();
    } else {
      const scope = document.querySelector("form.deciding, [data-keys]");
      const key = CSS.escape(event.key.toLowerCase());
      const button = scope && scope.querySelector(`[data-key="${key}"]:not([data-help])`);
      if (!button) return;
      event.preventDefault();
      button.click();
    }
  });
})();
