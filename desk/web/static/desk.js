// The next message is here before the last one is decided: a decision shows it at once, and is sent
// in the background. Without this script every button is a plain form.
"use strict";
(() => {
  const LEAVING_MS = 3000;
  const GUARD_MS = 200; // nobody reads a message faster: such a key was meant for the one before
  const UNSENT = "clerk-desk.unsent";
  const stage = document.querySelector("[data-stage]");
  const status = document.querySelector("[data-status]");
  const help = document.querySelector("[data-help-list]");
  const ahead = []; // messages that are held for this reviewer and not on screen yet
  const unsent = new Set(); // items whose decisions are under way
  let line = Promise.resolve(); // requests go one after the other, in the order of the keys
  let shownAt = performance.now();
  let signedOut = false;
  let position = 0; // of the message on screen, since the queue was opened
  let leftAt = -Infinity; // when the search page was asked for, which takes its time to come

  const item = (element) => element.dataset.item;
  const plain = (words) => words.toLowerCase().normalize("NFKD").replace(/\p{M}/gu, "");
  const wordsIn = (words) => plain(words).match(/[\p{L}\p{N}]+/gu) || [];
  const task = () => stage && stage.querySelector(".task:not([aria-busy])");

  // A browser may forbid storage: the page then forgets, and works.
  function remembered(store, name) {
    try {
      return window[store].getItem(name);
    } catch {
      return null;
    }
  }
  function remember(store, name, value) {
    try {
      window[store].setItem(name, value);
    } catch {
      // Nothing to do: see above.
    }
  }

  function say(words, bad) {
    if (!status) return;
    status.textContent = words;
    status.classList.toggle("bad", Boolean(bad));
  }

  let last; // what this reviewer said last, by the newest part of a page that came
  function showLast(where) {
    const older = where.querySelector("[data-last]");
    if (last && older && !older.contains(document.activeElement)) older.replaceWith(last.cloneNode(true));
  }

  function read(html) {
    const holder = document.createElement("template");
    holder.innerHTML = html; // from this desk alone, escaped there; the policy lets no script of it run
    last = holder.content.querySelector("[data-last]");
    showLast(stage);
    return holder.content.querySelector(".task, .empty");
  }

  function prepare(element) {
    for (const each of element.querySelectorAll(".needs-script")) each.hidden = false;
    const full = element.querySelector("[data-full]");
    if (full) full.checked = remembered("localStorage", "clerk-desk.full") === "on";
  }

  // What was searched for is marked where the browser can do that without a change of the page.
  function mark() {
    if (!window.Highlight) return;
    const ranges = [];
    for (const found of document.querySelectorAll("[data-words]")) {
      const asked = wordsIn(found.dataset.words);
      const walk = asked.length && document.createTreeWalker(found, NodeFilter.SHOW_TEXT);
      while (walk && walk.nextNode()) {
        if (!walk.currentNode.parentElement.closest(".text, .found .excerpt")) continue;
        for (const word of walk.currentNode.data.matchAll(/[\p{L}\p{N}]+/gu)) {
          const at = asked.findIndex((each) => plain(word[0]).startsWith(each));
          if (at < 0 || (at < asked.length - 1 && plain(word[0]) !== asked[at])) continue;
          const range = new Range();
          range.setStart(walk.currentNode, word.index);
          range.setEnd(walk.currentNode, word.index + word[0].length);
          ranges.push(range);
        }
      }
    }
    CSS.highlights.set("found", new Highlight(...ranges));
  }

  function show(element, at = position) {
    element.removeAttribute("aria-busy");
    element.inert = false;
    const place = element.querySelector("[data-at]");
    if (place) {
      position = at;
      place.textContent = at;
      element.querySelector("[name=done]").value = at - 1;
    }
    stage.replaceChildren(element);
    showLast(element);
    leaveAddress();
    prepare(element);
    mark();
    shownAt = performance.now();
    window.scrollTo(0, 0);
    const text = element.querySelector(".text");
    if (text) text.focus({ preventScroll: true });
  }

  // The stage is never blank: a decided message stays, greyed out, until there is another.
  function fade(element) {
    element.setAttribute("aria-busy", "true");
    element.inert = true;
  }

  // The address may name the first message. Loaded again, it would ask for that one once more.
  function leaveAddress() {
    const query = new URLSearchParams(location.search);
    for (const name of ["item", "answer", "done"]) query.delete(name);
    history.replaceState(null, "", query.size ? `/review?${query}` : "/review");
  }

  function onScreen() {
    const shown = task();
    return [...(shown ? [item(shown)] : []), ...ahead.map((each) => item(each.element)), ...unsent];
  }

  function take(html) {
    const element = read(html);
    if (!element) return;
    if (element.matches(".empty")) {
      if (!task()) show(element);
    } else if (!onScreen().includes(item(element))) {
      if (task()) ahead.push({ element, since: Date.now() });
      else show(element, position + 1);
    }
  }

  // What is held too long may be on somebody else's screen by now; the desk is asked again. The
  // clock is that of the wall: performance.now() may stand still while a computer sleeps.
  function nextAhead() {
    const next = ahead.shift();
    if (next && Date.now() - next.since < 1000 * next.element.dataset.heldS) return next.element;
    ahead.length = 0;
    return undefined;
  }

  async function ask(address, options) {
    const answer = await fetch(address, { credentials: "same-origin", redirect: "error", ...options });
    const body = await answer.text();
    if (!answer.ok) {
      const error = new Error(body);
      error.status = answer.status;
      throw error;
    }
    return body;
  }

  async function patiently(options) {
    // A decision can be sent again: its request id decides once.
    for (let tries = 0; ; tries += 1) {
      try {
        const body = await ask("/review", options());
        if (tries) say("");
        return body;
      } catch (error) {
        if ((error.status && error.status !== 503) || tries > 20) throw error;
        say(status.dataset.offline, true);
        await new Promise((done) => setTimeout(done, Math.min(10000, 500 * 2 ** tries)));
      }
    }
  }

  // Sends the answer to an item; what comes back is the next one, and none that is on screen.
  async function send(answer, id) {
    try {
      return await patiently(() => {
        answer.set("excluding", onScreen().filter((each) => each !== id).join(","));
        return { method: "POST", body: answer };
      });
    } finally {
      unsent.delete(id);
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
    line = line.then(work);
    return line;
  }

  async function fetchNext() {
    const asked = fields(stage.querySelector("form"), { action: "next", excluding: onScreen().join(",") });
    for (const name of ["item", "request", "note"]) asked.delete(name);
    take(await patiently(() => ({ method: "POST", body: asked })));
  }

  function prefetch() {
    queueUp(async () => {
      if (ahead.length || !task() || signedOut) return;
      try {
        await fetchNext();
      } catch (error) {
        // Nothing is lost by it, but an ended session is said before the next decision.
        if (error.status === 401) askToSignIn(task());
      }
    });
  }

  function wordsOf(button) {
    return (button.querySelector(".label") || button.lastChild).textContent.trim();
  }

  function decide(button) {
    const current = task();
    if (!current || signedOut) return;
    const form = current.querySelector("form");
    const seconds = ((performance.now() - shownAt) / 1000).toFixed(2);
    const sent = fields(form, { action: button.value, seconds });
    const id = item(current);
    const words = wordsOf(button);
    unsent.add(id);
    say(status.dataset.sent.replace("%", words));
    const next = nextAhead();
    if (next) show(next, position + 1);
    else fade(current);
    queueUp(async () => {
      try {
        take(await send(sent, id));
        // The message that came is on screen in another place, or held elsewhere: look once more.
        if (!task() && !stage.querySelector(".empty")) await fetchNext();
      } catch (error) {
        await notSaved(error, current, sent, words);
      }
    });
  }

  async function notSaved(error, element, sent, words) {
    if (error.status === 401 || error.status === 403) {
      keepForLater(sent, words);
      askToSignIn(element, sent.get("action"), words);
      return;
    }
    say(status.dataset.failed.replace("%", `${words}. ${error.message || status.dataset.offline}`), true);
    if (error.status === 409) {
      // Somebody else has the message: nothing is left to do with it.
      if (!task()) await fetchNext().catch(() => show(element));
      return;
    }
    const current = task();
    if (current && current !== element) ahead.unshift({ element: current, since: Date.now() });
    show(element);
  }

  // The answers of a reviewer whose session ended, until they are back in this tab.
  function keepForLater(sent, words) {
    const kept = JSON.parse(remembered("sessionStorage", UNSENT) || "[]");
    sent.delete("csrf");
    kept.push({ person: stage.dataset.person, words, sent: String(sent) });
    remember("sessionStorage", UNSENT, JSON.stringify(kept));
  }

  function askToSignIn(element, answer, words) {
    if (signedOut) return;
    signedOut = true;
    say(status.dataset.signedOut.replace("%", words || "–"), true);
    const back = fields(element.querySelector("form"), { item: item(element) });
    for (const name of ["csrf", "request", "note", "part", "action"]) back.delete(name);
    if (answer) back.set("answer", answer);
    const panel = document.querySelector("[data-sign-in]");
    // The page itself asks for the sign-in, by whichever method there is, and comes back.
    panel.querySelector("a").href = `/review?${back}`;
    panel.hidden = false;
    const chosen = answer && element.querySelector(`button[value="${CSS.escape(answer)}"]`);
    if (chosen) chosen.classList.add("pressed");
    ahead.length = 0;
    if (stage.firstElementChild !== element) stage.replaceChildren(element);
    fade(element);
    panel.querySelector("a").focus();
  }

  function resume() {
    const all = JSON.parse(remembered("sessionStorage", UNSENT) || "[]");
    const mine = all.filter((each) => each.person === stage.dataset.person);
    if (!mine.length) return;
    const rest = all.filter((each) => each.person !== stage.dataset.person);
    remember("sessionStorage", UNSENT, JSON.stringify(rest));
    const csrf = stage.querySelector("[name=csrf]").value;
    for (const { words, sent } of mine) {
      const again = new URLSearchParams(sent);
      again.set("csrf", csrf);
      const id = again.get("item");
      const current = task();
      const element = current && item(current) === id ? current : undefined;
      if (element) fade(element);
      unsent.add(id);
      queueUp(async () => {
        try {
          const body = await send(again, id);
          say(status.dataset.resumed.replace("%", words));
          take(body);
        } catch (error) {
          say(status.dataset.failed.replace("%", `${words}. ${error.message}`), true);
        }
        if (!task() && !stage.querySelector(".empty")) await fetchNext().catch(() => element && show(element));
      });
    }
  }

  function undo(form) {
    const sent = fields(form, { action: "undo" });
    queueUp(async () => {
      let body;
      try {
        body = await patiently(() => ({ method: "POST", body: sent }));
      } catch (error) {
        if (error.status === 401 && task()) askToSignIn(task());
        else say(status.dataset.failed.replace("%", error.message || status.dataset.offline), true);
        return;
      }
      if (body.startsWith("/adjudicate")) { // a dispute is decided on another page
        location.assign(body);
        return;
      }
      const element = read(body);
      const current = task();
      const at = Math.max(1, current ? position - 1 : position);
      if (current && item(current) !== item(element)) ahead.unshift({ element: current, since: Date.now() });
      const again = ahead.findIndex((each) => item(each.element) === item(element));
      if (again >= 0) ahead.splice(again, 1);
      show(element, at);
      say(status.dataset.undone);
    });
  }

  const tooSoon = () => performance.now() - shownAt < GUARD_MS;

  document.addEventListener("submit", (event) => {
    if (!event.target.matches("form.deciding") || !tooSoon()) return;
    event.preventDefault();
    event.stopPropagation();
    if (status) say(status.dataset.tooSoon);
  }, true);
  // A page that is loaded claims nothing: this form does. The server marks it if the reviewer asked.
  const begin = document.querySelector("form[data-begin]");
  if (begin) begin.requestSubmit();

  if (stage) {
    prepare(stage);
    const shown = stage.querySelector("[data-at]");
    position = shown ? Number(shown.textContent) : 0;
    stage.addEventListener("submit", (event) => {
      const button = event.submitter;
      if (!button || !button.value) return;
      event.preventDefault();
      if (button.value === "undo") undo(event.target);
      else decide(button);
    });
    window.addEventListener("beforeunload", (event) => {
      if (unsent.size) event.preventDefault();
    });
    resume();
    prefetch();
  }
  prepare(document.querySelector(".top"));
  mark();

  // On a phone the navigation is wider than the screen: the current page's name is scrolled into view.
  const here = document.querySelector(".top nav [aria-current]");
  if (here) here.scrollIntoView({ block: "nearest", inline: "nearest" });

  const clusterForm = document.querySelector("form.cluster");
  for (const form of [clusterForm, document.querySelector("form.deciding[action='/adjudicate']")]) {
    if (!form) continue;
    prepare(form);
    form.addEventListener("formdata", (event) => {
      event.formData.set("seconds", ((performance.now() - shownAt) / 1000).toFixed(2));
    });
  }

  // The browser focuses it with its first frame, which a quick hand does not wait for.
  const first = document.querySelector("[autofocus]");
  if (first) first.focus();

  document.addEventListener("click", (event) => {
    if (event.target.closest("[data-help]") && help) help.showModal();
  });
  document.addEventListener("change", (event) => {
    if (event.target.matches("[data-full]")) {
      remember("localStorage", "clerk-desk.full", event.target.checked ? "on" : "off");
    } else if (event.target.matches("[data-single]")) {
      remember("localStorage", "clerk-desk.keys", event.target.checked ? "on" : "off");
      obeyKeys();
    }
  });

  // WCAG 2.1.4: single keys can be turned off, for speech input and for hands that slip.
  const areKeysOff = () => remembered("localStorage", "clerk-desk.keys") === "off";
  function obeyKeys() {
    document.documentElement.classList.toggle("no-keys", areKeysOff());
    const box = document.querySelector("[data-single]");
    if (box) box.checked = !areKeysOff();
  }
  obeyKeys();

  // More labels than anyone remembers keys for: the field leaves those that what is typed may mean,
  // the best first. Letters, digits and order count, spaces and one slip of the finger do not.

  // Whether a word, or its beginning, is what was typed but for one letter that is wrong, missing,
  // too many, or changed places with the next.
  function nearly(typed, word) {
    if (typed.length < 3) return false;
    let at = 0;
    while (at < typed.length && typed[at] === word[at]) at += 1;
    const rest = typed.slice(at);
    return word.startsWith(rest.slice(1), at + 1) || word.startsWith(rest, at + 1)
      || word.startsWith(rest.slice(1), at)
      || word.startsWith((rest[1] || "") + rest[0] + rest.slice(2), at);
  }

  function rank(button, typed) {
    const asked = wordsIn(typed);
    const name = wordsIn(button.querySelector(".label").textContent);
    const all = (fits) => asked.every((each) => name.some((word) => fits(word, each)));
    const joined = asked.join("");
    if (joined === button.dataset.code) return 0;
    if (name.join("").startsWith(joined)) return 1;
    if (all((word, each) => word.startsWith(each))) return 2;
    if (name.join("").includes(joined)) return 3;
    if (all((word, each) => word.startsWith(each) || nearly(each, word))) return 4;
    return plain(button.querySelector(".description").textContent).includes(asked.join(" ")) ? 5 : 6;
  }

  const places = new WeakMap(); // of the labels in their list, as the desk ordered them
  document.addEventListener("input", (event) => {
    if (!event.target.matches("[data-filter]")) return;
    const typed = event.target.value.trim();
    const list = event.target.closest("fieldset").querySelector(".choices");
    const ranked = [...list.children].map((each, at) => {
      if (!places.has(each)) places.set(each, at);
      return { each, place: places.get(each), rank: wordsIn(typed).length ? rank(each, typed) : 0 };
    });
    ranked.sort((one, other) => one.rank - other.rank || one.place - other.place);
    // A slip counts where nothing else fits, and descriptions where no name does.
    const worst = Math.max(3, Math.min(5, ranked[0].rank));
    for (const { each, rank: found } of ranked) {
      each.hidden = found > worst;
      each.classList.toggle("first", Boolean(typed) && each === ranked[0].each);
    }
    list.append(...ranked.map(({ each }) => each));
    list.scrollTop = 0;
    event.target.closest("fieldset").querySelector("[data-no-match]").hidden = ranked[0].rank <= worst;
  });

  const shownIn = (list) => [...list.querySelectorAll("button:not([hidden])")];
  function inFilter(event) {
    const list = event.target.closest("fieldset").querySelector(".choices");
    const first = shownIn(list)[0];
    if (event.key === "Enter") {
      event.preventDefault();
      if (event.target.value.trim() && first) first.click();
    } else if (event.key === "ArrowDown") {
      focus(event, first);
    } else if (event.key === "Escape") {
      event.target.value = "";
      event.target.dispatchEvent(new Event("input", { bubbles: true }));
    }
  }

  // Arrows go from label to label as they lie on the screen; upwards from the first row, back to the
  // field.
  function goTo(event, button) {
    const list = button.closest(".choices");
    const all = shownIn(list);
    const row = all.findIndex((each) => each.offsetTop !== all[0].offsetTop);
    const steps = { ArrowLeft: -1, ArrowRight: 1, ArrowUp: -row, ArrowDown: row };
    const step = steps[event.key] * (row < 0 ? 0 : 1) || steps[event.key];
    const there = all[all.indexOf(button) + step];
    focus(event, there || (step < 0 && list.closest("fieldset").querySelector("[data-filter]")));
  }

  // Up and down among the last answers, and back to the message.
  function goBack(event, answer) {
    const all = [...stage.querySelectorAll("[data-last] button")];
    const step = { ArrowUp: -1, ArrowDown: 1 }[event.key];
    focus(event, step ? all[all.indexOf(answer) + step] : stage.querySelector(".text"));
  }

  // The letter or digit of a key. Where the layout has another character on it (digits on a French
  // keyboard, letters on a Russian one), its place on a US keyboard says which.
  function characterOf(event) {
    if (/^[a-z0-9]$/i.test(event.key)) return event.key.toLowerCase();
    const place = /^(?:Digit|Numpad|Key)([0-9A-Z])$/.exec(event.code);
    return place && !event.shiftKey ? place[1].toLowerCase() : "";
  }

  function focus(event, element) {
    if (!element) return;
    event.preventDefault();
    element.focus();
  }

  const WRITES = "textarea, select, input:not([type=checkbox])";
  const PRESSED = "a, button, summary, input";
  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || event.isComposing) return;
    const typing = event.target.closest(WRITES);
    if (typing && typing.matches("[data-filter]")) inFilter(event);
    if (event.key === "Escape" && typing) {
      typing.blur();
      return;
    }
    if (typing || document.querySelector("dialog[open]") || event.repeat || areKeysOff()) return;
    if (performance.now() - leftAt < LEAVING_MS) return; // words to search for decide nothing
    const chosen = event.target.closest(".choices button");
    const answer = event.target.closest("[data-last] button");
    if (chosen && event.key.startsWith("Arrow")) {
      goTo(event, chosen);
    } else if (answer && event.key.startsWith("Arrow")) {
      goBack(event, answer);
    } else if (stage && event.key === "ArrowLeft") {
      focus(event, stage.querySelector("[data-last] button"));
    } else if (event.key === "Enter") {
      const accepted = document.querySelector("form.deciding [data-enter]");
      if (!accepted || event.target.closest(PRESSED)) return;
      event.preventDefault();
      accepted.click();
    } else if (event.key === "?" && help) {
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
    } else {
      const key = characterOf(event);
      const scope = document.querySelector("form.deciding, [data-keys]");
      const button = key && scope && scope.querySelector(`[data-key="${key}"]`);
      if (button) {
        event.preventDefault();
        button.click();
      } else if (key === "m") focus(event, document.querySelector("[data-note]"));
      else if (key === "l") focus(event, document.querySelector("[data-filter]"));
    }
  });

  // How far work in the background is: the page asks again until it is done.
  async function lookAgain() {
    const shown = document.querySelector("[data-again]");
    if (!shown) return;
    await new Promise((done) => setTimeout(done, 1000 * shown.dataset.again));
    try {
      const page = new DOMParser().parseFromString(await ask(location.href, {}), "text/html");
      shown.replaceWith(page.getElementById(shown.id) || "");
    } catch (error) {
      if (error.status && error.status !== 503) return;
    }
    lookAgain();
  }
  lookAgain();
})();
